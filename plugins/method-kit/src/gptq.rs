//! The GPTQ solver (Frantar et al., 2023, algorithm 1): columns are rounded one after the other, and the error of
//! each is spread over those not yet rounded such that the layer's outputs change least.
//!
//! Blocks, groups and order follow the published code. In particular the grid of a group that starts inside a block
//! is found from weights that carry the feedback of earlier blocks only.

use rayon::prelude::*;

use crate::{
    KitError, Matrix,
    grid::{Grid, GridOptions, Quantized, nearest_code},
    hessian::InverseFactor,
    sweep::{CHUNK_ROWS, LANES, Lanes, RowChunk},
};

/// How weights are quantised; damping and activation order are options of the
/// [factor](crate::hessian::FactorOptions).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GptqOptions {
    /// The grid.
    pub grid: GridOptions,
    /// Find the grids of all groups, in the columns' own order, before anything is rounded. Without it groups are
    /// formed in the order of work, when it gets there. Says nothing without groups.
    pub static_groups: bool,
    /// Columns after which the feedback to all later columns is brought up to date; the published value is 128.
    pub block_size: usize,
}

impl Default for GptqOptions {
    fn default() -> Self {
        Self { grid: GridOptions::default(), static_groups: false, block_size: 128 }
    }
}

/// What the solver found.
#[derive(Debug, Clone)]
pub struct GptqResult {
    /// The quantised weights.
    pub quantized: Quantized,
    /// Sum over all weights of `(w - q)^2 / d^2 / 2`: the estimate of the outputs' squared error that the published
    /// code prints.
    pub loss: f64,
}

/// Quantises one weight matrix.
///
/// # Errors
/// [`KitError::Option`] for options out of range, [`KitError::Length`] if the factor is of another dimension than
/// the weight's columns, [`KitError::Diverged`] if numbers overflow.
pub fn gptq(
    weight: Matrix<'_>,
    factor: &InverseFactor,
    options: &GptqOptions,
) -> Result<GptqResult, KitError> {
    options.grid.validate()?;
    if options.block_size == 0 {
        return Err(KitError::option("block_size", 0, "at least 1"));
    }
    factor.check_columns(&weight)?;
    let (rows, cols) = (weight.rows(), weight.cols());
    let groups = options.grid.groups(cols);
    let plan = Plan::new(factor, options, groups);

    let mut codes = vec![0u8; rows * cols];
    let mut scales = vec![0.0f32; rows * groups];
    let mut zeros = vec![0u8; rows * groups];
    let losses: Vec<f64> = weight
        .data()
        .par_chunks(CHUNK_ROWS * cols)
        .zip(codes.par_chunks_mut(CHUNK_ROWS * cols))
        .zip(scales.par_chunks_mut(CHUNK_ROWS * groups))
        .zip(zeros.par_chunks_mut(CHUNK_ROWS * groups))
        .map(|(((weight, codes), scales), zeros)| plan.solve(weight, codes, scales, zeros))
        .collect();
    let loss: f64 = losses.iter().sum();
    if !loss.is_finite() || scales.iter().any(|s| !s.is_finite()) {
        return Err(KitError::Diverged { damping: factor.damping() });
    }

    let mut group_index = vec![0u32; cols];
    for (step, &group) in plan.group_of_step.iter().enumerate() {
        group_index[plan.column(step)] = group as u32;
    }
    Ok(GptqResult {
        quantized: Quantized {
            rows,
            cols,
            bits: options.grid.bits,
            group_size: options.grid.group_size,
            symmetric: options.grid.symmetric,
            codes,
            scales,
            zeros,
            group_index,
        },
        loss,
    })
}

/// What all rows share.
struct Plan<'a> {
    factor: &'a InverseFactor,
    options: &'a GptqOptions,
    groups: usize,
    /// Group of the column worked on at each step.
    group_of_step: Vec<usize>,
}

impl<'a> Plan<'a> {
    fn new(factor: &'a InverseFactor, options: &'a GptqOptions, groups: usize) -> Self {
        let mut plan = Self { factor, options, groups, group_of_step: Vec::new() };
        plan.group_of_step = (0..factor.dim())
            .map(|step| match options.grid.group_size {
                None => 0,
                Some(size) if options.static_groups => plan.column(step) / size,
                Some(size) => step / size,
            })
            .collect();
        plan
    }

    /// The column worked on at a step.
    fn column(&self, step: usize) -> usize {
        self.factor.order().map_or(step, |order| order[step])
    }

    /// Quantises some rows; gives their loss.
    fn solve(&self, weight: &[f32], codes: &mut [u8], scales: &mut [f32], zeros: &mut [u8]) -> f64 {
        let cols = self.factor.dim();
        let dead = self.factor.dead();
        let mut work = RowChunk::new(weight, cols, |step| self.column(step));
        for step in (0..cols).filter(|&step| dead[self.column(step)]) {
            work.clear(step);
        }
        let mut grids = vec![LaneGrid::UNFITTED; work.lanes() * self.groups];
        self.fit_first(weight, &mut grids);

        // Codes as numbers, `[step][row]`, one lane after the other.
        let mut found = vec![[0u8; LANES]; work.lanes() * cols];
        let mut loss = 0.0f64;
        let max_code = self.options.grid.max_code();
        for start in (0..cols).step_by(self.options.block_size) {
            let end = cols.min(start.saturating_add(self.options.block_size));
            self.fit_groups(&work, start, end, &mut grids);
            let mut losses = [0.0f32; LANES];
            work.sweep(self.factor, start, end, |lane, step, w, _| {
                let grid = &grids[lane * self.groups + self.group_of_step[step]];
                let d = self.factor.diagonal(step);
                let codes = grid.codes(w, max_code);
                let mut error = [0.0; LANES];
                for i in 0..LANES {
                    error[i] = (w[i] - grid.scale[i] * (codes[i] - grid.zero[i])) / d;
                    losses[i] += error[i] * error[i];
                }
                found[lane * cols + step] = codes.map(|code| code as u8);
                error
            });
            loss += losses.iter().map(|&x| f64::from(x)).sum::<f64>();
        }

        for r in 0..work.rows() {
            let (lane, i) = (r / LANES, r % LANES);
            for (step, found) in found[lane * cols..][..cols].iter().enumerate() {
                codes[r * cols + self.column(step)] = found[i];
            }
            for (group, grid) in grids[lane * self.groups..][..self.groups].iter().enumerate() {
                scales[r * self.groups + group] = grid.scale[i];
                zeros[r * self.groups + group] = grid.zero[i] as u8;
            }
        }
        loss / 2.0
    }

    /// Fits the grids that are found before anything is rounded, from the weights as they are.
    fn fit_first(&self, weight: &[f32], grids: &mut [LaneGrid]) {
        let cols = self.factor.dim();
        let dead = self.factor.dead();
        let mut alive = vec![0.0f32; cols];
        for (r, row) in weight.chunks(cols).enumerate() {
            let grids = &mut grids[r / LANES * self.groups..][..self.groups];
            match self.options.grid.group_size {
                // The published code fits whole rows before it clears dead columns.
                None => grids[0].set(r % LANES, self.options.grid.fit(row)),
                Some(size) if self.options.static_groups => {
                    for ((alive, &x), &dead) in alive.iter_mut().zip(row).zip(dead) {
                        *alive = if dead { 0.0 } else { x };
                    }
                    for (grid, values) in grids.iter_mut().zip(alive.chunks(size)) {
                        grid.set(r % LANES, self.options.grid.fit(values));
                    }
                }
                // Found when their first column is reached.
                Some(_) => {}
            }
        }
    }

    /// Fits the groups that begin in a block, from the rows as they are before the block is worked on.
    fn fit_groups(&self, work: &RowChunk, start: usize, end: usize, grids: &mut [LaneGrid]) {
        let Some(size) = self.options.grid.group_size else { return };
        if self.options.static_groups {
            return;
        }
        let mut values = Vec::new();
        for group in start.div_ceil(size)..end.div_ceil(size) {
            let last = self.factor.dim().min((group + 1).saturating_mul(size));
            for r in 0..work.rows() {
                values.clear();
                values.extend((group * size..last).map(|step| work.at(r, step)));
                grids[r / LANES * self.groups + group].set(r % LANES, self.options.grid.fit(&values));
            }
        }
    }
}

/// The grids of one group in 16 rows.
#[derive(Debug, Clone, Copy)]
struct LaneGrid {
    scale: Lanes,
    zero: Lanes,
}

impl LaneGrid {
    /// Stands in for grids not yet found, and for rows that do not exist.
    const UNFITTED: Self = Self { scale: [1.0; LANES], zero: [0.0; LANES] };

    fn set(&mut self, lane: usize, grid: Grid) {
        self.scale[lane] = grid.scale();
        self.zero[lane] = f32::from(grid.zero());
    }

    /// Codes of the grid points nearest to `x`, as numbers.
    #[inline(always)]
    fn codes(&self, x: &Lanes, max_code: f32) -> Lanes {
        let mut codes = [0.0; LANES];
        for i in 0..LANES {
            codes[i] = nearest_code(x[i], self.scale[i], self.zero[i], max_code);
        }
        codes
    }
}
