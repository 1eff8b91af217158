//! `completions`: scripts with which shells complete the command line.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::failure::Failure;
use super::{Cli, output};

const EXAMPLES: &str = "\
Examples:
  llmcb-host completions bash > ~/.local/share/bash-completion/completions/llmcb-host
  llmcb-host completions fish > ~/.config/fish/completions/llmcb-host.fish";

/// Print a shell's completion script
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct CompletionsCommand {
    /// The shell
    shell: Shell,
}

/// Runs the command.
pub fn run(command: &CompletionsCommand) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut Cli::command(), "llmcb-host", &mut script);
    output::data(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
