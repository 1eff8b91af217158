//! Low-rank adaptation (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, section 4.1): a weight `W` becomes
//! `W + alpha / rank B A`, and only `A` `[rank, in]` and `B` `[out, rank]` are trained.
//!
//! The gradients of both follow from that of the whole weight, `G` `[out, in]`: `alpha / rank B^T G` and `alpha / rank G A^T`.

use rayon::prelude::*;

use crate::KitError;
use crate::adamw::AdamW;

/// A trained change of one weight.
#[derive(Debug, Clone)]
pub struct Adapter {
    rows: usize,
    cols: usize,
    rank: usize,
    /// `alpha / rank`.
    scale: f32,
    /// `[rank, cols]`.
    a: Vec<f32>,
    /// `[rows, rank]`.
    b: Vec<f32>,
    optimisers: [AdamW; 2],
}

impl Adapter {
    /// An adapter that changes nothing yet: `B` is zero, and `A` is `uniform()` (numbers from 0 to 1) spread over `+- 1 / sqrt(cols)`, as the
    /// published library initialises it (Kaiming's uniform with a slope of the square root of 5).
    ///
    /// # Errors
    /// [`KitError::Option`] if the rank is zero.
    pub fn new(
        rows: usize,
        cols: usize,
        rank: usize,
        alpha: f32,
        mut uniform: impl FnMut() -> f32,
    ) -> Result<Self, KitError> {
        if rank == 0 {
            return Err(KitError::option("rank", rank, "at least 1"));
        }
        let bound = 1.0 / (cols as f32).sqrt();
        Ok(Self {
            rows,
            cols,
            rank,
            scale: alpha / rank as f32,
            a: (0..rank * cols).map(|_| (2.0 * uniform() - 1.0) * bound).collect(),
            b: vec![0.0; rows * rank],
            optimisers: [AdamW::new(rank * cols, 0.0, 0.0), AdamW::new(rows * rank, 0.0, 0.0)],
        })
    }

    /// One step of AdamW along the gradient of the whole weight, `[rows, cols]`.
    ///
    /// # Errors
    /// [`KitError::Length`] if the gradient has another size, [`KitError::NotFinite`] if it is not finite.
    pub fn step(&mut self, gradient: &[f32], learning_rate: f32) -> Result<(), KitError> {
        let (cols, rank, scale) = (self.cols, self.rank, self.scale);
        if gradient.len() != self.rows * cols {
            return Err(KitError::Length {
                operand: "gradient",
                expected: self.rows * cols,
                found: gradient.len(),
            });
        }
        if let Some(at) = gradient.iter().position(|g| !g.is_finite()) {
            let value = f64::from(gradient[at]);
            return Err(KitError::NotFinite { operand: "gradient", row: at / cols, col: at % cols, value });
        }
        let mut of_a = vec![0f32; rank * cols];
        of_a.par_chunks_mut(cols).enumerate().for_each(|(r, row)| {
            for (b, g) in self.b.chunks_exact(rank).zip(gradient.chunks_exact(cols)) {
                let factor = scale * b[r];
                row.iter_mut().zip(g).for_each(|(sum, g)| *sum += factor * g);
            }
        });
        let mut of_b = vec![0f32; self.rows * rank];
        of_b.par_chunks_mut(rank).zip(gradient.par_chunks(cols)).for_each(|(row, g)| {
            for (value, a) in row.iter_mut().zip(self.a.chunks_exact(cols)) {
                *value = scale * a.iter().zip(g).map(|(a, g)| a * g).sum::<f32>();
            }
        });
        let [first, second] = &mut self.optimisers;
        first.set_learning_rate(learning_rate);
        first.step(&mut self.a, &of_a);
        second.set_learning_rate(learning_rate);
        second.step(&mut self.b, &of_b);
        Ok(())
    }

    /// The weight with the change, `[rows, cols]`.
    ///
    /// # Errors
    /// [`KitError::Length`] if the weight has another size.
    pub fn apply(&self, weight: &[f32]) -> Result<Vec<f32>, KitError> {
        if weight.len() != self.rows * self.cols {
            return Err(KitError::Length {
                operand: "weight",
                expected: self.rows * self.cols,
                found: weight.len(),
            });
        }
        let mut changed = weight.to_vec();
        changed.par_chunks_mut(self.cols).zip(self.b.par_chunks(self.rank)).for_each(|(row, b)| {
            for (b, a) in b.iter().zip(self.a.chunks_exact(self.cols)) {
                let factor = self.scale * b;
                row.iter_mut().zip(a).for_each(|(w, a)| *w += factor * a);
            }
        });
        Ok(changed)
    }
}

/// The learning rate of a step (from 0): it rises from zero over `warmup` steps, then falls to zero at the last of `steps`, both linearly.
pub fn warmed_up(peak: f32, step: u64, warmup: u64, steps: u64) -> f32 {
    if step < warmup {
        return peak * step as f32 / warmup as f32;
    }
    peak * steps.saturating_sub(step) as f32 / steps.saturating_sub(warmup).max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(rank: usize) -> Adapter {
        let mut state = 7u32;
        let uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 16_777_216.0
        };
        Adapter::new(3, 4, rank, 16.0, uniform).unwrap()
    }

    #[test]
    fn nothing_changes_before_the_first_step_and_the_rank_is_kept_after_many() {
        let weight: Vec<f32> = (0..12).map(|i| i as f32 / 5.0).collect();
        let mut adapter = adapter(1);
        assert_eq!(adapter.apply(&weight).unwrap(), weight);
        for step in 0..20 {
            let gradient: Vec<f32> = (0..12).map(|i| ((i * 7 + step) % 5) as f32 - 2.0).collect();
            adapter.step(&gradient, 0.05).unwrap();
        }
        let changed = adapter.apply(&weight).unwrap();
        let change: Vec<f32> = changed.iter().zip(&weight).map(|(c, w)| c - w).collect();
        assert!(change.iter().any(|c| c.abs() > 0.01));
        // Of rank one: all two by two determinants vanish.
        for (i, j) in [(0, 1), (0, 2), (1, 2)] {
            for k in 1..4 {
                let determinant = change[4 * i] * change[4 * j + k] - change[4 * j] * change[4 * i + k];
                assert!(determinant.abs() < 1e-5, "{determinant}");
            }
        }
    }

    #[test]
    fn the_change_approaches_a_target_of_its_rank() {
        // The loss is half the squared distance to W + u v^T; its gradient is the difference.
        let weight = vec![0.25f32; 12];
        let (u, v) = ([1.0, -0.5, 0.3], [0.2, 0.4, -0.6, 0.1]);
        let target: Vec<f32> = (0..12).map(|i| weight[i] + u[i / 4] * v[i % 4]).collect();
        let mut adapter = adapter(2);
        let distance = |adapter: &Adapter| -> f32 {
            adapter.apply(&weight).unwrap().iter().zip(&target).map(|(w, t)| (w - t).powi(2)).sum()
        };
        let before = distance(&adapter);
        for step in 0..300 {
            let now = adapter.apply(&weight).unwrap();
            let gradient: Vec<f32> = now.iter().zip(&target).map(|(w, t)| w - t).collect();
            adapter.step(&gradient, warmed_up(0.02, step, 10, 300)).unwrap();
        }
        assert!(distance(&adapter) < 1e-4 * before, "{} of {before}", distance(&adapter));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Adapter::new(2, 2, 0, 1.0, || 0.5).is_err());
        let mut adapter = adapter(1);
        assert!(matches!(adapter.step(&[1.0], 0.1), Err(KitError::Length { expected: 12, .. })));
        let mut gradient = vec![0.0; 12];
        gradient[5] = f32::INFINITY;
        assert!(matches!(adapter.step(&gradient, 0.1), Err(KitError::NotFinite { row: 1, col: 1, .. })));
        assert!(adapter.apply(&[1.0]).is_err());
    }

    #[test]
    fn the_learning_rate_rises_and_falls_as_published() {
        // transformers' linear schedule with warmup: 100 of 300 steps.
        for (step, expected) in [(0, 0.0), (50, 0.5), (99, 0.99), (100, 1.0), (200, 0.5), (299, 0.005)] {
            assert!((warmed_up(1.0, step, 100, 300) - expected).abs() < 1e-6, "{step}");
        }
        assert_eq!(warmed_up(1.0, 0, 0, 1), 1.0);
    }
}
