//! Overall metrics of a run: each method over all models, seeds and tasks, track by track.

use std::sync::Arc;

use super::cells::dense_of;
use super::pairs::Pairs;
use super::plan::{DENSE, model_name};
use super::result::{Cell, OverallMetric, ProfileRecord, StageKind, StageSummary, Status};
use super::spec::Suite;
use crate::stage::parse_built_in;
use crate::tasks::Preset;
use crate::tracks::{self, Reference, TRACKS, TRAINING, Track};

/// The value of a task's metric in a cell.
fn value(cell: &Cell, task: &str, metric: &str) -> Option<f64> {
    cell.metrics
        .iter()
        .find(|m| m.task == task && m.metric.name == metric && m.metric.subset.is_none())
        .map(|m| m.metric.value)
}

fn done(cell: &Cell, kind: StageKind) -> impl Iterator<Item = &StageSummary> {
    cell.stages.iter().filter(move |stage| stage.kind == kind && stage.status == Some(Status::Done))
}

/// What costs are called in the tracks' tables, and what they are; nothing where they were not measured.
fn cost(cell: &Cell, column: &str) -> Option<f64> {
    let measured = |value: f64| (value > 0.0).then_some(value);
    match column {
        "compress_time_s" => {
            done(cell, StageKind::Compress).next().and_then(|stage| measured(stage.wall_seconds))
        }
        "compress_memory_g" => {
            done(cell, StageKind::Compress).next().and_then(|stage| measured(stage.memory_bytes() as f64))
        }
        "gpu_memory_g" => {
            // Memory of running: of a stage of its own kind, since loading for other work may take more.
            let peak = |kind| done(cell, kind).map(|stage| stage.memory_bytes()).max();
            measured(peak(StageKind::Evaluate).or(peak(StageKind::Profile))? as f64)
        }
        "model_size_g" => measured(cell.weight_bytes as f64),
        "macs_t" => cell.macs.and_then(|macs| measured(macs.counted)),
        _ => None,
    }
}

/// The track of speeds, whose numbers are by workload.
const HARDWARE: u8 = 5;

/// A task of the suite that fills a column of a track.
struct Filled {
    column: &'static str,
    task: String,
    metric: &'static str,
}

/// The tasks that fill a track's columns: no single subjects, no texts or presets of the user's own, and of each column the first line that the
/// suite has.
fn filled(suite: &Suite, track: &'static Track) -> Vec<Filled> {
    let mut out: Vec<Filled> = Vec::new();
    for line in &suite.tasks {
        let Some(parsed) = parse_built_in(line) else { continue };
        let whole = parsed.task.subject.is_none() && parsed.task.path.is_none();
        if !whole || parsed.options.preset != Preset::default() {
            continue;
        }
        for column in track.columns {
            let measures = column.tasks.iter().find(|(id, _)| *id == parsed.task.spec().id);
            if let Some((_, metric)) = measures
                && !out.iter().any(|known| known.column == column.name)
            {
                out.push(Filled { column: column.name, task: line.clone(), metric });
            }
        }
    }
    out
}

/// The task lines that fill the columns of an overall metric's track.
pub(super) fn lines_of(suite: &Suite, track: u32) -> Vec<String> {
    let track = TRACKS.iter().find(|known| u32::from(known.number) == track);
    track.map(|track| filled(suite, track).into_iter().map(|one| one.task).collect()).unwrap_or_default()
}

/// Task lines that would fill a column which an earlier line of the suite fills already: each with that line.
pub(crate) fn passed_over(suite: &Suite) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for track in TRACKS {
        let taken = filled(suite, track);
        for line in suite.tasks.iter().filter(|line| !taken.iter().any(|one| one.task == **line)) {
            let alone = Suite { tasks: vec![line.clone()], ..suite.clone() };
            let column = filled(&alone, track).into_iter().next().map(|one| one.column);
            let instead = taken.iter().find(|one| Some(one.column) == column);
            let pair = instead.map(|one| (line.clone(), one.task.clone()));
            out.extend(pair.filter(|pair| !out.contains(pair)));
        }
    }
    out
}

/// All cells of a run with one method on one backend.
struct Row<'a> {
    suite: &'a Suite,
    all: &'a [Cell],
    own: Vec<&'a Cell>,
    pairs: &'a Pairs,
}

impl Row<'_> {
    fn name(&self, cell: &Cell) -> String {
        let model = model_name(&cell.model);
        match self.suite.seeds.len() {
            1 => model.to_owned(),
            _ => format!("{model}, seed {}", cell.seed),
        }
    }

    fn numbers(&self, track: &'static Track) -> Vec<tracks::Cell> {
        let mut out = Vec::new();
        let filled = filled(self.suite, track);
        for cell in &self.own {
            let dense = dense_of(self.all, cell);
            for one in &filled {
                out.push(tracks::Cell {
                    column: one.column.to_owned(),
                    model: self.name(cell),
                    dense: dense.and_then(|dense| value(dense, &one.task, one.metric)),
                    compressed: value(cell, &one.task, one.metric),
                    resamples: dense.map_or_else(Arc::default, |dense| {
                        self.pairs.draws(dense, cell, &one.task, one.metric)
                    }),
                });
            }
            for column in track.columns.iter().filter(|column| column.tasks.is_empty()) {
                let reference = match track.reference {
                    Reference::Dense => dense.and_then(|dense| cost(dense, column.name)),
                    Reference::Cheapest => self.cheapest(cell, column.name),
                };
                let own = cost(cell, column.name);
                if track.number != HARDWARE {
                    out.push(tracks::Cell {
                        column: column.name.to_owned(),
                        model: self.name(cell),
                        dense: reference,
                        compressed: own,
                        resamples: Arc::default(),
                    });
                }
            }
            if track.number == HARDWARE {
                out.extend(self.speeds(track, dense, cell));
            }
        }
        out
    }

    /// The least that any method took for the same model with the same seed.
    fn cheapest(&self, cell: &Cell, column: &str) -> Option<f64> {
        let same = |other: &&Cell| {
            (&other.model, other.seed, &other.backend) == (&cell.model, cell.seed, &cell.backend)
        };
        self.all.iter().filter(same).filter_map(|other| cost(other, column)).min_by(f64::total_cmp)
    }

    /// Rates, workload by workload.
    fn speeds(&self, track: &'static Track, dense: Option<&Cell>, cell: &Cell) -> Vec<tracks::Cell> {
        let mut out = Vec::new();
        let workloads = if self.suite.profile { self.suite.workloads.as_slice() } else { &[] };
        for workload in workloads {
            let same = |p: &&ProfileRecord| {
                (p.batch, p.prompt_tokens, p.new_tokens)
                    == (workload.batch, workload.prompt_tokens, workload.new_tokens)
            };
            let of = |cell: &Cell, column: &str| {
                cell.profiles.iter().find(same).and_then(|p| Speed::of(p, column))
            };
            for column in track.columns {
                let (reference, own) =
                    (dense.and_then(|dense| of(dense, column.name)), of(cell, column.name));
                let stream = format!("{workload} {}", column.name);
                let drawn = reference.as_ref().zip(own.as_ref()).map_or_else(Arc::default, |(a, b)| {
                    let medians = self.pairs.medians(&a.repetitions, &b.repetitions, &stream);
                    medians.iter().map(|[x, y]| [a.tokens / x, b.tokens / y]).collect()
                });
                out.push(tracks::Cell {
                    column: column.name.to_owned(),
                    model: format!("{} ({workload})", self.name(cell)),
                    dense: reference.map(|speed| speed.rate),
                    compressed: own.map(|speed| speed.rate),
                    resamples: drawn,
                });
            }
        }
        out
    }
}

/// A rate with the times that it comes from.
struct Speed {
    rate: f64,
    tokens: f64,
    repetitions: Vec<Vec<f64>>,
}

impl Speed {
    fn of(profile: &ProfileRecord, column: &str) -> Option<Speed> {
        let timings = &profile.raw.timings;
        let (rate, tokens, repetitions) = match column {
            "prefill_tokens_per_s" => (
                profile.prefill_tokens_per_second,
                profile.batch * profile.prompt_tokens,
                timings.iter().map(|t| vec![t.prefill_seconds]).collect(),
            ),
            "decode_tokens_per_s" => (
                profile.decode_tokens_per_second,
                profile.batch,
                timings.iter().map(|t| t.decode_seconds.clone()).collect(),
            ),
            _ => return None,
        };
        (rate > 0.0).then_some(Speed { rate, tokens: tokens as f64, repetitions })
    }
}

/// Overall metrics of every track for every method and backend.
pub(super) fn overall(suite: &Suite, cells: &[Cell], pairs: &Pairs) -> Vec<OverallMetric> {
    let mut out = Vec::new();
    let mut all_tracks: Vec<&'static Track> = TRACKS.iter().chain([&TRAINING]).collect();
    all_tracks.sort_by_key(|track| track.number);
    let mut rows: Vec<(&str, &str)> = Vec::new();
    for cell in cells.iter().filter(|cell| cell.method != DENSE) {
        let row = (cell.method.as_str(), cell.backend.as_str());
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    for (method, backend) in rows {
        let own: Vec<&Cell> = cells.iter().filter(|c| c.method == method && c.backend == backend).collect();
        let models: std::collections::BTreeSet<&str> = own.iter().map(|cell| cell.model.as_str()).collect();
        let row = Row { suite, all: cells, own, pairs };
        for track in &all_tracks {
            // One model says nothing of how a method carries over to others.
            let alone = track.number == 2 && models.len() < 2;
            let numbers = if alone { Vec::new() } else { row.numbers(track) };
            out.extend(tracks::overall_of_run(track, &numbers).into_iter().map(|mut om| {
                if alone {
                    om.not_measured = vec!["a second model".to_owned()];
                }
                OverallMetric {
                    track: track.number.into(),
                    method: method.to_owned(),
                    backend: backend.to_owned(),
                    om,
                }
            }));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_task_of_a_column_counts_and_others_are_told() {
        let of = |tasks: &[&str]| {
            let suite =
                Suite { tasks: tasks.iter().map(|task| (*task).to_owned()).collect(), ..Suite::default() };
            passed_over(&suite)
        };
        assert!(of(&["arc_easy", "mmlu", "wikitext2", "truthfulqa_mc1", "truthfulqa_mc2"]).is_empty());
        let pair = |line: &str, instead: &str| (line.to_owned(), instead.to_owned());
        assert_eq!(of(&["mmlu", "mmlu@llmcbench"]), [pair("mmlu@llmcbench", "mmlu")]);
        assert_eq!(of(&["arc_easy:shots=5", "piqa", "arc_easy"]), [pair("arc_easy", "arc_easy:shots=5")]);
        assert_eq!(of(&["wikitext2", "wikitext2:seqlen=64"]), [pair("wikitext2:seqlen=64", "wikitext2")]);
    }
}
