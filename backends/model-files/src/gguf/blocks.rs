//! ggml's blocks of 32 values: `Q4_0`, `Q4_1`, `Q8_0`.
//!
//! | type | block | value |
//! |---|---|---|
//! | `Q4_0` | half `d`, 16 bytes | `d * (q - 8)` |
//! | `Q4_1` | half `d`, half `m`, 16 bytes | `d * q + m` |
//! | `Q8_0` | half `d`, 32 signed bytes | `d * q` |
//!
//! Of 16 bytes the low nibbles are values 0 to 15, the high ones 16 to 31.

use half::f16;

use crate::encoding::GgmlType;
use crate::packed::IntegerMatrix;

/// Values of a block.
pub const BLOCK: usize = 32;

fn nibbles(codes: &[u8; BLOCK], out: &mut Vec<u8>) {
    out.extend((0..16).map(|i| codes[i] | codes[i + 16] << 4));
}

/// Encodes rows of values, whose length must be a multiple of 32, as ggml's reference does: `Q4_0` with the largest magnitude at code 0,
/// `Q4_1` from the least to the greatest, `Q8_0` with the largest magnitude at 127. `None` for other types.
pub fn quantize(kind: GgmlType, values: &[f32]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(values.len() / BLOCK * kind.type_size());
    for block in values.as_chunks::<BLOCK>().0 {
        let inverse = |d: f32| if d == 0.0 { 0.0 } else { 1.0 / d };
        match kind {
            GgmlType::Q4_0 => {
                let largest = block.iter().fold(0f32, |most, &v| if v.abs() > most.abs() { v } else { most });
                let d = largest / -8.0;
                let id = inverse(d);
                out.extend(f16::from_f32(d).to_le_bytes());
                nibbles(&block.map(|v| (v * id + 8.5).clamp(0.0, 15.0) as u8), &mut out);
            }
            GgmlType::Q4_1 => {
                let least = block.iter().copied().fold(f32::INFINITY, f32::min);
                let most = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let d = (most - least) / 15.0;
                let id = inverse(d);
                out.extend(f16::from_f32(d).to_le_bytes());
                out.extend(f16::from_f32(least).to_le_bytes());
                nibbles(&block.map(|v| ((v - least) * id + 0.5).clamp(0.0, 15.0) as u8), &mut out);
            }
            GgmlType::Q8_0 => {
                let d = block.iter().fold(0f32, |most, v| most.max(v.abs())) / 127.0;
                let id = inverse(d);
                out.extend(f16::from_f32(d).to_le_bytes());
                out.extend(block.map(|v| (v * id).round() as i8 as u8));
            }
            _ => return None,
        }
    }
    Some(out)
}

/// Integer codes as blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The blocks.
    pub bytes: Vec<u8>,
    /// Whether every value is exactly what it was; else scales or minima were rounded to half precision, which moves a value by up to one part
    /// in 2048 of the range of its group.
    pub exact: bool,
}

/// Encodes integer codes as they are, where the grid allows: groups must be whole blocks, and codes must lie within the type's. Else says which
/// of these does not hold.
///
/// # Errors
/// The reason, in words.
pub fn convert(kind: GgmlType, matrix: &IntegerMatrix) -> Result<Converted, String> {
    let IntegerMatrix { columns, group_size, .. } = *matrix;
    if !columns.is_multiple_of(BLOCK) || group_size.is_some_and(|size| !size.is_multiple_of(BLOCK)) {
        return Err(format!("groups are no whole blocks of {BLOCK}"));
    }
    if matrix.group_index.is_some() {
        return Err("groups are out of the order of the columns".to_owned());
    }
    let groups = matrix.groups();
    let mut exact = true;
    let mut half = |v: f32, what: &str| {
        let half = f16::from_f32(v);
        exact &= half.to_f32() == v;
        // Below the normal numbers digits are lost, in the end all.
        if half.is_normal() || v == 0.0 {
            Ok(half.to_le_bytes())
        } else {
            Err(format!("a {what} is beyond half precision"))
        }
    };
    let mut out = Vec::with_capacity(matrix.codes.len() / BLOCK * kind.type_size());
    for (row, codes) in matrix.codes.chunks_exact(columns).enumerate() {
        for (b, block) in codes.as_chunks::<BLOCK>().0.iter().enumerate() {
            let at = row * groups + group_size.map_or(0, |size| b * BLOCK / size);
            let (scale, zero) = (matrix.scales[at], matrix.zeros[at]);
            out.extend(half(scale, "scale")?);
            let shifted = |by: f32, low: f32, high: f32| {
                let mut all = [0f32; BLOCK];
                for (out, code) in all.iter_mut().zip(block) {
                    *out = f32::from(*code) - zero + by;
                    if !(low..=high).contains(out) || out.fract() != 0.0 {
                        return Err(format!("a code is beyond the range of {}", kind.name()));
                    }
                }
                Ok(all)
            };
            match kind {
                GgmlType::Q4_0 => nibbles(&shifted(8.0, 0.0, 15.0)?.map(|q| q as u8), &mut out),
                GgmlType::Q4_1 => {
                    out.extend(half(-(scale * zero), "minimum")?);
                    nibbles(&shifted(zero, 0.0, 15.0)?.map(|q| q as u8), &mut out);
                }
                GgmlType::Q8_0 => out.extend(shifted(0.0, -128.0, 127.0)?.map(|q| q as i8 as u8)),
                other => return Err(format!("there is no conversion to {}", other.name())),
            }
        }
    }
    Ok(Converted { bytes: out, exact })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: GgmlType, bytes: &[u8], at: usize) -> f32 {
        let block = &bytes[at / BLOCK * kind.type_size()..][..kind.type_size()];
        let half = |i: usize| f16::from_le_bytes([block[i], block[i + 1]]).to_f32();
        let i = at % BLOCK;
        let nibble =
            |from: usize| f32::from(if i < 16 { block[from + i] & 15 } else { block[from + i - 16] >> 4 });
        match kind {
            GgmlType::Q4_0 => half(0) * (nibble(2) - 8.0),
            GgmlType::Q4_1 => half(0) * nibble(4) + half(2),
            _ => half(0) * f32::from(block[2 + i] as i8),
        }
    }

    fn matrix(bits: u32, zero: f32, group_size: Option<usize>) -> IntegerMatrix {
        let (rows, columns) = (3usize, 128usize);
        let grids = rows * group_size.map_or(1, |g| columns.div_ceil(g));
        IntegerMatrix {
            rows,
            columns,
            bits,
            group_size,
            symmetric: false,
            codes: (0..rows * columns).map(|i| (i * 37 % (1 << bits)) as u8).collect(),
            scales: (0..grids).map(|i| (i + 1) as f32 / 64.0).collect(),
            zeros: vec![zero; grids],
            group_index: None,
        }
    }

    #[test]
    fn codes_are_kept_where_the_grid_allows() {
        for (kind, bits, zero, group) in [
            (GgmlType::Q4_0, 4, 8.0, Some(32)),
            (GgmlType::Q4_0, 4, 8.0, Some(64)),
            (GgmlType::Q4_0, 3, 4.0, None),
            (GgmlType::Q4_1, 4, 5.0, Some(32)),
            (GgmlType::Q4_1, 2, 0.0, None),
            (GgmlType::Q8_0, 8, 128.0, Some(32)),
            (GgmlType::Q8_0, 4, 3.0, Some(128)),
        ] {
            let matrix = matrix(bits, zero, group);
            let Converted { bytes, exact } = convert(kind, &matrix).unwrap();
            assert!(exact);
            for (at, want) in matrix.dequantize().into_iter().enumerate() {
                assert_eq!(value(kind, &bytes, at), want, "{} {bits} {group:?}", kind.name());
            }
        }
    }

    #[test]
    fn what_the_grid_does_not_allow_is_named() {
        let says = |kind, matrix: &IntegerMatrix, expected: &str| {
            let message = convert(kind, matrix).unwrap_err();
            assert!(message.contains(expected), "{message}");
        };
        says(GgmlType::Q4_0, &matrix(4, 7.0, Some(32)), "beyond the range of Q4_0");
        says(GgmlType::Q4_0, &matrix(8, 128.0, Some(32)), "beyond the range of Q4_0");
        says(GgmlType::Q8_0, &matrix(4, 8.0, Some(48)), "no whole blocks");
        says(GgmlType::Q8_0, &matrix(4, 7.5, Some(32)), "beyond the range");
        let mut huge = matrix(4, 8.0, Some(32));
        huge.scales[0] = 1e6;
        says(GgmlType::Q4_0, &huge, "scale is beyond half precision");
        let mut shuffled = matrix(4, 8.0, Some(32));
        shuffled.group_index = Some((0..128).rev().map(|c| c / 32).collect());
        says(GgmlType::Q4_0, &shuffled, "out of the order");
    }

    #[test]
    fn grids_are_rounded_to_half_precision_and_codes_are_kept() {
        for (kind, zero) in [(GgmlType::Q4_0, 8.0), (GgmlType::Q4_1, 5.0), (GgmlType::Q8_0, 3.0)] {
            let mut fine = matrix(4, zero, Some(32));
            fine.scales.iter_mut().for_each(|scale| *scale *= 1.0 + 1.0 / 3000.0);
            let Converted { bytes, exact } = convert(kind, &fine).unwrap();
            assert!(!exact);
            for (at, want) in fine.dequantize().into_iter().enumerate() {
                let (got, scale) = (value(kind, &bytes, at), fine.scales[at / 32]);
                assert!((got - want).abs() <= 16.0 * scale / 2048.0, "{}: {got} for {want}", kind.name());
            }
        }
    }

    #[test]
    fn values_are_rounded_to_the_nearest_or_nearly() {
        let values: Vec<f32> = (0..96).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        for (kind, step) in [(GgmlType::Q4_0, 0.13), (GgmlType::Q4_1, 0.07), (GgmlType::Q8_0, 0.005)] {
            let bytes = quantize(kind, &values).unwrap();
            assert_eq!(bytes.len(), 3 * kind.type_size());
            for (at, want) in values.iter().enumerate() {
                let got = value(kind, &bytes, at);
                assert!((got - want).abs() <= step, "{}: {got} for {want}", kind.name());
            }
        }
        let zeros = quantize(GgmlType::Q4_0, &[0.0; 32]).unwrap();
        assert!((0..32).all(|at| value(GgmlType::Q4_0, &zeros, at) == 0.0));
        assert_eq!(quantize(GgmlType::Q6K, &values), None);
    }
}
