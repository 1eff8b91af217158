//! Results of several people or machines beside each other: whether each is sound, and whether they can be compared at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::overall::{lines_of, overall};
use super::pairs::{Pairs, has_items, has_values, is_scored, items_of, metric_name, values_of};
use super::plan::{DENSE, model_name};
use super::result::{
    Cell, MetricRecord, RunResult, SCHEMA_VERSION, StageKind, StageResult, StageSummary, Status,
};
use super::store::{RESULT, read_run, stage_folder};
use crate::metrics::scoring::{BUILT_IN_SOURCE, ItemValue, built_in, columns};
use crate::metrics::{MetricValue, mean, of_items};
use crate::stage::{ITEMS, parse_built_in};
use crate::tasks::mmlu_category;

/// Settings of a stage that decide which questions were asked and how.
const ASKED: [&str; 6] = ["task", "task_version", "shots", "limit", "seqlen", "metric_source"];

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
    /// Reads a result directory, checks that its numbers follow from its items, and computes all that is computed from them anew.
    ///
    /// # Errors
    /// Everything that is wrong with it, one line each.
    pub fn read(root: &Path) -> Result<Entry, Vec<String>> {
        let place = root.display().to_string();
        let mut run = read_run(root).map_err(|e| vec![e.to_string()])?;
        if run.schema_version != SCHEMA_VERSION {
            return Err(vec![format!(
                "{place}: written in version {} of the result files, this program reads {SCHEMA_VERSION}",
                run.schema_version
            )]);
        }
        let mut faults = Vec::new();
        let mut stages = Vec::new();
        for summary in run.stages().filter(|stage| stage.status == Some(Status::Done)) {
            match stage(root, summary) {
                Ok(found) => stages.push((summary.directory.clone(), found)),
                Err(fault) => faults.push(format!("{place}: stage {}: {fault}", summary.label)),
            }
        }
        if faults.is_empty() {
            recompute(root, &mut run, &stages, &mut faults);
            faults.iter_mut().for_each(|fault| *fault = format!("{place}: {fault}"));
        }
        let stages = stages.into_iter().map(|(_, stage)| stage).collect();
        if faults.is_empty() { Ok(Entry { root: root.to_owned(), run, stages }) } else { Err(faults) }
    }
}

/// The result of a finished stage, once it is the one that the run names and follows from its items.
fn stage(root: &Path, summary: &StageSummary) -> Result<StageResult, String> {
    let folder = stage_folder(root, &summary.directory)
        .ok_or_else(|| format!("`{}` is no folder inside the results", summary.directory.display()))?;
    let bytes = std::fs::read(folder.join(RESULT)).map_err(|e| format!("{RESULT}: {e}"))?;
    let found: StageResult = serde_json::from_slice(&bytes).map_err(|e| format!("{RESULT}: {e}"))?;
    if found.key != summary.key {
        return Err("its content key is not the run's".to_owned());
    }
    if (found.status, found.kind, &found.task) != (Status::Done, summary.kind, &summary.task) {
        return Err("its kind, task or status is not the run's".to_owned());
    }
    if has_items(summary) {
        follows(&found, root, &summary.directory)?;
    }
    if has_values(root, summary) {
        is_mean(&found, &values_of(root, &summary.directory)?)?;
    }
    Ok(found)
}

/// Checks that a built-in metric is what the cell's items give. A component cannot be asked: its file may not be here.
fn built_in_follows(root: &Path, cell: &Cell, stage: &StageResult) -> Result<(), String> {
    let source = stage.settings.get("metric_source").and_then(Value::as_str).unwrap_or_default();
    let Some(metric) = source.strip_prefix(BUILT_IN_SOURCE).and_then(built_in) else { return Ok(()) };
    let is_like = |s: &&StageSummary| is_scored(s) && s.task == stage.task;
    let evaluated = cell.stages.iter().find(is_like).ok_or("its task was not evaluated")?;
    let items = items_of(root, &evaluated.directory)?;
    let given = metric.score(&columns(&metric.describe().fields()?, &items)?)?.value;
    match stage.metrics.as_slice() {
        [one] if same(one.metric.value, given) => Ok(()),
        stated => {
            let stated: Vec<f64> = stated.iter().map(|one| one.metric.value).collect();
            Err(format!("{} is stated as {stated:?}, but its items give {given}", metric.name))
        }
    }
}

/// Checks that a metric is the mean of its values per item, which its items then give.
fn is_mean(stage: &StageResult, values: &[ItemValue]) -> Result<(), String> {
    let [MetricRecord { metric: stated, .. }] = stage.metrics.as_slice() else {
        return Err(format!("{} metrics are stated, a score is one", stage.metrics.len()));
    };
    let values: Vec<f64> = values.iter().map(|item| item.value).collect();
    if values.len() as u64 != stage.items || stated.n != values.len() {
        return Err(format!("{} values per item, {} items", values.len(), stage.items));
    }
    match mean(&values) {
        mean if same(mean, stated.value) => Ok(()),
        mean => Err(format!("{} is stated as {}, but its items give {mean}", stated.name, stated.value)),
    }
}

/// Makes cells, comparisons and overall metrics anew from the stages; where they are not those of the run, that is a fault.
fn recompute(root: &Path, run: &mut RunResult, stages: &[(PathBuf, StageResult)], faults: &mut Vec<String>) {
    for cell in &mut run.cells {
        let stated = cell.clone();
        (cell.metrics, cell.profiles, cell.paired) = Default::default();
        (cell.checkpoint, cell.weight_bytes, cell.macs) = Default::default();
        let name = format!("{} / {}", model_name(&cell.model), cell.method);
        for summary in stated.stages.iter().filter(|summary| summary.status == Some(Status::Done)) {
            let Some((_, found)) = stages.iter().find(|(directory, _)| *directory == summary.directory)
            else {
                continue;
            };
            let method = found.method.as_ref().map_or(DENSE, |method| method.label.as_str());
            let costs = (found.wall_seconds, found.peak_memory_bytes)
                == (summary.wall_seconds, summary.peak_memory_bytes);
            if (found.model.reference.as_str(), method, found.seed) != (&cell.model, &cell.method, cell.seed)
                || !costs
            {
                faults.push(format!(
                    "{name}: stage {} is of another model, method or seed, or took otherwise",
                    summary.label
                ));
            }
            cell.absorb(&run.suite, summary.task.as_deref(), found);
            if let Err(fault) = built_in_follows(root, &stated, found) {
                faults.push(format!("{name}: stage {}: {fault}", summary.label));
            }
        }
        let has = |list: &[MetricRecord], one: &MetricRecord| {
            list.iter().any(|m| m.is_like(one) && same(m.metric.value, one.metric.value))
        };
        let strange = stated.metrics.iter().find(|m| !has(&cell.metrics, m));
        let lost = cell.metrics.iter().find(|m| !has(&stated.metrics, m));
        if let Some(metric) = strange.or(lost) {
            faults.push(format!(
                "{name}: {} of {} is not what its stages say",
                metric.metric.name, metric.task
            ));
        }
        if cell.weight_bytes != stated.weight_bytes || cell.macs != stated.macs {
            faults.push(format!("{name}: its size or its operations are not what its stages say"));
        }
    }
    let pairs = Pairs::default();
    let mut cells = std::mem::take(&mut run.cells);
    // What cannot be paired has no interval; that is no fault.
    let _ = pairs.fill(root, &mut cells);
    let overall = overall(&run.suite, &cells, &pairs);
    for one in &run.overall {
        let like = overall.iter().find(|o| {
            (o.track, &o.method, &o.backend, &o.om.name)
                == (one.track, &one.method, &one.backend, &one.om.name)
        });
        let agree = match (like.and_then(|o| o.om.value), one.om.value) {
            (Some(a), Some(b)) => same(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        if !agree {
            faults.push(format!("{} of {} is not what its cells give", one.om.name, one.method));
        }
    }
    (run.cells, run.overall) = (cells, overall);
}

/// Whether two numbers are the same but for the last bits, which another machine's library of functions may give otherwise.
fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) || (a.is_nan() && b.is_nan())
}

/// Checks that a stage's metrics are those of its items, all of them and no others.
fn follows(stage: &StageResult, root: &Path, directory: &Path) -> Result<(), String> {
    let found = items_of(root, directory)?;
    if found.len() as u64 != stage.items {
        return Err(format!("{} items in {ITEMS}, {} in {RESULT}", found.len(), stage.items));
    }
    let task = stage.task.as_deref().unwrap_or_default();
    let named = |value: MetricValue| -> Option<MetricValue> {
        Some(MetricValue { name: metric_name(task, &value.name)?, ..value })
    };
    let is_mmlu = parse_built_in(task).is_some_and(|line| line.task.spec().data.0 == "mmlu");
    let computed = of_items(&found, |subject| mmlu_category(subject).filter(|_| is_mmlu));
    let computed: Vec<MetricValue> = computed.into_iter().filter_map(named).collect();
    if computed.len() != stage.metrics.len() {
        return Err(format!("{} metrics are stated, its items give {}", stage.metrics.len(), computed.len()));
    }
    for value in &computed {
        let stated =
            stage.metrics.iter().find(|m| m.metric.name == value.name && m.metric.subset == value.subset);
        match stated {
            Some(stated) if same(stated.metric.value, value.value) => {}
            Some(stated) => {
                return Err(format!(
                    "{} is stated as {}, but its items give {}",
                    value.name, stated.metric.value, value.value
                ));
            }
            None => return Err(format!("{} is not stated, but its items give {}", value.name, value.value)),
        }
    }
    Ok(())
}

/// Why results cannot stand beside each other, one line each; empty where they can.
pub fn conflicts(entries: &[Entry]) -> Vec<String> {
    let mut faults = Vec::new();
    // What was seen first, and where.
    let mut questions: BTreeMap<String, (Value, &Path)> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        for other in &entries[..at] {
            faults.extend(other_files(entry, other));
        }
        for stage in entry.stages.iter().filter(|stage| stage.task.is_some()) {
            let Some(Value::String(task)) = stage.settings.get("task") else { continue };
            let mut asked: serde_json::Map<String, Value> = ASKED
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), stage.settings.get(*name)?.clone())))
                .collect();
            for (name, sha256) in &stage.data {
                asked.insert(format!("data {name}"), sha256.clone().into());
            }
            // Seeds choose the examples before questions.
            if stage.settings.get("shots").is_some_and(|shots| *shots != 0) {
                asked.insert("seeds".to_owned(), entry.run.suite.seeds.clone().into());
            }
            let asked = Value::Object(asked);
            let mut line = stage.task.clone().unwrap_or_default();
            if let Some(metric) = stage.settings.get("metric").and_then(Value::as_str) {
                line = format!("{line} / {metric}");
            }
            let (known, at) = questions.entry(line).or_insert_with(|| (asked.clone(), &entry.root));
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

/// The beginning of a hash, for people.
fn beginning(sha256: &str) -> String {
    format!("{}...", sha256.chars().take(12).collect::<String>())
}

/// Models of the same name whose files are not the same: of the same whole name, else of the same last part of it.
fn other_files(entry: &Entry, other: &Entry) -> Vec<String> {
    let (own, theirs) = (&entry.run.inputs.models, &other.run.inputs.models);
    let mut faults = Vec::new();
    for (name, sha256) in own {
        let short = |(known, _): &(&String, &String)| {
            model_name(known) == model_name(name) && !own.contains_key(*known)
        };
        let known = theirs.get(name).or_else(|| theirs.iter().find(short).map(|(_, sha256)| sha256));
        if let Some(known) = known.filter(|known| *known != sha256) {
            faults.push(format!(
                "model {}: other files in {} than in {} (SHA-256 {} and {})",
                model_name(name),
                entry.root.display(),
                other.root.display(),
                beginning(sha256),
                beginning(known)
            ));
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
        Some(Value::String(text)) if text.len() == 64 => beginning(text),
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

/// Takes out what cannot stand beside other results, and says so, one line each: what is relative to the methods of one run; overall metrics
/// over other models or tasks; times, memory and speeds of other machines.
pub fn trim(entries: &mut [Entry]) -> Vec<String> {
    if entries.len() < 2 {
        return Vec::new();
    }
    let mut notes = Vec::new();
    let relative = |one: &super::result::OverallMetric| one.track == RELATIVE_TRACK;
    if entries.iter().flat_map(|entry| &entry.run.overall).any(|one| relative(one) && one.om.value.is_some())
    {
        notes.push("OM_train is left out: it compares the methods of one run with each other".to_owned());
    }
    entries.iter_mut().for_each(|entry| entry.run.overall.retain(|one| !relative(one)));
    let names: BTreeSet<String> =
        entries.iter().flat_map(|entry| &entry.run.overall).map(|one| one.om.name.clone()).collect();
    for name in names {
        let over: Vec<_> = entries.iter().filter_map(|entry| over(entry, &name)).collect();
        if over.windows(2).any(|pair| pair[0] != pair[1]) {
            entries.iter_mut().for_each(|entry| entry.run.overall.retain(|one| one.om.name != name));
            notes.push(format!("{name} is left out: not all results have it over the same models and tasks"));
        }
    }
    if !same_machine(entries) {
        let machine = |entry: &Entry| {
            let m = &entry.run.machine;
            format!("{} ({}, {} cores)", entry.root.display(), m.cpu, m.cores)
        };
        let machines: Vec<String> = entries.iter().map(machine).collect();
        notes.push(format!(
            "times, memory and speeds are left out: measured on different machines: {}",
            machines.join(", ")
        ));
        entries.iter_mut().for_each(without_the_machine);
    }
    notes
}

/// The track whose overall metric compares the methods of one run with each other.
const RELATIVE_TRACK: u32 = 3;

/// What an overall metric of a result is over: models, what is missing of any method, and task lines; nothing where it has no value.
fn over(entry: &Entry, name: &str) -> Option<(BTreeSet<String>, BTreeSet<String>, Vec<String>)> {
    let own = || entry.run.overall.iter().filter(|one| one.om.name == name && one.om.value.is_some());
    let track = own().next()?.track;
    let models = entry.run.cells.iter().map(|cell| model_name(&cell.model).to_owned()).collect();
    let gaps = own().flat_map(|one| one.om.not_measured.clone()).collect();
    Some((models, gaps, lines_of(&entry.run.suite, track)))
}

fn without_the_machine(entry: &mut Entry) {
    entry.run.overall.retain(|one| !(3..=5).contains(&one.track));
    for cell in &mut entry.run.cells {
        cell.profiles.clear();
        cell.metrics.retain(|metric| metric.task.split(':').next() != Some(StageKind::Profile.name()));
        for stage in &mut cell.stages {
            (stage.wall_seconds, stage.cpu_seconds) = (0.0, 0.0);
            (stage.peak_memory_bytes, stage.gpu_peak_memory_bytes) = (0, 0);
        }
    }
}

/// Whether all were measured on one kind of machine: times, memory and speeds of others say nothing beside each other.
fn same_machine(entries: &[Entry]) -> bool {
    let machine = |entry: &Entry| {
        let m = &entry.run.machine;
        (m.cpu.clone(), m.cores, m.memory_bytes, entry.run.suite.thread_budget_on(m.cores))
    };
    entries.windows(2).all(|pair| machine(&pair[0]) == machine(&pair[1]))
}
