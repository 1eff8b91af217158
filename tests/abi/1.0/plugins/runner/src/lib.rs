//! A runner that was built against plugin ABI 1.0. It knows no model: every byte is as likely as it was frequent before, in the same text.

use std::path::Path;
use std::time::Instant;

use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All bytes, and what stands for an empty context.
const VOCABULARY: usize = 257;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// What is added to the count of every byte.
    #[schemars(range(min = 0.001, max = 1000.0))]
    smoothing: f64,
}

impl Default for Options {
    fn default() -> Self {
        Options { smoothing: 1.0 }
    }
}

struct Kept {
    smoothing: f64,
    bytes: u64,
    host: Host,
}

struct Counts([u32; VOCABULARY]);

impl Counts {
    fn of(tokens: &[u32]) -> Self {
        let mut counts = Counts([0; VOCABULARY]);
        tokens.iter().for_each(|token| counts.add(*token));
        counts
    }

    fn add(&mut self, token: u32) {
        if let Some(count) = self.0.get_mut(token as usize) {
            *count += 1;
        }
    }

    fn log_likelihood(&self, token: u32, smoothing: f64) -> f64 {
        let all: u32 = self.0.iter().sum();
        let own = self.0.get(token as usize).copied().unwrap_or(0);
        ((f64::from(own) + smoothing) / (f64::from(all) + smoothing * VOCABULARY as f64)).ln()
    }

    fn likeliest(&self) -> u32 {
        let most = self.0.iter().max().copied().unwrap_or(0);
        self.0.iter().position(|count| *count == most).unwrap_or(0) as u32
    }
}

fn descriptor() -> Descriptor {
    Descriptor::backend("abi-1-0-runner", "ABI 1.0", env!("CARGO_PKG_VERSION"))
        .summary("Scores bytes by how frequent they were before, as plugins of ABI 1.0 could.")
        .licence("MIT OR Apache-2.0")
        .authors("The llmcb-host authors")
        .formats(&["safetensors"])
}

impl Runner for Kept {
    type Options = Options;

    fn open(model: &Path, options: Options, host: &Host) -> Result<Self> {
        let file = model.join("config.json");
        if !file.is_file() {
            return Err(Error::invalid(format!("{}: no such file", file.display())));
        }
        let bytes = std::fs::metadata(model.join("model.safetensors")).map_or(0, |data| data.len());
        Ok(Kept { smoothing: options.smoothing.max(1e-3), bytes, host: host.clone() })
    }

    fn model(&self) -> ModelInfo {
        ModelInfo {
            architecture: "Frequencies".into(),
            vocab_size: VOCABULARY as u32,
            max_position_embeddings: 1 << 20,
            bytes_on_disk: self.bytes,
            source_format: "safetensors".into(),
            compute: "f64".into(),
            device: "cpu".into(),
            prefix_token: Some(256),
            ..ModelInfo::default()
        }
    }

    fn encode(&self, texts: &[String], _add_special: bool) -> Result<Vec<Vec<u32>>> {
        Ok(texts.iter().map(|text| text.bytes().map(u32::from).collect()).collect())
    }

    fn decode(&self, tokens: &[u32]) -> Result<String> {
        let bytes: Vec<u8> = tokens.iter().filter_map(|token| u8::try_from(*token).ok()).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn score(&mut self, requests: &[ScoreRequest]) -> Result<Vec<Score>> {
        let mut scores = Vec::with_capacity(requests.len());
        for (at, request) in requests.iter().enumerate() {
            self.host.check_cancelled()?;
            self.host.progress(at as u64, requests.len() as u64, "requests");
            let mut counts = Counts::of(&request.context);
            let mut score = Score { greedy: true, ..Score::default() };
            for token in &request.continuation {
                let one = counts.log_likelihood(*token, self.smoothing);
                score.greedy &= counts.likeliest() == *token;
                score.log_likelihood += one;
                score.token_log_likelihoods.push(one as f32);
                counts.add(*token);
            }
            scores.push(score);
        }
        Ok(scores)
    }

    fn generate(&mut self, prompts: &[Vec<u32>], max_new_tokens: u32, stop: &[u32]) -> Result<Vec<Vec<u32>>> {
        let mut answers = Vec::new();
        for prompt in prompts {
            let mut counts = Counts::of(prompt);
            let mut answer = Vec::new();
            for _ in 0..max_new_tokens {
                self.host.check_cancelled()?;
                let token = counts.likeliest();
                if stop.contains(&token) {
                    break;
                }
                counts.add(token);
                answer.push(token);
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    fn profile(&mut self, workload: &Workload) -> Result<Profile> {
        let mut timings = Vec::new();
        for run in 0..workload.warm_up + workload.repetitions {
            let begin = Instant::now();
            self.generate(&workload.prompts, 1, &[])?;
            let prefill_seconds = begin.elapsed().as_secs_f64();
            let mut decode_seconds = Vec::new();
            for _ in 1..workload.new_tokens {
                let begin = Instant::now();
                self.generate(&workload.prompts, 1, &[])?;
                decode_seconds.push(begin.elapsed().as_secs_f64());
            }
            if run >= workload.warm_up {
                timings.push(Timing { prefill_seconds, decode_seconds });
            }
        }
        Ok(Profile { timings, how: "wall clock in process".into() })
    }
}

llmcb_plugin_api::export_backend!(descriptor = descriptor, runner = Kept);
