//! Reads the files that data sets' authors publish, from a folder that the user names.

use super::error::AssetError;
use super::record::{Record, distinct};
use super::registry::{Asset, Layout, MMLU_SUBJECTS, Part};
use super::tables;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What a folder gave.
pub(crate) enum Found {
    /// Rows, and the file or folder that they came from.
    Rows(Vec<Record>, PathBuf),
    /// A file to be used where it lies.
    File(PathBuf),
}

fn read(path: &Path) -> Result<Vec<u8>, AssetError> {
    std::fs::read(path).map_err(|e| AssetError::io("read", path, e))
}

/// Folders in which the asset's files may lie: subfolders by the asset's names, then `root` itself.
fn places(root: &Path, asset: &Asset) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = asset.folders.iter().map(|name| root.join(name)).collect();
    places.push(root.to_owned());
    places.retain(|place| place.is_dir());
    places
}

/// Looks for a part below `root`.
///
/// # Errors
/// A file that is there but cannot be read or holds something else is an error: the user named it. `Ok(Err(reason))` says that the
/// folder has no such file.
pub(crate) fn find(root: &Path, asset: &Asset, part: &Part) -> Result<Result<Found, String>, AssetError> {
    if !root.is_dir() {
        return Ok(Err("there is no such folder".to_owned()));
    }
    for place in places(root, asset) {
        if let Some(found) = find_in(&place, part)? {
            return Ok(Ok(found));
        }
    }
    let names = match part.layout {
        Layout::JsonLines(names)
        | Layout::Lines(names)
        | Layout::Tsv(names)
        | Layout::AdvGlue(names)
        | Layout::TruthfulCsv(names)
        | Layout::File(names) => names.join(" or "),
        Layout::JsonLinesAndLabels(names) => names
            .iter()
            .map(|(rows, labels)| format!("{rows} with {labels}"))
            .collect::<Vec<_>>()
            .join(" or "),
        Layout::MmluCsv(split) => format!("{split}/<subject>_{split}.csv"),
    };
    let places = asset.folders.join(", ");
    Ok(Err(format!("has no {names}, neither directly nor in {places}")))
}

fn find_in(place: &Path, part: &Part) -> Result<Option<Found>, AssetError> {
    match part.layout {
        Layout::File(names) => {
            let file = names.iter().map(|name| place.join(name)).find(|path| path.is_file());
            Ok(file.map(Found::File))
        }
        Layout::Lines(names) => {
            if let Some(path) = names.iter().map(|name| place.join(name)).find(|p| p.is_file()) {
                let rows = tables::lines(&read(&path)?, &path.display().to_string())?;
                return Ok(Some(Found::Rows(rows, path)));
            }
            Ok(None)
        }
        Layout::JsonLines(names) => rows_of(place, names, part, tables::json_lines),
        Layout::Tsv(names) => rows_of(place, names, part, tables::tsv),
        Layout::AdvGlue(names) => rows_of(place, names, part, tables::adv_glue),
        Layout::TruthfulCsv(names) => {
            if let Some(path) = names.iter().map(|name| place.join(name)).find(|p| p.is_file()) {
                let file = path.display().to_string();
                let rows = tables::truthful_csv(&read(&path)?, &file)?;
                return Ok(Some(Found::Rows(nonempty(rows, &file)?, path)));
            }
            Ok(None)
        }
        Layout::JsonLinesAndLabels(names) => {
            for (rows, labels) in names {
                let path = place.join(rows);
                if path.is_file() {
                    return labelled(&path, &place.join(labels), part).map(Some);
                }
            }
            Ok(None)
        }
        Layout::MmluCsv(split) => {
            let folder = place.join(split);
            if !folder.is_dir() {
                return Ok(None);
            }
            let path = |subject: &str| folder.join(format!("{subject}_{split}.csv"));
            let missing: Vec<&str> = MMLU_SUBJECTS
                .iter()
                .map(|(subject, _)| *subject)
                .filter(|subject| !path(subject).is_file())
                .collect();
            if missing.len() == MMLU_SUBJECTS.len() {
                return Ok(None);
            }
            if !missing.is_empty() {
                return Err(AssetError::data(
                    folder.display().to_string(),
                    None,
                    format!(
                        "has no `_{split}.csv` for {} of 57 subjects: {}",
                        missing.len(),
                        missing.join(", ")
                    ),
                ));
            }
            let mut all = Vec::new();
            for (subject, _) in MMLU_SUBJECTS {
                let path = path(subject);
                let file = path.display().to_string();
                all.extend(nonempty(tables::mmlu_csv(&read(&path)?, &file, subject)?, &file)?);
            }
            Ok(Some(Found::Rows(all, folder)))
        }
    }
}

/// Rows of the first of these files that is there.
fn rows_of(
    place: &Path,
    names: &[&str],
    part: &Part,
    parse: impl Fn(&[u8], &str) -> Result<Vec<(u64, Value)>, AssetError>,
) -> Result<Option<Found>, AssetError> {
    let Some(path) = names.iter().map(|name| place.join(name)).find(|p| p.is_file()) else {
        return Ok(None);
    };
    let file = path.display().to_string();
    let rows = parse(&read(&path)?, &file)?;
    let rows = distinct(part.schema, tables::records(&rows, part.schema, &file)?);
    Ok(Some(Found::Rows(nonempty(rows, &file)?, path)))
}

fn nonempty(rows: Vec<Record>, file: &str) -> Result<Vec<Record>, AssetError> {
    if rows.is_empty() {
        return Err(AssetError::data(file, None, "holds no rows"));
    }
    Ok(rows)
}

/// PIQA's layout: rows in one file, their labels line by line in another. Labels inside the rows are accepted, too.
fn labelled(rows_path: &Path, labels_path: &Path, part: &Part) -> Result<Found, AssetError> {
    let file = rows_path.display().to_string();
    let mut rows = tables::json_lines(&read(rows_path)?, &file)?;
    if labels_path.is_file() {
        let labels_file = labels_path.display().to_string();
        let text = tables::text(&read(labels_path)?, &labels_file)?;
        let labels: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        if labels.len() != rows.len() {
            return Err(AssetError::data(
                labels_file,
                None,
                format!("has {} labels, but {file} has {} rows", labels.len(), rows.len()),
            ));
        }
        for ((line, row), label) in rows.iter_mut().zip(labels) {
            let Value::Object(row) = row else {
                return Err(AssetError::data(file, Some(*line), "a row must be an object"));
            };
            row.insert("label".to_owned(), Value::String(label.trim().to_owned()));
        }
    } else if rows.iter().any(|(_, row)| row.get("label").is_none()) {
        return Err(AssetError::data(
            file,
            None,
            format!("has rows without a label, and {} is not there", labels_path.display()),
        ));
    }
    let rows = tables::records(&rows, part.schema, &file)?;
    Ok(Found::Rows(nonempty(rows, &file)?, rows_path.to_owned()))
}
