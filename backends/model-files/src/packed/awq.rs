//! AWQ's layout `gemm`, 4 bits. For a linear of `rows` outputs and `columns` inputs:
//!
//! | tensor | type | extents |
//! |---|---|---|
//! | `qweight` | I32 | `[columns, rows / 8]` |
//! | `qzeros` | I32 | `[groups, rows / 8]` |
//! | `scales` | F16 | `[groups, rows]` |
//!
//! Nibble `i` of a word holds output [`ORDER`]`[i]` of its eight: the order in which the published kernels unpack them.

use super::matrix::IntegerMatrix;
use super::scheme::{Parts, Scheme, SchemeError, TensorSpec, fail, transposed, words_to_bytes};
use crate::encoding::Encoding;

const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

pub(super) fn fits_shape(scheme: &Scheme, rows: usize, columns: usize) -> Result<(), SchemeError> {
    if scheme.bits != 4 {
        return fail(format!("{} bits; awq stores 4", scheme.bits));
    }
    if !rows.is_multiple_of(8) {
        return fail(format!("{rows} outputs, no multiple of 8, which awq needs"));
    }
    match scheme.group_size {
        Some(size) if !columns.is_multiple_of(size) => {
            fail(format!("{columns} inputs, no multiple of the group size {size}, which awq needs"))
        }
        _ => Ok(()),
    }
}

pub(super) fn tensors(scheme: &Scheme, rows: usize, columns: usize) -> Vec<TensorSpec> {
    let groups = scheme.groups(columns);
    vec![
        TensorSpec::new("qweight", Encoding::I32, &[columns, rows / 8]),
        TensorSpec::new("qzeros", Encoding::I32, &[groups, rows / 8]),
        TensorSpec::new("scales", scheme.scales.encoding(), &[groups, rows]),
    ]
}

/// Packs a `[lines, outputs]` matrix of codes along the outputs.
fn interleave(codes: &[u8]) -> Vec<u32> {
    let word = |eight: &[u8; 8]| {
        ORDER.iter().enumerate().fold(0, |word, (i, &o)| word | u32::from(eight[o] & 15) << (4 * i))
    };
    codes.as_chunks::<8>().0.iter().map(word).collect()
}

fn undo_interleaving(words: &[u32]) -> Vec<u8> {
    let mut codes = vec![0u8; words.len() * 8];
    for (word, eight) in words.iter().zip(codes.as_chunks_mut::<8>().0) {
        for (i, &o) in ORDER.iter().enumerate() {
            eight[o] = (word >> (4 * i)) as u8 & 15;
        }
    }
    codes
}

pub(super) fn encode(scheme: &Scheme, m: &IntegerMatrix) -> Vec<Vec<u8>> {
    let groups = m.groups();
    let zeros: Vec<u8> = m.zeros.iter().map(|z| *z as u8).collect();
    let mut scales = Vec::new();
    scheme.scales.write(transposed(&m.scales, m.rows, groups), &mut scales);
    vec![
        words_to_bytes(&interleave(&transposed(&m.codes, m.rows, m.columns))),
        words_to_bytes(&interleave(&transposed(&zeros, m.rows, groups))),
        scales,
    ]
}

pub(super) fn shape(parts: &Parts<'_>) -> Result<[usize; 2], SchemeError> {
    let [columns, words] = parts.extents("qweight")?;
    Ok([words.saturating_mul(8), columns])
}

pub(super) fn decode(
    scheme: &Scheme,
    parts: &Parts<'_>,
    rows: usize,
    columns: usize,
) -> Result<IntegerMatrix, SchemeError> {
    fits_shape(scheme, rows, columns)?;
    let groups = scheme.groups(columns);
    let codes = undo_interleaving(&parts.words("qweight", &[columns, rows / 8])?);
    let zeros = if parts.optional("qzeros").is_some() {
        undo_interleaving(&parts.words("qzeros", &[groups, rows / 8])?).into_iter().map(f32::from).collect()
    } else if scheme.symmetric {
        vec![8.0; groups * rows]
    } else {
        return fail("there is no tensor `qzeros`, and the grid is not symmetric");
    };
    Ok(IntegerMatrix {
        rows,
        columns,
        bits: 4,
        group_size: scheme.group_size,
        symmetric: scheme.symmetric,
        codes: transposed(&codes, columns, rows),
        scales: transposed(&parts.floats("scales", &[groups, rows])?, groups, rows),
        zeros: transposed(&zeros, groups, rows),
        group_index: None,
    })
}
