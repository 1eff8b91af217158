//! Gradients of the model's loss with respect to weights, block by block.
//!
//! A method walks from the first block to the last, gradients come from the last to the first. So the dense model is run once, forward and
//! back, and what is kept is the gradient of the loss with respect to the outputs of every block; the gradients of one block's weights follow
//! from it when the block is open.

use std::ops::Range;

use candle_core::{D, Device, Tensor, Var};

use crate::batch::{Batch, rows_of};
use crate::forward::{Capture, Workspace};
use crate::gradients::{BlockGraph, NormGraph, of_variable};
use crate::layout::OuterTensor;
use crate::states::{Budget, States};
use crate::{Architecture, Block, Error, Model, Result};

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
    /// One outside the blocks.
    Outer(OuterTensor),
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
    let architecture = model.architecture();
    for parameter in parameters {
        match parameter {
            Parameter::Block(beyond, name) if *beyond >= blocks.len() => {
                return Err(Error::argument(
                    format!("tensor `{name}` of block {beyond}"),
                    format!("there are blocks 0 to {}", blocks.len() - 1),
                ));
            }
            Parameter::Outer(OuterTensor::Head) if architecture.tie_word_embeddings => {
                return Err(Error::argument("output head", "it is the embedding in this model"));
            }
            Parameter::Outer(tensor) if tensor.shape(architecture).is_none() => {
                return Err(Error::argument(format!("{tensor:?}"), "this model has none"));
            }
            _ => {}
        }
    }
    let place = |wanted: OuterTensor| parameters.iter().position(|p| *p == Parameter::Outer(wanted));
    let stem = Stem::new(model, &place)?;
    // The head's own tensors, and where their gradients go.
    let of_head = [
        place(OuterTensor::FinalNorm),
        place(OuterTensor::FinalNormBias),
        place(OuterTensor::ProjectOut),
        place(if architecture.tie_word_embeddings { OuterTensor::Embedding } else { OuterTensor::Head }),
    ];
    let head = HeadGraph::new(model.head()?, architecture)?;
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
    let first = match stem.wanted() {
        true => 0,
        false => own.iter().position(|own| !own.is_empty()).unwrap_or(blocks.len()),
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
        let mut hidden = model.embed(window, &batch.positions)?;
        let mut states = Vec::with_capacity(blocks.len());
        for block in blocks {
            states.push(hidden.clone());
            model.run_one(block, &batch, &mut hidden, &mut workspace, &mut Capture::default());
        }
        let own_of_head = of_head.iter().any(Option::is_some);
        let HeadSlopes { loss: of_window, mut slopes, own: parts } =
            head.loss(&hidden, &window[1..], own_of_head)?;
        loss += of_window * f64::from(share);
        for (place, part) in of_head.into_iter().zip(parts) {
            if let Some(place) = place {
                add(place, &part);
            }
        }
        for index in (first..blocks.len()).rev() {
            let of_inputs = index > first || stem.wanted();
            let (inputs, parts) = graphs[index].slopes(&states[index], &slopes, of_inputs)?;
            slopes = inputs;
            for ((place, _), part) in own[index].iter().zip(parts) {
                add(*place, &part);
            }
        }
        if stem.wanted() {
            stem.slopes(model, window, &slopes, &mut add)?;
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

/// Per block, the gradient of each window's own loss with respect to the block's outputs, `[tokens, hidden size]`; none any more for blocks that
/// are done with.
#[derive(Debug)]
pub(crate) struct LossSlopes(Vec<Option<States>>);

impl LossSlopes {
    /// Runs the model on `inputs` of block `first`, `[tokens, hidden size]`, of all windows, and goes back.
    pub(crate) fn new(
        model: &Model,
        windows: &[Vec<u32>],
        batches: &[Batch],
        (first, inputs): (usize, &[f32]),
        budget: &Budget,
    ) -> Result<Self> {
        check(windows)?;
        let width = model.architecture().hidden_size;
        let count = model.block_count();
        // Entry `i` holds the inputs of block `i` on the way forward, and the gradient with respect to them on the way back.
        let mut states: Vec<Option<States>> = (0..=count).map(|_| None).collect();
        let mut present = States::new(inputs.len() / width, width, budget)?;
        present.set(0, inputs)?;
        let mut workspace = Workspace::default();
        for (index, place) in states.iter_mut().enumerate().take(count).skip(first) {
            let mut next = present.copy(budget)?;
            let block = model.block(index)?;
            for (rows, batch) in rows_of(batches) {
                next.change(rows, |hidden| {
                    model.run_one(&block, batch, hidden, &mut workspace, &mut Capture::default());
                    Ok(())
                })?;
            }
            *place = Some(std::mem::replace(&mut present, next));
        }
        let head = HeadGraph::new(model.head()?, model.architecture())?;
        for (window, rows) in windows.iter().zip(rows_of_windows(windows)) {
            present.change(rows, |hidden| {
                hidden.copy_from_slice(&head.loss(hidden, &window[1..], false)?.slopes);
                Ok(())
            })?;
        }
        states[count] = Some(present);
        for index in (first + 1..count).rev() {
            let graph = BlockGraph::new(model, &model.block(index)?, &[])?;
            let (before, after) = states.split_at_mut(index + 1);
            let (Some(inputs), Some(slopes)) = (&mut before[index], &after[0]) else { continue };
            for rows in rows_of_windows(windows) {
                let slopes = slopes.get(rows.clone())?;
                inputs.change(rows, |hidden| {
                    let back = graph.slopes(hidden, &slopes, true)?.0;
                    hidden.copy_from_slice(&back);
                    Ok(())
                })?;
            }
        }
        states.remove(0);
        Ok(Self(states))
    }

    /// Lets go of what belongs to a block.
    pub(crate) fn forget(&mut self, index: usize) {
        self.0[index] = None;
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
        let width = model.architecture().hidden_size;
        let share = 1.0 / windows.len() as f32;
        let Some(slopes) = &self.0[index] else {
            return Err(Error::Order(format!("block {index} is done with; its gradients are gone")));
        };
        let mut found: Vec<LossGradient> = Vec::new();
        for rows in rows_of_windows(windows) {
            let inputs = &inputs[rows.start * width..rows.end * width];
            let (_, parts) = graph.slopes(inputs, &slopes.get(rows)?, false)?;
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

/// The rows of each window, which stand one after another.
fn rows_of_windows(windows: &[Vec<u32>]) -> impl Iterator<Item = Range<usize>> + '_ {
    windows.iter().scan(0, |first, window| {
        let rows = *first..*first + window.len();
        *first = rows.end;
        Some(rows)
    })
}

/// What lies before the first block, and where its gradients go among the parameters.
struct Stem {
    embedding: Option<usize>,
    positions: Option<usize>,
    project_in: Option<usize>,
    /// The weight of the projection, `[hidden size, embedding size]`, where there is one.
    project: Option<Tensor>,
}

impl Stem {
    fn new(model: &Model, place: &impl Fn(OuterTensor) -> Option<usize>) -> Result<Self> {
        let shape = OuterTensor::ProjectIn.shape(model.architecture());
        let project = match (shape, model.outer(OuterTensor::ProjectIn)?) {
            (Some(shape), Some(values)) => Some(Tensor::from_vec(values, shape, &Device::Cpu)?),
            _ => None,
        };
        Ok(Self {
            embedding: place(OuterTensor::Embedding),
            positions: place(OuterTensor::Positions),
            project_in: place(OuterTensor::ProjectIn),
            project,
        })
    }

    /// Whether any gradient of it is.
    fn wanted(&self) -> bool {
        self.embedding.or(self.positions).or(self.project_in).is_some()
    }

    /// Gradients that follow from those of the first block's inputs, `[tokens, hidden size]`.
    fn slopes(
        &self,
        model: &Model,
        window: &[u32],
        slopes: &[f32],
        add: &mut impl FnMut(usize, &[f32]),
    ) -> Result<()> {
        let a = model.architecture();
        if let (Some(place), Some(rows)) = (self.positions, a.learned_positions()) {
            let unused = rows - a.max_position_embeddings;
            let mut all = vec![0f32; rows * a.hidden_size];
            all[unused * a.hidden_size..][..slopes.len()].copy_from_slice(slopes);
            add(place, &all);
        }
        let mut of_embedded = slopes.to_vec();
        if let Some(project) = &self.project {
            let slopes = Tensor::from_slice(slopes, (window.len(), a.hidden_size), &Device::Cpu)?;
            if let Some(place) = self.project_in {
                let names = a.family.names;
                let rows = model.source().load_rows(&OuterTensor::Embedding.name(names), window)?;
                let embedded = Tensor::from_vec(rows, (window.len(), a.embedding_size), &Device::Cpu)?;
                let gradient = slopes.t()?.contiguous()?.matmul(&embedded)?;
                add(place, &gradient.flatten_all()?.to_vec1::<f32>()?);
            }
            of_embedded = slopes.matmul(project)?.flatten_all()?.to_vec1()?;
        }
        if let Some(place) = self.embedding {
            let width = a.embedding_size;
            let mut rows = vec![0f32; a.vocab_size * width];
            for (token, slope) in window.iter().zip(of_embedded.chunks_exact(width)) {
                let row = &mut rows[*token as usize * width..][..width];
                row.iter_mut().zip(slope).for_each(|(sum, g)| *sum += g);
            }
            add(place, &rows);
        }
        Ok(())
    }
}

/// The last norm, the projection and the output head in candle's operations.
struct HeadGraph {
    hidden: usize,
    eps: f32,
    /// Weight and bias of the norm, the projection, the head; those that there are.
    own: [Option<Var>; 4],
}

/// The loss of one window, and its gradients.
struct HeadSlopes {
    loss: f64,
    /// With respect to the hidden states.
    slopes: Vec<f32>,
    /// With respect to the head's own tensors, where wanted.
    own: [Vec<f32>; 4],
}

impl HeadGraph {
    fn new(head: &crate::head::Head, a: &Architecture) -> Result<Self> {
        let vector = |values: &[f32]| Var::from_slice(values, values.len(), &Device::Cpu);
        let matrix = |m: &crate::Weight| Var::from_vec(m.unpack(), (m.outputs(), m.inputs()), &Device::Cpu);
        let norm = head.norm.as_ref();
        let own = [
            norm.map(|norm| vector(&norm.weight)).transpose()?,
            norm.and_then(|norm| norm.bias.as_ref()).map(|bias| vector(bias)).transpose()?,
            head.project.as_ref().map(matrix).transpose()?,
            Some(matrix(&head.weight)?),
        ];
        Ok(Self { hidden: a.hidden_size, eps: a.norm_eps, own })
    }

    /// Mean over `targets` of `-ln p`, the tokens after each row but the last, and its gradients with respect to `hidden`, `[rows, hidden size]`,
    /// and where `wanted` to its own tensors.
    fn loss(&self, hidden: &[f32], targets: &[u32], wanted: bool) -> Result<HeadSlopes> {
        let plain = |variable: &Var| if wanted { variable.as_tensor().clone() } else { variable.detach() };
        let [norm, bias, project, weight] = self.own.each_ref().map(|variable| variable.as_ref().map(plain));
        let norm = norm.map(|weight| NormGraph { weight, bias, eps: self.eps });
        let mut mean = 0.0;
        let mut slopes = Vec::with_capacity(hidden.len());
        let mut own = [const { Vec::new() }; 4];
        for (rows, next) in hidden[..targets.len() * self.hidden]
            .chunks(HEAD_ROWS * self.hidden)
            .zip(targets.chunks(HEAD_ROWS))
        {
            let x = Var::from_slice(rows, (next.len(), self.hidden), &Device::Cpu)?;
            let mut y = x.as_tensor().clone();
            if let Some(norm) = &norm {
                y = norm.apply(&y)?;
            }
            for matrix in [&project, &weight].into_iter().flatten() {
                y = y.matmul(&matrix.t()?)?;
            }
            let logits = y;
            let largest = logits.max_keepdim(D::Minus1)?.detach();
            let sum = logits.broadcast_sub(&largest)?.exp()?.sum_keepdim(D::Minus1)?;
            let next = Tensor::from_slice(next, (next.len(), 1), &Device::Cpu)?;
            let surprise = ((sum.log()? + largest)? - logits.gather(&next, 1)?)?;
            let loss = (surprise.sum_all()? / targets.len() as f64)?;
            mean += f64::from(loss.to_scalar::<f32>()?);
            let gradients = loss.backward()?;
            slopes.extend(of_variable(&gradients, &x)?);
            if wanted {
                for (sum, variable) in own.iter_mut().zip(&self.own) {
                    let Some(variable) = variable else { continue };
                    let part = of_variable(&gradients, variable)?;
                    sum.resize(part.len(), 0.0);
                    sum.iter_mut().zip(part).for_each(|(sum, g): (&mut f32, f32)| *sum += g);
                }
            }
        }
        // Nothing is predicted from the last token.
        slopes.resize(hidden.len(), 0.0);
        Ok(HeadSlopes { loss: mean, slopes, own })
    }
}
