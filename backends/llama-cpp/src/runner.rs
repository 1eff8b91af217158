//! The runner.

use std::path::Path;
use std::time::Instant;

use llmcb_plugin_api::sdk::{
    Error, Host, LogLevel, ModelInfo, Profile, Result, Runner, Score, ScoreRequest, Tensor, Timing, Workload,
};
use llmcb_runner_kit::Checkpoint;
use llmcb_runner_kit::fit::{Fitted, fit};
use llmcb_runner_kit::likelihood::{count, log_probabilities, most_likely};
use llmcb_runner_kit::timing::repeated;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bridge::{Loaded, Place, Room};
use crate::convert::{Weights, gguf};
use crate::library;

/// In which precision keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// Half precision, llama.cpp's own choice.
    #[default]
    F16,
    /// Single precision.
    F32,
}

/// Options of the runner.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunnerOptions {
    /// A shared object of llama.cpp with the bridge, in place of the one that `backends setup llama-cpp` makes.
    pub library: String,
    /// How weights of linears are given to llama.cpp.
    pub weights: Weights,
    /// Precision of keys and values.
    pub cache: Cache,
    /// Tokens that run at once.
    #[schemars(range(min = 1, max = 65536))]
    pub batch_tokens: usize,
    /// Longest sequence; longer ones lose tokens from the left. 0: the model's own limit.
    pub max_length: usize,
    /// Layers on an accelerator, where llama.cpp was built for one; -1: all.
    #[schemars(range(min = -1))]
    pub gpu_layers: i32,
    /// Whether llama.cpp may lay weights out anew for the processor when it loads them.
    pub repack: bool,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        RunnerOptions {
            library: String::new(),
            weights: Weights::default(),
            cache: Cache::default(),
            batch_tokens: 512,
            max_length: 0,
            gpu_layers: 0,
            repack: true,
        }
    }
}

/// Room is made for whole multiples of so many tokens.
const ROOM: usize = 256;

/// llama.cpp with a model.
pub struct LlamaCppRunner {
    loaded: Loaded,
    checkpoint: Checkpoint,
    options: RunnerOptions,
    /// Longest sequence.
    limit: usize,
    host: Host,
}

/// A context that has been read, and the logits after it.
#[derive(Default)]
struct Read {
    context: Vec<u32>,
    logits: Vec<f32>,
}

impl LlamaCppRunner {
    fn room(&self, sequences: usize, tokens: usize) -> Room {
        Room {
            sequences,
            // None at all would mean as many as the model was trained for.
            tokens: tokens.max(1).next_multiple_of(ROOM),
            batch: self.options.batch_tokens,
            single: self.options.cache == Cache::F32,
        }
    }

    /// Reads tokens into sequence 0 after the first `position`, and shows logits: after each token, or after the last.
    fn read(
        &mut self,
        tokens: &[u32],
        position: usize,
        all: bool,
        mut visit: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let batch = self.options.batch_tokens;
        for (at, chunk) in tokens.chunks(batch).enumerate() {
            self.host.check_cancelled()?;
            let first = at * batch;
            let is_wanted = |i: usize| all || first + i + 1 == tokens.len();
            let place = |(i, token): (usize, &u32)| Place {
                token: *token,
                position: position + first + i,
                sequence: 0,
                wanted: is_wanted(i),
            };
            let places: Vec<Place> = chunk.iter().enumerate().map(place).collect();
            self.loaded.run(&places)?;
            for i in (0..chunk.len()).filter(|i| is_wanted(*i)) {
                visit(first + i, self.loaded.logits(i)?)?;
            }
        }
        Ok(())
    }

    /// Scores one request. The context is read apart from the continuation, always, so that a result does not depend on whether it had been read
    /// for the request before.
    fn score_one(&mut self, request: &ScoreRequest, fitted: &Fitted, read: &mut Read) -> Result<Score> {
        let (context, rest) = fitted.input.split_at(fitted.context);
        if read.context != context || self.loaded.forget(Some(0), context.len()).is_err() {
            read.context.clear();
            self.loaded.forget(None, 0)?;
            let mut logits = Vec::new();
            self.read(context, 0, false, |_, after| {
                logits = after.to_vec();
                Ok(())
            })?;
            *read = Read { context: context.to_vec(), logits };
        }
        let mut score = Score { greedy: true, truncated: fitted.truncated, ..Score::default() };
        count(&mut score, &read.logits, request.continuation[0])?;
        self.read(rest, context.len(), true, |i, logits| {
            count(&mut score, logits, request.continuation[i + 1])
        })?;
        Ok(score)
    }

    /// Runs a workload once.
    fn time(&mut self, workload: &Workload) -> Result<Timing> {
        let batch = self.options.batch_tokens;
        let longest = workload.prompts.iter().map(Vec::len).max().unwrap_or(0);
        let new_tokens = workload.new_tokens as usize;
        let room = self.room(workload.prompts.len(), longest + new_tokens);
        self.loaded.make_room(room)?;
        let mut places = Vec::new();
        for (sequence, prompt) in workload.prompts.iter().enumerate() {
            let last = prompt.len().saturating_sub(1);
            places.extend(prompt.iter().enumerate().map(|(position, token)| Place {
                token: *token,
                position,
                sequence,
                wanted: position == last,
            }));
        }
        let mut next: Vec<u32> = Vec::new();
        let mut timing = Timing::default();
        let begin = Instant::now();
        for chunk in places.chunks(batch) {
            self.host.check_cancelled()?;
            self.loaded.run(chunk)?;
            for (i, _) in chunk.iter().enumerate().filter(|(_, place)| place.wanted) {
                next.push(most_likely(self.loaded.logits(i)?));
            }
        }
        timing.prefill_seconds = begin.elapsed().as_secs_f64();
        for step in 0..new_tokens.saturating_sub(1) {
            self.host.check_cancelled()?;
            let begin = Instant::now();
            let places: Vec<Place> = (next.iter().zip(&workload.prompts).enumerate())
                .map(|(sequence, (token, prompt))| Place {
                    token: *token,
                    position: prompt.len() + step,
                    sequence,
                    wanted: true,
                })
                .collect();
            next.clear();
            for chunk in places.chunks(batch) {
                self.loaded.run(chunk)?;
                for i in 0..chunk.len() {
                    next.push(most_likely(self.loaded.logits(i)?));
                }
            }
            timing.decode_seconds.push(begin.elapsed().as_secs_f64());
        }
        Ok(timing)
    }
}

impl Runner for LlamaCppRunner {
    type Options = RunnerOptions;

    fn open(model: &Path, options: RunnerOptions, host: &Host) -> Result<Self> {
        let (functions, version) = library::load(&options)?;
        let mut checkpoint = Checkpoint::described(model, host)?;
        let gguf = checkpoint.prepare(|checkpoint| gguf(checkpoint, options.weights, host))?;
        host.progress(0, 0, "loading into llama.cpp");
        let loaded = Loaded::open(functions, &gguf.file, host.threads(), options.gpu_layers, options.repack)?;
        let trained = loaded.trained_length().min(checkpoint.info.max_position_embeddings as usize);
        let limit = if options.max_length == 0 { trained } else { options.max_length.min(trained) };
        let cache = if options.cache == Cache::F32 { "f32" } else { "f16" };
        checkpoint.info.compute = format!("{}, cache {cache}", gguf.stored);
        checkpoint.info.library = format!("llama.cpp {version}");
        if options.gpu_layers != 0 && functions.offloads() {
            checkpoint.info.device = "gpu".to_owned();
        }
        host.log(LogLevel::Info, format!("llama.cpp runs {}", loaded.describe()));
        Ok(LlamaCppRunner { loaded, checkpoint, options, limit, host: host.clone() })
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
        let fitted = requests.iter().enumerate();
        let fitted: Vec<Fitted> =
            fitted.map(|(i, r)| fit(r, self.limit, &format!("request {i}"))).collect::<Result<_>>()?;
        let longest = fitted.iter().map(|f| f.input.len()).max().unwrap_or(0);
        self.loaded.make_room(self.room(1, longest))?;
        let mut read = Read::default();
        let mut scores = Vec::new();
        for (i, (request, fitted)) in requests.iter().zip(&fitted).enumerate() {
            self.host.progress(i as u64, requests.len() as u64, "requests of this batch");
            scores.push(match request.continuation.is_empty() {
                true => Score { greedy: true, ..Score::default() },
                false => self.score_one(request, fitted, &mut read)?,
            });
        }
        Ok(scores)
    }

    fn generate(&mut self, prompts: &[Vec<u32>], max_new_tokens: u32, stop: &[u32]) -> Result<Vec<Vec<u32>>> {
        let mut answers = Vec::new();
        for (i, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() {
                return Err(Error::invalid(format!("prompt {i} is empty")));
            }
            if prompt.len() > self.limit {
                let (length, limit) = (prompt.len(), self.limit);
                return Err(Error::invalid(format!(
                    "prompt {i} has {length} tokens, the model takes {limit}"
                )));
            }
            let most = (max_new_tokens as usize).min(self.limit - prompt.len());
            self.loaded.make_room(self.room(1, prompt.len() + most))?;
            let mut answer = Vec::new();
            let (mut next, mut position) = (prompt.clone(), 0);
            while answer.len() < most {
                let mut token = 0;
                self.read(&next, position, false, |_, logits| {
                    token = most_likely(logits);
                    Ok(())
                })?;
                if stop.contains(&token) {
                    break;
                }
                answer.push(token);
                position += next.len();
                next = vec![token];
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    fn log_probabilities(&mut self, tokens: &[u32]) -> Result<Tensor> {
        if tokens.len() > self.limit {
            return Err(Error::invalid(format!(
                "{} tokens are more than the {} that the model takes",
                tokens.len(),
                self.limit
            )));
        }
        self.loaded.make_room(self.room(1, tokens.len()))?;
        let mut rows: Vec<f32> = Vec::new();
        let mut width = self.checkpoint.info.vocab_size as usize;
        self.read(tokens, 0, true, |_, logits| {
            width = logits.len();
            rows.extend(log_probabilities(logits));
            Ok(())
        })?;
        Tensor::from_vec(rows, &[tokens.len(), width])
    }

    fn profile(&mut self, workload: &Workload) -> Result<Profile> {
        let host = self.host.clone();
        let timings = repeated(&host, workload, |workload| self.time(workload))?;
        let how = format!(
            "wall clock in process, greedy, {} threads, stop tokens ignored, first token counted with the prompt",
            self.host.threads()
        );
        Ok(Profile { timings, how })
    }
}
