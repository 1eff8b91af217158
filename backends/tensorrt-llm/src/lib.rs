//! TensorRT-LLM as a runner: its Python interface, in a process of its own for as long as a model is open.
//!
//! The process runs `driver.py`, which is asked over its standard input.

mod answers;
mod launch;
mod layout;
mod library;
mod runner;

use llmcb_plugin_api::sdk::Descriptor;

pub use library::TensorRtLlm;
pub use runner::{RunnerOptions, TensorRtLlmRunner};

fn descriptor() -> Descriptor {
    Descriptor::backend("tensorrt-llm", "TensorRT-LLM", env!("CARGO_PKG_VERSION"))
        .summary("Runs models in TensorRT-LLM on NVIDIA GPUs, through its Python interface.")
        .description(
            "Opens a checkpoint with TensorRT-LLM's `LLM` (its PyTorch backend), scores prompts by `prompt_logprobs` (from 1.3.0rc11 on: earlier \
             versions leave tokens out), generates greedily, and times streamed answers. Numbers are run as they are stored, or as bfloat16 where \
             they are stored in single precision; a GGUF and weights without their zeros are written as a directory of numbers first. Weights of 4 \
             bits on symmetric grids with groups of 64 or 128 are written, code by code, as Model Optimizer's W4A16_AWQ, which TensorRT-LLM's own \
             kernels multiply: scales are in the type of the numbers there, half precision unless `dtype` says otherwise. Other integer weights \
             are skipped: TensorRT-LLM would take 8-bit compressed-tensors for FP8 without a word.\n\n\
             TensorRT-LLM is installed by hand, as NVIDIA's installation guide says, and found by `python`. It \
             reads the last token of what is scored, too, and has one place more for the token after it, so a sequence that is as long as the \
             model's context has two tokens less before it than elsewhere.",
        )
        .licence(env!("CARGO_PKG_LICENSE"))
        .authors("The llmcb-host authors")
        .citation("TensorRT-LLM", "NVIDIA", "software", "https://github.com/NVIDIA/TensorRT-LLM")
        .devices(&["cuda"])
        .formats(&["safetensors", "gptq", "awq", "compressed-tensors", "modelopt"])
        .runs_quantised(&["cuda"], &["4 bits on symmetric grids, groups of 64 or 128"])
}

llmcb_plugin_api::export_backend!(
    descriptor = crate::descriptor,
    runner = TensorRtLlmRunner,
    library = TensorRtLlm
);
