//! The root module: one per shared object.

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RStr, RString};

use super::engine::AbiEngineBox;
use super::error::AbiResult;
use super::host::AbiHostArc;
use super::method::AbiMethodBox;
use super::runner::AbiRunnerBox;

/// Functions of a plugin. A role that the plugin does not have answers `UNSUPPORTED`.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRootRef)))]
#[sabi(missing_field(panic))]
pub struct PluginRoot {
    /// The descriptor, JSON of `Descriptor`. Cheap, does no work.
    pub descriptor: extern "C" fn() -> AbiResult<RString>,
    /// Checks options (a JSON object) of a role (`method`, `engine` or `runner`) and returns them complete, with
    /// defaults filled in.
    pub normalize_options: extern "C" fn(role: RStr<'_>, options: RStr<'_>) -> AbiResult<RString>,
    /// Makes an instance of the method.
    pub new_method: extern "C" fn(options: RStr<'_>, host: AbiHostArc) -> AbiResult<AbiMethodBox>,
    /// Opens a model for compression.
    pub open_engine:
        extern "C" fn(model: RStr<'_>, options: RStr<'_>, host: AbiHostArc) -> AbiResult<AbiEngineBox>,
    /// Loads a model for evaluation.
    #[sabi(last_prefix_field)]
    pub open_runner:
        extern "C" fn(model: RStr<'_>, options: RStr<'_>, host: AbiHostArc) -> AbiResult<AbiRunnerBox>,
}

impl RootModule for PluginRootRef {
    abi_stable::declare_root_module_statics! {PluginRootRef}
    const BASE_NAME: &'static str = "llmcb_plugin";
    const NAME: &'static str = "llmcb_plugin";
    // The ABI's version, not the crate's: the crate may gain SDK features without touching the ABI.
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}
