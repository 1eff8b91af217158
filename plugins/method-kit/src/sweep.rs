//! The error feedback that GPTQ and SparseGPT share.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};

use crate::hessian::InverseFactor;

/// Rows that one task of the thread pool works on. Fixed, so that results do not depend on the number of threads.
pub(crate) const CHUNK_ROWS: usize = 64;

/// Takes the error of one column from the columns after it in its block.
///
/// `rest` are the row's columns after the current one, `factor` the matching part of the factor's row.
#[inline(always)]
pub(crate) fn feed_back(rest: &mut [f32], factor: &[f32], error: f32) {
    for (x, &h) in rest.iter_mut().zip(factor) {
        *x -= error * h;
    }
}

/// Takes the errors of a whole block, `start..end`, from all columns after it: `W -= E U[block, after]`.
///
/// `work` is `[rows, cols]`, `errors` `[rows, end - start]`.
pub(crate) fn feed_back_block(
    work: &mut [f32],
    errors: &[f32],
    factor: &InverseFactor,
    start: usize,
    end: usize,
) {
    let cols = factor.dim();
    let rows = work.len() / cols;
    if end >= cols || rows == 0 {
        return;
    }
    let work = MatMut::from_row_major_slice_mut(work, rows, cols);
    let upper = MatRef::from_row_major_slice(factor.upper(), cols, cols);
    matmul(
        work.submatrix_mut(0, end, rows, cols - end),
        Accum::Add,
        MatRef::from_row_major_slice(errors, rows, end - start),
        upper.submatrix(start, end, end - start, cols - end),
        -1.0,
        Par::Seq,
    );
}
