//! Two runs against each other: what differs in their settings, and in their results on the same items.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::pairs::{compare_values, has_items, has_values, items_of, named};
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

/// Which cell of the second run is to be compared with each of the first: of the same model (by its whole name; where the other run has no such
/// model, by the last part of it), method and backend, and of the same seed, else of the one in the same place among those left.
fn matched(first: &[Cell], second: &[Cell]) -> Vec<Option<usize>> {
    let way = |a: &Cell, b: &Cell| a.method == b.method && a.backend == b.backend;
    let whole = |a: &Cell, b: &Cell| way(a, b) && a.model == b.model;
    let has = |cells: &[Cell], model: &str| cells.iter().any(|cell| cell.model == model);
    let short = |a: &Cell, b: &Cell| {
        let strangers = !has(second, &a.model) && !has(first, &b.model);
        way(a, b) && strangers && model_name(&a.model) == model_name(&b.model)
    };
    let rules: [&dyn Fn(&Cell, &Cell) -> bool; 4] = [
        &|a, b| whole(a, b) && a.seed == b.seed,
        &|a, b| short(a, b) && a.seed == b.seed,
        &|a, b| whole(a, b),
        &|a, b| short(a, b),
    ];
    let mut found: Vec<Option<usize>> = vec![None; first.len()];
    for rule in rules {
        for (at, cell) in first.iter().enumerate() {
            if found[at].is_none() {
                found[at] = (0..second.len())
                    .find(|other| !found.contains(&Some(*other)) && rule(cell, &second[*other]));
            }
        }
    }
    found
}

/// A cell as notes and tables name it.
fn shown(run: &RunResult, cell: &Cell) -> [String; 3] {
    let (model, mut method, backend) =
        (model_name(&cell.model).to_owned(), cell.method.clone(), cell.backend.clone());
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
    let matched = matched(&runs[0].cells, &runs[1].cells);
    let only = |which: &str, run: &RunResult, cell: &Cell, metric: Option<&MetricRecord>| {
        let of = |m: &MetricRecord| {
            let subset = m.metric.subset.as_deref().map(|s| format!(" of {s}")).unwrap_or_default();
            format!(" / {} / {}{subset}", m.task, m.metric.name)
        };
        format!("only in the {which}: {}{}", shown(run, cell).join(" / "), metric.map(of).unwrap_or_default())
    };
    let lacks = |cell: &Cell, m: &MetricRecord| !cell.metrics.iter().any(|other| m.is_like(other));
    for (cell, other) in runs[0].cells.iter().zip(&matched) {
        let Some(other) = other.map(|at| &runs[1].cells[at]) else {
            out.notes.push(only("first", &runs[0], cell, None));
            continue;
        };
        for (which, run, cell, other) in [("first", &runs[0], cell, other), ("second", &runs[1], other, cell)]
        {
            let missing = cell.metrics.iter().filter(|m| lacks(other, m));
            out.notes.extend(missing.map(|m| only(which, run, cell, Some(m))));
        }
        cells([first, second], [cell, other], shown(&runs[0], cell), &mut out);
    }
    for (at, cell) in runs[1].cells.iter().enumerate() {
        if !matched.contains(&Some(at)) {
            out.notes.push(only("second", &runs[1], cell, None));
        }
    }
    Ok(out)
}

/// Compares one model with one method on one backend.
fn cells(roots: [&Path; 2], [one, other]: [&Cell; 2], name: [String; 3], out: &mut Comparison) {
    let stages = |cell: &Cell, task: &str| -> Vec<StageSummary> {
        cell.stages.iter().filter(|s| has_items(s) && s.task.as_deref() == Some(task)).cloned().collect()
    };
    let mut compared: BTreeMap<String, Vec<Paired>> = BTreeMap::new();
    for metric in one.metrics.iter().filter(|m| m.metric.subset.is_none()) {
        // What only one has is told already.
        let Some(like) = other.metrics.iter().find(|m| m.is_like(metric)) else { continue };
        let task = &metric.task;
        if !compared.contains_key(task) {
            let mut all = Vec::new();
            let others = stages(other, task);
            for a in stages(one, task) {
                let Some(b) = others.iter().find(|b| b.kind == a.kind) else { continue };
                let read = |root: &Path, stage: &StageSummary| items_of(root, &stage.directory);
                let found = read(roots[0], &a).and_then(|a| paired(&a, &read(roots[1], b)?));
                match found {
                    Ok(found) => {
                        all.extend(found.into_iter().filter_map(|c| named(task, c)).map(|c| c.paired))
                    }
                    Err(problem) => {
                        out.notes.push(format!("{} / {task}: not item by item: {problem}", name.join(" / ")));
                    }
                }
            }
            for a in one.stages.iter().filter(|s| s.task.as_ref() == Some(task) && has_values(roots[0], s)) {
                let like = |b: &&StageSummary| {
                    (&b.task, &b.metric) == (&a.task, &a.metric) && has_values(roots[1], b)
                };
                let Some(b) = other.stages.iter().find(like) else { continue };
                match compare_values(roots, [a, b]) {
                    Ok(found) => all.push(found),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(list: &[(&str, u64)]) -> Vec<Cell> {
        let sample = crate::report::table::tests::sample().cells.remove(0);
        list.iter()
            .map(|(model, seed)| Cell { model: (*model).to_owned(), seed: *seed, ..sample.clone() })
            .collect()
    }

    #[test]
    fn cells_are_matched_by_whole_name_and_seed_before_anything_else() {
        for (first, second, expected) in [
            (&[("a/x", 1), ("a/x", 2)][..], &[("a/x", 2), ("a/x", 1)][..], &[Some(1), Some(0)][..]),
            (&[("a/x", 1), ("a/x", 2), ("a/x", 3)], &[("a/x", 2), ("a/x", 3)], &[None, Some(0), Some(1)]),
            (&[("a/x", 1), ("b/x", 1)], &[("b/x", 1)], &[None, Some(0)]),
            (&[("/here/x", 1)], &[("/there/x", 1)], &[Some(0)]),
            (&[("a/x", 7)], &[("a/x", 8)], &[Some(0)]),
            (&[("a/x", 7)], &[("a/y", 7)], &[None]),
        ] {
            assert_eq!(matched(&cells(first), &cells(second)), expected, "{first:?} {second:?}");
        }
    }
}
