//! A checked view of a row-major matrix.

use crate::KitError;

/// Largest magnitude accepted: the width of a symmetric range, and the lowest point of a 2-bit grid, still are finite.
const LARGEST: f32 = f32::MAX / 4.0;

/// A row-major `[rows, cols]` matrix of weights, whose length was checked and whose values are all finite.
///
/// Rows are outputs of the linear layer, columns its inputs.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
}

impl<'a> Matrix<'a> {
    /// Checks `data` and views it as `[rows, cols]`.
    ///
    /// # Errors
    /// [`KitError::Shape`] if empty, [`KitError::Length`] if `data` is not `rows * cols` long,
    /// [`KitError::NotFinite`] for NaN, infinities and magnitudes above a quarter of the largest `f32`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Result<Self, KitError> {
        let operand = "weight";
        let expected =
            rows.checked_mul(cols).filter(|&n| n > 0).ok_or(KitError::Shape { operand, rows, cols })?;
        if data.len() != expected {
            return Err(KitError::Length { operand, expected, found: data.len() });
        }
        // NaN compares false, so it is caught too.
        if let Some(i) =
            data.iter().position(|x| !matches!(x.abs().partial_cmp(&LARGEST), Some(o) if o.is_le()))
        {
            return Err(KitError::NotFinite {
                operand,
                row: i / cols,
                col: i % cols,
                value: f64::from(data[i]),
            });
        }
        Ok(Self { data, rows, cols })
    }

    /// Number of rows (outputs).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (inputs).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All values, row after row.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// One row.
    ///
    /// # Panics
    /// If `row` is not below [`Self::rows`].
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.cols..(row + 1) * self.cols]
    }
}
