//! Overall metrics of a run: each method against the dense model, over all tasks and models.

use super::plan::DENSE;
use super::result::{Cell, OverallMetric};
use super::spec::Suite;
use crate::stage::parse_task;
use crate::tasks::{LLMCBENCH, Preset};
use crate::tracks;

/// The value of a task's metric in a cell.
fn value(cell: &Cell, task: &str, metric: &str) -> Option<f64> {
    cell.metrics
        .iter()
        .find(|m| m.task == task && m.metric.name == metric && m.metric.subset.is_none())
        .map(|m| m.metric.value)
}

/// Overall metrics of track 1 for every method and backend for which both sides were measured; and what went wrong, one line each.
pub(super) fn overall(suite: &Suite, cells: &[Cell]) -> (Vec<OverallMetric>, Vec<String>) {
    let Some(track) = tracks::track(1) else { return Default::default() };
    // Tasks that fill a column of the track: whole ones only, and the first of each column.
    let mut columns: Vec<(&str, &'static str, &'static str)> = Vec::new();
    for line in &suite.tasks {
        if let Ok(parsed) = parse_task(line, None, 0, suite.seed)
            && parsed.task.subject.is_none()
            && parsed.task.path.is_none()
            && parsed.options.preset == Preset::default()
            && let Some((column, metric)) =
                tracks::track1_column(parsed.task.spec().id.trim_end_matches(LLMCBENCH))
            && !columns.iter().any(|(_, taken, _)| *taken == column)
        {
            columns.push((line, column, metric));
        }
    }
    let (mut out, mut problems) = (Vec::new(), Vec::new());
    for method in &suite.methods {
        for backend in &suite.backends {
            let find = |model: &str, label: &str| {
                cells.iter().find(|c| c.model == model && c.method == label && c.backend == backend.label)
            };
            let mut numbers = Vec::new();
            for model in &suite.models {
                let (Some(dense), Some(compressed)) = (find(model, DENSE), find(model, &method.label)) else {
                    continue;
                };
                for (line, column, metric) in &columns {
                    numbers.push(tracks::Cell {
                        column: (*column).to_owned(),
                        model: model.clone(),
                        dense: value(dense, line, metric),
                        compressed: value(compressed, line, metric),
                    });
                }
            }
            if !numbers.iter().any(|n| n.dense.is_some() && n.compressed.is_some()) {
                continue;
            }
            match tracks::overall(track, &numbers) {
                Ok(oms) => out.extend(oms.into_iter().map(|om| OverallMetric {
                    track: u32::from(track.number),
                    method: method.label.clone(),
                    backend: backend.label.clone(),
                    om,
                })),
                Err(error) => problems.push(format!("no overall metric for {}: {error}", method.label)),
            }
        }
    }
    (out, problems)
}
