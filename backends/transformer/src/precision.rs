//! In which precision products are formed.

use std::fmt;
use std::str::FromStr;

use crate::kernels::HalfFormat;
use crate::{Error, Result};

/// The precision of what a model's linears multiply. Sums, norms, attention and the residual stream are in single precision always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Weights and inputs in single precision.
    #[default]
    F32,
    /// Weights and inputs rounded to bfloat16.
    BF16,
    /// Weights and inputs rounded to half precision.
    F16,
}

impl Precision {
    /// All, in the order of messages.
    pub const ALL: [Precision; 3] = [Precision::F32, Precision::BF16, Precision::F16];

    /// `f32`, `bf16` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::BF16 => "bf16",
            Precision::F16 => "f16",
        }
    }

    /// Bytes of a weight that is a number.
    pub fn bytes(self) -> usize {
        match self {
            Precision::F32 => 4,
            Precision::BF16 | Precision::F16 => 2,
        }
    }

    pub(crate) fn half(self) -> Option<HalfFormat> {
        match self {
            Precision::F32 => None,
            Precision::BF16 => Some(HalfFormat::BF16),
            Precision::F16 => Some(HalfFormat::F16),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::argument(format!("precision `{text}`"), format!("there are {names}"))
        })
    }
}
