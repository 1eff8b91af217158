//! The stable ABI between `llmcb-host` and its plugins, and the SDK that plugin authors write against.
//!
//! * [`sdk`]: what an author of a method or of a backend needs. Safe Rust, no `abi_stable` types: implement
//!   [`sdk::Method`], or [`sdk::Engine`] and [`sdk::Runner`], and export with [`export_method!`] or
//!   [`export_backend!`].
//! * [`loader`]: what the host needs: open a shared object, check its header and layout, call it safely.
//! * [`guide`]: the author's guide, from a method in five minutes to shipping one.
//! * [`abi`]: the types that cross the boundary. Frozen: a minor version only appends.
//!
//! ```
//! use llmcb_plugin_api::sdk::*;
//!
//! /// Options are declared once, as a type.
//! #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
//! #[serde(default, deny_unknown_fields)]
//! struct Options {
//!     /// Every weight is multiplied by this.
//!     #[schemars(range(min = 0.0, max = 2.0))]
//!     factor: f32,
//! }
//!
//! struct Shrink(Options);
//!
//! impl Method for Shrink {
//!     type Options = Options;
//!
//!     fn descriptor() -> Descriptor {
//!         Descriptor::method("shrink", "Shrink", env!("CARGO_PKG_VERSION")).summary("Scales every weight.")
//!     }
//!
//!     fn new(options: Options, _host: &Host) -> Result<Self> {
//!         Ok(Shrink(options))
//!     }
//!
//!     fn compress_block(&mut self, block: &mut Block<'_>, _host: &Host) -> Result<()> {
//!         for linear in block.linears().to_vec() {
//!             let weight = block.weight(&linear.name)?;
//!             let scaled = weight.as_slice::<f32>()?.iter().map(|w| w * self.0.factor).collect();
//!             block.set_weight(&linear.name, Tensor::from_vec(scaled, &linear.shape())?)?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! llmcb_plugin_api::export_method!(Shrink);
//! # fn main() {}
//! ```

/// Version of this crate, as the manifest of a plugin names it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub mod abi;
pub mod guide;
pub mod loader;
pub mod sdk;

#[doc(hidden)]
pub mod export;

#[doc(hidden)]
pub use abi_stable;
pub use schemars;
pub use serde;
pub use serde_json;
