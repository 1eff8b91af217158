//! Overall metrics of any table of raw numbers, given as JSON or CSV.

use super::{Cell, CellError, Column, Om, TRACKS, Track, overall, plain, track};
use crate::assets::nearest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// How a table is read.
#[derive(Debug, Clone, Default)]
pub struct ScoreTableOptions {
    /// The track; `None` finds it from the columns.
    pub track: Option<u8>,
    /// Name of the dense row; `None` takes rows called Dense, Full Prec., Full-Precision or FP16.
    pub dense: Option<String>,
}

/// A table could not be scored.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The table is not in a form that is understood.
    #[error("{0}")]
    Shape(String),
    /// A number is unusable.
    #[error("{row}: {source}")]
    Cell {
        /// Method and setting.
        row: String,
        /// The number.
        source: CellError,
    },
}

fn shape<T>(what: impl Into<String>) -> Result<T, TableError> {
    Err(TableError::Shape(what.into()))
}

/// Overall metrics of one row of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TableScore {
    /// Track that the table belongs to.
    pub track: u8,
    /// Method.
    pub method: String,
    /// Setting (bits, sparsity), or empty.
    pub setting: String,
    /// Its overall metrics.
    pub oms: Vec<Om>,
    /// Values that the table itself states for them, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub published: BTreeMap<String, f64>,
}

/// Columns in their order; nothing where the table has no number.
type Values = Vec<(String, Option<f64>)>;

/// One method with its raw numbers: model -> column -> number.
#[derive(Debug, Clone, Default)]
struct Row {
    method: String,
    setting: String,
    published: BTreeMap<String, f64>,
    models: Vec<(String, Values)>,
}

impl Row {
    fn name(&self) -> String {
        if self.setting.is_empty() {
            self.method.clone()
        } else {
            format!("{} {}", self.method, self.setting)
        }
    }
}

/// Scores a file: JSON if its name ends in `.json` or it begins like JSON, CSV otherwise.
///
/// # Errors
/// Where the file cannot be read, is no table, names unknown columns, has no dense row, or holds unusable numbers.
pub fn score_table(path: &Path, options: &ScoreTableOptions) -> Result<Vec<TableScore>, TableError> {
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|source| TableError::Read { path: name.clone(), source })?;
    let json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"))
        || text.trim_start().starts_with(['{', '[']);
    if json { score_json(&text, &name, options) } else { score_csv(&text, &name, options) }
}

/// Scores JSON text. Understood are: a list of rows `{method, setting, models: {model: {column: number}}}`; an object that holds such lists
/// (or track 2's `{models: {model: {method: number}}}`) under `track1`, `track2`, `track4`, `track5`, `track6`; and one such object alone.
///
/// # Errors
/// As [`score_table`].
pub fn score_json(
    text: &str,
    name: &str,
    options: &ScoreTableOptions,
) -> Result<Vec<TableScore>, TableError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|e| TableError::Shape(format!("{name}, line {}: is not JSON ({e})", e.line())))?;
    let mut out = Vec::new();
    let mut keyed = false;
    if let Value::Object(object) = &value {
        for t in TRACKS {
            if let Some(table) = object.get(&format!("track{}", t.number)) {
                keyed = true;
                if options.track.is_none_or(|wanted| wanted == t.number) {
                    let place = format!("{name}, track{}", t.number);
                    out.extend(score_rows(json_rows(table, &place)?, Some(t), options, &place)?);
                }
            }
        }
    }
    if keyed {
        if out.is_empty() {
            return shape(format!("{name} holds no table of track {}", options.track.unwrap_or_default()));
        }
        return Ok(out);
    }
    let given = given_track(options)?;
    score_rows(json_rows(&value, name)?, given, options, name)
}

fn given_track(options: &ScoreTableOptions) -> Result<Option<&'static Track>, TableError> {
    match options.track {
        None => Ok(None),
        Some(number) => match track(number) {
            Some(t) => Ok(Some(t)),
            None => shape(format!(
                "track {number} has no overall metric over a table; tracks 1, 2, 4, 5 and 6 have"
            )),
        },
    }
}

fn number(value: &Value, place: &str) -> Result<Option<f64>, TableError> {
    match value {
        Value::Null => Ok(None),
        Value::Number(n) => Ok(n.as_f64()),
        Value::String(s) => parse_number(s, place),
        _ => shape(format!("{place}: must be a number")),
    }
}

/// A number; nothing where a table leaves it out (empty, `-`, `n/a`).
fn parse_number(text: &str, place: &str) -> Result<Option<f64>, TableError> {
    let text = text.trim();
    if matches!(text.to_ascii_lowercase().as_str(), "" | "-" | "--" | "n/a" | "na" | "none" | "null") {
        return Ok(None);
    }
    let text = text.strip_suffix('%').unwrap_or(text);
    match text.parse::<f64>() {
        Ok(number) => Ok(Some(number)),
        Err(_) => {
            shape(format!("{place}: `{text}` is not a number (leave a number out with an empty cell or `-`)"))
        }
    }
}

fn json_rows(value: &Value, place: &str) -> Result<Vec<Row>, TableError> {
    match value {
        Value::Array(rows) => rows
            .iter()
            .enumerate()
            .map(|(i, row)| json_row(row, &format!("{place}, row {}", i + 1)))
            .collect(),
        Value::Object(object) if object.contains_key("rows") => json_rows(&object["rows"], place),
        Value::Object(object) => match object.get("models") {
            Some(Value::Object(models)) => json_methods_by_model(object, models, place),
            _ => shape(format!(
                "{place}: expected a list of rows, or an object with `track1`, `track2`, `track4`, `track5`, `track6`, `rows` or `models`"
            )),
        },
        _ => shape(format!("{place}: expected a list of rows or an object")),
    }
}

fn json_row(row: &Value, place: &str) -> Result<Row, TableError> {
    let Some(method) = row.get("method").and_then(Value::as_str) else {
        return shape(format!("{place}: `method` must be a string"));
    };
    let setting = match row.get("setting") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(Value::Number(n)) => n.to_string(),
        Some(_) => return shape(format!("{place}: `setting` must be a string")),
    };
    let Some(Value::Object(models)) = row.get("models") else {
        return shape(format!("{place}: `models` must be an object of models"));
    };
    let mut out = Row { method: method.to_owned(), setting, ..Row::default() };
    for (model, columns) in models {
        let Value::Object(columns) = columns else {
            return shape(format!("{place}, {model}: must be an object of numbers"));
        };
        let columns = columns
            .iter()
            .map(|(column, value)| {
                Ok((column.clone(), number(value, &format!("{place}, {model}, {column}"))?))
            })
            .collect::<Result<_, TableError>>()?;
        out.models.push((model.clone(), columns));
    }
    if let Some(Value::Object(published)) = row.get("published") {
        out.published.extend(published.iter().filter_map(|(k, v)| Some((k.clone(), v.as_f64()?))));
    }
    for (key, value) in row.as_object().into_iter().flatten() {
        if let (Some(om), Some(value)) = (key.strip_prefix("published_"), value.as_f64()) {
            out.published.insert(om.to_owned(), value);
        }
    }
    Ok(out)
}

/// Track 2's shape: one number per model and method.
fn json_methods_by_model(
    object: &serde_json::Map<String, Value>,
    models: &serde_json::Map<String, Value>,
    place: &str,
) -> Result<Vec<Row>, TableError> {
    let mut rows: Vec<Row> = Vec::new();
    for (model, methods) in models {
        let Value::Object(methods) = methods else {
            return shape(format!("{place}, {model}: must be an object of methods"));
        };
        for (method, value) in methods {
            let number = number(value, &format!("{place}, {model}, {method}"))?;
            let at = match rows.iter().position(|r| r.method == *method) {
                Some(at) => at,
                None => {
                    rows.push(Row { method: method.clone(), ..Row::default() });
                    rows.len() - 1
                }
            };
            rows[at].models.push((model.clone(), vec![("WikiText2".to_owned(), number)]));
        }
    }
    if let Some(Value::Object(published)) = object.get("published_OM_gen") {
        for row in &mut rows {
            if let Some(value) = published.get(&row.method).and_then(Value::as_f64) {
                row.published.insert("OM_gen".to_owned(), value);
            }
        }
    }
    Ok(rows)
}

/// Scores CSV text with the columns `method`, `setting` (may be left out), `model`, and a track's columns. Columns whose name begins with
/// `OM` or `published` state values for comparison.
///
/// # Errors
/// As [`score_table`].
pub fn score_csv(text: &str, name: &str, options: &ScoreTableOptions) -> Result<Vec<TableScore>, TableError> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let bad = |e: csv::Error| {
        let line = e.position().map_or_else(String::new, |p| format!(", line {}", p.line()));
        TableError::Shape(format!("{name}{line}: is not a table ({e})"))
    };
    let header = reader.headers().map_err(bad)?.clone();
    let at = |wanted: &[&str]| header.iter().position(|h| wanted.contains(&plain(h).as_str()));
    let Some(method_at) = at(&["method"]) else {
        return shape(format!(
            "{name}: the header has no column `method` (expected method,setting,model,<tasks>)"
        ));
    };
    let Some(model_at) = at(&["model"]) else {
        return shape(format!(
            "{name}: the header has no column `model` (expected method,setting,model,<tasks>)"
        ));
    };
    let setting_at = at(&["setting"]);
    let mut rows: Vec<Row> = Vec::new();
    for record in reader.records() {
        let record = record.map_err(bad)?;
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |i: usize| record.get(i).unwrap_or_default();
        let (method, setting) = (cell(method_at), setting_at.map(cell).unwrap_or_default());
        if method.is_empty() || cell(model_at).is_empty() {
            return shape(format!("{name}, line {line}: method and model must be given"));
        }
        let mut columns = Vec::new();
        let mut published = BTreeMap::new();
        for (i, column) in header.iter().enumerate() {
            if i == method_at || i == model_at || Some(i) == setting_at {
                continue;
            }
            let value = parse_number(cell(i), &format!("{name}, line {line}, {column}"))?;
            let stated = column.strip_prefix("published_").unwrap_or(column);
            if stated.to_ascii_lowercase().starts_with("om_") {
                published.extend(value.map(|v| (stated.to_owned(), v)));
            } else {
                columns.push((column.to_owned(), value));
            }
        }
        let row = match rows.iter_mut().find(|r| r.method == method && r.setting == setting) {
            Some(row) => row,
            None => {
                rows.push(Row { method: method.to_owned(), setting: setting.to_owned(), ..Row::default() });
                rows.last_mut().expect("just pushed")
            }
        };
        if row.models.iter().any(|(model, _)| model == cell(model_at)) {
            return shape(format!(
                "{name}, line {line}: {} on {} is given twice",
                row.name(),
                cell(model_at)
            ));
        }
        row.published.append(&mut published);
        row.models.push((cell(model_at).to_owned(), columns));
    }
    score_rows(rows, given_track(options)?, options, name)
}

/// The track that has every column of the table.
fn infer_track(rows: &[Row], place: &str) -> Result<&'static Track, TableError> {
    let columns: Vec<&str> =
        rows.iter().flat_map(|r| &r.models).flat_map(|(_, c)| c).map(|(c, _)| c.as_str()).collect();
    let Some(first) = columns.first() else {
        return shape(format!("{place}: the table holds no numbers"));
    };
    // WikiText2 alone is track 2; with other columns it is part of track 1.
    let only_wikitext = columns.iter().all(|c| TRACKS[1].column(c).is_some());
    let order: &[usize] = if only_wikitext { &[1] } else { &[0, 2, 3, 4] };
    for t in order.iter().map(|i| &TRACKS[*i]) {
        if columns.iter().any(|c| t.column(c).is_some()) {
            return Ok(t);
        }
    }
    shape(format!(
        "{place}: `{first}` is no column of a track; name the track, and see its columns: {}",
        known_columns()
    ))
}

fn known_columns() -> String {
    TRACKS
        .iter()
        .map(|t| {
            format!("track {}: {}", t.number, t.columns.iter().map(|c| c.name).collect::<Vec<_>>().join(", "))
        })
        .collect::<Vec<_>>()
        .join("; ")
}

fn is_dense(row: &Row, options: &ScoreTableOptions) -> bool {
    match &options.dense {
        Some(name) => plain(&row.method) == plain(name) || plain(&row.name()) == plain(name),
        None => matches!(plain(&row.method).as_str(), "dense" | "fullprec" | "fullprecision" | "fp16"),
    }
}

fn known_column(track: &'static Track, name: &str, place: &str) -> Result<&'static Column, TableError> {
    track.column(name).map_or_else(
        || {
            let near = nearest(name, track.columns.iter().map(|c| c.name));
            let hint = if near.is_empty() {
                String::new()
            } else {
                format!("; did you mean {}?", near.join(" or "))
            };
            shape(format!(
                "{place}: track {} has no column `{name}`{hint} (it has {})",
                track.number,
                track.columns.iter().map(|c| c.name).collect::<Vec<_>>().join(", ")
            ))
        },
        Ok,
    )
}

fn score_rows(
    rows: Vec<Row>,
    given: Option<&'static Track>,
    options: &ScoreTableOptions,
    place: &str,
) -> Result<Vec<TableScore>, TableError> {
    if rows.is_empty() {
        return shape(format!("{place}: the table has no rows"));
    }
    let track = match given {
        Some(track) => track,
        None => infer_track(&rows, place)?,
    };
    for row in &rows {
        for (column, _) in row.models.iter().flat_map(|(_, columns)| columns) {
            known_column(track, column, place)?;
        }
    }
    let dense_rows: Vec<usize> = (0..rows.len()).filter(|i| is_dense(&rows[*i], options)).collect();
    if dense_rows.is_empty() {
        let methods = rows.iter().map(Row::name).collect::<Vec<_>>().join(", ");
        return shape(match &options.dense {
            Some(name) => format!("{place}: no row is called `{name}`; the rows are {methods}"),
            None => format!(
                "{place}: no dense row (Dense, Full Prec., Full-Precision or FP16); name it with --dense; the rows are {methods}"
            ),
        });
    }
    let mut out = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        // The paper's tables state the dense model once per section: the one above a row is its own.
        let dense = dense_rows.iter().rev().find(|d| **d <= i).unwrap_or(&dense_rows[0]);
        let cells = pair(&rows[*dense], row, track);
        let oms = overall(track, &cells)
            .map_err(|source| TableError::Cell { row: format!("{place}, {}", row.name()), source })?;
        out.push(TableScore {
            track: track.number,
            method: row.method.clone(),
            setting: row.setting.clone(),
            oms,
            published: row.published.clone(),
        });
    }
    Ok(out)
}

/// Pairs every number of the dense row with the method's own, and names what either lacks.
fn pair(dense: &Row, row: &Row, track: &'static Track) -> Vec<Cell> {
    let value = |from: &Row, model: &str, column: &Column| {
        from.models
            .iter()
            .find(|(m, _)| m == model)
            .and_then(|(_, columns)| columns.iter().find(|(c, _)| track.column(c) == Some(column)))
            .and_then(|(_, value)| *value)
    };
    let mut models: Vec<&str> = dense.models.iter().map(|(m, _)| m.as_str()).collect();
    models.extend(
        row.models.iter().map(|(m, _)| m.as_str()).filter(|m| !dense.models.iter().any(|(d, _)| d == m)),
    );
    let mut cells = Vec::new();
    for column in track.columns {
        for model in &models {
            let (d, c) = (value(dense, model, column), value(row, model, column));
            if d.is_some() || c.is_some() {
                cells.push(Cell {
                    column: column.name.to_owned(),
                    model: (*model).to_owned(),
                    dense: d,
                    compressed: c,
                    resamples: std::sync::Arc::default(),
                });
            }
        }
    }
    cells
}
