//! Reading a `config.json` with messages that name the key.

use serde_json::{Map, Value};

use super::LARGEST_EXTENT;
use crate::{Error, Result};

/// A JSON object whose keys are asked for with messages that name them.
pub(crate) struct Keys<'a> {
    pub(crate) model: &'a str,
    pub(crate) object: Option<&'a Map<String, Value>>,
    pub(crate) prefix: &'a str,
}

impl<'a> Keys<'a> {
    pub(crate) fn wrong(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Config { model: self.model.to_owned(), problem: problem.into(), remedy: remedy.into() }
    }

    pub(crate) fn path(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) }
    }

    /// The value of a key; JSON's null counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.and_then(|object| object.get(key)).filter(|value| !value.is_null())
    }

    pub(crate) fn optional_extent(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(v) if (1..=LARGEST_EXTENT).contains(&v) => Ok(Some(v)),
            _ => Err(self.wrong(
                format!("`{}` is {value}", self.path(key)),
                format!("it must be a whole number from 1 to {LARGEST_EXTENT}"),
            )),
        }
    }

    pub(crate) fn extent(&self, key: &str) -> Result<usize> {
        self.optional_extent(key)?.ok_or_else(|| {
            self.wrong(format!("`{}` is missing", self.path(key)), "a model of this family needs it")
        })
    }

    pub(crate) fn extent_or(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.optional_extent(key)?.unwrap_or(default))
    }

    pub(crate) fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            Some(v) => Ok(Some(v)),
            None => Err(self.wrong(format!("`{}` is {value}", self.path(key)), "it must be a number")),
        }
    }

    pub(crate) fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(v)) => Ok(*v),
            Some(value) => {
                Err(self.wrong(format!("`{}` is {value}", self.path(key)), "it must be true or false"))
            }
        }
    }

    /// Refuses another value of a key than those of `known`, of which `default` is meant where it is absent.
    pub(crate) fn expect_text(&self, key: &str, known: &[&str], default: &str) -> Result<()> {
        let value = match self.get(key) {
            None => default,
            Some(value) => value.as_str().unwrap_or_default(),
        };
        if known.contains(&value) {
            return Ok(());
        }
        Err(self.wrong(
            format!("`{}` is `{value}`, but this family is computed with `{default}`", self.path(key)),
            format!("use a model with `{default}`"),
        ))
    }

    /// Refuses another value of a flag than `expected`, which is also meant where it is absent.
    pub(crate) fn expect_flag(&self, key: &str, expected: bool) -> Result<()> {
        if self.flag(key, expected)? == expected {
            return Ok(());
        }
        Err(self.wrong(
            format!("`{}` is {}, which is not implemented", self.path(key), !expected),
            format!("use a model with `{key}` {expected}, or another backend"),
        ))
    }

    /// The width of a head: the key's value, else the hidden size shared among heads.
    pub(crate) fn head_dim(&self, key: &str, hidden_size: usize, heads: usize) -> Result<usize> {
        match self.optional_extent(key)? {
            Some(width) => Ok(width),
            None if hidden_size.is_multiple_of(heads) => Ok(hidden_size / heads),
            None => Err(self.wrong(
                format!("`hidden_size` {hidden_size} is no multiple of `num_attention_heads` {heads}"),
                format!("correct one of them, or give `{key}`"),
            )),
        }
    }

    pub(crate) fn section(&self, key: &str) -> Result<Option<&'a Map<String, Value>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(section)) => Ok(Some(section)),
            Some(value) => {
                Err(self.wrong(format!("`{}` is {value}", self.path(key)), "it must be an object"))
            }
        }
    }
}
