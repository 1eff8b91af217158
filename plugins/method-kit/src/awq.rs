//! AWQ (Lin et al., "AWQ: Activation-aware Weight Quantization for On-Device LLM Compression and Acceleration", MLSys 2024).
//!
//! Multiplying input channel `j` of a weight by `s_j > 1` and dividing the input by it leaves the product as it is, but
//! makes the rounding error of that channel smaller by `s_j` as long as the group's range stays what it was (section 3.2). Channels that
//! carry much activation deserve it.

use std::ops::Range;

use rayon::prelude::*;

use crate::grid::{Grid, GridOptions, Quantized, round_by};
use crate::{KitError, Matrix};

/// Fractions of the range that the clipping search tries: `1 - i / CLIP_STEPS`.
const CLIP_STEPS: usize = 20;
/// How many of them: down to just above half of the range.
const CLIP_TRIES: usize = 10;
/// How many exponents are tried: `i / RATIOS`.
pub const RATIOS: usize = 20;

/// The quantiser of AWQ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AwqGrid {
    /// Bits per weight, 2 to 8.
    pub bits: u8,
    /// Consecutive input columns that share a scale; `None` is the whole row.
    pub group_size: Option<usize>,
    /// Whether ranges need not be symmetric around zero.
    pub zero_point: bool,
}

impl AwqGrid {
    fn options(&self) -> GridOptions {
        GridOptions {
            bits: self.bits,
            group_size: self.group_size,
            symmetric: !self.zero_point,
            ..GridOptions::default()
        }
    }

    /// Checks all options.
    ///
    /// # Errors
    /// [`KitError::Option`] that names the first one out of range.
    pub fn validate(&self) -> Result<(), KitError> {
        self.options().validate()
    }

    fn fit(&self, values: &[f32]) -> Grid {
        Grid::of_range(values, self.bits, self.zero_point)
    }

    /// Rounds every weight to the nearest point of its group's grid.
    ///
    /// # Errors
    /// As [`round_by`].
    pub fn round(&self, weight: Matrix<'_>) -> Result<Quantized, KitError> {
        round_by(weight, &self.options(), |values| self.fit(values))
    }

    /// The weight in effect when its input channels are multiplied by `scales`, rounded, and divided by them again.
    ///
    /// # Errors
    /// As [`round_by`]; [`KitError::Length`] unless there is a scale for each column.
    pub fn round_scaled(&self, weight: Matrix<'_>, scales: &[f32]) -> Result<Vec<f32>, KitError> {
        let scaled = scale_columns(weight, scales)?;
        let mut rounded = self.round(Matrix::new(&scaled, weight.rows(), weight.cols())?)?.dequantize();
        for row in rounded.chunks_mut(weight.cols()) {
            row.iter_mut().zip(scales).for_each(|(w, s)| *w /= s);
        }
        Ok(rounded)
    }

    /// For each row and group, the magnitude to clip the weights at that makes the squared error of the group's part of the output smallest,
    /// `[rows, groups]` (section 3.2 of the paper calls it clipping to minimise the MSE). Magnitudes from the largest down to just above half
    /// of it are tried. `inputs`, `[tokens, cols]`, is what the weight reads.
    ///
    /// # Errors
    /// [`KitError::Length`] if `inputs` does not fit the weight's columns; [`KitError::Option`] for options out of range.
    pub fn clip(&self, weight: Matrix<'_>, inputs: Matrix<'_>) -> Result<Vec<f32>, KitError> {
        self.validate()?;
        let (rows, cols) = (weight.rows(), weight.cols());
        if inputs.cols() != cols {
            return Err(KitError::Length { operand: "inputs", expected: cols, found: inputs.cols() });
        }
        let size = self.group_size.unwrap_or(cols).min(cols);
        let groups = cols.div_ceil(size);
        // The error of a group is a quadratic form in the Gram matrix of the inputs it reads.
        let parts: Vec<Vec<f32>> = (0..groups)
            .into_par_iter()
            .map(|group| gram_of_columns(inputs, group * size..((group + 1) * size).min(cols)))
            .collect();
        let mut limits = vec![0f32; rows * groups];
        limits.par_chunks_mut(groups).zip(weight.data().par_chunks(cols)).for_each(|(limits, row)| {
            for ((limit, values), part) in limits.iter_mut().zip(row.chunks(size)).zip(&parts) {
                *limit = self.clip_group(values, part);
            }
        });
        Ok(limits)
    }

    fn clip_group(&self, values: &[f32], gram: &[f32]) -> f32 {
        let largest = values.iter().fold(0f32, |m, x| m.max(x.abs()));
        let mut best = (f64::INFINITY, largest);
        let mut clipped = vec![0f32; values.len()];
        for i in 0..CLIP_TRIES {
            let limit = largest * (1.0 - i as f64 / CLIP_STEPS as f64) as f32;
            for (c, v) in clipped.iter_mut().zip(values) {
                *c = v.clamp(-limit, limit);
            }
            let grid = self.fit(&clipped);
            for (c, v) in clipped.iter_mut().zip(values) {
                *c = grid.nearest(*c) - v;
            }
            let error = quadratic_form(&clipped, gram);
            if error < best.0 {
                best = (error, limit);
            }
        }
        best.1
    }
}

/// The sum over tokens of `x x^T` for some columns of the inputs.
fn gram_of_columns(inputs: Matrix<'_>, columns: Range<usize>) -> Vec<f32> {
    let size = columns.len();
    let mut gram = vec![0f64; size * size];
    for token in inputs.data().chunks_exact(inputs.cols()) {
        let x = &token[columns.clone()];
        for (xi, row) in x.iter().zip(gram.chunks_exact_mut(size)) {
            let xi = f64::from(*xi);
            row.iter_mut().zip(x).for_each(|(g, xj)| *g += xi * f64::from(*xj));
        }
    }
    gram.into_iter().map(|g| g as f32).collect()
}

/// `x^T G x`. Sums of 16 lanes, so that it vectorises.
fn quadratic_form(x: &[f32], gram: &[f32]) -> f64 {
    let mut total = 0f64;
    for (xi, row) in x.iter().zip(gram.chunks_exact(x.len())) {
        let mut lanes = [0f32; 16];
        let (blocks, rest) = x.as_chunks::<16>();
        let (gram_blocks, gram_rest) = row.as_chunks::<16>();
        for (a, b) in blocks.iter().zip(gram_blocks) {
            for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                *lane += a * b;
            }
        }
        let tail: f32 = rest.iter().zip(gram_rest).map(|(a, b)| a * b).sum();
        total += f64::from(*xi) * f64::from(lanes.iter().sum::<f32>() + tail);
    }
    total
}

/// The scales that an exponent gives: `max(mean |x_j|^ratio, 1e-4)`, divided by the geometric mean of the largest and the smallest of them
/// (equation 5 of the paper, normalised as in its published code).
pub fn scales(mean_magnitude: &[f32], ratio: f32) -> Vec<f32> {
    let mut scales: Vec<f32> = mean_magnitude.iter().map(|x| x.powf(ratio).max(1e-4)).collect();
    let (low, high) = scales.iter().fold((f32::INFINITY, 0f32), |(l, h), &s| (l.min(s), h.max(s)));
    let middle = (low * high).sqrt();
    scales.iter_mut().for_each(|s| *s /= middle);
    scales
}

/// A weight with each input column multiplied by its scale.
///
/// # Errors
/// [`KitError::Length`] unless there is a scale for each column.
pub fn scale_columns(weight: Matrix<'_>, scales: &[f32]) -> Result<Vec<f32>, KitError> {
    if scales.len() != weight.cols() {
        return Err(KitError::Length { operand: "scales", expected: weight.cols(), found: scales.len() });
    }
    Ok(weight
        .data()
        .chunks(weight.cols())
        .flat_map(|row| row.iter().zip(scales).map(|(w, s)| w * s))
        .collect())
}

/// Clips weights at the magnitudes of [`AwqGrid::clip`].
pub fn clamp_groups(weight: &mut [f32], cols: usize, group_size: Option<usize>, limits: &[f32]) {
    let size = group_size.unwrap_or(cols).min(cols).max(1);
    for (row, limits) in weight.chunks_mut(cols.max(1)).zip(limits.chunks(cols.div_ceil(size).max(1))) {
        for (group, limit) in row.chunks_mut(size).zip(limits) {
            group.iter_mut().for_each(|w| *w = w.clamp(-limit, *limit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRID: AwqGrid = AwqGrid { bits: 4, group_size: Some(5), zero_point: true };

    #[test]
    fn scales_are_normalised_by_the_middle_of_their_range() {
        assert_eq!(scales(&[1.0, 4.0, 16.0], 0.0), [1.0; 3]);
        assert_eq!(scales(&[1.0, 4.0, 16.0], 0.5), [0.5, 1.0, 2.0]);
        // A channel that is never active is not multiplied by zero.
        assert!(scales(&[0.0, 1.0], 1.0).iter().all(|s| *s > 0.0 && s.is_finite()));
    }

    #[test]
    fn the_grid_covers_the_range_as_it_is() {
        // All positive: zero would widen GPTQ's range, but not this one's, whose zero is clamped.
        let grid = Grid::of_range(&[1.0, 2.5], 2, true);
        assert_eq!((grid.scale(), grid.zero()), (0.5, 0));
        assert_eq!([1.0, 2.5].map(|x| grid.nearest(x)), [1.0, 1.5]);
        let grid = Grid::of_range(&[-7.0, 3.0], 4, false);
        assert_eq!((grid.scale(), grid.zero()), (1.0, 8));
        let grid = Grid::of_range(&[0.0, 0.0], 4, true);
        assert_eq!(grid.nearest(0.0), 0.0);
    }

    proptest! {
        #[test]
        fn clipping_never_makes_the_output_worse(
            weight in proptest::collection::vec(-2f32..2.0, 3 * 12),
            inputs in proptest::collection::vec(-2f32..2.0, 7 * 12),
        ) {
            let read = Matrix::new(&inputs, 7, 12).unwrap();
            let limits = GRID.clip(Matrix::new(&weight, 3, 12).unwrap(), read).unwrap();
            prop_assert_eq!(limits.len(), 9);
            // Group by group, as the search sees it.
            for (row, limits) in limits.chunks(3).enumerate() {
                for (group, limit) in limits.iter().enumerate() {
                    let columns = group * 5..(group * 5 + 5).min(12);
                    let values = &weight[row * 12..][columns.clone()];
                    let error = |limit: f32| -> f64 {
                        let clipped: Vec<f32> = values.iter().map(|v| v.clamp(-limit, limit)).collect();
                        let grid = GRID.fit(&clipped);
                        inputs.chunks(12).map(|x| {
                            let y: f64 = clipped.iter().zip(values).zip(&x[columns.clone()])
                                .map(|((c, v), x)| f64::from(grid.nearest(*c) - v) * f64::from(*x)).sum();
                            y * y
                        }).sum()
                    };
                    let largest = values.iter().fold(0f32, |m, x| m.max(x.abs()));
                    prop_assert!(*limit <= largest && *limit > largest * 0.5 - 1e-6);
                    prop_assert!(error(*limit) <= error(largest) * 1.0001 + 1e-6);
                }
            }
        }

        #[test]
        fn scaling_and_rounding_finely_changes_little(weight in proptest::collection::vec(-2f32..2.0, 24), scale in 0.1f32..10.0) {
            let fine = AwqGrid { bits: 8, group_size: None, zero_point: true };
            // Both signs in each row: this grid does not reach a range far from zero.
            let mut weight = weight;
            weight.chunks_mut(12).for_each(|row| row[..4].copy_from_slice(&[-2.0, -2.0, 2.0, 2.0]));
            let scales: Vec<f32> = (0..12).map(|i| if i % 2 == 0 { scale } else { 1.0 }).collect();
            let rounded = fine.round_scaled(Matrix::new(&weight, 2, 12).unwrap(), &scales).unwrap();
            let step = 4.0 * scale.max(1.0) / 255.0 / scale.min(1.0);
            prop_assert!(rounded.iter().zip(&weight).all(|(a, b)| (a - b).abs() <= step));
        }
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let weight = [0.5f32; 6];
        let matrix = Matrix::new(&weight, 2, 3).unwrap();
        assert!(GRID.clip(matrix, Matrix::new(&[0.0; 4], 1, 4).unwrap()).is_err());
        assert!(GRID.round_scaled(matrix, &[1.0; 2]).is_err());
        assert!(AwqGrid { bits: 9, ..GRID }.validate().is_err());
    }

    #[test]
    fn groups_are_clamped_each_by_its_limit() {
        let mut weight = [1.0, -2.0, 3.0, -4.0, 5.0, -6.0];
        clamp_groups(&mut weight, 3, Some(2), &[1.5, 2.0, 9.0, 1.0]);
        assert_eq!(weight, [1.0, -1.5, 2.0, -4.0, 5.0, -1.0]);
    }
}
