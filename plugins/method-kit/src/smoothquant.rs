//! SmoothQuant (Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", ICML 2023).
//!
//! `Y = (X diag(s)^-1) (diag(s) W^T)` (equation 3): scales move the outliers of activations, which are hard to quantise, into weights, which
//! are easy.

use rayon::prelude::*;

use crate::grid::{Grid, GridOptions, Quantized, round_by};
use crate::{KitError, Matrix};

/// Smallest magnitude of a weight column, and smallest scale, as published.
const SMALLEST: f32 = 1e-5;

/// Per input channel, the largest magnitude over all rows of some weights that read the same input, at least 1e-5.
///
/// # Errors
/// [`KitError::Length`] unless all have as many columns as the first.
pub fn column_maxima(weights: &[Matrix<'_>]) -> Result<Vec<f32>, KitError> {
    let columns = weights.first().map_or(0, Matrix::cols);
    let mut maxima = vec![SMALLEST; columns];
    for weight in weights {
        if weight.cols() != columns {
            return Err(KitError::Length { operand: "weight", expected: columns, found: weight.cols() });
        }
        for row in weight.data().chunks_exact(columns.max(1)) {
            maxima.iter_mut().zip(row).for_each(|(m, w)| *m = m.max(w.abs()));
        }
    }
    Ok(maxima)
}

/// `s_j = max |x_j|^alpha / max |w_j|^(1 - alpha)` (equation 4), at least 1e-5.
///
/// # Errors
/// [`KitError::Length`] unless there are as many activations as weights; [`KitError::Option`] for an `alpha` outside 0 to 1.
pub fn smoothing_scales(activations: &[f32], weights: &[f32], alpha: f32) -> Result<Vec<f32>, KitError> {
    if !(0.0..=1.0).contains(&alpha) {
        return Err(KitError::option("alpha", alpha, "from 0 to 1"));
    }
    if activations.len() != weights.len() {
        return Err(KitError::Length {
            operand: "activation magnitudes",
            expected: weights.len(),
            found: activations.len(),
        });
    }
    let scale = |(x, w): (&f32, &f32)| (x.powf(alpha) / w.powf(1.0 - alpha)).max(SMALLEST);
    Ok(activations.iter().zip(weights).map(scale).collect())
}

/// Rounds a weight symmetrically to `bits` bits: `max |w| / (2^(bits-1) - 1)` is the step of a row, or of the whole weight.
///
/// # Errors
/// [`KitError::Option`] for bits out of range.
pub fn round_weight(weight: Matrix<'_>, bits: u8, per_tensor: bool) -> Result<Quantized, KitError> {
    let options = GridOptions { bits, group_size: None, symmetric: true, ..GridOptions::default() };
    options.validate()?;
    if per_tensor {
        let largest = weight.data().par_iter().map(|w| w.abs()).reduce(|| 0f32, f32::max);
        let grid = Grid::of_range(&[-largest, largest], bits, false);
        return round_by(weight, &options, |_| grid);
    }
    round_by(weight, &options, |row| Grid::of_range(row, bits, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scales_are_those_of_the_paper() {
        // Figure 5 of the paper: alpha = 0.5 gives sqrt(max |X| / max |W|).
        let x = [2.0, 16.0, 1.0, 9.0];
        let first = Matrix::new(&[1.0, -1.0, 0.5, 0.0], 1, 4).unwrap();
        let second = Matrix::new(&[0.5, 0.25, -1.0, 0.0, -2.0, 0.1, 0.2, 0.0], 2, 4).unwrap();
        let w = column_maxima(&[first, second]).unwrap();
        assert_eq!(w, [2.0, 1.0, 1.0, 1e-5]);
        let scales = smoothing_scales(&x, &w, 0.5).unwrap();
        for (scale, expected) in scales.iter().zip([1.0, 4.0, 1.0, (9.0f32 / 1e-5).sqrt()]) {
            assert!((scale - expected).abs() <= 1e-6 * expected, "{scale} {expected}");
        }
        assert_eq!(smoothing_scales(&[0.0], &[1.0], 0.5).unwrap(), [1e-5]);
        assert!(smoothing_scales(&[1.0], &[1.0, 1.0], 0.5).is_err());
        for alpha in [-0.1, 1.1, f32::NAN] {
            assert!(smoothing_scales(&[1.0], &[1.0], alpha).is_err());
        }
    }

    proptest! {
        #[test]
        fn rounding_loses_half_a_step_at_most(weight in prop::collection::vec(-3f32..3.0, 24), per_tensor: bool, bits in 2u8..=8) {
            let rounded = round_weight(Matrix::new(&weight, 4, 6).unwrap(), bits, per_tensor).unwrap();
            let values = rounded.dequantize();
            let of = |values: &[f32]| values.iter().fold(1e-5f32, |m, w| m.max(w.abs())) / f32::from((1u8 << (bits - 1)) - 1);
            for (row, (rounded, exact)) in values.chunks(6).zip(weight.chunks(6)).enumerate() {
                let step = if per_tensor { of(&weight) } else { of(exact) };
                prop_assert!((rounded.iter().zip(exact)).all(|(a, b)| (a - b).abs() <= step * 0.5001), "row {row}");
            }
            if per_tensor {
                prop_assert!(rounded.scales.iter().all(|s| *s == rounded.scales[0]));
            }
        }
    }
}
