//! llama.cpp as a runner, in the worker's own process.
//!
//! llama.cpp is installed apart (`library.rs`); a small bridge, compiled against the very sources it is linked with, gives it an interface that
//! does not change (`bridge.rs`). Checkpoints that are no GGUF are written as one first (`convert.rs`).

mod bridge;
mod convert;
mod library;
mod runner;

use llmcb_plugin_api::sdk::Descriptor;

pub use library::LlamaCpp;
pub use runner::{LlamaCppRunner, RunnerOptions};

fn descriptor() -> Descriptor {
    Descriptor::backend("llama-cpp", "llama.cpp", env!("CARGO_PKG_VERSION"))
        .summary("Runs models in llama.cpp, in the worker's own process.")
        .description(
            "Scores, generates and times with llama.cpp (ggml), which `llmcb-host backends setup llama-cpp` builds for this machine. \
             GGUF files are run as they are. Other checkpoints are written as a GGUF first, for as long as they run: integer codes as \
             blocks of Q4_0, Q4_1 or Q8_0, the smallest that holds them, their scales and minima in half precision; numbers in the type they \
             are stored in. `compute` in a result says which.\n\n\
             With weights in blocks, llama.cpp rounds the inputs of linears to 8 bits in blocks of 32, and likelihoods move by more than the \
             rounding of weights; `weights=f32` and `cache=f32` take both out.",
        )
        .licence(env!("CARGO_PKG_LICENSE"))
        .authors("The llmcb-host authors")
        .citation(
            "llama.cpp",
            "Georgi Gerganov and contributors",
            "software",
            "https://github.com/ggml-org/llama.cpp",
        )
        .formats(&["safetensors", "gguf"])
        .runs_quantised(&["cpu"], &["gguf"])
}

llmcb_plugin_api::export_backend!(
    descriptor = crate::descriptor,
    runner = LlamaCppRunner,
    library = LlamaCpp
);
