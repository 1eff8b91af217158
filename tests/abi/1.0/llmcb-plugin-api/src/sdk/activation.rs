//! Quantised activations.

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

/// How activations are rounded before they are multiplied.
///
/// With `b` bits, on values `x` of one token (dynamic), or of a range fixed beforehand (static):
///
/// * symmetric: `s = max |x| / (2^(b-1) - 1)`, at least 1e-5; `q = clamp(round(x / s), -2^(b-1), 2^(b-1) - 1)`; the value
///   is `s q`;
/// * asymmetric: `s = (max x - min x) / (2^b - 1)`, within 1e-5 and 1e4; `z = round(-min x / s)`, within -1e4 and 1e4;
///   `q = clamp(round(x / s) + z, 0, 2^b - 1)`; the value is `s (q - z)`.
///
/// `round` takes halves to the even neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActivationQuantization {
    /// Bits, 2 to 8.
    pub bits: u32,
    /// Whether the grid is symmetric around zero.
    pub symmetric: bool,
    /// Least and greatest value, found beforehand, for all tokens (static); none: each token's own (dynamic).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f32; 2]>,
}

impl ActivationQuantization {
    /// Each token by its own range.
    pub fn dynamic(bits: u32, symmetric: bool) -> Self {
        ActivationQuantization { bits, symmetric, range: None }
    }

    /// All tokens by one range.
    pub fn fixed(bits: u32, symmetric: bool, least: f32, greatest: f32) -> Self {
        ActivationQuantization { bits, symmetric, range: Some([least, greatest]) }
    }

    /// Rounds the activations of one token in place.
    pub fn round(&self, token: &mut [f32]) {
        let [least, greatest] = self.range.unwrap_or_else(|| {
            token.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &x| [low.min(x), high.max(x)])
        });
        if self.symmetric {
            let half = (1u32 << (self.bits - 1)) as f32;
            let scale = (least.abs().max(greatest.abs()) / (half - 1.0)).max(1e-5);
            for x in token {
                *x = (*x / scale).round_ties_even().clamp(-half, half - 1.0) * scale;
            }
        } else {
            let steps = ((1u32 << self.bits) - 1) as f32;
            let scale = ((greatest - least) / steps).clamp(1e-5, 1e4);
            let zero = (-least / scale).clamp(-1e4, 1e4).round_ties_even();
            for x in token {
                *x = (((*x / scale).round_ties_even() + zero).clamp(0.0, steps) - zero) * scale;
            }
        }
    }

    /// Checks bits and range.
    pub fn check(&self) -> Result<()> {
        if !(2..=8).contains(&self.bits) {
            return Err(Error::invalid(format!("activations of {} bits; 2 to 8 can be had", self.bits)));
        }
        match self.range {
            Some([least, greatest]) if !(least.is_finite() && greatest.is_finite() && least <= greatest) => {
                Err(Error::invalid(format!("activations between {least} and {greatest}: that is no range")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rounds_as_documented() {
        let mut x = [-2.0, -0.3, 0.0, 0.52, 1.27];
        ActivationQuantization::fixed(8, true, -1.0, 1.27).round(&mut x);
        assert_eq!(x.map(|v| (v * 100.0).round()), [-128.0, -30.0, 0.0, 52.0, 127.0]);
        let mut x = [-1.0, -0.4, 0.4, 2.0];
        ActivationQuantization::dynamic(2, false).round(&mut x);
        assert_eq!(x, [-1.0, 0.0, 0.0, 2.0]);
        let mut zeros = [0.0; 3];
        ActivationQuantization::dynamic(4, false).round(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
    }

    #[test]
    fn nonsense_is_refused() {
        for bits in [0, 1, 9, 64] {
            assert!(ActivationQuantization::dynamic(bits, true).check().is_err());
        }
        assert!(ActivationQuantization::fixed(8, true, 1.0, -1.0).check().is_err());
        assert!(ActivationQuantization::fixed(8, true, f32::NAN, 1.0).check().is_err());
    }

    proptest! {
        #[test]
        fn errors_stay_within_half_a_step(bits in 2u32..=8, symmetric: bool, x in proptest::collection::vec(-9f32..9.0, 1..40)) {
            // A range far from zero and narrow is beyond what the published grid can hold: its zero is bounded.
            let x = [x, vec![0.0]].concat();
            let mut rounded = x.clone();
            ActivationQuantization::dynamic(bits, symmetric).round(&mut rounded);
            let (low, high) = x.iter().fold((0f32, 0f32), |(l, h), &v| (l.min(v), h.max(v)));
            let step = if symmetric { low.abs().max(high) / ((1 << (bits - 1)) - 1) as f32 } else { (high - low) / ((1 << bits) - 1) as f32 };
            for (a, b) in x.iter().zip(&rounded) {
                // The zero is rounded as well, so values at the ends may lose another half step.
                prop_assert!((a - b).abs() <= step * 1.01 + 1e-4, "{a} {b} {step}");
            }
        }
    }
}
