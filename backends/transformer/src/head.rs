//! The last norm, projection and output head, without ever holding the logits of many positions.
//!
//! Logits are formed tile by tile; of each tile only its maximum, the sum of exponentials and the logits asked for are kept. Tiles
//! are put together in order in double precision, so the result does not depend on how they were shared among threads.

use rayon::prelude::*;

use crate::kernels::{HalfFormat, PANEL, RowStatistics, row_statistics};
use crate::norm::Norm;
use crate::scratch::with_scratch;
use crate::weight::Weight;

/// Panels of one tile: 512 tokens of the vocabulary.
const TILE_PANELS: usize = 32;

/// Most rows of a task.
const TASK_ROWS: usize = 66;

/// The last norm, the projection and the output head.
#[derive(Debug)]
pub(crate) struct Head {
    /// Where there is one.
    pub norm: Option<Norm>,
    /// To the width that the head reads, where that is another than the residual stream's.
    pub project: Option<Weight>,
    pub weight: Weight,
    /// What inputs of both are rounded to.
    pub half: Option<HalfFormat>,
}

/// What is known of the distribution after one position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Distribution {
    /// Logarithm of the sum of the exponentials of all logits.
    pub log_sum_exp: f64,
    /// The most likely token; the first of equals.
    pub argmax: u32,
}

/// One logit asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// Row of the hidden states.
    pub row: usize,
    /// Token of the vocabulary.
    pub token: u32,
}

impl Head {
    /// What the head's weight reads.
    fn prepare(&self, hidden: &[f32]) -> Vec<f32> {
        let mut normed = match &self.norm {
            None => hidden.to_vec(),
            Some(norm) => {
                let mut normed = vec![0f32; hidden.len()];
                let piece = norm.weight.len() * 32;
                let pieces = normed.par_chunks_mut(piece).zip(hidden.par_chunks(piece));
                pieces.for_each(|(y, x)| norm.apply(x, y));
                normed
            }
        };
        self.round(&mut normed);
        let Some(project) = &self.project else { return normed };
        let rows = normed.len() / project.inputs();
        let mut projected = vec![0f32; rows * project.outputs()];
        project.multiply_parallel(&normed, rows, &mut projected);
        self.round(&mut projected);
        projected
    }

    fn round(&self, values: &mut [f32]) {
        if let Some(half) = self.half {
            values.par_chunks_mut(1 << 14).for_each(|values| half.round_all(values));
        }
    }

    /// All logits, `[rows, vocabulary]`, of `hidden`, `[rows, hidden size]`.
    pub(crate) fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let normed = self.prepare(hidden);
        let rows = normed.len() / self.weight.inputs();
        let mut logits = vec![0f32; rows * self.weight.outputs()];
        self.weight.multiply_parallel(&normed, rows, &mut logits);
        logits
    }

    /// The distribution after each row of `hidden` (`[rows, hidden size]`), and the logits of `targets`, which are sorted by row.
    pub(crate) fn score(&self, hidden: &[f32], targets: &[Target]) -> (Vec<Distribution>, Vec<f32>) {
        if hidden.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let normed = self.prepare(hidden);
        let width = self.weight.inputs();
        let rows = normed.len() / width;
        let threads = rayon::current_num_threads();
        let tile_count = self.weight.panel_count().div_ceil(TILE_PANELS);
        let row_tasks = rows.div_ceil(TASK_ROWS);
        let task_rows = rows.div_ceil(row_tasks).next_multiple_of(6);
        let slices =
            if row_tasks >= 4 * threads { 1 } else { (4 * threads).div_ceil(row_tasks).min(tile_count) };
        let slice_tiles = tile_count.div_ceil(slices);
        let mut tasks = Vec::new();
        for first_row in (0..rows).step_by(task_rows) {
            let count = task_rows.min(rows - first_row);
            let from = targets.partition_point(|t| t.row < first_row);
            let to = targets.partition_point(|t| t.row < first_row + count);
            for first_tile in (0..tile_count).step_by(slice_tiles) {
                tasks.push((
                    first_row,
                    count,
                    first_tile,
                    slice_tiles.min(tile_count - first_tile),
                    from..to,
                ));
            }
        }
        let parts: Vec<_> = tasks
            .into_par_iter()
            .with_max_len(1)
            .map(|(first_row, count, first_tile, tiles, wanted)| {
                let mut wanted: Vec<usize> = wanted.collect();
                wanted.sort_by_key(|&i| targets[i].token);
                let x = &normed[first_row * width..][..count * width];
                let mut statistics = Vec::with_capacity(tiles * count);
                let mut found = Vec::with_capacity(wanted.len());
                with_scratch(count * TILE_PANELS * PANEL, |logits| {
                    for tile in first_tile..first_tile + tiles {
                        let first_panel = tile * TILE_PANELS;
                        let panels = TILE_PANELS.min(self.weight.panel_count() - first_panel);
                        let first_token = first_panel * PANEL;
                        let columns = (panels * PANEL).min(self.weight.outputs() - first_token);
                        self.weight.multiply_panels(x, count, first_panel, panels, logits, columns);
                        for row in logits[..count * columns].chunks_exact(columns) {
                            let mut s = row_statistics(row);
                            s.argmax += first_token as u32;
                            statistics.push(s);
                        }
                        let begin = wanted.partition_point(|&i| (targets[i].token as usize) < first_token);
                        let end =
                            wanted.partition_point(|&i| (targets[i].token as usize) < first_token + columns);
                        for &i in &wanted[begin..end] {
                            let column = targets[i].token as usize - first_token;
                            found.push((i, logits[(targets[i].row - first_row) * columns + column]));
                        }
                    }
                });
                (first_row, count, first_tile, statistics, found)
            })
            .collect();
        let none = RowStatistics { max: f32::MIN, sum: 0.0, argmax: 0 };
        let mut by_row = vec![none; rows * tile_count];
        let mut logits = vec![0f32; targets.len()];
        for (first_row, count, first_tile, statistics, found) in parts {
            for (i, s) in statistics.into_iter().enumerate() {
                by_row[(first_row + i % count) * tile_count + first_tile + i / count] = s;
            }
            for (i, logit) in found {
                logits[i] = logit;
            }
        }
        (by_row.chunks_exact(tile_count).map(merge).collect(), logits)
    }
}

/// Puts the tiles of one row together.
fn merge(tiles: &[RowStatistics]) -> Distribution {
    let mut best = &tiles[0];
    for tile in tiles {
        if tile.max > best.max {
            best = tile;
        }
    }
    let max = f64::from(best.max);
    let sum: f64 = tiles.iter().map(|t| f64::from(t.sum) * (f64::from(t.max) - max).exp()).sum();
    Distribution { log_sum_exp: max + sum.ln(), argmax: best.argmax }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_and_slices_agree_with_the_whole_row() {
        let (width, vocabulary) = (8, 1300);
        let value = |i: usize| ((i * 7919) % 2003) as f32 / 700.0 - 1.4;
        let weight: Vec<f32> = (0..width * vocabulary).map(value).collect();
        let head = Head {
            norm: Some(Norm { weight: std::sync::Arc::new(vec![1.0; width]), bias: None, eps: 1e-5 }),
            project: None,
            weight: Weight::dense(vocabulary, width, &weight),
            half: None,
        };
        for rows in [1, 5, 200] {
            let hidden: Vec<f32> = (0..rows * width).map(|i| value(i * 31 + 5)).collect();
            let targets: Vec<Target> =
                (0..rows).flat_map(|row| [0, 511, 512, 1299].map(|token| Target { row, token })).collect();
            let logits = head.logits(&hidden);
            let (distributions, found) = head.score(&hidden, &targets);
            for (row, d) in distributions.iter().enumerate() {
                let all = &logits[row * vocabulary..][..vocabulary];
                let exact = all.iter().map(|&v| f64::from(v).exp()).sum::<f64>().ln();
                assert!((d.log_sum_exp - exact).abs() < 1e-6);
                let max = all.iter().copied().fold(f32::MIN, f32::max);
                assert_eq!(all.iter().position(|&v| v == max), Some(d.argmax as usize));
            }
            for (target, logit) in targets.iter().zip(found) {
                assert_eq!(logit, logits[target.row * vocabulary + target.token as usize]);
            }
        }
    }
}
