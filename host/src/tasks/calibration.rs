//! Texts on which methods calibrate.

use super::TaskError;
use super::docs::{join, read_text};
use super::sampler::PythonRandom;
use crate::assets::{AssetError, ProgressFn, Store};
use std::path::Path;

/// The text used where the user names none. It shares no passage with any text that a task evaluates on.
pub const DEFAULT_CALIBRATION: &str = "boolq_passages";

/// A text for calibration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationText {
    /// Its name: `boolq_passages`, `wikitext2`, `wikitext2:validation`, or `text:PATH`.
    pub name: String,
    /// The text, one stream.
    pub text: String,
    /// SHA-256 of the data; belongs in content keys.
    pub sha256: String,
    /// Where it came from.
    pub source: String,
    /// What a user should know about it.
    pub note: Option<String>,
}

/// A calibration text by name; `None` takes [`DEFAULT_CALIBRATION`]. `wikitext2` is its training set, `wikitext2:validation` its validation set,
/// `text:PATH` a file.
///
/// # Errors
/// Where no text has this name, or it cannot be had.
pub fn calibration_text(
    name: Option<&str>,
    store: &Store,
    progress: &ProgressFn<'_>,
) -> Result<CalibrationText, TaskError> {
    let name = name.unwrap_or(DEFAULT_CALIBRATION);
    let (asset, part) = match name {
        "boolq_passages" => ("boolq_passages", "calibration"),
        "wikitext2" => ("wikitext2", "train"),
        "wikitext2:validation" => ("wikitext2", "validation"),
        _ => {
            let Some(path) = name.strip_prefix("text:").filter(|path| !path.is_empty()) else {
                return Err(TaskError::Option {
                    task: "calibration".to_owned(),
                    what: format!(
                        "no calibration text is called `{name}`; there are boolq_passages, wikitext2, wikitext2:validation and text:FILE"
                    ),
                });
            };
            let (text, used) = read_text(Path::new(path))?;
            return Ok(CalibrationText {
                name: name.to_owned(),
                text,
                sha256: used.sha256,
                source: used.source,
                note: None,
            });
        }
    };
    let obtained = store.obtain(asset, part, progress)?;
    if obtained.records.is_empty() {
        return Err(AssetError::data(obtained.path.display().to_string(), None, "holds no rows").into());
    }
    Ok(CalibrationText {
        name: name.to_owned(),
        text: join(&obtained.records),
        sha256: obtained.sha256,
        source: obtained.source,
        note: obtained.note,
    })
}

/// How windows are taken from a calibration text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Windows {
    /// The first ones, one after the other.
    First,
    /// At random places, which may overlap (as published GPTQ takes them), by a seed.
    Random {
        /// Seed of the places.
        seed: u64,
    },
}

/// `count` windows of `seqlen` tokens each.
///
/// # Errors
/// Where the text has too few tokens; the message says how many there are.
pub fn windows(
    tokens: &[u32],
    seqlen: usize,
    count: usize,
    how: Windows,
) -> Result<Vec<Vec<u32>>, TaskError> {
    let refuse = |what: String| TaskError::Option { task: "calibration".to_owned(), what };
    if seqlen == 0 || count == 0 {
        return Err(refuse("windows and their length must be 1 or more".to_owned()));
    }
    match how {
        Windows::First => {
            let there = tokens.len() / seqlen;
            if there < count {
                return Err(refuse(format!(
                    "{count} windows of {seqlen} tokens asked for, but the text has {} tokens ({there} windows)",
                    tokens.len()
                )));
            }
            Ok(tokens.chunks_exact(seqlen).take(count).map(<[u32]>::to_vec).collect())
        }
        Windows::Random { seed } => {
            let places = (tokens.len() + 1).checked_sub(seqlen).filter(|p| *p > 0).ok_or_else(|| {
                refuse(format!(
                    "windows of {seqlen} tokens asked for, but the text has only {}",
                    tokens.len()
                ))
            })?;
            let mut random = PythonRandom::new(seed);
            Ok((0..count)
                .map(|_| {
                    let at = random.sample(places, 1)[0];
                    tokens[at..at + seqlen].to_vec()
                })
                .collect())
        }
    }
}
