//! The role of an engine.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Result;
use super::host::Host;
use super::model::{BlockInfo, CheckpointInfo, ModelInfo};
use super::quantized::QuantizedWeight;
use super::statistics::{InputStatistics, StatisticsRequest};
use super::tensor::Tensor;

/// A backend that opens models for methods, one block at a time.
///
/// Weights of linears are `f32 [out, in]`, of norms `f32 [size]`. "Trial" weights replace a block's weights for one
/// call only.
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
    fn calibrate(&mut self, windows: &[Vec<u32>]) -> Result<()>;
    /// Opens the next block.
    fn open_block(&mut self, index: u32) -> Result<BlockInfo>;
    /// A weight of the open block.
    fn weight(&self, name: &str) -> Result<Tensor>;
    /// Replaces a weight.
    fn set_weight(&mut self, name: &str, weight: Tensor) -> Result<()>;
    /// Replaces the weight of a linear by a quantised one.
    fn set_quantized(&mut self, name: &str, weight: QuantizedWeight) -> Result<()>;
    /// Statistics of inputs of linears, with the block's present weights.
    fn input_statistics(&mut self, request: &StatisticsRequest) -> Result<Vec<InputStatistics>>;
    /// The block's outputs, `f32 [tokens, hidden]`.
    fn forward(&mut self, trial: &[(String, Tensor)]) -> Result<Tensor>;
    /// Mean squared difference between `forward(trial)` and the outputs with the weights the block was opened with.
    fn output_error(&mut self, trial: &[(String, Tensor)]) -> Result<f64>;
    /// Gradient of `output_error` with respect to weights of linears, at the trial weights.
    fn gradients(&mut self, linears: &[String], trial: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>>;
    /// Finishes the open block; its outputs become the inputs of the next one.
    fn close_block(&mut self) -> Result<()>;
    /// Writes the open block's parameters to a file.
    fn save_block(&mut self, file: &Path) -> Result<()>;
    /// Sets the open block's parameters from a file of [`Engine::save_block`].
    fn restore_block(&mut self, file: &Path) -> Result<()>;
    /// Writes a checkpoint in the Hugging Face layout into an existing, empty directory.
    fn save_checkpoint(&mut self, directory: &Path) -> Result<CheckpointInfo>;
}
