//! LLaMA 3's rotary scaling, read back from the factors that a GGUF stores in its place.
//!
//! With wavelength `w_i = 2 pi theta^(2i/d)`, context `L`, and bounds `low < high`, LLaMA 3.1 divides frequency `i` by
//! `f_i`: 1 where `w_i < L / high`, `factor` where `w_i > L / low`, and between them
//! `1 / f_i = (1 - s_i) / factor + s_i` with `s_i = (L / w_i - low) / (high - low)`. Scaling `L`, `low` and `high`
//! together changes nothing, so `low` is taken as 1, as in all published models.

use std::f64::consts::PI;

/// Parameters of `rope_scaling` of type `llama3`, with `low_freq_factor` 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Llama3Scaling {
    pub(crate) factor: f64,
    pub(crate) high_freq_factor: f64,
    pub(crate) original_context: usize,
}

impl Llama3Scaling {
    /// The divisors of all `head_dim / 2` frequencies.
    pub(crate) fn factors(&self, theta: f64, count: usize) -> Vec<f64> {
        let context = self.original_context as f64;
        let one = |index: usize| {
            let wavelength = wavelength(theta, index, count);
            if wavelength < context / self.high_freq_factor {
                1.0
            } else if wavelength > context {
                self.factor
            } else {
                let smooth = (context / wavelength - 1.0) / (self.high_freq_factor - 1.0);
                1.0 / ((1.0 - smooth) / self.factor + smooth)
            }
        };
        (0..count).map(one).collect()
    }

    /// Finds the parameters that give these divisors, or `None` when none do.
    pub(crate) fn fit(factors: &[f32], theta: f64) -> Option<Self> {
        let count = factors.len();
        let factor = f64::from(*factors.last()?);
        if !factor.is_finite() || factor <= 1.0 {
            return None;
        }
        let fits = |candidate: &Self| {
            let expected = candidate.factors(theta, count);
            expected.iter().zip(factors).all(|(a, &b)| (a - f64::from(b)).abs() <= 1e-3 * a)
        };
        // The published models first: few frequencies may lie between the bounds, and then several settings agree.
        let published = Llama3Scaling { factor, high_freq_factor: 4.0, original_context: 8192 };
        if fits(&published) {
            return Some(published);
        }
        // Between the bounds s_i is a line in 1 / w_i; two points of it give its slope and its intercept.
        let between: Vec<(f64, f64)> = factors
            .iter()
            .enumerate()
            .filter(|&(_, &f)| f64::from(f) > 1.0 + 1e-4 && f64::from(f) < factor * (1.0 - 1e-4))
            .map(|(i, &f)| {
                let smooth = (1.0 / f64::from(f) - 1.0 / factor) / (1.0 - 1.0 / factor);
                (1.0 / wavelength(theta, i, count), smooth)
            })
            .collect();
        let (&(x0, y0), &(x1, y1)) = (between.first()?, between.last()?);
        let slope = (y1 - y0) / (x1 - x0);
        let intercept = y0 - slope * x0;
        let width = -1.0 / intercept;
        let context = slope * width;
        let found = Llama3Scaling {
            factor,
            high_freq_factor: ((1.0 + width) * 1e4).round() / 1e4,
            original_context: if (1.0..1e9).contains(&context) {
                context.round() as usize
            } else {
                return None;
            },
        };
        fits(&found).then_some(found)
    }
}

fn wavelength(theta: f64, index: usize, count: usize) -> f64 {
    2.0 * PI * theta.powf(index as f64 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_back_from_their_factors() {
        for (factor, high, context, theta, count) in [
            (8.0, 4.0, 8192, 500_000.0, 64),
            (32.0, 4.0, 8192, 500_000.0, 32),
            (8.0, 4.0, 16, 500_000.0, 32),
            (4.0, 8.0, 4096, 10_000.0, 64),
        ] {
            let original = Llama3Scaling { factor, high_freq_factor: high, original_context: context };
            let factors: Vec<f32> = original.factors(theta, count).iter().map(|&f| f as f32).collect();
            let found = Llama3Scaling::fit(&factors, theta).expect("they were made by the formula");
            assert_eq!((found.factor, found.original_context), (factor, context));
            assert!((found.high_freq_factor - high).abs() < 1e-2, "{found:?}");
        }
    }

    #[test]
    fn other_factors_do_not_fit() {
        for factors in [vec![], vec![1.0; 8], vec![f32::NAN; 8], vec![3.0, 1.0, 7.0, 2.0, 9.0, 4.0, 1.5, 8.0]]
        {
            assert_eq!(Llama3Scaling::fit(&factors, 10_000.0), None, "{factors:?}");
        }
    }
}
