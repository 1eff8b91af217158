//! A plugin of a minor version that this host does not know yet.

use llmcb_plugin_api::abi::header::PluginHeader;

#[allow(unsafe_code)]
// SAFETY: the symbol is the plugin header's, and so is its type.
#[unsafe(export_name = "llmcb_plugin_header")]
static HEADER: PluginHeader = PluginHeader { abi_minor: 99, ..PluginHeader::CURRENT };
