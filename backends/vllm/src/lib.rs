//! vLLM as a runner: its OpenAI-compatible server, started on loopback for as long as a model is open.

mod answers;
mod library;
mod runner;
mod serve;

use llmcb_plugin_api::sdk::Descriptor;

pub use library::Vllm;
pub use runner::{RunnerOptions, VllmRunner};

fn descriptor() -> Descriptor {
    Descriptor::backend("vllm", "vLLM", env!("CARGO_PKG_VERSION"))
        .summary("Runs models in vLLM, through its own server on loopback.")
        .description(
            "Starts `vllm serve` on a checkpoint as it is (safetensors; GPTQ, AWQ and compressed-tensors are run in vLLM's own kernels), scores \
             prompts by `prompt_logprobs`, generates greedily, and times streamed answers as a client of a server sees them. A GGUF is written as \
             a directory of numbers first, for as long as it runs. `llmcb-host backends setup vllm` makes an environment of its own for vLLM \
             on the CPU; an installation of yours is named by `executable`.\n\n\
             On processors with AMX, weights of 4 bits are multiplied with inputs rounded to 8 bits unless `w4a8=false`; results say so. On the CPU the longest \
             sequence is bounded by `cache_gib`. vLLM reads the \
             last token of what is scored, too, so a sequence that is as long as the model's context has one token less before it than elsewhere.",
        )
        .licence(env!("CARGO_PKG_LICENSE"))
        .authors("The llmcb-host authors")
        .citation(
            "Efficient Memory Management for Large Language Model Serving with PagedAttention",
            "Woosuk Kwon and others",
            "SOSP 2023",
            "https://arxiv.org/abs/2309.06180",
        )
        .devices(&["cpu", "cuda"])
        .formats(&["safetensors", "gptq", "awq", "compressed-tensors"])
        .runs_quantised(&["cpu", "cuda"], &["gptq (symmetric)", "awq", "compressed-tensors"])
}

llmcb_plugin_api::export_backend!(descriptor = crate::descriptor, runner = VllmRunner, library = Vllm);
