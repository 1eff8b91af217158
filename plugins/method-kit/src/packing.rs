//! Integer codes in 32-bit words, and the tensors of a GPTQ checkpoint.
//!
//! Codes follow one another without gaps, the first in the lowest bits of the first word. For 2, 4 and 8 bits a
//! code never crosses a word; for 3 bits 32 codes fill three words, and codes 10 and 21 lie across two, which is
//! the layout of GPTQ's 3-bit kernels.

use rayon::prelude::*;

use crate::{KitError, grid::Quantized, grid::check_bits};

/// Words that `len` codes of `bits` bits take.
pub fn packed_words(len: usize, bits: u8) -> usize {
    // len * bits would overflow for lengths near the address space's end.
    let bits = usize::from(bits);
    len / 32 * bits + (len % 32 * bits).div_ceil(32)
}

/// Packs codes into words; unused bits of the last word are zero.
///
/// # Errors
/// [`KitError::Option`] unless `bits` is 2 to 8, [`KitError::Code`] for a code that does not fit.
pub fn pack(codes: &[u8], bits: u8) -> Result<Vec<u32>, KitError> {
    check_bits(bits)?;
    check_codes(codes, bits)?;
    let mut words = Vec::with_capacity(packed_words(codes.len(), bits));
    pack_stream(codes.iter().copied(), bits, |word| words.push(word));
    Ok(words)
}

/// Unpacks the first `len` codes of `words`.
///
/// # Errors
/// [`KitError::Option`] unless `bits` is 2 to 8, [`KitError::Length`] if there are fewer or more words than `len`
/// codes take.
pub fn unpack(words: &[u32], bits: u8, len: usize) -> Result<Vec<u8>, KitError> {
    check_bits(bits)?;
    check_length("packed codes", packed_words(len, bits), words.len())?;
    let mut codes = Vec::with_capacity(len);
    unpack_stream(words.iter().copied(), bits, len, |code| codes.push(code));
    Ok(codes)
}

fn pack_stream(codes: impl Iterator<Item = u8>, bits: u8, mut emit: impl FnMut(u32)) {
    let (mut held, mut filled) = (0u64, 0u32);
    for code in codes {
        held |= u64::from(code) << filled;
        filled += u32::from(bits);
        if filled >= 32 {
            emit(held as u32);
            held >>= 32;
            filled -= 32;
        }
    }
    if filled > 0 {
        emit(held as u32);
    }
}

fn unpack_stream(mut words: impl Iterator<Item = u32>, bits: u8, len: usize, mut emit: impl FnMut(u8)) {
    let mask = u64::from(u8::MAX >> (8 - bits));
    let (mut held, mut filled) = (0u64, 0u32);
    for _ in 0..len {
        if filled < u32::from(bits) {
            held |= u64::from(words.next().unwrap_or(0)) << filled;
            filled += 32;
        }
        emit((held & mask) as u8);
        held >>= bits;
        filled -= u32::from(bits);
    }
}

fn check_codes(codes: &[u8], bits: u8) -> Result<(), KitError> {
    let max = u8::MAX >> (8 - bits);
    match codes.iter().position(|&c| c > max) {
        Some(index) => Err(KitError::Code { code: codes[index], index, bits }),
        None => Ok(()),
    }
}

fn check_length(operand: &'static str, expected: usize, found: usize) -> Result<(), KitError> {
    if expected == found { Ok(()) } else { Err(KitError::Length { operand, expected, found }) }
}

/// Codes after which the words of a column start afresh.
fn period(bits: u8) -> usize {
    match bits {
        2 | 4 | 8 => 32 / usize::from(bits),
        6 => 16,
        _ => 32,
    }
}

fn check_period(what: &'static str, size: usize, bits: u8) -> Result<(), KitError> {
    if size.is_multiple_of(period(bits)) {
        Ok(())
    } else {
        Err(KitError::Indivisible { what, size, unit: "pack", multiple: period(bits) })
    }
}

/// How a GPTQ checkpoint stores zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroFormat {
    /// `gptq`: one less than the zero, modulo `2^bits`. What most tools read. A zero of 0, which only asymmetric
    /// grids have, wraps around, and some readers do not undo that: store those as `V2`.
    V1,
    /// `gptq_v2`: the zero itself.
    V2,
}

/// The tensors of one linear in a GPTQ checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct GptqTensors {
    /// Codes, packed along the inputs: `[cols * bits / 32, rows]`.
    pub qweight: Vec<u32>,
    /// Zeros, packed along the outputs: `[groups, rows * bits / 32]`.
    pub qzeros: Vec<u32>,
    /// Scales: `[groups, rows]`.
    pub scales: Vec<f32>,
    /// Group of each input: `[cols]`.
    pub g_idx: Vec<i32>,
}

/// Lays a quantised matrix out as a GPTQ checkpoint does.
///
/// # Errors
/// [`KitError::Indivisible`] if columns or rows do not fill whole words (multiples of `32 / bits`, of 32 for odd
/// bits); [`KitError::Length`], [`KitError::Code`] if the parts of `quantized` do not belong together.
pub fn to_gptq_layout(quantized: &Quantized, zeros: ZeroFormat) -> Result<GptqTensors, KitError> {
    let Quantized { rows, cols, bits, .. } = *quantized;
    check_bits(bits)?;
    check_period("columns", cols, bits)?;
    check_period("rows", rows, bits)?;
    check_length("codes", rows.saturating_mul(cols), quantized.codes.len())?;
    let groups = quantized.groups();
    check_length("scales", rows.saturating_mul(groups), quantized.scales.len())?;
    check_length("zeros", quantized.scales.len(), quantized.zeros.len())?;
    check_length("group index", cols, quantized.group_index.len())?;
    check_codes(&quantized.codes, bits)?;
    check_codes(&quantized.zeros, bits)?;

    let mask = u8::MAX >> (8 - bits);
    let down = u8::from(zeros == ZeroFormat::V1);
    let words = packed_words(rows, bits);
    let mut qzeros = Vec::with_capacity(groups * words);
    let mut scales = Vec::with_capacity(groups * rows);
    for group in 0..groups {
        let column = quantized.zeros.iter().skip(group).step_by(groups);
        let column = column.map(|z| z.wrapping_sub(down) & mask);
        pack_stream(column, bits, |word| qzeros.push(word));
        scales.extend(quantized.scales.iter().skip(group).step_by(groups));
    }
    Ok(GptqTensors {
        qweight: pack_columns(&quantized.codes, rows, cols, bits),
        qzeros,
        scales,
        g_idx: quantized.group_index.iter().map(|&g| g as i32).collect(),
    })
}

/// Reads the tensors of one linear of a GPTQ checkpoint.
///
/// `rows` and `cols` are the outputs and inputs of the layer; `group_size` is kept as it is, and `symmetric` is
/// found from the zeros.
///
/// # Errors
/// As [`to_gptq_layout`], and [`KitError::Option`] for a group index outside the groups.
pub fn from_gptq_layout(
    tensors: &GptqTensors,
    rows: usize,
    cols: usize,
    bits: u8,
    group_size: Option<usize>,
    zeros: ZeroFormat,
) -> Result<Quantized, KitError> {
    check_bits(bits)?;
    check_period("columns", cols, bits)?;
    check_period("rows", rows, bits)?;
    if rows == 0 || cols == 0 || rows.checked_mul(cols).is_none() {
        return Err(KitError::Shape { operand: "qweight", rows, cols });
    }
    let words = packed_words(cols, bits);
    check_length("qweight", words.saturating_mul(rows), tensors.qweight.len())?;
    check_length("g_idx", cols, tensors.g_idx.len())?;
    let groups = tensors.scales.len() / rows;
    check_length("scales", groups * rows, tensors.scales.len())?;
    check_length("qzeros", groups * packed_words(rows, bits), tensors.qzeros.len())?;
    let mut group_index = Vec::with_capacity(cols);
    for &g in &tensors.g_idx {
        match u32::try_from(g) {
            Ok(g) if (g as usize) < groups => group_index.push(g),
            _ => return Err(KitError::option("g_idx", g, "the index of a group")),
        }
    }
    let mask = u8::MAX >> (8 - bits);
    let up = u8::from(zeros == ZeroFormat::V1);
    let mut zero_codes = vec![0u8; rows * groups];
    let mut scales = vec![0.0f32; rows * groups];
    for (group, words) in tensors.qzeros.chunks(packed_words(rows, bits)).enumerate() {
        let mut row = 0;
        unpack_stream(words.iter().copied(), bits, rows, |z| {
            zero_codes[row * groups + group] = z.wrapping_add(up) & mask;
            row += 1;
        });
        for row in 0..rows {
            scales[row * groups + group] = tensors.scales[group * rows + row];
        }
    }
    let mut codes = vec![0u8; rows * cols];
    codes.par_chunks_mut(cols).enumerate().for_each(|(row, codes)| {
        let column = tensors.qweight.iter().skip(row).step_by(rows).copied();
        let mut at = codes.iter_mut();
        unpack_stream(column, bits, cols, |code| {
            if let Some(slot) = at.next() {
                *slot = code;
            }
        });
    });
    let middle = 1u8 << (bits - 1);
    Ok(Quantized {
        rows,
        cols,
        bits,
        group_size,
        symmetric: zero_codes.iter().all(|&z| z == middle),
        codes,
        scales,
        zeros: zero_codes,
        group_index,
    })
}

/// Packs every row along its columns and lays the words of row `r` down column `r`.
fn pack_columns(codes: &[u8], rows: usize, cols: usize, bits: u8) -> Vec<u32> {
    let words = packed_words(cols, bits);
    let packed: Vec<u32> = codes
        .par_chunks(cols.max(1))
        .flat_map_iter(|row| {
            let mut words = Vec::with_capacity(words);
            pack_stream(row.iter().copied(), bits, |word| words.push(word));
            words
        })
        .collect();
    let mut out = vec![0u32; packed.len()];
    out.par_chunks_mut(rows.max(1)).enumerate().for_each(|(word, out)| {
        for (row, slot) in out.iter_mut().enumerate() {
            *slot = packed[row * words + word];
        }
    });
    out
}
