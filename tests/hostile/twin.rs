//! A sound method that took the id of another.

use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Options {}

struct Twin;

impl Method for Twin {
    type Options = Options;

    fn descriptor() -> Descriptor {
        Descriptor::method("rtn", "The other RTN", "9.9.9").summary("Changes nothing.")
    }

    fn new(_: Options, _: &Host) -> Result<Self> {
        Ok(Twin)
    }

    fn compress_block(&mut self, _: &mut Block<'_>, _: &Host) -> Result<()> {
        Ok(())
    }
}

llmcb_plugin_api::export_method!(Twin);
