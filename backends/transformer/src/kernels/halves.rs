//! Products with weights of 16 bits.
//!
//! Panels are those of [`PackedMatrix`](super::PackedMatrix), each number in half the memory. A stretch of a panel is widened into the
//! first-level cache, exactly, and the dense tile does the rest: a product is, to the last bit, that of the dense matrix of the same
//! numbers. With few rows the time is that of reading the weights, so half of it is gone.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use super::buffer::with_buffer;
use super::elementwise::{round_to_bf16, widen_bf16};
use super::matmul::{INNER_BLOCK, PANEL, PackedMatrix};
use super::panels::{Panels, Product, unpack_rows};

/// A format of 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfFormat {
    /// IEEE half precision: 11 bits of significand, values up to 65504.
    F16,
    /// bfloat16: 8 bits of significand, the range of single precision.
    BF16,
}

impl HalfFormat {
    /// The nearest number of the format, halves to even; beyond the range of half precision, its greatest.
    pub fn round(self, value: f32) -> f32 {
        self.number(self.bits(value))
    }

    /// Rounds values in place.
    pub fn round_all(self, values: &mut [f32]) {
        match self {
            HalfFormat::BF16 => round_to_bf16(values),
            HalfFormat::F16 => {
                const PIECE: usize = 512;
                let mut narrow = [f16::ZERO; PIECE];
                for piece in values.chunks_mut(PIECE) {
                    piece.iter_mut().for_each(|v| *v = within_f16(*v));
                    let narrow = &mut narrow[..piece.len()];
                    narrow.convert_from_f32_slice(piece);
                    narrow.convert_to_f32_slice(piece);
                }
            }
        }
    }
}

/// The value, or the greatest of half precision where it is beyond.
fn within_f16(value: f32) -> f32 {
    value.clamp(-65_504.0, 65_504.0)
}

/// A weight matrix `[out, in]` of 16-bit numbers, packed for products `Y = X W^T`.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedHalves {
    format: HalfFormat,
    outputs: usize,
    inputs: usize,
    /// `[panels][inputs][16]`.
    panels: Vec<u16>,
}

impl PackedHalves {
    /// Packs a row-major `[outputs, inputs]` matrix; numbers are rounded to the format.
    ///
    /// # Panics
    /// If `weight` has another length than `outputs * inputs`.
    pub fn pack(format: HalfFormat, outputs: usize, inputs: usize, weight: &[f32]) -> Self {
        assert_eq!(weight.len(), outputs * inputs, "a weight of {outputs} x {inputs}");
        let size = PANEL * inputs;
        let mut panels = vec![0u16; outputs.div_ceil(PANEL) * size];
        if size > 0 {
            // Panel by panel, so that the dense matrix is never there twice.
            for (rows, panel) in weight.chunks(size).zip(panels.chunks_exact_mut(size)) {
                let dense = PackedMatrix::pack(rows.len() / inputs, inputs, rows);
                for (bits, value) in panel.iter_mut().zip(dense.panels()) {
                    *bits = format.bits(*value);
                }
            }
        }
        Self { format, outputs, inputs, panels }
    }

    /// Copies row `output` into `row`, which is `[inputs]`.
    ///
    /// # Panics
    /// If `output` is not below the number of outputs or `row` has another length than the inputs.
    pub fn copy_row(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs && row.len() == self.inputs);
        let panel = &self.panels[output / PANEL * PANEL * self.inputs..][..PANEL * self.inputs];
        for (v, step) in row.iter_mut().zip(panel.as_chunks::<PANEL>().0) {
            *v = self.format.number(step[output % PANEL]);
        }
    }

    /// The format of its numbers.
    pub fn format(&self) -> HalfFormat {
        self.format
    }

    /// How many of its numbers are not zero.
    pub fn nonzeros(&self) -> usize {
        // All but the sign; what fills up the last panel is zero.
        self.panels.iter().filter(|bits| **bits & 0x7fff != 0).count()
    }
}

impl Panels for PackedHalves {
    fn outputs(&self) -> usize {
        self.outputs
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    fn unpack(&self) -> Vec<f32> {
        unpack_rows(self, |output, row| self.copy_row(output, row))
    }

    unsafe fn multiply_unchecked(&self, product: Product<'_>) {
        with_buffer(INNER_BLOCK * PANEL, |wide| {
            let stretch = |p: usize, k0: usize, steps: usize| {
                let wide = &mut wide[..steps * PANEL];
                self.format.widen(&self.panels[(p * self.inputs + k0) * PANEL..][..steps * PANEL], wide);
                wide.as_ptr()
            };
            // SAFETY: the caller's promise; the weights are `wide`, filled just before.
            unsafe { product.by_stretches(self, INNER_BLOCK, stretch) };
        });
    }
}

impl HalfFormat {
    fn bits(self, value: f32) -> u16 {
        match self {
            HalfFormat::F16 => f16::from_f32(within_f16(value)).to_bits(),
            HalfFormat::BF16 => bf16::from_f32(value).to_bits(),
        }
    }

    fn number(self, bits: u16) -> f32 {
        match self {
            HalfFormat::F16 => f16::from_bits(bits).to_f32(),
            HalfFormat::BF16 => bf16::from_bits(bits).to_f32(),
        }
    }

    fn widen(self, from: &[u16], to: &mut [f32]) {
        match self {
            HalfFormat::F16 => from.reinterpret_cast::<f16>().convert_to_f32_slice(to),
            HalfFormat::BF16 => widen_bf16(from, to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn products_are_those_of_the_dense_matrix(
            rows in 1usize..20, inputs in 1usize..90, outputs in 1usize..70, seed in 0u32..9999, bf: bool,
        ) {
            let format = if bf { HalfFormat::BF16 } else { HalfFormat::F16 };
            let number = |i: usize| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 9) as f32 / 1e6 - 4.0;
            let weight: Vec<f32> = (0..outputs * inputs).map(number).collect();
            let x: Vec<f32> = (0..rows * inputs).map(|i| number(i + 77)).collect();
            let packed = PackedHalves::pack(format, outputs, inputs, &weight);
            let rounded: Vec<f32> = weight.iter().map(|v| format.round(*v)).collect();
            prop_assert_eq!(packed.unpack(), rounded.clone());
            let mut all = weight;
            format.round_all(&mut all);
            prop_assert_eq!(&all, &rounded);
            let dense = PackedMatrix::pack(outputs, inputs, &rounded);
            prop_assert_eq!(packed.nonzeros(), dense.nonzeros());
            let mut expected = vec![f32::NAN; rows * outputs];
            dense.multiply(&x, rows, &mut expected);
            for parallel in [false, true] {
                let mut y = vec![f32::NAN; rows * outputs];
                if parallel { packed.multiply_parallel(&x, rows, &mut y) } else { packed.multiply(&x, rows, &mut y) }
                prop_assert_eq!(&y, &expected);
            }
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_and_to_even_between() {
        // bfloat16 has 7 bits after the point: between 1 and 1 + 1/128 lies 1 + 1/256.
        for (value, expected) in
            [(1.0 + 1.0 / 256.0, 1.0), (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0), (-0.1, -0.100_097_656)]
        {
            assert_eq!(HalfFormat::BF16.round(value), expected);
            let mut all = [value; 33];
            HalfFormat::BF16.round_all(&mut all);
            assert_eq!(all, [expected; 33]);
        }
        assert_eq!(HalfFormat::F16.round(1e6), 65_504.0);
        let mut all = [1e6, -1e6, 0.1];
        HalfFormat::F16.round_all(&mut all);
        assert_eq!(all, [65_504.0, -65_504.0, 0.099_975_586]);
    }

    #[test]
    fn an_empty_inner_dimension_gives_zeros() {
        let mut y = vec![f32::NAN; 6];
        PackedHalves::pack(HalfFormat::BF16, 3, 0, &[]).multiply(&[], 2, &mut y);
        assert_eq!(y, [0.0; 6]);
    }
}
