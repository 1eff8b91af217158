//! The SparseGPT solver (Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in
//! One-Shot", 2023, algorithm 1): columns are visited in order, a block's weights of least `w^2 / d^2` are removed,
//! and the error of each removal is spread over the columns not yet visited.

use rayon::prelude::*;

use crate::{
    KitError, Matrix,
    hessian::InverseFactor,
    mask::{Mask, Sparsity, mark_lowest},
    sweep::{CHUNK_ROWS, feed_back, feed_back_block},
};

/// What the solver found.
#[derive(Debug, Clone)]
pub struct SparseGptResult {
    /// The weights, removed ones zero and the others adjusted, `[rows, cols]`.
    pub weight: Vec<f32>,
    /// What was removed.
    pub mask: Mask,
    /// Sum over all weights of `(w - q)^2 / d^2 / 2`.
    pub loss: f64,
}

/// Prunes one weight matrix.
///
/// With an unstructured ratio the threshold is taken per block of `block_size` columns over all rows (published: 128),
/// and everything up to and including it goes: at least one weight more than the ratio says, except at ratio 0,
/// which removes nothing. A pattern has to divide the block size.
///
/// # Errors
/// As [`Sparsity::validate`]; [`KitError::Option`] for a block size of zero or a factor in activation order,
/// [`KitError::Length`] if the factor does not fit the weight, [`KitError::Diverged`] if numbers overflow.
pub fn sparsegpt(
    weight: Matrix<'_>,
    factor: &InverseFactor,
    sparsity: Sparsity,
    block_size: usize,
) -> Result<SparseGptResult, KitError> {
    let (rows, cols) = (weight.rows(), weight.cols());
    sparsity.validate(cols)?;
    factor.check_columns(&weight)?;
    if block_size == 0 {
        return Err(KitError::option("block_size", 0, "at least 1"));
    }
    if factor.order().is_some() {
        return Err(KitError::option(
            "activation_order",
            true,
            "false: SparseGPT works from the first column to the last",
        ));
    }
    let block_size = block_size.min(cols);
    if let Sparsity::Pattern { of, .. } = sparsity
        && !block_size.is_multiple_of(of)
    {
        return Err(KitError::Indivisible {
            what: "a block",
            size: block_size,
            unit: "pattern",
            multiple: of,
        });
    }

    let mut work = weight.data().to_vec();
    work.par_chunks_mut(cols).for_each(|row| {
        for (x, &dead) in row.iter_mut().zip(factor.dead()) {
            if dead {
                *x = 0.0;
            }
        }
    });
    let mut pruned = vec![false; work.len()];
    let mut loss = 0.0;
    for start in (0..cols).step_by(block_size) {
        let block = Block { factor, sparsity, start, end: (start + block_size).min(cols) };
        let threshold = match sparsity {
            Sparsity::Unstructured { ratio } => block.threshold(&work, rows, ratio),
            Sparsity::Pattern { .. } => None,
        };
        let losses: Vec<f64> = work
            .par_chunks_mut(CHUNK_ROWS * cols)
            .zip(pruned.par_chunks_mut(CHUNK_ROWS * cols))
            .map(|(work, pruned)| block.solve(work, pruned, threshold))
            .collect();
        loss += losses.iter().sum::<f64>();
    }
    if !loss.is_finite() || work.par_iter().any(|w| !w.is_finite()) {
        return Err(KitError::Diverged { damping: factor.damping() });
    }
    Ok(SparseGptResult { weight: work, mask: Mask::new(cols, pruned), loss })
}

/// One block of columns.
struct Block<'a> {
    factor: &'a InverseFactor,
    sparsity: Sparsity,
    start: usize,
    end: usize,
}

impl Block<'_> {
    /// `w^2 / d^2` of the weight at a column, given the diagonal entry `d` of the factor.
    fn score(&self, w: f32, col: usize) -> f32 {
        let d = self.factor.row(col, self.end)[0];
        w * w / (d * d)
    }

    /// The score up to which weights of this block are removed.
    fn threshold(&self, work: &[f32], rows: usize, ratio: f64) -> Option<f32> {
        if ratio == 0.0 {
            return None;
        }
        let cols = self.factor.dim();
        let mut scores: Vec<f32> = Vec::with_capacity(rows * (self.end - self.start));
        for row in work.chunks(cols) {
            let block = row[self.start..self.end].iter().zip(self.start..);
            scores.extend(block.map(|(&w, col)| self.score(w, col)));
        }
        let index = ((scores.len() as f64 * ratio) as usize).min(scores.len() - 1);
        Some(*scores.select_nth_unstable_by(index, f32::total_cmp).1)
    }

    /// Prunes this block in some rows and feeds the errors to all columns after it; gives the loss.
    fn solve(&self, work: &mut [f32], pruned: &mut [bool], threshold: Option<f32>) -> f64 {
        let cols = self.factor.dim();
        let rows = work.len() / cols;
        let width = self.end - self.start;
        let mut errors = vec![0.0f32; rows * width];
        let mut scores = Vec::with_capacity(width);
        let mut keys = Vec::new();
        let mut loss = 0.0f64;
        for ((row, pruned), errors) in
            work.chunks_mut(cols).zip(pruned.chunks_mut(cols)).zip(errors.chunks_mut(width))
        {
            let row = &mut row[self.start..self.end];
            let pruned = &mut pruned[self.start..self.end];
            if let Some(threshold) = threshold {
                for ((pruned, &w), col) in pruned.iter_mut().zip(row.iter()).zip(self.start..) {
                    *pruned = self.score(w, col) <= threshold;
                }
            }
            for (i, error_slot) in errors.iter_mut().enumerate() {
                if let Sparsity::Pattern { prune, of } = self.sparsity
                    && i % of == 0
                {
                    scores.clear();
                    let group = row[i..i + of].iter().zip(self.start + i..);
                    scores.extend(group.map(|(&w, col)| self.score(w, col)));
                    mark_lowest(&scores, prune, &mut keys, &mut pruned[i..i + of]);
                }
                if pruned[i] {
                    let factor = self.factor.row(self.start + i, self.end);
                    let (current, rest) = row[i..].split_at_mut(1);
                    let error = current[0] / factor[0];
                    current[0] = 0.0;
                    *error_slot = error;
                    loss += f64::from(error * error);
                    feed_back(rest, &factor[1..], error);
                }
            }
        }
        feed_back_block(work, &errors, self.factor, self.start, self.end);
        loss / 2.0
    }
}
