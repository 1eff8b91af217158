//! LLMCBench's tracks and their overall metrics (OM).
//!
//! `OM = 100 * sqrt(mean over every (task, model) cell of ratio^2)`, where a ratio of 1 is the dense model and more is better: for scores
//! `compressed / dense`, for perplexity, memory, size and operations `dense / compressed` (LLMCBench, NeurIPS 2024 Datasets and Benchmarks).

mod macs;
mod score_table;
mod table;

pub use macs::{Macs, PREFILL_TOKENS, macs};
pub use score_table::{ScoreTableOptions, TableError, TableScore, score_csv, score_json, score_table};

pub use table::{Column, Reference, TRACKS, TRAINING, Track};

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The track with this number.
#[must_use]
pub fn track(number: u8) -> Option<&'static Track> {
    TRACKS.iter().find(|t| t.number == number)
}

/// Letters and digits of a name in lower case, which is how columns are compared.
pub(crate) fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

impl Track {
    /// The column of this name or alias.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        let name = plain(name);
        self.columns.iter().find(|c| plain(c.name) == name || c.aliases.contains(&name.as_str()))
    }

    /// How an overall metric comes about, in one line.
    #[must_use]
    pub fn formula(&self, om: &str) -> String {
        if Some(om) == self.combined {
            let squares: Vec<String> = self.oms.iter().map(|part| format!("{part}^2")).collect();
            return format!("{om} = sqrt(mean of {})", squares.join(", "));
        }
        let columns = || self.columns.iter().filter(|column| column.om == om);
        let names = |lower: bool| -> Vec<&str> {
            columns().filter(|column| column.lower_is_better == lower).map(|column| column.name).collect()
        };
        let all: Vec<&str> = columns().map(|column| column.name).collect();
        let (more, less) = (names(false), names(true));
        let ratio = match (self.reference, more.is_empty(), less.is_empty()) {
            (Reference::Cheapest, ..) => "r = least of the methods compared / this method's".to_owned(),
            (_, false, true) => "r = compressed / dense".to_owned(),
            (_, true, false) => "r = dense / compressed".to_owned(),
            _ => format!("r = compressed / dense, for {} dense / compressed", less.join(", ")),
        };
        format!("{om} = 100 * sqrt(mean of r^2 over {} on every model and seed), {ratio}", all.join(", "))
    }
}

/// A pair of raw numbers: one task (or cost) on one model. `None` is what was not measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Column's name or alias.
    pub column: String,
    /// Model.
    pub model: String,
    /// The dense model's number.
    pub dense: Option<f64>,
    /// The compressed model's number.
    pub compressed: Option<f64>,
    /// Both numbers again, of items drawn anew (the same draw for both); empty where there are no items. Of all cells the same number.
    pub resamples: Arc<[[f64; 2]]>,
}

/// Where a value is with a confidence of 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Between the 2.5th and the 97.5th percentile of values under resampling (the percentile bootstrap; Efron and Tibshirani 1993).
    ///
    /// None where more than one draw in twenty gives no number: the ends would be those of another quantity.
    fn of(mut values: Vec<f64>) -> Option<Interval> {
        let all = values.len();
        values.retain(|value| value.is_finite());
        if values.len() * 20 < all * 19 {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let at =
            |fraction: f64| values.get(((values.len() as f64 - 1.0) * fraction).round() as usize).copied();
        Some(Interval { low: at(0.025)?, high: at(0.975)? })
    }
}

/// An overall metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Om {
    /// `OM_ka`, `OM_ia`, `OM_perf`, `OM_gen`, `OM_train`, `OM_inf`, `OM_hard`, `OM_rob`, `OM_tru` or `OM_trust`.
    pub name: String,
    /// The value, 100 being the dense model (of `OM_train` the cheapest method); absent where nothing was measured.
    pub value: Option<f64>,
    /// Confidence interval over the items of its tasks or the repetitions of its workloads; absent where all of its numbers were measured once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// How the value comes about.
    #[serde(default)]
    pub formula: String,
    /// Cells that it is over.
    pub cells: usize,
    /// What it should also be over, but was not measured: `column` or `column on model`. With entries here the value is not comparable to
    /// one over everything.
    pub not_measured: Vec<String>,
}

/// A number from which no ratio can be formed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{column} on {model}: {what}")]
pub struct CellError {
    /// Column.
    pub column: String,
    /// Model.
    pub model: String,
    /// What is wrong.
    pub what: String,
}

fn ratio(column: &Column, cell: &Cell, dense: f64, compressed: f64) -> Result<f64, CellError> {
    let fail =
        |what: String| Err(CellError { column: column.name.to_owned(), model: cell.model.clone(), what });
    if !dense.is_finite() || dense <= 0.0 {
        return fail(format!("the dense model's number must be positive, found {dense}"));
    }
    if column.lower_is_better {
        if compressed.is_nan() || compressed <= 0.0 {
            return fail(format!("must be positive, found {compressed}"));
        }
        // An infinite perplexity gives 0, the worst.
        return Ok(dense / compressed);
    }
    if !compressed.is_finite() || compressed < 0.0 {
        return fail(format!("must be a number from 0 on, found {compressed}"));
    }
    Ok(compressed / dense)
}

/// As [`overall`], where a number from which no ratio can be formed is listed as not measured, with the reason, instead of being an error.
#[must_use]
pub fn overall_of_run(track: &Track, cells: &[Cell]) -> Vec<Om> {
    let mut reasons: Vec<(&str, String)> = Vec::new();
    let mut sound = Vec::new();
    for cell in cells {
        let Some(column) = track.column(&cell.column) else { continue };
        let both = cell.dense.zip(cell.compressed);
        match both.map(|(dense, compressed)| ratio(column, cell, dense, compressed)) {
            Some(Err(error)) => reasons.push((column.om, error.to_string())),
            _ => sound.push(cell.clone()),
        }
    }
    // Every column is the track's, and every ratio can be formed.
    let mut oms = overall(track, &sound).unwrap_or_default();
    for (part, reason) in reasons {
        for om in oms.iter_mut().filter(|om| om.name == part || Some(om.name.as_str()) == track.combined) {
            let column = reason.split(" on ").next().unwrap_or_default().to_owned();
            om.not_measured.retain(|gap| *gap != column);
            om.not_measured.push(reason.clone());
        }
    }
    oms
}

/// The overall metrics of a track over what was measured.
///
/// Columns of the track without any cell are listed as not measured.
///
/// # Errors
/// A number from which no ratio can be formed, or a column that the track does not have.
pub fn overall(track: &Track, cells: &[Cell]) -> Result<Vec<Om>, CellError> {
    let mut placed = Vec::new();
    for cell in cells {
        let column = track.column(&cell.column).ok_or_else(|| CellError {
            column: cell.column.clone(),
            model: cell.model.clone(),
            what: format!(
                "track {} has no such column; it has {}",
                track.number,
                track.columns.iter().map(|c| c.name).collect::<Vec<_>>().join(", ")
            ),
        })?;
        placed.push((column, cell));
    }
    let mut out = Vec::new();
    let mut drawn = Vec::new();
    for om in track.oms {
        let mut measured: Vec<(&Column, &Cell, f64)> = Vec::new();
        let mut not_measured = Vec::new();
        for column in track.columns.iter().filter(|c| c.om == *om) {
            let mut any = false;
            let mut gaps = Vec::new();
            for (_, cell) in placed.iter().filter(|(c, _)| c.name == column.name) {
                match (cell.dense, cell.compressed) {
                    (Some(dense), Some(compressed)) => {
                        measured.push((column, cell, ratio(column, cell, dense, compressed)?));
                        any = true;
                    }
                    (None, _) if track.reference == Reference::Dense => {
                        gaps.push(format!("{} on {} (dense)", column.name, cell.model));
                    }
                    (None, _) => gaps.push(format!("{} on {}", column.name, cell.model)),
                    (Some(_), None) => gaps.push(format!("{} on {}", column.name, cell.model)),
                }
            }
            if any || !gaps.is_empty() {
                not_measured.extend(gaps);
            } else {
                not_measured.push(column.name.to_owned());
            }
        }
        let ratios: Vec<f64> = measured.iter().map(|(.., ratio)| *ratio).collect();
        let value = (!ratios.is_empty()).then(|| 100.0 * root_mean_square(&ratios));
        let again = resampled(&measured);
        out.push(Om {
            name: (*om).to_owned(),
            value,
            interval: again.clone().and_then(Interval::of),
            formula: track.formula(om),
            cells: ratios.len(),
            not_measured,
        });
        drawn.push(again);
    }
    if let Some(name) = track.combined {
        let values: Vec<f64> = out.iter().filter_map(|om| om.value).collect();
        // Half of a combination would pass for the whole: it is given only where every part is.
        let value = (values.len() == out.len()).then(|| root_mean_square(&values));
        let again: Option<Vec<Vec<f64>>> = drawn.into_iter().collect();
        let interval = again.filter(|_| value.is_some()).and_then(|parts| {
            let one = |at: usize| root_mean_square(&parts.iter().map(|part| part[at]).collect::<Vec<_>>());
            Interval::of((0..parts.iter().map(Vec::len).min()?).map(one).collect())
        });
        out.push(Om {
            name: name.to_owned(),
            value,
            interval,
            formula: track.formula(name),
            cells: out.iter().map(|om| om.cells).sum(),
            not_measured: out.iter().flat_map(|om| om.not_measured.clone()).collect(),
        });
    }
    Ok(out)
}

fn root_mean_square(values: &[f64]) -> f64 {
    (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
}

/// An overall metric for each draw of items; none where no number comes from items. Numbers that do not stay as they are; a draw of which no
/// ratio can be formed is not a number.
fn resampled(measured: &[(&Column, &Cell, f64)]) -> Option<Vec<f64>> {
    // Items that are not at hand would pass for numbers without noise.
    if measured.iter().any(|(column, cell, _)| !column.tasks.is_empty() && cell.resamples.is_empty()) {
        return None;
    }
    let draws = measured.iter().map(|(_, cell, _)| cell.resamples.len()).max().filter(|draws| *draws > 0)?;
    let one = |at: usize| {
        let ratios: Vec<f64> = measured
            .iter()
            .map(|(column, cell, value)| match cell.resamples.get(at) {
                Some([dense, compressed]) => ratio(column, cell, *dense, *compressed).unwrap_or(f64::NAN),
                None => *value,
            })
            .collect();
        100.0 * root_mean_square(&ratios)
    };
    Some((0..draws).map(one).collect())
}

#[cfg(test)]
mod tests;
