//! Quantised weights.

use abi_stable::std_types::ROption;

use super::error::{Error, Result};
use super::tensor::Tensor;
use crate::abi::quantized::AbiQuantizedWeight;

/// A weight matrix `[rows, columns]` (output, input features) as integer codes on a grid,
/// `w = scale * (code - zero)` in `f32`, with one scale and one zero for each row and group of columns.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedWeight {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub columns: usize,
    /// Bits per code, 1 to 8.
    pub bits: u32,
    /// Columns per group; `None`: the whole row.
    pub group_size: Option<usize>,
    /// Whether the grid is symmetric around its middle code.
    pub symmetric: bool,
    /// Codes, `[rows, columns]`, row-major.
    pub codes: Vec<u8>,
    /// Scales, `[rows, groups]`.
    pub scales: Vec<f32>,
    /// Zeros (as codes), `[rows, groups]`.
    pub zeros: Vec<f32>,
    /// Group of each column, when groups do not follow the order of the columns.
    pub group_index: Option<Vec<u32>>,
}

impl QuantizedWeight {
    /// Groups per row.
    pub fn groups(&self) -> usize {
        self.group_size.map_or(1, |g| self.columns.div_ceil(g.max(1)))
    }

    /// Checks that lengths, ranges and indices fit together.
    pub fn check(&self) -> Result<()> {
        let fail = |what: String| {
            Err(Error::invalid(format!("quantised weight [{}, {}]: {what}", self.rows, self.columns)))
        };
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
        let grid = self.rows * self.groups();
        if self.scales.len() != grid || self.zeros.len() != grid {
            return fail(format!(
                "{} scales and {} zeros, {grid} of each expected",
                self.scales.len(),
                self.zeros.len()
            ));
        }
        if self.bits < 8 && self.codes.iter().any(|c| *c >> self.bits != 0) {
            return fail(format!("a code does not fit in {} bits", self.bits));
        }
        if let Some(index) = &self.group_index
            && (index.len() != self.columns || index.iter().any(|g| *g as usize >= self.groups()))
        {
            return fail("the group index does not fit the columns and groups".into());
        }
        Ok(())
    }

    /// The weights the codes stand for, `[rows, columns]`.
    pub fn dequantize(&self) -> Result<Vec<f32>> {
        self.check()?;
        let groups = self.groups();
        let group_of: Vec<usize> = match (&self.group_index, self.group_size) {
            (Some(index), _) => index.iter().map(|g| *g as usize).collect(),
            (None, Some(size)) => (0..self.columns).map(|c| c / size).collect(),
            (None, None) => vec![0; self.columns],
        };
        let mut values = Vec::with_capacity(self.codes.len());
        for row in 0..self.rows {
            let codes = &self.codes[row * self.columns..(row + 1) * self.columns];
            for (code, group) in codes.iter().zip(&group_of) {
                let at = row * groups + group;
                values.push(self.scales[at] * (f32::from(*code) - self.zeros[at]));
            }
        }
        Ok(values)
    }

    pub(crate) fn to_abi(&self) -> Result<AbiQuantizedWeight> {
        self.check()?;
        let words = (self.columns * self.bits as usize).div_ceil(32);
        let mut packed = vec![0u32; self.rows * words];
        for row in 0..self.rows {
            for column in 0..self.columns {
                let code = u64::from(self.codes[row * self.columns + column]);
                let bit = column * self.bits as usize;
                let at = row * words + bit / 32;
                let shifted = code << (bit % 32);
                packed[at] |= shifted as u32;
                if shifted >> 32 != 0 {
                    packed[at + 1] |= (shifted >> 32) as u32;
                }
            }
        }
        let grid = [self.rows, self.groups()];
        let group_index = match &self.group_index {
            Some(index) => {
                let index: Vec<i32> = index.iter().map(|g| *g as i32).collect();
                ROption::RSome(Tensor::from_vec(index, &[self.columns])?.into_abi())
            }
            None => ROption::RNone,
        };
        Ok(AbiQuantizedWeight {
            rows: self.rows as u64,
            columns: self.columns as u64,
            bits: self.bits,
            axis: 1,
            group_size: self.group_size.map_or(-1, |g| g as i64),
            symmetric: u32::from(self.symmetric),
            packing: 0,
            codes: Tensor::from_vec(packed, &[self.rows, words])?.into_abi(),
            scales: Tensor::from_vec(self.scales.clone(), &grid)?.into_abi(),
            zeros: Tensor::from_vec(self.zeros.clone(), &grid)?.into_abi(),
            group_index,
        })
    }

    pub(crate) fn from_abi(weight: AbiQuantizedWeight) -> Result<QuantizedWeight> {
        if weight.axis != 1 || weight.packing != 0 {
            return Err(Error::unsupported(format!(
                "quantised weights along axis {} with packing {}",
                weight.axis, weight.packing
            )));
        }
        if !(1..=8).contains(&weight.bits) {
            return Err(Error::invalid(format!("quantised weight with {} bits", weight.bits)));
        }
        let (rows, columns, bits) = (weight.rows as usize, weight.columns as usize, weight.bits as usize);
        let codes = Tensor::from_abi(weight.codes)?;
        let packed = codes.as_slice::<u32>()?;
        let words = columns.checked_mul(bits).map(|b| b.div_ceil(32));
        if words.and_then(|w| w.checked_mul(rows)) != Some(packed.len()) {
            return Err(Error::invalid(format!(
                "quantised weight [{rows}, {columns}]: {} packed words",
                packed.len()
            )));
        }
        let words = packed.len().checked_div(rows).unwrap_or(0);
        let mask = (1u64 << bits) - 1;
        let mut unpacked = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            for column in 0..columns {
                let bit = column * bits;
                let at = row * words + bit / 32;
                let low = u64::from(packed[at]);
                let high = if bit % 32 + bits > 32 { u64::from(packed[at + 1]) } else { 0 };
                unpacked.push((((high << 32 | low) >> (bit % 32)) & mask) as u8);
            }
        }
        let group_index = match weight.group_index {
            ROption::RSome(index) => {
                let index = Tensor::from_abi(index)?;
                let index = index.as_slice::<i32>()?;
                if index.iter().any(|g| *g < 0) {
                    return Err(Error::invalid("quantised weight with a negative group index"));
                }
                Some(index.iter().map(|g| *g as u32).collect())
            }
            ROption::RNone => None,
        };
        let weight = QuantizedWeight {
            rows,
            columns,
            bits: weight.bits,
            group_size: usize::try_from(weight.group_size).ok(),
            symmetric: weight.symmetric != 0,
            codes: unpacked,
            scales: Tensor::from_abi(weight.scales)?.as_slice::<f32>()?.to_vec(),
            zeros: Tensor::from_abi(weight.zeros)?.as_slice::<f32>()?.to_vec(),
            group_index,
        };
        weight.check()?;
        Ok(weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn crosses_the_boundary_unchanged(bits in 1u32..=8, rows in 0usize..5, columns in 0usize..70, group in proptest::option::of(1usize..40), seed: u64) {
            let groups = group.map_or(1, |g: usize| columns.div_ceil(g));
            let mut state = seed;
            let mut next = || { state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); (state >> 33) as u32 };
            let weight = QuantizedWeight {
                rows, columns, bits, group_size: group, symmetric: false,
                codes: (0..rows * columns).map(|_| (next() & ((1 << bits) - 1)) as u8).collect(),
                scales: (0..rows * groups).map(|_| next() as f32 * 1e-9).collect(),
                zeros: (0..rows * groups).map(|_| (next() & ((1 << bits) - 1)) as f32).collect(),
                group_index: None,
            };
            let back = QuantizedWeight::from_abi(weight.to_abi().unwrap()).unwrap();
            prop_assert_eq!(back.dequantize().unwrap(), weight.dequantize().unwrap());
            prop_assert_eq!(back, weight);
        }
    }

    #[test]
    fn a_code_too_large_for_its_bits_is_refused() {
        let weight = QuantizedWeight {
            rows: 1,
            columns: 1,
            bits: 2,
            group_size: None,
            symmetric: true,
            codes: vec![4],
            scales: vec![1.0],
            zeros: vec![2.0],
            group_index: None,
        };
        assert!(weight.check().unwrap_err().message().contains("does not fit in 2 bits"));
    }
}
