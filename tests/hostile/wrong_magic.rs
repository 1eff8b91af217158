//! A library that happens to export a symbol of the plugin header's name.

use llmcb_plugin_api::abi::header::PluginHeader;

#[allow(unsafe_code)]
// SAFETY: the symbol is the plugin header's, and so is its type.
#[unsafe(export_name = "llmcb_plugin_header")]
static HEADER: PluginHeader = PluginHeader { magic: *b"SOMETHING ELSE!\0", ..PluginHeader::CURRENT };
