//! The runner.

use std::path::Path;
use std::time::Duration;

use llmcb_plugin_api::sdk::{
    Error, Host, Library, ModelInfo, Profile, Result, Runner, Score, ScoreRequest, Workload, libraries_folder,
};
use llmcb_runner_kit::Checkpoint;
use llmcb_runner_kit::completions::{
    HOW, Prompts, choices, complete, count_token_ids, generate, portions, time,
};
use llmcb_runner_kit::fit::whole_prompts;
use llmcb_runner_kit::hub_layout::{HubLayout, hub_layout};
use llmcb_runner_kit::server::{Plan, Server};
use llmcb_runner_kit::timing::repeated;
use llmcb_transformer::StorageType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answers::score;
use crate::library::{Vllm, executable};
use crate::serve::{self, MODEL, Place};

const NAME: &str = "vLLM";

/// Where vLLM runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// On the processor.
    #[default]
    Cpu,
    /// On NVIDIA GPUs.
    Cuda,
}

/// Type of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// `bfloat16` on the CPU, vLLM's own choice elsewhere.
    #[default]
    Auto,
    /// Single precision.
    Float32,
    /// bfloat16.
    Bfloat16,
    /// Half precision.
    Float16,
}

/// Options of the runner.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunnerOptions {
    /// The executable `vllm` of an installation of yours, in place of the one that `backends setup vllm` makes.
    pub executable: String,
    /// Where vLLM runs.
    pub device: Device,
    /// Type of numbers.
    pub dtype: Dtype,
    /// Longest sequence; 0: the model's own limit. vLLM is told one more, for the token that it generates after a prompt that is only scored.
    pub max_model_len: usize,
    /// GPUs, or processes, that share each layer.
    #[schemars(range(min = 1))]
    pub tensor_parallel_size: usize,
    /// GPUs, or processes, that share the layers out among them.
    #[schemars(range(min = 1))]
    pub pipeline_parallel_size: usize,
    /// Leave out compilation: starts sooner, runs slower.
    pub enforce_eager: bool,
    /// On the CPU, memory for keys and values in GiB.
    #[schemars(range(min = 1))]
    pub cache_gib: usize,
    /// On processors with AMX, round inputs of 4-bit weights to 8 bits, as vLLM does by itself.
    pub w4a8: bool,
    /// Seconds that it may take to start.
    #[schemars(range(min = 1))]
    pub start_limit: u64,
    /// Seconds that a request may take.
    #[schemars(range(min = 1))]
    pub request_limit: u64,
    /// Further arguments of `vllm serve`, separated by spaces.
    pub arguments: String,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        RunnerOptions {
            executable: String::new(),
            device: Device::default(),
            dtype: Dtype::default(),
            max_model_len: 0,
            tensor_parallel_size: 1,
            pipeline_parallel_size: 1,
            enforce_eager: false,
            cache_gib: 2,
            w4a8: true,
            start_limit: 900,
            request_limit: 600,
            arguments: String::new(),
        }
    }
}

/// vLLM with a model.
pub struct VllmRunner {
    server: Server,
    checkpoint: Checkpoint,
    /// Longest prompt.
    limit: usize,
    host: Host,
    _layout: HubLayout,
}

/// Whether this processor has the instructions by which vLLM multiplies 4-bit weights with 8-bit inputs.
pub(crate) fn has_matrix_tiles() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    flags.lines().find(|line| line.starts_with("flags")).is_some_and(|line| line.contains(" amx_int8"))
}

/// How vLLM computes with a checkpoint, for people.
fn arithmetic(checkpoint: &Checkpoint, options: &RunnerOptions) -> String {
    let config = checkpoint.model.original_config();
    let quantisation = &config["quantization_config"];
    let method = quantisation["quant_method"].as_str().unwrap_or_default();
    let mut words = vec![serve::dtype(options).to_owned()];
    if !method.is_empty() {
        words.push(method.to_owned());
    }
    let precision = checkpoint.info.source_precision.as_str();
    let bfloat16 = serve::dtype(options) == "bfloat16";
    if precision == "INT4" && options.device == Device::Cpu && options.w4a8 && bfloat16 && has_matrix_tiles()
    {
        words.push("inputs of 4-bit weights rounded to 8 bits".to_owned());
    }
    let groups = quantisation["config_groups"].as_object().into_iter().flatten();
    let is_told = groups.into_iter().any(|(_, group)| !group["input_activations"].is_null());
    if checkpoint.rounds_activations() && !is_told {
        words.push("inputs not rounded as the checkpoint asks".to_owned());
    }
    words.join(", ")
}

/// What vLLM cannot load is no failure of the run's.
fn refused(error: Error) -> Error {
    let says = |words: &str| error.message().contains(words);
    if says("Unsupported quantization config") && says("sym=False") {
        return Error::unsupported(
            "vLLM runs GPTQ weights on symmetric grids only: compress with symmetric=true, or store with --format compressed-tensors",
        );
    }
    let known = [
        "Unsupported quantization config",
        "Unknown quantization method",
        "are not supported for now",
        // A type of numbers that its kernels do not have.
        "is not supported for quantization method",
    ];
    match known.into_iter().any(says) {
        true => Error::unsupported(error.message().to_owned()),
        false => error,
    }
}

/// Tokens whose keys and values the memory for them holds: vLLM does not start where the longest sequence would not fit.
fn fitting(checkpoint: &Checkpoint, options: &RunnerOptions) -> usize {
    if options.device != Device::Cpu {
        return usize::MAX;
    }
    let a = checkpoint.model.architecture();
    let bytes = if options.dtype == Dtype::Float32 { 4 } else { 2 };
    let token = 2 * a.num_hidden_layers * a.num_key_value_heads * a.head_dim * bytes;
    // vLLM hands memory out in blocks, and keeps some back.
    (options.cache_gib << 30) / 10 * 9 / token.max(1)
}

/// Starts vLLM on a checkpoint.
fn start(options: &RunnerOptions, model: &Path, length: usize, host: &Host) -> Result<Server> {
    let cache = libraries_folder()?.join("vllm-cache");
    let executable = executable(options)?;
    let plan = Plan {
        name: NAME,
        health: "/health",
        start_limit: Duration::from_secs(options.start_limit),
        request_limit: Duration::from_secs(options.request_limit),
    };
    Server::start(plan, host, |port, key| {
        let place = Place { port, key, threads: host.threads(), seed: host.seed(), length, cache: &cache };
        serve::command(&executable, model, options, &place)
    })
}

impl Runner for VllmRunner {
    type Options = RunnerOptions;

    fn open(model: &Path, options: RunnerOptions, host: &Host) -> Result<Self> {
        let status = Vllm::find(&options)?;
        if let Some(missing) = status.missing {
            return Err(Error::unsupported(missing));
        }
        let mut checkpoint = Checkpoint::described(model, host)?;
        let storage = match options.dtype {
            Dtype::Float32 => StorageType::F32,
            Dtype::Float16 => StorageType::F16,
            Dtype::Auto | Dtype::Bfloat16 => StorageType::BF16,
        };
        let layout = checkpoint.prepare(|checkpoint| hub_layout(checkpoint, model, storage))?;
        let positions = checkpoint.info.max_position_embeddings as usize;
        let length = match options.max_model_len {
            0 => positions.min(fitting(&checkpoint, &options)),
            length => length.min(positions),
        };
        if length < 2 {
            return Err(Error::invalid(format!(
                "option max_model_len = {length}: nothing can be scored within it"
            )));
        }
        let server = start(&options, &layout.directory, length, host).map_err(refused)?;
        checkpoint.info.compute = arithmetic(&checkpoint, &options);
        checkpoint.info.library = format!("vLLM {}", status.version.unwrap_or_default());
        checkpoint.info.device = match options.device {
            Device::Cpu => "cpu".to_owned(),
            Device::Cuda => "cuda".to_owned(),
        };
        Ok(VllmRunner { server, checkpoint, limit: length, host: host.clone(), _layout: layout })
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
        // The last token is part of a prompt here, so one less is read than fits.
        let limit = self.limit - 1;
        // Of nothing, the probability is 1.
        let mut scores = vec![Score { greedy: true, ..Score::default() }; requests.len()];
        for portion in portions(requests) {
            self.host.check_cancelled()?;
            let done = portion.first().copied().unwrap_or(0) as u64;
            self.host.progress(done, requests.len() as u64, "requests of this batch");
            let (prompts, fitted) = whole_prompts(requests, &portion, limit)?;
            let body = json!({"model": MODEL, "prompt": prompts, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0});
            let answer = complete(&mut self.server, &body)?;
            let choices = choices(NAME, &answer, portion.len())?;
            for ((choice, i), fitted) in choices.into_iter().zip(portion).zip(&fitted) {
                scores[i] = score(choice, &requests[i].continuation, fitted)?;
            }
        }
        Ok(scores)
    }

    fn generate(&mut self, prompts: &[Vec<u32>], max_new_tokens: u32, stop: &[u32]) -> Result<Vec<Vec<u32>>> {
        let asked = Prompts { prompts, max_new_tokens, stop, limit: self.limit };
        generate(&mut self.server, &self.host, &asked, |prompt, most| {
            json!({
                "model": MODEL, "prompt": prompt, "max_tokens": most, "temperature": 0, "ignore_eos": true,
                "stop_token_ids": stop, "return_token_ids": true,
            })
        })
    }

    fn profile(&mut self, workload: &Workload) -> Result<Profile> {
        let host = self.host.clone();
        let body = |prompt: &[u32], new_tokens: usize| {
            json!({
                "model": MODEL, "prompt": prompt, "max_tokens": new_tokens, "min_tokens": new_tokens, "temperature": 0,
                "ignore_eos": true, "stream": true, "return_token_ids": true,
            })
        };
        let count = |event: &Value| count_token_ids(NAME, event);
        let timings = repeated(&host, workload, |workload| time(&mut self.server, workload, body, count))?;
        Ok(Profile { timings, how: HOW.to_owned() })
    }
}
