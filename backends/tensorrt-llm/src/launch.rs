//! The process that runs the driver, and what it is told to open.

use std::path::Path;
use std::process::Command;

use llmcb_plugin_api::sdk::{Error, Result};
use serde_json::{Value, json};

use crate::runner::RunnerOptions;

/// The program that asks TensorRT-LLM, in Python.
pub(crate) const DRIVER: &str = include_str!("../driver.py");

/// Most tokens of one pass, unless a sequence is longer: TensorRT-LLM's own choice.
const PASS: usize = 8192;

/// The command that runs the driver.
pub(crate) fn command(python: &Path, driver: &Path, options: &RunnerOptions) -> Command {
    let mut command = Command::new(python);
    command.arg(driver);
    // What decides results is in the options, which are part of keys.
    let decides = |name: &str| {
        name.starts_with("TLLM_") || name.starts_with("TRTLLM_") || name == "OVERRIDE_QUANT_ALGO"
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| decides(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.env("HF_HUB_OFFLINE", "1").env("TRANSFORMERS_OFFLINE", "1");
    command.env("TRTLLM_NO_USAGE_STATS", "1").env("DO_NOT_TRACK", "1");
    if options.tensor_parallel_size * options.pipeline_parallel_size == 1 {
        // A process more, started through MPI, would be in a process group of its own.
        command.env("TLLM_WORKER_USE_SINGLE_PROCESS", "1");
    }
    command
}

/// The arguments of `LLM` for a model whose sequences have `length` tokens at most.
///
/// # Errors
/// The option `arguments` is none, or names what is set otherwise.
pub(crate) fn arguments(model: &Path, dtype: &str, length: usize, options: &RunnerOptions) -> Result<Value> {
    let mut all = json!({
        "model": model,
        // Tokens go in and come out.
        "skip_tokenizer_init": true,
        "dtype": dtype,
        "max_seq_len": length,
        "max_batch_size": options.max_batch_size,
        "max_num_tokens": length.max(PASS),
        "tensor_parallel_size": options.tensor_parallel_size,
        "pipeline_parallel_size": options.pipeline_parallel_size,
        "kv_cache_config": {
            // A prompt that was read before would seem to be read in no time, and has no likelihoods.
            "enable_block_reuse": false,
            "free_gpu_memory_fraction": options.free_gpu_memory_fraction,
        },
    });
    for word in options.arguments.split_whitespace() {
        let Some((name, value)) = word.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Error::invalid(format!("option arguments: `{word}` is no name=value")));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        let place = name.split('.').try_fold(&mut all, |within, part| match within {
            Value::Null | Value::Object(_) => Some(&mut within[part]),
            _ => None,
        });
        match place {
            Some(place @ Value::Null) => *place = value,
            _ => {
                return Err(Error::invalid(format!(
                    "option arguments: `{name}` has an option of its own, is fixed for all runs, or is there twice"
                )));
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<Value> {
        let options = RunnerOptions { arguments: text.to_owned(), ..RunnerOptions::default() };
        arguments(Path::new("/m"), "float16", 16384, &options)
    }

    #[test]
    fn options_become_arguments() {
        let all =
            with("cuda_graph_config=null kv_cache_config.dtype=fp8 attn_backend=FLASHINFER a.b.c=1").unwrap();
        for (pointer, expected) in [
            ("/model", json!("/m")),
            ("/dtype", json!("float16")),
            ("/max_seq_len", json!(16384)),
            ("/max_num_tokens", json!(16384)),
            ("/kv_cache_config/enable_block_reuse", json!(false)),
            ("/kv_cache_config/dtype", json!("fp8")),
            ("/cuda_graph_config", Value::Null),
            ("/attn_backend", json!("FLASHINFER")),
            ("/a/b/c", json!(1)),
        ] {
            assert_eq!(all.pointer(pointer), Some(&expected), "{pointer}");
        }
        assert_eq!(with("").unwrap()["max_batch_size"], 64);
    }

    #[test]
    fn what_cannot_be_an_argument_is_named() {
        for (text, says) in [
            ("--backend pytorch", "`--backend` is no name=value"),
            ("=1", "`=1` is no name=value"),
            ("dtype=float16", "`dtype` has an option of its own"),
            ("kv_cache_config=1", "`kv_cache_config` has"),
            ("kv_cache_config.enable_block_reuse=true", "`kv_cache_config.enable_block_reuse` has"),
            ("dtype.x=1", "`dtype.x` has"),
            ("a=1 a.b=2", "`a.b` has"),
        ] {
            let message = with(text).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn one_gpu_is_driven_by_one_process() {
        let options = RunnerOptions::default();
        let set = |options: &RunnerOptions| {
            let command = command(Path::new("/e/bin/python3"), Path::new("/d.py"), options);
            command
                .get_envs()
                .any(|(name, value)| name == "TLLM_WORKER_USE_SINGLE_PROCESS" && value.is_some())
        };
        assert!(set(&options));
        assert!(!set(&RunnerOptions { tensor_parallel_size: 2, ..options }));
    }
}
