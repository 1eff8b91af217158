//! Statistics of the inputs of linears, gathered batch by batch.

use rayon::prelude::*;

use crate::kernels::GramSum;

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
    /// Every `max(1, tokens / count)`-th row of x, from the first on: `[rows, in]`.
    Rows {
        /// About how many: so many at least where there are enough tokens, and less than twice as many.
        count: usize,
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
    gram: Option<GramSum>,
    columns: Vec<f64>,
    rows: Vec<f32>,
    /// Distance from one row that is kept to the next.
    spacing: usize,
}

impl Accumulator {
    /// For inputs of `width` columns; `total` tokens will come.
    pub(crate) fn new(kind: StatisticKind, width: usize, total: usize) -> Self {
        let mut new =
            Self { kind, width, tokens: 0, gram: None, columns: Vec::new(), rows: Vec::new(), spacing: 1 };
        match kind {
            StatisticKind::Gram => new.gram = Some(GramSum::new(width)),
            StatisticKind::Rows { count } => new.spacing = (total / count.max(1)).max(1),
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
                if let Some(gram) = &mut self.gram {
                    gram.add(x);
                }
            }
            StatisticKind::Rows { .. } => {
                let first = self.tokens.next_multiple_of(self.spacing) - self.tokens;
                for t in (first..tokens).step_by(self.spacing) {
                    self.rows.extend_from_slice(&x[t * width..][..width]);
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
    pub(crate) fn finish(self) -> Statistic {
        let (width, tokens) = (self.width, self.tokens);
        let (values, shape) = match self.kind {
            StatisticKind::Gram => (self.gram.map_or_else(Vec::new, GramSum::finish), vec![width, width]),
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
            for count in [1, 9, 1000] {
                let rows = gather(StatisticKind::Rows { count });
                let spacing = (tokens / count).max(1);
                let want: Vec<f32> = x.chunks_exact(width).step_by(spacing).flatten().copied().collect();
                prop_assert_eq!(rows.shape[0], tokens.div_ceil(spacing));
                prop_assert_eq!(rows.values, want);
            }
        }
    }
}
