//! A method whose descriptor takes the process down.

use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Options {}

struct Broken;

impl Method for Broken {
    type Options = Options;

    fn descriptor() -> Descriptor {
        std::process::abort()
    }

    fn new(_: Options, _: &Host) -> Result<Self> {
        Ok(Broken)
    }

    fn compress_block(&mut self, _: &mut Block<'_>, _: &Host) -> Result<()> {
        Ok(())
    }
}

llmcb_plugin_api::export_method!(Broken);
