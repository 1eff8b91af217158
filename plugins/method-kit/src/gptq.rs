//! The GPTQ solver (Frantar et al., 2023, algorithm 1): columns are rounded one after the other, and the error of
//! each is spread over those not yet rounded such that the layer's outputs change least.
//!
//! Blocks, groups and order follow the published code. In particular the grid of a group that starts inside a block
//! is found from weights that carry the feedback of earlier blocks only.

use rayon::prelude::*;

use crate::{
    KitError, Matrix,
    grid::{Grid, GridOptions, Quantized},
    hessian::InverseFactor,
    sweep::{CHUNK_ROWS, feed_back, feed_back_block},
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
        .map(|(((weight, codes), scales), zeros)| {
            let (grids, loss) = plan.solve(weight, codes);
            for ((grid, scale), zero) in grids.iter().zip(scales).zip(zeros) {
                *scale = grid.scale();
                *zero = grid.zero();
            }
            loss
        })
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

    /// Quantises some rows; gives their grids `[rows, groups]` and their loss.
    fn solve(&self, weight: &[f32], codes: &mut [u8]) -> (Vec<Grid>, f64) {
        let cols = self.factor.dim();
        let rows = weight.len() / cols;
        let dead = self.factor.dead();
        let max_block = self.options.block_size.min(cols);

        let mut work = vec![0.0f32; weight.len()];
        let mut grids = Vec::with_capacity(rows * self.groups);
        let mut alive = vec![0.0f32; cols];
        for (row, work) in weight.chunks(cols).zip(work.chunks_mut(cols)) {
            for ((alive, &x), &dead) in alive.iter_mut().zip(row).zip(dead) {
                *alive = if dead { 0.0 } else { x };
            }
            for (step, x) in work.iter_mut().enumerate() {
                *x = alive[self.column(step)];
            }
            match self.options.grid.group_size {
                // The published code fits whole rows before it clears dead columns.
                None => grids.push(self.options.grid.fit(row)),
                Some(size) if self.options.static_groups => {
                    grids.extend(alive.chunks(size).map(|x| self.options.grid.fit(x)));
                }
                // Found when their first column is reached.
                Some(_) => grids.resize(grids.len() + self.groups, Grid::UNFITTED),
            }
        }

        let mut loss = 0.0f64;
        let mut errors = vec![0.0f32; rows * max_block];
        for start in (0..cols).step_by(max_block) {
            let end = (start + max_block).min(cols);
            let width = end - start;
            let errors = &mut errors[..rows * width];
            for (r, (row, errors)) in work.chunks_mut(cols).zip(errors.chunks_mut(width)).enumerate() {
                let grids = &mut grids[r * self.groups..][..self.groups];
                self.fit_groups(row, start, end, grids);
                let codes = &mut codes[r * cols..][..cols];
                loss += self.sweep(&mut row[start..end], start, grids, codes, errors);
            }
            feed_back_block(&mut work, errors, self.factor, start, end);
        }
        (grids, loss)
    }

    /// Fits the groups that begin in a block, from the row as it is before the block is worked on.
    fn fit_groups(&self, row: &[f32], start: usize, end: usize, grids: &mut [Grid]) {
        if let Some(size) = self.options.grid.group_size
            && !self.options.static_groups
        {
            let (first, stop) = (start.div_ceil(size), end.div_ceil(size));
            for (group, grid) in (first..stop).zip(&mut grids[first..stop]) {
                let stop = row.len().min((group + 1).saturating_mul(size));
                *grid = self.options.grid.fit(&row[group * size..stop]);
            }
        }
    }

    /// Rounds the columns of one row's block; gives the loss.
    fn sweep(
        &self,
        block: &mut [f32],
        start: usize,
        grids: &[Grid],
        codes: &mut [u8],
        errors: &mut [f32],
    ) -> f64 {
        let end = start + block.len();
        let mut loss = 0.0f32;
        for (i, error_slot) in errors.iter_mut().enumerate() {
            let step = start + i;
            let factor = self.factor.row(step, end);
            let (current, rest) = block[i..].split_at_mut(1);
            let grid = &grids[self.group_of_step[step]];
            let code = grid.code(current[0]);
            let error = (current[0] - grid.value(code)) / factor[0];
            codes[self.column(step)] = code;
            *error_slot = error;
            loss += error * error;
            feed_back(rest, &factor[1..], error);
        }
        f64::from(loss) / 2.0
    }
}
