//! `compress`: a checkpoint, and nothing else.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::execute::run_shown;
use super::failure::Failure;
use super::flags::{CalibrationFlags, GlobalFlags, WorkerFlags};
use super::{output, plugins, request};
use crate::report::numbers::{bytes, seconds};
use crate::suite::file::{PluginLine, SuiteFile};
use crate::suite::result::{RunResult, StageKind, StageResult, Status};

const EXAMPLES: &str = "\
The checkpoint is in the Hugging Face layout: other tools load it as it is. A compression that was stopped goes on with the same command.

Examples:
  llmcb-host compress --method gptq:bits=4 --out smollm2-gptq
  llmcb-host compress --method gptq:bits=4,symmetric=true --format compressed-tensors --out smollm2-w4a16
  llmcb-host compress --model ./llama --method wanda --calibration wikitext2 --out llama-wanda

Exit codes: 0 the checkpoint is in --out, 1 it could not be made, 2 something named is wrong, 130 stopped";

/// What a checkpoint's folder says of how it was made.
const RECORD: &str = "llmcb-result.json";

/// Compress a model with a method and write the checkpoint
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct CompressCommand {
    /// Model: an asset's id, a folder in the Hugging Face layout, a GGUF file, or ORG/NAME[@REVISION] on the hub
    /// [default: smollm2-135m-instruct]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Method with its options, for example gptq:bits=4,group_size=128
    #[arg(long, value_name = "SPEC")]
    method: String,
    /// Folder for the checkpoint; must not be there, or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Backend that opens the model, with its options [default: candle]
    #[arg(long, value_name = "SPEC")]
    engine: Option<String>,
    /// Format of the checkpoints: dense, gptq, awq, compressed-tensors, compressed-tensors:pack-quantized,
    /// compressed-tensors:int-quantized, compressed-tensors:sparse-bitmask, compressed-tensors:sparse-24-bitmask, gguf:f32, gguf:bf16, gguf:f16, gguf:q8_0, gguf:q4_1, gguf:q4_0 [default: what the method is known for, where it can hold the result]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    #[command(flatten)]
    calibration: CalibrationFlags,
    #[command(flatten)]
    workers: WorkerFlags,
    /// Print the stage's result as JSON
    #[arg(long)]
    json: bool,
}

/// Where the work is done until the checkpoint is whole: beside the target, so that a rename is enough.
fn work_folder(out: &Path) -> Result<PathBuf, Failure> {
    let name = out.file_name().ok_or_else(|| {
        Failure::usage(format!("--out {}: name a folder for the checkpoint", out.display()))
    })?;
    match std::fs::read_dir(out).map(|mut entries| entries.next().is_some()) {
        Ok(true) => {
            return Err(Failure::usage(format!(
                "--out {}: the folder is not empty; give another, or remove it",
                out.display()
            )));
        }
        Ok(false) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Failure::usage(format!("--out {}: {e}", out.display()))),
    }
    Ok(out.with_file_name(format!(".{}.compressing", name.to_string_lossy())))
}

/// Runs the command.
pub fn run(global: &GlobalFlags, command: CompressCommand) -> Result<ExitCode, Failure> {
    let catalog = plugins::catalog(global)?;
    let work = work_folder(&command.out)?;
    let file = SuiteFile {
        models: command.model.map(|model| vec![model]),
        methods: request::lines(&[command.method]),
        engine: command.engine.map(PluginLine::Text),
        tasks: Some(Vec::new()),
        dense: Some(false),
        format: command.format,
        calibration: request::calibration_lines(&command.calibration),
        out: Some(work.clone()),
        ..request::workers(&command.workers)
    };
    let suite = request::resolve(&catalog, file)?;
    if suite.methods.len() > 1 || suite.seeds.len() > 1 {
        return Err(Failure::usage(
            "compress makes one checkpoint: give one value of each option, and one seed",
        ));
    }
    request::check_formats(&catalog, &suite)?;
    let result = run_shown(&suite, global.quiet)?;
    let stage = made(&result, &work)?;
    let Some(checkpoint) = &stage.checkpoint else {
        return Err(Failure::failed("the method made no checkpoint"));
    };
    let failed = |e: std::io::Error| Failure::failed(format!("{}: {e}", command.out.display()));
    let folder = stage_folder(&result, &work);
    let made = folder.join(&checkpoint.path);
    let record = serde_json::to_vec_pretty(&stage).map_err(Failure::failed)?;
    crate::report::csv::replace(&made.join(RECORD), &record).map_err(failed)?;
    // An empty folder is replaced by the rename.
    std::fs::rename(&made, &command.out).map_err(failed)?;
    if let Err(e) = std::fs::remove_dir_all(&work) {
        output::warning(&format!("{} is left over and cannot be removed: {e}", work.display()));
    }
    if command.json {
        output::json(&stage)?;
    } else {
        let info = &checkpoint.info;
        output::data(&format!(
            "{}: {} {}, {:.1} % zeros in the blocks' linears, made in {} with {} of memory at most\n",
            command.out.display(),
            bytes(info.weight_bytes),
            info.format,
            100.0 * info.zero_fraction,
            seconds(stage.wall_seconds),
            bytes(stage.peak_memory_bytes)
        ))?;
        for note in &info.notes {
            output::data(&format!("note: {note}\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn stage_folder(result: &RunResult, work: &Path) -> PathBuf {
    result
        .stages()
        .find(|s| s.kind == StageKind::Compress)
        .map(|s| work.join(&s.directory))
        .unwrap_or_default()
}

/// The result of the one stage; else why there is none.
fn made(result: &RunResult, work: &Path) -> Result<StageResult, Failure> {
    let Some(stage) = result.stages().find(|s| s.kind == StageKind::Compress) else {
        return Err(Failure::failed(result.problems.join("\n")));
    };
    match stage.status {
        Some(Status::Done) => {
            let file = work.join(&stage.directory).join("result.json");
            let bytes =
                std::fs::read(&file).map_err(|e| Failure::failed(format!("{}: {e}", file.display())))?;
            serde_json::from_slice(&bytes).map_err(|e| Failure::failed(format!("{}: {e}", file.display())))
        }
        Some(Status::Cancelled) | None => Err(Failure::Cancelled),
        Some(status) => {
            let reason = stage.reason.as_deref().unwrap_or("no reason is known");
            Err(Failure::failed(format!("{}: {}: {reason}", stage.label, status.name())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_in_it_is_not_touched() {
        let folder = tempfile::tempdir().expect("folder");
        let out = folder.path().join("made");
        assert_eq!(work_folder(&out).expect("free"), folder.path().join(".made.compressing"));
        std::fs::create_dir(&out).expect("folder");
        assert!(work_folder(&out).is_ok());
        std::fs::write(out.join("config.json"), "{}").expect("file");
        let Err(Failure::Usage(message)) = work_folder(&out) else { panic!("must be refused") };
        assert!(message.contains("not empty"), "{message}");
        assert!(work_folder(&out.join("config.json")).is_err());
        assert!(work_folder(Path::new("/")).is_err());
    }
}
