//! Floating-point numbers in JSON, which has no infinity and no NaN: these are written as strings.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number, or the name of one that JSON cannot write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Real {
    /// A finite number.
    Finite(f64),
    /// `inf`, `-inf` or `nan`.
    Named(String),
}

impl From<f64> for Real {
    fn from(value: f64) -> Self {
        if value.is_finite() {
            Self::Finite(value)
        } else if value.is_nan() {
            Self::Named("nan".to_owned())
        } else if value > 0.0 {
            Self::Named("inf".to_owned())
        } else {
            Self::Named("-inf".to_owned())
        }
    }
}

impl TryFrom<Real> for f64 {
    type Error = String;

    fn try_from(value: Real) -> Result<Self, String> {
        match value {
            Real::Finite(value) => Ok(value),
            Real::Named(name) => match name.as_str() {
                "inf" => Ok(Self::INFINITY),
                "-inf" => Ok(Self::NEG_INFINITY),
                "nan" => Ok(Self::NAN),
                _ => Err(format!("`{name}` is no number: expected a number, `inf`, `-inf` or `nan`")),
            },
        }
    }
}

/// For `#[serde(with = "real")]` on an `f64`.
pub mod real {
    use super::{Deserialize, Deserializer, Real, Serialize, Serializer};

    /// Writes a number.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        Real::from(*value).serialize(serializer)
    }

    /// Reads a number.
    ///
    /// # Errors
    /// Where there is neither a number nor the name of one.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Real::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

/// For `#[serde(with = "reals")]` on a `Vec<f64>`.
pub mod reals {
    use super::{Deserialize, Deserializer, Real, Serializer};

    /// Writes numbers.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|v| Real::from(*v)))
    }

    /// Reads numbers.
    ///
    /// # Errors
    /// Where an element is neither a number nor the name of one.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        Vec::<Real>::deserialize(deserializer)?
            .into_iter()
            .map(|v| f64::try_from(v).map_err(serde::de::Error::custom))
            .collect()
    }
}
