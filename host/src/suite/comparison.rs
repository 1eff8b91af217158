//! Two runs against each other: what differs in their settings, and in their results on the same items.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::pairs::{is_scored, items_of, named};
use super::plan::model_name;
use super::result::{Cell, MetricRecord, RunResult, StageSummary};
use super::store::{StoreError, read_run};
use crate::metrics::{Paired, paired, real};

/// A setting that is not the same; absent where a run does not have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Its place: `suite.seed`, `machine.cpu`.
    pub name: String,
    /// In the first run.
    pub first: Option<Value>,
    /// In the second.
    pub second: Option<Value>,
}

/// A metric of a cell in both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Model, method and backend.
    pub cell: [String; 3],
    /// The task.
    pub task: String,
    /// The metric.
    pub metric: String,
    /// In the first run.
    #[serde(with = "real")]
    pub first: f64,
    /// In the second.
    #[serde(with = "real")]
    pub second: f64,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// The second against the first on the same items, where that could be done.
    pub paired: Option<Paired>,
}

impl Difference {
    /// Whether the two numbers differ as their items do: else one of them is not what its items say.
    pub fn follows(&self, paired: &Paired) -> bool {
        let stated = if self.metric == "perplexity" {
            (self.second / self.first).ln()
        } else {
            self.second - self.first
        };
        (stated - paired.difference).abs() <= 1e-6
    }

    /// Whether it is a speed, which is never the same twice.
    pub fn is_speed(&self) -> bool {
        self.task.split(':').next() == Some(super::StageKind::Profile.name())
    }
}

/// Two runs against each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Settings that differ.
    pub settings: Vec<Setting>,
    /// Metrics that both have.
    pub differences: Vec<Difference>,
    /// What only one of them has, or could not be compared, one line each.
    pub notes: Vec<String>,
}

/// Every value of a JSON document by its place.
fn flatten(place: &str, value: &Value, out: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                flatten(&format!("{place}.{name}"), value, out);
            }
        }
        // Lists of plain values read better whole.
        Value::Array(values) if values.iter().any(Value::is_object) => {
            for (at, value) in values.iter().enumerate() {
                let label = value["label"].as_str().map_or_else(|| at.to_string(), str::to_owned);
                flatten(&format!("{place}.{label}"), value, out);
            }
        }
        other => {
            out.insert(place.to_owned(), other.clone());
        }
    }
}

fn settings(run: &RunResult) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let json = |value: serde_json::Result<Value>| value.unwrap_or(Value::Null);
    flatten("suite", &json(serde_json::to_value(&run.suite)), &mut all);
    flatten("inputs", &json(serde_json::to_value(&run.inputs)), &mut all);
    flatten("machine", &json(serde_json::to_value(&run.machine)), &mut all);
    all.insert("host_version".to_owned(), Value::from(run.host_version.as_str()));
    all.insert("abi_version".to_owned(), Value::from(run.abi_version.as_str()));
    // Where a plugin's file lay, and where results went, is not what was run.
    all.retain(|place, _| !place.ends_with(".path") && place != "suite.out");
    all
}

/// A cell by what it is: model, method, backend.
fn name(cell: &Cell) -> [String; 3] {
    [model_name(&cell.model).to_owned(), cell.method.clone(), cell.backend.clone()]
}

/// The cell of another run that is to be compared with cell `at`: the same model (by its whole name, else by the last part of it), method and
/// backend, and among those with several seeds the one in the same place.
fn like<'a>(cells: &[Cell], at: usize, others: &'a [Cell]) -> Option<&'a Cell> {
    let cell = &cells[at];
    let whole = |other: &Cell| {
        (&other.model, &other.method, &other.backend) == (&cell.model, &cell.method, &cell.backend)
    };
    let short = |other: &Cell| name(other) == name(cell);
    if others.iter().any(whole) {
        let place = cells[..at].iter().filter(|c| whole(c)).count();
        others.iter().filter(|c| whole(c)).nth(place)
    } else {
        let place = cells[..at].iter().filter(|c| short(c)).count();
        others.iter().filter(|c| short(c)).nth(place)
    }
}

/// A cell as notes and tables name it.
fn shown(run: &RunResult, cell: &Cell) -> [String; 3] {
    let [model, mut method, backend] = name(cell);
    if run.suite.seeds.len() > 1 {
        method.push_str(&format!(" seed {}", cell.seed));
    }
    [model, method, backend]
}

/// Compares the runs in two result directories.
///
/// # Errors
/// Where one of them holds no run.
pub fn compare(first: &Path, second: &Path) -> Result<Comparison, StoreError> {
    let runs = [read_run(first)?, read_run(second)?];
    let [before, after] = [settings(&runs[0]), settings(&runs[1])];
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let settings = names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| Setting {
            name: name.clone(),
            first: before.get(name).cloned(),
            second: after.get(name).cloned(),
        })
        .collect();
    let mut out = Comparison { settings, differences: Vec::new(), notes: Vec::new() };
    for (one, other, which) in [(0, 1, "first"), (1, 0, "second")] {
        for (at, cell) in runs[one].cells.iter().enumerate() {
            match like(&runs[one].cells, at, &runs[other].cells) {
                None => {
                    out.notes.push(format!("only in the {which}: {}", shown(&runs[one], cell).join(" / ")))
                }
                Some(like) => {
                    let lacks = |m: &&MetricRecord| !like.metrics.iter().any(|other| same_metric(m, other));
                    out.notes.extend(cell.metrics.iter().filter(lacks).map(|m| {
                        let subset =
                            m.metric.subset.as_deref().map(|s| format!(" of {s}")).unwrap_or_default();
                        let cell = shown(&runs[one], cell).join(" / ");
                        format!("only in the {which}: {cell} / {} / {}{subset}", m.task, m.metric.name)
                    }));
                }
            }
        }
    }
    for (at, cell) in runs[0].cells.iter().enumerate() {
        if let Some(like) = like(&runs[0].cells, at, &runs[1].cells) {
            cells([first, second], [cell, like], shown(&runs[0], cell), &mut out);
        }
    }
    Ok(out)
}

fn same_metric(one: &MetricRecord, other: &MetricRecord) -> bool {
    (&one.task, &one.metric.name, &one.metric.subset)
        == (&other.task, &other.metric.name, &other.metric.subset)
}

/// Compares one model with one method on one backend.
fn cells(roots: [&Path; 2], [one, other]: [&Cell; 2], name: [String; 3], out: &mut Comparison) {
    let stage = |cell: &'_ Cell, task: &str| -> Option<StageSummary> {
        cell.stages.iter().find(|s| is_scored(s) && s.task.as_deref() == Some(task)).cloned()
    };
    let mut compared: BTreeMap<String, Vec<Paired>> = BTreeMap::new();
    for metric in one.metrics.iter().filter(|m| m.metric.subset.is_none()) {
        // What only one has is told already.
        let Some(like) = other.metrics.iter().find(|m| same_metric(m, metric)) else { continue };
        let task = &metric.task;
        if !compared.contains_key(task) {
            let mut all = Vec::new();
            if let (Some(a), Some(b)) = (stage(one, task), stage(other, task)) {
                let read = |root: &Path, stage: &StageSummary| items_of(root, &stage.directory);
                let found = read(roots[0], &a).and_then(|a| paired(&a, &read(roots[1], &b)?));
                match found {
                    Ok(found) => {
                        all.extend(found.into_iter().filter_map(|c| named(task, c)).map(|c| c.paired))
                    }
                    Err(problem) => {
                        out.notes.push(format!("{} / {task}: not item by item: {problem}", name.join(" / ")));
                    }
                }
            }
            compared.insert(task.clone(), all);
        }
        let paired = compared[task].iter().find(|p| p.metric == metric.metric.name).cloned();
        out.differences.push(Difference {
            cell: name.clone(),
            task: task.clone(),
            metric: metric.metric.name.clone(),
            first: metric.metric.value,
            second: like.metric.value,
            higher_is_better: metric.metric.higher_is_better,
            paired,
        });
    }
}
