//! Products with weights that stay integer codes in memory.
//!
//! A panel is 16 outputs wide, as in [`PackedMatrix`](super::PackedMatrix), and holds its codes in 32-bit words, a lane for each output: the word
//! holds the codes of as many consecutive inputs as fit, the first in the lowest bits. A code becomes a weight in registers,
//! `scale * (code - zero)` in `f32`, which is the very number that a dense matrix would hold; and sums are formed in the same order. So a
//! product is, to the last bit, that of the dense matrix.
//!
//! With few rows (generation) the weights never leave the registers: the time is that of reading the codes. With many rows a stretch of a
//! panel is unpacked into the first-level cache and the dense tile does the rest.

use std::cell::Cell;

use llmcb_model_files::packed::IntegerMatrix;

use super::matmul::{INNER_BLOCK, PANEL, PanelBlock, multiply_panel_block};
use super::{InstructionSet, instruction_set};

/// Most rows whose products are formed without unpacking weights into memory.
const FEW_ROWS: usize = 4;

/// Numbers that each group of each output has, in as little memory as holds them exactly: `[panels][groups][16]`.
#[derive(Debug, Clone, PartialEq)]
enum GridValues {
    /// The same for all.
    Same(f32),
    Bytes(Vec<u8>),
    Half(Vec<half::f16>),
    Single(Vec<f32>),
}

impl GridValues {
    /// From `[rows, groups]`, row-major.
    fn pack(values: &[f32], rows: usize, groups: usize, may_be_same: bool) -> Self {
        if may_be_same
            && let Some(&first) = values.first()
            && values.iter().all(|v| v.to_bits() == first.to_bits())
        {
            return GridValues::Same(first);
        }
        // Outputs that fill the last panel have the scale 0, so their weights are 0.
        let mut all = vec![0f32; rows.div_ceil(PANEL) * groups * PANEL];
        for row in 0..rows {
            for group in 0..groups {
                all[(row / PANEL * groups + group) * PANEL + row % PANEL] = values[row * groups + group];
            }
        }
        if all.iter().all(|v| (*v as u8) as f32 == *v && v.is_sign_positive()) {
            return GridValues::Bytes(all.into_iter().map(|v| v as u8).collect());
        }
        let halves: Vec<half::f16> = all.iter().map(|v| half::f16::from_f32(*v)).collect();
        if halves.iter().zip(&all).all(|(h, v)| h.to_f32().to_bits() == v.to_bits()) {
            return GridValues::Half(halves);
        }
        GridValues::Single(all)
    }

    /// The numbers of a panel, `[groups][16]`.
    fn expand(&self, panel: usize, out: &mut [f32]) {
        let at = panel * out.len()..(panel + 1) * out.len();
        match self {
            GridValues::Same(value) => out.fill(*value),
            GridValues::Bytes(all) => {
                for (out, v) in out.iter_mut().zip(&all[at]) {
                    *out = f32::from(*v);
                }
            }
            GridValues::Half(all) => {
                use half::slice::HalfFloatSliceExt;
                all[at].convert_to_f32_slice(out);
            }
            GridValues::Single(all) => out.copy_from_slice(&all[at]),
        }
    }

    fn at(&self, row: usize, group: usize, groups: usize) -> f32 {
        let at = (row / PANEL * groups + group) * PANEL + row % PANEL;
        match self {
            GridValues::Same(value) => *value,
            GridValues::Bytes(all) => f32::from(all[at]),
            GridValues::Half(all) => all[at].to_f32(),
            GridValues::Single(all) => all[at],
        }
    }

    fn bytes(&self) -> usize {
        match self {
            GridValues::Same(_) => 0,
            GridValues::Bytes(all) => all.len(),
            GridValues::Half(all) => 2 * all.len(),
            GridValues::Single(all) => 4 * all.len(),
        }
    }
}

/// A weight matrix `[out, in]` of integer codes on grids, packed for products `Y = X W^T`.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedIntegers {
    outputs: usize,
    inputs: usize,
    bits: u32,
    group_size: Option<usize>,
    symmetric: bool,
    groups: usize,
    /// `[panels][words][16]`.
    words: Vec<u32>,
    scales: GridValues,
    zeros: GridValues,
    /// Group of each input, where groups do not begin with a word.
    group_of: Option<Vec<u32>>,
    /// Whether groups are out of the order of the inputs.
    shuffled: bool,
}

thread_local! {
    static BUFFER: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with `len` values of any content, kept by the thread for the next time.
fn with_buffer<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = BUFFER.take();
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    let result = f(&mut buffer[..len]);
    BUFFER.set(buffer);
    result
}

/// Codes in a word.
const fn per_word(bits: u32) -> usize {
    (32 / bits) as usize
}

impl PackedIntegers {
    /// Packs a matrix.
    ///
    /// # Errors
    /// If its parts do not fit together.
    pub fn pack(matrix: &IntegerMatrix) -> crate::Result<Self> {
        matrix.check().map_err(|e| crate::Error::argument("weight", e.to_string()))?;
        let IntegerMatrix { rows: outputs, columns: inputs, bits, group_size, symmetric, .. } = *matrix;
        let groups = matrix.groups();
        let each = per_word(bits);
        let lines = inputs.div_ceil(each);
        let mut words = vec![0u32; outputs.div_ceil(PANEL) * lines * PANEL];
        if inputs > 0 {
            for (row, codes) in matrix.codes.chunks_exact(inputs).enumerate() {
                let panel = &mut words[row / PANEL * lines * PANEL..][..lines * PANEL];
                for (line, codes) in panel.as_chunks_mut::<PANEL>().0.iter_mut().zip(codes.chunks(each)) {
                    let word = &mut line[row % PANEL];
                    for (i, code) in codes.iter().enumerate() {
                        *word |= u32::from(*code) << (i as u32 * bits);
                    }
                }
            }
        }
        let by_word = matrix.group_index.is_none() && group_size.is_none_or(|size| size % each == 0);
        Ok(Self {
            outputs,
            inputs,
            bits,
            group_size,
            symmetric,
            groups,
            words,
            scales: GridValues::pack(&matrix.scales, outputs, groups, false),
            zeros: GridValues::pack(&matrix.zeros, outputs, groups, true),
            group_of: (!by_word).then(|| matrix.group_of_columns()),
            shuffled: matrix.group_index.is_some(),
        })
    }

    /// The matrix again, code for code.
    pub fn to_matrix(&self) -> IntegerMatrix {
        let (each, mask) = (per_word(self.bits), u8::MAX >> (8 - self.bits));
        let lines = self.inputs.div_ceil(each);
        let mut codes = Vec::with_capacity(self.outputs * self.inputs);
        let (mut scales, mut zeros) = (Vec::new(), Vec::new());
        for row in 0..self.outputs {
            let panel = &self.words[row / PANEL * lines * PANEL..];
            codes.extend((0..self.inputs).map(|k| {
                let word = panel[k / each * PANEL + row % PANEL];
                (word >> (k % each * self.bits as usize)) as u8 & mask
            }));
            for group in 0..self.groups {
                scales.push(self.scales.at(row, group, self.groups));
                zeros.push(self.zeros.at(row, group, self.groups));
            }
        }
        IntegerMatrix {
            rows: self.outputs,
            columns: self.inputs,
            bits: self.bits,
            group_size: self.group_size,
            symmetric: self.symmetric,
            codes,
            scales,
            zeros,
            group_index: self.group_of.clone().filter(|_| self.shuffled),
        }
    }

    /// The weights that the codes stand for, row-major `[outputs, inputs]`.
    pub fn unpack(&self) -> Vec<f32> {
        self.to_matrix().dequantize()
    }

    /// Number of outputs (rows of the weight).
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Number of inputs (columns of the weight).
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bits per code.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Number of panels.
    pub fn panel_count(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// Bytes of memory that codes and grids take.
    pub fn bytes(&self) -> usize {
        self.words.len() * 4
            + self.scales.bytes()
            + self.zeros.bytes()
            + self.group_of.as_ref().map_or(0, |g| 4 * g.len())
    }

    /// As [`PackedMatrix::multiply_panels`](super::PackedMatrix::multiply_panels).
    ///
    /// # Panics
    /// If an operand is too short.
    pub fn multiply_panels(
        &self,
        x: &[f32],
        rows: usize,
        first: usize,
        count: usize,
        y: &mut [f32],
        y_stride: usize,
    ) {
        if rows == 0 || count == 0 {
            return;
        }
        assert!(first + count <= self.panel_count(), "panels {first}..{}", first + count);
        let width = (self.outputs - first * PANEL).min(count * PANEL);
        assert!(x.len() >= rows * self.inputs, "X is too short");
        assert!(y_stride >= width && y.len() >= (rows - 1) * y_stride + width, "Y is too short");
        // SAFETY: X, Y and the panel range were just measured, and Y is borrowed for writing.
        unsafe { self.multiply_raw(instruction_set(), x, rows, first, count, y.as_mut_ptr(), y_stride) }
    }

    /// As [`PackedMatrix::multiply`](super::PackedMatrix::multiply).
    ///
    /// # Panics
    /// If an operand is too short.
    pub fn multiply(&self, x: &[f32], rows: usize, y: &mut [f32]) {
        self.multiply_panels(x, rows, 0, self.panel_count(), y, self.outputs);
    }

    /// As [`PackedMatrix::multiply_parallel`](super::PackedMatrix::multiply_parallel).
    ///
    /// # Panics
    /// If an operand is too short.
    pub fn multiply_parallel(&self, x: &[f32], rows: usize, y: &mut [f32]) {
        use rayon::prelude::*;
        if rows == 0 || self.outputs == 0 {
            return;
        }
        assert!(x.len() >= rows * self.inputs, "X is too short");
        assert!(y.len() >= rows * self.outputs, "Y is too short");
        struct Output(*mut f32);
        // SAFETY: the pointer is only used for disjoint columns, see below.
        unsafe impl Sync for Output {}
        let output = Output(y.as_mut_ptr());
        let output = &output;
        let threads = rayon::current_num_threads();
        // Whole sets of the four panels that are walked together.
        let piece = self.panel_count().div_ceil(threads * 4).max(4).next_multiple_of(4);
        (0..self.panel_count().div_ceil(piece)).into_par_iter().for_each(|i| {
            let first = i * piece;
            let count = piece.min(self.panel_count() - first);
            // SAFETY: X and Y were measured above. Task `i` writes the columns of its own panels only, so tasks never
            // meet, and `y` is borrowed for writing until all are done.
            unsafe {
                let y = output.0.add(first * PANEL);
                self.multiply_raw(instruction_set(), x, rows, first, count, y, self.outputs);
            }
        });
    }

    /// # Safety
    /// `x` must have `rows * inputs` elements; the panels must exist; `y + r * y_stride + j` must be writable for each row and each output
    /// `j` of the panels (outputs, not padding), by this thread alone; the processor must have the instruction set.
    #[allow(clippy::too_many_arguments)]
    unsafe fn multiply_raw(
        &self,
        set: InstructionSet,
        x: &[f32],
        rows: usize,
        first: usize,
        count: usize,
        y: *mut f32,
        y_stride: usize,
    ) {
        // SAFETY: passed on from the caller.
        unsafe {
            match self.bits {
                1 => self.multiply_bits::<1>(set, x, rows, first, count, y, y_stride),
                2 => self.multiply_bits::<2>(set, x, rows, first, count, y, y_stride),
                3 => self.multiply_bits::<3>(set, x, rows, first, count, y, y_stride),
                4 => self.multiply_bits::<4>(set, x, rows, first, count, y, y_stride),
                5 => self.multiply_bits::<5>(set, x, rows, first, count, y, y_stride),
                6 => self.multiply_bits::<6>(set, x, rows, first, count, y, y_stride),
                7 => self.multiply_bits::<7>(set, x, rows, first, count, y, y_stride),
                _ => self.multiply_bits::<8>(set, x, rows, first, count, y, y_stride),
            }
        }
    }

    /// # Safety
    /// As [`multiply_raw`](Self::multiply_raw); `BITS` must be the matrix's.
    #[allow(clippy::too_many_arguments)]
    unsafe fn multiply_bits<const BITS: u32>(
        &self,
        set: InstructionSet,
        x: &[f32],
        rows: usize,
        first: usize,
        count: usize,
        y: *mut f32,
        y_stride: usize,
    ) {
        let together = if rows > FEW_ROWS { 1 } else { 4 };
        let table = self.groups * PANEL;
        let block = INNER_BLOCK / per_word(BITS) * per_word(BITS);
        with_buffer(2 * table * together + block * PANEL, |buffer| {
            let (tables, weights) = buffer.split_at_mut(2 * table * together);
            if rows <= FEW_ROWS {
                let mut p = first;
                while p < first + count {
                    let panels = if first + count - p >= together { together } else { 1 };
                    for (i, table) in tables.chunks_exact_mut(2 * table).take(panels).enumerate() {
                        self.fill_table(p + i, table);
                    }
                    let few = self.few(x, rows, p, panels, tables);
                    // SAFETY: `few` points at whole operands of the panels; Y is the caller's promise.
                    unsafe {
                        few.run::<BITS>(set, y.add((p - first) * PANEL), y_stride, self.outputs - p * PANEL)
                    };
                    p += panels;
                }
                return;
            }
            let mut k0 = 0;
            while k0 < self.inputs {
                let steps = block.min(self.inputs - k0);
                for p in first..first + count {
                    self.fill_table(p, tables);
                    self.unpack_block::<BITS>(set, p, k0, &mut weights[..steps * PANEL], tables);
                    let block = PanelBlock {
                        rows,
                        steps,
                        x: x.as_ptr().wrapping_add(k0),
                        x_stride: self.inputs,
                        panel: weights.as_ptr(),
                        y: y.wrapping_add((p - first) * PANEL),
                        y_stride,
                        columns: PANEL.min(self.outputs - p * PANEL),
                        proceed: k0 > 0,
                    };
                    // SAFETY: X and Y are the caller's promise; the panel is `weights`, filled just now.
                    unsafe { multiply_panel_block(set, block) };
                }
                k0 += steps;
            }
        });
        if self.inputs == 0 {
            for r in 0..rows {
                for j in 0..(self.outputs - first * PANEL).min(count * PANEL) {
                    // SAFETY: Y is the caller's promise.
                    unsafe { *y.add(r * y_stride + j) = 0.0 };
                }
            }
        }
    }

    /// Scales, then zeros, of a panel.
    fn fill_table(&self, panel: usize, table: &mut [f32]) {
        let (scales, zeros) = table.split_at_mut(self.groups * PANEL);
        self.scales.expand(panel, scales);
        self.zeros.expand(panel, zeros);
    }

    fn lines(&self) -> usize {
        self.inputs.div_ceil(per_word(self.bits))
    }

    fn few<'a>(
        &'a self,
        x: &'a [f32],
        rows: usize,
        panel: usize,
        panels: usize,
        tables: &'a [f32],
    ) -> FewRows<'a> {
        let lines = self.lines();
        FewRows {
            x,
            rows,
            inputs: self.inputs,
            words: &self.words[panel * lines * PANEL..][..panels * lines * PANEL],
            lines,
            panels,
            tables,
            groups: self.groups,
            group_lines: self.group_size.map_or(lines, |size| size / per_word(self.bits)).max(1),
            group_of: self.group_of.as_deref(),
        }
    }

    /// Unpacks inputs `k0 ..` of a panel, `k0` being the first of a word, into `weights`, 16 for each input.
    fn unpack_block<const BITS: u32>(
        &self,
        set: InstructionSet,
        panel: usize,
        k0: usize,
        weights: &mut [f32],
        table: &[f32],
    ) {
        let each = per_word(BITS);
        let lines = self.lines();
        let words = &self.words[(panel * lines + k0 / each) * PANEL..(panel + 1) * lines * PANEL];
        let group_of = self.group_of.as_deref().map(|g| &g[k0..]);
        let size = self.group_size.unwrap_or(self.inputs).max(1);
        match set {
            InstructionSet::Baseline => unpack_lines::<BITS>(words, weights, table, group_of, k0, size),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor was asked for these instructions.
            InstructionSet::Avx2 => unsafe { unpack_avx2::<BITS>(words, weights, table, group_of, k0, size) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor was asked for these instructions.
            InstructionSet::Avx512 => unsafe {
                unpack_avx512::<BITS>(words, weights, table, group_of, k0, size)
            },
        }
    }
}

#[inline(always)]
fn unpack_lines<const BITS: u32>(
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
fn unpack_avx2<const BITS: u32>(
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
fn unpack_avx512<const BITS: u32>(
    words: &[u32],
    weights: &mut [f32],
    table: &[f32],
    group_of: Option<&[u32]>,
    k0: usize,
    size: usize,
) {
    unpack_lines::<BITS>(words, weights, table, group_of, k0, size);
}

/// The product of few rows with one panel or four.
#[derive(Clone, Copy)]
struct FewRows<'a> {
    /// `[rows, inputs]`.
    x: &'a [f32],
    rows: usize,
    inputs: usize,
    /// `[panels][lines][16]`.
    words: &'a [u32],
    lines: usize,
    panels: usize,
    /// `[panels]` of `[groups][16]` scales and as many zeros.
    tables: &'a [f32],
    groups: usize,
    /// Lines of words in a group, where groups begin with a word.
    group_lines: usize,
    group_of: Option<&'a [u32]>,
}

impl FewRows<'_> {
    /// # Safety
    /// `y + r * y_stride + j` must be writable by this thread alone for each row and each `j` below `outputs` and below the width of the panels;
    /// the processor must have the instruction set.
    unsafe fn run<const BITS: u32>(self, set: InstructionSet, y: *mut f32, y_stride: usize, outputs: usize) {
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
                        acc[j] = super::vector::multiply_add::<{ cfg!(target_arch = "aarch64") }>(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::PackedMatrix;
    use proptest::prelude::*;

    fn numbers(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
            })
            .collect()
    }

    #[derive(Debug, Clone, Copy)]
    struct Shape {
        outputs: usize,
        inputs: usize,
        bits: u32,
        group_size: Option<usize>,
        shuffled: bool,
        zeros: u8,
        half: bool,
    }

    fn matrix(s: Shape, seed: u64) -> IntegerMatrix {
        let groups = s.group_size.map_or(1, |g| s.inputs.div_ceil(g));
        let noise = |len: usize, seed: u64| numbers(len, seed).into_iter().map(|v| v + 0.5);
        let top = f32::from(u8::MAX >> (8 - s.bits));
        let code = |v: f32| (v * (top + 0.999)) as u8;
        let middle = f32::from(1u8 << (s.bits - 1));
        let mut index: Vec<u32> =
            (0..s.inputs).map(|c| (c / s.group_size.unwrap_or(s.inputs).max(1)) as u32).collect();
        for i in (1..s.inputs).rev() {
            index.swap(i, (i * 7919 + seed as usize) % (i + 1));
        }
        IntegerMatrix {
            rows: s.outputs,
            columns: s.inputs,
            bits: s.bits,
            group_size: s.group_size,
            symmetric: s.zeros == 0,
            codes: noise(s.outputs * s.inputs, seed).map(code).collect(),
            scales: noise(s.outputs * groups, seed + 1)
                .map(|v| if s.half { half::f16::from_f32(v / 8.0).to_f32() } else { v / 8.0 })
                .collect(),
            zeros: noise(s.outputs * groups, seed + 2)
                .map(|v| match s.zeros {
                    0 => middle,
                    1 => f32::from(code(v)),
                    _ => v * top,
                })
                .collect(),
            group_index: s.shuffled.then_some(index),
        }
        .without_plain_index()
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        let group = prop::option::of(prop::sample::select(vec![1usize, 5, 8, 16, 32, 64]));
        (1usize..150, 1usize..150, 1u32..=8, group, any::<bool>(), 0u8..3, any::<bool>()).prop_map(
            |(outputs, inputs, bits, group_size, shuffled, zeros, half)| Shape {
                outputs,
                inputs,
                bits,
                group_size,
                shuffled,
                zeros,
                half,
            },
        )
    }

    fn instruction_sets() -> Vec<InstructionSet> {
        let mut sets = vec![InstructionSet::Baseline];
        #[cfg(target_arch = "x86_64")]
        {
            if instruction_set() != InstructionSet::Baseline {
                sets.push(InstructionSet::Avx2);
            }
            if instruction_set() == InstructionSet::Avx512 {
                sets.push(InstructionSet::Avx512);
            }
        }
        sets
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn products_are_those_of_the_dense_matrix_to_the_last_bit(
            shape in shapes(), rows in 1usize..9, seed in 0u64..9999,
        ) {
            let matrix = matrix(shape, seed);
            let packed = PackedIntegers::pack(&matrix).unwrap();
            prop_assert_eq!(packed.to_matrix(), matrix.clone());
            let dense = PackedMatrix::pack(shape.outputs, shape.inputs, &matrix.dequantize());
            let x = numbers(rows * shape.inputs, seed + 3);
            let mut want = vec![f32::NAN; rows * shape.outputs];
            dense.multiply(&x, rows, &mut want);
            let mut got = vec![f32::NAN; rows * shape.outputs];
            packed.multiply(&x, rows, &mut got);
            prop_assert_eq!(&got, &want);
            got.fill(f32::NAN);
            packed.multiply_parallel(&x, rows, &mut got);
            prop_assert_eq!(&got, &want);
            for r in 0..rows {
                let mut row = vec![f32::NAN; shape.outputs];
                packed.multiply(&x[r * shape.inputs..][..shape.inputs], 1, &mut row);
                prop_assert_eq!(&row[..], &want[r * shape.outputs..][..shape.outputs]);
            }
        }

        #[test]
        fn every_instruction_set_agrees(shape in shapes(), rows in 1usize..7, seed in 0u64..9999) {
            let matrix = matrix(shape, seed);
            let packed = PackedIntegers::pack(&matrix).unwrap();
            let x = numbers(rows * shape.inputs, seed + 3);
            let weights = matrix.dequantize();
            for set in instruction_sets() {
                let mut y = vec![f32::NAN; rows * shape.outputs];
                // SAFETY: X and Y are whole, the panels are all there are, and the sets are those that the processor has.
                unsafe {
                    packed.multiply_raw(set, &x, rows, 0, packed.panel_count(), y.as_mut_ptr(), shape.outputs);
                }
                for r in 0..rows {
                    for o in 0..shape.outputs {
                        let want: f64 = (0..shape.inputs)
                            .map(|k| f64::from(x[r * shape.inputs + k]) * f64::from(weights[o * shape.inputs + k]))
                            .sum();
                        let got = f64::from(y[r * shape.outputs + o]);
                        prop_assert!((got - want).abs() < 2e-3, "{:?}: {} is not {}", set, got, want);
                    }
                }
            }
        }
    }

    #[test]
    fn more_inputs_than_a_block_agree_with_the_dense_matrix() {
        for bits in [2, 3, 4, 8] {
            let shape = Shape {
                outputs: 40,
                inputs: 2 * INNER_BLOCK + 32,
                bits,
                group_size: Some(32),
                shuffled: bits == 3,
                zeros: 1,
                half: true,
            };
            let matrix = matrix(shape, 7);
            let packed = PackedIntegers::pack(&matrix).unwrap();
            let x = numbers(13 * shape.inputs, 9);
            let (mut got, mut want) = (vec![f32::NAN; 13 * 40], vec![f32::NAN; 13 * 40]);
            packed.multiply(&x, 13, &mut got);
            PackedMatrix::pack(40, shape.inputs, &matrix.dequantize()).multiply(&x, 13, &mut want);
            assert_eq!(got, want, "{bits} bits");
        }
    }

    #[test]
    fn memory_falls_with_the_bits() {
        let of = |bits| {
            let shape = Shape {
                outputs: 128,
                inputs: 512,
                bits,
                group_size: Some(128),
                shuffled: false,
                zeros: 1,
                half: true,
            };
            PackedIntegers::pack(&matrix(shape, 1)).unwrap().bytes() as f64 * 8.0 / (128.0 * 512.0)
        };
        for (bits, most) in [(2, 2.2), (3, 3.7), (4, 4.2), (8, 8.2)] {
            assert!(of(bits) <= most, "{} bits for each of {bits}", of(bits));
        }
    }

    #[test]
    fn a_matrix_that_does_not_fit_together_is_refused() {
        let shape =
            Shape { outputs: 4, inputs: 8, bits: 4, group_size: None, shuffled: false, zeros: 0, half: true };
        let mut bad = matrix(shape, 1);
        bad.codes[0] = 16;
        assert!(PackedIntegers::pack(&bad).unwrap_err().to_string().contains("code 16"));
    }
}
