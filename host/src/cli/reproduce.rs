//! `reproduce`: a run again, from nothing but its result, and both against each other.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::compare::render;
use super::execute::run_shown;
use super::failure::Failure;
use super::flags::GlobalFlags;
use super::{output, plugins};
use crate::plugins::Catalog;
use crate::suite::comparison::{Comparison, Difference, compare};
use crate::suite::result::RunResult;
use crate::suite::spec::{PluginUse, Suite};
use crate::suite::store::read_run;

const EXAMPLES: &str = "\
Models, plugins with their options, tasks, seeds and limits are taken from run.json; plugins are found as usual, and another build of one is \
said. Speeds are measured again but decide nothing: they are never the same twice.

Examples:
  llmcb-host reproduce results
  llmcb-host reproduce their-results --out mine --plugin-dir ./plugins

Exit codes: 0 every number came out the same, or is not told apart on the same items; 1 one did not; 2 the directory holds no run; 130 stopped";

/// Run a result again and compare: everything needed is in the result
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ReproduceCommand {
    /// The result directory
    #[arg(value_name = "RESULT")]
    result: PathBuf,
    /// Folder for the new results [default: RESULT-again]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Folder with data sets in their published layout [default: the one of the run, if it is there]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
}

/// A plugin of the run on this machine; says where it is another build.
fn here(catalog: &Catalog, run: &RunResult, one: &mut PluginUse) -> Result<(), Failure> {
    let found = catalog.get(&one.plugin, None).map_err(Failure::usage)?;
    one.path.clone_from(&found.path);
    if let Some(recorded) = run.inputs.plugins.get(&one.plugin).filter(|file| file.sha256 != found.sha256) {
        output::warning(&format!(
            "plugin {} is another build than the result's (version {}, there {}): numbers may differ in their last digits",
            one.plugin, found.descriptor.version, recorded.version
        ));
    }
    Ok(())
}

fn suite(catalog: &Catalog, run: &RunResult, command: &ReproduceCommand) -> Result<Suite, Failure> {
    let mut suite = run.suite.clone();
    for one in suite.methods.iter_mut().chain(&mut suite.backends).chain(suite.engine.iter_mut()) {
        here(catalog, run, one)?;
    }
    let first = command
        .result
        .canonicalize()
        .map_err(|e| Failure::usage(format!("{}: {e}", command.result.display())))?;
    suite.out = match &command.out {
        Some(out) => out.clone(),
        None => {
            let mut name = first.file_name().unwrap_or_default().to_owned();
            name.push("-again");
            first.with_file_name(name)
        }
    };
    if suite.out.canonicalize().is_ok_and(|out| out == first) {
        return Err(Failure::usage(
            "--out must be another folder than the result's: finished stages would be reused",
        ));
    }
    for task in &suite.tasks {
        let file = task.strip_prefix("text:").or_else(|| task.contains(".toml").then_some(task.as_str()));
        // Options may follow a colon.
        let there = |file: &str| std::path::Path::new(file).is_file();
        if file
            .is_some_and(|file| !there(file) && !file.rsplit_once(':').is_some_and(|(file, _)| there(file)))
        {
            return Err(Failure::usage(format!(
                "task {task}: no such file from here; reproduce from the folder in which the run was started"
            )));
        }
    }
    for metric in suite.metrics.iter().filter(|metric| metric.ends_with(".wasm")) {
        if !std::path::Path::new(metric).is_file() {
            return Err(Failure::usage(format!(
                "metric {metric}: no such file from here; reproduce from the folder in which the run was started"
            )));
        }
    }
    if let Some(folder) = &command.data {
        suite.data_dir = Some(folder.clone());
    } else if let Some(folder) = suite.data_dir.take_if(|folder| !folder.is_dir()) {
        output::warning(&format!(
            "{}: the run's data folder is not here; data are taken from their sources",
            folder.display()
        ));
    }
    Ok(suite)
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    same: usize,
    noise: usize,
    other: usize,
}

/// Whether the metrics of a number's task that are compared item by item are all within noise, of which there is at least one.
fn within_noise(comparison: &Comparison, one: &Difference) -> bool {
    let of_task =
        comparison.differences.iter().filter(|other| other.cell == one.cell && other.task == one.task);
    let mut all = of_task.filter_map(|other| other.paired.as_ref().map(|paired| (other, paired))).peekable();
    all.peek().is_some() && all.all(|(other, paired)| !paired.told_apart && other.follows(paired))
}

fn verdict(comparison: &Comparison) -> Verdict {
    let mut verdict = Verdict { same: 0, noise: 0, other: 0 };
    for one in comparison.differences.iter().filter(|one| !one.is_speed()) {
        let equal =
            one.first.to_bits() == one.second.to_bits() || (one.first.is_nan() && one.second.is_nan());
        match &one.paired {
            _ if equal => verdict.same += 1,
            Some(paired) if !paired.told_apart && one.follows(paired) => verdict.noise += 1,
            // The metric is not compared item by item: as its task's others.
            None if within_noise(comparison, one) => verdict.noise += 1,
            _ => verdict.other += 1,
        }
    }
    verdict
}

/// Runs the command.
pub fn run(global: &GlobalFlags, command: &ReproduceCommand) -> Result<ExitCode, Failure> {
    let first = read_run(&command.result).map_err(Failure::usage)?;
    let suite = suite(&plugins::catalog(global)?, &first, command)?;
    let again = run_shown(&suite, global.quiet)?;
    if again.interrupted {
        return Err(Failure::Cancelled);
    }
    let reused = again.stages().filter(|stage| stage.reused).count();
    if reused > 0 {
        output::warning(&format!(
            "{reused} stages were done by an earlier run in {}: remove it, or name another --out, to do them anew",
            suite.out.display()
        ));
    }
    let comparison = compare(&command.result, &suite.out).map_err(Failure::failed)?;
    let found = verdict(&comparison);
    if command.json {
        output::json(&comparison)?;
    } else {
        output::data(&render(&comparison, output::width()))?;
    }
    let Verdict { same, noise, other } = found;
    let total = same + noise + other;
    let missing = comparison.notes.iter().any(|note| note.starts_with("only in the first")) || total == 0;
    output::say(&format!(
        "{}: {same} of {total} numbers came out the same to the last digit, {noise} within noise, {other} otherwise; results: {}",
        if other == 0 && !missing { "reproduced" } else { "not reproduced" },
        suite.out.display()
    ));
    Ok(ExitCode::from(u8::from(other > 0 || missing || again.failed())))
}
