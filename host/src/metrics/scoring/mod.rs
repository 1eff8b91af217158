//! Metrics that a run asks for by name or file, beside those that its tasks have of themselves: what one says of itself, what it gives, and how a
//! number with its error is made of that.
//!
//! A metric of this kind reads columns ([`FIELDS`]) and nothing else, whether it is built in ([`built_in`]) or a component
//! ([`super::component`]), so that the same definition gives the same number either way.

mod built_in;
mod fields;
mod text;

#[cfg(test)]
mod tests;

pub use built_in::{BUILT_IN, BuiltIn, built_in};
pub use fields::{Column, ColumnKind, FIELDS, Field, Of, columns};

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MetricValue, OF_TASKS, Real, mean_stderr, real};
use crate::assets::nearest;

/// Length that a metric's name may have.
const LONGEST_NAME: usize = 40;
/// Length that its summary and its unit may have.
const LONGEST_TEXT: usize = 200;
/// How far the mean of a metric's values per item may lie from the metric, relatively: sums may be taken in another order.
const MEAN_TOLERANCE: f64 = 1e-9;
/// What a metric says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its name in tables and files.
    pub name: String,
    /// What it measures, in a sentence.
    pub summary: String,
    /// Unit of its values; empty for plain numbers.
    pub unit: String,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Names of the fields that it reads.
    pub fields: Vec<String>,
}

impl Description {
    /// The fields that it reads.
    ///
    /// # Errors
    /// What is wrong with the description, in a line.
    pub fn fields(&self) -> Result<Vec<&'static Field>, String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let sound = self.name.starts_with(|c: char| c.is_ascii_lowercase()) && self.name.chars().all(plain);
        if !sound || self.name.len() > LONGEST_NAME {
            return Err(format!(
                "its name {:?} is none: it takes small letters, digits and `_`, begins with a letter, and has at most {LONGEST_NAME}",
                self.name.chars().take(LONGEST_NAME).collect::<String>()
            ));
        }
        if OF_TASKS.iter().any(|metric| metric.name == self.name) {
            return Err(format!(
                "its name `{}` is that of a metric which tasks have of themselves",
                self.name
            ));
        }
        for (what, text) in [("summary", &self.summary), ("unit", &self.unit)] {
            if text.chars().count() > LONGEST_TEXT || text.chars().any(char::is_control) {
                return Err(format!("its {what} must be one line of at most {LONGEST_TEXT} characters"));
            }
        }
        if self.fields.is_empty() {
            return Err("it reads no field of the items".to_owned());
        }
        self.fields.iter().map(|name| fields::field(name)).collect()
    }

    /// Whether the items of a task have all that it reads.
    pub fn fits(&self, perplexity: bool) -> bool {
        self.fields().is_ok_and(|fields| fields.iter().all(|field| field.of.has(perplexity)))
    }
}

/// What a metric gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// The metric over all items.
    pub value: f64,
    /// One value for each item, whose mean the metric is; absent where it is the mean of nothing.
    pub per_item: Option<Vec<f64>>,
}

impl Scores {
    /// The mean of values per item.
    pub(crate) fn mean_of(per_item: Vec<f64>) -> Scores {
        Scores { value: super::mean(&per_item), per_item: Some(per_item) }
    }

    /// The number with its standard error, over `items` items.
    ///
    /// # Errors
    /// Values that are none, or do not belong together; in a line.
    pub fn metric(&self, of: &Description, items: usize) -> Result<MetricValue, String> {
        if self.value.is_nan() {
            return Err("its value is not a number (NaN)".to_owned());
        }
        let mut stderr = None;
        if let Some(per_item) = &self.per_item {
            if per_item.len() != items {
                return Err(format!("it gave {} values per item for {items} items", per_item.len()));
            }
            if let Some(at) = per_item.iter().position(|value| value.is_nan()) {
                return Err(format!("its value of item {at} is not a number (NaN)"));
            }
            let mean = super::mean(per_item);
            let apart = (mean - self.value).abs();
            if apart > MEAN_TOLERANCE * self.value.abs().max(1.0) || (apart.is_nan() && mean != self.value) {
                return Err(format!(
                    "its value {} is not the mean of its values per item, {mean}; leave these out where it is the mean of nothing",
                    self.value
                ));
            }
            stderr = mean_stderr(per_item);
        }
        Ok(MetricValue {
            name: of.name.clone(),
            subset: None,
            value: self.value,
            stderr,
            n: items,
            higher_is_better: of.higher_is_better,
            unit: of.unit.clone(),
        })
    }
}

/// How the identity of a built-in metric begins; its name follows.
pub const BUILT_IN_SOURCE: &str = "built-in ";

/// Which metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum MetricOrder {
    /// One of [`BUILT_IN`].
    BuiltIn {
        /// Its name.
        name: String,
    },
    /// A component.
    Component {
        /// Its file, absolute.
        path: PathBuf,
        /// SHA-256 of the file.
        sha256: String,
    },
}

impl MetricOrder {
    /// What decides its results, in a text: wherever a component lies.
    pub fn identity(&self) -> String {
        match self {
            MetricOrder::BuiltIn { name } => format!("{BUILT_IN_SOURCE}{name}"),
            MetricOrder::Component { sha256, .. } => format!("component {sha256}"),
        }
    }
}

/// The metric that a suite means: a built-in one by its name, or a component by its file.
///
/// # Errors
/// There is neither, in a clause.
pub fn resolve(
    metric: &str,
    sha256: impl FnOnce(&Path) -> std::io::Result<String>,
) -> Result<MetricOrder, String> {
    if let Some(found) = built_in(metric) {
        return Ok(MetricOrder::BuiltIn { name: found.name.to_owned() });
    }
    let path = Path::new(metric);
    if path.extension().is_some_and(|end| end == "wasm") || metric.contains('/') {
        let path = path.canonicalize().map_err(|e| e.to_string())?;
        let sha256 = sha256(&path).map_err(|e| e.to_string())?;
        return Ok(MetricOrder::Component { path, sha256 });
    }
    let names = || BUILT_IN.iter().map(|metric| metric.name);
    let hint = match nearest(metric, names()).first() {
        Some(near) => format!(" (did you mean `{near}`?)"),
        None => format!("; there are {}", names().collect::<Vec<_>>().join(", ")),
    };
    Err(format!("no metric is called so{hint}; a metric of your own is named by its file, ./{metric}.wasm"))
}

/// A metric's value of an item; one line of the file beside a score stage's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ItemValue {
    /// The document's identifier in its data set, or the window's number.
    pub doc_id: String,
    /// The item's number, from 0 (in its subject, for MMLU).
    pub index: usize,
    /// Subject, where the task has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// The value.
    #[serde(with = "real")]
    #[schemars(with = "Real")]
    pub value: f64,
}
