//! The role of a runner.

use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::Result;
use super::host::Host;
use super::model::{ModelInfo, Profile, Workload};

/// Score the tokens of a continuation, given those of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoreRequest {
    /// At least one token.
    pub context: Vec<u32>,
    /// Tokens to score.
    pub continuation: Vec<u32>,
}

/// Log-likelihood of a continuation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Sum over the continuation's tokens of `ln p`.
    pub log_likelihood: f64,
    /// Whether each token of the continuation was the most likely one.
    pub greedy: bool,
    /// Whether tokens were cut from the left to fit the model's context.
    pub truncated: bool,
    /// `ln p` of each token.
    pub token_log_likelihoods: Vec<f32>,
}

/// A backend that loads finished checkpoints, scores, generates, and is timed.
pub trait Runner: Sized + Send + 'static {
    /// The runner's options.
    type Options: DeserializeOwned + Serialize + JsonSchema + Default;

    /// Loads a model: a directory or a file.
    fn open(model: &Path, options: Self::Options, host: &Host) -> Result<Self>;
    /// The model.
    fn model(&self) -> ModelInfo;
    /// Token ids of texts, with the tokenizer's own special tokens if `add_special`.
    fn encode(&self, texts: &[String], add_special: bool) -> Result<Vec<Vec<u32>>>;
    /// Text of token ids.
    fn decode(&self, tokens: &[u32]) -> Result<String>;
    /// Scores a batch. Results are in the order of the requests and do not depend on what else is in the batch.
    fn score(&mut self, requests: &[ScoreRequest]) -> Result<Vec<Score>>;
    /// Greedy continuations of prompts, until a stop token or `max_new_tokens`.
    fn generate(&mut self, prompts: &[Vec<u32>], max_new_tokens: u32, stop: &[u32]) -> Result<Vec<Vec<u32>>>;
    /// Times a workload.
    fn profile(&mut self, workload: &Workload) -> Result<Profile>;
}
