//! MLC-LLM as a runner.
//!
//! A checkpoint is converted and compiled by MLC-LLM's own command line (`prepare.rs`). What it compiled runs in the worker's process, in TVM's
//! virtual machine (`model.rs`), through TVM's C interface (`tvm.rs`); or in MLC-LLM's server (`serve.rs`).

mod library;
mod model;
mod prepare;
mod runner;
mod serve;
mod tvm;

use llmcb_plugin_api::sdk::Descriptor;

pub use library::MlcLlm;
pub use runner::{Device, Engine, MlcLlmRunner, RunnerOptions};

fn descriptor() -> Descriptor {
    Descriptor::backend("mlc-llm", "MLC-LLM", env!("CARGO_PKG_VERSION"))
        .summary("Compiles models with MLC-LLM and runs them in TVM.")
        .description(
            "Calls `mlc_llm gen_config`, `convert_weight` and `compile` of an installation of yours, whose interpreter `python` names, and runs \
             what comes out. With `engine=ffi` a model runs in the worker's process through TVM's C interface, and is scored, generates and is \
             timed there. With `engine=serve` it runs in `mlc_llm serve` on loopback: it is timed only, for that server gives neither likelihoods of \
             prompts nor token ids; its key is seen in its command line.\n\n\
             MLC-LLM has formats of its own (`quantization`). Checkpoints with integer codes go in as the numbers that they stand for, and \
             results say so; `quantization=q4f16_autoawq` alone is meant to take the codes of AWQ, in groups of 128, and was never run. Inputs are not rounded. Compiled \
             libraries are kept, and serve all checkpoints of the same shape.",
        )
        .licence(env!("CARGO_PKG_LICENSE"))
        .authors("The llmcb-host authors")
        .citation("MLC-LLM", "MLC team", "software", "https://github.com/mlc-ai/mlc-llm")
        .devices(&["cpu", "cuda"])
        .formats(&["safetensors", "awq"])
        .runs_quantised(&["cpu", "cuda"], &["its own"])
}

llmcb_plugin_api::export_backend!(descriptor = crate::descriptor, runner = MlcLlmRunner, library = MlcLlm);
