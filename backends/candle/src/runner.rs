//! The runner: a finished checkpoint that is scored, continued and timed.

use std::ops::ControlFlow;
use std::path::Path;

use llmcb_plugin_api::sdk::{
    Error, Host, ModelInfo, Profile, Result, Runner, Score, ScoreRequest, Tensor, Timing, Workload,
};
use llmcb_runner_kit::timing::repeated;
use llmcb_runner_kit::{Checkpoint, translate};
use llmcb_transformer::generate::{GenerateOptions, generate};
use llmcb_transformer::{Precision, ScoreOptions, Scorer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::opened::{self, Residency};

/// In which precision products are formed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ComputePrecision {
    /// What suits the device: `f32` on the CPU.
    #[default]
    Auto,
    /// Single precision.
    F32,
    /// Weights and inputs of linears rounded to bfloat16: half the memory.
    Bf16,
    /// Weights and inputs of linears rounded to half precision: half the memory.
    F16,
}

impl ComputePrecision {
    fn on_cpu(self) -> Precision {
        match self {
            ComputePrecision::Auto | ComputePrecision::F32 => Precision::F32,
            ComputePrecision::Bf16 => Precision::BF16,
            ComputePrecision::F16 => Precision::F16,
        }
    }
}

/// Options of the runner.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunnerOptions {
    /// Tokens that run at once; bounds memory, does not change results.
    #[schemars(range(min = 1))]
    pub batch_tokens: usize,
    /// Precision of what linears multiply; sums, norms, attention and the residual stream are in single precision always.
    /// The mean log-likelihood of a token moves by up to about 0.002 in `bf16` and 0.0003 in `f16` (measured on 135M parameters).
    pub precision: ComputePrecision,
    /// Where weights are: `memory`, or `stream`, which reads each block from disk for every batch, for models that do not fit; `auto`
    /// looks at the memory that is free. Does not change results.
    pub residency: Residency,
    /// Longest sequence; longer ones lose tokens from the left. 0: the model's own limit.
    pub max_length: usize,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        let defaults = ScoreOptions::default();
        RunnerOptions {
            batch_tokens: defaults.batch_tokens,
            precision: ComputePrecision::default(),
            residency: Residency::default(),
            max_length: defaults.max_length,
        }
    }
}

/// The runner.
pub struct CandleRunner {
    opened: Checkpoint,
    options: RunnerOptions,
    host: Host,
}

/// Asks the host whether to go on.
fn go_on(host: &Host) -> ControlFlow<()> {
    if host.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

impl Runner for CandleRunner {
    type Options = RunnerOptions;

    fn open(model: &Path, options: RunnerOptions, host: &Host) -> Result<Self> {
        let mut opened = opened::open(model, options.precision.on_cpu(), options.residency, host)?;
        opened.model.load_all().map_err(translate)?;
        opened.count_costs()?;
        Ok(CandleRunner { opened, options, host: host.clone() })
    }

    fn model(&self) -> ModelInfo {
        self.opened.info.clone()
    }

    fn encode(&self, texts: &[String], add_special: bool) -> Result<Vec<Vec<u32>>> {
        self.opened.encode(texts, add_special)
    }

    fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.opened.decode(tokens)
    }

    fn score(&mut self, requests: &[ScoreRequest]) -> Result<Vec<Score>> {
        let requests: Vec<llmcb_transformer::ScoreRequest> = requests
            .iter()
            .map(|r| llmcb_transformer::ScoreRequest {
                context: r.context.clone(),
                continuation: r.continuation.clone(),
            })
            .collect();
        let options =
            ScoreOptions { batch_tokens: self.options.batch_tokens, max_length: self.options.max_length };
        let scorer = Scorer::with_options(&self.opened.model, options).map_err(translate)?;
        let host = &self.host;
        let results = scorer.score_with(&requests, &mut |at| {
            host.progress(at.done as u64, at.total as u64, "tokens of this batch");
            go_on(host)
        });
        Ok(results
            .map_err(translate)?
            .into_iter()
            .map(|r| Score {
                log_likelihood: r.log_likelihood,
                greedy: r.greedy,
                truncated: r.truncated,
                token_log_likelihoods: r.token_log_likelihoods,
            })
            .collect())
    }

    fn generate(&mut self, prompts: &[Vec<u32>], max_new_tokens: u32, stop: &[u32]) -> Result<Vec<Vec<u32>>> {
        let options = GenerateOptions {
            max_new_tokens: max_new_tokens as usize,
            stop: stop.to_vec(),
            batch_tokens: self.options.batch_tokens,
        };
        let host = &self.host;
        let (answers, _) =
            generate(&self.opened.model, prompts, &options, &mut |_| go_on(host)).map_err(translate)?;
        Ok(answers.into_iter().map(|a| a.tokens).collect())
    }

    fn log_probabilities(&mut self, tokens: &[u32]) -> Result<Tensor> {
        if self.host.cancelled() {
            return Err(Error::cancelled());
        }
        self.host.progress(0, tokens.len() as u64, "distributions");
        let rows = self.opened.model.log_probabilities(tokens).map_err(translate)?;
        let vocabulary = self.opened.model.architecture().vocab_size;
        Tensor::from_vec(rows, &[tokens.len(), vocabulary])
    }

    fn profile(&mut self, workload: &Workload) -> Result<Profile> {
        let options = GenerateOptions {
            max_new_tokens: workload.new_tokens as usize,
            stop: Vec::new(),
            batch_tokens: self.options.batch_tokens,
        };
        let host = &self.host;
        let timings = repeated(host, workload, |workload| {
            let (_, timing) = generate(&self.opened.model, &workload.prompts, &options, &mut |_| go_on(host))
                .map_err(translate)?;
            Ok(Timing { prefill_seconds: timing.prefill_seconds, decode_seconds: timing.step_seconds })
        })?;
        let how = format!(
            "wall clock in process, greedy, {}, {} threads, stop tokens ignored, first token counted with the prompt{}",
            self.opened.model.precision(),
            self.opened.model.threads(),
            if self.opened.model.streams() { ", weights read from disk at every step" } else { "" }
        );
        Ok(Profile { timings, how })
    }
}
