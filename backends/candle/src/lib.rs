//! The embedded backend: an engine and a runner in one shared object, without a server or an installation.
//!
//! It is a thin layer: [`llmcb_transformer`] computes, this crate speaks the plugin interface.

mod block_file;
mod description;
mod engine;
mod finished;
mod memory;
mod opened;
mod runner;

use llmcb_plugin_api::sdk::Descriptor;

pub use engine::{CandleEngine, EngineOptions};
pub use runner::{CandleRunner, RunnerOptions};

fn descriptor() -> Descriptor {
    Descriptor::backend("candle", "candle", env!("CARGO_PKG_VERSION"))
        .summary("Runs and opens models in the worker itself, on the CPU, with candle.")
        .description(
            "Loads LLaMA 1, 2, 3 and what has their shape (Vicuna, TinyLlama, SmolLM2), Mistral, Qwen2, Phi-3, OPT, ChatGLM2 and \
             ChatGLM3 from safetensors, and those of LLaMA's shape from GGUF. As an engine it gives methods the blocks of the model, \
             one in memory at a time, statistics of their inputs and gradients, in float32; as a runner it scores and generates, in \
             float32 unless told otherwise.\n\n\
             Scoring runs shared prefixes once (the endings of one question, few-shot prompts), packs sequences without \
             padding, and computes logits only where they are scored. Results do not depend on how requests are batched.",
        )
        .licence(env!("CARGO_PKG_LICENSE"))
        .authors("The llmcb-host authors")
        .formats(&["safetensors", "gguf"])
        .runs_quantised(&["cpu"], &["gptq", "awq", "compressed-tensors", "gguf"])
        .streams_weights()
}

llmcb_plugin_api::export_backend!(
    descriptor = crate::descriptor,
    engine = CandleEngine,
    runner = CandleRunner
);
