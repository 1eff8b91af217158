//! Errors as they cross the boundary.

use abi_stable::StableAbi;
use abi_stable::std_types::{RResult, RString};

/// An error: a kind that the host acts on, and one line for a person.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct AbiError {
    /// One of [`kind`]'s numbers; unknown numbers are treated as [`kind::FAILED`].
    pub kind: u32,
    /// What was wrong, where, and what to do.
    pub message: RString,
}

/// Result of every call across the boundary.
pub type AbiResult<T> = RResult<T, AbiError>;

/// Numbers of [`AbiError::kind`]. Numbers, not an enum: new kinds may be added without breaking older hosts.
pub mod kind {
    pub const FAILED: u32 = 0;
    pub const INVALID: u32 = 1;
    pub const UNSUPPORTED: u32 = 2;
    pub const CANCELLED: u32 = 3;
    pub const PANICKED: u32 = 4;
}
