//! Rotary position embedding (Su et al. 2021): which numbers of a head turn, in which pairs, and how fast.

use serde_json::Value;

use super::keys::Keys;
use crate::Result;

/// How queries and keys are turned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotary {
    /// Base of the frequencies.
    pub theta: f64,
    /// How the frequencies are stretched.
    pub scaling: RopeScaling,
    /// How many numbers of each head turn, from its first on; even.
    pub width: usize,
    /// Whether neighbours are the pairs that turn (ChatGLM), instead of number `i` and number `i + width / 2`.
    pub interleaved: bool,
}

/// How rotary frequencies are stretched for contexts longer than those of pre-training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All frequencies divided by `factor` (Chen et al. 2023, position interpolation).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, those between interpolated (LLaMA 3.1).
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Frequencies with fewer turns than this in the original context are low.
        low_freq_factor: f64,
        /// Frequencies with more turns than this in the original context are high.
        high_freq_factor: f64,
        /// The context of pre-training, in tokens.
        original_max_position_embeddings: f64,
    },
}

impl Rotary {
    /// Frequencies, radians per position: `[width / 2]`.
    ///
    /// In single precision, step by step as the models' own implementations compute them: they were trained with these values, and at
    /// long distances exact ones give measurably other scores.
    pub fn frequencies(&self) -> Vec<f32> {
        (0..self.width / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / self.width as f32;
                let frequency = 1.0 / (self.theta as f32).powf(exponent);
                match self.scaling {
                    RopeScaling::Default => frequency,
                    RopeScaling::Linear { factor } => frequency / factor as f32,
                    RopeScaling::Llama3 {
                        factor,
                        low_freq_factor,
                        high_freq_factor,
                        original_max_position_embeddings: original,
                    } => {
                        let wavelength = std::f32::consts::TAU / frequency;
                        if f64::from(wavelength) > original / low_freq_factor {
                            frequency / factor as f32
                        } else if f64::from(wavelength) < original / high_freq_factor {
                            frequency
                        } else {
                            let turns = original as f32 / wavelength;
                            let smooth = (turns - low_freq_factor as f32)
                                / (high_freq_factor - low_freq_factor) as f32;
                            (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
                        }
                    }
                }
            })
            .collect()
    }

    /// Reads them, for heads of so many numbers, in the spelling of transformers 5 (`rope_parameters`) or the older one (`rope_theta` and
    /// `rope_scaling`).
    pub(crate) fn read(keys: &Keys<'_>, head_dim: usize) -> Result<Self> {
        let (section, name) = match (keys.section("rope_parameters")?, keys.section("rope_scaling")?) {
            (Some(section), _) => (Some(section), "rope_parameters"),
            (None, scaling) => (scaling, "rope_scaling"),
        };
        let inner = Keys { model: keys.model, object: section, prefix: name };
        let theta = match inner.optional_number("rope_theta")? {
            Some(theta) => theta,
            None => keys.number_or("rope_theta", 10_000.0)?,
        };
        if !(theta > 0.0 && theta.is_finite()) {
            return Err(keys.wrong(format!("`rope_theta` is {theta}"), "it must be positive"));
        }
        let part = match inner.optional_number("partial_rotary_factor")? {
            Some(part) => part,
            None => keys.number_or("partial_rotary_factor", 1.0)?,
        };
        if !(part > 0.0 && part <= 1.0) {
            return Err(
                keys.wrong(format!("`partial_rotary_factor` is {part}"), "it must be above 0 and at most 1")
            );
        }
        let kind = section
            .and_then(|s| s.get("rope_type").or_else(|| s.get("type")))
            .and_then(Value::as_str)
            .unwrap_or("default");
        let positive =
            |key: &'static str| -> Result<f64> {
                match inner.optional_number(key)? {
                    Some(v) if v > 0.0 && v.is_finite() => Ok(v),
                    Some(v) => Err(inner.wrong(format!("`{name}.{key}` is {v}"), "it must be positive")),
                    None => Err(inner
                        .wrong(format!("`{name}.{key}` is missing"), format!("rope type `{kind}` needs it"))),
                }
            };
        let scaling = match kind {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: positive("factor")? },
            "llama3" => {
                let low_freq_factor = positive("low_freq_factor")?;
                let high_freq_factor = positive("high_freq_factor")?;
                if high_freq_factor <= low_freq_factor {
                    return Err(inner.wrong(
                        format!("`{name}.high_freq_factor` {high_freq_factor} is not above `low_freq_factor` {low_freq_factor}"),
                        "LLaMA 3 has 4 and 1",
                    ));
                }
                RopeScaling::Llama3 {
                    factor: positive("factor")?,
                    low_freq_factor,
                    high_freq_factor,
                    original_max_position_embeddings: positive("original_max_position_embeddings")?,
                }
            }
            other => {
                return Err(inner.wrong(
                    format!("rope type `{other}` is not implemented"),
                    "use a model with `default`, `linear` or `llama3`, or another backend",
                ));
            }
        };
        Ok(Self { theta, scaling, width: (head_dim as f64 * part) as usize, interleaved: false })
    }
}
