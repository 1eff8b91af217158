//! `report`: a run's results, in the format that is wanted.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::failure::Failure;
use super::output;
use super::score::formulas;
use crate::report::grid::{Grid, Named};
use crate::report::{Facts, csv, html, latex, markdown, table};
use crate::suite::result::RunResult;
use crate::suite::store::read_run;

const EXAMPLES: &str = "\
The result directory may be of a run that goes on, was stopped or was killed: the report then says so.

Examples:
  llmcb-host report
  llmcb-host report results --format html --output report.html
  llmcb-host report results --format latex > table.tex
  llmcb-host report results --formulas

Exit codes: 0 reported, 1 the file cannot be written, 2 the directory holds no run";

/// A format of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For the terminal
    Table,
    /// A Markdown table
    Markdown,
    /// One row for each number
    Csv,
    /// Everything, as in run.json
    Json,
    /// A LaTeX table
    Latex,
    /// One page that needs nothing else: charts, sortable tables, settings
    Html,
}

/// How a report is written.
#[derive(Clone, Debug, Args)]
pub struct FormatFlags {
    /// Format of the report
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
    /// Write to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Report the results of a run: table, Markdown, CSV, JSON, LaTeX or a page of HTML
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ReportCommand {
    /// The run's result directory
    #[arg(default_value = "results", value_name = "RESULT")]
    result: PathBuf,
    #[command(flatten)]
    format: FormatFlags,
    /// Print how each overall metric comes about, too (under tables; CSV has no place for it, JSON and HTML have it anyway)
    #[arg(long)]
    formulas: bool,
}

/// Runs the command.
pub fn run(command: &ReportCommand) -> Result<ExitCode, Failure> {
    let run = read_run(&command.result).map_err(Failure::usage)?;
    let facts = Facts::read(&run, &command.result);
    let said = if command.formulas { formulas(run.overall.iter().map(|one| &one.om)) } else { String::new() };
    let named = Named { name: name_of(&command.result), run, facts };
    write(&[named], &command.format, &[], &said)
}

/// The name of a result directory.
pub fn name_of(folder: &Path) -> String {
    let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    whole.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Writes runs in a format; `notes` stand before a table's own, `said` under it.
///
/// # Errors
/// The output cannot be written.
pub fn write(runs: &[Named], flags: &FormatFlags, notes: &[String], said: &str) -> Result<ExitCode, Failure> {
    let width = if flags.output.is_some() { super::execute::FILE_WIDTH } else { output::width() };
    let text = match flags.format {
        Format::Table => table::render_grid(Grid::of_all(runs, notes), width) + said,
        Format::Markdown => {
            let list: String = said.lines().map(|line| format!("- `{line}`\n")).collect();
            markdown::render(&Grid::of_all(runs, notes)) + &list
        }
        Format::Latex => {
            let list: String = said.lines().map(|line| format!("% {line}\n")).collect();
            latex::render(&Grid::of_all(runs, notes)) + &list
        }
        Format::Html => html::render(runs),
        Format::Json => json(runs)?,
        Format::Csv => {
            let mut bytes = Vec::new();
            csv::write_all(runs, &mut bytes).map_err(Failure::failed)?;
            String::from_utf8(bytes).map_err(Failure::failed)?
        }
    };
    match &flags.output {
        None if flags.format == Format::Table => output::table(&text)?,
        None => output::data(&text)?,
        Some(file) => {
            csv::replace(file, text.as_bytes())
                .map_err(|e| Failure::failed(format!("{}: {e}", file.display())))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn json(runs: &[Named]) -> Result<String, Failure> {
    let runs: Vec<&RunResult> = runs.iter().map(|one| &one.run).collect();
    let text = match runs.as_slice() {
        [run] => serde_json::to_string_pretty(run),
        runs => serde_json::to_string_pretty(runs),
    };
    Ok(text.map_err(Failure::failed)? + "\n")
}
