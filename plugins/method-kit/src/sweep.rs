//! What the solvers of GPTQ and SparseGPT share: how rows are laid out while columns are worked through one after the
//! other, and the error feedback.
//!
//! Rows never speak to each other, columns do. So the rows of a matrix are the lanes of vector registers: a
//! [`RowChunk`] holds some rows column by column, and each step of a solver is done for [`LANES`] rows at once.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};

use crate::hessian::InverseFactor;

/// Rows that are worked on at once: as many as the widest registers hold.
pub(crate) const LANES: usize = 16;

/// One number of each of [`LANES`] rows.
pub(crate) type Lanes = [f32; LANES];

/// Lanes of a chunk: with more, a block's columns would leave the first-level cache.
const CHUNK_LANES: usize = 4;

/// Rows that one task of the thread pool works on. Fixed, so that results do not depend on the number of threads.
pub(crate) const CHUNK_ROWS: usize = CHUNK_LANES * LANES;

/// Up to [`CHUNK_ROWS`] rows of a weight matrix, column by column; rows that do not exist are zero.
#[derive(Debug, Clone)]
pub(crate) struct RowChunk {
    rows: usize,
    cols: usize,
    /// `[cols][CHUNK_LANES]`.
    values: Vec<Lanes>,
}

impl RowChunk {
    /// Takes in rows (`[rows, cols]`, row-major), the column of each step being `column(step)`.
    pub(crate) fn new(rows: &[f32], cols: usize, column: impl Fn(usize) -> usize) -> Self {
        let mut values = vec![[0.0; LANES]; cols * CHUNK_LANES];
        for (r, row) in rows.chunks(cols).enumerate() {
            for (step, lanes) in values.chunks_exact_mut(CHUNK_LANES).enumerate() {
                lanes[r / LANES][r % LANES] = row[column(step)];
            }
        }
        Self { rows: rows.len() / cols, cols, values }
    }

    /// Writes the rows back, row-major.
    pub(crate) fn write(&self, rows: &mut [f32]) {
        for (r, row) in rows.chunks_mut(self.cols).enumerate() {
            for (x, lanes) in row.iter_mut().zip(self.values.chunks_exact(CHUNK_LANES)) {
                *x = lanes[r / LANES][r % LANES];
            }
        }
    }

    /// Rows that exist.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Lanes in which there are rows.
    pub(crate) fn lanes(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// One row's number at a step.
    pub(crate) fn at(&self, row: usize, step: usize) -> f32 {
        self.values[step * CHUNK_LANES + row / LANES][row % LANES]
    }

    /// Sets all rows to zero at a step.
    pub(crate) fn clear(&mut self, step: usize) {
        self.values[step * CHUNK_LANES..][..CHUNK_LANES].fill([0.0; LANES]);
    }

    /// Whether all numbers are finite.
    pub(crate) fn is_finite(&self) -> bool {
        self.values.iter().flatten().all(|x| x.is_finite())
    }

    /// Works through the steps `start..end`, [`LANES`] rows at a time, and feeds the errors to all later steps.
    ///
    /// `step(lane, step, w, later)` sees the numbers of 16 rows at a step, with the feedback of all steps before it, may
    /// change them, and gives their errors, divided by the factor's diagonal. `later` are those of the steps after it.
    pub(crate) fn sweep(
        &mut self,
        factor: &InverseFactor,
        start: usize,
        end: usize,
        step: impl FnMut(usize, usize, &mut Lanes, Later<'_>) -> Lanes,
    ) {
        let mut errors = vec![[0.0; LANES]; (end - start) * CHUNK_LANES];
        // Compiled for each instruction set; multiplication and subtraction are not fused, so numbers are the same on all.
        pulp::Arch::new().dispatch(Sweep { chunk: self, factor, start, end, errors: &mut errors, step });
        self.feed_back(factor, start, end, &errors);
    }

    /// Takes the errors of the steps `start..end` from all after them: `W -= E U[block, after]`.
    fn feed_back(&mut self, factor: &InverseFactor, start: usize, end: usize, errors: &[Lanes]) {
        let cols = self.cols;
        if end >= cols {
            return;
        }
        let later = self.values[end * CHUNK_LANES..].as_flattened_mut();
        let upper = MatRef::from_row_major_slice(factor.upper(), cols, cols);
        matmul(
            MatMut::from_column_major_slice_mut(later, CHUNK_ROWS, cols - end),
            Accum::Add,
            MatRef::from_column_major_slice(errors.as_flattened(), CHUNK_ROWS, end - start),
            upper.submatrix(start, end, end - start, cols - end),
            -1.0,
            Par::Seq,
        );
    }
}

/// The numbers of the steps after the present one, up to the end of its block.
#[derive(Clone, Copy)]
pub(crate) struct Later<'a>(&'a [Lanes]);

impl Later<'_> {
    /// Those of the step `k + 1` steps on.
    #[inline(always)]
    pub(crate) fn at(&self, lane: usize, k: usize) -> &Lanes {
        &self.0[k * CHUNK_LANES + lane]
    }
}

/// The work of [`RowChunk::sweep`] inside the block.
struct Sweep<'a, S> {
    chunk: &'a mut RowChunk,
    factor: &'a InverseFactor,
    start: usize,
    end: usize,
    /// `[end - start][CHUNK_LANES]`.
    errors: &'a mut [Lanes],
    step: S,
}

impl<S: FnMut(usize, usize, &mut Lanes, Later<'_>) -> Lanes> pulp::NullaryFnOnce for Sweep<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { chunk, factor, start, end, errors, mut step } = self;
        for lane in 0..chunk.lanes() {
            for i in start..end {
                let (now, later) = chunk.values[i * CHUNK_LANES..end * CHUNK_LANES].split_at_mut(CHUNK_LANES);
                let error = step(lane, i, &mut now[lane], Later(later));
                errors[(i - start) * CHUNK_LANES + lane] = error;
                let row = &factor.row(i, end)[1..];
                for (lanes, &h) in later.chunks_exact_mut(CHUNK_LANES).zip(row) {
                    for (x, e) in lanes[lane].iter_mut().zip(&error) {
                        *x -= e * h;
                    }
                }
            }
        }
    }
}
