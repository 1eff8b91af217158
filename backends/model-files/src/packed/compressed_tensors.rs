//! compressed-tensors' layouts. Codes are signed there: ours less `2^(bits - 1)`. For a linear of `rows` outputs and `columns`
//! inputs, `pack-quantized` has
//!
//! | tensor | type | extents | |
//! |---|---|---|---|
//! | `weight_packed` | I32 | `[rows, words]` | codes (unsigned again) packed along the inputs |
//! | `weight_scale` | float | `[rows, groups]` | |
//! | `weight_shape` | I64 | `[2]` | `rows`, `columns` |
//! | `weight_zero_point` | I32 | `[words, groups]` | asymmetric grids only; packed along the outputs |
//!
//! and `int-quantized`
//!
//! | tensor | type | extents | |
//! |---|---|---|---|
//! | `weight` | I8 | `[rows, columns]` | |
//! | `weight_scale` | float | `[rows, groups]`, or `[1]` for the whole tensor | |
//! | `weight_zero_point` | I8 | as `weight_scale` | asymmetric grids only |
//!
//! Files of earlier versions have signed bytes for the zeros of `pack-quantized`, whole codes in each word for 3, 5, 6 and 7 bits, and a
//! `weight_g_idx`: all of these are read, none is written.

use super::bits::{pack, packed_words, unpack};
use super::matrix::IntegerMatrix;
use super::scheme::{Layout, Parts, Scheme, SchemeError, TensorSpec, fail, transposed, words_to_bytes};
use crate::encoding::Encoding;

pub(super) fn fits_shape(scheme: &Scheme, _rows: usize, columns: usize) -> Result<(), SchemeError> {
    match scheme.group_size {
        Some(size) if !columns.is_multiple_of(size) => fail(format!(
            "{columns} inputs, no multiple of the group size {size}, which compressed-tensors needs"
        )),
        _ => Ok(()),
    }
}

fn grid_shape(scheme: &Scheme, rows: usize, columns: usize) -> Vec<usize> {
    if scheme.per_tensor { vec![1] } else { vec![rows, scheme.groups(columns)] }
}

pub(super) fn tensors(scheme: &Scheme, rows: usize, columns: usize) -> Vec<TensorSpec> {
    let grid = grid_shape(scheme, rows, columns);
    let scale = TensorSpec::new("weight_scale", scheme.scales.encoding(), &grid);
    let mut tensors = match scheme.layout {
        Layout::IntQuantized => vec![TensorSpec::new("weight", Encoding::I8, &[rows, columns]), scale],
        _ => vec![
            TensorSpec::new("weight_packed", Encoding::I32, &[rows, packed_words(columns, scheme.bits)]),
            scale,
            TensorSpec::new("weight_shape", Encoding::I64, &[2]),
        ],
    };
    if !scheme.symmetric {
        tensors.push(match scheme.layout {
            Layout::IntQuantized => TensorSpec::new("weight_zero_point", Encoding::I8, &grid),
            _ => {
                let words = packed_words(rows, scheme.bits);
                TensorSpec::new("weight_zero_point", Encoding::I32, &[words, scheme.groups(columns)])
            }
        });
    }
    tensors
}

pub(super) fn encode(scheme: &Scheme, m: &IntegerMatrix) -> Vec<Vec<u8>> {
    let groups = m.groups();
    let middle = 1u8 << (m.bits - 1);
    let signed = |code: u8| code.wrapping_sub(middle);
    let mut scales = Vec::new();
    let kept = if scheme.per_tensor { &m.scales[..1] } else { &m.scales[..] };
    scheme.scales.write(kept.iter().copied(), &mut scales);
    let zeros = if scheme.per_tensor { &m.zeros[..1] } else { &m.zeros[..] };
    if scheme.layout == Layout::IntQuantized {
        let mut all = vec![m.codes.iter().map(|c| signed(*c)).collect(), scales];
        if !scheme.symmetric {
            all.push(zeros.iter().map(|z| signed(*z as u8)).collect());
        }
        return all;
    }
    let mut packed = Vec::with_capacity(m.rows * packed_words(m.columns, m.bits));
    for codes in m.codes.chunks_exact(m.columns) {
        pack(codes.iter().copied(), m.bits, |w| packed.push(w));
    }
    let shape = [m.rows as i64, m.columns as i64].iter().flat_map(|n| n.to_le_bytes()).collect();
    let mut all = vec![words_to_bytes(&packed), scales, shape];
    if !scheme.symmetric {
        let words = packed_words(m.rows, m.bits);
        let mut columns = Vec::with_capacity(groups * words);
        for group in 0..groups {
            let column = m.zeros.iter().skip(group).step_by(groups);
            pack(column.map(|z| *z as u8), m.bits, |w| columns.push(w));
        }
        all.push(words_to_bytes(&transposed(&columns, groups, words)));
    }
    all
}

pub(super) fn shape(scheme: &Scheme, parts: &Parts<'_>) -> Result<[usize; 2], SchemeError> {
    if scheme.layout == Layout::IntQuantized {
        return parts.extents("weight");
    }
    let [rows, words] = parts.extents("weight_packed")?;
    let Some(stored) = parts.optional("weight_shape") else {
        // Exact for the common bits; for others a file without the shape cannot be read.
        return Ok([rows, words.saturating_mul(32) / scheme.bits as usize]);
    };
    let numbers: Vec<u64> = match stored.encoding {
        Encoding::I64 => stored.bytes.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect(),
        Encoding::I32 => {
            stored.bytes.as_chunks::<4>().0.iter().map(|b| u64::from(u32::from_le_bytes(*b))).collect()
        }
        other => return fail(format!("`weight_shape` is stored as {other}, I64 expected")),
    };
    match numbers.as_slice() {
        &[r, c] if r == rows as u64 && c > 0 && c <= words as u64 * 32 => Ok([rows, c as usize]),
        other => {
            fail(format!("`weight_shape` is {other:?}, but `weight_packed` has {rows} rows of {words} words"))
        }
    }
}

/// Unpacks a line of words, in the present layout or in that of earlier versions, where no code crossed a word.
fn unpack_line(words: &[u32], bits: u32, len: usize, codes: &mut Vec<u8>) {
    if words.len() == packed_words(len, bits) {
        unpack(words.iter().copied(), bits, len, |c| codes.push(c));
        return;
    }
    let (each, mask) = (32 / bits, u8::MAX >> (8 - bits));
    codes.extend((0..len as u32).map(|i| (words[(i / each) as usize] >> (i % each * bits)) as u8 & mask));
}

/// How many words a line takes: in the present layout or in the earlier one.
fn line_words(found: usize, len: usize, bits: u32) -> usize {
    let earlier = len.div_ceil((32 / bits) as usize);
    if found == earlier { earlier } else { packed_words(len, bits) }
}

pub(super) fn decode(
    scheme: &Scheme,
    parts: &Parts<'_>,
    rows: usize,
    columns: usize,
) -> Result<IntegerMatrix, SchemeError> {
    fits_shape(scheme, rows, columns)?;
    let (bits, groups) = (scheme.bits, scheme.groups(columns));
    let middle = 1u8 << (bits - 1);
    let unsigned = |byte: &u8| byte.wrapping_add(middle);
    let codes = if scheme.layout == Layout::IntQuantized {
        parts.bytes("weight", &[rows, columns])?.iter().map(unsigned).collect()
    } else {
        let words = line_words(parts.extents("weight_packed")?[1], columns, bits);
        let packed = parts.words("weight_packed", &[rows, words])?;
        let mut codes = Vec::with_capacity(rows * columns);
        for line in packed.chunks_exact(words) {
            unpack_line(line, bits, columns, &mut codes);
        }
        codes
    };
    // One number for the whole tensor may be `[1]`, or have no extents at all; one for each row may lack the second.
    let grid = |suffix: &str| -> Result<Vec<usize>, SchemeError> {
        let shape = parts.required(suffix)?.shape;
        let allowed = match (scheme.per_tensor, groups) {
            (true, _) => shape.iter().product::<usize>() == 1,
            (false, 1) => shape == [rows] || shape == [rows, 1],
            (false, _) => shape == [rows, groups],
        };
        if allowed { Ok(shape) } else { Ok(grid_shape(scheme, rows, columns)) }
    };
    let spread = |values: Vec<f32>| match values.as_slice() {
        [one] if scheme.per_tensor => vec![*one; rows * groups],
        _ => values,
    };
    let scales = spread(parts.floats("weight_scale", &grid("weight_scale")?)?);
    let zeros = match parts.optional("weight_zero_point") {
        None if scheme.symmetric => vec![f32::from(middle); rows * groups],
        None => return fail("there is no tensor `weight_zero_point`, and the grid is not symmetric"),
        Some(stored) if stored.encoding == Encoding::I8 => {
            let bytes = parts.bytes("weight_zero_point", &grid("weight_zero_point")?)?;
            spread(bytes.iter().map(unsigned).map(f32::from).collect())
        }
        Some(_) => {
            let words = line_words(parts.extents("weight_zero_point")?[0], rows, bits);
            let packed = transposed(&parts.words("weight_zero_point", &[words, groups])?, words, groups);
            let mut zeros = Vec::with_capacity(rows * groups);
            for line in packed.chunks_exact(words) {
                unpack_line(line, bits, rows, &mut zeros);
            }
            transposed(&zeros, groups, rows).into_iter().map(f32::from).collect()
        }
    };
    let group_index = parts.group_index("weight_g_idx", columns, groups)?;
    let (group_size, symmetric) = (scheme.group_size, scheme.symmetric);
    Ok(IntegerMatrix { rows, columns, bits, group_size, symmetric, codes, scales, zeros, group_index })
}
