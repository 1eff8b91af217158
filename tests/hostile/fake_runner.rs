//! A backend without a model: its scores come from a hash of the tokens. It can do one wrong thing, at the tester's choice, when
//! it is asked to score or to generate. Unless its options say what, the environment variable `LLMCB_HOSTILE` does.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What it does when asked to score or to generate.
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Scores.
    #[default]
    Ok,
    /// Scores, each batch after `seconds`.
    Slow,
    /// Panics.
    Panic,
    /// Aborts.
    Abort,
    /// Answers one request less than it was asked.
    Short,
    /// Gives scores that are not numbers.
    Nan,
    /// Gives scores that depend on how many are asked for.
    Batch,
    /// Generates more than it is asked for.
    Long,
    /// Says that it does not do this.
    Unsupported,
    /// Refuses to open any model.
    Closed,
}

impl Mode {
    fn of_environment() -> Self {
        let mode = std::env::var("LLMCB_HOSTILE").unwrap_or_default();
        serde_json::from_value(mode.into()).unwrap_or_default()
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// What it does when asked to score or to generate.
    mode: Mode,
    /// How long `slow` takes for a batch.
    #[schemars(range(min = 0.0, max = 600.0))]
    seconds: f64,
}

impl Default for Options {
    fn default() -> Self {
        Options { mode: Mode::of_environment(), seconds: 0.0 }
    }
}

struct FakeRunner(Options);

fn descriptor() -> Descriptor {
    Descriptor::backend("fake-runner", "Fake", env!("CARGO_PKG_VERSION"))
        .summary("Scores without a model.")
        .licence("MIT OR Apache-2.0")
}

/// A number in (-8, 0] that depends on a token and on those before it.
fn log_likelihood(state: &mut u64, token: u32) -> f32 {
    *state = (*state ^ u64::from(token)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    -((*state >> 48) as f32) / 8192.0
}

impl Runner for FakeRunner {
    type Options = Options;

    fn open(_: &Path, options: Options, _: &Host) -> Result<Self> {
        match options.mode {
            Mode::Closed => Err(Error::failed("closed on Mondays")),
            _ => Ok(FakeRunner(options)),
        }
    }

    fn model(&self) -> ModelInfo {
        ModelInfo {
            architecture: "Fake".into(),
            parameters: 1,
            blocks: 1,
            hidden_size: 1,
            vocab_size: 257,
            max_position_embeddings: 4096,
            prefix_token: Some(256),
            ..ModelInfo::default()
        }
    }

    fn encode(&self, texts: &[String], _: bool) -> Result<Vec<Vec<u32>>> {
        Ok(texts.iter().map(|text| text.bytes().map(u32::from).collect()).collect())
    }

    fn decode(&self, tokens: &[u32]) -> Result<String> {
        let bytes: Vec<u8> = tokens.iter().filter_map(|t| u8::try_from(*t).ok()).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn score(&mut self, requests: &[ScoreRequest]) -> Result<Vec<Score>> {
        match self.0.mode {
            Mode::Slow => sleep(Duration::from_secs_f64(self.0.seconds)),
            Mode::Panic => panic!("asked to panic"),
            Mode::Abort => std::process::abort(),
            Mode::Unsupported => return Err(Error::unsupported("no scores here")),
            _ => {}
        }
        let mut scores: Vec<Score> = requests
            .iter()
            .map(|request| {
                let mut state = 1;
                for token in &request.context {
                    log_likelihood(&mut state, *token);
                }
                let token_log_likelihoods: Vec<f32> =
                    request.continuation.iter().map(|token| log_likelihood(&mut state, *token)).collect();
                Score {
                    log_likelihood: token_log_likelihoods.iter().map(|l| f64::from(*l)).sum(),
                    greedy: false,
                    truncated: false,
                    token_log_likelihoods,
                }
            })
            .collect();
        match self.0.mode {
            Mode::Short => {
                scores.pop();
            }
            Mode::Batch => {
                let share = scores.len() as f32;
                for score in &mut scores {
                    score.token_log_likelihoods.iter_mut().for_each(|l| *l -= share);
                    score.log_likelihood = score.token_log_likelihoods.iter().map(|l| f64::from(*l)).sum();
                }
            }
            Mode::Nan => scores.iter_mut().for_each(|s| s.log_likelihood = f64::NAN),
            _ => {}
        }
        Ok(scores)
    }

    fn generate(&mut self, prompts: &[Vec<u32>], new: u32, _: &[u32]) -> Result<Vec<Vec<u32>>> {
        let length = if matches!(self.0.mode, Mode::Long) { new + 1 } else { new };
        Ok(prompts.iter().map(|_| vec![u32::from(b'a'); length as usize]).collect())
    }

    fn profile(&mut self, _: &Workload) -> Result<Profile> {
        Err(Error::unsupported("nothing to time"))
    }
}

llmcb_plugin_api::export_backend!(descriptor = descriptor, runner = FakeRunner);
