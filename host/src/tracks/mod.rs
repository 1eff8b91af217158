//! LLMCBench's tracks and their overall metrics (OM).
//!
//! `OM = 100 * sqrt(mean over every (task, model) cell of ratio^2)`, where a ratio of 1 is the dense model and more is better: for scores
//! `compressed / dense`, for perplexity, memory, size and operations `dense / compressed` (LLMCBench, NeurIPS 2024 Datasets and Benchmarks).

mod score_table;

pub use score_table::{ScoreTableOptions, TableError, TableScore, score_csv, score_json, score_table};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A column of a track's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Name in the paper's table.
    pub name: &'static str,
    /// Other spellings, lower case, letters and digits only.
    pub aliases: &'static [&'static str],
    /// Whether less is better.
    pub lower_is_better: bool,
    /// Task of this program that measures it, and the metric; `None` where none does.
    pub task: Option<(&'static str, &'static str)>,
    /// Overall metric that it counts in.
    pub om: &'static str,
}

/// A track.
#[derive(Debug, Clone, Copy)]
pub struct Track {
    /// Its number in the paper.
    pub number: u8,
    /// What it asks.
    pub what: &'static str,
    /// Its columns.
    pub columns: &'static [Column],
    /// Its overall metrics over columns, in the order of the paper's table.
    pub oms: &'static [&'static str],
    /// An overall metric that is the root mean square of all of [`Track::oms`].
    pub combined: Option<&'static str>,
}

const fn score(
    name: &'static str,
    aliases: &'static [&'static str],
    om: &'static str,
    task: Option<(&'static str, &'static str)>,
) -> Column {
    Column { name, aliases, lower_is_better: false, task, om }
}

const WIKITEXT2: &[&str] = &["wikitext2", "wikitext", "wiki2", "ppl", "perplexity"];

/// The tracks whose overall metric comes from a table of raw numbers.
pub static TRACKS: &[Track] = &[
    Track {
        number: 1,
        what: "compression performance",
        columns: &[
            score("MMLU", &["mmlu"], "OM_ka", Some(("mmlu", "acc"))),
            score("ARC-c", &["arcc", "arcchallenge"], "OM_ka", Some(("arc_challenge", "acc_norm"))),
            score("ARC-e", &["arce", "arceasy"], "OM_ka", Some(("arc_easy", "acc_norm"))),
            score("HellaSwag", &["hellaswag"], "OM_ia", Some(("hellaswag", "acc_norm"))),
            score("PIQA", &["piqa"], "OM_ia", Some(("piqa", "acc_norm"))),
            score("WinoGrande", &["winogrande"], "OM_ia", Some(("winogrande", "acc"))),
            score("QNLI", &["qnli"], "OM_ia", Some(("qnli", "acc"))),
            score("MNLI", &["mnli"], "OM_ia", Some(("mnli", "acc"))),
            Column {
                name: "WikiText2",
                aliases: WIKITEXT2,
                lower_is_better: true,
                task: Some(("wikitext2", "perplexity")),
                om: "OM_ia",
            },
        ],
        oms: &["OM_ka", "OM_ia"],
        combined: Some("OM_perf"),
    },
    Track {
        number: 2,
        what: "generalisation over model families",
        columns: &[Column {
            name: "WikiText2",
            aliases: WIKITEXT2,
            lower_is_better: true,
            task: Some(("wikitext2", "perplexity")),
            om: "OM_gen",
        }],
        oms: &["OM_gen"],
        combined: None,
    },
    Track {
        number: 4,
        what: "inference cost",
        columns: &[
            Column {
                name: "gpu_memory_g",
                aliases: &["gpumemoryg", "gpumemory", "memory", "gpumem"],
                lower_is_better: true,
                task: None,
                om: "OM_inf",
            },
            Column {
                name: "model_size_g",
                aliases: &["modelsizeg", "modelsize", "size"],
                lower_is_better: true,
                task: None,
                om: "OM_inf",
            },
            Column {
                name: "macs_t",
                aliases: &["macst", "macs"],
                lower_is_better: true,
                task: None,
                om: "OM_inf",
            },
        ],
        oms: &["OM_inf"],
        combined: None,
    },
];

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
}

/// Column, track-1 metric: the column that a task of this program fills and with which metric.
#[must_use]
pub fn track1_column(task: &str) -> Option<(&'static str, &'static str)> {
    TRACKS[0]
        .columns
        .iter()
        .find_map(|c| c.task.filter(|(id, _)| *id == task).map(|(_, metric)| (c.name, metric)))
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
}

/// An overall metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Om {
    /// `OM_ka`, `OM_ia`, `OM_perf`, `OM_gen` or `OM_inf`.
    pub name: String,
    /// The value, 100 being the dense model; absent where nothing was measured.
    pub value: Option<f64>,
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
    for om in track.oms {
        let mut squares = Vec::new();
        let mut not_measured = Vec::new();
        for column in track.columns.iter().filter(|c| c.om == *om) {
            let mut any = false;
            let mut gaps = Vec::new();
            for (_, cell) in placed.iter().filter(|(c, _)| c.name == column.name) {
                match (cell.dense, cell.compressed) {
                    (Some(dense), Some(compressed)) => {
                        let r = ratio(column, cell, dense, compressed)?;
                        squares.push(r * r);
                        any = true;
                    }
                    (None, _) => gaps.push(format!("{} on {} (dense)", column.name, cell.model)),
                    (Some(_), None) => gaps.push(format!("{} on {}", column.name, cell.model)),
                }
            }
            if any || !gaps.is_empty() {
                not_measured.extend(gaps);
            } else {
                not_measured.push(column.name.to_owned());
            }
        }
        let value = (!squares.is_empty())
            .then(|| 100.0 * (squares.iter().sum::<f64>() / squares.len() as f64).sqrt());
        out.push(Om { name: (*om).to_owned(), value, cells: squares.len(), not_measured });
    }
    if let Some(name) = track.combined {
        let values: Vec<f64> = out.iter().filter_map(|om| om.value).collect();
        // Half of a combination would pass for the whole: it is given only where every part is.
        let value = (values.len() == out.len())
            .then(|| (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt());
        out.push(Om {
            name: name.to_owned(),
            value,
            cells: out.iter().map(|om| om.cells).sum(),
            not_measured: out.iter().flat_map(|om| om.not_measured.clone()).collect(),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
