//! Statistics of the inputs of linears, gathered batch by batch.

use rayon::prelude::*;

use crate::kernels::{GRAM_CHUNK, gram_lower};

/// A statistic over all calibration tokens of what a linear reads (x, `[tokens, in]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatisticKind {
    /// The Gram matrix, sum over tokens of x x^T: `[in, in]`, symmetric. Twice this, over the tokens, is GPTQ's Hessian.
    Gram,
    /// Per column the sum of squares: `[in]`. Wanda's norm is its root.
    SquaredSums,
    /// Per column the largest magnitude: `[in]`.
    AbsMax,
    /// Per column the mean magnitude: `[in]`.
    AbsMean,
    /// Rows of x, drawn without replacement from all tokens and in their order: `[count, in]`, or all rows if there are fewer.
    Rows {
        /// How many.
        count: usize,
        /// Decides which.
        seed: u64,
    },
}

/// A statistic that was gathered.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistic {
    /// The values, row-major.
    pub values: Vec<f32>,
    /// Their extents.
    pub shape: Vec<usize>,
    /// Tokens that were seen.
    pub tokens: usize,
}

/// Rows of one partial sum: fixed, so that sums do not depend on the number of threads.
const PARTIAL_ROWS: usize = 512;

/// A statistic in the making.
#[derive(Debug)]
pub(crate) struct Accumulator {
    kind: StatisticKind,
    width: usize,
    tokens: usize,
    gram: Vec<f32>,
    packed: Vec<f32>,
    columns: Vec<f64>,
    rows: Vec<f32>,
    /// Tokens to be kept, in order.
    chosen: Vec<usize>,
}

impl Accumulator {
    /// For inputs of `width` columns; `total` tokens will come.
    pub(crate) fn new(kind: StatisticKind, width: usize, total: usize) -> Self {
        let mut new = Self {
            kind,
            width,
            tokens: 0,
            gram: Vec::new(),
            packed: Vec::new(),
            columns: Vec::new(),
            rows: Vec::new(),
            chosen: Vec::new(),
        };
        match kind {
            StatisticKind::Gram => new.gram = vec![0.0; width * width],
            StatisticKind::Rows { count, seed } => new.chosen = choose(total, count, seed),
            _ => new.columns = vec![0.0; width],
        }
        new
    }

    /// Takes in the next tokens, `[tokens, width]`.
    pub(crate) fn add(&mut self, x: &[f32]) {
        let width = self.width;
        let tokens = x.len() / width;
        match self.kind {
            StatisticKind::Gram => {
                for chunk in x.chunks(GRAM_CHUNK * width) {
                    gram_lower(chunk, width, &mut self.gram, &mut self.packed);
                }
            }
            StatisticKind::Rows { .. } => {
                let from = self.chosen.partition_point(|&t| t < self.tokens);
                let to = self.chosen.partition_point(|&t| t < self.tokens + tokens);
                for &t in &self.chosen[from..to] {
                    self.rows.extend_from_slice(&x[(t - self.tokens) * width..][..width]);
                }
            }
            StatisticKind::SquaredSums => {
                self.columns_by(x, |s, v| s + f64::from(v) * f64::from(v), |a, b| a + b)
            }
            StatisticKind::AbsMean => self.columns_by(x, |s, v| s + f64::from(v.abs()), |a, b| a + b),
            StatisticKind::AbsMax => self.columns_by(x, |s, v| s.max(f64::from(v.abs())), f64::max),
        }
        self.tokens += tokens;
    }

    fn columns_by(
        &mut self,
        x: &[f32],
        step: impl Fn(f64, f32) -> f64 + Sync,
        join: impl Fn(f64, f64) -> f64,
    ) {
        let width = self.width;
        let partial: Vec<Vec<f64>> = x
            .par_chunks(PARTIAL_ROWS * width)
            .map(|chunk| {
                let mut sums = vec![0f64; width];
                for row in chunk.chunks_exact(width) {
                    for (s, &v) in sums.iter_mut().zip(row) {
                        *s = step(*s, v);
                    }
                }
                sums
            })
            .collect();
        for sums in partial {
            for (total, sum) in self.columns.iter_mut().zip(sums) {
                *total = join(*total, sum);
            }
        }
    }

    /// The finished statistic.
    pub(crate) fn finish(mut self) -> Statistic {
        let (width, tokens) = (self.width, self.tokens);
        let (values, shape) = match self.kind {
            StatisticKind::Gram => {
                for i in 0..width {
                    for j in 0..i {
                        self.gram[j * width + i] = self.gram[i * width + j];
                    }
                }
                (self.gram, vec![width, width])
            }
            StatisticKind::Rows { .. } => {
                let count = self.rows.len() / width.max(1);
                (self.rows, vec![count, width])
            }
            StatisticKind::AbsMean => {
                let n = tokens.max(1) as f64;
                (self.columns.iter().map(|s| (s / n) as f32).collect(), vec![width])
            }
            StatisticKind::SquaredSums | StatisticKind::AbsMax => {
                (self.columns.iter().map(|&s| s as f32).collect(), vec![width])
            }
        };
        Statistic { values, shape, tokens }
    }
}

/// Draws `count` of `total` without replacement (Vitter's selection sampling), in order.
fn choose(total: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut state = seed;
    let mut random = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = state;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    };
    let mut needed = count.min(total);
    let mut chosen = Vec::with_capacity(needed);
    for index in 0..total {
        let left = (total - index) as u128;
        // True with the probability needed / left.
        if (u128::from(random()) * left) >> 64 < needed as u128 {
            chosen.push(index);
            needed -= 1;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn statistics_agree_with_definitions(
            tokens in 1usize..700, width in 1usize..20, seed in 0u64..100, cut in 0usize..700,
        ) {
            let x: Vec<f32> =
                (0..tokens * width).map(|i| ((i as u64 * 7919 + seed * 31) % 2003) as f32 / 1000.0 - 1.0).collect();
            let cut = cut.min(tokens) * width;
            let gather = |kind| {
                let mut accumulator = Accumulator::new(kind, width, tokens);
                accumulator.add(&x[..cut]);
                accumulator.add(&x[cut..]);
                accumulator.finish()
            };
            let column = |c: usize| x.iter().skip(c).step_by(width).map(|&v| f64::from(v));
            let gram = gather(StatisticKind::Gram);
            prop_assert_eq!((&gram.shape, gram.tokens), (&vec![width, width], tokens));
            let squares = gather(StatisticKind::SquaredSums);
            let max = gather(StatisticKind::AbsMax);
            let mean = gather(StatisticKind::AbsMean);
            for i in 0..width {
                for j in 0..width {
                    let want: f64 = column(i).zip(column(j)).map(|(a, b)| a * b).sum();
                    prop_assert!((f64::from(gram.values[i * width + j]) - want).abs() < 1e-3);
                    prop_assert_eq!(gram.values[i * width + j], gram.values[j * width + i]);
                }
                prop_assert!((f64::from(squares.values[i]) - column(i).map(|v| v * v).sum::<f64>()).abs() < 1e-3);
                prop_assert_eq!(f64::from(max.values[i]), column(i).map(f64::abs).fold(0.0, f64::max));
                let want = column(i).map(f64::abs).sum::<f64>() / tokens as f64;
                prop_assert!((f64::from(mean.values[i]) - want).abs() < 1e-6);
            }
            let rows = gather(StatisticKind::Rows { count: 9, seed });
            prop_assert_eq!(rows.shape[0], tokens.min(9));
            for row in rows.values.chunks_exact(width) {
                prop_assert!(x.chunks_exact(width).any(|r| r == row));
            }
        }
    }

    #[test]
    fn the_seed_decides_the_rows() {
        assert_eq!(choose(1000, 10, 1), choose(1000, 10, 1));
        assert_ne!(choose(1000, 10, 1), choose(1000, 10, 2));
        assert_eq!(choose(5, 10, 1), [0, 1, 2, 3, 4]);
        let many = choose(1000, 500, 3);
        assert_eq!(many.len(), 500);
        assert!(many.windows(2).all(|w| w[0] < w[1]));
    }
}
