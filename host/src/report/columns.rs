//! The columns of a run's table, and what each cell has in them.

use super::notes::Footnotes;
use super::numbers::{bytes, operations, score_and_error, seconds};
use crate::metrics::{MetricValue, Paired};
use crate::stage::parse_built_in;
use crate::suite::dense_of;
use crate::suite::plan::{DENSE, model_name};
use crate::suite::result::{Cell, RunResult, StageKind, StageSummary, Status};
use crate::tracks::{Om, PREFILL_TOKENS, TRACKS, TRAINING, Track};

/// Combined standard errors within which two numbers are not told apart.
pub(super) const NOISE: f64 = 2.0;
/// Mark of what is not told apart from the dense model.
pub const SAME: char = '~';
/// Mark of what is better than the dense model.
pub const BETTER: char = '+';
/// Mark of what is worse than the dense model.
pub const WORSE: char = '−';
/// The metric by which distributions are compared.
const DIVERGENCE: &str = "kl_divergence";

/// A column.
pub(super) enum Column {
    /// A metric of a task.
    Score { task: String, shown: String, metric: String, higher_is_better: bool },
    /// An overall metric.
    Overall { track: u32, name: String },
    /// A rate.
    Speed { task: String, metric: String, unit: String },
    /// Bytes of the weight files.
    Size,
    /// Operations.
    Macs,
    /// Time of compressing.
    CompressTime,
    /// Memory of compressing.
    CompressMemory,
    /// Memory of evaluating.
    EvaluateMemory,
    /// Memory of evaluating on GPUs.
    EvaluateGpuMemory,
}

/// The last part of a path, or the name itself.
pub(super) fn short_name(model: &str) -> String {
    model_name(model).to_owned()
}

/// Name of a task without options; of one in a file, that of the file.
fn task_name(task: &str) -> String {
    short_name(task).trim_end_matches(".toml").to_owned()
}

/// The metric of a built-in task that the table shows. A task in a file has its own first among its metrics.
pub(super) fn headline(task: &str) -> Option<String> {
    parse_built_in(task).map(|line| line.task.spec().headline.to_owned())
}

/// The columns of a run's table.
pub(super) fn columns(run: &RunResult) -> Vec<Column> {
    let mut columns = Vec::new();
    let mut scored: Vec<String> = run.suite.tasks.clone();
    for stage in run.cells.iter().flat_map(|c| &c.stages) {
        if let Some(task) = stage.task.as_ref().filter(|t| !scored.contains(t)) {
            scored.push(task.clone());
        }
    }
    // A task's options are in the notes, unless they are what tells two columns apart.
    let base = |task: &str| match task.split_once(':') {
        Some((name, _)) if name != "text" => task_name(name),
        _ => task_name(task),
    };
    for task in scored.clone() {
        let alone = scored.iter().filter(|other| base(other) == base(&task)).count() == 1;
        let shown = if alone { base(&task) } else { short_name(&task) };
        let measured: Vec<&MetricValue> = run
            .cells
            .iter()
            .flat_map(|c| &c.metrics)
            .filter(|m| m.task == task && m.metric.subset.is_none())
            .map(|m| &m.metric)
            .collect();
        let name = headline(&task)
            .or_else(|| measured.first().map(|m| m.name.clone()))
            .unwrap_or_else(|| "score".to_owned());
        let higher_is_better =
            measured.iter().find(|m| m.name == name).map_or(name != "perplexity", |m| m.higher_is_better);
        // What was asked for is shown, measured or not.
        let mut asked: Vec<(String, bool)> = Vec::new();
        for stage in run.cells.iter().flat_map(|c| &c.stages).filter(|s| s.task.as_ref() == Some(&task)) {
            if let Some(name) =
                stage.metric.as_ref().filter(|name| asked.iter().all(|(other, _)| other != *name))
            {
                let known = measured.iter().find(|m| m.name == *name);
                asked.push((name.clone(), known.is_none_or(|m| m.higher_is_better)));
            }
        }
        // Beside perplexity, how far the whole distribution has moved.
        let divergence = measured.iter().any(|m| m.name == DIVERGENCE);
        columns.push(Column::Score {
            task: task.clone(),
            shown: shown.clone(),
            metric: name,
            higher_is_better,
        });
        if divergence {
            asked.insert(0, (DIVERGENCE.to_owned(), false));
        }
        for (metric, higher_is_better) in asked {
            columns.push(Column::Score {
                task: task.clone(),
                shown: shown.clone(),
                metric,
                higher_is_better,
            });
        }
    }
    columns.extend(overall_names(run).into_iter().map(|(track, name)| Column::Overall { track, name }));
    let speeds = run
        .cells
        .iter()
        .flat_map(|c| &c.metrics)
        .filter(|m| is_profile(&m.task) && m.metric.higher_is_better);
    for speed in speeds {
        let MetricValue { name, unit, .. } = &speed.metric;
        let known = |c: &Column| matches!(c, Column::Speed { task, metric, .. } if *task == speed.task && metric == name);
        if !columns.iter().any(known) {
            columns.push(Column::Speed {
                task: speed.task.clone(),
                metric: name.clone(),
                unit: unit.clone(),
            });
        }
    }
    // Where nothing could be timed, its cells say why.
    let is_timed = run.cells.iter().flat_map(|c| &c.stages).any(|s| s.kind == StageKind::Profile);
    if is_timed && !columns.iter().any(|c| matches!(c, Column::Speed { .. })) {
        columns.push(Column::Speed {
            task: StageKind::Profile.name().to_owned(),
            metric: "decode_rate".to_owned(),
            unit: "tokens/s".to_owned(),
        });
    }
    // A finished stage without a time was measured on another machine.
    let stages = |kind: StageKind| {
        let mut all = run.cells.iter().flat_map(|c| &c.stages);
        all.any(|s| s.kind == kind && (s.status != Some(Status::Done) || s.wall_seconds > 0.0))
    };
    columns.push(Column::Size);
    if run.cells.iter().any(|cell| cell.macs.is_some()) {
        columns.push(Column::Macs);
    }
    if stages(StageKind::Compress) {
        columns.push(Column::CompressTime);
        columns.push(Column::CompressMemory);
    }
    if stages(StageKind::Evaluate) {
        columns.push(Column::EvaluateMemory);
        if run.cells.iter().flat_map(|c| &c.stages).any(|s| s.gpu_peak_memory_bytes > 0) {
            columns.push(Column::EvaluateGpuMemory);
        }
    }
    columns
}

/// Whether a metric's task is measured speed.
fn is_profile(task: &str) -> bool {
    task.split(':').next() == Some(StageKind::Profile.name())
}

/// The overall metrics of each track that say most: that of all its parts where all were measured, else of those that were.
fn overall_names(run: &RunResult) -> Vec<(u32, String)> {
    let measured = |track: &Track, name: &str| {
        let own = |o: &&crate::suite::result::OverallMetric| {
            o.track == u32::from(track.number) && o.om.name == name
        };
        run.overall.iter().filter(own).any(|o| o.om.value.is_some())
    };
    let mut all: Vec<&Track> = TRACKS.iter().chain([&TRAINING]).collect();
    all.sort_by_key(|track| track.number);
    let mut names = Vec::new();
    for track in all {
        let combined = track.combined.filter(|name| measured(track, name));
        let parts = track.oms.iter().copied().filter(|name| combined.is_none() && measured(track, name));
        names
            .extend(combined.into_iter().chain(parts).map(|name| (u32::from(track.number), name.to_owned())));
    }
    names
}

fn overall<'a>(run: &'a RunResult, cell: &Cell, name: &str) -> Option<&'a Om> {
    let own = |o: &&crate::suite::result::OverallMetric| {
        o.om.name == name && o.method == cell.method && o.backend == cell.backend
    };
    run.overall.iter().find(own).map(|o| &o.om)
}

pub(super) fn stage_of<'a>(cell: &'a Cell, kind: StageKind, task: Option<&str>) -> Option<&'a StageSummary> {
    cell.stages.iter().find(|s| s.kind == kind && (task.is_none() || s.task.as_deref() == task))
}

pub(super) fn metric<'a>(cell: &'a Cell, task: &str, name: &str) -> Option<&'a MetricValue> {
    cell.metrics
        .iter()
        .find(|m| m.task == task && m.metric.name == name && m.metric.subset.is_none())
        .map(|m| &m.metric)
}

/// Why a cell has no number: the stage's own end, or that of the compression before it.
fn absent(cell: &Cell, stage: Option<&StageSummary>, notes: &mut Footnotes) -> String {
    let compress =
        stage_of(cell, StageKind::Compress, None).filter(|s| s.status.is_some_and(|s| s != Status::Done));
    let Some(stage) = compress.or(stage) else { return "-".into() };
    match stage.status {
        None => "…".into(),
        Some(Status::Done) => "-".into(),
        Some(status) => {
            let word = status.name();
            match &stage.reason {
                Some(reason) => format!("{word} {}", notes.mark(format!("{}: {reason}", stage.label))),
                None => word.into(),
            }
        }
    }
}

/// The metric against the dense model's on the same items.
fn paired_of<'a>(cell: &'a Cell, task: &str, name: &str) -> Option<&'a Paired> {
    cell.paired.iter().find(|p| p.task == task && p.paired.metric == name).map(|p| &p.paired)
}

/// Whether two numbers lie within each other's noise; nothing where that is not known.
fn indistinct(one: &MetricValue, other: &MetricValue) -> Option<bool> {
    let noise = NOISE * one.stderr?.hypot(other.stderr?);
    Some((one.value - other.value).abs() < noise)
}

impl Column {
    /// By what rows are ranked, more being better; nothing where the column does not rank or the cell has no number.
    pub(super) fn rank(&self, run: &RunResult, cell: &Cell) -> Option<f64> {
        match self {
            Column::Overall { .. } if cell.method == DENSE => Some(100.0),
            Column::Overall { name, .. } => overall(run, cell, name)?.value,
            Column::Score { task, metric: name, .. }
                if run.overall.iter().all(|one| one.om.value.is_none()) =>
            {
                let value = metric(cell, task, name)?;
                Some(if value.higher_is_better { value.value } else { -value.value })
            }
            _ => None,
        }
    }

    /// Its title, in lines.
    pub(super) fn title(&self) -> String {
        match self {
            Column::Score { shown, metric, higher_is_better, .. } => {
                format!("{shown}\n{metric} {}", if *higher_is_better { "↑" } else { "↓" })
            }
            Column::Overall { track, name } => format!("{name} ↑\ntrack {track}"),
            Column::Speed { task, metric, unit } => {
                let what = metric.strip_suffix("_rate").unwrap_or(metric);
                match task.split_once(':') {
                    Some((_, workload)) => format!("{what}\n{workload}\n{unit} ↑"),
                    None => format!("{what}\n{unit} ↑"),
                }
            }
            Column::Macs => format!("MACs ↓\n{PREFILL_TOKENS} tokens"),
            Column::Size => "weights\non disk ↓".into(),
            Column::CompressTime => "compress\ntime ↓".into(),
            Column::CompressMemory => "compress\nmemory ↓".into(),
            Column::EvaluateMemory => "evaluate\nmemory ↓".into(),
            Column::EvaluateGpuMemory => "evaluate\nGPU memory ↓".into(),
        }
    }

    /// What a cell has in it.
    pub(super) fn text(&self, run: &RunResult, cell: &Cell, notes: &mut Footnotes) -> String {
        match self {
            Column::Score { task, metric: name, .. } => {
                let kind = if name == DIVERGENCE { StageKind::Diverge } else { StageKind::Evaluate };
                let scores =
                    |s: &&StageSummary| s.task.as_ref() == Some(task) && s.metric.as_ref() == Some(name);
                let stage = cell.stages.iter().find(scores).or_else(|| stage_of(cell, kind, Some(task)));
                let Some(value) = metric(cell, task, name) else { return absent(cell, stage, notes) };
                let text = score_and_error(value.value, value.stderr);
                let dense = dense_of(&run.cells, cell)
                    .filter(|_| cell.method != DENSE)
                    .and_then(|d| metric(d, task, name));
                // Item by item where that was done: it sees what two errors side by side do not.
                let told_apart = paired_of(cell, task, name)
                    .map(|paired| paired.told_apart)
                    .or_else(|| indistinct(value, dense?).map(|same| !same));
                let better = dense.map(|dense| (value.value > dense.value) == value.higher_is_better);
                match (told_apart, better) {
                    (Some(false), _) => format!("{text} {SAME}"),
                    (Some(true), Some(true)) => format!("{text} {BETTER}"),
                    (Some(true), Some(false)) => format!("{text} {WORSE}"),
                    // Room for the mark, so that numbers stand under each other.
                    _ if run.cells.iter().any(|c| c.method != DENSE) => format!("{text}  "),
                    _ => text,
                }
            }
            Column::Overall { track, name } => {
                if cell.method == DENSE {
                    return if *track == 3 { "-" } else { "100" }.into();
                }
                let Some(om) = overall(run, cell, name) else { return "-".into() };
                let Some(value) = om.value else { return "-".into() };
                let interval =
                    om.interval.map_or_else(String::new, |i| format!(" [{:.0}, {:.0}]", i.low, i.high));
                let mark = if om.not_measured.is_empty() { "" } else { " *" };
                format!("{value:.1}{interval}{mark}")
            }
            Column::Speed { task, metric: name, .. } => match metric(cell, task, name) {
                Some(value) => score_and_error(value.value, value.stderr),
                None => absent(cell, stage_of(cell, StageKind::Profile, None), notes),
            },
            Column::Macs => cell.macs.map_or_else(|| "-".into(), |macs| operations(macs.counted)),
            Column::Size => match cell.weight_bytes {
                0 => "-".into(),
                n => bytes(n),
            },
            Column::CompressTime | Column::CompressMemory => {
                match stage_of(cell, StageKind::Compress, None) {
                    Some(stage) if stage.status == Some(Status::Done) => match self {
                        Column::CompressTime => seconds(stage.wall_seconds),
                        _ => bytes(stage.peak_memory_bytes),
                    },
                    Some(stage) => absent(cell, Some(stage), notes),
                    None => "-".into(),
                }
            }
            Column::EvaluateMemory | Column::EvaluateGpuMemory => {
                let of = |s: &StageSummary| match self {
                    Column::EvaluateMemory => s.peak_memory_bytes,
                    _ => s.gpu_peak_memory_bytes,
                };
                let done =
                    |s: &&StageSummary| s.kind == StageKind::Evaluate && s.status == Some(Status::Done);
                match cell.stages.iter().filter(done).map(of).max() {
                    None | Some(0) => "-".into(),
                    Some(peak) => bytes(peak),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_told_from_difference() {
        let value = |value, stderr| MetricValue {
            name: "acc".into(),
            subset: None,
            value,
            stderr,
            n: 100,
            higher_is_better: true,
            unit: String::new(),
        };
        for (a, b, expected) in [
            (value(0.5, Some(0.05)), value(0.6, Some(0.05)), Some(true)),
            (value(0.5, Some(0.03)), value(0.6, Some(0.03)), Some(false)),
            (value(0.5, None), value(0.6, Some(0.03)), None),
            (value(f64::INFINITY, Some(1.0)), value(20.0, Some(1.0)), Some(false)),
        ] {
            assert_eq!(indistinct(&a, &b), expected);
        }
    }
}
