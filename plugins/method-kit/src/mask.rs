//! Which weights to remove: scores, and the choice of the lowest.
//!
//! Scores are those of magnitude pruning, `|W|`, and of Wanda (Sun et al., "A Simple and Effective Pruning Approach
//! for Large Language Models", 2024, equation 1), `|W| * ||X||`.

use rayon::prelude::*;

use crate::{KitError, Matrix};

/// How much is removed, and in which pattern.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sparsity {
    /// A fraction of the weights, anywhere.
    Unstructured {
        /// The fraction removed, in `[0, 1]`.
        ratio: f64,
    },
    /// In every `of` consecutive inputs of a row, `prune` weights. The 2:4 pattern of tensor cores is
    /// `prune: 2, of: 4`.
    Pattern {
        /// Weights removed of every `of`.
        prune: usize,
        /// Length of the pattern.
        of: usize,
    },
}

impl Sparsity {
    /// Checks the options against a number of columns.
    ///
    /// # Errors
    /// [`KitError::Option`] for values out of range, [`KitError::Indivisible`] if the pattern does not divide the
    /// columns.
    pub fn validate(&self, cols: usize) -> Result<(), KitError> {
        match *self {
            Self::Unstructured { ratio } if (0.0..=1.0).contains(&ratio) => Ok(()),
            Self::Unstructured { ratio } => Err(KitError::option("sparsity", ratio, "0 to 1")),
            Self::Pattern { prune, of } if of == 0 || prune > of => Err(KitError::option(
                "pattern",
                format_args!("{prune} of {of}"),
                "a positive length, and at most that many removed",
            )),
            Self::Pattern { of, .. } if !cols.is_multiple_of(of) => {
                Err(KitError::Indivisible { what: "columns", size: cols, unit: "pattern", multiple: of })
            }
            Self::Pattern { .. } => Ok(()),
        }
    }
}

/// Which weights of a `[rows, cols]` matrix are removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    cols: usize,
    pruned: Vec<bool>,
}

impl Mask {
    pub(crate) fn new(cols: usize, pruned: Vec<bool>) -> Self {
        Self { cols, pruned }
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// True where a weight is removed, row after row.
    pub fn pruned(&self) -> &[bool] {
        &self.pruned
    }

    /// Fraction removed.
    pub fn sparsity(&self) -> f64 {
        let count = self.pruned.iter().filter(|&&p| p).count();
        count as f64 / self.pruned.len().max(1) as f64
    }

    /// Sets removed weights to zero.
    ///
    /// # Errors
    /// [`KitError::Length`] if `weight` is of another size.
    pub fn apply(&self, weight: &mut [f32]) -> Result<(), KitError> {
        if weight.len() != self.pruned.len() {
            return Err(KitError::Length {
                operand: "weight",
                expected: self.pruned.len(),
                found: weight.len(),
            });
        }
        weight.par_iter_mut().zip(&self.pruned).for_each(|(w, &pruned)| {
            if pruned {
                *w = 0.0;
            }
        });
        Ok(())
    }
}

/// Removes, per output row, the weights of least magnitude.
///
/// # Errors
/// As [`Sparsity::validate`].
pub fn magnitude(weight: Matrix<'_>, sparsity: Sparsity) -> Result<Mask, KitError> {
    lowest(weight, None, sparsity)
}

/// Removes, per output row, the weights of least `|W| * sqrt(mean square of the input)`.
///
/// `input_mean_square` is `[cols]`: the mean (or sum: the scale does not matter) over calibration tokens of each
/// input's square, which is the diagonal of the Gram matrix up to scale.
///
/// # Errors
/// As [`Sparsity::validate`]; [`KitError::Length`], [`KitError::NotFinite`] and [`KitError::Gram`] for statistics
/// of another length, not finite, or negative.
pub fn wanda(weight: Matrix<'_>, input_mean_square: &[f32], sparsity: Sparsity) -> Result<Mask, KitError> {
    let norms = norms(weight, input_mean_square)?;
    lowest(weight, Some(&norms), sparsity)
}

/// Removes weights by Wanda's score such that every row loses the same share of the sum of its scores (the variant of
/// Wanda's published code; "alpha" there).
///
/// The scores of a row, sorted, are summed up; those up to the last whose sum is at most `alpha` times the row's whole
/// sum go, and all that equal it. `alpha` is found by bisection between 0 and 0.8, beginning with 0.4, until the fraction
/// removed of the whole matrix is within 0.001 of `ratio` or the interval is narrower than 0.001; so ratios that no
/// `alpha` up to 0.8 reaches are missed.
///
/// # Errors
/// As [`wanda`] for the statistics; [`KitError::Option`] for a ratio outside `[0, 1]`.
pub fn wanda_variant(weight: Matrix<'_>, input_mean_square: &[f32], ratio: f64) -> Result<Mask, KitError> {
    const TOLERANCE: f64 = 0.001;
    let norms = norms(weight, input_mean_square)?;
    let cols = weight.cols();
    Sparsity::Unstructured { ratio }.validate(cols)?;
    let rows: Vec<SortedRow> = weight
        .data()
        .par_chunks(cols)
        .map(|row| SortedRow::new(row.iter().zip(&norms).map(|(w, n)| w.abs() * n).collect()))
        .collect();

    let (mut low, mut alpha, mut high) = (0.0f64, 0.4f64, 0.8f64);
    let thresholds = loop {
        let thresholds: Vec<Option<f32>> = rows.par_iter().map(|row| row.threshold(alpha)).collect();
        let removed: usize = rows.iter().zip(&thresholds).map(|(row, t)| row.up_to(*t)).sum();
        let found = removed as f64 / weight.data().len() as f64;
        if (found - ratio).abs() <= TOLERANCE || high - low < TOLERANCE {
            break thresholds;
        }
        if found > ratio {
            high = alpha;
            alpha = (alpha + low) / 2.0;
        } else {
            low = alpha;
            alpha = (alpha + high) / 2.0;
        }
    };
    let mut pruned = vec![false; weight.data().len()];
    pruned.par_chunks_mut(cols).zip(weight.data().par_chunks(cols)).zip(&thresholds).for_each(
        |((pruned, row), threshold)| {
            if let Some(threshold) = threshold {
                for ((pruned, w), n) in pruned.iter_mut().zip(row).zip(&norms) {
                    *pruned = w.abs() * n <= *threshold;
                }
            }
        },
    );
    Ok(Mask::new(cols, pruned))
}

/// The scores of one row in ascending order, and their running sum.
struct SortedRow {
    scores: Vec<f32>,
    /// Summed in double precision and rounded, as PyTorch sums up on a CPU.
    sums: Vec<f32>,
}

impl SortedRow {
    fn new(mut scores: Vec<f32>) -> Self {
        scores.sort_unstable_by(f32::total_cmp);
        let mut sum = 0.0f64;
        let sums = scores
            .iter()
            .map(|&s| {
                sum += f64::from(s);
                sum as f32
            })
            .collect();
        Self { scores, sums }
    }

    /// The score up to which weights go when `alpha` of the sum may; none if even the lowest is too much.
    fn threshold(&self, alpha: f64) -> Option<f32> {
        let allowed = self.sums.last()? * alpha as f32;
        let count = self.sums.partition_point(|&s| s <= allowed);
        count.checked_sub(1).map(|last| self.scores[last])
    }

    /// How many scores are at most `threshold`.
    fn up_to(&self, threshold: Option<f32>) -> usize {
        threshold.map_or(0, |threshold| self.scores.partition_point(|&s| s <= threshold))
    }
}

/// The norms of inputs, checked, from their mean squares.
fn norms(weight: Matrix<'_>, input_mean_square: &[f32]) -> Result<Vec<f32>, KitError> {
    if input_mean_square.len() != weight.cols() {
        return Err(KitError::Length {
            operand: "input statistics",
            expected: weight.cols(),
            found: input_mean_square.len(),
        });
    }
    for (col, &x) in input_mean_square.iter().enumerate() {
        if !x.is_finite() {
            return Err(KitError::NotFinite {
                operand: "input statistics",
                row: 0,
                col,
                value: f64::from(x),
            });
        }
        if x < 0.0 {
            return Err(KitError::Gram { reason: format!("the mean square of input {col} is {x}") });
        }
    }
    Ok(input_mean_square.iter().map(|x| x.sqrt()).collect())
}

/// Marks the weights of lowest `|w| * norm`. Of equal scores the one further left goes first, as in a stable sort;
/// of a row of `cols` weights `floor(cols * ratio)` go.
fn lowest(weight: Matrix<'_>, norms: Option<&[f32]>, sparsity: Sparsity) -> Result<Mask, KitError> {
    let cols = weight.cols();
    sparsity.validate(cols)?;
    let (group, count) = match sparsity {
        Sparsity::Unstructured { ratio } => (cols, (cols as f64 * ratio) as usize),
        Sparsity::Pattern { prune, of } => (of, prune),
    };
    let mut pruned = vec![false; weight.data().len()];
    pruned.par_chunks_mut(cols).zip(weight.data().par_chunks(cols)).for_each_init(
        || (vec![0.0f32; cols], Vec::with_capacity(group)),
        |(scores, keys), (pruned, row)| {
            match norms {
                None => scores.iter_mut().zip(row).for_each(|(s, w)| *s = w.abs()),
                Some(norms) => scores.iter_mut().zip(row).zip(norms).for_each(|((s, w), n)| *s = w.abs() * n),
            }
            for (pruned, scores) in pruned.chunks_mut(group).zip(scores.chunks(group)) {
                mark_lowest(scores, count, keys, pruned);
            }
        },
    );
    Ok(Mask::new(cols, pruned))
}

/// Marks the `count` lowest of some non-negative scores, ties from the left. `keys` is scratch.
pub(crate) fn mark_lowest(scores: &[f32], count: usize, keys: &mut Vec<u64>, marked: &mut [bool]) {
    if count == 0 {
        return;
    }
    if count >= scores.len() {
        marked.fill(true);
        return;
    }
    keys.clear();
    // The bits of non-negative floats are in their order; with the index below them all keys differ.
    let key = |(i, s): (usize, &f32)| u64::from(s.to_bits()) << 32 | i as u64;
    keys.extend(scores.iter().enumerate().map(key));
    keys.select_nth_unstable(count - 1);
    for key in &keys[..count] {
        marked[(key & u64::from(u32::MAX)) as usize] = true;
    }
}
