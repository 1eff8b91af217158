//! Several seeds as one row: means, with errors over items and seeds.

use crate::metrics::{mean, sample_variance};
use crate::suite::result::{Cell, MetricRecord, RunResult, StageKind};

/// The cells of a run, those that differ in their seed alone taken together: of each metric, time and size the mean; of standard errors the
/// root of their mean square and the variance over seeds, since items are the same with every seed and seeds are drawn anew. A metric is told
/// apart from the dense model's where it is with every seed.
pub fn together(run: &RunResult) -> Vec<Cell> {
    let mut groups: Vec<Vec<&Cell>> = Vec::new();
    for cell in &run.cells {
        let same = |group: &&mut Vec<&Cell>| {
            let first = group[0];
            (&first.model, &first.method, &first.backend) == (&cell.model, &cell.method, &cell.backend)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(cell),
            None => groups.push(vec![cell]),
        }
    }
    groups.iter().map(|group| merged(group)).collect()
}

fn merged(group: &[&Cell]) -> Cell {
    let mut out = group[0].clone();
    if group.len() == 1 {
        return out;
    }
    let average =
        |value: &dyn Fn(&Cell) -> f64| mean(&group.iter().map(|cell| value(cell)).collect::<Vec<_>>());
    for record in &mut out.metrics {
        let same = |m: &&MetricRecord| {
            (&m.task, &m.metric.name, &m.metric.subset)
                == (&record.task, &record.metric.name, &record.metric.subset)
        };
        let all: Vec<&MetricRecord> =
            group.iter().filter_map(|cell| cell.metrics.iter().find(same)).collect();
        let values: Vec<f64> = all.iter().map(|m| m.metric.value).collect();
        let squares: Vec<f64> = all.iter().filter_map(|m| m.metric.stderr).map(|e| e * e).collect();
        let of_items = if squares.is_empty() { 0.0 } else { mean(&squares) };
        record.metric.value = mean(&values);
        record.metric.stderr = sample_variance(&values).map(|of_seeds| (of_items + of_seeds).sqrt());
    }
    for record in &mut out.paired {
        let same = |cell: &&&Cell| {
            let mut all = cell.paired.iter();
            all.any(|p| {
                p.task == record.task && p.paired.metric == record.paired.metric && p.paired.told_apart
            })
        };
        record.paired.told_apart = group.iter().filter(same).count() == group.len();
    }
    for stage in &mut out.stages {
        // A seed that failed is not hidden behind one that did well.
        let like = |cell: &Cell| {
            cell.stages.iter().find(|s| (s.kind, &s.task) == (stage.kind, &stage.task)).cloned()
        };
        let all: Vec<_> = group.iter().filter_map(|cell| like(cell)).collect();
        if let Some(worse) = all.iter().find(|s| s.status != stage.status) {
            *stage = worse.clone();
        } else if stage.kind == StageKind::Compress {
            stage.wall_seconds = mean(&all.iter().map(|s| s.wall_seconds).collect::<Vec<_>>());
        }
        stage.peak_memory_bytes = all.iter().map(|s| s.peak_memory_bytes).max().unwrap_or_default();
    }
    out.weight_bytes = average(&|cell| cell.weight_bytes as f64) as u64;
    out
}

/// Seeds of each row, where a run has several.
pub fn count(run: &RunResult) -> Option<usize> {
    (run.suite.seeds.len() > 1).then_some(run.suite.seeds.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_averaged_and_their_spread_adds_to_the_error() {
        let mut run = crate::report::table::tests::sample();
        let mut again = run.cells[1].clone();
        again.seed = 8;
        again.metrics[0].metric.value = 22.5;
        again.stages[0].wall_seconds = 64.4;
        run.cells.insert(2, again);
        let cells = together(&run);
        assert_eq!(cells.len(), run.cells.len() - 1);
        let perplexity = &cells[1].metrics[0].metric;
        assert_eq!(perplexity.value, 22.0);
        // 0.5 over items, and a variance of 0.5 over seeds.
        assert!((perplexity.stderr.unwrap() - 0.75_f64.sqrt()).abs() < 1e-12);
        assert!((cells[1].stages[0].wall_seconds - 63.4).abs() < 1e-9);
        assert_eq!(cells[0], run.cells[0]);
    }
}
