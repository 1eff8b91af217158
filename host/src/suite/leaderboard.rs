//! Results of several people or machines beside each other: whether each is sound, and whether they can be compared at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::pairs::{is_scored, items};
use super::plan::model_name;
use super::result::{MetricRecord, RunResult, SCHEMA_VERSION, StageResult, Status};
use super::store::{RESULT, read_run};
use crate::metrics::{MetricValue, of_items};
use crate::stage::{ITEMS, parse_task};
use crate::tasks::mmlu_category;

/// Settings of a stage that decide which questions were asked and how.
const ASKED: [&str; 5] = ["task", "task_version", "shots", "limit", "seqlen"];

/// A result directory with what its stages say.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The directory.
    pub root: PathBuf,
    /// Its run.
    pub run: RunResult,
    /// The results of its finished stages.
    pub stages: Vec<StageResult>,
}

impl Entry {
    /// Reads a result directory and checks that its numbers follow from its items.
    ///
    /// # Errors
    /// Everything that is wrong with it, one line each.
    pub fn read(root: &Path) -> Result<Entry, Vec<String>> {
        let place = root.display().to_string();
        let run = read_run(root).map_err(|e| vec![e.to_string()])?;
        if run.schema_version != SCHEMA_VERSION {
            return Err(vec![format!(
                "{place}: written in version {} of the result files, this program reads {SCHEMA_VERSION}",
                run.schema_version
            )]);
        }
        let mut faults = Vec::new();
        let mut stages = Vec::new();
        for summary in run.stages().filter(|stage| stage.status == Some(Status::Done)) {
            let folder = root.join(&summary.directory);
            let read = || -> Result<StageResult, String> {
                let bytes = std::fs::read(folder.join(RESULT)).map_err(|e| e.to_string())?;
                serde_json::from_slice(&bytes).map_err(|e| e.to_string())
            };
            let stage = match read() {
                Ok(stage) => stage,
                Err(e) => {
                    faults.push(format!("{place}: stage {}: {RESULT}: {e}", summary.label));
                    continue;
                }
            };
            if stage.key != summary.key {
                faults.push(format!("{place}: stage {}: its content key is not the run's", summary.label));
            }
            if is_scored(summary)
                && let Err(fault) = follows(&stage, &folder)
            {
                faults.push(format!("{place}: stage {}: {fault}", summary.label));
            }
            stages.push(stage);
        }
        faults.extend(unlike(&run, &stages).into_iter().map(|fault| format!("{place}: {fault}")));
        if faults.is_empty() { Ok(Entry { root: root.to_owned(), run, stages }) } else { Err(faults) }
    }
}

/// Whether two numbers are the same but for the last bits, which another machine's library of functions may give otherwise.
fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) || (a.is_nan() && b.is_nan())
}

/// Checks that a stage's metrics are those of its items.
fn follows(stage: &StageResult, folder: &Path) -> Result<(), String> {
    let found = items(&folder.join(ITEMS))?;
    if found.len() as u64 != stage.items {
        return Err(format!("{} items in {ITEMS}, {} in {RESULT}", found.len(), stage.items));
    }
    let task = stage.task.as_deref().unwrap_or_default();
    let names = |value: &MetricValue| match parse_task(task, None, 0, 0) {
        Ok(parsed) => parsed.task.spec().metric_name(&value.name).map(str::to_owned),
        Err(_) => Some(value.name.clone()),
    };
    let computed = of_items(&found, mmlu_category);
    for value in &computed {
        let Some(name) = names(value) else { continue };
        let stated = stage.metrics.iter().find(|m| m.metric.name == name && m.metric.subset == value.subset);
        match stated {
            Some(stated) if same(stated.metric.value, value.value) => {}
            Some(stated) => {
                return Err(format!(
                    "{name} is stated as {}, but its items give {}",
                    stated.metric.value, value.value
                ));
            }
            None => return Err(format!("{name} is not stated, but its items give {}", value.value)),
        }
    }
    Ok(())
}

/// Metrics of the run that are not its stages'.
fn unlike(run: &RunResult, stages: &[StageResult]) -> Vec<String> {
    let mut faults = Vec::new();
    for cell in &run.cells {
        let keys: Vec<&str> = cell.stages.iter().map(|stage| stage.key.as_str()).collect();
        let own: Vec<&MetricRecord> = stages
            .iter()
            .filter(|stage| keys.contains(&stage.key.as_str()))
            .flat_map(|stage| &stage.metrics)
            .collect();
        for metric in &cell.metrics {
            let like = own.iter().any(|m| {
                (&m.metric.name, &m.metric.subset) == (&metric.metric.name, &metric.metric.subset)
                    && same(m.metric.value, metric.metric.value)
            });
            if !like {
                faults.push(format!(
                    "{} / {}: {} of {} is no result of its stages",
                    model_name(&cell.model),
                    cell.method,
                    metric.metric.name,
                    metric.task
                ));
            }
        }
    }
    faults
}

/// Why results cannot stand beside each other, one line each; empty where they can.
pub fn conflicts(entries: &[Entry]) -> Vec<String> {
    let mut faults = Vec::new();
    // What was seen first, and where.
    let mut questions: BTreeMap<(String, String), (Value, &Path)> = BTreeMap::new();
    let mut models: BTreeMap<String, (String, &Path)> = BTreeMap::new();
    for entry in entries {
        for (name, sha256) in &entry.run.inputs.models {
            let (known, at) =
                models.entry(model_name(name).to_owned()).or_insert_with(|| (sha256.clone(), &entry.root));
            if known != sha256 {
                faults.push(format!(
                    "model {}: other files in {} than in {} (SHA-256 {}... and {}...)",
                    model_name(name),
                    entry.root.display(),
                    at.display(),
                    &sha256[..sha256.len().min(12)],
                    &known[..known.len().min(12)]
                ));
            }
        }
        for stage in entry.stages.iter().filter(|stage| stage.task.is_some()) {
            let Some(Value::String(task)) = stage.settings.get("task") else { continue };
            let mut asked: serde_json::Map<String, Value> = ASKED
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), stage.settings.get(*name)?.clone())))
                .collect();
            if asked.get("shots").is_some_and(|shots| *shots != 0) {
                asked.insert("seed".to_owned(), stage.seed.into());
            }
            for (name, sha256) in &stage.data {
                asked.insert(format!("data {name}"), sha256.clone().into());
            }
            let asked = Value::Object(asked);
            // A run may ask the same task in several ways; each way is one task line.
            let line = stage.task.clone().unwrap_or_default();
            let base = if entries.len() > 1 { line } else { String::new() };
            let (known, at) =
                questions.entry((task.clone(), base)).or_insert_with(|| (asked.clone(), &entry.root));
            if *known != asked && *at != entry.root {
                let fault = format!(
                    "task {task}: not the same questions in {} as in {}: {}",
                    entry.root.display(),
                    at.display(),
                    differences(known, &asked)
                );
                if !faults.contains(&fault) {
                    faults.push(fault);
                }
            }
        }
    }
    faults
}

fn differences(one: &Value, other: &Value) -> String {
    let empty = serde_json::Map::new();
    let (one, other) = (one.as_object().unwrap_or(&empty), other.as_object().unwrap_or(&empty));
    let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    let text = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) if text.len() == 64 => format!("{}...", &text[..12]),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let lines: Vec<String> = names
        .into_iter()
        .filter(|name| one.get(*name) != other.get(*name))
        .map(|name| format!("{name} {} there, {} here", text(one.get(name)), text(other.get(name))))
        .collect();
    lines.join("; ")
}

/// Whether all were measured on one kind of machine: times, memory and speeds of others say nothing beside each other.
pub fn same_machine(entries: &[Entry]) -> bool {
    let machine = |entry: &Entry| {
        let m = &entry.run.machine;
        (m.cpu.clone(), m.cores, m.memory_bytes, entry.run.suite.thread_budget_on(m.cores))
    };
    entries.windows(2).all(|pair| machine(&pair[0]) == machine(&pair[1]))
}
