//! From a suite and its facts to stages in order, each with its content key. Pure: touches no file and loads no plugin.

use serde_json::{Map, Value};

use super::facts::{Facts, MetricFact, PluginFact};
use super::key::{CalibrationPart, Inputs, PluginPart};
use super::result::{StageKind, Status};
use super::spec::Suite;
use crate::metrics::scoring::Field;

/// Name of the model as it is, where else the label of a method stands.
pub const DENSE: &str = "dense";

/// One stage to be.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStage {
    /// What it does.
    pub kind: StageKind,
    /// Name for people.
    pub label: String,
    /// Content key; empty when the stage is blocked.
    pub key: String,
    /// Name of its directory; empty when the stage is blocked.
    pub directory: String,
    /// Number of its model in the suite.
    pub model: usize,
    /// Number of its method in the suite; absent for the dense model.
    pub method: Option<usize>,
    /// Number of its backend in the suite; absent for compress stages.
    pub backend: Option<usize>,
    /// Number of its task in the suite, of evaluate and diverge stages.
    pub task: Option<usize>,
    /// Number of its workload in the suite, of profile stages.
    pub workload: Option<usize>,
    /// Number of its metric in the suite, of score stages.
    pub metric: Option<usize>,
    /// Its seed.
    pub seed: u64,
    /// The stage whose checkpoint it needs, or whose items, a number in the plan.
    pub needs: Option<usize>,
    /// Why it cannot be run at all, and as what that counts.
    pub blocked: Option<(Status, String)>,
}

/// Stages in the order in which they are run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The stages; one that needs another comes after it.
    pub stages: Vec<PlannedStage>,
    /// What the suite asks for and cannot be had, one line each.
    pub problems: Vec<String>,
}

type Blocked = (Status, String);

fn failed(reason: &str) -> Blocked {
    (Status::Failed, reason.to_owned())
}

fn part(plugin: &PluginFact, role: &str) -> PluginPart {
    PluginPart {
        sha256: plugin.sha256.clone(),
        options: plugin.options.get(role).cloned().unwrap_or_default(),
        library: plugin.library.as_ref().filter(|_| role == "runner").map(|library| {
            format!("{} {} {}", library.name, library.version.as_deref().unwrap_or_default(), library.build)
        }),
    }
}

/// Short name of a model: the last part of a path or repository.
pub fn model_name(reference: &str) -> &str {
    let name = reference.trim_end_matches('/').rsplit('/').next().unwrap_or(reference);
    name.strip_suffix(".gguf").unwrap_or(name)
}

/// A text that may be part of a directory's name.
fn slug(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            'a'..='z' | '0'..='9' | '_' | '.' => out.push(c),
            'A'..='Z' => out.push(c.to_ascii_lowercase()),
            _ if out.ends_with('-') => {}
            _ => out.push('-'),
        }
        if out.len() >= 100 {
            break;
        }
    }
    out.trim_matches(['-', '.']).to_owned()
}

struct Planner<'a> {
    suite: &'a Suite,
    facts: &'a Facts,
    stages: Vec<PlannedStage>,
}

/// Which stage, without how it came out.
#[derive(Clone, Copy)]
struct Place {
    kind: StageKind,
    model: usize,
    method: Option<usize>,
    backend: Option<usize>,
    task: Option<usize>,
    workload: Option<usize>,
    metric: Option<usize>,
    /// Number of its seed in the suite.
    seed: usize,
    needs: Option<usize>,
}

impl Planner<'_> {
    fn push(&mut self, place: Place, inputs: Result<Inputs, Blocked>) -> usize {
        let suite = self.suite;
        let model = model_name(&suite.models[place.model]);
        let method = place.method.map_or(DENSE, |m| suite.methods[m].label.as_str());
        let mut names = vec![model, method];
        names.extend(place.backend.map(|b| suite.backends[b].label.as_str()));
        names.extend(place.task.map(|t| suite.tasks[t].as_str()));
        let metric = place.metric.and_then(|m| self.facts.metrics[m].as_ref().ok());
        let metric = metric.map(|fact| fact.description.name.as_str());
        names.extend(metric);
        let workload =
            place.workload.map(|w| suite.workloads[w].to_string()).filter(|_| suite.workloads.len() > 1);
        // Neither workload nor seed is in the directory's name: with further ones, what is done must be found again.
        let seeded = suite.seeds.len() > 1 && (place.method.is_some() || suite.seeds_matter_to_dense());
        let seed = seeded.then(|| format!("seed {}", suite.seeds[place.seed]));
        let (key, blocked) = match inputs {
            Ok(inputs) => (inputs.key(), None),
            Err(blocked) => (String::new(), Some(blocked)),
        };
        let directory = match key.get(..12) {
            Some(short) => format!("{}-{}-{short}", place.kind.name(), slug(&names.join("-"))),
            None => String::new(),
        };
        // What is the same for all stages is left out.
        let mut words = Vec::new();
        if suite.models.len() > 1 {
            words.push(model.to_owned());
        }
        words.push(place.method.map_or(DENSE.to_owned(), |m| suite.methods[m].shown()));
        if suite.backends.len() > 1 {
            words.extend(place.backend.map(|b| suite.backends[b].shown()));
        }
        words.extend(seed);
        words.push(match (place.kind, place.task, workload) {
            (StageKind::Score, Some(task), _) => {
                format!("{} / {}", suite.tasks[task], metric.unwrap_or_default())
            }
            (StageKind::Diverge, Some(task), _) => format!("{} against dense", suite.tasks[task]),
            (_, Some(task), _) => suite.tasks[task].clone(),
            (_, None, Some(workload)) => format!("{} {workload}", place.kind.name()),
            (_, None, None) => place.kind.name().to_owned(),
        });
        self.stages.push(PlannedStage {
            kind: place.kind,
            label: words.join(" / "),
            key,
            directory,
            model: place.model,
            method: place.method,
            backend: place.backend,
            task: place.task,
            workload: place.workload,
            metric: place.metric,
            seed: suite.seeds[place.seed],
            needs: place.needs,
            blocked,
        });
        self.stages.len() - 1
    }

    fn compress(&mut self, model: usize, method: usize, seed: usize) -> usize {
        let inputs = || {
            let model = self.facts.models[model].as_ref().map_err(|e| failed(e))?;
            let fact = self.facts.methods[method].as_ref().map_err(|e| failed(e))?;
            let (_, engine) = self.facts.engine_for(self.suite, method).map_err(|e| failed(&e))?;
            let calibration = match (&self.facts.text, fact.descriptor.needs.calibration) {
                (_, false) => None,
                (Some(text), true) => Some(CalibrationPart {
                    sha256: text.as_ref().map_err(|e| failed(e))?.sha256.clone(),
                    windows: self.suite.calibration.windows,
                    length: self.suite.calibration.length,
                }),
                (None, true) => return Err(failed("there is no calibration text, which the method needs")),
            };
            Ok(Inputs::Compress {
                model: model.sha256.clone(),
                engine: part(&engine, "engine"),
                method: part(fact, "method"),
                calibration,
                seed: self.suite.seeds[seed],
            })
        };
        let inputs = inputs();
        let place = Place {
            kind: StageKind::Compress,
            model,
            method: Some(method),
            backend: None,
            task: None,
            workload: None,
            metric: None,
            seed,
            needs: None,
        };
        self.push(place, inputs)
    }

    /// The runner, and what identifies the model that it runs.
    fn subject(
        &self,
        model: usize,
        backend: usize,
        needs: Option<usize>,
    ) -> Result<(PluginPart, String), Blocked> {
        let fact = self.facts.backends[backend].as_ref().map_err(|e| failed(e))?;
        if !fact.options.contains_key("runner") {
            let label = &self.suite.backends[backend].label;
            return Err((
                Status::Skipped,
                format!("backend {label} has no runner role: it opens models for methods only"),
            ));
        }
        if let Some(missing) = fact.library.as_ref().and_then(|library| library.missing.as_ref()) {
            return Err((Status::Skipped, missing.clone()));
        }
        let model = match needs.map(|n| &self.stages[n]) {
            None => self.facts.models[model].as_ref().map_err(|e| failed(e))?.sha256.clone(),
            Some(PlannedStage { blocked: Some((_, reason)), .. }) => {
                return Err((Status::Skipped, format!("there is no checkpoint: {reason}")));
            }
            Some(stage) => stage.key.clone(),
        };
        Ok((part(fact, "runner"), model))
    }

    /// Scores and times a model: `of` says which.
    fn score(&mut self, of: Place) {
        let Place { model, needs, seed, .. } = of;
        let backend = of.backend.unwrap_or_default();
        for task in 0..self.suite.tasks.len() {
            let inputs = self.subject(model, backend, needs).and_then(|(runner, subject)| {
                let fact = self.facts.tasks[task].as_ref().map_err(|e| failed(e))?;
                Ok(Inputs::Evaluate {
                    model: subject,
                    runner,
                    task: fact.fingerprints[seed].clone(),
                    seed: self.suite.seeds[seed],
                })
            });
            let place = Place { kind: StageKind::Evaluate, task: Some(task), ..of };
            let evaluate = self.push(place, inputs);
            self.apply_metrics(Place { needs: Some(evaluate), ..place });
        }
        let workloads = if self.suite.profile { self.suite.workloads.len() } else { 0 };
        for workload in 0..workloads {
            let inputs = self.subject(model, backend, needs).and_then(|(runner, subject)| {
                let text = match &self.facts.text {
                    Some(text) => text.as_ref().map_err(|e| failed(e))?,
                    None => return Err(failed("there is no text for the prompts")),
                };
                Ok(Inputs::Profile {
                    model: subject,
                    runner,
                    workload: self.suite.workloads[workload].clone(),
                    text: text.sha256.clone(),
                    threads: self.facts.threads,
                    machine: self.facts.machine.clone(),
                    seed: self.suite.seeds[seed],
                })
            });
            self.push(Place { kind: StageKind::Profile, workload: Some(workload), ..of }, inputs);
        }
    }
}

impl Planner<'_> {
    /// The metrics of the suite, those of them that read what the items of an evaluation have.
    fn apply_metrics(&mut self, of: Place) {
        let (Some(Ok(task)), Some(evaluate)) = (of.task.map(|t| &self.facts.tasks[t]), of.needs) else {
            return;
        };
        for (metric, fact) in self.facts.metrics.iter().enumerate() {
            let Some(fact) = fact.as_ref().ok().filter(|f| f.description.fits(task.seqlen.is_some())) else {
                continue;
            };
            let stage = &self.stages[evaluate];
            let inputs = match &stage.blocked {
                Some((_, reason)) => Err((Status::Skipped, format!("there are no items: {reason}"))),
                None => Ok(Inputs::Score { items: stage.key.clone(), metric: fact.order.identity() }),
            };
            self.push(Place { kind: StageKind::Score, metric: Some(metric), ..of }, inputs);
        }
    }

    /// On every text whose perplexity is measured, the distributions of a compressed model are compared with the dense one's.
    fn compare(&mut self, of: Place) {
        for (task, fact) in self.facts.tasks.iter().enumerate() {
            // What is wrong with a task is told by its evaluation.
            let Ok(fact) = fact else { continue };
            if fact.seqlen.is_none() {
                continue;
            }
            let backend = of.backend.unwrap_or_default();
            let inputs = self.subject(of.model, backend, of.needs).and_then(|(runner, subject)| {
                let dense = self.facts.models[of.model].as_ref().map_err(|e| failed(e))?;
                Ok(Inputs::Diverge {
                    dense: dense.sha256.clone(),
                    model: subject,
                    runner,
                    task: fact.fingerprints[of.seed].clone(),
                    seed: self.suite.seeds[of.seed],
                })
            });
            self.push(Place { kind: StageKind::Diverge, task: Some(task), ..of }, inputs);
        }
    }
}

/// Plans a suite: for each model, the dense one is scored, then each method compresses it and the result is scored, with every seed.
pub fn plan(suite: &Suite, facts: &Facts) -> Plan {
    let mut planner = Planner { suite, facts, stages: Vec::new() };
    let place = |model, method, backend, seed, needs| Place {
        kind: StageKind::Evaluate,
        model,
        method,
        backend: Some(backend),
        task: None,
        workload: None,
        metric: None,
        seed,
        needs,
    };
    for model in 0..suite.models.len() {
        for seed in 0..suite.dense_seeds().len() {
            for backend in 0..suite.backends.len() {
                planner.score(place(model, None, backend, seed, None));
            }
        }
        for method in 0..suite.methods.len() {
            for seed in 0..suite.seeds.len() {
                let needs = planner.compress(model, method, seed);
                for backend in 0..suite.backends.len() {
                    let of = place(model, Some(method), backend, seed, Some(needs));
                    planner.score(of);
                    if suite.dense {
                        planner.compare(of);
                    }
                }
            }
        }
    }
    let mut problems: Vec<String> = Vec::new();
    let errors = (facts.models.iter().filter_map(|f| f.as_ref().err()))
        .chain(facts.methods.iter().filter_map(|f| f.as_ref().err()))
        .chain(facts.backends.iter().filter_map(|f| f.as_ref().err()))
        .chain(facts.engine.iter().filter_map(|f| f.as_ref().err()))
        .chain(facts.tasks.iter().filter_map(|f| f.as_ref().err()))
        .chain(facts.metrics.iter().filter_map(|f| f.as_ref().err()))
        .chain(facts.text.iter().filter_map(|f| f.as_ref().err()));
    for error in errors {
        if !problems.contains(error) {
            problems.push(error.clone());
        }
    }
    problems.extend(metrics_without_tasks(facts));
    Plan { stages: planner.stages, problems }
}

/// Metrics that no task of the suite gives anything to read, one line each.
fn metrics_without_tasks(facts: &Facts) -> impl Iterator<Item = String> {
    let tasks = || facts.tasks.iter().flatten();
    let lost = move |fact: &&MetricFact| {
        tasks().next().is_some() && !tasks().any(|task| fact.description.fits(task.seqlen.is_some()))
    };
    facts.metrics.iter().flatten().filter(lost).map(|fact| {
        let of = |field: &&Field| format!("`{}` of {}", field.name, field.of.words());
        let fields = fact.description.fields().unwrap_or_default();
        let reads = fields.iter().map(of).collect::<Vec<_>>().join(", ");
        format!("metric {}: it reads {reads}, and no task of the suite has these", fact.description.name)
    })
}

/// Settings of a stage, as they are written into its result.
pub(crate) fn settings(suite: &Suite, facts: &Facts, stage: &PlannedStage) -> Map<String, Value> {
    let mut out = Map::new();
    let mut set = |name: &str, value: Value| {
        out.insert(name.to_owned(), value);
    };
    match stage.kind {
        StageKind::Compress => {
            let needs = stage.method.and_then(|m| facts.methods[m].as_ref().ok());
            if needs.is_some_and(|m| m.descriptor.needs.calibration) {
                set("calibration_text", suite.calibration.text.clone().into());
                set("calibration_windows", suite.calibration.windows.into());
                set("calibration_length", suite.calibration.length.into());
            }
            let engine = stage.method.and_then(|m| facts.engine_for(suite, m).ok());
            if let Some(format) = engine.and_then(|(_, e)| e.options.get("engine")?.get("format").cloned()) {
                set("format", format);
            }
        }
        StageKind::Evaluate | StageKind::Diverge | StageKind::Score => {
            if let Some(Ok(task)) = stage.task.map(|t| &facts.tasks[t]) {
                set("task", task.name.clone().into());
                set("task_version", task.version.clone().into());
                set("shots", task.shots.into());
                set("limit", task.limit.map_or(Value::Null, Value::from));
                if let Some(seqlen) = task.seqlen {
                    set("seqlen", seqlen.into());
                }
            }
            if let Some(Ok(metric)) = stage.metric.map(|m| &facts.metrics[m]) {
                set("metric", metric.description.name.clone().into());
                set("metric_source", metric.order.identity().into());
            }
        }
        StageKind::Profile => {
            let workload = stage.workload.map(|w| &suite.workloads[w]);
            set("workload", serde_json::to_value(workload).unwrap_or_default());
            set("text", suite.calibration.text.clone().into());
        }
    }
    out
}
