//! Plugins as the host's user meets them: found on the plugin path, described, given options, checked.
//!
//! The host process never loads a plugin: whatever needs its code is asked of a child process (see [`crate::worker`]).

pub mod check;
mod describe;
pub mod discovery;
pub mod info;
mod library_file;
pub mod options;
pub mod scaffold;
pub mod schema;

pub use describe::{CachedDescriptions, Describe, Refusal};
pub use discovery::{Catalog, DiscoveryError, Origin, Place, Plugin, SearchPath};
pub use options::{OptionsError, PluginSpec, validate};
