//! A checkpoint as MLC-LLM wants it: converted weights and a compiled library, by its own command line.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use llmcb_plugin_api::sdk::{Error, ErrorKind, Host, Library, Result, libraries_folder};
use llmcb_runner_kit::Checkpoint;
use llmcb_runner_kit::hub_layout::{as_numbers, hub_layout, link_files};
use llmcb_runner_kit::install::{Scratch, scratch, sha256_of};
use llmcb_runner_kit::process;
use llmcb_transformer::StorageType;

use crate::library::{Installation, MlcLlm};
use crate::runner::RunnerOptions;

/// The quantisation that takes the codes of AWQ as they are.
pub(crate) const AWQ: &str = "q4f16_autoawq";

/// What MLC-LLM made of a checkpoint.
pub(crate) struct Prepared {
    /// Configuration, tokenizer and weights.
    pub directory: PathBuf,
    /// The compiled model library.
    pub library: PathBuf,
    /// How it computes, for people.
    pub compute: String,
    _folder: Scratch,
}

/// The command line of MLC-LLM, without what the user's environment would change.
pub(crate) fn mlc_llm(python: &Path, subcommand: &str) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "mlc_llm", subcommand]);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MLC_")) {
        command.env_remove(name);
    }
    command.env("HF_HUB_OFFLINE", "1").env("PYTHONUNBUFFERED", "1");
    command
}

/// What MLC-LLM cannot take is no failure of the run's.
fn refused(error: Error) -> Error {
    let known = ["Unknown model type", "NotImplementedError", "is not supported", "Invalid quantization"];
    match error.kind() == ErrorKind::Failed && known.into_iter().any(|words| error.message().contains(words))
    {
        true => Error::unsupported(error.message().to_owned()),
        false => error,
    }
}

/// Runs a step; what it says goes to standard error, which is kept beside the result.
fn step(host: &Host, what: &str, command: &mut Command) -> Result<()> {
    host.progress(0, 0, what);
    let told = |line: &str| {
        eprintln!("{line}");
        let short: String = line.chars().filter(|c| !c.is_control()).take(80).collect();
        host.progress(0, 0, &format!("{what}: {short}"));
    };
    process::run(host, what, command, None, told).map_err(refused)
}

/// In which precision a quantisation (`q4f16_1`) keeps what is not quantised.
fn storage(quantization: &str) -> StorageType {
    match quantization {
        q if q.contains("bf16") => StorageType::BF16,
        q if q.contains("f32") => StorageType::F32,
        _ => StorageType::F16,
    }
}

/// Whether MLC-LLM kept weights of single precision in bfloat16, as it does on disk.
fn is_shortened(directory: &Path) -> bool {
    let index = std::fs::read(directory.join("tensor-cache.json"))
        .or_else(|_| std::fs::read(directory.join("ndarray-cache.json")));
    index.is_ok_and(|text| String::from_utf8_lossy(&text).contains("\"f32-to-bf16\""))
}

/// How a checkpoint is computed with, for people.
fn compute(checkpoint: &Checkpoint, quantization: &str, directory: &Path) -> String {
    let mut words = vec![quantization.to_owned()];
    let had_codes = !checkpoint.model.original_config()["quantization_config"].is_null()
        || checkpoint.info.source_format == "gguf";
    if had_codes && quantization != AWQ {
        words.push(format!("weights of {} dequantised", checkpoint.info.source_precision));
    }
    if !quantization.starts_with("q0") && quantization != AWQ {
        words.push("quantised anew".to_owned());
    }
    if storage(quantization) == StorageType::F32 && is_shortened(directory) {
        words.push("weights kept in bfloat16".to_owned());
    }
    if checkpoint.rounds_activations() {
        words.push("inputs not rounded as the checkpoint asks".to_owned());
    }
    words.join(", ")
}

/// Converts a checkpoint, and compiles a library for its shape unless one was kept.
///
/// # Errors
/// Of kind `Unsupported` where MLC-LLM cannot take it; else what went wrong.
pub(crate) fn prepare(
    checkpoint: &Checkpoint,
    model: &Path,
    length: usize,
    installation: &Installation,
    options: &RunnerOptions,
    host: &Host,
) -> Result<Prepared> {
    let quantization = options.quantization();
    let takes_codes = quantization == AWQ;
    let layout = match takes_codes {
        false => as_numbers(checkpoint, model, storage(quantization))?,
        true if checkpoint.model.original_config()["quantization_config"]["quant_method"] == "awq" => {
            hub_layout(checkpoint, model, StorageType::F16)?
        }
        true => {
            return Err(Error::unsupported(format!(
                "quantization={AWQ} takes checkpoints in AWQ's layout only: compress with --method awq:group_size=128 and --format awq"
            )));
        }
    };
    let folder = scratch()?;
    // It writes an index of weights into the directory that it reads: not into the user's.
    let source = folder.path().join("source");
    std::fs::create_dir(&source)
        .map_err(|e| Error::failed(format!("cannot make {}: {e}", source.display())))?;
    link_files(&layout.directory, &source, &[])?;
    let directory = folder.path().join("model");
    let mlc = |subcommand: &str| mlc_llm(&installation.python, subcommand);

    let mut configure = mlc("gen_config");
    configure.arg(&source).args(["--quantization", quantization]);
    // Prompts are given as token ids; no template is ever used.
    configure.args(["--conv-template", "LM"]);
    for (name, value) in [
        ("--context-window-size", length),
        ("--prefill-chunk-size", options.prefill_chunk_size.min(length)),
        ("--max-batch-size", options.max_batch_size),
        ("--tensor-parallel-shards", options.tensor_parallel_shards),
    ] {
        configure.args([name, &value.to_string()]);
    }
    step(host, "mlc_llm gen_config", configure.arg("--output").arg(&directory))?;

    let library = compiled(&directory, installation, options, host)?;

    let mut convert = mlc("convert_weight");
    convert.arg(&source).args(["--quantization", quantization]);
    convert.args(["--device", options.device.name()]);
    // What lies beside safetensors is another model, for all that is known.
    let index = [source.join("model.safetensors.index.json"), source.join("model.safetensors")];
    match (takes_codes, index.iter().find(|file| file.is_file())) {
        (true, Some(index)) => convert.args(["--source-format", "awq", "--source"]).arg(index),
        _ => convert.args(["--source-format", "huggingface-safetensor"]),
    };
    step(host, "mlc_llm convert_weight", convert.arg("--output").arg(&directory))?;
    let compute = compute(checkpoint, quantization, &directory);
    Ok(Prepared { directory, library, compute, _folder: folder })
}

/// The library for a configuration: compiled once, kept, and used by all checkpoints of the same shape.
fn compiled(
    directory: &Path,
    installation: &Installation,
    options: &RunnerOptions,
    host: &Host,
) -> Result<PathBuf> {
    let config = directory.join("mlc-chat-config.json");
    let cannot = |action: &str, path: &Path, e: &dyn std::fmt::Display| {
        Error::failed(format!("cannot {action} {}: {e}", path.display()))
    };
    let text = std::fs::read(&config).map_err(|e| {
        Error::failed(format!("mlc_llm gen_config wrote no configuration: {}: {e}", config.display()))
    })?;
    let status = MlcLlm::find(options)?;
    let decides =
        [options.device.name(), &options.opt, &status.version.unwrap_or_default(), &status.build].join("\n");
    let key = sha256_of(&[&text, decides.as_bytes()].concat());
    let kept = libraries_folder()?.join("mlc-libraries");
    std::fs::create_dir_all(&kept).map_err(|e| cannot("make", &kept, &e))?;
    let library = kept.join(format!("{key}.so"));
    // Two that need the same one do not both compile it: that takes minutes.
    let lock_file = kept.join(format!("{key}.lock"));
    let lock = File::create(&lock_file).map_err(|e| cannot("write", &lock_file, &e))?;
    while let Err(std::fs::TryLockError::WouldBlock) = lock.try_lock() {
        host.check_cancelled()?;
        host.progress(0, 0, "waiting for another process that compiles the same library");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    if library.is_file() {
        return Ok(library);
    }
    // The end of the name tells MLC-LLM what to make.
    let unfinished = kept.join(format!("{key}.new.so"));
    let mut compile = mlc_llm(&installation.python, "compile");
    compile.arg(&config).args(["--device", options.device.name(), "--opt", &options.opt]);
    step(host, "mlc_llm compile", compile.arg("--output").arg(&unfinished))?;
    std::fs::rename(&unfinished, &library).map_err(|e| {
        Error::failed(format!("mlc_llm compile wrote no library: {}: {e}", unfinished.display()))
    })?;
    let _ = std::fs::remove_file(&lock_file);
    Ok(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mlc_llm_cannot_take_is_unsupported_and_the_rest_is_a_failure() {
        for (says, kind) in [
            (
                "mlc_llm gen_config: python ended with exit status: 1: ValueError: Unknown model type: opt",
                ErrorKind::Unsupported,
            ),
            ("mlc_llm compile: python ended with exit status: 1: Killed", ErrorKind::Failed),
        ] {
            assert_eq!(refused(Error::failed(says)).kind(), kind);
        }
        assert_eq!(refused(Error::cancelled()).kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn numbers_go_in_as_the_quantisation_keeps_them() {
        for (quantization, expected) in [
            ("q0f32", StorageType::F32),
            ("q0f16", StorageType::F16),
            ("q4f32_1", StorageType::F32),
            ("q4bf16_1", StorageType::BF16),
            ("q4f16_1", StorageType::F16),
        ] {
            assert_eq!(storage(quantization), expected, "{quantization}");
        }
    }
}
