//! Matrices made from seeds; the same bits in any language with IEEE doubles.
#![allow(dead_code)]

/// SplitMix64, as uniform numbers with 24 bits.
pub struct Uniform(u64);

impl Uniform {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// In `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f64 / 16_777_216.0
    }

    /// In `[-1, 1)`.
    pub fn signed(&mut self) -> f64 {
        2.0 * self.unit() - 1.0
    }
}

/// Weights `[rows, cols]`: a quarter of the sum of three uniform numbers. With `odd`, row 0 is zero, row 1 has no
/// negative value, row 2 no positive one, and row 3 an outlier.
pub fn weights(seed: u64, rows: usize, cols: usize, odd: bool) -> Vec<f32> {
    let mut rng = Uniform::new(seed);
    let mut w: Vec<f64> =
        (0..rows * cols).map(|_| (rng.signed() + rng.signed() + rng.signed()) * 0.25).collect();
    if odd {
        w[..cols].fill(0.0);
        w[cols..2 * cols].iter_mut().for_each(|x| *x = x.abs());
        w[2 * cols..3 * cols].iter_mut().for_each(|x| *x = -x.abs());
        w[3 * cols + 3] *= 8.0;
    }
    w.iter().map(|&x| x as f32).collect()
}

/// Inputs `[tokens, cols]` whose neighbouring features are correlated and of unequal size; `dead` features are zero.
pub fn inputs(seed: u64, tokens: usize, cols: usize, dead: &[usize]) -> Vec<f32> {
    let mut rng = Uniform::new(seed);
    let gains: Vec<f64> = (0..cols)
        .map(|_| {
            let u = rng.unit();
            0.2 + 3.0 * u * u
        })
        .collect();
    let mut x = Vec::with_capacity(tokens * cols);
    for _ in 0..tokens {
        let mut feature = 0.0;
        for (j, gain) in gains.iter().enumerate() {
            feature = rng.signed() + 0.6 * feature;
            x.push(if dead.contains(&j) { 0.0 } else { (gain * feature) as f32 });
        }
    }
    x
}

/// `X^T X`, `[cols, cols]`.
pub fn gram(x: &[f32], cols: usize) -> Vec<f64> {
    let mut gram = vec![0.0; cols * cols];
    for row in x.chunks(cols) {
        for (&a, out) in row.iter().zip(gram.chunks_mut(cols)) {
            for (&b, out) in row.iter().zip(out) {
                *out += f64::from(a) * f64::from(b);
            }
        }
    }
    gram
}
