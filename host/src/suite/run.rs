//! The executor: takes a plan's stages in order, reuses what is done, runs the others in workers, and keeps the result files true all the way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use llmcb_plugin_api::abi::{ABI_MAJOR, ABI_MINOR};

use super::agreement::Agreements;
use super::cells::cells;
use super::estimate::{Amount, Estimator, History, Timing};
use super::facts::{self, Absent, Facts, PluginFact};
use super::overall::overall;
use super::pairs::Pairs;
use super::plan::{self, Plan, PlannedStage};
use super::result::{
    MetricRecord, ModelRecord, PluginRecord, RunResult, SCHEMA_VERSION, StageKind, StageResult, StageSummary,
    Status,
};
use super::spec::{PluginUse, Suite};
use super::state::State;
use super::store::{self, Store, StoreError};
use crate::assets::{self, AssetError};
use crate::stage::ITEMS;
use crate::worker::protocol::{
    DataAccess, Event as WorkerEvent, Level, PluginOrder, Request, StageOrder, StageOutcome, Work,
};
use crate::worker::{Answer, Death, Interrupt, Supervisor, WorkerError, WorkerOptions};

/// What happens in a run, as it happens. Stages are numbered from 1.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Something is prepared, in words.
    Preparing {
        /// What.
        message: String,
    },
    /// Something is fetched.
    Fetching {
        /// What.
        what: String,
        /// Bytes so far.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// The plan is made.
    Planned {
        /// Stages in all.
        stages: usize,
        /// Stages that earlier runs have done.
        reused: usize,
    },
    /// A stage is begun.
    StageStarted {
        /// Its number.
        number: usize,
        /// Stages in all.
        total: usize,
        /// Its name.
        label: &'a str,
        /// What it does.
        kind: StageKind,
        /// Whether it goes on where an interrupted attempt stopped.
        resumed: bool,
    },
    /// A stage goes on.
    StageProgress {
        /// Its number.
        number: usize,
        /// Stages in all.
        total: usize,
        /// Its name.
        label: &'a str,
        /// Steps done.
        done: u64,
        /// Steps in all; 0 where not known.
        of: u64,
        /// What is being done.
        what: &'a str,
    },
    /// A stage has ended, or was found done, or is not run.
    StageEnded {
        /// Its number.
        number: usize,
        /// Stages in all.
        total: usize,
        /// How it ended.
        summary: &'a StageSummary,
    },
    /// A line of the log.
    Log {
        /// The stage's name, or empty.
        label: &'a str,
        /// How important it is.
        level: Level,
        /// The line.
        message: &'a str,
    },
    /// The result files were written.
    Saved(&'a RunResult),
}

/// A run that could not begin, or could not write down its results.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuiteError {
    /// The suite makes no sense.
    #[error("{}", .0.join("\n"))]
    Suite(Vec<String>),
    /// The result directory cannot be opened; nothing was run.
    #[error(transparent)]
    Out(StoreError),
    /// The result directory can no longer be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No cache folder is known.
    #[error(transparent)]
    Assets(#[from] AssetError),
}

/// Runs a suite. Failures of single stages are in the result, not in the error; [`RunResult::exit_code`] tells.
///
/// # Errors
/// The suite is contradictory, or the result directory cannot be used.
pub fn run(
    suite: &Suite,
    interrupt: &Interrupt,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<RunResult, SuiteError> {
    let workers = WorkerOptions {
        threads: suite.thread_budget(),
        hang_limit: (suite.hang_limit_seconds > 0).then(|| Duration::from_secs(suite.hang_limit_seconds)),
        memory_limit_bytes: suite.memory_limit_bytes,
        ..WorkerOptions::default()
    };
    run_with(suite, &workers, interrupt, on_event)
}

/// As [`run`], with workers of one's own choice.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    suite: &Suite,
    workers: &WorkerOptions,
    interrupt: &Interrupt,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<RunResult, SuiteError> {
    let faults = suite.faults();
    if !faults.is_empty() {
        return Err(SuiteError::Suite(faults));
    }
    let started = Instant::now();
    let started_unix = unix_now();
    // First of all, so that nothing is fetched for results that cannot be written.
    let store = Store::open(&suite.out).map_err(SuiteError::Out)?;
    let folders: Vec<PathBuf> = suite.data_dir.iter().cloned().collect();
    let data = assets::Store::new(assets::StoreOptions::from_env(folders.clone())?)
        .stopped_by(interrupt.for_fetches());
    let facts = {
        let on_event = RefCell::new(&mut *on_event);
        facts::gather(suite, &data, workers, interrupt, Absent::Fails, &|progress| {
            let event = match progress {
                assets::Progress::Message(message) => Event::Preparing { message },
                assets::Progress::Bytes { what, done, total } => Event::Fetching { what, done, total },
            };
            if let Ok(mut on_event) = on_event.try_borrow_mut() {
                on_event(event);
            }
        })
    };
    let plan = plan::plan(suite, &facts);
    let states = plan.stages.iter().map(|stage| State::new(stage, &store)).collect();
    let mut runner = Runner {
        suite,
        facts: &facts,
        plan: &plan,
        store: &store,
        workers,
        folders,
        interrupt,
        states,
        worker: None,
        scorer: None,
        started,
        started_unix,
        pairs: Pairs::default(),
        agreements: Agreements::default(),
        history: History::read(&data.options().cache),
    };
    let reused = runner.states.iter().filter(|s| s.summary.reused).count();
    on_event(Event::Planned { stages: plan.stages.len(), reused });
    let done: Vec<&str> = plan
        .stages
        .iter()
        .zip(&runner.states)
        .filter(|(_, s)| s.summary.reused)
        .map(|(p, _)| p.key.as_str())
        .collect();
    let misfits = Estimator::new(suite, &facts, &runner.history)
        .misfits(&plan, |stage| done.contains(&stage.key.as_str()));
    for message in misfits.iter().map(|line| format!("may not fit: {line}")) {
        on_event(Event::Log { label: "", level: Level::Warning, message: &message });
    }
    runner.save(false, on_event)?;
    for number in 0..plan.stages.len() {
        if interrupt.stop() {
            break;
        }
        // What an earlier run has done, or cannot be done, is in the files already.
        let settled = runner.states[number].summary.status.is_some();
        runner.stage(number, on_event);
        if !settled {
            runner.save(false, on_event)?;
        }
    }
    runner.worker = None;
    let result = runner.save(true, on_event)?;
    Ok(result)
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// A worker with the model that it holds.
struct Held {
    model: PathBuf,
    backend: usize,
    worker: Supervisor,
}

struct Runner<'a> {
    suite: &'a Suite,
    facts: &'a Facts,
    plan: &'a Plan,
    store: &'a Store,
    workers: &'a WorkerOptions,
    folders: Vec<PathBuf>,
    interrupt: &'a Interrupt,
    states: Vec<State>,
    worker: Option<Held>,
    /// The worker that applies metrics.
    scorer: Option<Supervisor>,
    started: Instant,
    started_unix: f64,
    pairs: Pairs,
    agreements: Agreements,
    history: History,
}

fn record(one: &PluginUse, fact: &PluginFact, role: &str) -> PluginRecord {
    PluginRecord {
        id: fact.descriptor.id.clone(),
        name: fact.descriptor.name.clone(),
        version: fact.descriptor.version.clone(),
        label: one.label.clone(),
        options: fact.options.get(role).cloned().unwrap_or_default(),
        sha256: fact.sha256.clone(),
    }
}

fn order(one: &PluginUse, fact: &PluginFact, role: &str) -> PluginOrder {
    PluginOrder { path: one.path.clone(), options: fact.options.get(role).cloned().unwrap_or_default() }
}

/// Everything that a stage needs, once nothing blocks it.
struct Ready {
    work: Work,
    model: PathBuf,
    result: StageResult,
    expected_data: BTreeMap<String, String>,
}

impl Runner<'_> {
    fn stage(&mut self, number: usize, on_event: &mut dyn FnMut(Event<'_>)) {
        let plan = self.plan;
        let total = plan.stages.len();
        let stage = &plan.stages[number];
        if self.states[number].summary.status.is_none() {
            match self.ready(stage) {
                Ok(ready) => self.execute(number, stage, ready, on_event),
                Err((status, reason)) => self.states[number].ended(status, reason),
            }
        }
        on_event(Event::StageEnded { number: number + 1, total, summary: &self.states[number].summary });
    }

    /// Puts together what a stage needs; else why it is not run.
    fn ready(&self, stage: &PlannedStage) -> Result<Ready, (Status, String)> {
        let failed = |reason: &str| (Status::Failed, reason.to_owned());
        let suite = self.suite;
        let fact = self.facts.models[stage.model].as_ref().map_err(|e| failed(e))?;
        let method = match stage.method {
            None => None,
            Some(m) => Some((&suite.methods[m], self.facts.methods[m].as_ref().map_err(|e| failed(e))?)),
        };
        let mut expected_data = BTreeMap::new();
        let mut expect_text = || {
            if let Some(Ok(text)) = &self.facts.text {
                expected_data.insert(text.name.clone(), text.sha256.clone());
            }
        };
        let (work, model, backend) = match stage.kind {
            StageKind::Compress => {
                expect_text();
                let (Some(index), Some((method_use, method))) = (stage.method, method) else {
                    return Err(failed("the stage has no method"));
                };
                let (one, engine) = self.facts.engine_for(suite, index).map_err(|e| failed(&e))?;
                let work = Work::Compress {
                    model: fact.path.clone(),
                    engine: order(&one, &engine, "engine"),
                    method: order(method_use, method, "method"),
                    calibration: suite.calibration.clone(),
                };
                (work, fact.path.clone(), record(&one, &engine, "engine"))
            }
            StageKind::Score => {
                let (Some(evaluate), Some(m), Some(b)) = (stage.needs, stage.metric, stage.backend) else {
                    return Err(failed("the stage has nothing to score"));
                };
                let metric = self.facts.metrics[m].as_ref().map_err(|e| failed(e))?.order.clone();
                let backend = self.facts.backends[b].as_ref().map_err(|e| failed(e))?;
                let work = Work::Score { items: self.items(evaluate)?, metric };
                (work, PathBuf::new(), record(&suite.backends[b], backend, "runner"))
            }
            StageKind::Evaluate | StageKind::Profile | StageKind::Diverge => {
                let model = match stage.needs {
                    None => fact.path.clone(),
                    Some(needed) => self.checkpoint(needed)?,
                };
                let Some(b) = stage.backend else { return Err(failed("the stage has no backend")) };
                let one = &suite.backends[b];
                let backend = self.facts.backends[b].as_ref().map_err(|e| failed(e))?;
                let runner = order(one, backend, "runner");
                let work = match stage.task {
                    Some(t) => {
                        expected_data = self.facts.tasks[t].as_ref().map_err(|e| failed(e))?.data.clone();
                        let (model, task, limit) = (model.clone(), suite.tasks[t].clone(), suite.limit);
                        match stage.kind {
                            StageKind::Diverge => {
                                Work::Diverge { dense: fact.path.clone(), model, runner, task, limit }
                            }
                            _ => Work::Evaluate { model, runner, task, limit, shots: suite.shots },
                        }
                    }
                    None => {
                        expect_text();
                        Work::Profile {
                            model: model.clone(),
                            runner,
                            workload: stage.workload.map(|w| suite.workloads[w].clone()).unwrap_or_default(),
                            text: suite.calibration.text.clone(),
                        }
                    }
                };
                (work, model, record(one, backend, "runner"))
            }
        };
        let result = StageResult {
            schema_version: SCHEMA_VERSION,
            key: stage.key.clone(),
            kind: stage.kind,
            status: Status::Failed,
            reason: None,
            label: stage.label.clone(),
            model: ModelRecord {
                reference: suite.models[stage.model].clone(),
                path: fact.path.clone(),
                sha256: fact.sha256.clone(),
                info: None,
            },
            method: method.map(|(one, fact)| record(one, fact, "method")),
            backend: Some(backend),
            task: stage.task.map(|t| suite.tasks[t].clone()),
            device: String::new(),
            seed: stage.seed,
            abi_version: format!("{ABI_MAJOR}.{ABI_MINOR}"),
            host_version: env!("CARGO_PKG_VERSION").to_owned(),
            data: expected_data.clone(),
            settings: plan::settings(suite, self.facts, stage),
            started_unix: unix_now(),
            wall_seconds: 0.0,
            phases: BTreeMap::new(),
            cpu_seconds: 0.0,
            peak_memory_bytes: 0,
            gpu_peak_memory_bytes: 0,
            resumed: 0,
            threads: self.facts.threads,
            items: 0,
            metrics: Vec::new(),
            checkpoint: None,
            profile: None,
            fuel: None,
            files: Vec::new(),
            warnings: Vec::new(),
        };
        Ok(Ready { work, model, result, expected_data })
    }

    /// Where the checkpoint of a stage is, or why there is none.
    fn checkpoint(&self, needed: usize) -> Result<PathBuf, (Status, String)> {
        let state = &self.states[needed];
        match (&state.result, &state.summary.reason) {
            (Some(StageResult { checkpoint: Some(checkpoint), .. }), _) => {
                let path = self.store.directory(&self.plan.stages[needed].directory).join(&checkpoint.path);
                Ok(std::path::absolute(&path).unwrap_or(path))
            }
            (_, reason) => {
                let reason = reason.as_deref().unwrap_or("its stage has not run");
                Err((Status::Skipped, format!("there is no checkpoint: {reason}")))
            }
        }
    }

    /// The items of an evaluation, or why there are none.
    fn items(&self, evaluate: usize) -> Result<PathBuf, (Status, String)> {
        let summary = &self.states[evaluate].summary;
        if summary.status != Some(Status::Done) {
            let reason = summary.reason.as_deref().unwrap_or("their stage has not run");
            return Err((Status::Skipped, format!("there are no items: {reason}")));
        }
        let path = self.store.directory(&self.plan.stages[evaluate].directory).join(ITEMS);
        Ok(std::path::absolute(&path).unwrap_or(path))
    }

    fn execute(
        &mut self,
        number: usize,
        stage: &PlannedStage,
        ready: Ready,
        on_event: &mut dyn FnMut(Event<'_>),
    ) {
        let total = self.plan.stages.len();
        let Ready { work, model, mut result, expected_data } = ready;
        let began = Instant::now();
        let (directory, resumed) = match self.store.begin(&stage.directory, &stage.key) {
            Ok(begun) => begun,
            Err(error) => return self.states[number].ended(Status::Failed, error.to_string()),
        };
        let label = stage.label.as_str();
        on_event(Event::StageStarted { number: number + 1, total, label, kind: stage.kind, resumed });
        let order = StageOrder {
            key: stage.key.clone(),
            directory: std::path::absolute(&directory).unwrap_or_else(|_| directory.clone()),
            seed: stage.seed,
            threads: self.facts.threads,
            data: DataAccess { folders: self.folders.clone() },
            expected_data,
            work,
        };
        let mut log = open_log(&directory);
        let chatter = log.as_ref().and_then(|log| log.try_clone().ok());
        let answer = self.ask(stage, &model, order, chatter, &mut |event| match event {
            WorkerEvent::Progress { done, total: of, what } => {
                on_event(Event::StageProgress {
                    number: number + 1,
                    total,
                    label,
                    done: *done,
                    of: *of,
                    what,
                });
            }
            WorkerEvent::Log { level, message } => {
                if let Some(log) = &mut log {
                    // A log that cannot be written costs no result.
                    let _ = writeln!(log, "[{level:?}] {message}");
                }
                on_event(Event::Log { label, level: *level, message });
            }
            _ => {}
        });
        let state = &mut self.states[number];
        match answer {
            Ok(outcome) => {
                fill(&mut result, outcome);
                match self.store.commit(&stage.directory, &mut result) {
                    Ok(()) => {
                        self.history.extend(timing(self.suite, self.facts, stage, &result));
                        return state.done(result);
                    }
                    Err(error) => state.ended(Status::Failed, error.to_string()),
                }
            }
            Err(error) => {
                let (status, reason) = verdict(error);
                state.ended(status, reason);
            }
        }
        state.summary.wall_seconds = began.elapsed().as_secs_f64();
        result.status = state.summary.status.unwrap_or(Status::Failed);
        result.reason.clone_from(&state.summary.reason);
        result.wall_seconds = state.summary.wall_seconds;
        state.summary.directory = Path::new("stages").join(format!("{}.partial", stage.directory));
        // The reason stands in the run's result in any case.
        let _ = self.store.note_failure(&stage.directory, &result);
    }

    /// Has a worker do a stage. A worker that holds the stage's model already is used again.
    fn ask(
        &mut self,
        stage: &PlannedStage,
        model: &Path,
        order: StageOrder,
        log: Option<File>,
        on_event: &mut dyn FnMut(&WorkerEvent),
    ) -> Result<StageOutcome, WorkerError> {
        if stage.kind == StageKind::Score {
            return self.ask_for_score(order, log, on_event);
        }
        let backend = stage.backend.unwrap_or(usize::MAX);
        let fits = self
            .worker
            .as_ref()
            .is_some_and(|h| h.model == model && h.backend == backend && !h.worker.is_dead());
        if !fits || stage.kind == StageKind::Compress {
            // The old one first: two models at once may not fit in memory.
            self.worker = None;
            let worker = Supervisor::spawn(self.workers)?;
            self.worker = Some(Held { model: model.to_owned(), backend, worker });
        }
        let Some(held) = &mut self.worker else {
            return Err(WorkerError::Cancelled);
        };
        held.worker.set_log(log);
        let answer = held.worker.call(Request::Stage(Box::new(order)), self.interrupt, on_event);
        held.worker.set_log(None);
        match answer {
            Ok(Answer::Done(outcome)) => Ok(*outcome),
            Ok(other) => Err(other.unexpected()),
            Err(error) => {
                // After a failure its state is anybody's guess.
                self.worker = None;
                Err(error)
            }
        }
    }

    /// Has the worker for metrics do a stage: one for the whole run, so that what metrics need to start is paid once.
    fn ask_for_score(
        &mut self,
        order: StageOrder,
        log: Option<File>,
        on_event: &mut dyn FnMut(&WorkerEvent),
    ) -> Result<StageOutcome, WorkerError> {
        let mut worker = match self.scorer.take().filter(|worker| !worker.is_dead()) {
            Some(worker) => worker,
            None => Supervisor::spawn(self.workers)?,
        };
        worker.set_log(log);
        let answer = worker.call(Request::Stage(Box::new(order)), self.interrupt, on_event);
        worker.set_log(None);
        // A metric that fails does no harm to others: it had an instance of its own.
        self.scorer = Some(worker);
        match answer? {
            Answer::Done(outcome) => Ok(*outcome),
            other => Err(other.unexpected()),
        }
    }

    fn save(&self, last: bool, on_event: &mut dyn FnMut(Event<'_>)) -> Result<RunResult, SuiteError> {
        let mut cells = cells(self.suite, self.facts, self.plan, &self.states);
        let faults = self.pairs.fill(self.store.root(), &mut cells);
        if let Some(first) = self.suite.backends.first() {
            self.agreements.fill(self.store.root(), &first.label, &mut cells);
        }
        let overall = overall(self.suite, &cells, &self.pairs);
        if last {
            for message in &faults {
                on_event(Event::Log { label: "", level: Level::Warning, message });
            }
        }
        let interrupted = self.interrupt.stop() && self.states.iter().any(|s| s.unfinished());
        let run = RunResult {
            schema_version: SCHEMA_VERSION,
            host_version: env!("CARGO_PKG_VERSION").to_owned(),
            abi_version: format!("{ABI_MAJOR}.{ABI_MINOR}"),
            suite: self.suite.clone(),
            inputs: self.facts.inputs(self.suite),
            machine: super::machine::describe(),
            started_unix: self.started_unix,
            wall_seconds: self.started.elapsed().as_secs_f64(),
            complete: last && !interrupted,
            interrupted,
            cells,
            overall,
            // What could not be had because the user stopped is no problem of the suite's.
            problems: if interrupted { Vec::new() } else { self.plan.problems.clone() },
        };
        self.store.write_run(&run)?;
        on_event(Event::Saved(&run));
        Ok(run)
    }
}

/// What a stage took, for estimates of later ones.
fn timing(suite: &Suite, facts: &Facts, stage: &PlannedStage, result: &StageResult) -> Option<Timing> {
    // What was interrupted was measured in pieces.
    let info = result.model.info.as_ref().filter(|info| info.parameters > 0 && result.resumed == 0)?;
    let work = Amount::of(suite, facts, stage)?;
    Some(Timing {
        what: work.what,
        form: work.form,
        machine: facts.machine.clone(),
        threads: facts.threads,
        parameters: info.parameters as f64,
        tokens: work.tokens?,
        // Loading takes what it takes, however much follows.
        seconds: result.wall_seconds - result.phases.get("loading").copied().unwrap_or(0.0),
        memory_bytes: result.peak_memory_bytes as f64,
        disk_bytes: result.checkpoint.as_ref().map_or(0.0, |c| c.info.weight_bytes as f64),
    })
}

fn open_log(directory: &Path) -> Option<File> {
    File::options().create(true).append(true).open(directory.join(store::LOG)).ok()
}

fn fill(result: &mut StageResult, outcome: StageOutcome) {
    let task = result.task.clone().unwrap_or_else(|| result.kind.name().to_owned());
    result.status = Status::Done;
    if let Some(info) = &outcome.model {
        result.device.clone_from(&info.device);
    }
    result.model.info = outcome.model;
    result.items = outcome.items;
    result.metrics =
        outcome.metrics.into_iter().map(|metric| MetricRecord { task: task.clone(), metric }).collect();
    result.checkpoint = outcome.checkpoint;
    result.profile = outcome.profile;
    result.data = outcome.data;
    result.warnings = outcome.warnings;
    result.started_unix = outcome.started_unix;
    result.wall_seconds = outcome.wall_seconds;
    result.phases = outcome.phases;
    result.cpu_seconds = outcome.cpu_seconds;
    result.peak_memory_bytes = outcome.peak_memory_bytes;
    result.gpu_peak_memory_bytes = outcome.gpu_peak_memory_bytes;
    result.resumed = outcome.resumed;
    result.fuel = outcome.fuel;
}

/// How an unanswered request counts, and why, in one line.
fn verdict(error: WorkerError) -> (Status, String) {
    match error {
        WorkerError::Cancelled | WorkerError::Died(Death::ByUser) => {
            (Status::Cancelled, "stopped by the user; the next run goes on from here".to_owned())
        }
        WorkerError::Skipped(reason) => (Status::Skipped, reason),
        WorkerError::Failed { message, .. } => {
            let full = std::io::Error::from_raw_os_error(28);
            let hint = if message.contains(&full.to_string()) { store::way_out(&full) } else { "" };
            (Status::Failed, format!("{message}{hint}"))
        }
        other => (Status::Failed, other.to_string()),
    }
}
