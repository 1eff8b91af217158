//! Weights that codes stand for, unpacked into memory.

use super::{PANEL, per_word};

#[inline(always)]
pub(super) fn unpack_lines<const BITS: u32>(
    words: &[u32],
    weights: &mut [f32],
    table: &[f32],
    group_of: Option<&[u32]>,
    k0: usize,
    size: usize,
) {
    let each = per_word(BITS);
    let (scales, zeros) = table.split_at(table.len() / 2);
    let (scales, zeros) = (scales.as_chunks::<PANEL>().0, zeros.as_chunks::<PANEL>().0);
    let mask = (1u32 << BITS) - 1;
    let (weights, _) = weights.as_chunks_mut::<PANEL>();
    for (i, (steps, line)) in weights.chunks_mut(each).zip(words.as_chunks::<PANEL>().0).enumerate() {
        let mut held = *line;
        let mut group = (k0 + i * each) / size;
        for (t, out) in steps.iter_mut().enumerate() {
            if let Some(group_of) = group_of {
                group = group_of[i * each + t] as usize;
            }
            let (scale, zero) = (&scales[group], &zeros[group]);
            for j in 0..PANEL {
                out[j] = scale[j] * ((held[j] & mask) as i32 as f32 - zero[j]);
                held[j] >>= BITS;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(super) fn unpack_avx2<const BITS: u32>(
    words: &[u32],
    weights: &mut [f32],
    table: &[f32],
    group_of: Option<&[u32]>,
    k0: usize,
    size: usize,
) {
    unpack_lines::<BITS>(words, weights, table, group_of, k0, size);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
pub(super) fn unpack_avx512<const BITS: u32>(
    words: &[u32],
    weights: &mut [f32],
    table: &[f32],
    group_of: Option<&[u32]>,
    k0: usize,
    size: usize,
) {
    unpack_lines::<BITS>(words, weights, table, group_of, k0, size);
}
