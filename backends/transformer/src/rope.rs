//! Rotary position embedding (Su et al. 2021) in Hugging Face's layout: element `i` of a head turns with element `i + head_dim / 2`.

use crate::LlamaConfig;

/// Cosines and sines of all positions up to a length.
#[derive(Debug, Clone)]
pub(crate) struct RopeTable {
    pairs: usize,
    /// Per position: `pairs` cosines, then `pairs` sines.
    values: Vec<f32>,
}

impl RopeTable {
    /// The table for positions `0 .. positions`.
    pub(crate) fn new(config: &LlamaConfig, positions: usize) -> Self {
        let frequencies = config.rope_frequencies();
        let pairs = frequencies.len();
        let mut values = Vec::with_capacity(positions * pairs * 2);
        for position in 0..positions {
            let angle = |frequency: &f32| f64::from(frequency * position as f32);
            values.extend(frequencies.iter().map(|f| angle(f).cos() as f32));
            values.extend(frequencies.iter().map(|f| angle(f).sin() as f32));
        }
        Self { pairs, values }
    }

    /// Number of positions in the table.
    pub(crate) fn positions(&self) -> usize {
        self.values.len() / (2 * self.pairs)
    }

    /// Cosines and sines of one position, each `[head_dim / 2]`.
    ///
    /// # Panics
    /// If the position is beyond the table.
    pub(crate) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        self.values[position * 2 * self.pairs..][..2 * self.pairs].split_at(self.pairs)
    }

    /// Turns every head of one row (`[heads * head_dim]`) to `position`.
    pub(crate) fn rotate(&self, row: &mut [f32], position: usize) {
        let (cos, sin) = self.at(position);
        for head in row.chunks_exact_mut(2 * self.pairs) {
            let (low, high) = head.split_at_mut(self.pairs);
            for (((a, b), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                let (x, y) = (*a, *b);
                *a = x * c - y * s;
                *b = y * c + x * s;
            }
        }
    }
}
