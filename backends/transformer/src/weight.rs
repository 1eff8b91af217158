//! The weight of a linear: numbers of 32 or 16 bits, or integer codes that stay as they are.

use std::sync::Arc;

use crate::kernels::{HalfFormat, PackedHalves, PackedIntegers, PackedMatrix, Panels};

/// A weight matrix `[out, in]`, packed for products `Y = X W^T`. Cloning is cheap.
#[derive(Debug, Clone)]
pub enum Weight {
    /// Numbers.
    Dense(Arc<PackedMatrix>),
    /// Numbers of 16 bits.
    Halves(Arc<PackedHalves>),
    /// Integer codes on grids.
    Integers(Arc<PackedIntegers>),
}

impl Weight {
    /// Packs a row-major `[outputs, inputs]` matrix.
    ///
    /// # Panics
    /// If `values` has another length than `outputs * inputs`.
    pub fn dense(outputs: usize, inputs: usize, values: &[f32]) -> Self {
        Weight::Dense(Arc::new(PackedMatrix::pack(outputs, inputs, values)))
    }

    /// Packs a matrix in a format of 16 bits where one is given, else in single precision.
    ///
    /// # Panics
    /// As [`dense`](Self::dense).
    pub(crate) fn numbers(half: Option<HalfFormat>, outputs: usize, inputs: usize, values: &[f32]) -> Self {
        match half {
            None => Self::dense(outputs, inputs, values),
            Some(format) => Self::halves(format, outputs, inputs, values),
        }
    }

    /// As [`dense`](Self::dense), with numbers rounded to 16 bits.
    ///
    /// # Panics
    /// As [`dense`](Self::dense).
    pub fn halves(format: HalfFormat, outputs: usize, inputs: usize, values: &[f32]) -> Self {
        Weight::Halves(Arc::new(PackedHalves::pack(format, outputs, inputs, values)))
    }

    /// What all kinds can do.
    fn panels(&self) -> &dyn Panels {
        match self {
            Weight::Dense(weight) => &**weight,
            Weight::Halves(weight) => &**weight,
            Weight::Integers(weight) => &**weight,
        }
    }

    /// The numbers, or those that the codes stand for, row-major `[outputs, inputs]`.
    pub fn unpack(&self) -> Vec<f32> {
        self.panels().unpack()
    }

    /// The integer codes, where it has them.
    pub fn integers(&self) -> Option<&PackedIntegers> {
        match self {
            Weight::Dense(_) | Weight::Halves(_) => None,
            Weight::Integers(weight) => Some(weight),
        }
    }

    /// Number of outputs (rows of the weight).
    pub fn outputs(&self) -> usize {
        self.panels().outputs()
    }

    /// Number of inputs (columns of the weight).
    pub fn inputs(&self) -> usize {
        self.panels().inputs()
    }

    /// How many of its numbers are not zero; codes count in full.
    pub fn nonzeros(&self) -> usize {
        match self {
            Weight::Dense(weight) => weight.nonzeros(),
            Weight::Halves(weight) => weight.nonzeros(),
            Weight::Integers(weight) => weight.outputs() * weight.inputs(),
        }
    }

    /// Number of panels of 16 outputs.
    pub fn panel_count(&self) -> usize {
        self.panels().panel_count()
    }

    /// As [`Panels::multiply_panels`].
    pub(crate) fn multiply_panels(
        &self,
        x: &[f32],
        rows: usize,
        first: usize,
        count: usize,
        y: &mut [f32],
        y_stride: usize,
    ) {
        self.panels().multiply_panels(x, rows, first, count, y, y_stride);
    }

    /// As [`Panels::multiply`].
    pub(crate) fn multiply(&self, x: &[f32], rows: usize, y: &mut [f32]) {
        self.panels().multiply(x, rows, y);
    }

    /// As [`Panels::multiply_parallel`].
    pub(crate) fn multiply_parallel(&self, x: &[f32], rows: usize, y: &mut [f32]) {
        self.panels().multiply_parallel(x, rows, y);
    }
}
