//! A backend for llmcb-host: it loads finished checkpoints and scores, continues and times them.
//!
//! It works, and it is poor: whatever the model, it predicts each byte by how often that byte occurred earlier in the same text (a cache
//! language model, Kuhn and De Mori 1990). Put your library in place of `Counts`: load the checkpoint in `open`, its tokenizer in `encode`
//! and `decode`, its forward pass in `score`.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use llmcb_plugin_api::sdk::*;
use llmcb_plugin_api::serde_json::{self, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The tokens: all bytes, and one that stands before a text that has nothing before it.
const VOCABULARY: usize = 257;
const START: u32 = 256;

/// Options of the runner. Names, comments, ranges and defaults become its help: `llmcb-host plugins info my-plugin`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// How often every token counts as seen before the first: larger values make predictions more even.
    #[schemars(range(min = 0.001, max = 1000.0))]
    smoothing: f64,
}

impl Default for Options {
    fn default() -> Self {
        Options { smoothing: 1.0 }
    }
}

struct MyPlugin {
    smoothing: f64,
    info: ModelInfo,
    host: Host,
}

fn descriptor() -> Descriptor {
    Descriptor::backend("my-plugin", "my-plugin", env!("CARGO_PKG_VERSION"))
        .summary("Predicts bytes by how often they occurred before; knows no model.")
        .licence(env!("CARGO_PKG_LICENSE"))
        .formats(&["safetensors", "gguf"])
        .runs(Abilities::default())
}

impl Runner for MyPlugin {
    type Options = Options;

    fn open(model: &Path, options: Options, host: &Host) -> Result<Self> {
        if !(0.001..=1000.0).contains(&options.smoothing) {
            return Err(Error::invalid(format!(
                "smoothing = {}: must be from 0.001 to 1000",
                options.smoothing
            )));
        }
        let info = if model.is_dir() {
            describe_folder(model)?
        } else {
            describe_gguf(model)?
        };
        Ok(MyPlugin {
            smoothing: options.smoothing,
            info,
            host: host.clone(),
        })
    }

    fn model(&self) -> ModelInfo {
        self.info.clone()
    }

    fn encode(&self, texts: &[String], _add_special: bool) -> Result<Vec<Vec<u32>>> {
        Ok(texts
            .iter()
            .map(|text| text.bytes().map(u32::from).collect())
            .collect())
    }

    fn decode(&self, tokens: &[u32]) -> Result<String> {
        let bytes: Vec<u8> = tokens
            .iter()
            .filter_map(|token| u8::try_from(*token).ok())
            .collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn score(&mut self, requests: &[ScoreRequest]) -> Result<Vec<Score>> {
        let mut scores = Vec::with_capacity(requests.len());
        for (done, request) in requests.iter().enumerate() {
            // Often enough that a user who presses Ctrl-C does not wait.
            self.host.check_cancelled()?;
            self.host
                .progress(done as u64, requests.len() as u64, "requests");
            let mut counts = Counts::of(&request.context)?;
            let mut score = Score {
                greedy: true,
                ..Score::default()
            };
            for token in &request.continuation {
                score.greedy &= *token == counts.likeliest();
                let log_likelihood = counts.log_likelihood(*token, self.smoothing);
                score.log_likelihood += log_likelihood;
                score.token_log_likelihoods.push(log_likelihood as f32);
                counts.add(*token)?;
            }
            scores.push(score);
        }
        Ok(scores)
    }

    fn generate(
        &mut self,
        prompts: &[Vec<u32>],
        max_new_tokens: u32,
        stop: &[u32],
    ) -> Result<Vec<Vec<u32>>> {
        let mut answers = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let mut counts = Counts::of(prompt)?;
            let mut answer = Vec::new();
            while answer.len() < max_new_tokens as usize {
                self.host.check_cancelled()?;
                let token = counts.likeliest();
                if stop.contains(&token) {
                    break;
                }
                counts.add(token)?;
                answer.push(token);
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    // A library that gives no distributions leaves this out: perplexities and accuracies do not need it.
    fn log_probabilities(&mut self, tokens: &[u32]) -> Result<Tensor> {
        let mut counts = Counts::of(&[])?;
        let mut rows = Vec::with_capacity(tokens.len() * VOCABULARY);
        for token in tokens {
            self.host.check_cancelled()?;
            counts.add(*token)?;
            rows.extend(
                (0..VOCABULARY as u32)
                    .map(|next| counts.log_likelihood(next, self.smoothing) as f32),
            );
        }
        Tensor::from_vec(rows, &[tokens.len(), VOCABULARY])
    }

    fn profile(&mut self, workload: &Workload) -> Result<Profile> {
        let mut timings = Vec::new();
        for run in 0..workload.warm_up + workload.repetitions {
            self.host.check_cancelled()?;
            let begin = Instant::now();
            let mut all = workload
                .prompts
                .iter()
                .map(|p| Counts::of(p))
                .collect::<Result<Vec<_>>>()?;
            let mut step = |all: &mut [Counts]| {
                all.iter_mut()
                    .try_for_each(|counts| counts.add(counts.likeliest()))
            };
            step(&mut all)?;
            let prefill_seconds = begin.elapsed().as_secs_f64();
            let mut decode_seconds = Vec::new();
            for _ in 1..workload.new_tokens {
                let begin = Instant::now();
                step(&mut all)?;
                decode_seconds.push(begin.elapsed().as_secs_f64());
            }
            if run >= workload.warm_up {
                timings.push(Timing {
                    prefill_seconds,
                    decode_seconds,
                });
            }
        }
        Ok(Profile {
            timings,
            how: "wall clock in process, greedy, one thread".into(),
        })
    }
}

/// How often each token occurred.
struct Counts {
    of: [u32; VOCABULARY],
    all: u32,
}

impl Counts {
    fn of(tokens: &[u32]) -> Result<Self> {
        let mut counts = Counts {
            of: [0; VOCABULARY],
            all: 0,
        };
        tokens.iter().try_for_each(|token| counts.add(*token))?;
        Ok(counts)
    }

    fn add(&mut self, token: u32) -> Result<()> {
        let count = self.of.get_mut(token as usize);
        *count.ok_or_else(|| {
            Error::invalid(format!("there is no token {token}; there are {VOCABULARY}"))
        })? += 1;
        self.all += 1;
        Ok(())
    }

    fn log_likelihood(&self, token: u32, smoothing: f64) -> f64 {
        let seen = self.of.get(token as usize).copied().unwrap_or(0);
        ((f64::from(seen) + smoothing) / (f64::from(self.all) + smoothing * VOCABULARY as f64)).ln()
    }

    /// The first of those that occurred most.
    fn likeliest(&self) -> u32 {
        let most = self.of.iter().copied().max().unwrap_or(0);
        self.of.iter().position(|count| *count == most).unwrap_or(0) as u32
    }
}

fn unreadable(file: &Path, why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("{}: {why}", file.display()))
}

/// What results say of any model that this backend runs.
fn info() -> ModelInfo {
    ModelInfo {
        vocab_size: VOCABULARY as u32,
        max_position_embeddings: 1 << 20,
        compute: "f64".into(),
        device: "cpu".into(),
        prefix_token: Some(START),
        ..ModelInfo::default()
    }
}

/// A model in the Hugging Face layout.
fn describe_folder(folder: &Path) -> Result<ModelInfo> {
    let file = folder.join("config.json");
    let text = std::fs::read(&file).map_err(|e| unreadable(&file, e))?;
    let config: Value = serde_json::from_slice(&text).map_err(|e| unreadable(&file, e))?;
    let number = |key: &str| {
        config[key]
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or_default()
    };
    let mut weights = 0;
    for entry in std::fs::read_dir(folder).map_err(|e| unreadable(folder, e))? {
        let entry = entry.map_err(|e| unreadable(folder, e))?;
        if entry
            .path()
            .extension()
            .is_some_and(|end| end == "safetensors")
        {
            weights += entry
                .metadata()
                .map_err(|e| unreadable(&entry.path(), e))?
                .len();
        }
    }
    Ok(ModelInfo {
        architecture: config["architectures"][0]
            .as_str()
            .unwrap_or_default()
            .into(),
        blocks: number("num_hidden_layers"),
        hidden_size: number("hidden_size"),
        source_format: "safetensors".into(),
        bytes_on_disk: weights,
        ..info()
    })
}

/// A GGUF file: its first 24 bytes are the name of the format, its version, and how many tensors and keys follow.
fn describe_gguf(file: &Path) -> Result<ModelInfo> {
    let mut head = [0; 24];
    let mut open = File::open(file).map_err(|e| unreadable(file, e))?;
    open.read_exact(&mut head)
        .map_err(|e| unreadable(file, e))?;
    let size = open.metadata().map_err(|e| unreadable(file, e))?.len();
    let number = |at: usize| {
        head[at..at + 8]
            .iter()
            .rev()
            .fold(0u64, |n, byte| n << 8 | u64::from(*byte))
    };
    let (tensors, keys) = (number(8), number(16));
    // Each takes a dozen bytes at the very least.
    if &head[..4] != b"GGUF" || tensors.saturating_add(keys) > size / 12 {
        return Err(unreadable(
            file,
            "neither a folder with a config.json nor a GGUF file",
        ));
    }
    Ok(ModelInfo {
        source_format: "gguf".into(),
        bytes_on_disk: size,
        ..info()
    })
}

llmcb_plugin_api::export_backend!(descriptor = descriptor, runner = MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_of_all_tokens_add_up_to_one() {
        for smoothing in [0.001, 1.0, 1000.0] {
            for seen in [&[][..], &[7], &[7, 7, 9, START]] {
                let counts = Counts::of(seen).unwrap();
                let sum: f64 = (0..VOCABULARY as u32)
                    .map(|token| counts.log_likelihood(token, smoothing).exp())
                    .sum();
                assert!((sum - 1.0).abs() < 1e-9, "{sum}");
            }
        }
    }

    #[test]
    fn what_occurred_most_is_likeliest() {
        let counts = Counts::of(&[3, 5, 5]).unwrap();
        assert_eq!(counts.likeliest(), 5);
        assert!(counts.log_likelihood(5, 1.0) > counts.log_likelihood(3, 1.0));
        assert!(Counts::of(&[VOCABULARY as u32]).is_err());
    }
}
