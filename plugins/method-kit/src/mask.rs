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
    let norms: Vec<f32> = input_mean_square.iter().map(|x| x.sqrt()).collect();
    lowest(weight, Some(&norms), sparsity)
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
