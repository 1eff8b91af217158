//! `eval`: a model as it is.

use std::process::ExitCode;

use clap::Args;

use super::execute::{Show, execute};
use super::failure::Failure;
use super::flags::{GlobalFlags, MeasureFlags};
use super::{plugins, request};

const EXAMPLES: &str = "\
Examples:
  llmcb-host eval --model ./my-checkpoint --tasks arc_easy,hellaswag --limit 500
  llmcb-host eval --model model.gguf --tasks wikitext2 --profile
  llmcb-host eval --tasks ./mine.toml:limit=100,shots=2

Exit codes: 0 all done, 1 a task failed, 2 nothing was run because something named is wrong, 130 stopped";

/// Score models as they are, without compressing them
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct EvalCommand {
    #[command(flatten)]
    pub(super) measure: MeasureFlags,
}

/// Runs the command.
pub fn run(global: &GlobalFlags, command: EvalCommand) -> Result<ExitCode, Failure> {
    let catalog = plugins::catalog(global)?;
    let suite = request::resolve(&catalog, request::measured(&command.measure)?)?;
    execute(suite, Show::of(&command.measure, global.quiet))
}
