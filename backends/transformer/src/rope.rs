//! Turning queries and keys to their positions.

use crate::architecture::Rotary;

/// Cosines and sines of all positions up to a length.
#[derive(Debug, Clone)]
pub(crate) struct RopeTable {
    pairs: usize,
    interleaved: bool,
    /// Per position: `pairs` cosines, then `pairs` sines.
    values: Vec<f32>,
}

impl RopeTable {
    /// The table for positions `0 .. positions`.
    pub(crate) fn new(rotary: &Rotary, positions: usize) -> Self {
        let frequencies = rotary.frequencies();
        let pairs = frequencies.len();
        let mut values = Vec::with_capacity(positions * pairs * 2);
        for position in 0..positions {
            let angle = |frequency: &f32| f64::from(frequency * position as f32);
            values.extend(frequencies.iter().map(|f| angle(f).cos() as f32));
            values.extend(frequencies.iter().map(|f| angle(f).sin() as f32));
        }
        Self { pairs, interleaved: rotary.interleaved, values }
    }

    /// Number of positions in the table.
    pub(crate) fn positions(&self) -> usize {
        self.values.len() / (2 * self.pairs)
    }

    /// Cosines and sines of one position, each `[pairs]`.
    ///
    /// # Panics
    /// If the position is beyond the table.
    pub(crate) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        self.values[position * 2 * self.pairs..][..2 * self.pairs].split_at(self.pairs)
    }

    /// Turns every head, of `head_dim` numbers, of one row to `position`.
    pub(crate) fn rotate(&self, row: &mut [f32], head_dim: usize, position: usize) {
        let (cos, sin) = self.at(position);
        for head in row.chunks_exact_mut(head_dim) {
            let turned = &mut head[..2 * self.pairs];
            if self.interleaved {
                for ((pair, &c), &s) in turned.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                    let [x, y] = *pair;
                    *pair = [x * c - y * s, y * c + x * s];
                }
            } else {
                let (low, high) = turned.split_at_mut(self.pairs);
                for (((a, b), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                    let (x, y) = (*a, *b);
                    *a = x * c - y * s;
                    *b = y * c + x * s;
                }
            }
        }
    }
}
