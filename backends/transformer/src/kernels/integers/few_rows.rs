//! Products of few rows: weights never leave the registers.

use super::{FEW_ROWS, InstructionSet, PANEL, per_word};

/// The product of few rows with one panel or four.
#[derive(Clone, Copy)]
pub(super) struct FewRows<'a> {
    /// `[rows, inputs]`.
    pub(super) x: &'a [f32],
    pub(super) rows: usize,
    pub(super) inputs: usize,
    /// `[panels][lines][16]`.
    pub(super) words: &'a [u32],
    pub(super) lines: usize,
    pub(super) panels: usize,
    /// `[panels]` of `[groups][16]` scales and as many zeros.
    pub(super) tables: &'a [f32],
    pub(super) groups: usize,
    /// Lines of words in a group, where groups begin with a word.
    pub(super) group_lines: usize,
    pub(super) group_of: Option<&'a [u32]>,
}

impl FewRows<'_> {
    /// # Safety
    /// `y + r * y_stride + j` must be writable by this thread alone for each row and each `j` below `outputs` and below the width of the panels;
    /// the processor must have the instruction set.
    pub(super) unsafe fn run<const BITS: u32>(
        self,
        set: InstructionSet,
        y: *mut f32,
        y_stride: usize,
        outputs: usize,
    ) {
        // The kernels below read these with pointers.
        assert!(self.x.len() >= self.rows * self.inputs);
        assert!(self.words.len() >= self.panels * self.lines * PANEL);
        assert!(self.tables.len() >= self.panels * self.groups * 2 * PANEL);
        assert!(self.lines * per_word(BITS) >= self.inputs);
        assert!(self.group_of.is_none_or(|g| g.len() >= self.inputs));
        assert!(self.group_of.is_some() || self.groups * self.group_lines >= self.lines);
        let mut out = [[0f32; PANEL]; 4 * FEW_ROWS];
        // SAFETY: all operands were measured just now, and groups of inputs are below the number of groups (checked when the matrix was
        // packed).
        unsafe {
            match (self.panels, self.rows) {
                (4, 1) => self.tile::<BITS, 1, 4>(set, &mut out),
                (4, 2) => self.tile::<BITS, 2, 4>(set, &mut out),
                (4, 3) => self.tile::<BITS, 3, 4>(set, &mut out),
                (4, _) => self.tile::<BITS, 4, 4>(set, &mut out),
                (_, 1) => self.tile::<BITS, 1, 1>(set, &mut out),
                (_, 2) => self.tile::<BITS, 2, 1>(set, &mut out),
                (_, 3) => self.tile::<BITS, 3, 1>(set, &mut out),
                (_, _) => self.tile::<BITS, 4, 1>(set, &mut out),
            }
        }
        for r in 0..self.rows {
            for p in 0..self.panels {
                let columns = PANEL.min(outputs.saturating_sub(p * PANEL));
                let from = out[r * self.panels + p].as_ptr();
                // SAFETY: Y is the caller's promise for outputs that exist.
                unsafe { std::ptr::copy_nonoverlapping(from, y.add(r * y_stride + p * PANEL), columns) };
            }
        }
    }

    /// # Safety
    /// The operands must have the lengths that `run` asserts, with `ROWS` rows and `PANELS` panels.
    unsafe fn tile<const BITS: u32, const ROWS: usize, const PANELS: usize>(
        self,
        set: InstructionSet,
        out: &mut [[f32; PANEL]],
    ) {
        // SAFETY: passed on; the processor was asked for the instruction set.
        unsafe {
            match (set, self.group_of) {
                (InstructionSet::Baseline, _) => few_portable::<BITS, ROWS, PANELS>(self, out),
                #[cfg(target_arch = "x86_64")]
                (InstructionSet::Avx2, _) => few_avx2::<BITS, ROWS, PANELS>(self, out),
                #[cfg(target_arch = "x86_64")]
                (InstructionSet::Avx512, None) => few_avx512::<BITS, ROWS, PANELS, true>(self, out),
                #[cfg(target_arch = "x86_64")]
                (InstructionSet::Avx512, Some(_)) => few_avx512::<BITS, ROWS, PANELS, false>(self, out),
            }
        }
    }
}

/// The tile in portable Rust.
#[inline(always)]
fn few_portable<const BITS: u32, const ROWS: usize, const PANELS: usize>(
    t: FewRows<'_>,
    out: &mut [[f32; PANEL]],
) {
    let mask = (1u32 << BITS) - 1;
    let each = per_word(BITS);
    for p in 0..PANELS {
        let words = t.words[p * t.lines * PANEL..][..t.lines * PANEL].as_chunks::<PANEL>().0;
        let table = &t.tables[p * 2 * t.groups * PANEL..][..2 * t.groups * PANEL];
        let (scales, zeros) = table.split_at(t.groups * PANEL);
        let (scales, zeros) = (scales.as_chunks::<PANEL>().0, zeros.as_chunks::<PANEL>().0);
        let mut acc = [[0f32; PANEL]; ROWS];
        for (i, line) in words.iter().enumerate() {
            let mut held = *line;
            let mut group = i / t.group_lines;
            for k in i * each..t.inputs.min((i + 1) * each) {
                if let Some(group_of) = t.group_of {
                    group = group_of[k] as usize;
                }
                let mut weight = [0f32; PANEL];
                for j in 0..PANEL {
                    weight[j] = scales[group][j] * ((held[j] & mask) as i32 as f32 - zeros[group][j]);
                    held[j] >>= BITS;
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = t.x[r * t.inputs + k];
                    for j in 0..PANEL {
                        acc[j] = crate::kernels::vector::multiply_add::<{ cfg!(target_arch = "aarch64") }>(
                            x, weight[j], acc[j],
                        );
                    }
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            out[r * PANELS + p] = *acc;
        }
    }
}

/// The tile with AVX2: two registers of 8 columns for each row, one panel after the other.
///
/// # Safety
/// As [`FewRows::tile`]; the processor must have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn few_avx2<const BITS: u32, const ROWS: usize, const PANELS: usize>(
    t: FewRows<'_>,
    out: &mut [[f32; PANEL]],
) {
    use std::arch::x86_64::*;
    let each = per_word(BITS);
    let x = t.x.as_ptr();
    // SAFETY: all addresses are within the operands, whose lengths the caller vouches for.
    unsafe {
        let mask = _mm256_set1_epi32((1 << BITS) - 1);
        let shift = _mm_cvtsi32_si128(BITS as i32);
        for p in 0..PANELS {
            let words = t.words.as_ptr().add(p * t.lines * PANEL);
            let scales = t.tables.as_ptr().add(p * 2 * t.groups * PANEL);
            let zeros = scales.add(t.groups * PANEL);
            let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
            for i in 0..t.lines {
                let line = words.add(i * PANEL).cast::<__m256i>();
                let mut held = [_mm256_loadu_si256(line), _mm256_loadu_si256(line.add(1))];
                let mut group = i / t.group_lines;
                for k in i * each..t.inputs.min((i + 1) * each) {
                    if let Some(group_of) = t.group_of {
                        group = *group_of.get_unchecked(k) as usize;
                    }
                    for half in 0..2 {
                        let at = group * PANEL + half * 8;
                        let code = _mm256_cvtepi32_ps(_mm256_and_si256(held[half], mask));
                        held[half] = _mm256_srl_epi32(held[half], shift);
                        let offset = _mm256_sub_ps(code, _mm256_loadu_ps(zeros.add(at)));
                        let weight = _mm256_mul_ps(_mm256_loadu_ps(scales.add(at)), offset);
                        for (r, acc) in acc.iter_mut().enumerate() {
                            let x = _mm256_broadcast_ss(&*x.add(r * t.inputs + k));
                            acc[half] = _mm256_fmadd_ps(x, weight, acc[half]);
                        }
                    }
                }
            }
            for (r, acc) in acc.iter().enumerate() {
                let to = out[r * PANELS + p].as_mut_ptr();
                _mm256_storeu_ps(to, acc[0]);
                _mm256_storeu_ps(to.add(8), acc[1]);
            }
        }
    }
}

/// The tile with AVX-512: one register for each row and panel. `BY_WORD`: groups begin with a word, so scales and zeros are loaded once for
/// each group; else they are looked up for each input.
///
/// # Safety
/// As [`FewRows::tile`]; the processor must have AVX-512F; with `BY_WORD`, `group_of` must be absent, else present.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn few_avx512<const BITS: u32, const ROWS: usize, const PANELS: usize, const BY_WORD: bool>(
    t: FewRows<'_>,
    out: &mut [[f32; PANEL]],
) {
    use std::arch::x86_64::*;
    let each = per_word(BITS);
    let x = t.x.as_ptr();
    let words = t.words.as_ptr();
    let tables = t.tables.as_ptr();
    // SAFETY: all addresses are within the operands, whose lengths the caller vouches for.
    unsafe {
        let mask = _mm512_set1_epi32((1 << BITS) - 1);
        let mut acc = [[_mm512_setzero_ps(); PANELS]; ROWS];
        let mut scale = [_mm512_setzero_ps(); PANELS];
        let mut zero = [_mm512_setzero_ps(); PANELS];
        let load = |group: usize, scale: &mut [__m512; PANELS], zero: &mut [__m512; PANELS]| {
            for p in 0..PANELS {
                let at = tables.add((p * 2 * t.groups + group) * PANEL);
                scale[p] = _mm512_loadu_ps(at);
                zero[p] = _mm512_loadu_ps(at.add(t.groups * PANEL));
            }
        };
        let mut i = 0;
        let mut group = 0;
        while i < t.lines {
            let end = if BY_WORD { t.lines.min(i + t.group_lines) } else { t.lines };
            if BY_WORD {
                load(group, &mut scale, &mut zero);
                group += 1;
            }
            while i < end {
                let mut held = [_mm512_setzero_si512(); PANELS];
                for (p, held) in held.iter_mut().enumerate() {
                    *held = _mm512_loadu_si512(words.add((p * t.lines + i) * PANEL).cast());
                }
                let mut step = |k: usize| {
                    if !BY_WORD && let Some(group_of) = t.group_of {
                        load(*group_of.get_unchecked(k) as usize, &mut scale, &mut zero);
                    }
                    for p in 0..PANELS {
                        let code = _mm512_cvtepi32_ps(_mm512_and_si512(held[p], mask));
                        held[p] = _mm512_srli_epi32::<BITS>(held[p]);
                        let weight = _mm512_mul_ps(scale[p], _mm512_sub_ps(code, zero[p]));
                        for (r, acc) in acc.iter_mut().enumerate() {
                            let x = _mm512_set1_ps(*x.add(r * t.inputs + k));
                            acc[p] = _mm512_fmadd_ps(x, weight, acc[p]);
                        }
                    }
                };
                let k = i * each;
                if k + each <= t.inputs {
                    for s in 0..each {
                        step(k + s);
                    }
                } else {
                    for k in k..t.inputs {
                        step(k);
                    }
                }
                i += 1;
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (p, acc) in acc.iter().enumerate() {
                _mm512_storeu_ps(out[r * PANELS + p].as_mut_ptr(), *acc);
            }
        }
    }
}
