//! Gram matrices: sums over tokens of x x^T, for Hessians of linears.
//!
//! A factor of such a matrix's inverse decides roundings in GPTQ and SparseGPT, so its small eigenvalues matter: sums of
//! single-precision products over tens of thousands of tokens lose them. Here products are summed in single precision
//! over [`RUN`] tokens in registers, and those sums in double precision.

use rayon::prelude::*;

use super::vector::multiply_add;
use super::{InstructionSet, instruction_set};

/// Rows of the register tile.
const ROWS: usize = 8;
/// Columns of the register tile, and of a panel into which tokens are packed.
const COLUMNS: usize = 48;
/// Tokens whose products are summed in single precision.
const RUN: usize = 64;
/// Tokens that are packed at once: they take the way to the totals in memory together.
const CHUNK: usize = 512;

/// A Gram matrix in the making.
#[derive(Debug)]
pub struct GramSum {
    width: usize,
    /// For each panel of 48 rows, its tiles up to the diagonal: `[panel][tile][48][48]`.
    totals: Vec<Vec<f64>>,
    /// The chunk at hand, `[panel][token][48]`.
    packed: Vec<f32>,
}

impl GramSum {
    /// Zero, for tokens of `width` numbers.
    pub fn new(width: usize) -> Self {
        let panels = width.div_ceil(COLUMNS);
        let totals = (0..panels).map(|i| vec![0.0; (i + 1) * COLUMNS * COLUMNS]).collect();
        Self { width, totals, packed: Vec::new() }
    }

    /// Takes in tokens, `[tokens, width]`, on the threads of the current rayon pool.
    ///
    /// The sums depend on how tokens are shared out among calls (in their last bits), not on the number of threads.
    ///
    /// # Panics
    /// If `x` is not whole tokens.
    pub fn add(&mut self, x: &[f32]) {
        if self.width == 0 {
            return;
        }
        assert!(x.len().is_multiple_of(self.width), "whole tokens");
        for chunk in x.chunks(CHUNK * self.width) {
            self.add_chunk(chunk);
        }
    }

    fn add_chunk(&mut self, x: &[f32]) {
        let width = self.width;
        let tokens = x.len() / width;
        self.packed.resize(self.totals.len() * tokens * COLUMNS, 0.0);
        self.packed.par_chunks_exact_mut(tokens * COLUMNS).enumerate().for_each(|(p, panel)| {
            let columns = COLUMNS.min(width - p * COLUMNS);
            for (t, row) in panel.as_chunks_mut::<COLUMNS>().0.iter_mut().enumerate() {
                row[..columns].copy_from_slice(&x[t * width + p * COLUMNS..][..columns]);
                row[columns..].fill(0.0);
            }
        });
        let panel = |p: usize| self.packed[p * tokens * COLUMNS..][..tokens * COLUMNS].as_chunks().0;
        let set = instruction_set();
        // The longest rows first, so that threads end together.
        self.totals.par_iter_mut().enumerate().rev().with_max_len(1).for_each(|(i, tiles)| {
            let left: &[[f32; COLUMNS]] = panel(i);
            for (j, total) in tiles.chunks_exact_mut(COLUMNS * COLUMNS).enumerate() {
                for (left, right) in left.chunks(RUN).zip(panel(j).chunks(RUN)) {
                    for (r, total) in total.chunks_exact_mut(ROWS * COLUMNS).enumerate() {
                        let sums = tile(set, left, r * ROWS, right);
                        for (t, s) in total.iter_mut().zip(sums.as_flattened()) {
                            *t += f64::from(*s);
                        }
                    }
                }
            }
        });
    }

    /// The matrix, `[width, width]`, symmetric to the last bit.
    pub fn finish(self) -> Vec<f32> {
        let width = self.width;
        let mut gram = vec![0.0f32; width * width];
        for (p, tiles) in self.totals.into_iter().enumerate() {
            for r in 0..COLUMNS.min(width - p * COLUMNS) {
                let i = p * COLUMNS + r;
                for j in 0..=i {
                    let value = tiles[(j / COLUMNS * COLUMNS + r) * COLUMNS + j % COLUMNS] as f32;
                    gram[i * width + j] = value;
                    gram[j * width + i] = value;
                }
            }
        }
        gram
    }
}

/// `sum over t of left[t][first..first + 8]^T right[t]`.
#[inline]
fn tile(
    set: InstructionSet,
    left: &[[f32; COLUMNS]],
    first: usize,
    right: &[[f32; COLUMNS]],
) -> [[f32; COLUMNS]; ROWS] {
    match set {
        InstructionSet::Baseline => {
            parts::<1, COLUMNS, { cfg!(target_arch = "aarch64") }>(left, first, right)
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `set` comes from asking the processor.
        InstructionSet::Avx2 => unsafe { tile_avx2(left, first, right) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        InstructionSet::Avx512 => unsafe { tile_avx512(left, first, right) },
    }
}

/// Rows `first..first + R` and columns `from..from + C` of the tile, in loops that the compiler keeps in registers.
#[inline(always)]
fn part<const R: usize, const C: usize, const FMA: bool>(
    left: &[[f32; COLUMNS]],
    first: usize,
    right: &[[f32; COLUMNS]],
    from: usize,
) -> [[f32; C]; R] {
    let mut sums = [[0.0f32; C]; R];
    for (left, right) in left.iter().zip(right) {
        let left: &[f32; R] = left[first..].first_chunk().expect("rows of the tile");
        let right: &[f32; C] = right[from..].first_chunk().expect("columns of the tile");
        for (sums, &x) in sums.iter_mut().zip(left) {
            for (sum, &y) in sums.iter_mut().zip(right) {
                *sum = multiply_add::<FMA>(x, y, *sum);
            }
        }
    }
    sums
}

/// The tile from parts of `R` rows and `C` columns.
#[inline(always)]
fn parts<const R: usize, const C: usize, const FMA: bool>(
    left: &[[f32; COLUMNS]],
    first: usize,
    right: &[[f32; COLUMNS]],
) -> [[f32; COLUMNS]; ROWS] {
    let mut sums = [[0.0; COLUMNS]; ROWS];
    for r in (0..ROWS).step_by(R) {
        for c in (0..COLUMNS).step_by(C) {
            for (sums, part) in sums[r..].iter_mut().zip(part::<R, C, FMA>(left, first + r, right, c)) {
                sums[c..][..C].copy_from_slice(&part);
            }
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn tile_avx2(left: &[[f32; COLUMNS]], first: usize, right: &[[f32; COLUMNS]]) -> [[f32; COLUMNS]; ROWS] {
    parts::<4, 24, true>(left, first, right)
}

/// All 24 sums in registers of 16 columns each.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn tile_avx512(left: &[[f32; COLUMNS]], first: usize, right: &[[f32; COLUMNS]]) -> [[f32; COLUMNS]; ROWS] {
    use std::arch::x86_64::*;
    let mut sums = [[_mm512_setzero_ps(); 3]; ROWS];
    for (left, right) in left.iter().zip(right) {
        let left: &[f32; ROWS] = left[first..].first_chunk().expect("rows of the tile");
        // SAFETY: 48 numbers are there, in three times 16.
        let right = unsafe { [0, 16, 32].map(|c| _mm512_loadu_ps(right.as_ptr().add(c))) };
        for (sums, &x) in sums.iter_mut().zip(left) {
            let x = _mm512_set1_ps(x);
            for (sum, &y) in sums.iter_mut().zip(&right) {
                *sum = _mm512_fmadd_ps(x, y, *sum);
            }
        }
    }
    let mut out = [[0.0; COLUMNS]; ROWS];
    for (out, sums) in out.iter_mut().zip(&sums) {
        for (c, &sum) in sums.iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr().add(c * 16), sum) };
        }
    }
    out
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

    fn gram(calls: &[&[f32]], width: usize) -> Vec<f32> {
        let mut sum = GramSum::new(width);
        for x in calls {
            sum.add(x);
        }
        sum.finish()
    }

    fn exact(x: &[f32], width: usize, i: usize, j: usize) -> f64 {
        x.chunks(width).map(|row| f64::from(row[i]) * f64::from(row[j])).sum()
    }

    proptest! {
        #[test]
        fn the_sum_agrees_with_f64(tokens in 0usize..150, cut in 0usize..150, width in 1usize..110, seed in 0u64..999) {
            let x = noise(tokens * width, seed);
            let (head, tail) = x.split_at(cut.min(tokens) * width);
            let found = gram(&[head, tail], width);
            for i in 0..width {
                for j in 0..width {
                    prop_assert!((f64::from(found[i * width + j]) - exact(&x, width, i, j)).abs() < 1e-5);
                    prop_assert_eq!(found[i * width + j], found[j * width + i]);
                }
            }
        }
    }

    #[test]
    fn many_tokens_cost_no_accuracy() {
        // In single precision all along, the sum of so many squares would be off by some 1e-4.
        let (tokens, width) = (60_000, 3);
        let x: Vec<f32> = noise(tokens * width, 5).iter().map(|v| v + 1.0).collect();
        let found = gram(&[&x], width);
        for i in 0..width {
            for j in 0..width {
                let want = exact(&x, width, i, j);
                assert!((f64::from(found[i * width + j]) / want - 1.0).abs() < 2e-7);
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let x = noise(700 * 100, 9);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| gram(&[&x], 100))
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn every_tile_agrees() {
        let (left, right) = (noise(37 * COLUMNS, 1), noise(37 * COLUMNS, 2));
        let (left, right) = (left.as_chunks().0, right.as_chunks().0);
        let portable = parts::<1, COLUMNS, false>(left, 16, right);
        let chosen = tile(instruction_set(), left, 16, right);
        for (a, b) in portable.as_flattened().iter().zip(chosen.as_flattened()) {
            assert!((a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn no_width_and_no_token_give_nothing_and_zeros() {
        assert_eq!(gram(&[&[]], 0), Vec::<f32>::new());
        assert_eq!(gram(&[], 2), [0.0; 4]);
    }
}
