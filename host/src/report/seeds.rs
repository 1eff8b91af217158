//! Several seeds as one row: means, with errors over items and seeds.

use crate::metrics::{MetricValue, mean, sample_variance};
use crate::suite::result::{Cell, MetricRecord, PairedRecord, RunResult, StageKind, StageSummary, Status};
use crate::tracks::Macs;

/// The cells of a run, those that differ in their seed alone taken together: of each metric, time and size the mean over the seeds that have it.
/// The error of such a mean takes in the items, which are the same with every seed, and the choice of seeds:
/// `sqrt(mean of the squared standard errors + variance over k seeds / k)`. A metric is told apart from the dense model's where it is with every
/// seed.
pub fn together(run: &RunResult) -> Vec<Cell> {
    groups(run).iter().map(|group| merged(group)).collect()
}

fn groups(run: &RunResult) -> Vec<Vec<&Cell>> {
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
    groups
}

fn merged(group: &[&Cell]) -> Cell {
    let mut out = group[0].clone();
    if group.len() == 1 {
        return out;
    }
    let average = |value: &dyn Fn(&Cell) -> f64| {
        let values: Vec<f64> = group.iter().map(|cell| value(cell)).filter(|value| *value > 0.0).collect();
        if values.is_empty() { 0.0 } else { mean(&values) }
    };
    let known = |list: &[MetricRecord], one: &MetricRecord| list.iter().any(|m| m.is_like(one));
    out.metrics.clear();
    for record in group.iter().flat_map(|cell| &cell.metrics) {
        if !known(&out.metrics, record) {
            out.metrics.push(of_seeds(group, record));
        }
    }
    out.paired.clear();
    for record in group.iter().flat_map(|cell| &cell.paired) {
        let same = |p: &&PairedRecord| (&p.task, &p.paired.metric) == (&record.task, &record.paired.metric);
        if !out.paired.iter().any(|p| same(&p)) {
            let mut record = record.clone();
            record.paired.told_apart =
                group.iter().filter_map(|cell| cell.paired.iter().find(same)).all(|p| p.paired.told_apart);
            out.paired.push(record);
        }
    }
    for (at, stage) in out.stages.iter_mut().enumerate() {
        // The stages of a cell are planned in the same order with every seed.
        let all: Vec<&StageSummary> = group.iter().filter_map(|cell| cell.stages.get(at)).collect();
        // A seed that failed is not hidden behind one that did well.
        if let Some(worse) = all.iter().find(|s| s.status != Some(Status::Done)) {
            *stage = (*worse).clone();
        } else if stage.kind == StageKind::Compress {
            stage.wall_seconds = mean(&all.iter().map(|s| s.wall_seconds).collect::<Vec<_>>());
        }
        stage.gpu_peak_memory_bytes = all.iter().map(|s| s.gpu_peak_memory_bytes).max().unwrap_or_default();
        stage.peak_memory_bytes = all.iter().map(|s| s.peak_memory_bytes).max().unwrap_or_default();
    }
    out.weight_bytes = average(&|cell| cell.weight_bytes as f64) as u64;
    out.macs = group
        .iter()
        .find_map(|cell| cell.macs)
        .map(|macs| Macs { counted: average(&|cell| cell.macs.map_or(0.0, |macs| macs.counted)), ..macs });
    out
}

fn of_seeds(group: &[&Cell], record: &MetricRecord) -> MetricRecord {
    let all: Vec<&MetricValue> = group
        .iter()
        .filter_map(|cell| cell.metrics.iter().find(|m| m.is_like(record)))
        .map(|m| &m.metric)
        .collect();
    let mut record = record.clone();
    if all.len() < 2 {
        return record;
    }
    let values: Vec<f64> = all.iter().map(|m| m.value).collect();
    let squares: Vec<f64> = all.iter().filter_map(|m| m.stderr).map(|e| e * e).collect();
    let of_items = if squares.is_empty() { 0.0 } else { mean(&squares) };
    record.metric.value = mean(&values);
    let variance = sample_variance(&values);
    record.metric.stderr = variance.map(|of_seeds| (of_items + of_seeds / values.len() as f64).sqrt());
    record
}

/// What rows of several seeds lack, one line each: means over fewer seeds than there are pass for means over all otherwise.
pub fn gaps(run: &RunResult) -> Vec<String> {
    let mut lines = Vec::new();
    for group in groups(run).iter().filter(|group| group.len() > 1) {
        for cell in group {
            for stage in cell.stages.iter().filter(|s| s.status != Some(Status::Done)) {
                let word = stage.status.map_or("not reached", Status::name);
                let reason = stage.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                lines.push(format!("not in its mean: {}: {word}{reason}", stage.label));
            }
        }
    }
    lines
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
        // 0.5 over items, and a variance of 0.5 over 2 seeds.
        assert!((perplexity.stderr.unwrap() - 0.5_f64.sqrt()).abs() < 1e-12);
        assert!((cells[1].stages[0].wall_seconds - 63.4).abs() < 1e-9);
        assert_eq!(cells[0], run.cells[0]);
    }

    #[test]
    fn a_seed_that_failed_is_seen() {
        let mut run = crate::report::table::tests::sample();
        let mut again = run.cells[1].clone();
        again.seed = 8;
        again.metrics.clear();
        again.stages[1].status = Some(Status::Failed);
        again.stages[1].reason = Some("the stars were wrong".into());
        for at in [1, 2] {
            let mut run = run.clone();
            run.cells.insert(at, again.clone());
            let cells = together(&run);
            assert_eq!(
                cells[1].metrics[0].metric,
                run.cells[3 - at].metrics[0].metric,
                "the one that there is"
            );
            assert_eq!(cells[1].stages[1].status, Some(Status::Failed));
            assert!(gaps(&run)[0].contains("the stars were wrong"));
        }
        run.cells.insert(1, again);
        assert_eq!(gaps(&run).len(), 1);
    }
}
