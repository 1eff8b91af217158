//! A weight matrix of integer codes.

use std::ops::Range;

/// A weight matrix `[rows, columns]` (outputs, inputs) of integer codes on grids, `w = scale * (code - zero)` in `f32`,
/// with one scale and one zero for each row and group of columns.
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerMatrix {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// Bits per code, 1 to 8.
    pub bits: u32,
    /// Columns per group, the last of which may be shorter; `None` is the whole row.
    pub group_size: Option<usize>,
    /// Whether every zero is the middle code.
    pub symmetric: bool,
    /// Codes `[rows, columns]`, row-major.
    pub codes: Vec<u8>,
    /// Scales `[rows, groups]`.
    pub scales: Vec<f32>,
    /// Zeros `[rows, groups]`, in units of codes.
    pub zeros: Vec<f32>,
    /// Group of each column `[columns]`, where groups do not follow the order of the columns.
    pub group_index: Option<Vec<u32>>,
}

/// Parts of a matrix that do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("integer weight [{rows}, {columns}]: {problem}")]
pub struct MatrixError {
    rows: usize,
    columns: usize,
    problem: String,
}

impl IntegerMatrix {
    /// Groups per row.
    pub fn groups(&self) -> usize {
        self.group_size.map_or(1, |g| self.columns.div_ceil(g.max(1)))
    }

    /// Some of its rows, as a matrix of their own.
    ///
    /// # Panics
    /// If the range is not within the rows.
    pub fn row_range(&self, rows: Range<usize>) -> Self {
        let of = |values: &[f32], width: usize| values[rows.start * width..rows.end * width].to_vec();
        let groups = self.groups();
        Self {
            rows: rows.len(),
            codes: self.codes[rows.start * self.columns..rows.end * self.columns].to_vec(),
            scales: of(&self.scales, groups),
            zeros: of(&self.zeros, groups),
            group_index: self.group_index.clone(),
            ..*self
        }
    }

    /// The rows of another matrix below its own, if both are on grids of the same kind.
    pub fn with_rows_of(mut self, other: Self) -> Option<Self> {
        let kind = |m: &Self| (m.columns, m.bits, m.group_size, m.symmetric);
        if kind(&self) != kind(&other) || self.group_index != other.group_index {
            return None;
        }
        self.rows += other.rows;
        self.codes.extend(other.codes);
        self.scales.extend(other.scales);
        self.zeros.extend(other.zeros);
        Some(self)
    }

    /// The group of each column.
    pub fn group_of_columns(&self) -> Vec<u32> {
        match (&self.group_index, self.group_size) {
            (Some(index), _) => index.clone(),
            (None, Some(size)) => (0..self.columns).map(|c| (c / size.max(1)) as u32).collect(),
            (None, None) => vec![0; self.columns],
        }
    }

    /// Forgets a group index that says what the order of the columns says anyway.
    pub fn without_plain_index(mut self) -> Self {
        let size = self.group_size.unwrap_or(self.columns).max(1);
        let plain = |index: &Vec<u32>| index.iter().enumerate().all(|(c, &g)| g as usize == c / size);
        self.group_index = self.group_index.take().filter(|index| !plain(index));
        self
    }

    /// Checks that lengths, ranges and indices fit together.
    ///
    /// # Errors
    /// Says which do not.
    pub fn check(&self) -> Result<(), MatrixError> {
        let fail = |problem: String| Err(MatrixError { rows: self.rows, columns: self.columns, problem });
        let Some(elements) = self.rows.checked_mul(self.columns) else {
            return fail("absurd shape".into());
        };
        if !(1..=8).contains(&self.bits) {
            return fail(format!("{} bits; 1 to 8 can be stored", self.bits));
        }
        if self.group_size == Some(0) {
            return fail("groups of 0 columns".into());
        }
        if self.codes.len() != elements {
            return fail(format!("{} codes", self.codes.len()));
        }
        let grids = self.rows.saturating_mul(self.groups());
        if self.scales.len() != grids || self.zeros.len() != grids {
            let (scales, zeros) = (self.scales.len(), self.zeros.len());
            return fail(format!("{scales} scales and {zeros} zeros, {grids} of each expected"));
        }
        if self.scales.iter().chain(&self.zeros).any(|v| !v.is_finite()) {
            return fail("a scale or zero is not finite".into());
        }
        if let Some(code) = self.codes.iter().find(|c| u32::from(**c) >> self.bits != 0) {
            return fail(format!("the code {code} does not fit in {} bits", self.bits));
        }
        if let Some(index) = &self.group_index
            && (index.len() != self.columns || index.iter().any(|g| *g as usize >= self.groups()))
        {
            return fail("the group index does not fit the columns and groups".into());
        }
        Ok(())
    }

    /// The weights that the codes stand for, `[rows, columns]`. The parts must fit together.
    pub fn dequantize(&self) -> Vec<f32> {
        let groups = self.groups();
        let group_of = self.group_of_columns();
        let mut values = Vec::with_capacity(self.codes.len());
        for (row, codes) in self.codes.chunks_exact(self.columns.max(1)).enumerate() {
            for (code, group) in codes.iter().zip(&group_of) {
                let at = row * groups + *group as usize;
                values.push(self.scales[at] * (f32::from(*code) - self.zeros[at]));
            }
        }
        values
    }

    /// The middle of the codes, where a symmetric grid has its zero.
    pub fn middle(&self) -> f32 {
        f32::from(1u8 << (self.bits - 1))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A matrix of reproducible noise whose scales are exact in half precision.
    pub(crate) fn noise(
        rows: usize,
        columns: usize,
        bits: u32,
        group_size: Option<usize>,
        symmetric: bool,
        act_order: bool,
        seed: u64,
    ) -> IntegerMatrix {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        let groups = group_size.map_or(1, |g: usize| columns.div_ceil(g));
        let mask = u8::MAX >> (8 - bits);
        let middle = f32::from(1u8 << (bits - 1));
        let codes = (0..rows * columns).map(|_| next() as u8 & mask).collect();
        let scales = (0..rows * groups).map(|_| (next() % 2000 + 1) as f32 / 65_536.0).collect();
        let zeros = (0..rows * groups)
            .map(|_| if symmetric { middle } else { f32::from(next() as u8 & mask) })
            .collect();
        let group_index = act_order.then(|| {
            let mut index: Vec<u32> =
                (0..columns).map(|c| (c / group_size.unwrap_or(columns)) as u32).collect();
            for i in (1..columns).rev() {
                index.swap(i, next() as usize % (i + 1));
            }
            index
        });
        let made =
            IntegerMatrix { rows, columns, bits, group_size, symmetric, codes, scales, zeros, group_index };
        made.without_plain_index()
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let good = noise(4, 8, 4, Some(4), false, true, 1);
        assert_eq!(good.check(), Ok(()));
        let says = |change: fn(&mut IntegerMatrix), expected: &str| {
            let mut bad = noise(4, 8, 4, Some(4), false, true, 1);
            change(&mut bad);
            let message = bad.check().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        says(|m| m.bits = 9, "9 bits");
        says(|m| m.codes[3] = 16, "code 16");
        says(|m| m.codes.truncate(31), "31 codes");
        says(|m| m.scales.truncate(7), "7 scales");
        says(|m| m.scales[0] = f32::NAN, "not finite");
        says(|m| m.group_index = Some(vec![2; 8]), "group index");
        says(|m| m.group_size = Some(0), "groups of 0");
        says(|m| m.rows = usize::MAX, "absurd");
    }

    #[test]
    fn values_are_scale_times_code_minus_zero() {
        let m = IntegerMatrix {
            rows: 1,
            columns: 4,
            bits: 4,
            group_size: Some(2),
            symmetric: false,
            codes: vec![0, 15, 7, 9],
            scales: vec![0.5, 2.0],
            zeros: vec![8.0, 7.0],
            group_index: Some(vec![1, 0, 1, 0]),
        };
        assert_eq!(m.dequantize(), [-14.0, 3.5, 0.0, 0.5]);
    }
}
