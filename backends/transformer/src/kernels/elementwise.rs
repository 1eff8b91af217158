//! Normalisation, gating, softmax and the statistics of a row of logits.

use super::vector::{exp, multiply_add, multiversion};

/// Lanes of the partial sums: a fixed number, so that sums do not depend on the instruction set's width.
const LANES: usize = 16;

multiversion! {
    /// Root mean square normalisation of each row (Zhang and Sennrich 2019): `y = x / sqrt(mean(x^2) + eps) * weight`.
    ///
    /// `x` and `y` are `[rows, weight.len()]`, row-major.
    pub fn rms_norm_rows[FMA](x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
        let width = weight.len();
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let mut sums = [0f32; LANES];
            let (blocks, rest) = x.as_chunks::<LANES>();
            for block in blocks {
                for lane in 0..LANES {
                    sums[lane] = multiply_add::<FMA>(block[lane], block[lane], sums[lane]);
                }
            }
            let mut sum = 0f64;
            for s in sums { sum += f64::from(s); }
            for &v in rest { sum += f64::from(v) * f64::from(v); }
            let scale = (1.0 / (sum / width as f64 + f64::from(eps)).sqrt()) as f32;
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(weight) {
                *y = x * scale * w;
            }
        }
    }
}

multiversion! {
    /// Layer normalisation of each row (Ba et al. 2016): `y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias`.
    ///
    /// `x` and `y` are `[rows, weight.len()]`, row-major.
    pub fn layer_norm_rows[FMA](x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) {
        let width = weight.len();
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let (blocks, rest) = x.as_chunks::<LANES>();
            let mut sums = [0f32; LANES];
            for block in blocks {
                for lane in 0..LANES {
                    sums[lane] += block[lane];
                }
            }
            let mut sum = 0f64;
            for s in sums { sum += f64::from(s); }
            for &v in rest { sum += f64::from(v); }
            let mean = (sum / width as f64) as f32;
            let mut squares = [0f32; LANES];
            for block in blocks {
                for lane in 0..LANES {
                    let off = block[lane] - mean;
                    squares[lane] = multiply_add::<FMA>(off, off, squares[lane]);
                }
            }
            let mut square = 0f64;
            for s in squares { square += f64::from(s); }
            for &v in rest { square += f64::from(v - mean) * f64::from(v - mean); }
            let scale = (1.0 / (square / width as f64 + f64::from(eps)).sqrt()) as f32;
            for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                *y = multiply_add::<FMA>((x - mean) * scale, w, b);
            }
        }
    }
}

multiversion! {
    /// Rounds to the nearest bfloat16, halves to even.
    pub fn round_to_bf16[FMA](x: &mut [f32]) {
        let _ = FMA;
        for x in x.iter_mut() {
            let bits = x.to_bits();
            *x = f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000);
        }
    }
}

multiversion! {
    /// The numbers that bits of bfloat16 stand for.
    pub fn widen_bf16[FMA](from: &[u16], to: &mut [f32]) {
        let _ = FMA;
        for (to, &from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(from) << 16);
        }
    }
}

multiversion! {
    /// Negative values become zero.
    pub fn relu[FMA](x: &mut [f32]) {
        let _ = FMA;
        for x in x.iter_mut() {
            *x = if *x > 0.0 { *x } else { 0.0 };
        }
    }
}

multiversion! {
    /// The gate of a gated linear unit with SiLU: `out = gate * sigmoid(gate) * up` (Shazeer 2020, SwiGLU).
    pub fn silu_multiply[FMA](gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
            *o = g / (1.0 + exp::<FMA>(-g)) * u;
        }
    }
}

multiversion! {
    /// `y += x`.
    pub fn add_assign[FMA](y: &mut [f32], x: &[f32]) {
        let _ = FMA;
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }
}

multiversion! {
    /// Softmax down the columns of a matrix 16 wide, without the division: each column becomes `exp(x - max)`, and the
    /// columns' sums are returned. A column that is negative infinity throughout gives zeros and the sum 0.
    pub fn softmax_columns[FMA](scores: &mut [f32]) -> [f32; 16] {
        let (rows, _) = scores.as_chunks_mut::<16>();
        let mut max = [f32::MIN; 16];
        for row in rows.iter() {
            for lane in 0..16 {
                max[lane] = if row[lane] > max[lane] { row[lane] } else { max[lane] };
            }
        }
        let mut sum = [0f32; 16];
        for row in rows.iter_mut() {
            for lane in 0..16 {
                row[lane] = exp::<FMA>(row[lane] - max[lane]);
                sum[lane] += row[lane];
            }
        }
        sum
    }
}

/// What is kept of one tile of a row of logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowStatistics {
    /// The largest value.
    pub max: f32,
    /// The sum of `exp(x - max)`.
    pub sum: f32,
    /// The first index at which `max` stands.
    pub argmax: u32,
}

multiversion! {
    /// Maximum, first argmax and sum of `exp(x - max)` of one row. Values that are not a number make `sum` not a number.
    pub fn row_statistics[FMA](row: &[f32]) -> RowStatistics {
        let (blocks, rest) = row.as_chunks::<LANES>();
        let mut lanes = [f32::MIN; LANES];
        for block in blocks {
            for lane in 0..LANES {
                lanes[lane] = if block[lane] > lanes[lane] { block[lane] } else { lanes[lane] };
            }
        }
        let mut max = f32::MIN;
        for v in lanes { max = max.max(v); }
        for &v in rest { max = max.max(v); }
        let mut sums = [0f32; LANES];
        for block in blocks {
            for lane in 0..LANES {
                sums[lane] += exp::<FMA>(block[lane] - max);
            }
        }
        let mut sum = 0f32;
        for s in sums { sum += s; }
        for &v in rest { sum += exp::<FMA>(v - max); }
        // The least index that holds the maximum, lane by lane: a search with an early end would not vectorise.
        let mut first = [u32::MAX; LANES];
        for (b, block) in blocks.iter().enumerate() {
            for lane in 0..LANES {
                let index = (b * LANES + lane) as u32;
                let candidate = if block[lane] == max { index } else { u32::MAX };
                first[lane] = if candidate < first[lane] { candidate } else { first[lane] };
            }
        }
        let mut argmax = u32::MAX;
        for f in first { argmax = argmax.min(f); }
        if argmax == u32::MAX {
            let tail = rest.iter().position(|&v| v == max).unwrap_or(0);
            argmax = (blocks.len() * LANES + tail) as u32;
        }
        RowStatistics { max, sum, argmax }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exponential_is_within_two_ulp(x in -87.0f32..88.0) {
            let exact = f64::from(x).exp();
            for got in [exp::<true>(x), exp::<false>(x)] {
                prop_assert!((f64::from(got) - exact).abs() <= exact * 2.5e-7, "exp({x}) = {got}, not {exact}");
            }
        }

        #[test]
        fn normalisation_agrees_with_f64(rows in 1usize..4, width in 1usize..70, seed in 0u64..1000) {
            let value = |i: usize| ((i as u64 * 2_654_435_761 + seed * 97) % 1000) as f32 / 250.0 - 2.0;
            let x: Vec<f32> = (0..rows * width).map(value).collect();
            let weight: Vec<f32> = (0..width).map(|i| value(i + 17)).collect();
            let mut y = vec![0.0; rows * width];
            rms_norm_rows(&x, &weight, 1e-5, &mut y);
            for r in 0..rows {
                let row = &x[r * width..][..width];
                let mean = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / width as f64;
                for i in 0..width {
                    let want = f64::from(row[i]) / (mean + 1e-5).sqrt() * f64::from(weight[i]);
                    prop_assert!((f64::from(y[r * width + i]) - want).abs() < 1e-5);
                }
            }
        }

        #[test]
        fn gate_agrees_with_f64(values in prop::collection::vec((-30f32..30.0, -5f32..5.0), 1..70)) {
            let (gate, up): (Vec<f32>, Vec<f32>) = values.into_iter().unzip();
            let mut out = vec![0.0; gate.len()];
            silu_multiply(&gate, &up, &mut out);
            for i in 0..gate.len() {
                let g = f64::from(gate[i]);
                let want = g / (1.0 + (-g).exp()) * f64::from(up[i]);
                prop_assert!((f64::from(out[i]) - want).abs() <= 1e-6 * (1.0 + want.abs()));
            }
        }

        #[test]
        fn statistics_agree_with_f64(row in prop::collection::vec(-40f32..40.0, 1..200)) {
            let s = row_statistics(&row);
            let max = row.iter().copied().fold(f32::MIN, f32::max);
            prop_assert_eq!(s.max, max);
            prop_assert_eq!(row[s.argmax as usize], max);
            prop_assert!(row[..s.argmax as usize].iter().all(|&v| v < max));
            let want: f64 = row.iter().map(|&v| f64::from(v - max).exp()).sum();
            prop_assert!((f64::from(s.sum) - want).abs() < 1e-5 * want);
        }
    }

    #[test]
    fn masked_entries_get_no_weight() {
        let mut scores = vec![f32::NEG_INFINITY; 48];
        scores[0] = 3.0;
        scores[17] = -1.0;
        scores[33] = -1.0;
        let sums = softmax_columns(&mut scores);
        assert_eq!(scores[0], 1.0);
        assert_eq!(scores[16], 0.0);
        assert_eq!(sums[0], 1.0);
        assert_eq!(sums[1], 2.0);
        assert_eq!(sums[2], 0.0);
    }

    #[test]
    fn a_gate_far_below_zero_is_zero_and_far_above_is_the_identity() {
        let mut out = [9.0; 2];
        silu_multiply(&[-200.0, 200.0], &[1.0, 1.0], &mut out);
        assert!(out[0].abs() < 1e-30);
        assert_eq!(out[1], 200.0);
    }
}
