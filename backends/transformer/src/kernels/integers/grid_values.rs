//! Scales and zeros of integer codes, in as little memory as holds them exactly.

use super::PANEL;

/// Numbers that each group of each output has, in as little memory as holds them exactly: `[panels][groups][16]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum GridValues {
    /// The same for all.
    Same(f32),
    Bytes(Vec<u8>),
    Half(Vec<half::f16>),
    Single(Vec<f32>),
}

impl GridValues {
    /// From `[rows, groups]`, row-major.
    pub(super) fn pack(values: &[f32], rows: usize, groups: usize, may_be_same: bool) -> Self {
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
    pub(super) fn expand(&self, panel: usize, out: &mut [f32]) {
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

    pub(super) fn at(&self, row: usize, group: usize, groups: usize) -> f32 {
        let at = (row / PANEL * groups + group) * PANEL + row % PANEL;
        match self {
            GridValues::Same(value) => *value,
            GridValues::Bytes(all) => f32::from(all[at]),
            GridValues::Half(all) => all[at].to_f32(),
            GridValues::Single(all) => all[at],
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            GridValues::Same(_) => 0,
            GridValues::Bytes(all) => all.len(),
            GridValues::Half(all) => 2 * all.len(),
            GridValues::Single(all) => 4 * all.len(),
        }
    }
}
