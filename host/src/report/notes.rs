//! The notes under a run's table: what its marks mean, what it was made with, what is missing.

use std::collections::BTreeMap;

use super::columns::{BETTER, Column, NOISE, SAME, WORSE, metric, short_name, stage_of};
use super::facts::{Arithmetic, Facts};
use super::numbers::count;
use super::seeds;
use crate::suite::passed_over;
use crate::suite::plan::DENSE;
use crate::suite::result::{RunResult, StageKind};

/// Notes that cells refer to.
#[derive(Default)]
pub(super) struct Footnotes(Vec<String>);

impl Footnotes {
    /// The mark of a note; the same note has the same mark.
    pub(super) fn mark(&mut self, note: String) -> String {
        let at = self.0.iter().position(|other| *other == note).unwrap_or_else(|| {
            self.0.push(note);
            self.0.len() - 1
        });
        format!("[{}]", at + 1)
    }
}

/// The notes under a run's table; `gaps` says which seeds are not in the means.
pub(super) fn note_lines(
    run: &RunResult,
    facts: &Facts,
    columns: &[Column],
    notes: Footnotes,
    gaps: Vec<String>,
) -> Vec<String> {
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
        let how = if run.cells.iter().any(|c| !c.paired.is_empty()) {
            "on the same items (McNemar's exact test at 5 %; where items are not right or wrong, 2 standard errors of the difference)".to_owned()
        } else {
            format!("({NOISE:.0} standard errors)")
        };
        lines.push(format!(
            "{SAME} not told apart from the dense model {how}; {BETTER} better, {WORSE} worse than it"
        ));
    }
    lines.extend(overall_lines(run, columns, compares));
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
    lines.extend(facts.arithmetic.iter().filter_map(|(backend, how)| arithmetic_line(backend, how)));
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
    let all: Vec<String> = run.suite.seeds.iter().map(u64::to_string).collect();
    how.push(format!("seed{} {}", if all.len() > 1 { "s" } else { "" }, all.join(", ")));
    lines.push(how.join("; "));
    if let Some(n) = seeds::count(run) {
        lines.push(format!("means over {n} seeds where seeds decide; ± takes in items and seeds"));
        lines.extend(gaps);
    }
    let uses_calibration = run.cells.iter().any(|c| stage_of(c, StageKind::Compress, None).is_some());
    if uses_calibration {
        let c = &run.suite.calibration;
        lines.push(format!("calibration: {} windows of {} tokens of {}", c.windows, c.length, c.text));
    }
    lines.extend(agreement_lines(run));
    for (backend, how) in &facts.timing {
        let of = if facts.timing.len() > 1 { format!(" of {backend}") } else { String::new() };
        lines.push(format!("speed{of}: {how}"));
    }
    lines.extend(facts.warnings.iter().map(|w| format!("note: {w}")));
    if run.interrupted {
        lines.push("stopped by the user: the same command goes on where it was".into());
    } else if !run.complete {
        lines.push("this run has not come to its end: it goes on, or was killed; the same command goes on where it was".into());
    }
    lines
}

/// How far backends agree on what they scored, a line for each backend and task.
fn agreement_lines(run: &RunResult) -> Vec<String> {
    let mut lines: BTreeMap<(&str, &str, &str), Vec<String>> = BTreeMap::new();
    let several = run.suite.models.len() > 1;
    for cell in &run.cells {
        for one in &cell.agreement {
            let model = if several { format!("{} ", short_name(&cell.model)) } else { String::new() };
            let found = one.agreement;
            let choices = match found.choices_differ {
                0 => String::new(),
                n => format!(", {n} choices differ"),
            };
            let words = format!(
                "{model}{} {} (at most {}{choices})",
                cell.method,
                nats(found.mean_difference),
                nats(found.largest_difference)
            );
            lines.entry((&cell.backend, &one.with, &one.task)).or_default().push(words);
        }
    }
    let line = |((backend, with, task), words): ((&str, &str, &str), Vec<String>)| {
        format!(
            "log-likelihoods of {backend} and {with} on {task} differ on average by: {}",
            words.join("; ")
        )
    };
    lines.into_iter().map(line).collect()
}

/// A difference of log-likelihoods with two digits.
fn nats(value: f64) -> String {
    if value == 0.0 || value >= 0.01 { format!("{value:.2}") } else { format!("{value:.1e}") }
}

/// In what a backend computed. Others than single precision move every number a little: rows of different arithmetic must be told apart.
fn arithmetic_line(backend: &str, how: &Arithmetic) -> Option<String> {
    let told = |precision: &&String| !matches!(precision.as_str(), "" | "f32") || !how.library.is_empty();
    let precisions: Vec<&String> = how.precisions.keys().filter(told).collect();
    let one = how.precisions.len() == 1;
    let words = precisions.iter().map(|precision| match one {
        true => (*precision).clone(),
        false => format!("{precision} ({})", how.precisions[*precision].join(", ")),
    });
    let words = words.collect::<Vec<_>>().join("; ");
    match (how.library.is_empty(), words.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("{backend} computed in {words}")),
        (false, _) => Some(format!("{backend} ran {}: {words}", how.library)),
    }
}

/// What overall metrics are over, and which are missing.
fn overall_lines(run: &RunResult, columns: &[Column], compares: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let shown: Vec<&str> = columns
        .iter()
        .filter_map(|c| if let Column::Overall { name, .. } = c { Some(name.as_str()) } else { None })
        .collect();
    if run.overall.iter().any(|o| shown.contains(&o.om.name.as_str()) && o.om.interval.is_some()) {
        lines.push(
            "[low, high] 95 % confidence interval of an overall metric (bootstrap over items, of speeds over repetitions)".to_owned(),
        );
    }
    for name in &shown {
        let own: Vec<_> = run.overall.iter().filter(|o| o.om.name == *name).collect();
        // Of methods with the same gaps in one line.
        let mut by_gaps: Vec<(&[String], Vec<&str>)> = Vec::new();
        for one in own.iter().filter(|o| !o.om.not_measured.is_empty()) {
            match by_gaps.iter_mut().find(|(gaps, _)| *gaps == one.om.not_measured) {
                Some((_, methods)) => methods.push(&one.method),
                None => by_gaps.push((&one.om.not_measured, vec![&one.method])),
            }
        }
        for (gaps, methods) in by_gaps {
            let of = if methods.len() == own.len() {
                String::new()
            } else {
                format!(" of {}", methods.join(", "))
            };
            lines.push(format!(
                "* {name}{of} over a part of its track, not comparable with published ones; not measured: {}",
                gaps.join(", ")
            ));
        }
    }
    if run.suite.models.len() > 1 && !shown.is_empty() {
        lines.push("overall metrics are over all models: each row of a method shows the same".to_owned());
    }
    if !shown.is_empty() {
        let counted = |(line, instead): (String, String)| {
            format!("overall metrics count {instead}, not {line}: of tasks for the same column, the first")
        };
        lines.extend(passed_over(&run.suite).into_iter().map(counted));
    }
    if shown.contains(&"OM_train") {
        lines.push(
            "OM_train: 100 is as cheap as the cheapest method of this table in both time and memory; it says nothing beside other tables"
                .to_owned(),
        );
    }
    if compares && run.complete {
        let mut missing: Vec<String> = Vec::new();
        for one in &run.overall {
            let part = shown.iter().any(|name| track_of(run, name) == Some(one.track));
            let text = format!("track {}", one.track);
            if !part && !missing.contains(&text) {
                missing.push(text);
            }
        }
        if !missing.is_empty() {
            lines.push(format!("not measured: {}", missing.join(", ")));
        }
    }
    lines
}

fn track_of(run: &RunResult, name: &str) -> Option<u32> {
    run.overall.iter().find(|o| o.om.name == name).map(|o| o.track)
}

/// Items per task; a range where rows differ.
fn counts(run: &RunResult, columns: &[Column]) -> Vec<String> {
    let mut counts = Vec::new();
    for column in columns {
        let Column::Score { task, metric: name, .. } = column else { continue };
        let found: BTreeMap<usize, ()> =
            run.cells.iter().filter_map(|cell| metric(cell, task, name)).map(|m| (m.n, ())).collect();
        let n: Vec<String> = found.keys().map(usize::to_string).collect();
        let text = format!("{} ({})", short_name(task), n.join("/"));
        // A task may have two columns.
        if !n.is_empty() && !counts.contains(&text) {
            counts.push(text);
        }
    }
    counts
}
