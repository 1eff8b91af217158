//! Causal grouped-query attention over segments and their ancestors, blocked over queries.
//!
//! Sixteen queries (rows and the heads that share a key head, flattened) make a panel. Their scores against all keys are formed key by key,
//! `S^T = K Q^T`, so that softmax runs down columns, one query in each vector lane, and the result is `O^T = V^T P^T`. Keys and
//! values are read where they lie, wherever that is: a query's keys may be spread over the segments of its ancestors. Every sum
//! runs over keys in order of position, one at a time, so the result does not depend on how they are spread.
//! Memory is bounded: one panel's scores, 64 bytes for each key.

use crate::architecture::Architecture;
use crate::batch::{Batch, KeySpan, LayerKeys};
use crate::kernels::{PANEL, Start, Strided, multiply_strided, softmax_columns};
use crate::scratch::with_scratch;

/// Query rows of one task.
pub(crate) const QUERY_ROWS: usize = 16;

/// Keys whose values are taken in before the next part of the head, so that they stay in the first-level cache.
const KEY_BLOCK: usize = 128;

/// What all tasks of one layer read.
#[derive(Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub architecture: &'a Architecture,
    pub batch: &'a Batch,
    /// `[rows, query width]`, already turned to their positions.
    pub queries: &'a [f32],
    /// `[rows, key and value width]`, already turned to their positions.
    pub keys: &'a [f32],
    /// `[rows, key and value width]`.
    pub values: &'a [f32],
    /// This layer of every cache that the batch refers to.
    pub cached: &'a [&'a LayerKeys],
}

/// Some rows of a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    pub segment: usize,
    /// First row, counted from the segment's first.
    pub first: usize,
    pub rows: usize,
}

/// Consecutive keys and values of one span.
struct Reach<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    len: usize,
}

impl Attention<'_> {
    /// The tasks of all segments, in order of rows.
    pub(crate) fn tasks(batch: &Batch) -> Vec<Task> {
        let mut tasks = Vec::new();
        for (segment, s) in batch.segments.iter().enumerate() {
            for first in (0..s.len).step_by(QUERY_ROWS) {
                tasks.push(Task { segment, first, rows: QUERY_ROWS.min(s.len - first) });
            }
        }
        tasks
    }

    /// Computes the rows of `task` into `out`, `[task.rows, query width]`.
    pub(crate) fn run(&self, task: Task, out: &mut [f32]) {
        let c = self.architecture;
        let (head_dim, key_width, query_width) = (c.head_dim, c.key_value_width(), c.query_width());
        let group = c.num_attention_heads / c.num_key_value_heads;
        let segment = &self.batch.segments[task.segment];
        let own_keys = task.first + task.rows;
        let mut reach: Vec<Reach<'_>> = Vec::with_capacity(segment.reach.len() + 1);
        let mut before = 0;
        for span in &segment.reach {
            let (keys, values, len) = match *span {
                KeySpan::Batch { first_row, len } => {
                    (&self.keys[first_row * key_width..], &self.values[first_row * key_width..], len)
                }
                KeySpan::Cached { cache, len } => {
                    (&self.cached[cache].keys[..], &self.cached[cache].values[..], len)
                }
            };
            before += len;
            reach.push(Reach { keys, values, len });
        }
        let own = segment.first_row * key_width;
        reach.push(Reach { keys: &self.keys[own..], values: &self.values[own..], len: own_keys });
        let scale = 1.0 / (head_dim as f32).sqrt();
        let lanes = task.rows * group;
        let total = before + own_keys;
        let sizes = head_dim * PANEL * 2 + total * PANEL;
        with_scratch(sizes, |scratch| {
            let (queries, rest) = scratch.split_at_mut(head_dim * PANEL);
            let (mixed, scores) = rest.split_at_mut(head_dim * PANEL);
            for key_head in 0..c.num_key_value_heads {
                let head_offset = key_head * head_dim;
                for first_lane in (0..lanes).step_by(PANEL) {
                    let count = PANEL.min(lanes - first_lane);
                    let place = |lane: usize| {
                        let lane = first_lane + lane;
                        (task.first + lane / group, (key_head * group + lane % group) * head_dim)
                    };
                    if count < PANEL {
                        queries.fill(0.0);
                    }
                    for lane in 0..count {
                        let (row, offset) = place(lane);
                        let q = &self.queries[(segment.first_row + row) * query_width + offset..][..head_dim];
                        for (d, &q) in q.iter().enumerate() {
                            queries[d * PANEL + lane] = q * scale;
                        }
                    }
                    // Keys after the panel's last row are beyond all its queries.
                    let own_used = place(count - 1).0 + 1;
                    let used = before + own_used;
                    let scores = &mut scores[..used * PANEL];
                    let mut at = 0;
                    for (i, r) in reach.iter().enumerate() {
                        let len = if i + 1 == reach.len() { own_used } else { r.len };
                        let keys =
                            Strided { data: &r.keys[head_offset..], row_stride: key_width, inner_stride: 1 };
                        multiply_strided(
                            len,
                            head_dim,
                            keys,
                            queries,
                            PANEL,
                            &mut scores[at * PANEL..],
                            PANEL,
                            Start::Zero,
                        );
                        at += len;
                    }
                    let first_row = place(0).0;
                    for key in first_row + 1..own_used {
                        let row = &mut scores[(before + key) * PANEL..][..PANEL];
                        for (lane, score) in row[..count].iter_mut().enumerate() {
                            if place(lane).0 < key {
                                *score = f32::NEG_INFINITY;
                            }
                        }
                    }
                    let sums = softmax_columns(scores);
                    let mut at = 0;
                    mixed.fill(0.0);
                    for (i, r) in reach.iter().enumerate() {
                        let len = if i + 1 == reach.len() { own_used } else { r.len };
                        for key in (0..len).step_by(KEY_BLOCK) {
                            let values = Strided {
                                data: &r.values[key * key_width + head_offset..],
                                row_stride: 1,
                                inner_stride: key_width,
                            };
                            let weights = &scores[(at + key) * PANEL..];
                            let some = KEY_BLOCK.min(len - key);
                            multiply_strided(
                                head_dim,
                                some,
                                values,
                                weights,
                                PANEL,
                                mixed,
                                PANEL,
                                Start::Continue,
                            );
                        }
                        at += len;
                    }
                    for (lane, sum) in sums[..count].iter().enumerate() {
                        let (row, offset) = place(lane);
                        let out = &mut out[(row - task.first) * query_width + offset..][..head_dim];
                        let inverse = 1.0 / sum;
                        for (d, out) in out.iter_mut().enumerate() {
                            *out = mixed[d * PANEL + lane] * inverse;
                        }
                    }
                }
            }
        });
    }
}
