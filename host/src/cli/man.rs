//! `man`: manual pages.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory};

use super::failure::Failure;
use super::{Cli, output};

const EXAMPLES: &str = "\
Examples:
  llmcb-host man | man -l -
      reads the main page
  llmcb-host man --out ~/.local/share/man/man1
      writes a page for every command";

/// Print the manual page, or write one page per command into a folder
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ManCommand {
    /// Folder for the pages of all commands; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(command: &ManCommand) -> Result<ExitCode, Failure> {
    match &command.out {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(Failure::failed)?;
            output::data(&String::from_utf8_lossy(&page))?;
        }
        Some(folder) => {
            let failed = |e: std::io::Error| Failure::failed(format!("{}: {e}", folder.display()));
            std::fs::create_dir_all(folder).map_err(failed)?;
            clap_mangen::generate_to(Cli::command(), folder).map_err(failed)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
