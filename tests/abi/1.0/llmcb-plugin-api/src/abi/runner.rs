//! The role of a runner: it loads a finished checkpoint, scores, generates, and is timed.

use abi_stable::StableAbi;
use abi_stable::sabi_trait;
use abi_stable::std_types::{RBox, RSlice, RStr, RString, RVec};

use super::error::AbiResult;

/// Score the continuation's tokens, given the context.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct AbiScoreRequest {
    /// At least one token.
    pub context: RVec<u32>,
    /// Tokens to score.
    pub continuation: RVec<u32>,
}

/// Log-likelihood of a continuation.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct AbiScore {
    /// Sum over the continuation's tokens of `ln p`.
    pub log_likelihood: f64,
    /// Whether each token of the continuation was the most likely one.
    pub greedy: bool,
    /// Whether tokens were cut from the left to fit the model's context.
    pub truncated: bool,
    /// `ln p` of each token.
    pub token_log_likelihoods: RVec<f32>,
}

/// A model loaded for evaluation.
#[sabi_trait]
pub trait AbiRunner: Send + 'static {
    /// The model, as JSON of `ModelInfo`.
    fn model(&self) -> AbiResult<RString>;
    /// Token ids of texts.
    fn encode(&self, texts: RSlice<'_, RString>, add_special: bool) -> AbiResult<RVec<RVec<u32>>>;
    /// Text of token ids.
    fn decode(&self, tokens: RSlice<'_, u32>) -> AbiResult<RString>;
    /// Scores a batch; results are in the order of the requests and do not depend on the batch.
    fn score(&mut self, requests: RSlice<'_, AbiScoreRequest>) -> AbiResult<RVec<AbiScore>>;
    /// Greedy continuations of prompts, until a stop token or `max_new_tokens`.
    fn generate(
        &mut self,
        prompts: RSlice<'_, RVec<u32>>,
        max_new_tokens: u32,
        stop: RSlice<'_, u32>,
    ) -> AbiResult<RVec<RVec<u32>>>;
    /// Runs a workload (JSON of `Workload`) and returns JSON of `Profile`.
    #[sabi(last_prefix_field)]
    fn profile(&mut self, workload: RStr<'_>) -> AbiResult<RString>;
}

/// An owned runner.
pub type AbiRunnerBox = AbiRunner_TO<RBox<()>>;
