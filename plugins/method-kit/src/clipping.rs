//! Learnable weight clipping (Shao et al., "OmniQuant: Omnidirectionally Calibrated Quantization for Large Language
//! Models", ICLR 2024, section 3.2).
//!
//! A group of weights is rounded on a grid from `sigmoid(b) min w` to `sigmoid(a) max w` (equation 2). The logits `a` and
//! `b` of every group are learned: [`Clipping::backward`] gives their gradients, with rounding counting as the identity.

use rayon::prelude::*;

use crate::grid::{Grid, GridOptions, Quantized, round_half_even};
use crate::{KitError, Matrix};

/// Where logits begin, as published: `sigmoid(4) = 0.982` of the whole range.
const INITIAL_LOGIT: f32 = 4.0;
/// Bounds of a step, as published.
const STEPS: [f32; 2] = [1e-5, 1e4];

/// The bounds of all groups of a weight matrix, and the grid between them.
#[derive(Debug, Clone)]
pub struct Clipping {
    rows: usize,
    cols: usize,
    grid: GridOptions,
    /// Logits of the upper and of the lower ends, `[rows, groups]` each; none: the whole range.
    logits: Option<[Vec<f32>; 2]>,
}

/// Gradients of a function of rounded weights.
#[derive(Debug, Clone)]
pub struct ClippingGradients {
    /// With respect to the logits of the upper and of the lower ends, `[rows, groups]` each; zero where none are learned.
    pub logits: [Vec<f32>; 2],
    /// With respect to the weights before rounding, `[rows, cols]`.
    pub weight: Vec<f32>,
}

/// A group's grid and what it was made from.
struct Group {
    grid: Grid,
    /// Least and greatest weight, zero included, and the factors of both.
    low: f32,
    high: f32,
    low_factor: f32,
    high_factor: f32,
    /// Whether the step is not held by its bounds.
    free: bool,
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

impl Clipping {
    /// For weights `[rows, cols]`, asymmetric, with the logits where training begins, or (not `learned`) without any.
    ///
    /// # Errors
    /// [`KitError::Option`] for options out of range; [`KitError::Shape`] where there are no weights.
    pub fn new(
        rows: usize,
        cols: usize,
        bits: u8,
        group_size: Option<usize>,
        learned: bool,
    ) -> Result<Self, KitError> {
        let grid = GridOptions { bits, group_size, symmetric: false, search: None };
        grid.validate()?;
        if rows == 0 || cols == 0 {
            return Err(KitError::Shape { operand: "weight", rows, cols });
        }
        let groups = rows * grid.groups(cols);
        let logits = learned.then(|| [vec![INITIAL_LOGIT; groups], vec![INITIAL_LOGIT; groups]]);
        Ok(Self { rows, cols, grid, logits })
    }

    /// The logits, to be learned.
    pub fn logits_mut(&mut self) -> Option<&mut [Vec<f32>; 2]> {
        self.logits.as_mut()
    }

    fn group_size(&self) -> usize {
        self.grid.group_size.map_or(self.cols, |size| size.min(self.cols)).max(1)
    }

    /// The grid of one group: of row `row`, group `group` in it.
    fn group(&self, row: usize, group: usize, values: &[f32]) -> Group {
        // Zero is always within: a zero point has to be one of the codes. (The published code does not ask for it.)
        let (low, high) = values.iter().fold((0.0f32, 0.0f32), |(l, h), &x| (l.min(x), h.max(x)));
        let at = row * self.grid.groups(self.cols) + group;
        let [high_factor, low_factor] = match &self.logits {
            Some([upper, lower]) => [sigmoid(upper[at]), sigmoid(lower[at])],
            None => [1.0, 1.0],
        };
        let step = (high * high_factor - low * low_factor) / self.grid.max_code();
        let scale = step.clamp(STEPS[0], STEPS[1]);
        let zero = (-low * low_factor / scale).round_ties_even().clamp(0.0, self.grid.max_code());
        let grid = Grid::new(scale, zero, self.grid.bits);
        Group { grid, low, high, low_factor, high_factor, free: scale == step }
    }

    /// The weights that the rounded ones stand for, `[rows, cols]`.
    ///
    /// # Errors
    /// [`KitError::Length`] if the weight is of another size.
    pub fn round(&self, weight: &[f32]) -> Result<Vec<f32>, KitError> {
        self.check("weight", weight)?;
        let size = self.group_size();
        let mut rounded = vec![0.0; weight.len()];
        rounded.par_chunks_mut(self.cols).zip(weight.par_chunks(self.cols)).enumerate().for_each(
            |(row, (rounded, weight))| {
                for (g, (rounded, weight)) in rounded.chunks_mut(size).zip(weight.chunks(size)).enumerate() {
                    let grid = self.group(row, g, weight).grid;
                    rounded.iter_mut().zip(weight).for_each(|(r, &w)| *r = grid.nearest(w));
                }
            },
        );
        Ok(rounded)
    }

    /// The codes of rounded weights.
    ///
    /// # Errors
    /// As [`round`](Self::round); [`KitError::NotFinite`].
    pub fn quantize(&self, weight: &[f32]) -> Result<Quantized, KitError> {
        let matrix = Matrix::new(weight, self.rows, self.cols)?;
        let (size, groups) = (self.group_size(), self.grid.groups(self.cols));
        let mut quantized = Quantized {
            rows: self.rows,
            cols: self.cols,
            bits: self.grid.bits,
            group_size: self.grid.group_size,
            symmetric: false,
            codes: vec![0; weight.len()],
            scales: Vec::with_capacity(self.rows * groups),
            zeros: Vec::with_capacity(self.rows * groups),
            group_index: (0..self.cols).map(|c| (c / size) as u32).collect(),
        };
        for (row, codes) in quantized.codes.chunks_mut(self.cols).enumerate() {
            for (g, (codes, weight)) in codes.chunks_mut(size).zip(matrix.row(row).chunks(size)).enumerate() {
                let grid = self.group(row, g, weight).grid;
                quantized.scales.push(grid.scale());
                quantized.zeros.push(grid.zero());
                codes.iter_mut().zip(weight).for_each(|(code, &w)| *code = grid.code(w));
            }
        }
        Ok(quantized)
    }

    /// Gradients, from the `gradient` with respect to the rounded weights, `[rows, cols]`.
    ///
    /// With `v = s (clamp(round(w / s) + z) - z)`, `m` telling that nothing is cut off, and `z` held: `dv/dw = m`,
    /// `dv/ds = (v - m w) / s`; `s` depends on the logits and on the group's least and greatest weight.
    ///
    /// # Errors
    /// As [`round`](Self::round).
    pub fn backward(&self, weight: &[f32], gradient: &[f32]) -> Result<ClippingGradients, KitError> {
        self.check("weight", weight)?;
        self.check("gradient", gradient)?;
        let (size, groups) = (self.group_size(), self.grid.groups(self.cols));
        let max_code = self.grid.max_code();
        let mut found = ClippingGradients {
            logits: [vec![0.0; self.rows * groups], vec![0.0; self.rows * groups]],
            weight: vec![0.0; weight.len()],
        };
        let [upper, lower] = &mut found.logits;
        let rows = found.weight.par_chunks_mut(self.cols).zip(weight.par_chunks(self.cols));
        let rows = rows.zip(gradient.par_chunks(self.cols));
        let ends = upper.par_chunks_mut(groups).zip(lower.par_chunks_mut(groups));
        rows.zip(ends).enumerate().for_each(|(row, (((out, weight), gradient), (upper, lower)))| {
            let parts = out.chunks_mut(size).zip(weight.chunks(size)).zip(gradient.chunks(size));
            for (g, ((out, weight), gradient)) in parts.enumerate() {
                let group = self.group(row, g, weight);
                let (scale, zero) = (group.grid.scale(), f32::from(group.grid.zero()));
                let mut of_scale = 0.0f64;
                for ((out, &w), &gradient) in out.iter_mut().zip(weight).zip(gradient) {
                    let code = round_half_even(w / scale) + zero;
                    let inside = (0.0..=max_code).contains(&code);
                    *out = if inside { gradient } else { 0.0 };
                    let own = if inside { w / scale } else { 0.0 };
                    of_scale += f64::from(gradient * (code.clamp(0.0, max_code) - zero - own));
                }
                if !group.free {
                    continue;
                }
                let of_range = of_scale as f32 / max_code;
                if self.logits.is_some() {
                    let slope = |factor: f32| factor * (1.0 - factor);
                    upper[g] = of_range * group.high * slope(group.high_factor);
                    lower[g] = -of_range * group.low * slope(group.low_factor);
                }
                share(out, weight, group.high, of_range * group.high_factor);
                share(out, weight, group.low, -of_range * group.low_factor);
            }
        });
        Ok(found)
    }

    fn check(&self, operand: &'static str, values: &[f32]) -> Result<(), KitError> {
        let expected = self.rows * self.cols;
        if values.len() == expected {
            Ok(())
        } else {
            Err(KitError::Length { operand, expected, found: values.len() })
        }
    }
}

/// Adds the gradient of an extreme to the weights that are the extreme, in equal shares.
fn share(out: &mut [f32], weight: &[f32], extreme: f32, gradient: f32) {
    if extreme == 0.0 {
        return;
    }
    let ties = weight.iter().filter(|w| **w == extreme).count().max(1);
    for (out, _) in out.iter_mut().zip(weight).filter(|(_, w)| **w == extreme) {
        *out += gradient / ties as f32;
    }
}
