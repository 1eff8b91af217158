//! The types that cross the boundary between host and plugin.
//!
//! Invariants:
//! * A shared object first shows a frozen C header ([`header`]), then the `abi_stable` root module ([`root`]).
//! * The major version must match; a minor version only appends (prefix types and trait objects grow at their
//!   end; JSON documents gain optional fields).
//! * Bulk data (tensors, tokens, scores) crosses as typed memory; what describes it crosses as JSON.
//! * Whoever allocated something frees it: every owning type carries its own deleter.
//! * No panic crosses: both sides catch and turn it into an [`error::AbiError`].

#![allow(
    missing_docs,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    non_local_definitions,
    reason = "abi_stable's macros generate public items without documentation, and unsafe code"
)]

pub mod engine;
pub mod error;
pub mod header;
pub mod host;
pub mod method;
pub mod quantized;
pub mod root;
pub mod runner;
pub mod tensor;

/// ABI major version: host and plugin must have the same.
pub const ABI_MAJOR: u32 = 1;
/// ABI minor version: a host accepts plugins of its own minor version and of older ones.
pub const ABI_MINOR: u32 = 0;
