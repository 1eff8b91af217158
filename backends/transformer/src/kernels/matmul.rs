//! Matrix products around one register tile.
//!
//! The tile multiplies up to 6 (AVX2) or 12 (AVX-512) rows of A with one panel of B, 16 columns wide, and holds the whole tile of C in
//! registers while it walks the inner dimension (Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication").
//! Weights are packed into such panels once, when they are loaded; activations are read where they lie.

use super::panels::{Panels, Product, unpack_rows};
use super::{InstructionSet, instruction_set};

/// Columns of a panel.
pub const PANEL: usize = 16;

/// Steps of the inner dimension that are done before the next panel is taken, so that a block of activations stays in
/// the second-level cache. Does not change results: partial sums are stored and taken up again exactly.
pub const INNER_BLOCK: usize = 768;

/// How a product treats what is already in C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// C = A B.
    Zero,
    /// C = C + A B, the sums going on from C as if they had never been stored.
    Continue,
}

/// A left operand in memory: element (row, k) stands at `data[row * row_stride + k * inner_stride]`.
#[derive(Debug, Clone, Copy)]
pub struct Strided<'a> {
    /// All elements.
    pub data: &'a [f32],
    /// Distance of one row from the next.
    pub row_stride: usize,
    /// Distance of one element of the inner dimension from the next.
    pub inner_stride: usize,
}

/// One call of the register tile.
#[derive(Clone, Copy)]
struct Tile {
    inner: usize,
    a: *const f32,
    row_stride: usize,
    inner_stride: usize,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    proceed: bool,
}

/// The tile in portable Rust.
///
/// # Safety
/// For `r < ROWS`, `k < inner`, `j < PANEL`: `a + r * row_stride + k * inner_stride` and `b + k * b_stride + j` must be
/// readable, `c + r * c_stride + j` readable and writable, and no other thread may use that part of C.
#[inline(always)]
unsafe fn tile_portable<const ROWS: usize>(t: Tile) {
    let mut acc = [[0f32; PANEL]; ROWS];
    // SAFETY: all addresses are within what the caller vouches for.
    unsafe {
        if t.proceed {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (j, acc) in acc.iter_mut().enumerate() {
                    *acc = *t.c.add(r * t.c_stride + j);
                }
            }
        }
        for k in 0..t.inner {
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = *t.a.add(r * t.row_stride + k * t.inner_stride);
                for (j, acc) in acc.iter_mut().enumerate() {
                    let b = *t.b.add(k * t.b_stride + j);
                    *acc = super::vector::multiply_add::<{ cfg!(target_arch = "aarch64") }>(x, b, *acc);
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (j, &acc) in acc.iter().enumerate() {
                *t.c.add(r * t.c_stride + j) = acc;
            }
        }
    }
}

/// The tile with AVX2: two registers of 8 columns for each row.
///
/// # Safety
/// As [`tile_portable`]; the processor must have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_avx2<const ROWS: usize>(t: Tile) {
    use std::arch::x86_64::*;
    // SAFETY: all addresses are within what the caller vouches for.
    unsafe {
        let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
        if t.proceed {
            for (r, acc) in acc.iter_mut().enumerate() {
                acc[0] = _mm256_loadu_ps(t.c.add(r * t.c_stride));
                acc[1] = _mm256_loadu_ps(t.c.add(r * t.c_stride + 8));
            }
        }
        let mut a = t.a;
        let mut b = t.b;
        for _ in 0..t.inner {
            let b0 = _mm256_loadu_ps(b);
            let b1 = _mm256_loadu_ps(b.add(8));
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = _mm256_broadcast_ss(&*a.add(r * t.row_stride));
                acc[0] = _mm256_fmadd_ps(x, b0, acc[0]);
                acc[1] = _mm256_fmadd_ps(x, b1, acc[1]);
            }
            // The last step may point past the end: such a pointer is made but not read.
            a = a.wrapping_add(t.inner_stride);
            b = b.wrapping_add(t.b_stride);
        }
        for (r, acc) in acc.iter().enumerate() {
            _mm256_storeu_ps(t.c.add(r * t.c_stride), acc[0]);
            _mm256_storeu_ps(t.c.add(r * t.c_stride + 8), acc[1]);
        }
    }
}

/// The tile with AVX-512: one register for each row.
///
/// # Safety
/// As [`tile_portable`]; the processor must have AVX-512F.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn tile_avx512<const ROWS: usize>(t: Tile) {
    use std::arch::x86_64::*;
    // SAFETY: all addresses are within what the caller vouches for.
    unsafe {
        let mut acc = [_mm512_setzero_ps(); ROWS];
        if t.proceed {
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = _mm512_loadu_ps(t.c.add(r * t.c_stride));
            }
        }
        let mut a = t.a;
        let mut b = t.b;
        for _ in 0..t.inner {
            let b0 = _mm512_loadu_ps(b);
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = _mm512_fmadd_ps(_mm512_set1_ps(*a.add(r * t.row_stride)), b0, *acc);
            }
            a = a.wrapping_add(t.inner_stride);
            b = b.wrapping_add(t.b_stride);
        }
        for (r, acc) in acc.iter().enumerate() {
            _mm512_storeu_ps(t.c.add(r * t.c_stride), *acc);
        }
    }
}

/// Defines the walk over `rows` rows with one kind of tile.
macro_rules! walk_rows {
    ($(#[$meta:meta])* $name:ident, $tile:ident, [$most:literal $(, $rest:literal)*]) => {
        /// Runs the tile over `rows` rows of A and C.
        ///
        /// # Safety
        /// As [`tile_portable`] with `rows` for `ROWS`; the processor must have the instructions of the tile.
        $(#[$meta])*
        unsafe fn $name(rows: usize, mut t: Tile) {
            let mut left = rows;
            // SAFETY: the rows are walked once each, and all lie within what the caller vouches for.
            unsafe {
                while left >= $most {
                    $tile::<$most>(t);
                    t.a = t.a.wrapping_add($most * t.row_stride);
                    t.c = t.c.wrapping_add($most * t.c_stride);
                    left -= $most;
                }
                match left {
                    $($rest => $tile::<$rest>(t),)*
                    _ => {}
                }
            }
        }
    };
}
walk_rows!(walk_portable, tile_portable, [6, 1, 2, 3, 4, 5]);
#[cfg(target_arch = "x86_64")]
walk_rows!(
    #[target_feature(enable = "avx2,fma")]
    walk_avx2,
    tile_avx2,
    [6, 1, 2, 3, 4, 5]
);
#[cfg(target_arch = "x86_64")]
walk_rows!(
    #[target_feature(enable = "avx512f")]
    walk_avx512,
    tile_avx512,
    [12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
);

/// Runs the best tile of this machine over `rows` rows.
///
/// # Safety
/// As [`tile_portable`] with `rows` for `ROWS`.
#[inline]
unsafe fn walk(set: InstructionSet, rows: usize, tile: Tile) {
    // SAFETY: the addresses are the caller's promise; `set` comes from asking the processor.
    unsafe {
        match set {
            InstructionSet::Baseline => walk_portable(rows, tile),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => walk_avx2(rows, tile),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => walk_avx512(rows, tile),
        }
    }
}

/// `C[rows, 16] = A[rows, inner] B[inner, 16]`, with B at `b[k * b_stride ..][..16]` and C at `c[row * c_stride ..][..16]`.
///
/// # Panics
/// If an operand is too short for its strides.
#[allow(clippy::too_many_arguments)]
pub fn multiply_strided(
    rows: usize,
    inner: usize,
    a: Strided<'_>,
    b: &[f32],
    b_stride: usize,
    c: &mut [f32],
    c_stride: usize,
    start: Start,
) {
    if rows == 0 {
        return;
    }
    assert!((rows - 1) * c_stride + PANEL <= c.len(), "C is too short");
    if inner > 0 {
        assert!((rows - 1) * a.row_stride + (inner - 1) * a.inner_stride < a.data.len(), "A is too short");
        assert!((inner - 1) * b_stride + PANEL <= b.len(), "B is too short");
    }
    let tile = Tile {
        inner,
        a: a.data.as_ptr(),
        row_stride: a.row_stride,
        inner_stride: a.inner_stride,
        b: b.as_ptr(),
        b_stride,
        c: c.as_mut_ptr(),
        c_stride,
        proceed: start == Start::Continue,
    };
    // SAFETY: the greatest address of each operand was compared with its length just now; C is borrowed for writing.
    unsafe { walk(instruction_set(), rows, tile) }
}

/// A stretch of one panel's inner dimension times rows of X.
#[derive(Clone, Copy)]
pub(super) struct PanelBlock {
    pub(super) rows: usize,
    /// Steps of the inner dimension.
    pub(super) steps: usize,
    pub(super) x: *const f32,
    pub(super) x_stride: usize,
    /// `[steps][16]`.
    pub(super) panel: *const f32,
    pub(super) y: *mut f32,
    pub(super) y_stride: usize,
    /// Columns of the panel that exist; the others are not written.
    pub(super) columns: usize,
    /// Whether sums go on from what is in Y.
    pub(super) proceed: bool,
}

/// Runs the best tile of this machine over a block.
///
/// # Safety
/// For `r < rows`, `k < steps`: `x + r * x_stride + k` and `panel + k * 16 + j` for `j < 16` must be readable, `y + r * y_stride + j` readable and writable
/// for `j < columns` by this thread alone; the processor must have the instruction set.
pub(super) unsafe fn multiply_panel_block(set: InstructionSet, block: PanelBlock) {
    let PanelBlock { rows, steps, x, x_stride, panel, y, y_stride, columns, proceed } = block;
    let mut tile = Tile {
        inner: steps,
        a: x,
        row_stride: x_stride,
        inner_stride: 1,
        b: panel,
        b_stride: PANEL,
        c: y,
        c_stride: y_stride,
        proceed,
    };
    if columns == PANEL {
        // SAFETY: the caller's promise.
        unsafe { walk(set, rows, tile) };
        return;
    }
    // Columns that do not exist may not be written to: they go through this buffer.
    let mut edge = [0f32; PANEL * 12];
    tile.c = edge.as_mut_ptr();
    tile.c_stride = PANEL;
    for r0 in (0..rows).step_by(12) {
        let some = 12.min(rows - r0);
        // SAFETY: as above, but C is `edge`, 12 rows of 16; `columns` of each go to and come from Y.
        unsafe {
            for r in 0..some {
                let from = y.add((r0 + r) * y_stride);
                std::ptr::copy_nonoverlapping(from, edge.as_mut_ptr().add(r * PANEL), columns);
            }
            tile.a = x.add(r0 * x_stride);
            walk(set, some, tile);
            for r in 0..some {
                let to = y.add((r0 + r) * y_stride);
                std::ptr::copy_nonoverlapping(edge.as_ptr().add(r * PANEL), to, columns);
            }
        }
    }
}

/// A weight matrix `[out, in]` packed for products `Y = X W^T`: panels of 16 outputs, each stored inner index first.
///
/// Outputs beyond the last are zero-filled up to a whole panel.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedMatrix {
    outputs: usize,
    inputs: usize,
    panels: Vec<f32>,
}

impl PackedMatrix {
    /// Packs a row-major `[outputs, inputs]` matrix.
    ///
    /// # Panics
    /// If `weight` has another length than `outputs * inputs`.
    pub fn pack(outputs: usize, inputs: usize, weight: &[f32]) -> Self {
        assert_eq!(weight.len(), outputs * inputs, "a weight of {outputs} x {inputs}");
        let mut panels = vec![0f32; outputs.div_ceil(PANEL) * PANEL * inputs];
        if inputs > 0 {
            for (p, panel) in panels.chunks_exact_mut(PANEL * inputs).enumerate() {
                let rows = PANEL.min(outputs - p * PANEL);
                // Blocks of 16 inner steps keep both sides of the transposition in the first-level cache.
                for k0 in (0..inputs).step_by(PANEL) {
                    let k1 = (k0 + PANEL).min(inputs);
                    for j in 0..rows {
                        let row = &weight[(p * PANEL + j) * inputs..][..inputs];
                        for k in k0..k1 {
                            panel[k * PANEL + j] = row[k];
                        }
                    }
                }
            }
        }
        Self { outputs, inputs, panels }
    }

    /// Copies row `output` into `row`, which is `[inputs]`.
    ///
    /// # Panics
    /// If `output` is not below the number of outputs or `row` has another length than the inputs.
    pub fn copy_row(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs && row.len() == self.inputs);
        let panel = &self.panels[output / PANEL * PANEL * self.inputs..][..PANEL * self.inputs];
        for (v, step) in row.iter_mut().zip(panel.as_chunks::<PANEL>().0) {
            *v = step[output % PANEL];
        }
    }

    /// `[panels][inputs][16]`.
    pub(super) fn panels(&self) -> &[f32] {
        &self.panels
    }

    /// How many of its numbers are not zero.
    pub fn nonzeros(&self) -> usize {
        // What fills up the last panel is zero.
        self.panels.iter().filter(|value| **value != 0.0).count()
    }
}

impl Panels for PackedMatrix {
    fn outputs(&self) -> usize {
        self.outputs
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bit for bit what was packed.
    fn unpack(&self) -> Vec<f32> {
        unpack_rows(self, |output, row| self.copy_row(output, row))
    }

    unsafe fn multiply_unchecked(&self, product: Product<'_>) {
        let stretch =
            |p: usize, k0: usize, _: usize| self.panels.as_ptr().wrapping_add((p * self.inputs + k0) * PANEL);
        // SAFETY: the caller's promise; the weights are those of panel `p` from `k0` on.
        unsafe { product.by_stretches(self, INNER_BLOCK, stretch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
            })
            .collect()
    }

    fn naive(x: &[f32], w: &[f32], rows: usize, inputs: usize, outputs: usize) -> Vec<f64> {
        let mut y = vec![0f64; rows * outputs];
        for r in 0..rows {
            for o in 0..outputs {
                y[r * outputs + o] =
                    (0..inputs).map(|k| f64::from(x[r * inputs + k]) * f64::from(w[o * inputs + k])).sum();
            }
        }
        y
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn products_agree_with_f64(rows in 1usize..40, inputs in 1usize..90, outputs in 1usize..70, seed in 0u64..9999) {
            let (x, w) = (noise(rows * inputs, seed), noise(outputs * inputs, seed + 1));
            let packed = PackedMatrix::pack(outputs, inputs, &w);
            prop_assert_eq!(packed.unpack(), w.clone());
            let want = naive(&x, &w, rows, inputs, outputs);
            let mut y = vec![f32::NAN; rows * outputs];
            packed.multiply(&x, rows, &mut y);
            for (got, want) in y.iter().zip(&want) {
                prop_assert!((f64::from(*got) - want).abs() < 1e-5, "{} is not {}", got, want);
            }
            let mut parallel = vec![f32::NAN; rows * outputs];
            packed.multiply_parallel(&x, rows, &mut parallel);
            prop_assert_eq!(&y, &parallel);
            for r in 0..rows {
                let mut row = vec![f32::NAN; outputs];
                packed.multiply(&x[r * inputs..][..inputs], 1, &mut row);
                prop_assert_eq!(&row, &y[r * outputs..][..outputs], "a row alone differs from the row among others");
            }
        }
    }

    #[test]
    fn an_inner_dimension_beyond_one_block_agrees_with_f64() {
        let (rows, inputs, outputs) = (7, 2 * INNER_BLOCK + 5, 21);
        let (x, w) = (noise(rows * inputs, 3), noise(outputs * inputs, 4));
        let mut y = vec![f32::NAN; rows * outputs];
        PackedMatrix::pack(outputs, inputs, &w).multiply(&x, rows, &mut y);
        for (got, want) in y.iter().zip(naive(&x, &w, rows, inputs, outputs)) {
            assert!((f64::from(*got) - want).abs() < 1e-4);
        }
    }

    #[test]
    fn sums_taken_up_again_are_the_sums_of_one_go() {
        let (a, b) = (noise(5 * 40, 5), noise(40 * PANEL, 6));
        let left = |data| Strided { data, row_stride: 40, inner_stride: 1 };
        let mut once = vec![0f32; 5 * PANEL];
        multiply_strided(5, 40, left(&a), &b, PANEL, &mut once, PANEL, Start::Zero);
        let mut twice = vec![0f32; 5 * PANEL];
        multiply_strided(5, 13, left(&a), &b, PANEL, &mut twice, PANEL, Start::Zero);
        multiply_strided(5, 27, left(&a[13..]), &b[13 * PANEL..], PANEL, &mut twice, PANEL, Start::Continue);
        assert_eq!(once, twice);
    }

    #[test]
    fn the_portable_tile_agrees_with_the_chosen_one() {
        let (a, b) = (noise(11 * 33, 7), noise(33 * PANEL, 8));
        let mut chosen = vec![0f32; 11 * PANEL];
        let left = Strided { data: &a, row_stride: 33, inner_stride: 1 };
        multiply_strided(11, 33, left, &b, PANEL, &mut chosen, PANEL, Start::Zero);
        let mut portable = vec![0f32; 11 * PANEL];
        let tile = Tile {
            inner: 33,
            a: a.as_ptr(),
            row_stride: 33,
            inner_stride: 1,
            b: b.as_ptr(),
            b_stride: PANEL,
            c: portable.as_mut_ptr(),
            c_stride: PANEL,
            proceed: false,
        };
        // SAFETY: the three buffers have exactly the sizes that 11 rows, 33 steps and 16 columns need.
        unsafe { walk(InstructionSet::Baseline, 11, tile) };
        for (c, p) in chosen.iter().zip(&portable) {
            assert!((c - p).abs() < 1e-5);
        }
    }

    #[test]
    fn an_empty_inner_dimension_gives_zeros() {
        let mut y = vec![f32::NAN; 6];
        PackedMatrix::pack(3, 0, &[]).multiply(&[], 2, &mut y);
        assert_eq!(y, [0.0; 6]);
    }
}
