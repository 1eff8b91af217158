//! The runner.

use std::path::Path;
use std::time::Duration;

use llmcb_plugin_api::sdk::{
    Error, Host, Library, ModelInfo, Profile, Result, Runner, Score, ScoreRequest, Workload,
};
use llmcb_runner_kit::Checkpoint;
use llmcb_runner_kit::completions::portions;
use llmcb_runner_kit::driver::{Driver, Plan};
use llmcb_runner_kit::fit::whole_prompts;
use llmcb_runner_kit::install::{Scratch, scratch};
use llmcb_runner_kit::timing::repeated;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::answers::{Opened, Token, read, score, timing};
use crate::launch::{DRIVER, arguments, command};
use crate::layout::{Prepared, prepare};
use crate::library::{TensorRtLlm, python, scores};

const NAME: &str = "TensorRT-LLM";

/// How timings are taken.
const HOW: &str = "wall clock of the process that asks TensorRT-LLM: all prompts handed over at once, each new token when its stream brings it, greedy, \
                   no token ends an answer, no reuse of the cache between prompts, first token counted with the prompt";

/// Type of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// `float16` for checkpoints in half precision and for weights of 4 bits whose scales are, `bfloat16` for all others.
    #[default]
    Auto,
    /// Half precision.
    Float16,
    /// bfloat16.
    Bfloat16,
}

/// Options of the runner.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunnerOptions {
    /// The Python interpreter of an installation of TensorRT-LLM; empty: `LLMCB_PYTHON`, else `python3`.
    pub python: String,
    /// Type of numbers.
    pub dtype: Dtype,
    /// Longest sequence; 0: the model's own limit. Of what is scored, two tokens less are read.
    pub max_seq_len: usize,
    /// Most sequences at once.
    #[schemars(range(min = 1))]
    pub max_batch_size: usize,
    /// GPUs that share each layer.
    #[schemars(range(min = 1))]
    pub tensor_parallel_size: usize,
    /// GPUs that share the layers out among them.
    #[schemars(range(min = 1))]
    pub pipeline_parallel_size: usize,
    /// Share of the memory that a model leaves free which is for keys and values. Likelihoods of prompts take much of the rest.
    #[schemars(range(min = 0.01, max = 0.95))]
    pub free_gpu_memory_fraction: f64,
    /// Seconds until the model must be loaded.
    #[schemars(range(min = 1))]
    pub start_limit: u64,
    /// Seconds that a request may take.
    #[schemars(range(min = 1))]
    pub request_limit: u64,
    /// Further arguments of `LLM`, `name=value` each, separated by spaces; parts of one by dots, `kv_cache_config.dtype=fp8`.
    pub arguments: String,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        RunnerOptions {
            python: String::new(),
            dtype: Dtype::default(),
            max_seq_len: 0,
            max_batch_size: 64,
            tensor_parallel_size: 1,
            pipeline_parallel_size: 1,
            free_gpu_memory_fraction: 0.7,
            start_limit: 900,
            request_limit: 600,
            arguments: String::new(),
        }
    }
}

/// TensorRT-LLM with a model.
pub struct TensorRtLlmRunner {
    // Dropped first: it has the files below open.
    driver: Driver,
    checkpoint: Checkpoint,
    opened: Opened,
    /// Longest sequence, with what is generated.
    length: usize,
    batch: usize,
    host: Host,
    _prepared: Prepared,
    _program: Scratch,
}

/// What TensorRT-LLM cannot load is no failure of the run's.
fn refused(error: Error) -> Error {
    let known = [
        "Unknown architecture for AutoModelForCausalLM",
        "Unsupported quantization_config",
        "Unsupported quant",
        "Only group size 64 and 128 supported",
    ];
    match known.into_iter().any(|words| error.message().contains(words)) {
        true => Error::unsupported(error.message().to_owned()),
        false => with_remedy(error),
    }
}

/// What to do where a GPU has too little memory.
fn with_remedy(error: Error) -> Error {
    match error.message().contains("CUDA out of memory") {
        true => Error::new(
            error.kind(),
            format!(
                "{}; options free_gpu_memory_fraction and max_batch_size say what is kept for what",
                error.message()
            ),
        ),
        false => error,
    }
}

impl Runner for TensorRtLlmRunner {
    type Options = RunnerOptions;

    fn open(model: &Path, options: RunnerOptions, host: &Host) -> Result<Self> {
        let status = TensorRtLlm::find(&options)?;
        if let Some(missing) = status.missing {
            return Err(Error::unsupported(missing));
        }
        let python = python(&options)?;
        let mut checkpoint = Checkpoint::described(model, host)?;
        let positions = checkpoint.info.max_position_embeddings as usize;
        let length = if options.max_seq_len == 0 { positions } else { options.max_seq_len.min(positions) };
        if length < 4 {
            return Err(Error::invalid(format!(
                "option max_seq_len = {length}: nothing can be scored within it"
            )));
        }
        let prepared = checkpoint.prepare(|checkpoint| prepare(checkpoint, model, options.dtype))?;
        let arguments = arguments(&prepared.layout.directory, prepared.dtype, length, &options)?;
        let program = scratch()?;
        let file = program.path().join("driver.py");
        std::fs::write(&file, DRIVER)
            .map_err(|e| Error::failed(format!("cannot write {}: {e}", file.display())))?;
        let plan = Plan {
            name: NAME,
            start_limit: Duration::from_secs(options.start_limit),
            request_limit: Duration::from_secs(options.request_limit),
        };
        let first = json!({
            "do": "open", "arguments": arguments, "gpus": options.tensor_parallel_size * options.pipeline_parallel_size,
        });
        let started = Driver::start(plan, host, command(&python, &file, &options), &first);
        let (driver, answer) = started.map_err(refused)?;
        let opened: Opened = read(answer, "what it opened")?;
        checkpoint.info.compute = prepared.compute.clone();
        checkpoint.info.library = format!("TensorRT-LLM {}", opened.version);
        checkpoint.info.device = "cuda".to_owned();
        let (batch, host) = (options.max_batch_size, host.clone());
        Ok(TensorRtLlmRunner {
            driver,
            checkpoint,
            opened,
            length,
            batch,
            host,
            _prepared: prepared,
            _program: program,
        })
    }

    fn model(&self) -> ModelInfo {
        self.checkpoint.info.clone()
    }

    fn encode(&self, texts: &[String], add_special: bool) -> Result<Vec<Vec<u32>>> {
        self.checkpoint.encode(texts, add_special)
    }

    fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.checkpoint.decode(tokens)
    }

    fn score(&mut self, requests: &[ScoreRequest]) -> Result<Vec<Score>> {
        if !scores(&self.opened.version) {
            return Err(Error::unsupported(format!(
                "likelihoods of prompts lack tokens before TensorRT-LLM 1.3.0rc11, and this is {}; tasks that generate and timings work",
                self.opened.version
            )));
        }
        // The last token is part of a prompt here, and another one is generated after it.
        let limit = self.length - 2;
        // Of nothing, the probability is 1.
        let mut found = vec![Score { greedy: true, ..Score::default() }; requests.len()];
        for portion in portions(requests) {
            self.host.check_cancelled()?;
            let done = portion.first().copied().unwrap_or(0) as u64;
            self.host.progress(done, requests.len() as u64, "requests of this batch");
            let (prompts, fitted) = whole_prompts(requests, &portion, limit)?;
            let first: Vec<usize> = fitted.iter().map(|one| one.context).collect();
            let asked = json!({"do": "score", "prompts": prompts, "first": first});
            let answer = self.driver.ask(&self.host, &asked).map_err(with_remedy)?;
            let answered: Vec<Vec<Token>> = read(answer, "likelihoods")?;
            if answered.len() != portion.len() {
                let (got, asked) = (answered.len(), portion.len());
                return Err(Error::failed(format!("{NAME} answered {got} of {asked} prompts")));
            }
            for ((tokens, i), fitted) in answered.iter().zip(portion).zip(&fitted) {
                found[i] = score(tokens, &requests[i].continuation, fitted)?;
            }
        }
        Ok(found)
    }

    fn generate(&mut self, prompts: &[Vec<u32>], max_new_tokens: u32, stop: &[u32]) -> Result<Vec<Vec<u32>>> {
        let mut answers = Vec::new();
        for (i, prompt) in prompts.iter().enumerate() {
            self.host.check_cancelled()?;
            if prompt.is_empty() || prompt.len() >= self.length {
                let (length, limit) = (prompt.len(), self.length - 1);
                return Err(Error::invalid(format!(
                    "prompt {i} has {length} tokens, the model takes 1 to {limit}"
                )));
            }
            let most = (max_new_tokens as usize).min(self.length - prompt.len());
            if most == 0 {
                answers.push(Vec::new());
                continue;
            }
            let asked = json!({"do": "generate", "prompt": prompt, "most": most, "stop": stop});
            let answer = self.driver.ask(&self.host, &asked).map_err(with_remedy)?;
            let mut tokens: Vec<u32> = read(answer, "token ids")?;
            if let Some(end) = tokens.iter().position(|token| stop.contains(token)) {
                tokens.truncate(end);
            }
            answers.push(tokens);
        }
        Ok(answers)
    }

    fn profile(&mut self, workload: &Workload) -> Result<Profile> {
        if workload.prompts.len() > self.batch {
            return Err(Error::invalid(format!(
                "the workload has {} prompts at once, more than the option max_batch_size = {}",
                workload.prompts.len(),
                self.batch
            )));
        }
        let host = self.host.clone();
        let timings = repeated(&host, workload, |workload| {
            let new_tokens = workload.new_tokens.max(1);
            let asked = json!({"do": "arrivals", "prompts": workload.prompts, "new_tokens": new_tokens});
            let answer = self.driver.ask(&host, &asked).map_err(with_remedy)?;
            timing(&read::<Vec<Vec<f64>>>(answer, "times")?, workload)
        })?;
        let memory = self.opened.memory as f64 / f64::from(1 << 30);
        let gpus = self.opened.gpus.join(", ");
        Ok(Profile {
            timings,
            how: format!("{HOW}; on {gpus}, {memory:.1} GiB of its memory in use once loaded"),
        })
    }
}
