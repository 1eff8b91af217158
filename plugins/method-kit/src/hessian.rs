//! The layer-wise Hessian of calibration inputs, and the triangular factor of its inverse that GPTQ and SparseGPT
//! walk along.
//!
//! With inputs `X` (one row per token) the squared output error of a linear is `tr(D H D^T) / 2` for a change `D`
//! of its weights and `H = 2 X^T X / n`. The solvers need `U`, upper triangular with a positive diagonal, such that
//! `H^-1 = U^T U` (GPTQ, section 3.3, step 3).

use faer::{
    Accum, MatMut, MatRef, Par, Spec,
    dyn_stack::{MemBuffer, MemStack},
    linalg::{
        cholesky::llt::factor::{LltParams, LltRegularization, cholesky_in_place, cholesky_in_place_scratch},
        matmul::matmul,
        triangular_inverse::invert_lower_triangular,
    },
};
use rayon::prelude::*;

use crate::{KitError, Matrix};

/// Side of the tiles in which a matrix is transposed.
const TILE: usize = 32;
/// Rows whose output error is computed at once.
const ERROR_ROWS: usize = 64;
/// How often a failed factorisation is tried again with ten times the damping.
const RETRIES: usize = 8;

/// How the Hessian is conditioned and ordered before it is factored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FactorOptions {
    /// Fraction of the mean diagonal that is added to the diagonal; the published value is 0.01.
    pub damping: f64,
    /// Work through the columns by falling diagonal ("activation order") instead of from first to last.
    pub activation_order: bool,
}

impl Default for FactorOptions {
    fn default() -> Self {
        Self { damping: 0.01, activation_order: false }
    }
}

/// `H = 2 X^T X / n`, in double precision.
#[derive(Debug, Clone)]
pub struct Hessian {
    dim: usize,
    values: Vec<f64>,
}

impl Hessian {
    /// Scales a Gram matrix `X^T X` (`[dim, dim]`, row-major, summed over all tokens) by `2 / sequences`.
    ///
    /// Published code divides by the number of calibration sequences, not of tokens. The scale changes neither codes
    /// nor masks, since damping is relative to the diagonal; it does scale the losses that solvers report. One
    /// exception: an input that is always zero gets the diagonal 1 whatever the scale, and thus a share in the mean.
    ///
    /// # Errors
    /// [`KitError::Shape`], [`KitError::Length`], [`KitError::NotFinite`], [`KitError::Gram`] for what is no Gram
    /// matrix, [`KitError::Option`] for zero sequences.
    pub fn from_gram<T>(gram: &[T], dim: usize, sequences: usize) -> Result<Self, KitError>
    where
        T: Copy + Into<f64> + Sync,
    {
        let operand = "Gram matrix";
        let expected = dim.checked_mul(dim).filter(|&n| n > 0).ok_or(KitError::Shape {
            operand,
            rows: dim,
            cols: dim,
        })?;
        if gram.len() != expected {
            return Err(KitError::Length { operand, expected, found: gram.len() });
        }
        if sequences == 0 {
            return Err(KitError::option("sequences", 0, "at least 1"));
        }
        let scale = 2.0 / sequences as f64;
        let values: Vec<f64> = gram.par_iter().map(|&g| scale * g.into()).collect();
        // Far from overflow, so that factors and sums stay finite.
        if let Some(i) = values.par_iter().position_first(|v| !(v.is_finite() && v.abs() < 1e150)) {
            return Err(KitError::NotFinite { operand, row: i / dim, col: i % dim, value: gram[i].into() });
        }
        if let Some(i) = (0..dim).find(|&i| values[i * dim + i] < 0.0) {
            return Err(KitError::Gram {
                reason: format!("entry {i} of its diagonal is {}", gram[i * dim + i].into()),
            });
        }
        if let Some(reason) = asymmetry(&values, dim) {
            return Err(KitError::Gram { reason });
        }
        Ok(Self { dim, values })
    }

    /// Inputs of the layer.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The diagonal, `[dim]`: twice the summed squares of each input, per sequence.
    pub fn diagonal(&self) -> Vec<f64> {
        self.values.iter().step_by(self.dim + 1).copied().collect()
    }

    /// Squared error of the layer's outputs when `original` becomes `changed`, relative to the outputs' own square:
    /// `tr(D H D^T) / tr(W H W^T)`. Zero if the outputs are zero and stay so.
    ///
    /// # Errors
    /// [`KitError::Shape`] if the matrices do not have the same shape with `dim` columns.
    pub fn relative_output_error(&self, original: Matrix<'_>, changed: Matrix<'_>) -> Result<f64, KitError> {
        for matrix in [&original, &changed] {
            self.check_columns(matrix)?;
        }
        if original.rows() != changed.rows() {
            return Err(KitError::Shape {
                operand: "changed weight",
                rows: changed.rows(),
                cols: changed.cols(),
            });
        }
        // Products in single precision, over the largest diagonal entry: the error is for people to read, not for the solver.
        let largest = self.diagonal().into_iter().fold(f64::MIN_POSITIVE, f64::max);
        let single: Vec<f32> = self.values.par_iter().map(|&v| (v / largest) as f32).collect();
        let chunk = ERROR_ROWS * self.dim;
        let quadratic = |part: &[f32]| {
            let rows = part.len() / self.dim;
            let mut product = vec![0.0f32; part.len()];
            matmul(
                MatMut::from_row_major_slice_mut(&mut product, rows, self.dim),
                Accum::Replace,
                MatRef::from_row_major_slice(part, rows, self.dim),
                MatRef::from_row_major_slice(&single, self.dim, self.dim),
                1.0,
                Par::Seq,
            );
            product.iter().zip(part).map(|(&p, &x)| f64::from(p) * f64::from(x)).sum::<f64>()
        };
        // Collected first: a sum over chunks in parallel would depend on how threads split them.
        let parts: Vec<(f64, f64)> = original
            .data()
            .par_chunks(chunk)
            .zip(changed.data().par_chunks(chunk))
            .map(|(a, b)| {
                let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
                (quadratic(&difference), quadratic(a))
            })
            .collect();
        let (error, size) = parts.iter().fold((0.0, 0.0), |(e, s), part| (e + part.0, s + part.1));
        Ok(if error <= 0.0 { 0.0 } else { error / size })
    }

    pub(crate) fn check_columns(&self, matrix: &Matrix<'_>) -> Result<(), KitError> {
        if matrix.cols() == self.dim {
            Ok(())
        } else {
            Err(KitError::Length { operand: "a row of the weight", expected: self.dim, found: matrix.cols() })
        }
    }

    /// Damps, orders, and factors the inverse.
    ///
    /// The factor depends on the inputs alone, so all linears that share an input can share it.
    ///
    /// With `J` the reversal of order, `J H J = L L^T` gives `H = R R^T` with `R = J L J` upper triangular, hence
    /// `U = R^-1 = J L^-1 J`: one Cholesky factorisation and one triangular inverse, half of the work of inverting
    /// and factoring again, and without the loss of accuracy of the inverse in between.
    ///
    /// If there is no factor the damping is raised tenfold (from at least `1e-4`), up to eight times;
    /// [`InverseFactor::damping`] tells which was used.
    ///
    /// # Errors
    /// [`KitError::Option`] for a negative damping, [`KitError::NotPositiveDefinite`] if none helps.
    pub fn factor(&self, options: &FactorOptions) -> Result<InverseFactor, KitError> {
        if !(options.damping.is_finite() && options.damping >= 0.0) {
            return Err(KitError::option("damping", options.damping, "zero or a positive finite number"));
        }
        let dim = self.dim;
        let mut diagonal = self.diagonal();
        let dead: Vec<bool> = diagonal.iter().map(|&d| d == 0.0).collect();
        for (d, &dead) in diagonal.iter_mut().zip(&dead) {
            if dead {
                *d = 1.0;
            }
        }
        let order = options.activation_order.then(|| {
            let mut order: Vec<usize> = (0..dim).collect();
            order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
            order
        });
        let mean = diagonal.iter().sum::<f64>() / dim as f64;

        let mut damping = options.damping;
        for attempt in 0..=RETRIES {
            if attempt > 0 {
                damping = (damping * 10.0).max(1e-4);
            }
            let mut work = vec![0.0f64; dim * dim];
            self.reversed(&diagonal, mean * damping, order.as_deref(), &mut work);
            if !factor_in_place(&mut work, dim) {
                continue;
            }
            let mut inverse = vec![0.0f64; dim * dim];
            invert_lower_triangular(
                MatMut::from_column_major_slice_mut(&mut inverse, dim, dim),
                MatRef::from_column_major_slice(&work, dim, dim),
                Par::rayon(0),
            );
            // These matrices are the largest that there are: none is kept longer than it is read.
            drop(work);
            let upper = reversed_transpose(&inverse, dim);
            drop(inverse);
            if upper.par_iter().all(|u| u.is_finite()) && upper.iter().step_by(dim + 1).all(|&u| u > 0.0) {
                return Ok(InverseFactor { dim, upper, order, dead, damping });
            }
        }
        Err(KitError::NotPositiveDefinite { damping })
    }

    /// Writes the damped and ordered Hessian with rows and columns in reverse.
    fn reversed(&self, diagonal: &[f64], damp: f64, order: Option<&[usize]>, out: &mut [f64]) {
        let dim = self.dim;
        let source = |i: usize| order.map_or(dim - 1 - i, |order| order[dim - 1 - i]);
        out.par_chunks_mut(dim).enumerate().for_each(|(i, out)| {
            let from = source(i);
            let row = &self.values[from * dim..][..dim];
            for (j, out) in out.iter_mut().enumerate() {
                *out = row[source(j)];
            }
            out[i] = diagonal[from] + damp;
        });
    }
}

/// Says where a matrix with a non-negative diagonal is not symmetric, if anywhere.
fn asymmetry(values: &[f64], dim: usize) -> Option<String> {
    let roots: Vec<f64> = values.iter().step_by(dim + 1).map(|d| d.sqrt()).collect();
    let bands = dim.div_ceil(TILE);
    (0..bands * bands).into_par_iter().find_map_first(|tile| {
        let (above, left) = (tile / bands * TILE, tile % bands * TILE);
        if left > above {
            return None;
        }
        (above..dim.min(above + TILE)).find_map(|i| {
            (left..i.min(left + TILE)).find_map(|j| {
                let (a, b) = (values[i * dim + j], values[j * dim + i]);
                // Sums in single precision may differ in their last bits between the two halves.
                let allowed = 1e-3 * roots[i] * roots[j] + f64::MIN_POSITIVE;
                ((a - b).abs() > allowed)
                    .then(|| format!("[{i}, {j}] and [{j}, {i}] are {a:e} and {b:e} after scaling"))
            })
        })
    })
}

/// Cholesky factor of a symmetric matrix in its lower triangle (column-major); false if a pivot is not positive.
fn factor_in_place(values: &mut [f64], dim: usize) -> bool {
    let par = Par::rayon(0);
    let params = Spec::<LltParams, f64>::default();
    let mut buffer = MemBuffer::new(cholesky_in_place_scratch::<f64>(dim, par, params));
    cholesky_in_place(
        MatMut::from_column_major_slice_mut(values, dim, dim),
        LltRegularization::default(),
        par,
        MemStack::new(&mut buffer),
        params,
    )
    .is_ok()
}

/// `J L J` as single-precision rows, from a column-major lower triangular `L`; zero below the diagonal.
fn reversed_transpose(lower: &[f64], dim: usize) -> Vec<f32> {
    let mut upper = vec![0.0f32; dim * dim];
    upper.par_chunks_mut(dim * TILE).enumerate().for_each(|(band, out)| {
        let first = band * TILE;
        for left in (first..dim).step_by(TILE) {
            let right = (left + TILE).min(dim);
            for (r, out) in out.chunks_mut(dim).enumerate() {
                let row = first + r;
                let left = left.max(row).min(right);
                for (col, out) in (left..right).zip(&mut out[left..right]) {
                    *out = lower[(dim - 1 - col) * dim + (dim - 1 - row)] as f32;
                }
            }
        }
    });
    upper
}

/// The upper triangular `U` with `U^T U = H^-1`, in the order in which columns are worked through.
#[derive(Debug, Clone)]
pub struct InverseFactor {
    dim: usize,
    upper: Vec<f32>,
    order: Option<Vec<usize>>,
    dead: Vec<bool>,
    damping: f64,
}

impl InverseFactor {
    /// Inputs of the layer.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The factor `[dim, dim]`, row-major, zero below the diagonal.
    pub fn upper(&self) -> &[f32] {
        &self.upper
    }

    /// Which column is worked on at each step, if not from first to last.
    pub fn order(&self) -> Option<&[usize]> {
        self.order.as_deref()
    }

    /// Which inputs were zero on all calibration data; solvers set their weights to zero.
    pub fn dead(&self) -> &[bool] {
        &self.dead
    }

    /// The damping that was used, as a fraction of the mean diagonal. More than asked for if that did not suffice.
    pub fn damping(&self) -> f64 {
        self.damping
    }

    /// Row `step` of the factor from its diagonal on, up to `end`.
    #[inline]
    pub(crate) fn row(&self, step: usize, end: usize) -> &[f32] {
        &self.upper[step * self.dim + step..step * self.dim + end]
    }

    /// Entry of the diagonal at a step.
    #[inline]
    pub(crate) fn diagonal(&self, step: usize) -> f32 {
        self.upper[step * self.dim + step]
    }

    pub(crate) fn check_columns(&self, matrix: &Matrix<'_>) -> Result<(), KitError> {
        if matrix.cols() == self.dim {
            Ok(())
        } else {
            Err(KitError::Length { operand: "a row of the weight", expected: self.dim, found: matrix.cols() })
        }
    }
}
