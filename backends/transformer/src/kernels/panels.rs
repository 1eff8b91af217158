//! What products with packed weights of all kinds have in common: which panels are multiplied, and by which thread.

use super::matmul::{INNER_BLOCK, PANEL, PanelBlock, multiply_panel_block};
use super::{InstructionSet, instruction_set};

/// A weight matrix `[out, in]` packed for products `Y = X W^T`, in panels of 16 outputs.
///
/// Operands are row-major, `x` is `[rows, inputs]`. Multiplying panics if an operand is too short.
pub trait Panels: Sync {
    /// Number of outputs (rows of the weight).
    fn outputs(&self) -> usize;

    /// Number of inputs (columns of the weight).
    fn inputs(&self) -> usize;

    /// The weights, row-major `[outputs, inputs]`.
    fn unpack(&self) -> Vec<f32>;

    /// Of how many panels a piece of work should be a multiple.
    fn together(&self) -> usize {
        1
    }

    /// Forms a product whose operands have been measured.
    ///
    /// # Safety
    /// As [`Product`] says.
    unsafe fn multiply_unchecked(&self, product: Product<'_>);

    /// Number of panels.
    fn panel_count(&self) -> usize {
        self.outputs().div_ceil(PANEL)
    }

    /// `Y = X W^T` for the outputs of panels `first .. first + count`, on the calling thread. Output `first * 16 + j` of row `r` goes to
    /// `y[r * y_stride + j]`.
    fn multiply_panels(
        &self,
        x: &[f32],
        rows: usize,
        first: usize,
        count: usize,
        y: &mut [f32],
        y_stride: usize,
    ) {
        if rows == 0 || count == 0 {
            return;
        }
        assert!(
            first + count <= self.panel_count(),
            "panels {first}..{} of {}",
            first + count,
            self.panel_count()
        );
        let width = (self.outputs() - first * PANEL).min(count * PANEL);
        assert!(x.len() >= rows * self.inputs(), "X is too short");
        assert!(y_stride >= width && y.len() >= (rows - 1) * y_stride + width, "Y is too short");
        let (set, y) = (instruction_set(), y.as_mut_ptr());
        // SAFETY: X, Y and the panel range were just measured, and Y is borrowed for writing.
        unsafe { self.multiply_unchecked(Product { set, x, rows, first, count, y, y_stride }) }
    }

    /// `Y = X W^T` with `y` `[rows, outputs]`, on the calling thread.
    fn multiply(&self, x: &[f32], rows: usize, y: &mut [f32]) {
        self.multiply_panels(x, rows, 0, self.panel_count(), y, self.outputs());
    }

    /// As [`multiply`](Self::multiply), with the panels shared among the threads of the current rayon pool: for few rows.
    fn multiply_parallel(&self, x: &[f32], rows: usize, y: &mut [f32]) {
        use rayon::prelude::*;
        let y_stride = self.outputs();
        if rows == 0 || y_stride == 0 {
            return;
        }
        assert!(x.len() >= rows * self.inputs(), "X is too short");
        assert!(y.len() >= rows * y_stride, "Y is too short");
        struct Output(*mut f32);
        // SAFETY: the pointer is only used for disjoint columns, see below.
        unsafe impl Sync for Output {}
        let output = Output(y.as_mut_ptr());
        let output = &output;
        let (set, threads) = (instruction_set(), rayon::current_num_threads());
        // A few pieces for each thread even out threads that are held up.
        let piece = self.panel_count().div_ceil(threads * 4).max(4).next_multiple_of(self.together());
        (0..self.panel_count().div_ceil(piece)).into_par_iter().for_each(|i| {
            let first = i * piece;
            let count = piece.min(self.panel_count() - first);
            // SAFETY: X and Y were measured above. Task `i` writes the columns of its own panels only, so tasks never
            // meet, and `y` is borrowed for writing until all are done.
            unsafe {
                let y = output.0.add(first * PANEL);
                self.multiply_unchecked(Product { set, x, rows, first, count, y, y_stride });
            }
        });
    }
}

/// A product of some panels.
///
/// Who makes one promises: `x` has `rows * inputs` elements; the panels `first .. first + count` exist; `y + r * y_stride + j` is writable
/// for each row and each output `j` of the panels (outputs, not padding), by this thread alone; and the processor has the instruction set.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    pub(super) set: InstructionSet,
    pub(super) x: &'a [f32],
    pub(super) rows: usize,
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) y: *mut f32,
    pub(super) y_stride: usize,
}

impl Product<'_> {
    /// Multiplies stretches of at most `longest` inputs, one after the other, each of all panels. `stretch` is asked for the panel,
    /// the first input, and how many there are, and answers with the weights, 16 for each input.
    ///
    /// # Safety
    /// The product must be one with `matrix`; what `stretch` answers must be readable until it is asked again.
    pub(super) unsafe fn by_stretches(
        self,
        matrix: &impl Panels,
        longest: usize,
        mut stretch: impl FnMut(usize, usize, usize) -> *const f32,
    ) {
        debug_assert!((1..=INNER_BLOCK).contains(&longest));
        let (inputs, outputs) = (matrix.inputs(), matrix.outputs());
        let mut k0 = 0;
        // Once at least: without inputs, the sums are 0.
        loop {
            let steps = (inputs - k0).min(longest);
            for p in self.first..self.first + self.count {
                let block = PanelBlock {
                    rows: self.rows,
                    steps,
                    x: self.x.as_ptr().wrapping_add(k0),
                    x_stride: inputs,
                    panel: stretch(p, k0, steps),
                    y: self.y.wrapping_add((p - self.first) * PANEL),
                    y_stride: self.y_stride,
                    columns: PANEL.min(outputs - p * PANEL),
                    proceed: k0 > 0,
                };
                // SAFETY: X and Y are as the product promises, the panel as the caller does.
                unsafe { multiply_panel_block(self.set, block) };
            }
            k0 += steps;
            if k0 >= inputs {
                return;
            }
        }
    }
}

/// A matrix whose rows are copied one by one, row-major.
pub(super) fn unpack_rows(matrix: &impl Panels, copy_row: impl Fn(usize, &mut [f32])) -> Vec<f32> {
    let mut weight = vec![0f32; matrix.outputs() * matrix.inputs()];
    for (output, row) in weight.chunks_exact_mut(matrix.inputs().max(1)).enumerate() {
        copy_row(output, row);
    }
    weight
}
