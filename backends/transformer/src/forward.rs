//! The forward pass of one block over a packed batch.
//!
//! Rows are cut into chunks that threads take one by one; a thread carries its chunk through all linears of a part of the block, so that
//! activations stay in its cache and only attention needs all rows at once. With few rows (generation), threads share the outputs of
//! each linear instead.

use rayon::prelude::*;

use crate::activation::ActivationSite;
use crate::architecture::NormOrder;
use crate::attention::Attention;
use crate::batch::{Batch, LayerKeys};
use crate::block::{Block, Linear};
use crate::kernels::{PANEL, add_assign, relu, silu_multiply};
use crate::layout::{InputGroup, Role};
use crate::rope::RopeTable;
use crate::scratch::with_scratch;

/// Most rows of a chunk: their activations fit the second-level cache.
const CHUNK_ROWS: usize = 66;

/// Rows of a register tile; chunks are whole multiples of it.
const TILE_ROWS: usize = 6;

/// Columns of gate and up that are formed before they are multiplied.
const GATE_PANELS: usize = 8;

/// Activations of one batch, kept between blocks to save allocations.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    queries: Vec<f32>,
    /// Keys of the block that ran last, `[rows, key and value width]`.
    pub keys: Vec<f32>,
    /// Values of the block that ran last, `[rows, key and value width]`.
    pub values: Vec<f32>,
    mixed: Vec<f32>,
}

/// Inputs of linears that a caller wants to see, each `[rows, in]` when asked for.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    inputs: [Option<Vec<f32>>; 4],
    /// Stop after this group's input: the block's output is not wanted.
    last: Option<InputGroup>,
}

impl Capture {
    /// Asks for the inputs of these groups and for nothing else: what comes after the last of them is not computed.
    pub(crate) fn only(groups: &[InputGroup]) -> Self {
        let mut capture = Self { last: groups.iter().max().copied(), ..Self::default() };
        for &group in groups {
            capture.inputs[group as usize] = Some(Vec::new());
        }
        capture
    }

    /// What was captured for a group.
    pub(crate) fn input(&self, group: InputGroup) -> Option<&[f32]> {
        self.inputs[group as usize].as_deref()
    }
}

/// How the rows of a batch are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Schedule {
    rows: usize,
    chunks: usize,
    /// Whether threads share each linear's outputs rather than rows.
    share_outputs: bool,
}

impl Schedule {
    fn new(rows: usize, threads: usize) -> Self {
        if rows < threads * 2 * TILE_ROWS {
            return Self { rows: rows.max(1), chunks: 1, share_outputs: threads > 1 };
        }
        // A multiple of the number of threads, so that they end together.
        let chunks = threads * rows.div_ceil(threads * CHUNK_ROWS);
        let size = rows.div_ceil(chunks).next_multiple_of(TILE_ROWS);
        Self { rows: size, chunks: rows.div_ceil(size), share_outputs: false }
    }
}

fn apply(linear: &Linear, x: &[f32], rows: usize, y: &mut [f32], share_outputs: bool) {
    if share_outputs {
        linear.weight.multiply_parallel(x, rows, y);
    } else {
        linear.weight.multiply(x, rows, y);
    }
    add_bias(linear.bias(), y);
}

fn add_bias(bias: Option<&[f32]>, y: &mut [f32]) {
    if let Some(bias) = bias {
        for row in y.chunks_exact_mut(bias.len()) {
            add_assign(row, bias);
        }
    }
}

/// The feed-forward part on what its first linears read, `[rows, hidden size]`: what it adds to the residual stream.
pub(crate) fn run_feed_forward(block: &Block, normed: &[f32]) -> Vec<f32> {
    let (width, inner) = (block.architecture().hidden_size, block.architecture().intermediate_size);
    let mut added = vec![0f32; normed.len()];
    normed
        .par_chunks(CHUNK_ROWS * width)
        .zip(added.par_chunks_mut(CHUNK_ROWS * width))
        .with_max_len(1)
        .for_each(|(x, y)| {
            let n = x.len() / width;
            let piece = (GATE_PANELS * PANEL).min(inner);
            with_scratch(n * (width + inner + 2 * piece), |scratch| {
                let (read, scratch) = scratch.split_at_mut(n * width);
                let (gated, scratch) = scratch.split_at_mut(n * inner);
                read.copy_from_slice(x);
                block.round_inputs(InputGroup::MlpIn, read, width);
                run_inner(block, read, n, gated, scratch, false);
                block.round_inputs(InputGroup::MlpOut, gated, inner);
                apply(block.role(Role::Down), gated, n, y, false);
            });
        });
    added
}

/// The activations inside the feed-forward part, `[n, inner]`, of what its first linears read. `scratch` is as large as two pieces of gate and up
/// (all of them where threads share outputs).
fn run_inner(
    block: &Block,
    read: &[f32],
    n: usize,
    gated: &mut [f32],
    scratch: &mut [f32],
    share_outputs: bool,
) {
    let up = block.role(Role::Up);
    let Some(gate) = block.gate() else {
        apply(up, read, n, gated, share_outputs);
        relu(gated);
        return;
    };
    let inner = gated.len() / n;
    let half = scratch.len() / 2;
    let (of_gate, of_up) = scratch.split_at_mut(half);
    if share_outputs {
        apply(gate, read, n, of_gate, true);
        apply(up, read, n, of_up, true);
        silu_multiply(of_gate, of_up, gated);
        return;
    }
    for first in (0..gate.weight.panel_count()).step_by(GATE_PANELS) {
        let panels = GATE_PANELS.min(gate.weight.panel_count() - first);
        let from = first * PANEL;
        let columns = (panels * PANEL).min(inner - from);
        for (linear, out) in [(gate, &mut *of_gate), (up, &mut *of_up)] {
            linear.weight.multiply_panels(read, n, first, panels, out, columns);
            add_bias(linear.bias().map(|b| &b[from..from + columns]), &mut out[..n * columns]);
        }
        for r in 0..n {
            let tile = r * columns..(r + 1) * columns;
            silu_multiply(&of_gate[tile.clone()], &of_up[tile], &mut gated[r * inner + from..][..columns]);
        }
    }
}

/// A linear on rows of its input, on the threads of the current rayon pool.
pub(crate) fn run_linear(linear: &Linear, x: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    let mut y = vec![0f32; x.len() / inputs * outputs];
    x.par_chunks(CHUNK_ROWS * inputs)
        .zip(y.par_chunks_mut(CHUNK_ROWS * outputs))
        .with_max_len(1)
        .for_each(|(x, y)| apply(linear, x, x.len() / inputs, y, false));
    y
}

/// The chunks of a captured input, or as many times nothing.
fn capture_chunks(
    slot: &mut Option<Vec<f32>>,
    width: usize,
    rows: usize,
    schedule: Schedule,
) -> Vec<Option<&mut [f32]>> {
    match slot {
        Some(buffer) => {
            buffer.resize(rows * width, 0.0);
            buffer.chunks_mut(schedule.rows * width).map(Some).collect()
        }
        None => (0..schedule.chunks).map(|_| None).collect(),
    }
}

/// Runs one block in place on `hidden`, `[rows, hidden size]`, on the threads of the current rayon pool.
///
/// `cached` is this layer of every cache that the batch refers to. The keys and values of the batch are left in `workspace`.
pub(crate) fn run_block(
    rope: Option<&RopeTable>,
    block: &Block,
    batch: &Batch,
    cached: &[&LayerKeys],
    hidden: &mut [f32],
    workspace: &mut Workspace,
    capture: &mut Capture,
) {
    let c = block.architecture();
    let norms_first = c.norm_order == NormOrder::Before;
    let rows = batch.rows();
    if rows == 0 {
        return;
    }
    let (width, query_width, key_width) = (c.hidden_size, c.query_width(), c.key_value_width());
    let schedule = Schedule::new(rows, rayon::current_num_threads());
    let Workspace { queries, keys, values, mixed } = workspace;
    queries.resize(rows * query_width, 0.0);
    keys.resize(rows * key_width, 0.0);
    values.resize(rows * key_width, 0.0);
    mixed.resize(rows * query_width, 0.0);
    let last = capture.last;
    let activations = block.activations();
    let [attn_in, attn_out, mlp_in, mlp_out] = &mut capture.inputs;

    // Norm, projections, rotation.
    let project = |x: &[f32],
                   q: &mut [f32],
                   k: &mut [f32],
                   v: &mut [f32],
                   seen: Option<&mut [f32]>,
                   positions: &[u32]| {
        let n = positions.len();
        with_scratch(n * width, |normed| {
            if norms_first {
                block.attention_norm().apply(x, normed);
            } else {
                normed.copy_from_slice(x);
            }
            if let Some(seen) = seen {
                seen.copy_from_slice(normed);
            }
            if last == Some(InputGroup::AttnIn) {
                return;
            }
            block.round_inputs(InputGroup::AttnIn, normed, width);
            apply(block.role(Role::Query), normed, n, q, schedule.share_outputs);
            apply(block.role(Role::Key), normed, n, k, schedule.share_outputs);
            apply(block.role(Role::Value), normed, n, v, schedule.share_outputs);
        });
        let outputs = [
            (ActivationSite::QueryOutputs, &mut *q, query_width),
            (ActivationSite::KeyOutputs, &mut *k, key_width),
            (ActivationSite::ValueOutputs, &mut *v, key_width),
        ];
        for (site, values, width) in outputs {
            if let Some(rounding) = activations.at(site) {
                rounding.round_rows(values, width);
            }
        }
        if let Some(rope) = rope {
            for (i, &position) in positions.iter().enumerate() {
                rope.rotate(&mut q[i * query_width..][..query_width], c.head_dim, position as usize);
                rope.rotate(&mut k[i * key_width..][..key_width], c.head_dim, position as usize);
            }
        }
        let sites = [(ActivationSite::Queries, q), (ActivationSite::Keys, k), (ActivationSite::Values, v)];
        for (site, values) in sites {
            if let Some(rounding) = activations.at(site) {
                rounding.round_rows(values, c.head_dim);
            }
        }
    };
    let seen = capture_chunks(attn_in, width, rows, schedule);
    hidden
        .par_chunks(schedule.rows * width)
        .zip(queries.par_chunks_mut(schedule.rows * query_width))
        .zip(keys.par_chunks_mut(schedule.rows * key_width))
        .zip(values.par_chunks_mut(schedule.rows * key_width))
        .zip(batch.positions.par_chunks(schedule.rows))
        .zip(seen)
        .with_max_len(1)
        .for_each(|(((((x, q), k), v), positions), seen)| project(x, q, k, v, seen, positions));
    if last == Some(InputGroup::AttnIn) {
        return;
    }

    // Attention.
    let attention = Attention { architecture: c, batch, queries, keys, values, cached };
    let mut rest = mixed.as_mut_slice();
    let mut tasks = Vec::new();
    for task in Attention::tasks(batch) {
        let (out, after) = rest.split_at_mut(task.rows * query_width);
        rest = after;
        tasks.push((task, out));
    }
    tasks.into_par_iter().with_max_len(1).for_each(|(task, out)| attention.run(task, out));
    if let Some(seen) = attn_out {
        seen.clear();
        seen.extend_from_slice(mixed);
    }
    if last == Some(InputGroup::AttnOut) {
        return;
    }
    block.round_inputs_parallel(InputGroup::AttnOut, mixed, query_width);

    // Output projection, norm, feed-forward part.
    let feed_forward =
        |h: &mut [f32], mixed: &[f32], seen_in: Option<&mut [f32]>, seen_out: Option<&mut [f32]>| {
            let n = h.len() / width;
            let inner = c.intermediate_size;
            // With all outputs shared among threads the gate is formed in one piece.
            let piece = if schedule.share_outputs { inner } else { (GATE_PANELS * PANEL).min(inner) };
            with_scratch(n * (width + inner + 2 * piece), |scratch| {
                let (normed, scratch) = scratch.split_at_mut(n * width);
                let (gated, scratch) = scratch.split_at_mut(n * inner);
                apply(block.role(Role::Output), mixed, n, normed, schedule.share_outputs);
                add_assign(h, normed);
                if norms_first {
                    block.mlp_norm().apply(h, normed);
                } else {
                    block.attention_norm().apply(h, normed);
                    h.copy_from_slice(normed);
                }
                if let Some(seen) = seen_in {
                    seen.copy_from_slice(normed);
                }
                if last == Some(InputGroup::MlpIn) {
                    return;
                }
                block.round_inputs(InputGroup::MlpIn, normed, width);
                run_inner(block, normed, n, gated, scratch, schedule.share_outputs);
                if let Some(seen) = seen_out {
                    seen.copy_from_slice(gated);
                }
                if last == Some(InputGroup::MlpOut) {
                    return;
                }
                block.round_inputs(InputGroup::MlpOut, gated, inner);
                apply(block.role(Role::Down), gated, n, normed, schedule.share_outputs);
                add_assign(h, normed);
                if !norms_first {
                    block.mlp_norm().apply(h, normed);
                    h.copy_from_slice(normed);
                }
            });
        };
    let seen_in = capture_chunks(mlp_in, width, rows, schedule);
    let seen_out = capture_chunks(mlp_out, c.intermediate_size, rows, schedule);
    hidden
        .par_chunks_mut(schedule.rows * width)
        .zip(mixed.par_chunks(schedule.rows * query_width))
        .zip(seen_in)
        .zip(seen_out)
        .with_max_len(1)
        .for_each(|(((h, mixed), seen_in), seen_out)| feed_forward(h, mixed, seen_in, seen_out));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_chunk() {
        for threads in [1, 2, 3, 8, 64] {
            for rows in (1..200).chain([1000, 2047, 4096]) {
                let s = Schedule::new(rows, threads);
                assert_eq!(s.chunks, rows.div_ceil(s.rows), "{rows} rows on {threads} threads: {s:?}");
                assert!(s.share_outputs || s.rows <= CHUNK_ROWS || threads == 1);
            }
        }
    }
}
