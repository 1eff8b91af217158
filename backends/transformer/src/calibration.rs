//! Walking a model block by block over calibration data.
//!
//! The hidden states of all calibration tokens before the current block are kept, nothing else, and in a file where they exceed a budget;
//! one block is resident at a time. A
//! method opens a block, asks for statistics of what its linears read, replaces weights, and closes it, which runs it once more
//! to make the inputs of the next.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::batch::{Batch, rows_of};
use crate::block::Block;
use crate::forward::{Capture, Workspace, run_feed_forward, run_linear};
use crate::gradients::BlockGraph;
use crate::layout::{InputGroup, ModuleInfo};
use crate::loss::{LossGradient, LossSlopes};
use crate::states::{Budget, States};
use crate::statistics::{Accumulator, Statistic, StatisticKind};
use crate::{Error, Model, Result};

/// How calibration data is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationOptions {
    /// Most tokens that run at once (a longer window runs alone); bounds memory.
    pub batch_tokens: usize,
    /// Tokens at the start of each window that statistics leave out. Without a beginning-of-text token the first one often carries a massive
    /// activation that drowns all others.
    pub skip_first: usize,
    /// Whose outputs a block reads.
    pub inputs: BlockInputs,
    /// Whether targets are the dense block's outputs in the dense model, rather than on what the block reads.
    pub dense_targets: bool,
    /// Most bytes of activations of all calibration tokens that are kept in memory; what is beyond goes to temporary files. None: no bound.
    pub activation_bytes: Option<usize>,
    /// Where those files are; none: where the system keeps large temporary files.
    pub spill_directory: Option<PathBuf>,
}

/// Whose outputs a block reads while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlockInputs {
    /// Those of the blocks before it as they were left.
    #[default]
    Compressed,
    /// Those of the blocks before it as they were opened.
    Dense,
}

impl Default for CalibrationOptions {
    fn default() -> Self {
        Self {
            batch_tokens: 4096,
            skip_first: 0,
            inputs: BlockInputs::Compressed,
            dense_targets: false,
            activation_bytes: None,
            spill_directory: None,
        }
    }
}

/// A statistic of one linear's input.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StatisticRequest {
    /// The linear's name inside the block, such as `mlp.down_proj`.
    pub linear: String,
    /// What is wanted.
    pub kind: StatisticKind,
}

/// Weights to try in place of a block's own: pairs of a tensor's name inside the block (`mlp.down_proj.weight`) and its values.
pub type Trial = [(String, Vec<f32>)];

/// A model being calibrated.
#[derive(Debug)]
pub struct Calibrator {
    model: Arc<Model>,
    options: CalibrationOptions,
    windows: Vec<Vec<u32>>,
    batches: Vec<Batch>,
    budget: Budget,
    /// Hidden states before block `next` (or before the open block), `[tokens, hidden size]`.
    inputs: States,
    /// The same in the dense model, where it is needed and differs.
    dense_inputs: Option<States>,
    /// The first block that is not closed.
    next: usize,
    open: Option<OpenBlock>,
    /// How the loss over some windows changes with the outputs of blocks; made when first wanted.
    loss: Option<(Vec<usize>, LossSlopes)>,
    workspace: Workspace,
}

#[derive(Debug)]
struct OpenBlock {
    /// As it was opened; kept where it is needed once more for certain, else read again from the files when it is wanted.
    original: Option<Block>,
    current: Block,
    /// What the original weights give; made when first wanted.
    target: Option<States>,
    /// A part of the block with the present weights; made when first wanted, gone when a weight changes.
    module: Option<ModuleRun>,
}

/// What a part of a block reads and gives.
#[derive(Debug)]
struct ModuleRun {
    module: ModuleInfo,
    /// Of the feed-forward part; attention needs the residual stream, from which its norm is cheap.
    inputs: Option<States>,
    outputs: States,
}

impl Calibrator {
    /// Embeds the windows. Their number of tokens may differ.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no window, one is empty or longer than the model's context, or a token is beyond the vocabulary.
    pub fn new(model: Arc<Model>, windows: Vec<Vec<u32>>, options: CalibrationOptions) -> Result<Self> {
        let limit = model.architecture().max_position_embeddings;
        if windows.is_empty() {
            return Err(Error::argument("calibration data", "there are no windows; give at least one"));
        }
        for (i, window) in windows.iter().enumerate() {
            let what = format!("calibration window {i}");
            if window.is_empty() || window.len() > limit {
                return Err(Error::argument(
                    what,
                    format!("it has {} tokens; give from 1 to {limit}", window.len()),
                ));
            }
            model.check_tokens(window, &what)?;
        }
        let batches = batches(&windows, options.batch_tokens);
        let budget = Budget::new(options.activation_bytes, options.spill_directory.as_deref());
        let inputs = Self::embed(&model, &batches, &budget)?;
        Ok(Self {
            model,
            options,
            windows,
            batches,
            budget,
            dense_inputs: None,
            inputs,
            next: 0,
            open: None,
            loss: None,
            workspace: Workspace::default(),
        })
    }

    fn embed(model: &Model, batches: &[Batch], budget: &Budget) -> Result<States> {
        let tokens = batches.iter().map(Batch::rows).sum();
        let mut inputs = States::new(tokens, model.architecture().hidden_size, budget)?;
        for (rows, batch) in rows_of(batches) {
            inputs.set(rows.start, &model.embed(&batch.tokens, &batch.positions)?)?;
        }
        Ok(inputs)
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// How calibration data is run.
    pub fn options(&self) -> &CalibrationOptions {
        &self.options
    }

    /// Number of windows.
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    /// Tokens of all windows.
    pub fn tokens(&self) -> usize {
        self.windows.iter().map(Vec::len).sum()
    }

    /// The open block, or the one to be opened next; the number of blocks when all are closed.
    pub fn position(&self) -> usize {
        self.next
    }

    /// Hidden states before the block at [`position`](Self::position), `[tokens, hidden size]`, windows one after the other.
    ///
    /// # Errors
    /// [`Error::Io`] if they are in a file that cannot be read.
    pub fn inputs(&self) -> Result<Vec<f32>> {
        Ok(self.inputs.get(0..self.inputs.rows())?.into_owned())
    }

    /// Whether activations are in a temporary file.
    pub fn spilled(&self) -> bool {
        self.inputs.spilled()
    }

    /// Opens the block at [`position`](Self::position).
    ///
    /// # Errors
    /// [`Error::Order`] if a block is open or `index` is another block; or if its tensors cannot be decoded.
    pub fn open_block(&mut self, index: usize) -> Result<()> {
        if self.open.is_some() {
            return Err(Error::Order(format!(
                "block {} is still open; close it before block {index} is opened",
                self.next
            )));
        }
        if index != self.next {
            return Err(Error::Order(format!(
                "block {index} cannot be opened now: the next is {}; `seek` goes to another",
                self.next
            )));
        }
        let block = self.model.block(index)?;
        let needed = self.options.inputs == BlockInputs::Dense || self.options.dense_targets;
        let original = needed.then(|| block.clone());
        self.open = Some(OpenBlock { original, current: block, target: None, module: None });
        Ok(())
    }

    fn opened(&self) -> Result<&OpenBlock> {
        self.open.as_ref().ok_or_else(|| Error::Order("no block is open; open one first".to_owned()))
    }

    /// The open block with its weights as they are now.
    ///
    /// # Errors
    /// [`Error::Order`] if no block is open.
    pub fn block(&self) -> Result<&Block> {
        Ok(&self.opened()?.current)
    }

    /// The open block with the weights it was opened with.
    ///
    /// # Errors
    /// [`Error::Order`] if no block is open.
    pub fn original_block(&self) -> Result<Block> {
        match &self.opened()?.original {
            Some(block) => Ok(block.clone()),
            None => self.model.block(self.next),
        }
    }

    /// Shows `visit` what each group of linears reads, batch by batch, with the weights of `block`, on what it reads in the `dense` model or the
    /// present one: the group, the inputs `[rows, in]`, the batch and its first row.
    fn visit_inputs(
        &mut self,
        block: &Block,
        dense: bool,
        groups: &[InputGroup],
        visit: &mut dyn FnMut(InputGroup, &[f32], &Batch, usize) -> Result<()>,
    ) -> Result<()> {
        let inputs = match &self.dense_inputs {
            Some(inputs) if dense => inputs,
            _ => &self.inputs,
        };
        for (rows, batch) in rows_of(&self.batches) {
            let mut hidden = inputs.get(rows.clone())?.into_owned();
            let mut capture = Capture::only(groups);
            self.model.run_one(block, batch, &mut hidden, &mut self.workspace, &mut capture);
            for &group in groups {
                if let Some(x) = capture.input(group) {
                    visit(group, x, batch, rows.start)?;
                }
            }
        }
        Ok(())
    }

    /// Statistics of what linears of the open block read, with its weights as they are now. All come from one pass, and what several
    /// linears share is computed once (and shared in the answer).
    ///
    /// # Errors
    /// [`Error::Order`] if no block is open; [`Error::Argument`] if there is no such linear.
    pub fn input_statistics(&mut self, requests: &[StatisticRequest]) -> Result<Vec<Arc<Statistic>>> {
        self.statistics(requests, false)
    }

    /// As [`input_statistics`](Self::input_statistics), of what they read in the dense model.
    ///
    /// # Errors
    /// As there; [`Error::Argument`] if the dense model's activations are not kept.
    pub fn dense_input_statistics(&mut self, requests: &[StatisticRequest]) -> Result<Vec<Arc<Statistic>>> {
        self.statistics(requests, true)
    }

    fn statistics(&mut self, requests: &[StatisticRequest], dense: bool) -> Result<Vec<Arc<Statistic>>> {
        let block = if dense { self.original_block()? } else { self.opened()?.current.clone() };
        if dense {
            self.dense_inputs("statistics of the dense model")?;
        }
        let info = block.info();
        let skip = self.options.skip_first;
        let total: usize = self.windows.iter().map(|w| w.len().saturating_sub(skip)).sum();
        let mut groups: Vec<InputGroup> = Vec::new();
        let mut pending: Vec<(InputGroup, StatisticKind, Accumulator)> = Vec::new();
        let mut places = Vec::with_capacity(requests.len());
        for request in requests {
            let linear = info.linear(&request.linear)?;
            let same = |(group, kind, _): &(InputGroup, StatisticKind, Accumulator)| {
                *group == linear.input && *kind == request.kind
            };
            let place = match pending.iter().position(same) {
                Some(place) => place,
                None => {
                    let accumulator = Accumulator::new(request.kind, linear.in_features, total);
                    pending.push((linear.input, request.kind, accumulator));
                    pending.len() - 1
                }
            };
            if !groups.contains(&linear.input) {
                groups.push(linear.input);
            }
            places.push(place);
        }
        let model = Arc::clone(&self.model);
        self.visit_inputs(&block, dense, &groups, &mut |group, x, batch, _| {
            let width = x.len() / batch.rows();
            for (_, _, accumulator) in pending.iter_mut().filter(|(g, _, _)| *g == group) {
                model.install(|| {
                    if skip == 0 {
                        accumulator.add(x);
                        return;
                    }
                    for segment in &batch.segments {
                        let from = segment.first_row + skip.min(segment.len);
                        accumulator.add(&x[from * width..(segment.first_row + segment.len) * width]);
                    }
                });
            }
            Ok(())
        })?;
        let finished: Vec<Arc<Statistic>> =
            pending.into_iter().map(|(_, _, accumulator)| Arc::new(accumulator.finish())).collect();
        Ok(places.into_iter().map(|place| finished[place].clone()).collect())
    }

    /// What the open block reads in the dense model.
    fn dense_inputs(&self, what: &str) -> Result<&States> {
        if self.options.inputs == BlockInputs::Compressed && !self.options.dense_targets {
            return Err(Error::argument(
                what,
                "its activations are kept only where blocks read them or aim at them",
            ));
        }
        Ok(self.dense_inputs.as_ref().unwrap_or(&self.inputs))
    }

    fn with_trial(block: &Block, trial: &Trial) -> Result<Block> {
        let mut block = block.clone();
        for (name, values) in trial {
            block.set_tensor(name, values.clone())?;
        }
        Ok(block)
    }

    /// Shows `visit` the outputs of a block on what the open block reads, batch by batch, with their rows.
    fn visit_outputs(
        &mut self,
        block: &Block,
        visit: &mut dyn FnMut(Range<usize>, &[f32]) -> Result<()>,
    ) -> Result<()> {
        for (rows, batch) in rows_of(&self.batches) {
            let mut hidden = self.inputs.get(rows.clone())?.into_owned();
            self.model.run_one(block, batch, &mut hidden, &mut self.workspace, &mut Capture::default());
            visit(rows, &hidden)?;
        }
        Ok(())
    }

    /// Replaces states by what a block makes of them, in place: a second copy of all activations would double the memory.
    fn run(
        model: &Model,
        block: &Block,
        batches: &[Batch],
        states: &mut States,
        workspace: &mut Workspace,
    ) -> Result<()> {
        for (rows, batch) in rows_of(batches) {
            states.change(rows, |hidden| {
                model.run_one(block, batch, hidden, workspace, &mut Capture::default());
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Outputs of the open block, `[tokens, hidden size]`, with its weights as they are now except for those of `trial`.
    ///
    /// # Errors
    /// [`Error::Order`] if no block is open; [`Error::Argument`] if `trial` does not fit the block.
    pub fn forward_block(&mut self, trial: &Trial) -> Result<Vec<f32>> {
        let block = Self::with_trial(&self.opened()?.current, trial)?;
        let mut all = Vec::with_capacity(self.inputs.rows() * self.model.architecture().hidden_size);
        self.visit_outputs(&block, &mut |_, outputs| {
            all.extend_from_slice(outputs);
            Ok(())
        })?;
        Ok(all)
    }

    /// Takes out what the open block's outputs are compared with, `[tokens, hidden size]`: those of the weights it was opened with. The
    /// caller puts it back.
    fn take_target(&mut self) -> Result<States> {
        self.opened()?;
        if let Some(target) = self.open.as_mut().and_then(|open| open.target.take()) {
            return Ok(target);
        }
        let original = self.original_block()?;
        let mut target = match &self.dense_inputs {
            Some(dense) if self.options.dense_targets => dense.copy(&self.budget)?,
            _ => self.inputs.copy(&self.budget)?,
        };
        Self::run(&self.model, &original, &self.batches, &mut target, &mut self.workspace)?;
        Ok(target)
    }

    /// Mean squared difference between the outputs of the open block with `trial` (over the weights as they are now) and its targets: the
    /// outputs with the weights it was opened with, on the same inputs or in the dense model, as the options say.
    ///
    /// # Errors
    /// As [`forward_block`](Self::forward_block).
    pub fn output_error(&mut self, trial: &Trial) -> Result<f64> {
        let target = self.take_target()?;
        let block = Self::with_trial(&self.opened()?.current, trial)?;
        let mut error = Difference::default();
        self.visit_outputs(&block, &mut |rows, outputs| {
            error.add(outputs, &target.get(rows)?);
            Ok(())
        })?;
        if let Some(open) = self.open.as_mut() {
            open.target = Some(target);
        }
        Ok(error.mean_square())
    }

    /// Mean squared difference between the outputs of a part of the open block with `trial` and with the weights as they are now, both on
    /// what the part reads with the weights as they are now.
    ///
    /// # Errors
    /// As [`forward_block`](Self::forward_block).
    pub fn module_error(&mut self, module: ModuleInfo, trial: &Trial) -> Result<f64> {
        let current = self.opened()?.current.clone();
        let known = match self.open.as_mut().and_then(|open| open.module.take()) {
            Some(known) if known.module == module => known,
            _ => {
                let tokens = self.inputs.rows();
                let width = self.model.architecture().hidden_size;
                let inputs = match module {
                    ModuleInfo::Attention => None,
                    ModuleInfo::Mlp => {
                        let mut inputs = States::new(tokens, width, &self.budget)?;
                        self.visit_inputs(&current, false, &[module.input()], &mut |_, x, _, first| {
                            inputs.set(first, x)
                        })?;
                        Some(inputs)
                    }
                };
                let mut outputs = States::new(tokens, width, &self.budget)?;
                self.visit_module(module, &current, inputs.as_ref(), &mut |rows, given| {
                    outputs.set(rows.start, given)
                })?;
                ModuleRun { module, inputs, outputs }
            }
        };
        let changed = Self::with_trial(&current, trial)?;
        let mut error = Difference::default();
        self.visit_module(module, &changed, known.inputs.as_ref(), &mut |rows, given| {
            error.add(given, &known.outputs.get(rows)?);
            Ok(())
        })?;
        if let Some(open) = self.open.as_mut() {
            open.module = Some(known);
        }
        Ok(error.mean_square())
    }

    /// Shows `visit` what a part of a block gives, batch by batch: the feed-forward part of `inputs`, attention of the residual stream.
    fn visit_module(
        &mut self,
        module: ModuleInfo,
        block: &Block,
        inputs: Option<&States>,
        visit: &mut dyn FnMut(Range<usize>, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let model = Arc::clone(&self.model);
        if let Some(inputs) = inputs {
            for (rows, _) in rows_of(&self.batches) {
                let read = inputs.get(rows.clone())?;
                visit(rows, &model.install(|| run_feed_forward(block, &read)))?;
            }
            return Ok(());
        }
        let a = block.architecture();
        let (outputs, width) = module.last().shape(a);
        self.visit_inputs(block, false, &[module.inner()], &mut |_, x, batch, first| {
            let mut mixed = x.to_vec();
            let given = model.install(|| {
                block.round_inputs_parallel(module.inner(), &mut mixed, width);
                run_linear(block.role(module.last()), &mixed, width, outputs)
            });
            visit(first..first + batch.rows(), &given)
        })
    }

    /// Changes the open block as `change` does.
    ///
    /// # Errors
    /// [`Error::Order`] if no block is open; what `change` says.
    pub fn change_block(&mut self, change: impl FnOnce(&mut Block) -> Result<()>) -> Result<()> {
        let Some(open) = &mut self.open else {
            return Err(Error::Order("no block is open; open one first".to_owned()));
        };
        open.module = None;
        change(&mut open.current)
    }

    /// [`output_error`](Self::output_error) over some windows (none given: all) and its gradients with respect to tensors of the block, by their
    /// names inside it (`mlp.down_proj.weight`, `input_layernorm.weight`). Runs through candle's automatic differentiation, one
    /// window at a time. Where activations are rounded, rounding counts as the identity; values that are cut off have no gradient, and the
    /// step of a token's own grid has one.
    ///
    /// # Errors
    /// As [`forward_block`](Self::forward_block); [`Error::Argument`] if there is no such tensor or window.
    pub fn block_gradients(
        &mut self,
        tensors: &[&str],
        trial: &Trial,
        windows: &[usize],
    ) -> Result<(f64, Vec<Vec<f32>>)> {
        let target = self.take_target()?;
        let block = Self::with_trial(&self.opened()?.current, trial)?;
        let graph = BlockGraph::new(&self.model, &block, tensors)?;
        let width = self.model.architecture().hidden_size;
        let windows = self.chosen(windows)?;
        let first_row = |window: usize| self.windows[..window].iter().map(Vec::len).sum::<usize>();
        let tokens: usize = windows.iter().map(|&w| self.windows[w].len()).sum();
        let scale = 1.0 / (tokens * width) as f64;
        let mut error = 0.0;
        let mut gradients: Vec<Vec<f32>> = Vec::new();
        for window in windows {
            let first = first_row(window);
            let rows = first..first + self.windows[window].len();
            let (part, parts) = graph.squared_error(&self.inputs.get(rows.clone())?, &target.get(rows)?)?;
            error += part * scale;
            if gradients.is_empty() {
                gradients = parts.iter().map(|g| vec![0.0; g.len()]).collect();
            }
            for (sum, part) in gradients.iter_mut().zip(&parts) {
                for (s, &p) in sum.iter_mut().zip(part) {
                    *s += (f64::from(p) * scale) as f32;
                }
            }
        }
        if let Some(open) = self.open.as_mut() {
            open.target = Some(target);
        }
        Ok((error, gradients))
    }

    /// Gradients of the dense model's loss over some windows (none given: all) with respect to weights of linears of the open block, as it was
    /// opened. The first call runs all blocks from this one on, forward and back; after that each block's own part is left.
    ///
    /// # Errors
    /// [`Error::Order`] if no block is open; [`Error::Argument`] if there is no such linear or window, the dense model's activations are not
    /// kept, or a window has a single token.
    pub fn loss_gradients(
        &mut self,
        linears: &[&str],
        mean_square: bool,
        windows: &[usize],
    ) -> Result<Vec<LossGradient>> {
        let original = self.original_block()?;
        for linear in linears {
            original.linear(linear)?;
        }
        let chosen = self.chosen(windows)?;
        let known = self.loss.take().filter(|(of, _)| *of == chosen);
        let inputs = self.dense_inputs("gradients of the dense model's loss")?;
        let inputs = self.rows(&chosen, inputs)?;
        let windows: Vec<Vec<u32>> = chosen.iter().map(|&w| self.windows[w].clone()).collect();
        let loss = match known {
            Some((_, known)) => known,
            None => {
                let batches = batches(&windows, self.options.batch_tokens);
                LossSlopes::new(&self.model, &windows, &batches, (self.next, &inputs), &self.budget)?
            }
        };
        let block = (self.next, &original);
        let found = loss.of_block(&self.model, &windows, block, &inputs, linears, mean_square);
        self.loss = Some((chosen, loss));
        found
    }

    /// The windows that a request means: all if it names none.
    fn chosen(&self, windows: &[usize]) -> Result<Vec<usize>> {
        let all = self.windows.len();
        match windows.iter().find(|&&w| w >= all) {
            Some(beyond) => Err(Error::argument(
                format!("calibration window {beyond}"),
                format!("there are windows 0 to {}", all - 1),
            )),
            None if windows.is_empty() => Ok((0..all).collect()),
            None => Ok(windows.to_vec()),
        }
    }

    /// The rows of some windows, of those of all.
    fn rows(&self, windows: &[usize], of: &States) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for &window in windows {
            let first = self.windows[..window].iter().map(Vec::len).sum::<usize>();
            all.extend_from_slice(&of.get(first..first + self.windows[window].len())?);
        }
        Ok(all)
    }

    /// The tokens of some windows (none given: all).
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such window.
    pub fn window_tokens(&self, windows: &[usize]) -> Result<Vec<Vec<u32>>> {
        Ok(self.chosen(windows)?.into_iter().map(|window| self.windows[window].clone()).collect())
    }

    /// Runs the open block with its weights as they are now, which makes the inputs of the next, and closes it. Gives the block, to be
    /// written to a checkpoint.
    ///
    /// # Errors
    /// [`Error::Order`] if no block is open.
    pub fn close_block(&mut self) -> Result<Block> {
        self.opened()?;
        let Some(OpenBlock { original, current: block, .. }) = self.open.take() else {
            return Err(Error::Order("no block is open; open one first".to_owned()));
        };
        self.advance(&block, original.as_ref())?;
        Ok(block)
    }

    /// Goes past a block that was left as `block`, and opened as `original`, which is given where it is needed.
    fn advance(&mut self, block: &Block, original: Option<&Block>) -> Result<()> {
        let original = original.unwrap_or(block);
        let (model, batches, workspace) = (&self.model, &self.batches, &mut self.workspace);
        if self.options.dense_targets && self.options.inputs == BlockInputs::Compressed {
            let mut dense = match self.dense_inputs.take() {
                Some(dense) => dense,
                None => self.inputs.copy(&self.budget)?,
            };
            Self::run(model, original, batches, &mut dense, workspace)?;
            self.dense_inputs = Some(dense);
        }
        let runs = match self.options.inputs {
            BlockInputs::Dense => original,
            BlockInputs::Compressed => block,
        };
        Self::run(model, runs, batches, &mut self.inputs, workspace)?;
        if let Some((_, loss)) = &mut self.loss {
            loss.forget(self.next);
        }
        self.next += 1;
        Ok(())
    }

    /// Goes to block `index`, with no block open, by running all blocks before it anew. `replaced` gives the blocks that were closed with other
    /// weights than the model's; for the others it gives none.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such block; what `replaced` or a block's decoding fails with.
    pub fn seek(
        &mut self,
        index: usize,
        replaced: &mut dyn FnMut(usize) -> Result<Option<Block>>,
    ) -> Result<()> {
        if index > self.model.block_count() {
            return Err(Error::argument(
                format!("block {index}"),
                format!("the model has blocks 0 to {}", self.model.block_count() - 1),
            ));
        }
        self.open = None;
        if index < self.next {
            self.inputs = Self::embed(&self.model, &self.batches, &self.budget)?;
            self.dense_inputs = None;
            self.loss = None;
            self.next = 0;
        }
        while self.next < index {
            let original = self.model.block(self.next)?;
            let block = replaced(self.next)?.unwrap_or_else(|| original.clone());
            self.advance(&block, Some(&original))?;
        }
        Ok(())
    }
}

/// Windows that run together, at most so many tokens (a longer window alone).
fn batches(windows: &[Vec<u32>], tokens: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for window in windows {
        match batches.last_mut() {
            Some(batch) if batch.rows() + window.len() <= tokens => {
                batch.push(window, Vec::new());
            }
            _ => {
                let mut batch = Batch::default();
                batch.push(window, Vec::new());
                batches.push(batch);
            }
        }
    }
    batches
}

/// A mean squared difference, taken in parts.
#[derive(Default)]
struct Difference {
    sum: f64,
    count: usize,
}

impl Difference {
    fn add(&mut self, a: &[f32], b: &[f32]) {
        // One after the other, so that the sum does not depend on how it is shared out among batches.
        a.iter().zip(b).for_each(|(&a, &b)| self.sum += (f64::from(a) - f64::from(b)).powi(2));
        self.count += a.len();
    }

    fn mean_square(&self) -> f64 {
        self.sum / self.count as f64
    }
}
