//! The runner.

use std::path::Path;
use std::time::Instant;

use llmcb_plugin_api::sdk::{
    Error, Host, Library, LogLevel, ModelInfo, Profile, Result, Runner, Score, ScoreRequest, Tensor, Timing,
    Workload,
};
use llmcb_runner_kit::Checkpoint;
use llmcb_runner_kit::fit::{Fitted, fit};
use llmcb_runner_kit::likelihood::{count, log_probabilities, most_likely};
use llmcb_runner_kit::server::Server;
use llmcb_runner_kit::timing::repeated;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::library::{Installation, MlcLlm};
use crate::model::{Files, Loaded, Wanted};
use crate::prepare::{Prepared, prepare};
use crate::serve;
use crate::tvm::{CUDA, PROCESSOR, Place, Tvm};

/// Where models run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// On the processor.
    #[default]
    Cpu,
    /// On an NVIDIA GPU.
    Cuda,
}

impl Device {
    /// As MLC-LLM's command line names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Cuda => "cuda",
        }
    }

    fn place(self) -> Place {
        match self {
            Device::Cpu => PROCESSOR,
            Device::Cuda => CUDA,
        }
    }
}

/// What runs a compiled model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// TVM's virtual machine, in the worker's process.
    #[default]
    Ffi,
    /// MLC-LLM's server, which is timed only.
    Serve,
}

/// Options of the runner.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunnerOptions {
    /// The interpreter of an environment with MLC-LLM; where none is named, that of `LLMCB_PYTHON`, or `python3`.
    pub python: String,
    /// Where models run.
    pub device: Device,
    /// What runs a compiled model.
    pub engine: Engine,
    /// MLC-LLM's name of a format (`q0f16`, `q4f16_1`, ...); empty: numbers, `q0f32` on the processor, `q0f16` elsewhere.
    pub quantization: String,
    /// MLC-LLM's level of optimisation, `O0` to `O3`, or its list of flags.
    pub opt: String,
    /// Longest sequence; 0: the model's own limit.
    pub max_model_len: usize,
    /// Tokens of prompts that run at once.
    #[schemars(range(min = 1))]
    pub prefill_chunk_size: usize,
    /// Sequences that run at once.
    #[schemars(range(min = 1))]
    pub max_batch_size: usize,
    /// Devices that share each layer, with `engine=serve`.
    #[schemars(range(min = 1))]
    pub tensor_parallel_shards: usize,
    /// Seconds that the server may take to start.
    #[schemars(range(min = 1))]
    pub start_limit: u64,
    /// Seconds that a request to the server may take.
    #[schemars(range(min = 1))]
    pub request_limit: u64,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        RunnerOptions {
            python: String::new(),
            device: Device::default(),
            engine: Engine::default(),
            quantization: String::new(),
            opt: "O2".to_owned(),
            max_model_len: 0,
            prefill_chunk_size: 2048,
            max_batch_size: 32,
            tensor_parallel_shards: 1,
            start_limit: 900,
            request_limit: 600,
        }
    }
}

impl RunnerOptions {
    /// The format that weights are given in.
    pub(crate) fn quantization(&self) -> &str {
        match (self.quantization.as_str(), self.device) {
            ("", Device::Cpu) => "q0f32",
            ("", Device::Cuda) => "q0f16",
            (named, _) => named,
        }
    }
}

enum Running {
    Here(Box<Loaded>),
    Served(Box<Server>),
}

/// MLC-LLM with a model.
pub struct MlcLlmRunner {
    running: Running,
    checkpoint: Checkpoint,
    /// Longest sequence.
    limit: usize,
    /// Sequences at once.
    most_sequences: usize,
    host: Host,
    /// The server goes on reading it.
    _prepared: Prepared,
}

/// A context that has been read, and the logits after it.
struct Read {
    context: Vec<u32>,
    logits: Vec<f32>,
    /// Tokens of the longest input, for which there is room.
    longest: usize,
}

const SERVED: &str = "MLC-LLM's server gives neither likelihoods of prompts nor token ids: use engine=ffi";

/// Runs parts as many at once as the library takes, and gives logits after the last token of each, in order.
fn read_last(loaded: &mut Loaded, host: &Host, parts: &[(usize, &[u32])]) -> Result<Vec<Vec<f32>>> {
    let most = loaded.most_tokens(Wanted::Last);
    let mut after: Vec<Vec<f32>> = vec![Vec::new(); parts.len()];
    let mut together: Vec<(usize, &[u32])> = Vec::new();
    let mut room = most;
    // Which part each of `together` is from; logits after a piece are overwritten by those after the next of the same part.
    let mut from: Vec<usize> = Vec::new();
    for (part, (sequence, tokens)) in parts.iter().enumerate() {
        let mut rest = *tokens;
        while !rest.is_empty() {
            if room == 0 {
                flush(loaded, host, &mut together, &mut from, &mut after)?;
                room = most;
            }
            let (piece, later) = rest.split_at(room.min(rest.len()));
            together.push((*sequence, piece));
            from.push(part);
            room -= piece.len();
            rest = later;
        }
    }
    flush(loaded, host, &mut together, &mut from, &mut after)?;
    Ok(after)
}

fn flush(
    loaded: &mut Loaded,
    host: &Host,
    together: &mut Vec<(usize, &[u32])>,
    from: &mut Vec<usize>,
    after: &mut [Vec<f32>],
) -> Result<()> {
    if together.is_empty() {
        return Ok(());
    }
    host.check_cancelled()?;
    let logits = loaded.run(together, Wanted::Last)?;
    for (row, part) in logits.rows().zip(from.iter()) {
        after[*part] = row.to_vec();
    }
    together.clear();
    from.clear();
    Ok(())
}

/// Runs tokens of sequence 0, and shows logits after each.
fn read_all(
    loaded: &mut Loaded,
    host: &Host,
    tokens: &[u32],
    mut visit: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let most = loaded.most_tokens(Wanted::All);
    for (at, chunk) in tokens.chunks(most).enumerate() {
        host.check_cancelled()?;
        let logits = loaded.run(&[(0, chunk)], Wanted::All)?;
        logits.rows().enumerate().try_for_each(|(i, row)| visit(at * most + i, row))?;
    }
    Ok(())
}

/// Scores one request. The context is read apart from the continuation, always, so that a result does not depend on whether it had been read for
/// the request before.
fn score_one(
    loaded: &mut Loaded,
    host: &Host,
    request: &ScoreRequest,
    fitted: &Fitted,
    read: &mut Read,
) -> Result<Score> {
    let (context, rest) = fitted.input.split_at(fitted.context);
    if read.context != context {
        read.context.clear();
        loaded.make_room(1, read.longest)?;
        read.logits = read_last(loaded, host, &[(0, context)])?.remove(0);
        read.context = context.to_vec();
    }
    let mut score = Score { greedy: true, truncated: fitted.truncated, ..Score::default() };
    count(&mut score, &read.logits, request.continuation[0])?;
    read_all(loaded, host, rest, |i, logits| count(&mut score, logits, request.continuation[i + 1]))?;
    loaded.forget(0, rest.len())?;
    Ok(score)
}

/// Runs a workload once.
fn time(loaded: &mut Loaded, host: &Host, workload: &Workload) -> Result<Timing> {
    let longest = workload.prompts.iter().map(Vec::len).max().unwrap_or(0);
    let new_tokens = workload.new_tokens as usize;
    loaded.make_room(workload.prompts.len(), longest + new_tokens)?;
    let prompts: Vec<(usize, &[u32])> =
        workload.prompts.iter().enumerate().map(|(sequence, prompt)| (sequence, prompt.as_slice())).collect();
    let greedy =
        |after: Vec<Vec<f32>>| -> Vec<[u32; 1]> { after.iter().map(|row| [most_likely(row)]).collect() };
    let mut timing = Timing::default();
    let begin = Instant::now();
    let mut next = greedy(read_last(loaded, host, &prompts)?);
    timing.prefill_seconds = begin.elapsed().as_secs_f64();
    for _ in 1..new_tokens {
        let begin = Instant::now();
        let parts: Vec<(usize, &[u32])> =
            next.iter().enumerate().map(|(sequence, token)| (sequence, token.as_slice())).collect();
        next = greedy(read_last(loaded, host, &parts)?);
        timing.decode_seconds.push(begin.elapsed().as_secs_f64());
    }
    Ok(timing)
}

impl MlcLlmRunner {
    fn here(&mut self) -> Result<&mut Loaded> {
        match &mut self.running {
            Running::Here(loaded) => Ok(loaded),
            Running::Served(_) => Err(Error::unsupported(SERVED)),
        }
    }
}

impl Runner for MlcLlmRunner {
    type Options = RunnerOptions;

    fn open(model: &Path, options: RunnerOptions, host: &Host) -> Result<Self> {
        if let Some(missing) = MlcLlm::find(&options)?.missing {
            return Err(Error::unsupported(missing));
        }
        let installation = Installation::find(&options).map_err(Error::unsupported)?;
        let mut checkpoint = Checkpoint::described(model, host)?;
        let positions = checkpoint.info.max_position_embeddings as usize;
        let limit = if options.max_model_len == 0 { positions } else { options.max_model_len.min(positions) };
        let prepared = checkpoint
            .prepare(|checkpoint| prepare(checkpoint, model, limit, &installation, &options, host))?;
        let (running, limit) = match options.engine {
            Engine::Ffi => {
                host.progress(0, 0, "loading into TVM");
                let (interface, runtimes) = installation.tvm()?;
                let tvm = Tvm::load(interface, &runtimes)?;
                let files = Files {
                    library: &prepared.library,
                    weights: &prepared.directory,
                    vocabulary: checkpoint.info.vocab_size as usize,
                };
                let loaded = Loaded::open(tvm, options.device.place(), host.threads(), &files)?;
                let limit = limit.min(loaded.longest());
                (Running::Here(Box::new(loaded)), limit)
            }
            Engine::Serve => {
                let server = serve::start(&options, &installation, &prepared, limit, host)?;
                (Running::Served(Box::new(server)), limit)
            }
        };
        checkpoint.info.compute.clone_from(&prepared.compute);
        let version = MlcLlm::find(&options)?.version.unwrap_or_default();
        checkpoint.info.library = format!("MLC-LLM {version}");
        checkpoint.info.device = options.device.name().to_owned();
        host.log(LogLevel::Info, format!("MLC-LLM runs {}", prepared.compute));
        let most_sequences = options.max_batch_size;
        Ok(MlcLlmRunner {
            running,
            checkpoint,
            limit,
            most_sequences,
            host: host.clone(),
            _prepared: prepared,
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
        let (limit, host) = (self.limit, self.host.clone());
        let loaded = self.here()?;
        let mut fitted: Vec<Option<Fitted>> = Vec::new();
        for (i, request) in requests.iter().enumerate() {
            // Of nothing, the probability is 1.
            let is_empty = request.continuation.is_empty();
            fitted.push(if is_empty { None } else { Some(fit(request, limit, &format!("request {i}"))?) });
        }
        let longest = fitted.iter().flatten().map(|one| one.input.len()).max().unwrap_or(0);
        let mut read = Read { context: Vec::new(), logits: Vec::new(), longest };
        let mut scores = Vec::new();
        for (i, (request, fitted)) in requests.iter().zip(&fitted).enumerate() {
            host.check_cancelled()?;
            host.progress(i as u64, requests.len() as u64, "requests of this batch");
            scores.push(match fitted {
                None => Score { greedy: true, ..Score::default() },
                Some(fitted) => score_one(loaded, &host, request, fitted, &mut read)?,
            });
        }
        Ok(scores)
    }

    fn generate(&mut self, prompts: &[Vec<u32>], max_new_tokens: u32, stop: &[u32]) -> Result<Vec<Vec<u32>>> {
        let (limit, host) = (self.limit, self.host.clone());
        let loaded = self.here()?;
        let mut answers = Vec::new();
        for (i, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() || prompt.len() > limit {
                let length = prompt.len();
                return Err(Error::invalid(format!(
                    "prompt {i} has {length} tokens, the model takes 1 to {limit}"
                )));
            }
            let most = (max_new_tokens as usize).min(limit - prompt.len());
            loaded.make_room(1, prompt.len() + most)?;
            let (mut answer, mut next) = (Vec::new(), prompt.clone());
            while answer.len() < most {
                let token = most_likely(&read_last(loaded, &host, &[(0, &next)])?[0]);
                if stop.contains(&token) {
                    break;
                }
                answer.push(token);
                next = vec![token];
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    fn log_probabilities(&mut self, tokens: &[u32]) -> Result<Tensor> {
        let (limit, host) = (self.limit, self.host.clone());
        let loaded = self.here()?;
        if tokens.len() > limit {
            let length = tokens.len();
            return Err(Error::invalid(format!(
                "{length} tokens are more than the {limit} that the model takes"
            )));
        }
        loaded.make_room(1, tokens.len())?;
        let mut rows: Vec<f32> = Vec::new();
        let mut width = 0;
        read_all(loaded, &host, tokens, |_, logits| {
            width = logits.len();
            rows.extend(log_probabilities(logits));
            Ok(())
        })?;
        Tensor::from_vec(rows, &[tokens.len(), width])
    }

    fn profile(&mut self, workload: &Workload) -> Result<Profile> {
        let host = self.host.clone();
        let (prompts, most) = (workload.prompts.len(), self.most_sequences);
        if prompts > most {
            return Err(Error::invalid(format!(
                "the workload has {prompts} prompts at once, more than the option max_batch_size = {most}"
            )));
        }
        let longest = workload.prompts.iter().map(Vec::len).max().unwrap_or(0);
        let all = longest + (workload.new_tokens as usize).saturating_sub(1);
        if all > self.limit {
            let limit = self.limit;
            return Err(Error::invalid(format!(
                "the workload's sequences have {all} tokens, the model takes {limit}"
            )));
        }
        match &mut self.running {
            Running::Here(loaded) => {
                let timings = repeated(&host, workload, |workload| time(loaded, &host, workload))?;
                let how = format!(
                    "wall clock in process, greedy, {} threads, stop tokens ignored, first token counted with the prompt",
                    loaded.threads()
                );
                Ok(Profile { timings, how })
            }
            Running::Served(server) => {
                let timings = repeated(&host, workload, |workload| serve::time(server, workload))?;
                Ok(Profile { timings, how: serve::HOW.to_owned() })
            }
        }
    }
}
