//! The frozen header: what is read before anything else of a plugin is trusted.

/// Name of the exported data symbol that holds the [`PluginHeader`].
pub const HEADER_SYMBOL: &str = "llmcb_plugin_header";

/// First bytes of every header.
pub const MAGIC: [u8; 16] = *b"LLMCB-HOST-PLUG\0";

/// A plain C structure that never changes, in any version of the ABI.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginHeader {
    /// [`MAGIC`].
    pub magic: [u8; 16],
    /// ABI major version the plugin was compiled against.
    pub abi_major: u32,
    /// ABI minor version the plugin was compiled against.
    pub abi_minor: u32,
    /// Reserved, zero.
    pub reserved: [u32; 2],
}

impl PluginHeader {
    /// The header of plugins compiled against this version of the crate.
    pub const CURRENT: PluginHeader = PluginHeader {
        magic: MAGIC,
        abi_major: super::ABI_MAJOR,
        abi_minor: super::ABI_MINOR,
        reserved: [0; 2],
    };
}
