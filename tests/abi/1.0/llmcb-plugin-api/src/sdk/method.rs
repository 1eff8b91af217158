//! The role of a method.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::block::Block;
use super::descriptor::Descriptor;
use super::error::Result;
use super::host::Host;
use super::whole::WholeModel;

/// A compression method. The host opens the blocks of a model one after the other, in order, and hands each to
/// [`Method::compress_block`]; afterwards the block's outputs, with the weights as the method left them, become the
/// inputs of the next one.
///
/// A stage that was killed is resumed by replaying finished blocks without calling the method, so what a method
/// carries from one block to the next must go through [`Host::save_state`].
pub trait Method: Sized + Send + 'static {
    /// The method's options: their names, types, defaults and ranges. Add `#[serde(default, deny_unknown_fields)]`.
    type Options: DeserializeOwned + Serialize + JsonSchema + Default;

    /// What the method says of itself.
    fn descriptor() -> Descriptor;

    /// Makes an instance for one model. Errors of kind `Invalid` for options that contradict each other.
    fn new(options: Self::Options, host: &Host) -> Result<Self>;

    /// Called before the first block is compressed: for what needs the whole dense model, such as a ranking over all
    /// blocks or the removal of channels of the residual stream. A stage that is resumed calls it again.
    fn prepare(&mut self, _model: &mut WholeModel<'_>, _host: &Host) -> Result<()> {
        Ok(())
    }

    /// Compresses one block.
    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()>;

    /// Called once all blocks are done, before the checkpoint is written: for what needs the whole compressed model,
    /// such as training it for some steps. A stage that is killed here begins this anew.
    fn finish(&mut self, _model: &mut WholeModel<'_>, _host: &Host) -> Result<()> {
        Ok(())
    }
}
