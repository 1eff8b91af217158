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

use super::InstructionSet;
use super::buffer::with_buffer;
use super::matmul::{INNER_BLOCK, PANEL};
use super::panels::{Panels, Product};
use few_rows::FewRows;
use grid_values::GridValues;
use unpack::unpack_lines;
#[cfg(target_arch = "x86_64")]
use unpack::{unpack_avx2, unpack_avx512};

/// Most rows whose products are formed without unpacking weights into memory.
const FEW_ROWS: usize = 4;
/// Panels that are walked together where rows are few.
const TOGETHER: usize = 4;

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

    /// Bits per code.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Bytes of memory that codes and grids take.
    pub fn bytes(&self) -> usize {
        self.words.len() * 4
            + self.scales.bytes()
            + self.zeros.bytes()
            + self.group_of.as_ref().map_or(0, |g| 4 * g.len())
    }

    /// # Safety
    /// As [`Product`] says; `BITS` must be the matrix's.
    unsafe fn multiply_bits<const BITS: u32>(&self, product: Product<'_>) {
        let Product { set, x, rows, first, count, y, y_stride } = product;
        // Without inputs there is nothing to look up.
        let few_rows = rows <= FEW_ROWS && self.inputs > 0;
        let together = if few_rows { TOGETHER } else { 1 };
        let table = self.groups * PANEL;
        let block = INNER_BLOCK / per_word(BITS) * per_word(BITS);
        with_buffer(2 * table * together + block * PANEL, |buffer| {
            let (tables, weights) = buffer.split_at_mut(2 * table * together);
            if !few_rows {
                let stretch = |p: usize, k0: usize, steps: usize| {
                    let weights = &mut weights[..steps * PANEL];
                    self.fill_table(p, tables);
                    self.unpack_block::<BITS>(set, p, k0, weights, tables);
                    weights.as_ptr()
                };
                // SAFETY: the caller's promise; the panel is `weights`, filled just before.
                unsafe { product.by_stretches(self, block, stretch) };
                return;
            }
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
        });
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

impl Panels for PackedIntegers {
    fn outputs(&self) -> usize {
        self.outputs
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    /// What the codes stand for.
    fn unpack(&self) -> Vec<f32> {
        self.to_matrix().dequantize()
    }

    fn together(&self) -> usize {
        TOGETHER
    }

    unsafe fn multiply_unchecked(&self, product: Product<'_>) {
        // SAFETY: passed on from the caller.
        unsafe {
            match self.bits {
                1 => self.multiply_bits::<1>(product),
                2 => self.multiply_bits::<2>(product),
                3 => self.multiply_bits::<3>(product),
                4 => self.multiply_bits::<4>(product),
                5 => self.multiply_bits::<5>(product),
                6 => self.multiply_bits::<6>(product),
                7 => self.multiply_bits::<7>(product),
                _ => self.multiply_bits::<8>(product),
            }
        }
    }
}

#[cfg(test)]
mod tests;
