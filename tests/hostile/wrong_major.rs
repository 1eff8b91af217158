//! A plugin of another major version of the ABI.

use llmcb_plugin_api::abi::header::PluginHeader;

#[allow(unsafe_code)]
// SAFETY: the symbol is the plugin header's, and so is its type.
#[unsafe(export_name = "llmcb_plugin_header")]
static HEADER: PluginHeader =
    PluginHeader { abi_major: PluginHeader::CURRENT.abi_major + 1, ..PluginHeader::CURRENT };
