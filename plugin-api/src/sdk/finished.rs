//! The compressed model, as a method sees it once all blocks are done.

use super::block::EngineAccess;
use super::error::{Error, Result, from_abi};
use super::gradients::ModelGradients;
use super::model::BlockInfo;
use super::tensor::Tensor;
use crate::abi::engine::AbiParameter;

/// All blocks of a model, compressed and closed. A parameter is named by its block and, within it, by its linear or norm
/// (its weight) or as `NAME.bias`.
pub struct FinishedModel<'a> {
    blocks: u32,
    engine: EngineAccess<'a>,
}

fn parameter(block: u32, name: &str) -> AbiParameter {
    AbiParameter { block, name: name.into() }
}

impl<'a> FinishedModel<'a> {
    pub(crate) fn new(blocks: u32, engine: EngineAccess<'a>) -> Self {
        FinishedModel { blocks, engine }
    }

    /// Number of blocks.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// The description of a block as the method left it.
    pub fn block(&self, index: u32) -> Result<BlockInfo> {
        let json = from_abi(self.engine.0.finished_block(index))?;
        serde_json::from_str(&json).map_err(|e| Error::failed(format!("the engine's block description: {e}")))
    }

    /// The present weight of a linear, `f32 [out, in]`, or of a norm, `f32 [size]`, or a bias, `f32 [out]`.
    pub fn weight(&self, block: u32, name: &str) -> Result<Tensor> {
        Tensor::from_abi(from_abi(self.engine.0.finished_weight(parameter(block, name)))?)
    }

    /// Replaces a parameter. A weight of integer codes becomes one of numbers.
    pub fn set_weight(&mut self, block: u32, name: &str, weight: Tensor) -> Result<()> {
        from_abi(self.engine.0.set_finished_weight(parameter(block, name), weight.into_abi()))
    }

    /// The model's language-modelling loss over some calibration windows (none: all), and its gradients with respect to
    /// parameters, in their order.
    pub fn gradients(&mut self, parameters: &[(u32, &str)], windows: &[u32]) -> Result<ModelGradients> {
        let parameters: Vec<AbiParameter> =
            parameters.iter().map(|(block, name)| parameter(*block, name)).collect();
        let answer = from_abi(self.engine.0.model_gradients(parameters.as_slice().into(), windows.into()))?;
        if answer.gradients.len() != parameters.len() {
            return Err(Error::failed(format!(
                "the engine gave {} of {} gradients",
                answer.gradients.len(),
                parameters.len()
            )));
        }
        let gradients = answer.gradients.into_iter().map(Tensor::from_abi).collect::<Result<_>>()?;
        Ok(ModelGradients { loss: answer.loss, gradients })
    }
}
