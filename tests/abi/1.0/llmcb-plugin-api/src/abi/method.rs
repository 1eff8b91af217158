//! The role of a method: it walks the blocks of a model that an engine has opened.

use abi_stable::sabi_trait;
use abi_stable::sabi_types::RMut;
use abi_stable::std_types::RBox;

use super::engine::AbiEngine_TO;
use super::error::AbiResult;

/// An engine, lent to a method for the time of one call.
pub type AbiEngineMut<'a> = AbiEngine_TO<RMut<'a, ()>>;

/// An instance of a method: made with its options, used for one model, then dropped.
#[sabi_trait]
pub trait AbiMethod: Send + 'static {
    /// Compresses the block that is open in the engine. `block_json` is the block's description as the engine gave
    /// it.
    fn compress_block(
        &mut self,
        engine: AbiEngineMut<'_>,
        block_json: abi_stable::std_types::RStr<'_>,
    ) -> AbiResult<()>;
    /// Called before the first of `blocks` blocks is opened.
    fn prepare(&mut self, engine: AbiEngineMut<'_>, blocks: u32) -> AbiResult<()>;
    /// Called once all `blocks` blocks are closed, before the checkpoint is written.
    #[sabi(last_prefix_field)]
    fn finish(&mut self, engine: AbiEngineMut<'_>, blocks: u32) -> AbiResult<()>;
}

/// An owned instance of a method.
pub type AbiMethodBox = AbiMethod_TO<RBox<()>>;
