//! The role of an engine.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::activation::ActivationQuantization;
use super::error::{Error, Result};
use super::gradients::{GradientRequest, Gradients, LossGradient, ModelGradients};
use super::host::Host;
use super::model::{BlockInfo, CalibrationPlan, CheckpointInfo, ModelInfo};
use super::quantized::QuantizedWeight;
use super::statistics::{InputStatistics, StatisticsRequest};
use super::tensor::Tensor;
use super::whole::{ModelStructure, Parameter};

/// A backend that opens models for methods, one block at a time.
///
/// Weights of linears are `f32 [out, in]`, of norms `f32 [size]`; a parameter's name is that of its linear or norm, or
/// `NAME.bias` (`f32 [out]`). "Trial" parameters replace a block's own for one call only.
///
/// Functions with a body are what an engine may lack: methods that ask for them are then told that they cannot be had.
pub trait Engine: Sized + Send + Sync + 'static {
    /// The engine's options.
    type Options: DeserializeOwned + Serialize + JsonSchema + Default;

    /// Opens a model: a directory or a file.
    fn open(model: &Path, options: Self::Options, host: &Host) -> Result<Self>;
    /// The model.
    fn model(&self) -> ModelInfo;
    /// Token ids of texts, with the tokenizer's own special tokens if `add_special`.
    fn encode(&self, texts: &[String], add_special: bool) -> Result<Vec<Vec<u32>>>;
    /// Embeds the calibration windows; they become the inputs of the first block.
    fn calibrate(&mut self, windows: &[Vec<u32>], plan: &CalibrationPlan) -> Result<()>;
    /// Opens the next block.
    fn open_block(&mut self, index: u32) -> Result<BlockInfo>;
    /// The open block as it is now.
    fn block_info(&self) -> Result<BlockInfo>;
    /// A parameter of the open block.
    fn weight(&self, name: &str) -> Result<Tensor>;
    /// Replaces a weight.
    fn set_weight(&mut self, name: &str, weight: Tensor) -> Result<()>;
    /// Replaces the weight of a linear by a quantised one.
    fn set_quantized(&mut self, name: &str, weight: QuantizedWeight) -> Result<()>;
    /// Statistics of inputs of linears, with the block's present weights.
    fn input_statistics(&mut self, request: &StatisticsRequest) -> Result<Vec<InputStatistics>>;
    /// The block's outputs, `f32 [tokens, hidden]`.
    fn forward(&mut self, trial: &[(String, Tensor)]) -> Result<Tensor>;
    /// Mean squared difference between `forward(trial)` and the block's targets: the outputs with the weights the block
    /// was opened with, on the same inputs or on those of the dense model, as the calibration plan says.
    fn output_error(&mut self, trial: &[(String, Tensor)]) -> Result<f64>;
    /// `output_error` and its gradients with respect to parameters.
    fn gradients(&mut self, request: &GradientRequest) -> Result<Gradients>;
    /// Mean squared difference between the outputs of a module (a part of the block) with the trial parameters and with
    /// the present ones, both on what the module reads with the present ones.
    fn module_error(&mut self, module: &str, _trial: &[(String, Tensor)]) -> Result<f64> {
        Err(Error::unsupported(format!("the engine cannot compare outputs of a part of a block ({module})")))
    }
    /// From now on, rounds the activations of a site of the open block as `quantization` says; none: no longer.
    fn quantize_activations(
        &mut self,
        site: &str,
        _quantization: Option<ActivationQuantization>,
    ) -> Result<()> {
        Err(Error::unsupported(format!("the engine cannot quantise activations ({site})")))
    }
    /// Gradients of the dense model's language-modelling loss over some calibration windows (none: all) with respect to
    /// weights of linears of the open block.
    fn loss_gradients(
        &mut self,
        _linears: &[String],
        _mean_square: bool,
        _windows: &[u32],
    ) -> Result<Vec<LossGradient>> {
        Err(Error::unsupported("the engine has no gradients of the model's loss"))
    }
    /// Keeps the given units (in ascending order) of a structure of the open block and removes all others.
    fn keep_units(&mut self, structure: &str, _units: &[u32]) -> Result<()> {
        Err(Error::unsupported(format!("the engine cannot remove parts of a block ({structure})")))
    }
    /// Finishes the open block; its outputs become the inputs of the next one.
    fn close_block(&mut self) -> Result<()>;
    /// Units of the whole model that can be removed.
    fn model_structures(&self) -> Result<Vec<ModelStructure>> {
        Ok(Vec::new())
    }
    /// Keeps the given units (in ascending order) of a structure of the whole model and removes all others. No block was
    /// opened yet.
    fn keep_model_units(&mut self, structure: &str, _units: &[u32]) -> Result<()> {
        Err(Error::unsupported(format!("the engine cannot remove parts of the whole model ({structure})")))
    }
    /// A block: as it was left if it is closed, else the dense one.
    fn model_block(&self, index: u32) -> Result<BlockInfo> {
        Err(Error::unsupported(format!("the engine does not show the whole model (block {index})")))
    }
    /// A parameter: of a closed block as it was left, else the dense model's.
    fn model_weight(&self, parameter: &Parameter) -> Result<Tensor> {
        Err(Error::unsupported(format!("the engine does not show the whole model ({parameter})")))
    }
    /// Replaces a parameter of a block that was closed.
    fn set_model_weight(&mut self, parameter: &Parameter, _weight: Tensor) -> Result<()> {
        Err(Error::unsupported(format!("the engine does not change finished blocks ({parameter})")))
    }
    /// The loss of the model as it is (closed blocks as they were left, others dense) over some calibration windows (none:
    /// all), and its gradients with respect to parameters.
    fn model_gradients(&mut self, _parameters: &[Parameter], _windows: &[u32]) -> Result<ModelGradients> {
        Err(Error::unsupported("the engine has no gradients of the compressed model's loss"))
    }
    /// Writes the open block's parameters to a file.
    fn save_block(&mut self, file: &Path) -> Result<()>;
    /// Sets the open block's parameters from a file of [`Engine::save_block`].
    fn restore_block(&mut self, file: &Path) -> Result<()>;
    /// Writes a checkpoint in the Hugging Face layout into an existing, empty directory.
    fn save_checkpoint(&mut self, directory: &Path) -> Result<CheckpointInfo>;
}
