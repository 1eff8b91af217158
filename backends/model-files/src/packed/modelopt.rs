//! The layout of NVIDIA's Model Optimizer for 4-bit weights on symmetric grids (`W4A16_AWQ`), which TensorRT-LLM reads. Codes are signed there:
//! ours less 8. For a linear of `rows` outputs and `columns` inputs:
//!
//! | tensor | type | extents | |
//! |---|---|---|---|
//! | `weight` | U8 | `[rows / 2, columns]` | two outputs in a byte, the first of them in its low half |
//! | `weight_scale` | float | `[rows, groups]` | |
//! | `pre_quant_scale` | float | `[columns]` | factors of the inputs |
//!
//! The factors are 1 in what is written. A file with others is refused: no matrix of codes stands for its weight.

use super::matrix::IntegerMatrix;
use super::scheme::{Parts, Scheme, SchemeError, TensorSpec, fail};
use crate::encoding::Encoding;

/// What a code is stored less of, modulo 16: this flips its highest bit.
const MIDDLE: u8 = 8;

pub(super) fn fits_shape(scheme: &Scheme, rows: usize, columns: usize) -> Result<(), SchemeError> {
    if scheme.bits != 4 {
        return fail(format!("{} bits; modelopt stores 4", scheme.bits));
    }
    if !scheme.symmetric {
        return fail("an asymmetric grid; modelopt stores symmetric ones");
    }
    if !rows.is_multiple_of(2) {
        return fail(format!("{rows} outputs, no multiple of 2, which modelopt needs"));
    }
    match scheme.group_size {
        Some(size) if columns.is_multiple_of(size) => Ok(()),
        Some(size) => {
            fail(format!("{columns} inputs, no multiple of the group size {size}, which modelopt needs"))
        }
        None => fail("one scale for each output; modelopt needs groups"),
    }
}

pub(super) fn tensors(scheme: &Scheme, rows: usize, columns: usize) -> Vec<TensorSpec> {
    vec![
        TensorSpec::new("weight", Encoding::U8, &[rows / 2, columns]),
        TensorSpec::new("weight_scale", scheme.scales.encoding(), &[rows, scheme.groups(columns)]),
        TensorSpec::new("pre_quant_scale", scheme.scales.encoding(), &[columns]),
    ]
}

pub(super) fn encode(scheme: &Scheme, m: &IntegerMatrix) -> Vec<Vec<u8>> {
    let byte = |low: u8, high: u8| (low ^ MIDDLE) | (high ^ MIDDLE) << 4;
    let mut weight = Vec::with_capacity(m.codes.len() / 2);
    for pair in m.codes.chunks_exact(2 * m.columns) {
        let (first, second) = pair.split_at(m.columns);
        weight.extend(first.iter().zip(second).map(|(low, high)| byte(*low, *high)));
    }
    let (mut scales, mut inputs) = (Vec::new(), Vec::new());
    scheme.scales.write(m.scales.iter().copied(), &mut scales);
    scheme.scales.write(std::iter::repeat_n(1.0, m.columns), &mut inputs);
    vec![weight, scales, inputs]
}

pub(super) fn shape(parts: &Parts<'_>) -> Result<[usize; 2], SchemeError> {
    let [pairs, columns] = parts.extents("weight")?;
    Ok([pairs.saturating_mul(2), columns])
}

pub(super) fn decode(
    scheme: &Scheme,
    parts: &Parts<'_>,
    rows: usize,
    columns: usize,
) -> Result<IntegerMatrix, SchemeError> {
    fits_shape(scheme, rows, columns)?;
    let groups = scheme.groups(columns);
    if parts.optional("pre_quant_scale").is_some()
        && parts.floats("pre_quant_scale", &[columns])?.iter().any(|factor| *factor != 1.0)
    {
        return fail("`pre_quant_scale` multiplies the inputs, which is not supported");
    }
    let bytes = parts.unsigned("weight", &[rows / 2, columns])?;
    let mut codes = Vec::with_capacity(rows * columns);
    for pair in bytes.chunks_exact(columns) {
        codes.extend(pair.iter().map(|byte| (byte & 15) ^ MIDDLE));
        codes.extend(pair.iter().map(|byte| (byte >> 4) ^ MIDDLE));
    }
    Ok(IntegerMatrix {
        rows,
        columns,
        bits: 4,
        group_size: scheme.group_size,
        symmetric: true,
        codes,
        scales: parts.floats("weight_scale", &[rows, groups])?,
        zeros: vec![f32::from(MIDDLE); rows * groups],
        group_index: None,
    })
}
