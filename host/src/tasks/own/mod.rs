//! Tasks of the user's own: a TOML file says how the rows of a JSON Lines file beside it become multiple-choice questions.
//!
//! Every row becomes a [`Record::Own`], whose texts are filled in already; from there on it goes the way of the built-in tasks, whose
//! requests and metrics it therefore has. The keys of the file are those of [`File`]; `host/examples/tasks/README.md` explains them with an
//! example.

mod rows;
mod template;

#[cfg(test)]
mod tests;

use super::docs::DataUse;
use super::table::{Choices, Pool, TASKS, TaskKind, TaskSpec};
use crate::assets::{AssetError, Record, json_lines, sha256_hex};
use serde::Deserialize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use template::Template;
use toml::Spanned;

/// What the name of a task file ends with.
pub const EXTENSION: &str = ".toml";

/// The part of a task's data that is asked.
pub(super) const EVALUATION: &str = "evaluation";
/// The part that solved examples are drawn from, where it is a file of its own.
pub(super) const EXAMPLES: &str = "examples";

/// The keys of a task file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Name in results: small letters, digits, `_`; no built-in task's.
    name: Spanned<String>,
    /// One line on what it measures.
    #[serde(default)]
    what: String,
    /// The JSON Lines file with a question in each row; its path is relative to the task file.
    data: Spanned<String>,
    /// One like it, from which solved examples are drawn at random; without it they are drawn from the data, and never are the question at
    /// hand.
    #[serde(default)]
    examples: Option<Spanned<String>>,
    /// Stands before everything else, examples included.
    #[serde(default)]
    description: Option<Spanned<String>>,
    /// The question; `{field}` is replaced by the row's field, `{{` and `}}` are braces.
    prompt: Spanned<String>,
    /// `"{field}"`, a field with a list of strings, or a list of strings that are the same for all rows.
    choices: Spanned<ChoicesKey>,
    /// Score the letters A, B, ... instead of the choices' texts, which the prompt then names `{A}`, `{B}`, ...
    #[serde(default)]
    letters: bool,
    /// `"{field}"`, a field with the right choice: its number from 0, its letter, or its text.
    answer: Spanned<String>,
    /// Give `acc_norm` (log-likelihood per character) beside `acc`.
    #[serde(default)]
    normalised: Option<Spanned<bool>>,
    /// `"{field}"`, a field with the name of a part of the task, which gets numbers of its own.
    #[serde(default)]
    subset: Option<Spanned<String>>,
    /// The metric that tables show: `acc`, or `acc_norm` where that is given, which is then the default.
    #[serde(default)]
    metric: Option<Spanned<String>>,
    /// For the user's own book-keeping.
    #[serde(default = "first")]
    version: String,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "must be \"{field}\" or a list of strings")]
enum ChoicesKey {
    Field(String),
    Words(Vec<String>),
}

fn first() -> String {
    "1".to_owned()
}

/// Where a row's options come from.
#[derive(Debug)]
enum Options {
    Field(String),
    Words(Vec<String>),
}

/// A task file that was read and makes sense.
#[derive(Debug)]
pub struct OwnTask {
    path: PathBuf,
    sha256: String,
    name: String,
    what: String,
    version: String,
    headline: &'static str,
    data: PathBuf,
    examples: Option<PathBuf>,
    description: Template,
    prompt: Template,
    options: Options,
    letters: bool,
    answer: String,
    normalised: bool,
    subset: Option<String>,
}

impl OwnTask {
    /// Reads a task file, and looks whether its data are there.
    ///
    /// # Errors
    /// Names the file, the line, and what would do.
    pub fn load(path: &Path) -> Result<Self, AssetError> {
        let bytes = std::fs::read(path).map_err(|e| AssetError::io("read", path, e))?;
        let shown = path.display().to_string();
        let text = std::str::from_utf8(&bytes)
            .map_err(|e| AssetError::data(&*shown, Some(line_of(&bytes, e.valid_up_to())), "is not UTF-8"))?;
        let wrong = |(at, what): (Option<usize>, String)| {
            AssetError::data(&*shown, at.map(|at| line_of(&bytes, at)), what)
        };
        let file: File = toml::from_str(text)
            .map_err(|e| wrong((e.span().map(|span| span.start), e.message().trim_end().to_owned())))?;
        Self::check(path, sha256_hex(&bytes), file).map_err(|(span, what)| wrong((Some(span.start), what)))
    }

    fn check(path: &Path, sha256: String, file: File) -> Result<Self, (Range<usize>, String)> {
        let name = checked(&file.name, |name| match name {
            _ if name.is_empty()
                || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') =>
            {
                Err("must be of small letters, digits and `_`, for example \"capitals\"".to_owned())
            }
            _ if TASKS.iter().any(|spec| spec.id == name) || name == "text" || name.starts_with("mmlu_") => {
                Err(format!("`{name}` is a built-in task; choose another name"))
            }
            _ => Ok(name.to_owned()),
        })
        .map_err(of_key("name"))?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let there = |given: &str| {
            let file = folder.join(given);
            match file.is_file() {
                true => Ok(file),
                false => Err(format!(
                    "{}: no such file; give a JSON Lines file by its path from the folder of the task file",
                    file.display()
                )),
            }
        };
        let data = checked(&file.data, there).map_err(of_key("data"))?;
        let examples =
            file.examples.as_ref().map(|e| checked(e, there)).transpose().map_err(of_key("examples"))?;
        let description = match &file.description {
            Some(text) => checked(text, Template::parse).map_err(of_key("description"))?,
            None => Template::default(),
        };
        let prompt = checked(&file.prompt, Template::parse).map_err(of_key("prompt"))?;
        let span = file.choices.span();
        let options = match file.choices.into_inner() {
            ChoicesKey::Field(text) => field(&text).map(Options::Field),
            ChoicesKey::Words(words) => {
                rows::check_options(&words, file.letters).map(|()| Options::Words(words))
            }
        }
        .map_err(|what| of_key("choices")((span, what)))?;
        let answer = checked(&file.answer, field).map_err(of_key("answer"))?;
        let subset = file.subset.as_ref().map(|s| checked(s, field)).transpose().map_err(of_key("subset"))?;
        let normalised = file.normalised.as_ref().is_some_and(|n| *n.get_ref());
        if let Some(given) = file.normalised.filter(|n| *n.get_ref() && file.letters) {
            let what = "letters are all equally long, so `acc_norm` would be `acc`; leave it out, or leave `letters` out";
            return Err(of_key("normalised")((given.span(), what.to_owned())));
        }
        let headline = match &file.metric {
            None if normalised => "acc_norm",
            None => "acc",
            Some(metric) => checked(metric, |metric| match metric {
                "acc" => Ok("acc"),
                "acc_norm" if normalised => Ok("acc_norm"),
                "acc_norm" => Err("`acc_norm` is given only with `normalised = true`; add that".to_owned()),
                _ => Err(format!(
                    "there is no metric `{metric}`; there are acc and, with `normalised = true`, acc_norm"
                )),
            })
            .map_err(of_key("metric"))?,
        };
        Ok(Self {
            path: path.to_owned(),
            sha256,
            name,
            what: file.what,
            version: file.version,
            headline,
            data,
            examples,
            description,
            prompt,
            options,
            letters: file.letters,
            answer,
            normalised,
            subset,
        })
    }

    /// The file it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The task as the built-in ones are defined. A row's texts are filled in when it is read.
    #[must_use]
    pub fn spec(&self) -> TaskSpec<'_> {
        TaskSpec {
            id: &self.name,
            what: &self.what,
            version: &self.version,
            data: ("", EVALUATION),
            kind: TaskKind::Choice {
                choices: if self.letters { Choices::Letters } else { Choices::Options },
                description: "{description}",
                prompt: "{prompt}",
                pools: match self.examples {
                    Some(_) => &[Pool::Drawn(EXAMPLES)],
                    None => &[Pool::Evaluated],
                },
                normalised: self.normalised,
            },
            headline: self.headline,
            names: &[],
        }
    }

    /// The task file itself, as a piece of data that results depend on.
    pub(super) fn definition(&self) -> DataUse {
        used(&self.path, "definition", self.sha256.clone())
    }

    /// The rows of [`EVALUATION`] or [`EXAMPLES`].
    pub(super) fn read(&self, part: &str) -> Result<(Vec<Record>, DataUse), AssetError> {
        let path = match &self.examples {
            Some(examples) if part == EXAMPLES => examples,
            _ => &self.data,
        };
        let bytes = std::fs::read(path).map_err(|e| AssetError::io("read", path, e))?;
        let shown = path.display().to_string();
        let records = json_lines(&bytes, &shown)?
            .iter()
            .map(|(line, row)| {
                self.record(row).map_err(|what| AssetError::data(&*shown, Some(*line), what)).map(Record::Own)
            })
            .collect::<Result<_, _>>()?;
        Ok((records, used(path, part, sha256_hex(&bytes))))
    }
}

fn used(path: &Path, role: &str, sha256: String) -> DataUse {
    let name = path.display().to_string();
    DataUse {
        asset: name.clone(),
        part: String::new(),
        role: role.to_owned(),
        sha256,
        source: name,
        note: None,
    }
}

/// Line of a place in a file, from 1.
fn line_of(bytes: &[u8], at: usize) -> u64 {
    1 + bytes[..at.min(bytes.len())].iter().filter(|b| **b == b'\n').count() as u64
}

fn checked<T>(
    value: &Spanned<String>,
    check: impl Fn(&str) -> Result<T, String>,
) -> Result<T, (Range<usize>, String)> {
    check(value.get_ref()).map_err(|what| (value.span(), what))
}

fn of_key(key: &'static str) -> impl Fn((Range<usize>, String)) -> (Range<usize>, String) {
    move |(span, what)| (span, format!("`{key}`: {what}"))
}

/// The field's name in `{field}`.
fn field(text: &str) -> Result<String, String> {
    match Template::parse(text)?.field() {
        Some(name) => Ok(name.to_owned()),
        None => Err(format!("must name one field in braces, such as \"{{label}}\", found {text:?}")),
    }
}
