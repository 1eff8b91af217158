//! The smallest useful method plugin: it scales every weight.
//!
//! `cargo build --example shrink` makes `libshrink.so`; `llmcb-host --plugin PATH/libshrink.so` benchmarks it.

use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the method; the doc comments become its manual page.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// Every weight is multiplied by this.
    #[schemars(range(min = 0.0, max = 2.0))]
    factor: f32,
}

impl Default for Options {
    fn default() -> Self {
        Options { factor: 0.99 }
    }
}

struct Shrink(Options);

impl Method for Shrink {
    type Options = Options;

    fn descriptor() -> Descriptor {
        Descriptor::method("shrink", "Shrink", env!("CARGO_PKG_VERSION"))
            .summary("Scales every weight of the model's linears by one factor.")
            .licence("MIT OR Apache-2.0")
    }

    fn new(options: Options, _host: &Host) -> Result<Self> {
        Ok(Shrink(options))
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        for linear in block.linears().to_vec() {
            host.check_cancelled()?;
            let weight = block.weight(&linear.name)?;
            let scaled = weight.as_f32()?.iter().map(|w| w * self.0.factor).collect();
            block.set_weight(&linear.name, Tensor::from_vec(scaled, &linear.shape())?)?;
        }
        Ok(())
    }
}

llmcb_plugin_api::export_method!(Shrink);
