//! A plugin with a sound header and a root module of other types.

mod wrong_root;

use llmcb_plugin_api::abi::header::PluginHeader;

#[allow(unsafe_code)]
// SAFETY: the symbol is the plugin header's, and so is its type.
#[unsafe(export_name = "llmcb_plugin_header")]
static HEADER: PluginHeader = PluginHeader::CURRENT;
