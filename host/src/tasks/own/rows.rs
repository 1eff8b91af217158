//! Rows of the user's own data.

use super::{Options, OwnTask};
use crate::assets::record::{Own, kind};
use serde_json::Value;

/// Letters that options can be told apart by.
const LETTERS: usize = 26;

/// A field of a row; `a.b` is field `b` of the object in field `a`.
fn find<'a>(row: &'a Value, name: &str) -> Option<&'a Value> {
    row.get(name).or_else(|| {
        let (outer, inner) = name.split_once('.')?;
        find(row.get(outer)?, inner)
    })
}

/// The number of a letter, if it is one.
fn of_letter(text: &str) -> Option<usize> {
    match text.as_bytes() {
        [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
        _ => None,
    }
}

/// Whether these can be told apart and scored; else what to do, in a clause.
pub(super) fn check_options(options: &[String], letters: bool) -> Result<(), String> {
    match options.len() {
        n if n < 2 => Err(format!("needs two or more choices, found {n}")),
        n if letters && n > LETTERS => Err(format!("has {n} choices, but there are only {LETTERS} letters")),
        _ => match options.iter().position(|option| option.trim().is_empty()) {
            Some(at) => Err(format!("choice number {at} (from 0) is empty; every choice needs a text")),
            None => Ok(()),
        },
    }
}

/// The choice that a value means.
fn right(value: &Value, options: &[String]) -> Result<usize, String> {
    let count = options.len();
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => {
            // Tools write whole numbers with a point where a column has gaps.
            let whole = number.as_f64().filter(|n| n.fract() == 0.0 && *n >= 0.0).map(|n| n as u64);
            let index =
                number.as_u64().or(whole).and_then(|n| usize::try_from(n).ok()).filter(|n| *n < count);
            return index.ok_or_else(|| {
                format!("is {number}, but choices have the whole numbers 0 to {}", count.saturating_sub(1))
            });
        }
        other => return Err(format!("must be a choice's number, letter or text, found {}", kind(other))),
    };
    let mut meant = Vec::new();
    meant.extend(options.iter().position(|option| *option == text));
    meant.extend(of_letter(text.trim()).or_else(|| text.trim().parse().ok()).filter(|n| *n < count));
    match meant.as_slice() {
        [one] => Ok(*one),
        [one, other] if one == other => Ok(*one),
        [] => Err(format!(
            "is {text:?}, which is no choice's text, letter (A for the first) or number (0 for the first)"
        )),
        _ => Err(format!(
            "is {text:?}, which is the text of one choice and the letter or number of another; give the number from 0 on, without quotation marks"
        )),
    }
}

impl OwnTask {
    /// A row as a question.
    ///
    /// # Errors
    /// Which field is wrong, and what would do, in a clause.
    pub(super) fn record(&self, row: &Value) -> Result<Own, String> {
        let Value::Object(object) = row else {
            return Err(format!(
                "a row must be an object, such as {{\"question\": ...}}, found {}",
                kind(row)
            ));
        };
        let get = |name: &str, key: &str| {
            find(row, name).ok_or_else(|| {
                let names: Vec<&str> = object.keys().map(String::as_str).take(20).collect();
                format!(
                    "has no field `{name}`, which `{key}` of {} names; its fields are {}",
                    self.path().display(),
                    names.join(", ")
                )
            })
        };
        let text = |name: &str, key: &str| match get(name, key)? {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(value) => Ok(value.to_string()),
            other => Err(format!("`{name}` must be a string or a number, found {}", kind(other))),
        };
        let options = match &self.options {
            Options::Words(words) => words.clone(),
            Options::Field(name) => {
                let wrong =
                    |found: &Value| format!("`{name}` must be a list of strings, found {}", kind(found));
                let Value::Array(items) = get(name, "choices")? else {
                    return Err(wrong(get(name, "choices")?));
                };
                let strings = items.iter().map(|item| match item {
                    Value::String(text) => Ok(text.clone()),
                    other => Err(format!("{} in it", wrong(other))),
                });
                let options: Vec<String> = strings.collect::<Result<_, _>>()?;
                check_options(&options, self.letters).map_err(|what| format!("`{name}` {what}"))?;
                options
            }
        };
        let filled = |template: &super::Template, key: &str| {
            template.fill(|name| match of_letter(name).filter(|_| self.letters) {
                Some(at) => options.get(at).cloned().ok_or_else(|| {
                    format!("has {} choices, but `{key}` names choice {{{name}}}", options.len())
                }),
                None => text(name, key),
            })
        };
        let answer = get(&self.answer, "answer")?;
        Ok(Own {
            subset: self.subset.as_ref().map_or(Ok(String::new()), |name| text(name, "subset"))?,
            description: filled(&self.description, "description")?,
            prompt: filled(&self.prompt, "prompt")?,
            right: right(answer, &options).map_err(|what| format!("`{}` {what}", self.answer))?,
            choices: options,
        })
    }
}
