//! What the end-to-end tests work with: a tiny model, tiny data, the real program in a sandbox, the plugins that were built,
//! and readers of what a run leaves behind.

pub mod artifacts;
pub mod cargo;
pub mod cgroup;
pub mod data;
pub mod families;
pub mod gguf;
pub mod hub;
pub mod large;
pub mod model;
pub mod python;
pub mod results;
pub mod sandbox;
