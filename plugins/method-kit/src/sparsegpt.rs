//! The SparseGPT solver (Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in
//! One-Shot", 2023, algorithm 1): columns are visited in order, a block's weights of least `w^2 / d^2` are removed,
//! and the error of each removal is spread over the columns not yet visited.

use rayon::prelude::*;

use crate::{
    KitError, Matrix,
    hessian::InverseFactor,
    mask::{Mask, Sparsity, mark_lowest},
    sweep::{CHUNK_ROWS, LANES, Lanes, Later, RowChunk},
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

    let mut chunks: Vec<PrunedChunk> = weight
        .data()
        .par_chunks(CHUNK_ROWS * cols)
        .map(|rows| {
            let mut work = RowChunk::new(rows, cols, |step| step);
            for step in (0..cols).filter(|&step| factor.dead()[step]) {
                work.clear(step);
            }
            let pruned = vec![[false; LANES]; work.lanes() * cols];
            PrunedChunk { work, pruned }
        })
        .collect();
    let mut loss = 0.0;
    for start in (0..cols).step_by(block_size) {
        let block = Block { factor, sparsity, start, end: (start + block_size).min(cols) };
        let threshold = match sparsity {
            Sparsity::Unstructured { ratio } => block.threshold(&chunks, rows, ratio),
            Sparsity::Pattern { .. } => None,
        };
        let losses: Vec<f64> = chunks.par_iter_mut().map(|chunk| block.solve(chunk, threshold)).collect();
        loss += losses.iter().sum::<f64>();
    }
    if !loss.is_finite() || !chunks.par_iter().all(|chunk| chunk.work.is_finite()) {
        return Err(KitError::Diverged { damping: factor.damping() });
    }
    let mut weight = vec![0.0f32; rows * cols];
    let mut pruned = vec![false; rows * cols];
    weight
        .par_chunks_mut(CHUNK_ROWS * cols)
        .zip(pruned.par_chunks_mut(CHUNK_ROWS * cols))
        .zip(&chunks)
        .for_each(|((weight, pruned), chunk)| chunk.write(weight, pruned));
    Ok(SparseGptResult { weight, mask: Mask::new(cols, pruned), loss })
}

/// Some rows in the making.
struct PrunedChunk {
    work: RowChunk,
    /// Which weights are removed, `[lane][col]`.
    pruned: Vec<[bool; LANES]>,
}

impl PrunedChunk {
    /// Writes weights and mask, row-major.
    fn write(&self, weight: &mut [f32], pruned: &mut [bool]) {
        self.work.write(weight);
        let cols = weight.len() / self.work.rows();
        for (r, row) in pruned.chunks_mut(cols).enumerate() {
            for (out, lanes) in row.iter_mut().zip(&self.pruned[r / LANES * cols..]) {
                *out = lanes[r % LANES];
            }
        }
    }
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
    #[inline(always)]
    fn score(&self, w: f32, col: usize) -> f32 {
        let d = self.factor.diagonal(col);
        w * w / (d * d)
    }

    /// The score up to which weights of this block are removed.
    fn threshold(&self, chunks: &[PrunedChunk], rows: usize, ratio: f64) -> Option<f32> {
        if ratio == 0.0 {
            return None;
        }
        let width = self.end - self.start;
        let mut scores = vec![0.0f32; rows * width];
        scores.par_chunks_mut(CHUNK_ROWS * width).zip(chunks).for_each(|(scores, chunk)| {
            for (col, scores) in (self.start..self.end).zip(scores.chunks_mut(chunk.work.rows())) {
                for (r, score) in scores.iter_mut().enumerate() {
                    *score = self.score(chunk.work.at(r, col), col);
                }
            }
        });
        let index = ((scores.len() as f64 * ratio) as usize).min(scores.len() - 1);
        Some(*scores.select_nth_unstable_by(index, f32::total_cmp).1)
    }

    /// Prunes this block in some rows and feeds the errors to all columns after it; gives the loss.
    fn solve(&self, chunk: &mut PrunedChunk, threshold: Option<f32>) -> f64 {
        let cols = self.factor.dim();
        let PrunedChunk { work, pruned } = chunk;
        if let Some(threshold) = threshold {
            for r in 0..work.rows() {
                for col in self.start..self.end {
                    pruned[r / LANES * cols + col][r % LANES] = self.score(work.at(r, col), col) <= threshold;
                }
            }
        }
        let mut losses = [0.0f32; LANES];
        let mut scratch = Scratch::default();
        work.sweep(self.factor, self.start, self.end, |lane, col, w, later| {
            let pruned = &mut pruned[lane * cols..][..cols];
            if let Sparsity::Pattern { prune, of } = self.sparsity
                && (col - self.start).is_multiple_of(of)
            {
                let pruned = &mut pruned[col..col + of];
                self.mark_pattern(col, w, later, lane, prune, pruned, &mut scratch);
            }
            let d = self.factor.diagonal(col);
            let mut error = [0.0; LANES];
            for i in 0..LANES {
                if pruned[col][i] {
                    error[i] = w[i] / d;
                    w[i] = 0.0;
                }
                losses[i] += error[i] * error[i];
            }
            error
        });
        losses.iter().map(|&x| f64::from(x)).sum::<f64>() / 2.0
    }

    /// Marks the `prune` lowest of as many columns as `pruned` has, from `col` on, in 16 rows.
    #[allow(clippy::too_many_arguments)]
    fn mark_pattern(
        &self,
        col: usize,
        w: &Lanes,
        later: Later<'_>,
        lane: usize,
        prune: usize,
        pruned: &mut [[bool; LANES]],
        scratch: &mut Scratch,
    ) {
        for i in 0..LANES {
            scratch.scores.clear();
            scratch.scores.push(self.score(w[i], col));
            let rest = 0..pruned.len() - 1;
            scratch.scores.extend(rest.map(|k| self.score(later.at(lane, k)[i], col + 1 + k)));
            scratch.marked.clear();
            scratch.marked.resize(pruned.len(), false);
            mark_lowest(&scratch.scores, prune, &mut scratch.keys, &mut scratch.marked);
            for (pruned, &marked) in pruned.iter_mut().zip(&scratch.marked) {
                pruned[i] = marked;
            }
        }
    }
}

/// Room for the scores of one row's pattern.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    keys: Vec<u64>,
    marked: Vec<bool>,
}
