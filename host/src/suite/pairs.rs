//! Comparisons of compressed models with the dense one, item by item.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cells::dense_of;
use super::plan::DENSE;
use super::result::{Cell, PairedRecord, StageKind, StageSummary, Status};
use super::store::stage_folder;
use crate::metrics::scoring::ItemValue;
use crate::metrics::{Compared, Paired, draws_of_medians, paired, paired_values};
use crate::stage::{ITEMS, VALUES, parse_built_in, read_all};
use crate::tasks::ItemResult;

/// What was compared already: files of items are large, and results are written after every stage.
#[derive(Default)]
pub(super) struct Pairs {
    items: RefCell<HashMap<[PathBuf; 2], Result<Vec<Compared>, String>>>,
    medians: RefCell<HashMap<u64, Arc<[[f64; 2]]>>>,
}

impl Pairs {
    /// Compares every cell with the dense one on its backend. `root` is the result directory. What cannot be compared is told, one line each.
    pub(super) fn fill(&self, root: &Path, cells: &mut [Cell]) -> Vec<String> {
        let mut problems = Vec::new();
        let dense: Vec<Cell> = cells.iter().filter(|cell| cell.method == DENSE).cloned().collect();
        for cell in cells.iter_mut().filter(|cell| cell.method != DENSE) {
            let Some(dense) = dense_of(&dense, cell) else { continue };
            let mut found = Vec::new();
            for stage in cell.stages.iter().filter(|stage| is_scored(stage)) {
                let like = dense.stages.iter().find(|other| is_scored(other) && other.task == stage.task);
                let (Some(like), Some(task)) = (like, &stage.task) else { continue };
                match self.compare(root, [&like.directory, &stage.directory]) {
                    Ok(all) => found.extend(
                        all.into_iter()
                            .filter_map(|compared| named(task, compared))
                            .map(|compared| PairedRecord { task: task.clone(), paired: compared.paired }),
                    ),
                    Err(problem) => {
                        problems.push(format!("{}: not compared with dense: {problem}", stage.label))
                    }
                }
            }
            for stage in cell.stages.iter().filter(|stage| has_values(root, stage)) {
                let is_like = |other: &&StageSummary| {
                    has_values(root, other) && (&other.task, &other.metric) == (&stage.task, &stage.metric)
                };
                let (Some(like), Some(task)) = (dense.stages.iter().find(is_like), &stage.task) else {
                    continue;
                };
                match compare_values([root; 2], [like, stage]) {
                    Ok(paired) => found.push(PairedRecord { task: task.clone(), paired }),
                    Err(problem) => {
                        problems.push(format!("{}: not compared with dense: {problem}", stage.label))
                    }
                }
            }
            cell.paired = found;
        }
        problems
    }

    /// A task's metric of the dense and of another cell over items drawn anew; nothing where they were not compared.
    pub(super) fn draws(&self, dense: &Cell, other: &Cell, task: &str, metric: &str) -> Arc<[[f64; 2]]> {
        let stage = |cell: &Cell| {
            let mut scored = cell.stages.iter().filter(|stage| is_scored(stage));
            scored.find(|stage| stage.task.as_deref() == Some(task)).map(|stage| stage.directory.clone())
        };
        let (Some(dense), Some(other)) = (stage(dense), stage(other)) else { return Arc::default() };
        match self.items.borrow().get(&[dense, other]) {
            Some(Ok(all)) => {
                let mut named = all.iter().cloned().filter_map(|compared| named(task, compared));
                named
                    .find(|compared| compared.paired.metric == metric)
                    .map(|compared| compared.draws)
                    .unwrap_or_default()
            }
            _ => Arc::default(),
        }
    }

    /// As [`draws_of_medians`], each pair of series once.
    pub(super) fn medians(&self, dense: &[Vec<f64>], other: &[Vec<f64>], stream: &str) -> Arc<[[f64; 2]]> {
        let mut hasher = DefaultHasher::new();
        let bits = |series: &[Vec<f64>]| -> Vec<Vec<u64>> {
            series.iter().map(|times| times.iter().map(|t| t.to_bits()).collect()).collect()
        };
        (bits(dense), bits(other), stream).hash(&mut hasher);
        let mut known = self.medians.borrow_mut();
        known.entry(hasher.finish()).or_insert_with(|| draws_of_medians(dense, other, stream)).clone()
    }

    fn compare(&self, root: &Path, directories: [&PathBuf; 2]) -> Result<Vec<Compared>, String> {
        let key = directories.map(PathBuf::clone);
        if let Some(known) = self.items.borrow().get(&key) {
            return known.clone();
        }
        let [dense, compressed] = directories.map(|directory| items_of(root, directory));
        let found = dense.and_then(|dense| paired(&dense, &compressed?));
        self.items.borrow_mut().insert(key, found.clone());
        found
    }
}

/// Whether a stage has results item by item.
pub(super) fn has_items(stage: &StageSummary) -> bool {
    is_scored(stage) || (stage.kind == StageKind::Diverge && stage.status == Some(Status::Done))
}

pub(super) fn is_scored(stage: &StageSummary) -> bool {
    stage.kind == StageKind::Evaluate && stage.status == Some(Status::Done)
}

/// Whether a stage has a metric's values per item.
pub(super) fn has_values(root: &Path, stage: &StageSummary) -> bool {
    let done = stage.kind == StageKind::Score && stage.status == Some(Status::Done);
    done && stage_folder(root, &stage.directory).is_some_and(|folder| folder.join(VALUES).is_file())
}

/// Two stages of one metric on one task, each in its own results, item by item.
pub(super) fn compare_values(roots: [&Path; 2], stages: [&StageSummary; 2]) -> Result<Paired, String> {
    let [one, other] = [0, 1].map(|at| values_of(roots[at], &stages[at].directory));
    paired_values(stages[0].metric.as_deref().unwrap_or_default(), &one?, &other?)
}

/// A metric's values per item.
pub(super) fn values_of(root: &Path, directory: &Path) -> Result<Vec<ItemValue>, String> {
    read_all(&folder_of(root, directory)?.join(VALUES))
}

/// The comparison under the name that the task gives the metric; none where it does not show it.
pub(super) fn named(task: &str, mut compared: Compared) -> Option<Compared> {
    compared.paired.metric = metric_name(task, &compared.paired.metric)?;
    Some(compared)
}

/// What a task of a result calls a metric of its kind; none where it does not show it. Results may be somebody else's: of a task in a file, whose
/// metrics have the names of their kinds, the file is not read.
pub(super) fn metric_name(task: &str, kind: &str) -> Option<String> {
    match parse_built_in(task) {
        Some(parsed) => parsed.task.spec().metric_name(kind).map(str::to_owned),
        None => Some(kind.to_owned()),
    }
}

/// The items of a stage.
pub(super) fn items_of(root: &Path, directory: &Path) -> Result<Vec<ItemResult>, String> {
    read_all(&folder_of(root, directory)?.join(ITEMS))
}

fn folder_of(root: &Path, directory: &Path) -> Result<PathBuf, String> {
    stage_folder(root, directory)
        .ok_or_else(|| format!("`{}` is no folder inside the results", directory.display()))
}
