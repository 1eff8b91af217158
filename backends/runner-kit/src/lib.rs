//! What runners of inference libraries share.
//!
//! A library knows neither our tokenizers nor our checkpoints' formats, and is installed apart from the plugin. So a [`Checkpoint`] gives the same
//! tokens and the same description of a model whichever library runs it, [`fit`] cuts requests to a model's context in one way for all, and
//! [`install`], [`process`], [`server`] and [`driver`] start what is not ours so that it ends with us, and [`http`] and
//! [`completions`] speak with servers.

mod attended;
pub mod checkpoint;
pub mod completions;
pub mod driver;
pub mod fit;
pub mod hardware;
pub mod http;
pub mod hub_layout;
pub mod install;
pub mod likelihood;
pub mod process;
pub mod python;
pub mod server;
pub mod timing;

pub use checkpoint::{Checkpoint, translate};
