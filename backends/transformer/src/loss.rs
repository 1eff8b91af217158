//! Gradients of the model's loss with respect to weights, block by block.
//!
//! A method walks from the first block to the last, gradients come from the last to the first. So the dense model is run once, forward and
//! back, and what is kept is the gradient of the loss with respect to the outputs of every block; the gradients of one block's weights follow
//! from it when the block is open.

use candle_core::{D, Device, Tensor, Var};

use crate::batch::Batch;
use crate::forward::{Capture, Workspace};
use crate::gradients::{BlockGraph, of_variable, rms_norm};
use crate::{Block, Error, Model, Result};

/// Rows whose logits are formed at once.
const HEAD_ROWS: usize = 64;

/// Gradients of the loss with respect to the weight of one linear, `[out, in]`.
#[derive(Debug, Clone, PartialEq)]
pub struct LossGradient {
    /// Of the mean over windows of each window's own loss, which is the mean over its predicted tokens of `-ln p`.
    pub gradient: Vec<f32>,
    /// Mean over windows of the squared gradient of each window's own loss, where asked for.
    pub mean_square: Option<Vec<f32>>,
}

/// A parameter of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter<'a> {
    /// A tensor of a block, such as `mlp.down_proj.weight`.
    Block(usize, &'a str),
    /// The embedding, `[vocabulary, hidden size]`; the output head as well, where both are one.
    Embedding,
    /// The last norm, `[hidden size]`.
    Norm,
    /// An output head of its own, `[vocabulary, hidden size]`.
    Head,
}

/// The loss of the model that `blocks` make, over windows, and its gradients with respect to parameters, in their order. Both are means over
/// windows of each window's own.
///
/// # Errors
/// [`Error::Argument`] if a window has a single token, or the model has no such parameter.
pub fn model_gradients(
    model: &Model,
    blocks: &[Block],
    windows: &[Vec<u32>],
    parameters: &[Parameter<'_>],
) -> Result<(f64, Vec<Vec<f32>>)> {
    check(windows)?;
    let tied = model.config().tie_word_embeddings;
    for parameter in parameters {
        match parameter {
            Parameter::Block(beyond, name) if *beyond >= blocks.len() => {
                return Err(Error::argument(
                    format!("tensor `{name}` of block {beyond}"),
                    format!("there are blocks 0 to {}", blocks.len() - 1),
                ));
            }
            Parameter::Head if tied => {
                return Err(Error::argument("output head", "it is the embedding in this model"));
            }
            _ => {}
        }
    }
    let place = |wanted: Parameter<'_>| parameters.iter().position(|p| *p == wanted);
    let of_embedding = place(Parameter::Embedding);
    let of_head = if tied { of_embedding } else { place(Parameter::Head) };
    let of_norm = place(Parameter::Norm);
    let head = HeadGraph::new(model.head()?)?;
    // Places of each block's tensors among the parameters.
    let mut own: Vec<Vec<(usize, &str)>> = vec![Vec::new(); blocks.len()];
    for (place, parameter) in parameters.iter().enumerate() {
        if let Parameter::Block(index, name) = parameter {
            own[*index].push((place, name));
        }
    }
    let graphs = blocks.iter().zip(&own).map(|(block, own)| {
        let names: Vec<&str> = own.iter().map(|(_, name)| *name).collect();
        BlockGraph::new(model, block, &names)
    });
    let graphs = graphs.collect::<Result<Vec<_>>>()?;
    // The first block that is gone back through.
    let first = match of_embedding {
        Some(_) => 0,
        None => own.iter().position(|own| !own.is_empty()).unwrap_or(blocks.len()),
    };
    let share = 1.0 / windows.len() as f32;
    let mut loss = 0.0;
    let mut found: Vec<Vec<f32>> = vec![Vec::new(); parameters.len()];
    let mut add = |place: usize, part: &[f32]| {
        let sum = &mut found[place];
        sum.resize(part.len(), 0.0);
        sum.iter_mut().zip(part).for_each(|(sum, g)| *sum += share * g);
    };
    let mut workspace = Workspace::default();
    // Window by window: only one window's states are kept.
    for window in windows {
        let mut batch = Batch::default();
        batch.push(window, Vec::new());
        let mut hidden = model.embed(window)?;
        let mut states = Vec::with_capacity(blocks.len());
        for block in blocks {
            states.push(hidden.clone());
            model.run_one(block, &batch, &mut hidden, &mut workspace, &mut Capture::default());
        }
        let Head { loss: of_window, slopes, norm, weight } =
            head.loss(&hidden, &window[1..], of_norm.is_some() || of_head.is_some())?;
        let mut slopes = slopes;
        loss += of_window * f64::from(share);
        for (place, part) in [(of_norm, norm), (of_head, weight)] {
            if let Some(place) = place {
                add(place, &part);
            }
        }
        for index in (first..blocks.len()).rev() {
            let of_inputs = index > first || of_embedding.is_some();
            let (inputs, parts) = graphs[index].slopes(&states[index], &slopes, of_inputs)?;
            slopes = inputs;
            for ((place, _), part) in own[index].iter().zip(parts) {
                add(*place, &part);
            }
        }
        if let Some(place) = of_embedding {
            let width = model.config().hidden_size;
            let mut rows = vec![0f32; model.config().vocab_size * width];
            for (token, slope) in window.iter().zip(slopes.chunks_exact(width)) {
                let row = &mut rows[*token as usize * width..][..width];
                row.iter_mut().zip(slope).for_each(|(sum, g)| *sum += g);
            }
            add(place, &rows);
        }
    }
    Ok((loss, found))
}

fn check(windows: &[Vec<u32>]) -> Result<()> {
    match windows.iter().position(|window| window.len() < 2) {
        None => Ok(()),
        Some(short) => Err(Error::argument(
            format!("calibration window {short}"),
            "it has one token, so none is predicted and there is no loss; give at least two",
        )),
    }
}

/// Per block, the gradient of each window's own loss with respect to the block's outputs, `[tokens, hidden size]`.
#[derive(Debug)]
pub(crate) struct LossSlopes(Vec<Vec<f32>>);

impl LossSlopes {
    /// Runs the model on `inputs` of block `first`, `[tokens, hidden size]`, of all windows, and goes back.
    pub(crate) fn new(
        model: &Model,
        windows: &[Vec<u32>],
        batches: &[Batch],
        first: usize,
        inputs: &[f32],
    ) -> Result<Self> {
        check(windows)?;
        // Entry `i` holds the inputs of block `i` on the way forward, and the gradient with respect to them on the way back.
        let mut states = vec![Vec::new(); model.block_count() + 1];
        states[first] = inputs.to_vec();
        let mut workspace = Workspace::default();
        for index in first..model.block_count() {
            let mut hidden = states[index].clone();
            let block = model.block(index)?;
            model.run_batches(&block, batches, &mut hidden, &mut workspace);
            states[index + 1] = hidden;
        }
        let width = model.config().hidden_size;
        let head = HeadGraph::new(model.head()?)?;
        each_window(windows, width, &mut states[model.block_count()], |window, rows| {
            Ok(head.loss(rows, &window[1..], false)?.slopes)
        })?;
        for index in (first + 1..model.block_count()).rev() {
            let graph = BlockGraph::new(model, &model.block(index)?, &[])?;
            let (before, after) = states.split_at_mut(index + 1);
            let slopes = &after[0];
            let mut at = 0;
            each_window(windows, width, &mut before[index], |_, rows| {
                let slopes = &slopes[at..at + rows.len()];
                at += rows.len();
                Ok(graph.slopes(rows, slopes, true)?.0)
            })?;
        }
        Ok(Self(states.into_iter().skip(1).collect()))
    }

    /// Lets go of what belongs to a block.
    pub(crate) fn forget(&mut self, index: usize) {
        self.0[index] = Vec::new();
    }

    /// Gradients of the weights of `linears` of block `index`, which is `block` and reads `inputs` in the dense model.
    pub(crate) fn of_block(
        &self,
        model: &Model,
        windows: &[Vec<u32>],
        (index, block): (usize, &Block),
        inputs: &[f32],
        linears: &[&str],
        mean_square: bool,
    ) -> Result<Vec<LossGradient>> {
        let names: Vec<String> = linears.iter().map(|linear| format!("{linear}.weight")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let graph = BlockGraph::new(model, block, &names)?;
        let width = model.config().hidden_size;
        let share = 1.0 / windows.len() as f32;
        let mut found: Vec<LossGradient> = Vec::new();
        let mut first = 0;
        for window in windows {
            let rows = first * width..(first + window.len()) * width;
            first += window.len();
            let (_, parts) = graph.slopes(&inputs[rows.clone()], &self.0[index][rows], false)?;
            if found.is_empty() {
                found = parts
                    .iter()
                    .map(|part| LossGradient {
                        gradient: vec![0.0; part.len()],
                        mean_square: mean_square.then(|| vec![0.0; part.len()]),
                    })
                    .collect();
            }
            for (sum, part) in found.iter_mut().zip(&parts) {
                sum.gradient.iter_mut().zip(part).for_each(|(sum, g)| *sum += share * g);
                if let Some(squares) = &mut sum.mean_square {
                    squares.iter_mut().zip(part).for_each(|(sum, g)| *sum += share * g * g);
                }
            }
        }
        Ok(found)
    }
}

/// Replaces the rows of every window by what `f` makes of them.
fn each_window(
    windows: &[Vec<u32>],
    width: usize,
    states: &mut [f32],
    mut f: impl FnMut(&[u32], &[f32]) -> Result<Vec<f32>>,
) -> Result<()> {
    let mut rest = states;
    for window in windows {
        let (rows, after) = rest.split_at_mut(window.len() * width);
        let replaced = f(window, rows)?;
        rows.copy_from_slice(&replaced);
        rest = after;
    }
    Ok(())
}

/// The last norm and the output head in candle's operations.
struct HeadGraph {
    norm: Var,
    eps: f32,
    weight: Var,
}

/// The loss of one window, and its gradients.
struct Head {
    loss: f64,
    /// With respect to the hidden states.
    slopes: Vec<f32>,
    /// With respect to the norm and to the head's weight, where wanted.
    norm: Vec<f32>,
    weight: Vec<f32>,
}

impl HeadGraph {
    fn new(head: &crate::head::Head) -> Result<Self> {
        let (outputs, inputs) = (head.weight.outputs(), head.weight.inputs());
        Ok(Self {
            norm: Var::from_slice(&head.norm, inputs, &Device::Cpu)?,
            eps: head.eps,
            weight: Var::from_vec(head.weight.unpack(), (outputs, inputs), &Device::Cpu)?,
        })
    }

    /// Mean over `targets` of `-ln p`, the tokens after each row but the last, and its gradients with respect to `hidden`, `[rows, hidden size]`,
    /// and where `own` says so to norm and weight.
    fn loss(&self, hidden: &[f32], targets: &[u32], own: bool) -> Result<Head> {
        let width = self.weight.dim(1)?;
        let plain = |variable: &Var| if own { variable.as_tensor().clone() } else { variable.detach() };
        let (norm, weight) = (plain(&self.norm), plain(&self.weight));
        let mut mean = 0.0;
        let mut slopes = Vec::with_capacity(hidden.len());
        let (mut of_norm, mut of_weight) = (Vec::new(), Vec::new());
        for (rows, next) in
            hidden[..targets.len() * width].chunks(HEAD_ROWS * width).zip(targets.chunks(HEAD_ROWS))
        {
            let x = Var::from_slice(rows, (next.len(), width), &Device::Cpu)?;
            let logits = rms_norm(&x, &norm, self.eps)?.matmul(&weight.t()?)?;
            let largest = logits.max_keepdim(D::Minus1)?.detach();
            let sum = logits.broadcast_sub(&largest)?.exp()?.sum_keepdim(D::Minus1)?;
            let next = Tensor::from_slice(next, (next.len(), 1), &Device::Cpu)?;
            let surprise = ((sum.log()? + largest)? - logits.gather(&next, 1)?)?;
            let loss = (surprise.sum_all()? / targets.len() as f64)?;
            mean += f64::from(loss.to_scalar::<f32>()?);
            let gradients = loss.backward()?;
            slopes.extend(of_variable(&gradients, &x)?);
            if own {
                for (sum, variable) in [(&mut of_norm, &self.norm), (&mut of_weight, &self.weight)] {
                    let part = of_variable(&gradients, variable)?;
                    sum.resize(part.len(), 0.0);
                    sum.iter_mut().zip(part).for_each(|(sum, g): (&mut f32, f32)| *sum += g);
                }
            }
        }
        // Nothing is predicted from the last token.
        slopes.resize(hidden.len(), 0.0);
        Ok(Head { loss: mean, slopes, norm: of_norm, weight: of_weight })
    }
}
