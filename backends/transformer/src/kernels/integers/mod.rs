//! Products with weights that stay integer codes in memory.
//!
//! A panel is 16 outputs wide, as in [`PackedMatrix`](super::PackedMatrix), and holds its codes in 32-bit words, a lane for each output: the word
//! holds the codes of as many consecutive inputs as fit, the first in the lowest bits. A code becomes a weight in registers,
//! `scale * (code - zero)` in `f32`, which is the very number that a dense matrix would hold; and sums are formed in the same order. So a
//! product is, to the last bit, that of the dense matrix.
//!
//! With few rows (generation) the weights never leave the registers: the time is that of reading the codes. With many rows a stretch of a
//! panel is unpacked into the first-level cache and the dense tile does the rest.

mod few_rows;
mod grid_values;
mod unpack;

use llmcb_model_files::packed::IntegerMatrix;

use super::buffer::with_buffer;
use super::matmul::{INNER_BLOCK, PANEL, PanelBlock, multiply_panel_block};
use super::{InstructionSet, instruction_set};
use few_rows::FewRows;
use grid_values::GridValues;
use unpack::unpack_lines;
#[cfg(target_arch = "x86_64")]
use unpack::{unpack_avx2, unpack_avx512};

/// Most rows whose products are formed without unpacking weights into memory.
const FEW_ROWS: usize = 4;

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

#[cfg(test)]
mod tests;
