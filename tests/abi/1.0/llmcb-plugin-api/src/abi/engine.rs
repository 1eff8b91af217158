//! The role of an engine: it opens a model for a method, block by block.

use abi_stable::StableAbi;
use abi_stable::sabi_trait;
use abi_stable::std_types::{RBox, ROption, RSlice, RStr, RString, RVec};

use super::error::AbiResult;
use super::quantized::AbiQuantizedWeight;
use super::tensor::{AbiNamedTensor, AbiTensor};

/// Which statistics of the inputs of linears a method wants.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct AbiStatisticsRequest {
    /// Names of linears of the open block.
    pub linears: RVec<RString>,
    /// Any of [`statistic`]'s bits.
    pub kinds: u64,
    /// About how many rows are wanted when [`statistic::ROWS`] is asked for.
    pub rows: u64,
}

/// Bits of [`AbiStatisticsRequest::kinds`].
pub mod statistic {
    /// Gram matrix, the sum over tokens of `x x^T`.
    pub const GRAM: u64 = 1;
    /// Per input feature, the sum over tokens of `x^2`.
    pub const SUM_SQUARES: u64 = 2;
    /// Per input feature, the largest `|x|`.
    pub const ABS_MAX: u64 = 4;
    /// Per input feature, the mean of `|x|`.
    pub const ABS_MEAN: u64 = 8;
    /// Rows of the input: every `max(1, tokens / rows)`-th, from the first token on.
    pub const ROWS: u64 = 16;
    /// Not a statistic: all of the request are those of the dense model, whatever the blocks before have become.
    pub const DENSE_MODEL: u64 = 32;
}

/// Statistics of the input of one linear over all calibration tokens.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiInputStatistics {
    /// The linear.
    pub linear: RString,
    /// Tokens seen.
    pub tokens: u64,
    /// Sequences (calibration windows) seen.
    pub sequences: u64,
    /// `f32 [columns, columns]`.
    pub gram: ROption<AbiTensor>,
    /// `f32 [columns]`.
    pub sum_squares: ROption<AbiTensor>,
    /// `f32 [columns]`.
    pub abs_max: ROption<AbiTensor>,
    /// `f32 [columns]`.
    pub abs_mean: ROption<AbiTensor>,
    /// `f32 [rows, columns]`.
    pub rows: ROption<AbiTensor>,
}

/// A block's output error and its gradients.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiGradients {
    /// Mean squared difference between outputs and targets.
    pub error: f64,
    /// Gradients with respect to the parameters asked for, in their order.
    pub gradients: RVec<AbiNamedTensor>,
}

/// Gradient of the dense model's loss with respect to the weight of one linear.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiLossGradient {
    /// The linear.
    pub linear: RString,
    /// `f32 [out, in]`.
    pub gradient: AbiTensor,
    /// `f32 [out, in]`: mean over windows of the squared gradient of each window's loss.
    pub mean_square: ROption<AbiTensor>,
}

/// A parameter of a model.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct AbiParameter {
    /// The block's index; none for what lies outside the blocks.
    pub block: ROption<u32>,
    /// In a block a linear or a norm (its weight), or `NAME.bias`; outside `embedding`, `norm` or `head`.
    pub name: RString,
}

/// The loss of a whole model and its gradients.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiModelGradients {
    /// Mean over windows of the mean over a window's predicted tokens of `-ln p`.
    pub loss: f64,
    /// Gradients with respect to the parameters asked for, in their order.
    pub gradients: RVec<AbiTensor>,
}

/// A model opened for compression. One block is open at a time.
#[sabi_trait]
pub trait AbiEngine: Send + Sync + 'static {
    /// The model, as JSON of `ModelInfo`.
    fn model(&self) -> AbiResult<RString>;
    /// Token ids of texts.
    fn encode(&self, texts: RSlice<'_, RString>, add_special: bool) -> AbiResult<RVec<RVec<u32>>>;
    /// Embeds the calibration windows; they become the inputs of the first block. `plan` is JSON of `CalibrationPlan`.
    fn calibrate(&mut self, windows: RSlice<'_, RVec<u32>>, plan: RStr<'_>) -> AbiResult<()>;
    /// Opens the next block (index from 0, in order) and returns its description, JSON of `BlockInfo`.
    fn open_block(&mut self, index: u32) -> AbiResult<RString>;
    /// JSON of `BlockInfo` of the open block as it is now.
    fn block_info(&self) -> AbiResult<RString>;
    /// The present weight of a linear `f32 [out, in]`, or of a norm `f32 [size]`, or a bias (`NAME.bias`) of the open
    /// block.
    fn weight(&self, name: RStr<'_>) -> AbiResult<AbiTensor>;
    /// Replaces a weight.
    fn set_weight(&mut self, name: RStr<'_>, weight: AbiTensor) -> AbiResult<()>;
    /// Replaces the weight of a linear by a quantised one.
    fn set_quantized(&mut self, name: RStr<'_>, weight: AbiQuantizedWeight) -> AbiResult<()>;
    /// Statistics of the inputs of linears, with the block's present weights on its present inputs.
    fn input_statistics(&mut self, request: AbiStatisticsRequest) -> AbiResult<RVec<AbiInputStatistics>>;
    /// The block's outputs `f32 [tokens, hidden]` with its present weights, but for the trial ones.
    fn forward(&mut self, trial: RVec<AbiNamedTensor>) -> AbiResult<AbiTensor>;
    /// Mean squared difference between `forward(trial)` and the block's targets, which the calibration plan decides.
    fn output_error(&mut self, trial: RVec<AbiNamedTensor>) -> AbiResult<f64>;
    /// `output_error` over some calibration windows (none given: all) and its gradients with respect to parameters, at
    /// the trial values.
    fn gradients(
        &mut self,
        parameters: RSlice<'_, RString>,
        trial: RVec<AbiNamedTensor>,
        windows: RSlice<'_, u32>,
    ) -> AbiResult<AbiGradients>;
    /// Mean squared difference between a module's outputs with the trial parameters and with the present ones.
    fn module_error(&mut self, module: RStr<'_>, trial: RVec<AbiNamedTensor>) -> AbiResult<f64>;
    /// How the activations of a site are rounded from now on; JSON of `Option<ActivationQuantization>`.
    fn quantize_activations(&mut self, site: RStr<'_>, quantization: RStr<'_>) -> AbiResult<()>;
    /// Gradients of the dense model's loss over some calibration windows (none given: all) with respect to weights of
    /// linears of the open block.
    fn loss_gradients(
        &mut self,
        linears: RSlice<'_, RString>,
        mean_square: bool,
        windows: RSlice<'_, u32>,
    ) -> AbiResult<RVec<AbiLossGradient>>;
    /// Keeps some units of a structure of the open block and removes the others.
    fn keep_units(&mut self, structure: RStr<'_>, units: RSlice<'_, u32>) -> AbiResult<()>;
    /// Finishes the open block: its outputs with the present weights become the inputs of the next one.
    fn close_block(&mut self) -> AbiResult<()>;
    /// JSON of a list of `ModelStructure`: units of the whole model that can be removed.
    fn model_structures(&self) -> AbiResult<RString>;
    /// Keeps some units of a structure of the whole model and removes the others, before the first block is opened.
    fn keep_model_units(&mut self, structure: RStr<'_>, units: RSlice<'_, u32>) -> AbiResult<()>;
    /// JSON of `BlockInfo` of a block: as it was left if it is closed, else the dense one.
    fn model_block(&self, index: u32) -> AbiResult<RString>;
    /// A parameter: of a closed block as it was left, else the dense model's.
    fn model_weight(&self, parameter: AbiParameter) -> AbiResult<AbiTensor>;
    /// Replaces a parameter of a block that was closed.
    fn set_model_weight(&mut self, parameter: AbiParameter, weight: AbiTensor) -> AbiResult<()>;
    /// The loss of the model as it is (closed blocks as they were left, others dense) over some calibration windows (none
    /// given: all), and its gradients.
    fn model_gradients(
        &mut self,
        parameters: RSlice<'_, AbiParameter>,
        windows: RSlice<'_, u32>,
    ) -> AbiResult<AbiModelGradients>;
    /// Writes what the open block's parameters are now to a file, so that a killed compression can go on.
    fn save_block(&mut self, file: RStr<'_>) -> AbiResult<()>;
    /// Sets the open block's parameters from a file of `save_block`.
    fn restore_block(&mut self, file: RStr<'_>) -> AbiResult<()>;
    /// Writes a checkpoint in the Hugging Face layout into an existing empty directory. Returns JSON of
    /// `CheckpointInfo`.
    #[sabi(last_prefix_field)]
    fn save_checkpoint(&mut self, directory: RStr<'_>) -> AbiResult<RString>;
}

/// An owned engine.
pub type AbiEngineBox = AbiEngine_TO<RBox<()>>;
