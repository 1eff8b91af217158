//! The table in which a run ends.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::numbers::{bytes, count, score_and_error, seconds};
use super::text_table::TextTable;
use crate::metrics::{MetricValue, Paired};
use crate::suite::plan::{DENSE, model_name};
use crate::suite::result::{Cell, OverallMetric, RunResult, StageKind, StageSummary, Status};
use crate::suite::spec::PluginUse;
use crate::tasks;

/// Combined standard errors within which two numbers are not told apart.
const NOISE: f64 = 2.0;

/// The run as a table of at most `width` columns of text where that is possible, with notes below.
pub fn render(run: &RunResult, facts: &Facts, width: usize) -> String {
    let mut notes = Footnotes::default();
    let columns = columns(run);
    let several = |name: fn(&Cell) -> &str| run.cells.iter().any(|cell| name(cell) != name(&run.cells[0]));
    let (models, backends) = (several(|c| &c.model), several(|c| &c.backend));

    let mut header = Vec::new();
    if models {
        header.push("model".to_owned());
    }
    header.push("method".to_owned());
    if backends {
        header.push("backend".to_owned());
    }
    let keys = header.len();
    header.extend(columns.iter().map(Column::title));

    let mut rows = Vec::new();
    for cell in &run.cells {
        let mut row = Vec::new();
        if models {
            row.push(short_name(&cell.model));
        }
        row.push(shown(&run.suite.methods, &cell.method));
        if backends {
            row.push(shown(&run.suite.backends, &cell.backend));
        }
        row.extend(columns.iter().map(|column| column.text(run, cell, &mut notes)));
        rows.push(row);
    }

    let mut text = TextTable { header, rows, keys }.render(width);
    for line in note_lines(run, facts, &columns, notes) {
        text.push_str(&wrapped(&line, width));
    }
    text
}

/// A label as people write what it stands for.
fn shown(uses: &[PluginUse], label: &str) -> String {
    uses.iter().find(|one| one.label == label).map_or_else(|| label.to_owned(), PluginUse::shown)
}

/// The last part of a path, or the name itself.
fn short_name(model: &str) -> String {
    model_name(model).to_owned()
}

/// Name of a task without options; of one in a file, that of the file.
fn task_name(task: &str) -> String {
    short_name(task).trim_end_matches(".toml").to_owned()
}

/// Lines of at most `width` characters; what is continued is indented.
fn wrapped(line: &str, width: usize) -> String {
    let width = width.max(20);
    let mut text = String::new();
    let mut used = 0;
    for word in line.split(' ') {
        let n = word.chars().count();
        if used > 0 && used + 1 + n > width {
            text.push_str("\n  ");
            used = 2;
        } else if used > 0 {
            text.push(' ');
            used += 1;
        }
        text.push_str(word);
        used += n;
    }
    text.push('\n');
    text
}

#[derive(Default)]
struct Footnotes(Vec<String>);

impl Footnotes {
    /// The mark of a note; the same note has the same mark.
    fn mark(&mut self, note: String) -> String {
        let at = self.0.iter().position(|other| *other == note).unwrap_or_else(|| {
            self.0.push(note);
            self.0.len() - 1
        });
        format!("[{}]", at + 1)
    }
}

enum Column {
    Score { task: String, shown: String, metric: String, higher_is_better: bool },
    Overall { name: String },
    Speed { metric: String, unit: String },
    Size,
    CompressTime,
    CompressMemory,
    EvaluateMemory,
}

/// The metric of a task that the table shows, where the task is known.
fn headline(task: &str) -> Option<String> {
    let name = task.split(':').next().unwrap_or(task);
    let name = if name == "text" { "text:file" } else { name };
    tasks::lookup(name).ok().map(|task| task.spec().headline.to_owned())
}

fn columns(run: &RunResult) -> Vec<Column> {
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
        columns.push(Column::Score { task, shown, metric: name, higher_is_better });
    }
    if let Some(name) = overall_name(run) {
        columns.push(Column::Overall { name });
    }
    let speeds = run
        .cells
        .iter()
        .flat_map(|c| &c.metrics)
        .filter(|m| m.task == "profile" && m.metric.higher_is_better);
    for speed in speeds {
        let MetricValue { name, unit, .. } = &speed.metric;
        if !columns.iter().any(|c| matches!(c, Column::Speed { metric, .. } if metric == name)) {
            columns.push(Column::Speed { metric: name.clone(), unit: unit.clone() });
        }
    }
    let stages = |kind: StageKind| run.cells.iter().flat_map(|c| &c.stages).any(|s| s.kind == kind);
    columns.push(Column::Size);
    if stages(StageKind::Compress) {
        columns.push(Column::CompressTime);
        columns.push(Column::CompressMemory);
    }
    if stages(StageKind::Evaluate) {
        columns.push(Column::EvaluateMemory);
    }
    columns
}

/// The overall metric of track 1 that says most: of all parts where all were measured, else of those that were.
fn overall_name(run: &RunResult) -> Option<String> {
    let of_track = || run.overall.iter().filter(|o| o.track == 1);
    for name in ["OM_perf", "OM_ka", "OM_ia"] {
        if of_track().any(|o| o.om.name == name && o.om.value.is_some()) {
            return Some(name.to_owned());
        }
    }
    None
}

fn stage_of<'a>(cell: &'a Cell, kind: StageKind, task: Option<&str>) -> Option<&'a StageSummary> {
    cell.stages.iter().find(|s| s.kind == kind && (task.is_none() || s.task.as_deref() == task))
}

fn metric<'a>(cell: &'a Cell, task: &str, name: &str) -> Option<&'a MetricValue> {
    cell.metrics
        .iter()
        .find(|m| m.task == task && m.metric.name == name && m.metric.subset.is_none())
        .map(|m| &m.metric)
}

/// The dense model on the same backend.
fn baseline<'a>(run: &'a RunResult, cell: &Cell) -> Option<&'a Cell> {
    run.cells.iter().find(|c| c.method == DENSE && c.model == cell.model && c.backend == cell.backend)
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

/// Whether two numbers lie within each other's noise.
fn indistinct(one: &MetricValue, other: &MetricValue) -> bool {
    match (one.stderr, other.stderr) {
        (Some(a), Some(b)) => (one.value - other.value).abs() < NOISE * a.hypot(b),
        _ => false,
    }
}

impl Column {
    fn title(&self) -> String {
        match self {
            Column::Score { shown, metric, higher_is_better, .. } => {
                format!("{shown}\n{metric} {}", if *higher_is_better { "↑" } else { "↓" })
            }
            Column::Overall { name } => format!("{name} ↑\ntrack 1"),
            Column::Speed { metric, unit } => {
                let what = metric.strip_suffix("_rate").unwrap_or(metric);
                format!("{what}\n{unit} ↑")
            }
            Column::Size => "weights\non disk ↓".into(),
            Column::CompressTime => "compress\ntime ↓".into(),
            Column::CompressMemory => "compress\nmemory ↓".into(),
            Column::EvaluateMemory => "evaluate\nmemory ↓".into(),
        }
    }

    fn text(&self, run: &RunResult, cell: &Cell, notes: &mut Footnotes) -> String {
        match self {
            Column::Score { task, metric: name, .. } => {
                let stage = stage_of(cell, StageKind::Evaluate, Some(task));
                let Some(value) = metric(cell, task, name) else { return absent(cell, stage, notes) };
                let text = score_and_error(value.value, value.stderr);
                let dense =
                    baseline(run, cell).filter(|_| cell.method != DENSE).and_then(|d| metric(d, task, name));
                // Item by item where that was done: it sees what two errors side by side do not.
                let told_apart = paired_of(cell, task, name)
                    .map(|paired| paired.told_apart)
                    .or_else(|| Some(!indistinct(value, dense?)));
                if told_apart == Some(false) {
                    format!("{text} ~")
                } else if run.cells.iter().any(|c| c.method != DENSE) {
                    // Room for the mark, so that numbers stand under each other.
                    format!("{text}  ")
                } else {
                    text
                }
            }
            Column::Overall { name } => {
                if cell.method == DENSE {
                    return "100".into();
                }
                let found = overall(run, cell, name);
                match found.and_then(|o| Some((o.om.value?, &o.om.not_measured))) {
                    Some((value, gaps)) if gaps.is_empty() => format!("{value:.1}"),
                    Some((value, _)) => format!("{value:.1} *"),
                    None => "-".into(),
                }
            }
            Column::Speed { metric: name, .. } => match metric(cell, "profile", name) {
                Some(value) => score_and_error(value.value, value.stderr),
                None => absent(cell, stage_of(cell, StageKind::Profile, None), notes),
            },
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
            Column::EvaluateMemory => {
                let done =
                    |s: &&StageSummary| s.kind == StageKind::Evaluate && s.status == Some(Status::Done);
                match cell.stages.iter().filter(done).map(|s| s.peak_memory_bytes).max() {
                    None | Some(0) => "-".into(),
                    Some(peak) => bytes(peak),
                }
            }
        }
    }
}

fn overall<'a>(run: &'a RunResult, cell: &Cell, name: &str) -> Option<&'a OverallMetric> {
    run.overall
        .iter()
        .find(|o| o.track == 1 && o.om.name == name && o.method == cell.method && o.backend == cell.backend)
}

fn note_lines(run: &RunResult, facts: &Facts, columns: &[Column], notes: Footnotes) -> Vec<String> {
    let mut lines = Vec::new();
    for (at, note) in notes.0.iter().enumerate() {
        lines.push(format!("[{}] {}", at + 1, note.lines().collect::<Vec<_>>().join("; ")));
    }
    // What is in a footnote is not said twice.
    for problem in run.problems.iter().filter(|problem| !notes.0.iter().any(|note| note.contains(*problem))) {
        lines.push(format!("not run: {problem}"));
    }
    let compares = run.cells.iter().any(|c| c.method == DENSE) && run.cells.iter().any(|c| c.method != DENSE);
    if compares && columns.iter().any(|c| matches!(c, Column::Score { .. })) {
        lines.push(if run.cells.iter().any(|c| !c.paired.is_empty()) {
            "~ not told apart from the dense model on the same items (McNemar's exact test at 5 %; where items are not right or wrong, 2 standard errors of the difference)".to_owned()
        } else {
            format!("~ within {NOISE:.0} standard errors of the dense model: not told apart from it")
        });
    }
    if let Some(Column::Overall { name }) = columns.iter().find(|c| matches!(c, Column::Overall { .. })) {
        let gaps: Vec<&str> = run
            .overall
            .iter()
            .find(|o| o.track == 1 && o.om.name == *name && !o.om.not_measured.is_empty())
            .map(|o| o.om.not_measured.iter().map(String::as_str).collect())
            .unwrap_or_default();
        if !gaps.is_empty() {
            lines.push(format!(
                "* {name} over a part of track 1, not comparable with published ones; not measured: {}",
                gaps.join(", ")
            ));
        }
    } else if compares && run.complete && columns.iter().any(|c| matches!(c, Column::Score { .. })) {
        lines.push("no overall metric: none of track 1's tasks was measured on both the dense and a compressed model".into());
    }
    for (model, info) in &facts.models {
        let parameters = if info.parameters > 0 {
            format!(", {} parameters", count(info.parameters))
        } else {
            String::new()
        };
        let precision = match (info.source_precision.as_str(), info.source_format.as_str()) {
            ("", _) => String::new(),
            (precision, "") => format!(", weights stored as {precision}"),
            (precision, format) => format!(", weights stored as {precision} ({format})"),
        };
        let coarse = info.source_precision.starts_with('Q') || info.source_precision.starts_with("IQ");
        let warning = if coarse { ": the dense row is itself quantised" } else { "" };
        lines.push(format!("{}: {}{parameters}{precision}{warning}", short_name(model), info.architecture));
    }
    for cell in run.cells.iter().filter(|cell| cell.method != DENSE) {
        let Some(info) = cell.checkpoint.as_ref().map(|c| &c.info).filter(|i| !i.format.is_empty()) else {
            continue;
        };
        let notes: String = info.notes.iter().map(|note| format!("; {note}")).collect();
        let several = run.suite.models.len() > 1;
        let model = if several { format!("{} ", short_name(&cell.model)) } else { String::new() };
        let line = format!("on disk, {model}{}: {}{notes}", cell.method, info.format);
        // One checkpoint may be run by several backends.
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let counts: Vec<String> = counts(run, columns);
    let mut how = Vec::new();
    if !counts.is_empty() {
        how.push(format!("items: {}", counts.join(", ")));
        how.push(format!("{} shots", run.suite.shots));
    }
    how.push(format!("seed {}", run.suite.seed));
    lines.push(how.join("; "));
    let uses_calibration = run.cells.iter().any(|c| stage_of(c, StageKind::Compress, None).is_some());
    if uses_calibration {
        let c = &run.suite.calibration;
        lines.push(format!("calibration: {} windows of {} tokens of {}", c.windows, c.length, c.text));
    }
    if let Some(how) = &facts.timing {
        lines.push(format!("speed: {how}"));
    }
    lines.extend(facts.warnings.iter().map(|w| format!("note: {w}")));
    if run.interrupted {
        lines.push("stopped by the user: the same command goes on where it was".into());
    }
    lines
}

/// Items per task; a range where rows differ.
fn counts(run: &RunResult, columns: &[Column]) -> Vec<String> {
    let mut counts = Vec::new();
    for column in columns {
        let Column::Score { task, metric: name, .. } = column else { continue };
        let found: BTreeMap<usize, ()> =
            run.cells.iter().filter_map(|cell| metric(cell, task, name)).map(|m| (m.n, ())).collect();
        let n: Vec<String> = found.keys().map(usize::to_string).collect();
        if !n.is_empty() {
            counts.push(format!("{} ({})", short_name(task), n.join("/")));
        }
    }
    counts
}

#[cfg(test)]
pub(crate) mod tests {
    use llmcb_plugin_api::sdk::ModelInfo;
    use serde_json::{Value, json};

    use super::*;

    fn score(task: &str, name: &str, value: f64, stderr: f64, n: usize) -> Value {
        json!({"task": task, "name": name, "value": value, "stderr": stderr, "n": n,
            "higher_is_better": name != "perplexity", "unit": ""})
    }

    fn stage(kind: &str, method: &str, task: Option<&str>, status: &str, reason: Option<&str>) -> Value {
        json!({"key": format!("{kind}{method}{}", task.unwrap_or("")), "kind": kind, "status": status, "reason": reason,
            "label": format!("{method} / candle / {}", task.unwrap_or(kind)), "task": task,
            "wall_seconds": 62.4, "peak_memory_bytes": 812_000_000})
    }

    fn cell(method: &str, stages: Vec<Value>, metrics: Vec<Value>, bytes: u64) -> Value {
        json!({"model": "smollm2-135m-instruct", "method": method, "backend": "candle", "stages": stages,
            "metrics": metrics, "weight_bytes": bytes})
    }

    /// A run with a dense model, a method that did well, one whose evaluation crashed, and one that does not do this.
    pub(crate) fn sample() -> RunResult {
        let (ppl, arc) = ("squad_passages", "arc_easy");
        let run = json!({
            "schema_version": 1, "host_version": "0.1.0", "abi_version": "1.0", "machine": {}, "started_unix": 0.0,
            "wall_seconds": 300.0, "complete": true,
            "suite": {"models": ["smollm2-135m-instruct"], "tasks": [ppl, arc], "seed": 7, "limit": 100,
                "calibration": {"text": "boolq_passages", "windows": 16, "length": 512}},
            "cells": [
                cell("dense",
                    vec![stage("evaluate", "dense", Some(ppl), "done", None), stage("evaluate", "dense", Some(arc), "done", None)],
                    vec![score(ppl, "perplexity", 17.046, 0.42, 20), score(arc, "acc", 0.51, 0.05, 100),
                        score(arc, "acc_norm", 0.46, 0.0498, 100)], 97_345_792),
                cell("gptq",
                    vec![stage("compress", "gptq", None, "done", None), stage("evaluate", "gptq", Some(ppl), "done", None),
                        stage("evaluate", "gptq", Some(arc), "done", None)],
                    vec![score(ppl, "perplexity", 21.5, 0.5, 20), score(arc, "acc_norm", 0.44, 0.049, 100)], 81_000_000),
                cell("wanda",
                    vec![stage("compress", "wanda", None, "done", None), stage("evaluate", "wanda", Some(ppl), "done", None),
                        stage("evaluate", "wanda", Some(arc), "failed", Some("the worker was killed by signal 9 (SIGKILL)"))],
                    vec![score(ppl, "perplexity", 19.0, 0.4, 20)], 97_345_792),
                cell("omni",
                    vec![stage("compress", "omni", None, "skipped", Some("needs gradients, which candle does not give")),
                        stage("evaluate", "omni", Some(ppl), "skipped", Some("its checkpoint was not made"))], vec![], 0),
            ],
            "overall": [{"track": 1, "method": "gptq", "backend": "candle", "name": "OM_ka", "value": 95.65, "cells": 1,
                "not_measured": ["MMLU", "ARC-c"]}],
        });
        serde_json::from_value(run).expect("a run")
    }

    fn facts() -> Facts {
        let info = ModelInfo {
            architecture: "LlamaForCausalLM".into(),
            parameters: 134_515_008,
            source_precision: "Q4_1".into(),
            source_format: "gguf".into(),
            ..ModelInfo::default()
        };
        Facts { models: [("smollm2-135m-instruct".to_owned(), info)].into(), ..Facts::default() }
    }

    #[test]
    fn what_a_user_reads() {
        insta::assert_snapshot!("wide", render(&sample(), &facts(), 160));
        insta::assert_snapshot!("narrow", render(&sample(), &facts(), 80));
    }

    #[test]
    fn a_run_that_goes_on_shows_what_is_not_there_yet() {
        let mut run = sample();
        run.complete = false;
        run.interrupted = true;
        run.problems = vec!["model nowhere: no such file".into()];
        run.cells.truncate(2);
        run.cells[1].metrics.pop();
        run.cells[1].stages[2].status = None;
        run.overall.clear();
        insta::assert_snapshot!(render(&run, &Facts::default(), 100));
    }

    #[test]
    fn a_run_without_cells_has_no_table_and_no_panic() {
        let mut run = sample();
        run.cells.clear();
        run.suite.tasks.clear();
        let text = render(&run, &Facts::default(), 80);
        assert!(text.contains("seed 7"), "{text}");
    }

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
            (value(0.5, Some(0.05)), value(0.6, Some(0.05)), true),
            (value(0.5, Some(0.03)), value(0.6, Some(0.03)), false),
            (value(0.5, None), value(0.5, Some(0.03)), false),
            (value(f64::INFINITY, Some(1.0)), value(20.0, Some(1.0)), false),
        ] {
            assert_eq!(indistinct(&a, &b), expected);
        }
    }
}
