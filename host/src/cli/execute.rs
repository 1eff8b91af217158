//! Runs a suite, shows how it goes, and ends in the table.

use std::path::Path;
use std::process::ExitCode;

use super::failure::Failure;
use super::flags::MeasureFlags;
use super::output;
use super::progress::ProgressView;
use crate::report::grid::Named;
use crate::report::numbers::seconds;
use crate::report::{Facts, csv, html, table};
use crate::suite::file::SuiteFile;
use crate::suite::result::{RunResult, StageSummary, Status};
use crate::suite::spec::Suite;
use crate::suite::{Event, SuiteError, run};
use crate::worker::Interrupt;
use crate::worker::protocol::Level;

/// The numbers as CSV, in the result directory.
const CSV: &str = "results.csv";
/// The table as text, in the result directory.
const TABLE: &str = "table.txt";
/// The page, in the result directory once a run ends.
const PAGE: &str = "report.html";
/// Width of the table in the file.
pub(super) const FILE_WIDTH: usize = 120;

/// What is shown of a run.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// JSON instead of the table.
    pub json: bool,
    /// The suite file, and nothing is run.
    pub print_suite: bool,
    /// The plan, and nothing is run.
    pub dry_run: bool,
    /// No progress.
    pub quiet: bool,
}

impl Show {
    /// What the flags ask for.
    pub fn of(flags: &MeasureFlags, quiet: bool) -> Self {
        Show { json: flags.json, print_suite: flags.print_suite, dry_run: flags.dry_run, quiet }
    }
}

/// Runs a suite and prints what came out.
///
/// # Errors
/// When the run could not begin or could not write its results. Stages that failed are in the table and in the exit code.
pub fn execute(suite: Suite, show: Show) -> Result<ExitCode, Failure> {
    if show.print_suite {
        output::data(&SuiteFile::of(&suite).to_text().map_err(Failure::failed)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if show.dry_run {
        return super::plan::show(&suite, true, show.json, show.quiet);
    }
    let result = run_shown(&suite, show.quiet)?;
    if show.json {
        output::json(&result)?;
    } else {
        output::table(&table::render(&result, &Facts::read(&result, &suite.out), output::width()))?;
    }
    if !show.quiet {
        output::say(&format!("results: {}", suite.out.display()));
    }
    Ok(ExitCode::from(result.exit_code()))
}

/// Runs a suite with progress on standard error.
///
/// # Errors
/// As [`execute`].
pub fn run_shown(suite: &Suite, quiet: bool) -> Result<RunResult, Failure> {
    let interrupt =
        Interrupt::install().map_err(|e| Failure::failed(format!("signals cannot be handled: {e}")))?;
    let mut view = RunView { progress: ProgressView::new(quiet), told_to_stop: false, cannot_save: false };
    let result = run(suite, &interrupt, &mut |event| {
        view.tell_stop(&interrupt);
        view.event(event, &suite.out);
    });
    drop(view);
    result.map_err(|error| match error {
        SuiteError::Suite(_) | SuiteError::Out(_) => Failure::usage(error),
        error => Failure::failed(error),
    })
}

struct RunView {
    progress: ProgressView,
    told_to_stop: bool,
    cannot_save: bool,
}

impl RunView {
    fn tell_stop(&mut self, interrupt: &Interrupt) {
        if interrupt.stop() && !self.told_to_stop {
            self.told_to_stop = true;
            self.progress.note("stopping at the next safe point; Ctrl-C again kills at once");
        }
    }

    fn event(&mut self, event: Event<'_>, out: &Path) {
        match event {
            Event::Preparing { message } => self.progress.begin(&message),
            Event::Fetching { what, done, total } => {
                self.progress.fetch(crate::assets::Progress::Bytes { what, done, total });
            }
            Event::Planned { stages, reused } => {
                let done = if reused > 0 {
                    format!(", {reused} of them done by an earlier run")
                } else {
                    String::new()
                };
                self.progress.note(&format!("{stages} stages{done}"));
            }
            Event::StageStarted { number, total, label, resumed, .. } => {
                let again = if resumed { " (goes on)" } else { "" };
                self.progress.begin(&format!("[{number}/{total}] {label}{again}"));
            }
            Event::StageProgress { done, of, what, .. } => self.progress.step(done, of, what),
            Event::StageEnded { number, total, summary } => {
                if let Some(line) = ended(number, total, summary) {
                    self.progress.note(&line);
                }
            }
            Event::Log { label, level, message } => log(label, level, message),
            Event::Saved(run) => self.save(run, out),
        }
    }

    /// Rewrites what is derived from the run's result. The result itself is written already, so a failure is told and no more.
    fn save(&mut self, run: &RunResult, out: &Path) {
        let facts = Facts::read(run, out);
        let text = table::render(run, &facts, FILE_WIDTH);
        let mut written =
            csv::save(run, &out.join(CSV)).and_then(|()| csv::replace(&out.join(TABLE), text.as_bytes()));
        if written.is_ok() && (run.complete || run.interrupted) {
            let named = Named { name: super::report::name_of(out), run: run.clone(), facts };
            written = csv::replace(&out.join(PAGE), html::render(&[named]).as_bytes());
        }
        if let Err(e) = written
            && !self.cannot_save
        {
            self.cannot_save = true;
            output::warning(&format!("{}: {CSV}, {TABLE} and {PAGE} cannot be written: {e}", out.display()));
        }
    }
}

fn ended(number: usize, total: usize, summary: &StageSummary) -> Option<String> {
    let head = format!("[{number}/{total}] {}", summary.label);
    let why = summary.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    match summary.status {
        Some(Status::Done) if summary.reused => Some(format!("{head}: done before")),
        Some(Status::Done) => Some(format!("{head}: done in {}", seconds(summary.wall_seconds))),
        Some(status) => Some(format!("{head}: {}{why}", status.name())),
        None => None,
    }
}

fn log(label: &str, level: Level, message: &str) {
    let place = if label.is_empty() { String::new() } else { format!("{label}: ") };
    match level {
        Level::Error => tracing::error!("{place}{message}"),
        Level::Warning => tracing::warn!("{place}{message}"),
        Level::Info => tracing::info!("{place}{message}"),
        Level::Debug => tracing::debug!("{place}{message}"),
        Level::Trace => tracing::trace!("{place}{message}"),
    }
}
