//! Comparisons of compressed models with the dense one, item by item.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::plan::DENSE;
use super::result::{Cell, PairedRecord, StageKind, StageSummary, Status};
use crate::metrics::{Paired, paired};
use crate::stage::{ITEMS, parse_task};
use crate::tasks::ItemResult;

/// What was compared already: files of items are large, and results are written after every stage.
#[derive(Default)]
pub(super) struct Pairs(RefCell<HashMap<[PathBuf; 2], Result<Vec<Paired>, String>>>);

impl Pairs {
    /// Compares every cell with the dense one on its backend. `root` is the result directory. What cannot be compared is told, one line each.
    pub(super) fn fill(&self, root: &Path, cells: &mut [Cell]) -> Vec<String> {
        let mut problems = Vec::new();
        let dense: Vec<Cell> = cells.iter().filter(|cell| cell.method == DENSE).cloned().collect();
        for cell in cells.iter_mut().filter(|cell| cell.method != DENSE) {
            let same = |other: &&Cell| other.model == cell.model && other.backend == cell.backend;
            let Some(dense) = dense.iter().find(same) else { continue };
            let mut found = Vec::new();
            for stage in cell.stages.iter().filter(|stage| is_scored(stage)) {
                let like = dense.stages.iter().find(|other| is_scored(other) && other.task == stage.task);
                let (Some(like), Some(task)) = (like, &stage.task) else { continue };
                match self.compare(root, [&like.directory, &stage.directory]) {
                    Ok(all) => found.extend(
                        all.into_iter()
                            .filter_map(|paired| named(task, paired))
                            .map(|paired| PairedRecord { task: task.clone(), paired }),
                    ),
                    Err(problem) => {
                        problems.push(format!("{}: not compared with dense: {problem}", stage.label))
                    }
                }
            }
            cell.paired = found;
        }
        problems
    }

    fn compare(&self, root: &Path, directories: [&PathBuf; 2]) -> Result<Vec<Paired>, String> {
        let key = directories.map(PathBuf::clone);
        if let Some(known) = self.0.borrow().get(&key) {
            return known.clone();
        }
        let [dense, compressed] = directories.map(|directory| items(&root.join(directory).join(ITEMS)));
        let found = dense.and_then(|dense| paired(&dense, &compressed?));
        self.0.borrow_mut().insert(key, found.clone());
        found
    }
}

pub(super) fn is_scored(stage: &StageSummary) -> bool {
    stage.kind == StageKind::Evaluate && stage.status == Some(Status::Done)
}

/// The comparison under the name that the task gives the metric; none where it does not show it.
pub(super) fn named(task: &str, mut paired: Paired) -> Option<Paired> {
    // A task file may be gone since; its metrics have the names of their kinds.
    if let Ok(parsed) = parse_task(task, None, 0, 0) {
        paired.metric = parsed.task.spec().metric_name(&paired.metric)?.to_owned();
    }
    Some(paired)
}

/// The items of a task's result file.
pub(super) fn items(file: &Path) -> Result<Vec<ItemResult>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let line = |(at, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| format!("{}, line {}: {e}", file.display(), at + 1))
    };
    text.split('\n').enumerate().filter(|(_, line)| !line.is_empty()).map(line).collect()
}
