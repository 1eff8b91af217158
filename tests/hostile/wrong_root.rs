//! A root module of other types, as a compiler with another layout would make it.

#![allow(
    missing_docs,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    non_local_definitions,
    dead_code,
    reason = "abi_stable's macros generate public items without documentation, unsafe code, and methods that nobody calls"
)]

use abi_stable::StableAbi;
use abi_stable::library::{
    __call_root_module_loader, CheckTypeLayout, LibHeader, RootModule, RootModuleResult,
};
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_types::VersionStrings;

#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRootRef)))]
#[sabi(missing_field(panic))]
pub struct PluginRoot {
    pub descriptor: u64,
    #[sabi(last_prefix_field)]
    pub normalize_options: u32,
}

impl RootModule for PluginRootRef {
    abi_stable::declare_root_module_statics! {PluginRootRef}
    const BASE_NAME: &'static str = "llmcb_plugin";
    const NAME: &'static str = "llmcb_plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}

fn load() -> PluginRootRef {
    PluginRoot { descriptor: 1, normalize_options: 2 }.leak_into_prefix()
}

extern "C" fn load_erased() -> RootModuleResult {
    __call_root_module_loader(load)
}

// SAFETY: the name under which abi_stable looks for the root module, with the type that it expects there.
#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
static ROOT: LibHeader = {
    // SAFETY: `load_erased` returns the module that `load` made, which is of type `PluginRootRef`.
    unsafe { LibHeader::from_constructor::<PluginRootRef>(load_erased, CheckTypeLayout::Yes) }
};
