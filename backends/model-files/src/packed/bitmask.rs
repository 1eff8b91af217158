//! compressed-tensors' layouts of weights with many zeros: the others, and a bit for each place. For a linear of `rows` outputs and
//! `columns` inputs, `sparse-bitmask` has
//!
//! | tensor | type | extents | |
//! |---|---|---|---|
//! | `compressed` | float | `[numbers that are not zero]` | row by row |
//! | `bitmask` | U8 | `[rows, columns / 8]` | the first column in the lowest bit |
//! | `row_offsets` | I64 | `[rows]` | where each row begins in `compressed` |
//! | `shape` | I64 | `[2]` | `rows`, `columns` |
//!
//! and `sparse-24-bitmask`, where exactly two of every four neighbouring inputs have a bit (zeros fill up),
//!
//! | tensor | type | extents | |
//! |---|---|---|---|
//! | `compressed` | float | `[rows, columns / 2]` | |
//! | `bitmask` | U8 | `[rows, columns / 8]` | |
//! | `shape` | I64 | `[2, 1]` | |
//!
//! What is read needs no word of the configuration: the tensors say which of the two they are.

use super::scheme::{FloatType, Parts, SchemeError, TensorSpec, fail};
use crate::encoding::Encoding;

/// One of the two layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bitmask {
    /// `sparse-bitmask`: zeros anywhere.
    Unstructured,
    /// `sparse-24-bitmask`: at most two numbers in every four neighbouring inputs.
    TwoOfFour,
}

/// Consecutive inputs of the pattern 2:4.
const PATTERN: usize = 4;

impl Bitmask {
    /// Both.
    pub const ALL: [Bitmask; 2] = [Bitmask::Unstructured, Bitmask::TwoOfFour];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Bitmask::Unstructured => "sparse-bitmask",
            Bitmask::TwoOfFour => "sparse-24-bitmask",
        }
    }

    /// The structure of the zeros, as configurations name it.
    pub fn structure(self) -> &'static str {
        match self {
            Bitmask::Unstructured => "unstructured",
            Bitmask::TwoOfFour => "2:4",
        }
    }

    /// Checks that a weight can be stored so.
    ///
    /// # Errors
    /// Says what stands against it.
    pub fn fits(self, values: &[f32], columns: usize) -> Result<(), SchemeError> {
        if self == Bitmask::Unstructured {
            return Ok(());
        }
        if !columns.is_multiple_of(PATTERN) {
            return fail(format!("{columns} inputs, no multiple of the {PATTERN} of its pattern"));
        }
        let numbers = |four: &[f32]| four.iter().filter(|v| **v != 0.0).count();
        match values.chunks(PATTERN).position(|four| numbers(four) > PATTERN / 2) {
            None => Ok(()),
            Some(at) => fail(format!(
                "row {}, inputs {} to {}: more than two of four are not zero",
                at * PATTERN / columns,
                at * PATTERN % columns,
                at * PATTERN % columns + PATTERN - 1
            )),
        }
    }

    /// Bytes that a weight takes.
    pub fn bytes(self, values: &[f32], rows: usize, columns: usize, numbers: FloatType) -> usize {
        let specs = self.tensors(values, rows, columns, numbers);
        specs.iter().filter_map(|t| t.encoding.byte_len(t.shape.iter().product())).sum()
    }

    /// The tensors that a weight is stored as.
    pub fn tensors(self, values: &[f32], rows: usize, columns: usize, numbers: FloatType) -> Vec<TensorSpec> {
        let bitmask = TensorSpec::new("bitmask", Encoding::U8, &[rows, columns.div_ceil(8)]);
        let compressed = |shape: &[usize]| TensorSpec::new("compressed", numbers.encoding(), shape);
        match self {
            Bitmask::Unstructured => vec![
                compressed(&[values.iter().filter(|v| **v != 0.0).count()]),
                bitmask,
                TensorSpec::new("row_offsets", Encoding::I64, &[rows]),
                TensorSpec::new("shape", Encoding::I64, &[2]),
            ],
            Bitmask::TwoOfFour => vec![
                compressed(&[rows, columns / 2]),
                bitmask,
                TensorSpec::new("shape", Encoding::I64, &[2, 1]),
            ],
        }
    }

    /// The bytes of [`tensors`](Self::tensors), in the same order, of a weight that [fits](Self::fits).
    ///
    /// # Errors
    /// As [`fits`](Self::fits).
    pub fn encode(
        self,
        values: &[f32],
        columns: usize,
        numbers: FloatType,
    ) -> Result<Vec<Vec<u8>>, SchemeError> {
        self.fits(values, columns)?;
        let mut compressed = Vec::new();
        let mut bitmask = Vec::with_capacity(values.len().div_ceil(8));
        let mut offsets: Vec<i64> = Vec::new();
        for row in values.chunks_exact(columns) {
            offsets.push(compressed.len() as i64);
            let kept: Vec<bool> = match self {
                Bitmask::Unstructured => row.iter().map(|v| *v != 0.0).collect(),
                Bitmask::TwoOfFour => row.chunks_exact(PATTERN).flat_map(two_of_four).collect(),
            };
            compressed.extend(row.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(v, _)| *v));
            let byte = |bits: &[bool]| bits.iter().rev().fold(0u8, |byte, bit| byte << 1 | u8::from(*bit));
            bitmask.extend(kept.chunks(8).map(byte));
        }
        let rows = offsets.len() as i64;
        let mut floats = Vec::new();
        numbers.write(compressed, &mut floats);
        let integers = |values: &[i64]| values.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let mut all = vec![floats, bitmask];
        if self == Bitmask::Unstructured {
            all.push(integers(&offsets));
        }
        all.push(integers(&[rows, columns as i64]));
        Ok(all)
    }
}

/// Two places of four: those of numbers, and where there are fewer, the first zeros.
fn two_of_four(four: &[f32]) -> [bool; PATTERN] {
    let mut kept = [false; PATTERN];
    let numbers = (0..PATTERN).filter(|i| four[*i] != 0.0);
    let zeros = (0..PATTERN).filter(|i| four[*i] == 0.0);
    for place in numbers.chain(zeros).take(PATTERN / 2) {
        kept[place] = true;
    }
    kept
}

/// Whether a linear with these tensors (asked for by the last part of their names) is stored in one of the two layouts.
pub(crate) fn recognises(has: impl Fn(&str) -> bool) -> bool {
    has("compressed") && has("bitmask")
}

/// `[rows, columns]` of a weight.
pub(crate) fn shape(parts: &Parts<'_>) -> Result<[usize; 2], SchemeError> {
    let stored = parts.required("shape")?;
    let [rows, bytes] = parts.extents("bitmask")?;
    let numbers: Vec<u64> = match stored.encoding {
        Encoding::I64 => stored.bytes.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect(),
        other => return fail(format!("`shape` is stored as {other}, I64 expected")),
    };
    match numbers.as_slice() {
        &[r, c] if r == rows as u64 && c > 0 && (c as usize).div_ceil(8) == bytes => Ok([rows, c as usize]),
        other => fail(format!("`shape` is {other:?}, but `bitmask` has {rows} rows of {bytes} bytes")),
    }
}

/// Reads a weight, row by row.
pub(crate) fn decode(parts: &Parts<'_>) -> Result<Vec<f32>, SchemeError> {
    let [rows, columns] = shape(parts)?;
    let bytes = columns.div_ceil(8);
    let bitmask = parts.unsigned("bitmask", &[rows, bytes])?;
    let compressed = parts.required("compressed")?;
    let kept: usize = bitmask.iter().map(|byte| byte.count_ones() as usize).sum();
    if compressed.shape.iter().product::<usize>() != kept {
        return fail(format!("`compressed` has the extents {:?}, but {kept} bits are set", compressed.shape));
    }
    let mut numbers = parts.floats("compressed", &compressed.shape)?.into_iter();
    let Some(cells) = rows.checked_mul(columns) else {
        return fail(format!("its tensors make it a weight of [{rows}, {columns}]"));
    };
    let mut values = vec![0f32; cells];
    for (row, bits) in values.chunks_exact_mut(columns).zip(bitmask.chunks_exact(bytes)) {
        for (column, value) in row.iter_mut().enumerate() {
            if bits[column / 8] >> (column % 8) & 1 == 1 {
                *value = numbers.next().unwrap_or_default();
            }
        }
        // Bits beyond the last column would take the next row's numbers.
        if !columns.is_multiple_of(8) && bits[bytes - 1] >> (columns % 8) != 0 {
            return fail(format!("`bitmask` has bits beyond the {columns} inputs"));
        }
    }
    Ok(values)
}
