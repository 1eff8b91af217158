//! The command line of `vllm serve`, and its environment.

use std::path::Path;
use std::process::Command;

use llmcb_runner_kit::process::cores;

use crate::runner::{Device, Dtype, RunnerOptions};

/// The name that requests call the model by.
pub(crate) const MODEL: &str = "model";
/// Variable by which vLLM's server takes its key: on the command line everybody would see it.
const KEY: &str = "VLLM_API_KEY";

/// Where vLLM listens, and what it may use.
pub(crate) struct Place<'a> {
    pub port: u16,
    pub key: &'a str,
    pub threads: usize,
    pub seed: u64,
    /// Longest sequence.
    pub length: usize,
    /// Where it keeps what it compiles.
    pub cache: &'a Path,
}

/// The type of numbers that is asked for.
pub(crate) fn dtype(options: &RunnerOptions) -> &'static str {
    match (options.dtype, options.device) {
        (Dtype::Auto, Device::Cpu) | (Dtype::Bfloat16, _) => "bfloat16",
        (Dtype::Auto, Device::Cuda) => "auto",
        (Dtype::Float16, _) => "float16",
        (Dtype::Float32, _) => "float32",
    }
}

/// The command that serves a checkpoint.
pub(crate) fn command(
    executable: &Path,
    model: &Path,
    options: &RunnerOptions,
    place: &Place<'_>,
) -> Command {
    let mut command = Command::new(executable);
    command.arg("serve").arg(model).args(["--host", "127.0.0.1"]);
    command.arg("--port").arg(place.port.to_string());
    command.args(["--served-model-name", MODEL, "--dtype", dtype(options)]);
    // After a prompt that fills the model's context there is no position left, and none is read: the token that comes is thrown away.
    command
        .arg("--max-model-len")
        .arg((place.length + 1).to_string())
        .env("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1");
    // A seed of numpy's has 32 bits.
    command.arg("--seed").arg((place.seed % (1 << 32)).to_string());
    // The model's own settings for generation, such as penalties, are not greedy.
    command.args(["--generation-config", "vllm"]);
    // A prompt that was read before would seem to be read in no time.
    command.args(["--no-enable-prefix-caching", "--max-logprobs", "1", "--disable-uvicorn-access-log"]);
    command.arg("--tensor-parallel-size").arg(options.tensor_parallel_size.to_string());
    command.arg("--pipeline-parallel-size").arg(options.pipeline_parallel_size.to_string());
    if options.enforce_eager {
        command.arg("--enforce-eager");
    }
    command.args(options.arguments.split_whitespace());
    // What decides results is in the options, which are part of keys.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("VLLM_")) {
        command.env_remove(name);
    }
    command.env("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1");
    command.env(KEY, place.key).env("HF_HUB_OFFLINE", "1").env("TRANSFORMERS_OFFLINE", "1");
    command.env("VLLM_NO_USAGE_STATS", "1").env("DO_NOT_TRACK", "1").env("VLLM_CACHE_ROOT", place.cache);
    if options.device == Device::Cpu {
        command.env("VLLM_TARGET_DEVICE", "cpu");
        command.env("VLLM_CPU_KVCACHE_SPACE", options.cache_gib.to_string());
        // Its own choice leaves a core out.
        let ranks = options.tensor_parallel_size * options.pipeline_parallel_size;
        command.env("VLLM_CPU_OMP_THREADS_BIND", shared_out(place.threads, ranks));
        command.env("VLLM_CPU_INT4_W4A8", if options.w4a8 { "1" } else { "0" });
        if let Some(preload) = preload(executable) {
            command.env("LD_PRELOAD", preload);
        }
    }
    command
}

/// The first cores that this process may run on, as many as threads, shared out among so many ranks.
fn shared_out(threads: usize, ranks: usize) -> String {
    let mut all = cores();
    all.truncate(threads.max(ranks).max(1));
    let of_rank = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    all.chunks((all.len() / ranks.max(1)).max(1)).take(ranks).map(of_rank).collect::<Vec<_>>().join("|")
}

/// The OpenMP library that vLLM asks to be loaded first, where its environment has it.
fn preload(executable: &Path) -> Option<std::path::PathBuf> {
    let library = executable.canonicalize().ok()?.parent()?.parent()?.join("lib/libiomp5.so");
    library.is_file().then_some(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_arguments() {
        let options = RunnerOptions {
            tensor_parallel_size: 4,
            enforce_eager: true,
            arguments: "--swap-space 1".to_owned(),
            ..RunnerOptions::default()
        };
        let cache = Path::new("/c");
        let place = Place { port: 81, key: "secret", threads: 1, seed: 7, length: 2048, cache };
        let command = command(Path::new("/e/bin/vllm"), Path::new("/m"), &options, &place);
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let text = words.join(" ");
        for part in [
            "serve /m --host 127.0.0.1 --port 81",
            "--dtype bfloat16",
            "--max-model-len 2049",
            "--no-enable-prefix-caching",
            "--tensor-parallel-size 4",
            "--enforce-eager --swap-space 1",
        ] {
            assert!(text.contains(part), "no `{part}` in {text}");
        }
        assert!(!text.contains("secret"), "a key on the command line is seen by everybody");
        assert!(shared_out(1, 1).parse::<usize>().is_ok(), "{}", shared_out(1, 1));
        if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
            assert_eq!(shared_out(2, 2).split('|').filter(|core| core.parse::<usize>().is_ok()).count(), 2);
        }
    }
}
