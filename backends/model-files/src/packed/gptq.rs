//! GPTQ's layout, as AutoGPTQ and GPTQModel read it. For a linear of `rows` outputs and `columns` inputs:
//!
//! | tensor | type | extents | |
//! |---|---|---|---|
//! | `qweight` | I32 | `[columns * bits / 32, rows]` | codes packed along the inputs, the words of row `r` down column `r` |
//! | `qzeros` | I32 | `[groups, rows * bits / 32]` | zeros packed along the outputs, see [`ZeroPoints`] |
//! | `scales` | F16 | `[groups, rows]` | |
//! | `g_idx` | I32 | `[columns]` | group of each column; readers do without where it is in order |

use super::bits::{pack, packed_words, unpack};
use super::matrix::IntegerMatrix;
use super::scheme::{Parts, Scheme, SchemeError, TensorSpec, ZeroPoints, fail, transposed, words_to_bytes};
use crate::encoding::Encoding;

/// Codes after which words start afresh.
fn period(bits: u32) -> usize {
    match bits {
        2 | 4 | 8 => 32 / bits as usize,
        _ => 32,
    }
}

pub(super) fn fits_shape(scheme: &Scheme, rows: usize, columns: usize) -> Result<(), SchemeError> {
    if ![2, 3, 4, 8].contains(&scheme.bits) {
        return fail(format!("{} bits; gptq stores 2, 3, 4 or 8", scheme.bits));
    }
    for (what, size) in [("inputs", columns), ("outputs", rows)] {
        let period = period(scheme.bits);
        if !size.is_multiple_of(period) {
            return fail(format!(
                "{size} {what}, no multiple of {period}, which gptq needs at {} bits",
                scheme.bits
            ));
        }
    }
    Ok(())
}

pub(super) fn tensors(scheme: &Scheme, rows: usize, columns: usize) -> Vec<TensorSpec> {
    let groups = scheme.groups(columns);
    vec![
        TensorSpec::new("qweight", Encoding::I32, &[packed_words(columns, scheme.bits), rows]),
        TensorSpec::new("qzeros", Encoding::I32, &[groups, packed_words(rows, scheme.bits)]),
        TensorSpec::new("scales", scheme.scales.encoding(), &[groups, rows]),
        TensorSpec::new("g_idx", Encoding::I32, &[columns]),
    ]
}

pub(super) fn encode(scheme: &Scheme, m: &IntegerMatrix) -> Vec<Vec<u8>> {
    let (groups, mask) = (m.groups(), u8::MAX >> (8 - m.bits));
    let words = packed_words(m.columns, m.bits);
    let mut packed = Vec::with_capacity(words * m.rows);
    for codes in m.codes.chunks_exact(m.columns) {
        pack(codes.iter().copied(), m.bits, |w| packed.push(w));
    }
    let down = u8::from(scheme.zero_points == ZeroPoints::V1);
    let mut zeros = Vec::new();
    for group in 0..groups {
        let column = m.zeros.iter().skip(group).step_by(groups);
        pack(column.map(|z| (*z as u8).wrapping_sub(down) & mask), m.bits, |w| zeros.push(w));
    }
    let mut scales = Vec::new();
    scheme.scales.write(transposed(&m.scales, m.rows, groups), &mut scales);
    vec![
        words_to_bytes(&transposed(&packed, m.rows, words)),
        words_to_bytes(&zeros),
        scales,
        words_to_bytes(&m.group_of_columns()),
    ]
}

pub(super) fn shape(scheme: &Scheme, parts: &Parts<'_>) -> Result<[usize; 2], SchemeError> {
    let [words, rows] = parts.extents("qweight")?;
    let columns = words.saturating_mul(32) / scheme.bits as usize;
    if packed_words(columns, scheme.bits) != words || !columns.is_multiple_of(period(scheme.bits)) {
        return fail(format!(
            "`qweight` has {words} rows of words, no whole number of {}-bit packs",
            scheme.bits
        ));
    }
    Ok([rows, columns])
}

pub(super) fn decode(
    scheme: &Scheme,
    parts: &Parts<'_>,
    rows: usize,
    columns: usize,
) -> Result<IntegerMatrix, SchemeError> {
    fits_shape(scheme, rows, columns)?;
    let (bits, groups) = (scheme.bits, scheme.groups(columns));
    let words = packed_words(columns, bits);
    let packed = transposed(&parts.words("qweight", &[words, rows])?, words, rows);
    let mut codes = Vec::with_capacity(rows * columns);
    for row in packed.chunks_exact(words) {
        unpack(row.iter().copied(), bits, columns, |c| codes.push(c));
    }
    let scales = transposed(&parts.floats("scales", &[groups, rows])?, groups, rows);
    let mask = u8::MAX >> (8 - bits);
    let zeros = if parts.optional("qzeros").is_some() {
        let words = packed_words(rows, bits);
        let up = u8::from(scheme.zero_points == ZeroPoints::V1);
        let mut zeros = Vec::with_capacity(groups * rows);
        for group in parts.words("qzeros", &[groups, words])?.chunks_exact(words) {
            unpack(group.iter().copied(), bits, rows, |z| zeros.push(f32::from(z.wrapping_add(up) & mask)));
        }
        transposed(&zeros, groups, rows)
    } else if scheme.symmetric {
        vec![f32::from(1u8 << (bits - 1)); groups * rows]
    } else {
        return fail("there is no tensor `qzeros`, and the grid is not symmetric");
    };
    let group_index = parts.group_index("g_idx", columns, groups)?;
    let symmetric = scheme.symmetric;
    let group_size = scheme.group_size;
    Ok(IntegerMatrix { rows, columns, bits, group_size, symmetric, codes, scales, zeros, group_index })
}
