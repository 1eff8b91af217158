//! `plan`: what a run would do, what of it is done, and what the rest will take.

use std::cell::RefCell;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::flags::GlobalFlags;
use super::progress::ProgressView;
use super::run::RunCommand;
use super::{output, plugins, run};
use crate::assets::registry::PaperModel;
use crate::assets::{Progress, Store, StoreOptions, free_disk};
use crate::report::numbers::{bytes, seconds};
use crate::report::text_table::TextTable;
use crate::suite::estimate::{Estimate, Estimator, History};
use crate::suite::facts::{self, Absent, Facts};
use crate::suite::plan::{Plan, PlannedStage, plan};
use crate::suite::result::StageKind;
use crate::suite::spec::Suite;
use crate::suite::store::Store as ResultStore;
use crate::worker::{Interrupt, WorkerOptions};

const EXAMPLES: &str = "\
Nothing is fetched, and nothing is written into the result directory. Times follow from stages of the same kind that this machine has done; where there are none they are \
rough, and marked so. Models and data that are not here yet are to be fetched by the run.

Examples:
  llmcb-host plan suites/llmcbench.toml
  llmcb-host plan --model ./llama --method gptq:bits=3|4 --tasks wikitext2
  llmcb-host plan suite.toml --stages --json

Exit codes: 0 planned, 1 something that is named cannot be had, or cannot fit, 2 the command line or the suite is wrong";

/// More stages than this are summed up by model and method.
const SHORT: usize = 40;

/// Show what a run would do, what is done already, and what the rest will take
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct PlanCommand {
    #[command(flatten)]
    run: RunCommand,
    /// List every stage, however many there are
    #[arg(long)]
    stages: bool,
}

/// Runs the command.
pub fn run(global: &GlobalFlags, command: &PlanCommand) -> Result<ExitCode, Failure> {
    let suite = run::suite(&plugins::catalog(global)?, &command.run)?;
    show(&suite, command.stages, command.run.measure.json, global.quiet)
}

/// A stage with what it will take.
struct Line<'a> {
    stage: &'a PlannedStage,
    done: bool,
    /// Whether its model or its data are still to be fetched.
    fetches: bool,
    estimate: Estimate,
    /// Whether the machine, or a worker's limit, has enough memory for it.
    fits: bool,
}

/// Prints the plan of a suite.
///
/// # Errors
/// The suite makes no sense, or no cache folder is known.
pub fn show(suite: &Suite, stages: bool, as_json: bool, quiet: bool) -> Result<ExitCode, Failure> {
    let faults = suite.faults();
    if !faults.is_empty() {
        return Err(Failure::usage(faults.join("\n")));
    }
    let interrupt = Interrupt::install().map_err(Failure::failed)?;
    let options =
        StoreOptions::from_env(suite.data_dir.iter().cloned().collect()).map_err(Failure::usage)?.offline();
    let history = History::read(&options.cache);
    let view = RefCell::new(ProgressView::new(quiet));
    let workers = WorkerOptions { threads: suite.thread_budget(), ..WorkerOptions::default() };
    let store = Store::new(options).stopped_by(interrupt.for_fetches());
    let facts = facts::gather(suite, &store, &workers, &interrupt, Absent::IsFetchedLater, &|progress| {
        if let Ok(mut view) = view.try_borrow_mut() {
            match progress {
                Progress::Message(message) => view.begin(&message),
                bytes => view.fetch(bytes),
            }
        }
    });
    drop(view);
    if interrupt.stop() {
        return Err(Failure::Cancelled);
    }
    let plan = plan(suite, &facts);
    let estimator = Estimator::new(suite, &facts, &history);
    let limit = estimator.memory_limit() as f64;
    let line = |stage| {
        let estimate = estimator.of(stage);
        let fits = estimate.memory_bytes.is_none_or(|memory| memory <= limit);
        Line { stage, done: is_done(suite, stage), fetches: fetches(&facts, stage), estimate, fits }
    };
    let lines: Vec<Line<'_>> = plan.stages.iter().map(line).collect();
    let done: Vec<&PlannedStage> = lines.iter().filter(|line| line.done).map(|line| line.stage).collect();
    let misfits = estimator.misfits(&plan, |stage| done.iter().any(|other| std::ptr::eq(*other, stage)));
    if as_json {
        output::json(&json(suite, &plan, &lines, &misfits))?;
    } else {
        let mut text = match stages || lines.len() <= SHORT {
            true => each(&lines),
            false => by_model_and_method(suite, &lines),
        };
        text.push_str(&summary(suite, &facts, &estimator, &lines));
        output::data(&text)?;
    }
    for line in &misfits {
        output::warning(&format!("does not fit: {line}"));
    }
    for problem in &plan.problems {
        output::error(problem);
    }
    Ok(ExitCode::from(u8::from(!plan.problems.is_empty() || !misfits.is_empty())))
}

fn is_done(suite: &Suite, stage: &PlannedStage) -> bool {
    !stage.key.is_empty() && ResultStore::find_in(&suite.out, &stage.directory, &stage.key).is_some()
}

fn fetches(facts: &Facts, stage: &PlannedStage) -> bool {
    let model = facts.models[stage.model].as_ref().is_ok_and(|fact| !fact.at_hand);
    let task = stage.task.is_some_and(|task| facts.tasks[task].as_ref().is_ok_and(|fact| !fact.at_hand));
    model || task
}

fn titles() -> Vec<String> {
    ["stage", "state", "time", "memory", "disk"].map(str::to_owned).to_vec()
}

fn size(value: Option<f64>) -> String {
    match value {
        None => "?".into(),
        Some(value) if value < 1.0 => "-".into(),
        Some(value) => bytes(value as u64),
    }
}

fn time(seconds_: Option<f64>, measured: bool) -> String {
    match seconds_ {
        None => "?".into(),
        // What nobody measured is not given to a tenth of a second.
        Some(value) if !measured => format!("~{}", seconds(if value < 10.0 { value.ceil() } else { value })),
        Some(value) => seconds(value),
    }
}

/// A line for each stage.
fn each(lines: &[Line<'_>]) -> String {
    let mut rows = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let mut row = vec![format!("{}. {} {}", at + 1, line.stage.kind.name(), line.stage.label)];
        match &line.stage.blocked {
            Some((status, reason)) => {
                row.extend([format!("{}: {reason}", status.name()), "-".into(), "-".into(), "-".into()]);
            }
            None if line.done => row.extend(["done before", "-", "-", "-"].map(str::to_owned)),
            None => row.extend([
                match (line.fits, line.fetches, line.estimate.streams) {
                    (false, ..) => "does not fit".to_owned(),
                    (true, true, false) => "to do, fetches first".to_owned(),
                    (true, true, true) => "to do, fetches first, streams weights".to_owned(),
                    (true, false, false) => "to do".to_owned(),
                    (true, false, true) => "to do, streams weights".to_owned(),
                },
                time(line.estimate.seconds, line.estimate.measured),
                size(line.estimate.memory_bytes),
                size(line.estimate.disk_bytes),
            ]),
        }
        rows.push(row);
    }
    // Reasons may be long: nothing is continued below in a plan.
    TextTable { header: titles(), rows, keys: 2 }.render(usize::MAX)
}

/// A line for each model and method.
fn by_model_and_method(suite: &Suite, lines: &[Line<'_>]) -> String {
    let mut groups: Vec<((usize, Option<usize>), Vec<&Line<'_>>)> = Vec::new();
    for line in lines {
        let key = (line.stage.model, line.stage.method);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(line),
            None => groups.push((key, vec![line])),
        }
    }
    let rows = groups
        .iter()
        .map(|((model, method), group)| {
            let name = crate::suite::plan::model_name(&suite.models[*model]);
            let method = method.map_or_else(|| "dense".to_owned(), |m| suite.methods[m].shown());
            let total = totals(group);
            vec![
                format!("{name} / {method}"),
                total.state(group.len()),
                time(total.seconds, total.rough == 0),
                size(total.memory),
                size(total.disk),
            ]
        })
        .collect();
    TextTable { header: titles(), rows, keys: 2 }.render(usize::MAX)
}

#[derive(Default)]
struct Totals {
    to_do: usize,
    misfits: usize,
    blocked: usize,
    rough: usize,
    unknown: usize,
    seconds: Option<f64>,
    memory: Option<f64>,
    disk: Option<f64>,
}

impl Totals {
    fn state(&self, stages: usize) -> String {
        let done = stages - self.to_do - self.blocked;
        let mut words = Vec::new();
        for (count, word) in [(self.to_do, "to do"), (done, "done"), (self.blocked, "cannot be run")] {
            if count > 0 {
                words.push(format!("{count} {word}"));
            }
        }
        if self.misfits > 0 {
            words.push(format!("{} of them do not fit", self.misfits));
        }
        words.join(", ")
    }
}

fn totals(lines: &[&Line<'_>]) -> Totals {
    let mut out = Totals::default();
    let add =
        |sum: &mut Option<f64>, value: Option<f64>| *sum = Some(sum.unwrap_or(0.0) + value.unwrap_or(0.0));
    for line in lines {
        if line.stage.blocked.is_some() {
            out.blocked += 1;
        } else if !line.done {
            out.to_do += 1;
            out.misfits += usize::from(!line.fits);
            out.rough += usize::from(!line.estimate.measured);
            out.unknown += usize::from(line.estimate.seconds.is_none());
            add(&mut out.seconds, line.estimate.seconds);
            add(&mut out.disk, line.estimate.disk_bytes);
            out.memory = match (out.memory, line.estimate.memory_bytes) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (a, b) => a.or(b),
            };
        }
    }
    out
}

fn summary(suite: &Suite, facts: &Facts, estimator: &Estimator<'_>, lines: &[Line<'_>]) -> String {
    let all: Vec<&Line<'_>> = lines.iter().collect();
    let total = totals(&all);
    let mut text = format!("{} stages: {}\n", lines.len(), total.state(lines.len()));
    if total.to_do > 0 {
        text.push_str(&format!(
            "to do: {} of time, {} of memory at most, {} of disk ({} free)\n",
            time(total.seconds, total.rough == 0),
            size(total.memory),
            size(total.disk),
            size(free_disk(&suite.out).map(|free| free as f64)),
        ));
        if total.rough > 0 {
            text.push_str(&format!(
                "~ rough: this machine has not done such stages yet ({} of {}{})\n",
                total.rough,
                total.to_do,
                if total.unknown > 0 {
                    format!("; {} are not known at all and not counted", total.unknown)
                } else {
                    String::new()
                }
            ));
        }
    }
    let remote: Vec<usize> = (0..suite.models.len())
        .filter(|m| facts.models[*m].as_ref().is_ok_and(|fact| !fact.at_hand))
        .collect();
    if !remote.is_empty() {
        let known: u64 = remote.iter().filter_map(|m| estimator.size(*m)).map(|size| size.fetch_bytes).sum();
        let unknown = remote.iter().filter(|m| estimator.size(**m).is_none()).count();
        text.push_str(&format!("to fetch: {} models, about {}", remote.len(), bytes(known)));
        if unknown > 0 {
            text.push_str(&format!(" and {unknown} of unknown size"));
        }
        text.push('\n');
    }
    text.push_str(&needs(suite, facts, estimator, lines));
    let data: Vec<&str> = suite
        .tasks
        .iter()
        .zip(&facts.tasks)
        .filter(|(_, fact)| fact.as_ref().is_ok_and(|fact| !fact.at_hand))
        .map(|(task, _)| task.as_str())
        .collect();
    if !data.is_empty() {
        text.push_str(&format!("to fetch: data of {}\n", data.join(", ")));
    }
    if total.to_do > 0 && suite.hang_limit_seconds > 0 {
        text.push_str(&format!(
            "limit: a stage that gives no sign of life for {} is ended (hang_limit)\n",
            seconds(suite.hang_limit_seconds as f64)
        ));
    }
    text.push_str(&format!("results would be in {}\n", suite.out.display()));
    text
}

/// What each model that is not here needs: a line for each.
fn needs(suite: &Suite, facts: &Facts, estimator: &Estimator<'_>, lines: &[Line<'_>]) -> String {
    let mut rows = Vec::new();
    for (model, name) in suite.models.iter().enumerate() {
        if facts.models[model].as_ref().map_or(true, |fact| fact.at_hand) {
            continue;
        }
        let most = |kinds: &[StageKind], of: fn(&Estimate) -> Option<f64>| {
            let own =
                lines.iter().filter(|line| line.stage.model == model && kinds.contains(&line.stage.kind));
            size(own.filter_map(|line| of(&line.estimate)).reduce(f64::max))
        };
        let runs = [StageKind::Evaluate, StageKind::Profile];
        rows.push(vec![
            name.clone(),
            size(estimator.size(model).map(|size| size.fetch_bytes as f64)),
            most(&[StageKind::Compress], |e| e.memory_bytes),
            most(&runs, |e| e.memory_bytes),
            most(&[StageKind::Compress], |e| e.disk_bytes),
            PaperModel::find(name).map_or("?", |m| m.licence).to_owned(),
        ]);
    }
    if rows.is_empty() {
        return String::new();
    }
    let header =
        ["model to fetch", "download", "memory to compress", "to run", "largest checkpoint", "licence"];
    TextTable { header: header.map(str::to_owned).to_vec(), rows, keys: 1 }.render(usize::MAX)
}

#[derive(Serialize)]
struct StageJson<'a> {
    kind: StageKind,
    label: &'a str,
    key: &'a str,
    done: bool,
    blocked: Option<&'a str>,
    fetches: bool,
    seconds: Option<f64>,
    memory_bytes: Option<f64>,
    disk_bytes: Option<f64>,
    measured: bool,
    streams: bool,
    fits: bool,
}

fn json(suite: &Suite, plan: &Plan, lines: &[Line<'_>], misfits: &[String]) -> serde_json::Value {
    fn stage<'a>(line: &Line<'a>) -> StageJson<'a> {
        StageJson {
            kind: line.stage.kind,
            label: &line.stage.label,
            key: &line.stage.key,
            done: line.done,
            blocked: line.stage.blocked.as_ref().map(|(_, reason)| reason.as_str()),
            fetches: line.fetches,
            seconds: line.estimate.seconds,
            memory_bytes: line.estimate.memory_bytes,
            disk_bytes: line.estimate.disk_bytes,
            measured: line.estimate.measured,
            streams: line.estimate.streams,
            fits: line.fits,
        }
    }
    let stages: Vec<_> = lines.iter().map(|line| serde_json::json!(stage(line))).collect();
    serde_json::json!({"suite": suite, "stages": stages, "problems": plan.problems, "misfits": misfits})
}
