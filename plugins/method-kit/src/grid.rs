//! Uniform quantisation grids, as in the quantiser of GPTQ (Frantar et al., "GPTQ: Accurate Post-Training
//! Quantization for Generative Pre-trained Transformers", 2023, and its published code).
//!
//! A weight `x` becomes the code `q = clamp(round(x / scale) + zero, 0, 2^bits - 1)`, with ties rounded to even,
//! and is read back as `scale * (q - zero)`. One scale and zero serve one row, or one group of consecutive input
//! columns of one row.

use rayon::prelude::*;

use crate::{KitError, Matrix};

/// Rounds to the nearest integer, ties to even.
///
/// Adding and taking away 1.5 * 2^23 leaves the rounding to the addition itself; unlike a call of the mathematics
/// library it vectorises on every machine. Magnitudes from 2^22 up are passed through: they only ever get clamped.
#[inline(always)]
pub(crate) fn round_half_even(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    if x.abs() < 4_194_304.0 { (x + SHIFT) - SHIFT } else { x }
}

/// Code, as a number, of the grid point nearest to `x`.
#[inline(always)]
pub(crate) fn nearest_code(x: f32, scale: f32, zero: f32, max_code: f32) -> f32 {
    (round_half_even(x / scale) + zero).clamp(0.0, max_code)
}

/// Search for a narrower range that lowers the sum of `|error|^norm` over a row or group.
///
/// The range is shrunk to `1 - i / steps` of its width for `i` in `0..max_shrink * steps`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RangeSearch {
    /// Exponent of the error; the published value is 2.4.
    pub norm: f32,
    /// Steps that the whole range is divided into; the published value is 100.
    pub steps: u32,
    /// Fraction of those steps that are tried, in `(0, 1]`; the published value is 0.8.
    pub max_shrink: f64,
}

impl Default for RangeSearch {
    fn default() -> Self {
        Self { norm: 2.4, steps: 100, max_shrink: 0.8 }
    }
}

/// Which grid weights are rounded to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GridOptions {
    /// Bits per weight, 2 to 8.
    pub bits: u8,
    /// Consecutive input columns that share a scale; `None` is the whole row. The last group of a row may be
    /// shorter. (Files for other tools usually want columns to be a multiple of it.)
    pub group_size: Option<usize>,
    /// Zero in the middle of the codes, instead of where the range of the weights puts it.
    pub symmetric: bool,
    /// Search for the range, instead of taking the minimum and maximum.
    pub search: Option<RangeSearch>,
}

impl Default for GridOptions {
    fn default() -> Self {
        Self { bits: 4, group_size: Some(128), symmetric: true, search: None }
    }
}

impl GridOptions {
    /// Checks all options.
    ///
    /// # Errors
    /// [`KitError::Option`] that names the first one out of range.
    pub fn validate(&self) -> Result<(), KitError> {
        check_bits(self.bits)?;
        if self.group_size == Some(0) {
            return Err(KitError::option(
                "group_size",
                0,
                "a positive number of columns, or none for the whole row",
            ));
        }
        if let Some(search) = &self.search {
            if !(search.norm.is_finite() && search.norm > 0.0) {
                return Err(KitError::option("norm", search.norm, "a positive finite number"));
            }
            if !(1..=100_000).contains(&search.steps) {
                return Err(KitError::option("steps", search.steps, "1 to 100000"));
            }
            if !(search.max_shrink > 0.0 && search.max_shrink <= 1.0) {
                return Err(KitError::option("max_shrink", search.max_shrink, "above 0, at most 1"));
            }
        }
        Ok(())
    }

    /// Largest code, `2^bits - 1`.
    pub(crate) fn max_code(&self) -> f32 {
        f32::from(u8::MAX >> (8 - self.bits))
    }

    /// Groups in a row of `cols` columns.
    pub fn groups(&self, cols: usize) -> usize {
        self.group_size.map_or(1, |g| cols.div_ceil(g))
    }

    /// Finds the grid of one row or group.
    ///
    /// The range always includes zero. Symmetric grids mirror the larger end, unless no value is negative: then, as
    /// published, the range starts at zero while the zero point stays in the middle, and the upper half of the
    /// range saturates. A range of no width becomes `[-1, 1]`.
    pub fn fit(&self, values: &[f32]) -> Grid {
        let max_code = self.max_code();
        let (mut low, mut high) = values.iter().fold((0.0f32, 0.0f32), |(l, h), &x| (l.min(x), h.max(x)));
        if self.symmetric {
            high = high.max(-low);
            if low < 0.0 {
                low = -high;
            }
        }
        // A range so narrow that its step is not representable is as good as none.
        if (high - low) / max_code == 0.0 {
            (low, high) = (-1.0, 1.0);
        }
        let middle = (max_code + 1.0) / 2.0;
        let grid_of = |low: f32, high: f32| {
            let scale = (high - low) / max_code;
            let zero = if self.symmetric { middle } else { round_half_even(-low / scale) };
            Grid { scale, zero, max_code }
        };
        let mut chosen = grid_of(low, high);
        if let Some(search) = &self.search {
            let mut least = f64::INFINITY;
            let tries = (search.max_shrink * f64::from(search.steps)) as u32;
            for i in 0..tries {
                let shrink = (1.0 - f64::from(i) / f64::from(search.steps)) as f32;
                let grid = grid_of(shrink * low, shrink * high);
                if grid.scale == 0.0 {
                    break;
                }
                let mut error = 0.0f64;
                for &x in values {
                    error += f64::from((grid.nearest(x) - x).abs().powf(search.norm));
                    if error >= least {
                        break;
                    }
                }
                if error < least {
                    least = error;
                    chosen = grid;
                }
            }
        }
        chosen
    }
}

/// Checks a number of bits per weight.
pub(crate) fn check_bits(bits: u8) -> Result<(), KitError> {
    if (2..=8).contains(&bits) { Ok(()) } else { Err(KitError::option("bits", bits, "2 to 8")) }
}

/// The grid of one row or group: `scale * (code - zero)` for codes `0..=max_code`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    scale: f32,
    zero: f32,
    max_code: f32,
}

impl Grid {
    /// A grid over the range of the values as it is, whether it includes zero or not: AWQ's quantiser.
    ///
    /// With a zero point, `scale = max(high - low, 1e-5) / (2^bits - 1)` and `zero = clamp(-round(low / scale), 0, 2^bits - 1)`;
    /// without, `scale = max(max |x|, 1e-5) / (2^(bits-1) - 1)` and zero is the middle code.
    pub fn of_range(values: &[f32], bits: u8, zero_point: bool) -> Self {
        let max_code = f32::from(u8::MAX >> (8 - bits));
        let (low, high) =
            values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
        if zero_point {
            let scale = (high - low).max(1e-5) / max_code;
            Self { scale, zero: (-round_half_even(low / scale)).clamp(0.0, max_code), max_code }
        } else {
            let middle = (max_code + 1.0) / 2.0;
            Self { scale: low.abs().max(high.abs()).max(1e-5) / (middle - 1.0), zero: middle, max_code }
        }
    }

    /// A grid with a given step and code for zero.
    pub(crate) fn new(scale: f32, zero: f32, bits: u8) -> Self {
        Self { scale, zero, max_code: f32::from(u8::MAX >> (8 - bits)) }
    }

    /// Distance between neighbouring points.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The code that stands for zero.
    pub fn zero(&self) -> u8 {
        self.zero as u8
    }

    #[inline(always)]
    fn code_as_float(&self, x: f32) -> f32 {
        nearest_code(x, self.scale, self.zero, self.max_code)
    }

    /// Code of the grid point nearest to `x`.
    #[inline(always)]
    pub fn code(&self, x: f32) -> u8 {
        self.code_as_float(x) as u8
    }

    /// The grid point that a code stands for.
    #[inline(always)]
    pub fn value(&self, code: u8) -> f32 {
        self.scale * (f32::from(code) - self.zero)
    }

    /// The grid point nearest to `x`.
    #[inline(always)]
    pub fn nearest(&self, x: f32) -> f32 {
        self.scale * (self.code_as_float(x) - self.zero)
    }
}

/// A quantised weight matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// Outputs of the layer.
    pub rows: usize,
    /// Inputs of the layer.
    pub cols: usize,
    /// Bits per code.
    pub bits: u8,
    /// Columns per group as asked for; `None` is the whole row.
    pub group_size: Option<usize>,
    /// Whether every zero is the middle code.
    pub symmetric: bool,
    /// Codes `[rows, cols]`, in the columns' own order.
    pub codes: Vec<u8>,
    /// Scales `[rows, groups]`.
    pub scales: Vec<f32>,
    /// Zeros `[rows, groups]`, as codes.
    pub zeros: Vec<u8>,
    /// Group of each column, `[cols]`. Not ascending when groups were formed in activation order.
    pub group_index: Vec<u32>,
}

impl Quantized {
    /// Groups per row.
    pub fn groups(&self) -> usize {
        self.scales.len().checked_div(self.rows).unwrap_or(0)
    }

    /// The weights that the codes stand for, `[rows, cols]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let groups = self.groups();
        let mut out = vec![0.0; self.codes.len()];
        out.par_chunks_mut(self.cols.max(1)).enumerate().for_each(|(row, out)| {
            let codes = &self.codes[row * self.cols..][..self.cols];
            let scales = &self.scales[row * groups..][..groups];
            let zeros = &self.zeros[row * groups..][..groups];
            for ((out, &code), &group) in out.iter_mut().zip(codes).zip(&self.group_index) {
                let group = group as usize;
                *out = scales[group] * (f32::from(code) - f32::from(zeros[group]));
            }
        });
        out
    }
}

/// Rounds every weight to the nearest point of its grid.
///
/// # Errors
/// [`KitError::Option`] for options out of range.
pub fn round_to_nearest(weight: Matrix<'_>, options: &GridOptions) -> Result<Quantized, KitError> {
    round_by(weight, options, |values| options.fit(values))
}

/// As [`round_to_nearest`], with the grid that `fit` finds for each group.
///
/// # Errors
/// As [`round_to_nearest`].
pub fn round_by(
    weight: Matrix<'_>,
    options: &GridOptions,
    fit: impl Fn(&[f32]) -> Grid + Sync,
) -> Result<Quantized, KitError> {
    options.validate()?;
    let (rows, cols) = (weight.rows(), weight.cols());
    let group = options.group_size.unwrap_or(cols).min(cols);
    let groups = options.groups(cols);
    let mut codes = vec![0u8; rows * cols];
    let mut scales = vec![0.0f32; rows * groups];
    let mut zeros = vec![0u8; rows * groups];
    codes
        .par_chunks_mut(cols)
        .zip(scales.par_chunks_mut(groups))
        .zip(zeros.par_chunks_mut(groups))
        .zip(weight.data().par_chunks(cols))
        .for_each(|(((codes, scales), zeros), row)| {
            let parts = codes.chunks_mut(group).zip(row.chunks(group));
            for (((codes, values), scale), zero) in parts.zip(scales).zip(zeros) {
                let grid = fit(values);
                *scale = grid.scale();
                *zero = grid.zero();
                for (code, &x) in codes.iter_mut().zip(values) {
                    *code = grid.code(x);
                }
            }
        });
    Ok(Quantized {
        rows,
        cols,
        bits: options.bits,
        group_size: options.group_size,
        symmetric: options.symmetric,
        codes,
        scales,
        zeros,
        group_index: (0..cols).map(|c| (c / group) as u32).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::round_half_even;

    #[test]
    fn rounding_is_that_of_the_standard_library() {
        for i in -4000..4000 {
            let x = i as f32 * 0.125;
            assert_eq!(round_half_even(x), x.round_ties_even(), "{x}");
        }
        for x in [4_194_303.5, -4_194_303.5, 0.499_999_97, 1e30] {
            assert_eq!(round_half_even(x), x.round_ties_even(), "{x}");
        }
        assert_eq!(round_half_even(f32::INFINITY), f32::INFINITY);
    }
}
