//! `eval`: a model as it is.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::execute::{Show, execute};
use super::failure::Failure;
use super::flags::{GlobalFlags, TaskFlags, WorkerFlags};
use super::{plugins, request};
use crate::suite::spec::Suite;

const EXAMPLES: &str = "\
Examples:
  llmcb-host eval --model ./my-checkpoint --tasks arc_easy,hellaswag --limit 500
  llmcb-host eval --model model.gguf --tasks wikitext2 --profile

Exit codes: 0 all done, 1 a task failed, 2 nothing was run because something named is wrong, 130 stopped";

/// Score models as they are, without compressing them
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct EvalCommand {
    /// Model: an asset's id, a folder in the Hugging Face layout, a GGUF file, or ORG/NAME on the hub; repeatable
    /// [default: smollm2-135m-instruct]
    #[arg(long, value_name = "MODEL")]
    model: Vec<String>,
    /// Backend that runs the models, with its options; repeatable [default: candle]
    #[arg(long, value_name = "SPEC")]
    backend: Vec<String>,
    #[command(flatten)]
    tasks: TaskFlags,
    #[command(flatten)]
    workers: WorkerFlags,
    /// Measure speed, too: prefill and decoding rates
    #[arg(long)]
    profile: bool,
    /// Folder for results; what an earlier run left there is used
    #[arg(long, value_name = "DIR", default_value = "results")]
    out: PathBuf,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print run.json instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(global: &GlobalFlags, command: EvalCommand) -> Result<ExitCode, Failure> {
    let catalog = plugins::catalog(global)?;
    let suite = Suite {
        models: request::models(&command.model),
        backends: request::backends(&catalog, &command.backend)?,
        tasks: request::tasks(&command.tasks, command.workers.seed)?,
        limit: command.tasks.limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        shots: command.tasks.shots,
        profile: command.profile,
        ..request::base(&command.workers, command.out)?
    };
    execute(suite, Show { json: command.json, dry_run: command.dry_run, quiet: global.quiet })
}
