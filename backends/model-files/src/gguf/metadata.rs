//! Typed access to a GGUF's metadata.

use std::path::Path;

use super::header::{Array, Header, Kind, Tensor, Value};
use crate::{Error, Result};

const REMEDY: &str = "convert the model again with a current converter";

/// A header and the file it points into.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) path: &'a Path,
    pub(crate) bytes: &'a [u8],
    pub(crate) header: &'a Header,
}

impl<'a> View<'a> {
    pub(crate) fn fail(&self, problem: impl Into<String>) -> Error {
        Error::config(self.path, problem, REMEDY)
    }

    fn wrong(&self, key: &str, wanted: &str) -> Error {
        self.fail(format!("metadata `{key}` is not {wanted}"))
    }

    /// A whole number that is not negative, of any integer type.
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>> {
        let number = match self.header.metadata.get(key) {
            None => return Ok(None),
            Some(Value::Unsigned(n)) => usize::try_from(*n).ok(),
            Some(Value::Signed(n)) => usize::try_from(*n).ok(),
            Some(_) => None,
        };
        number.map(Some).ok_or_else(|| self.wrong(key, "a whole number"))
    }

    /// As [`View::count`], for a key that must be there and from 1 to 2^31 - 1.
    pub(crate) fn required_extent(&self, key: &str) -> Result<usize> {
        match self.count(key)? {
            Some(n) if n > 0 && i32::try_from(n).is_ok() => Ok(n),
            Some(n) => Err(self.fail(format!("metadata `{key}` is {n}, which cannot be"))),
            None => Err(self.fail(format!("metadata lacks `{key}`"))),
        }
    }

    pub(crate) fn float(&self, key: &str) -> Result<Option<f64>> {
        match self.header.metadata.get(key) {
            None => Ok(None),
            Some(Value::Float(x)) if x.is_finite() => Ok(Some(*x)),
            Some(Value::Unsigned(n)) => Ok(Some(*n as f64)),
            Some(_) => Err(self.wrong(key, "a finite number")),
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.header.metadata.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "a boolean")),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.header.metadata.get(key) {
            None => Ok(None),
            Some(Value::String(range)) => {
                let text = std::str::from_utf8(&self.bytes[range.clone()]);
                text.map(Some).map_err(|_| self.wrong(key, "UTF-8"))
            }
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }

    pub(crate) fn is_array(&self, key: &str) -> bool {
        matches!(self.header.metadata.get(key), Some(Value::Array(_)))
    }

    fn array(&self, key: &str) -> Result<Option<(&'a Array, &'a [u8])>> {
        match self.header.metadata.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) => Ok(Some((array, &self.bytes[array.range.clone()]))),
            Some(_) => Err(self.wrong(key, "an array")),
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        let Some((array, mut rest)) = self.array(key)? else { return Ok(None) };
        if array.kind != Kind::String {
            return Err(self.wrong(key, "an array of strings"));
        }
        let mut texts = Vec::with_capacity(array.count);
        for index in 0..array.count {
            // The walk over the header checked these lengths; a mismatch here would still end in an error.
            let text = rest.split_first_chunk::<8>().and_then(|(length, after)| {
                let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
                let (text, after) = after.split_at_checked(length)?;
                rest = after;
                std::str::from_utf8(text).ok()
            });
            texts.push(
                text.ok_or_else(|| self.fail(format!("element {index} of metadata `{key}` is not UTF-8")))?,
            );
        }
        Ok(Some(texts))
    }

    pub(crate) fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        let Some((array, bytes)) = self.array(key)? else { return Ok(None) };
        if array.kind != Kind::F32 {
            return Err(self.wrong(key, "an array of 32-bit floats"));
        }
        Ok(Some(little_endian_f32(bytes)))
    }

    /// An array of 32-bit integers; values beyond `i32` are refused.
    pub(crate) fn integers(&self, key: &str) -> Result<Option<Vec<i32>>> {
        let Some((array, bytes)) = self.array(key)? else { return Ok(None) };
        if !matches!(array.kind, Kind::I32 | Kind::U32) {
            return Err(self.wrong(key, "an array of 32-bit integers"));
        }
        let integers = bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let integers: Vec<i32> = integers.collect();
        if array.kind == Kind::U32 && integers.iter().any(|&n| n < 0) {
            return Err(self.wrong(key, "an array of small integers"));
        }
        Ok(Some(integers))
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<&'a Tensor> {
        self.header.tensors.iter().find(|tensor| tensor.name == name)
    }
}

pub(crate) fn little_endian_f32(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
