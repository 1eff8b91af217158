//! A model: configuration, weights, threads, and the pass through all its blocks.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use llmcb_model_files::ModelFiles;
use rayon::prelude::*;
use serde_json::Value;

use crate::architecture::Positions;
use crate::batch::{Batch, KeyValueCache, LayerKeys};
use crate::block::{Block, BlockInfo};
use crate::forward::{Capture, Workspace, run_block};
use crate::head::Head;
use crate::kernels::add_assign;
use crate::layout::OuterTensor;
use crate::norm::Norm;
use crate::rope::RopeTable;
use crate::weight::Weight;
use crate::weights::Aliased;
use crate::{Architecture, Error, Precision, Result, TensorSource};

/// How a model is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// Compute threads; 0 means as many as the machine runs at once.
    pub threads: usize,
    /// In which precision products are formed.
    pub precision: Precision,
    /// Read every block anew for each pass, instead of keeping all in memory: for models that do not fit.
    pub stream: bool,
}

/// A model that is open. Blocks are decoded when they are first wanted.
pub struct Model {
    name: String,
    architecture: Architecture,
    original_config: Value,
    info: BlockInfo,
    source: Arc<dyn TensorSource>,
    files: Option<Arc<ModelFiles>>,
    /// From the embedding to the residual stream, where they differ in width.
    project_in: Option<Weight>,
    precision: Precision,
    stream: bool,
    head: OnceLock<Head>,
    blocks: Vec<OnceLock<Block>>,
    rope: Option<Mutex<Arc<RopeTable>>>,
    pool: rayon::ThreadPool,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.name)
            .field("architecture", &self.architecture)
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Opens a model's files: a Hugging Face directory or a GGUF file.
    ///
    /// # Errors
    /// If the files cannot be read, the architecture is not supported, or configuration and tensors contradict each other: every tensor's
    /// shape is checked before anything is computed.
    pub fn open(path: &Path, options: &LoadOptions) -> Result<Self> {
        let files = Arc::new(ModelFiles::open(path)?);
        Self::from_files(files, path.display().to_string(), options)
    }

    /// As [`open`](Self::open), for files that are open already; `name` is what messages call the model.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_files(files: Arc<ModelFiles>, name: String, options: &LoadOptions) -> Result<Self> {
        let config = files.config().clone();
        let mut model = Self::from_source(files.clone(), config, name, options)?;
        model.files = Some(files);
        Ok(model)
    }

    /// A model of tensors from anywhere, with a configuration in Hugging Face's spelling.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_source(
        source: Arc<dyn TensorSource>,
        original_config: Value,
        name: String,
        options: &LoadOptions,
    ) -> Result<Self> {
        let architecture = Architecture::from_json(&original_config, &name)?;
        let source = Aliased::over(source, &architecture);
        check_shapes(source.as_ref(), &architecture, &name)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|i| format!("compute-{i}"))
            .build()
            .map_err(|source| Error::Threads { threads: options.threads, source })?;
        let rope = architecture.rotary().map(|rotary| Mutex::new(Arc::new(RopeTable::new(rotary, 0))));
        let info = BlockInfo::new(&architecture);
        let blocks = (0..architecture.num_hidden_layers).map(|_| OnceLock::new()).collect();
        let mut model = Self {
            name,
            architecture,
            original_config,
            info,
            source,
            files: None,
            project_in: None,
            precision: options.precision,
            stream: options.stream,
            head: OnceLock::new(),
            blocks,
            rope,
            pool,
        };
        model.project_in = model.outer_matrix(OuterTensor::ProjectIn)?;
        Ok(model)
    }

    /// A tensor outside the blocks; `None` where this model has none.
    ///
    /// # Errors
    /// If it cannot be decoded.
    pub fn outer(&self, tensor: OuterTensor) -> Result<Option<Vec<f32>>> {
        if tensor.shape(&self.architecture).is_none() {
            return Ok(None);
        }
        let values = self.source.load(&tensor.name(self.architecture.family.names));
        values.map(Some).map_err(|e| e.of_model(&self.name))
    }

    fn outer_matrix(&self, tensor: OuterTensor) -> Result<Option<Weight>> {
        let Some(&[outputs, inputs]) = tensor.shape(&self.architecture).as_deref() else { return Ok(None) };
        let pack = |values: Vec<f32>| Weight::numbers(self.precision.half(), outputs, inputs, &values);
        Ok(self.outer(tensor)?.map(pack))
    }

    /// Takes the files of the model that this one was made of, for what lies beside the weights.
    pub(crate) fn keep_files_of(&mut self, other: &Model) {
        self.files = other.files.clone();
    }

    /// What messages call the model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the configuration says, typed.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The configuration as it was read.
    pub fn original_config(&self) -> &Value {
        &self.original_config
    }

    /// The model's files, if it was opened from files.
    pub fn files(&self) -> Option<&Arc<ModelFiles>> {
        self.files.as_ref()
    }

    /// Where the tensors come from.
    pub fn source(&self) -> &Arc<dyn TensorSource> {
        &self.source
    }

    /// What blocks are made of that have no other shape of their own.
    pub fn block_info(&self) -> &BlockInfo {
        &self.info
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        self.architecture.num_hidden_layers
    }

    /// In which precision products are formed.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether every block is read anew for each pass.
    pub fn streams(&self) -> bool {
        self.stream
    }

    /// Number of compute threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `f` on the model's threads: rayon inside `f` uses them.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.pool.install(f)
    }

    /// Decodes the head and, unless blocks are streamed, all blocks, and keeps them, on all threads.
    ///
    /// # Errors
    /// If a tensor cannot be decoded.
    pub fn load_all(&self) -> Result<()> {
        if self.stream {
            return self.head().map(|_| ());
        }
        self.install(|| {
            (0..self.block_count()).into_par_iter().try_for_each(|index| -> Result<()> {
                if self.blocks[index].get().is_none() {
                    let block = self.load_block(index)?;
                    // Another thread may have been first; its block is the same.
                    let _ = self.blocks[index].set(block);
                }
                Ok(())
            })
        })?;
        self.head().map(|_| ())
    }

    /// Block `index`: the kept one, or one decoded from the files for this call and not kept.
    ///
    /// # Errors
    /// If there is no such block or a tensor cannot be decoded.
    pub fn block(&self, index: usize) -> Result<Block> {
        match self.blocks.get(index) {
            None => Err(Error::argument(
                format!("block {index}"),
                format!("the model has blocks 0 to {}", self.block_count() - 1),
            )),
            Some(kept) => match kept.get() {
                Some(block) => Ok(block.clone()),
                None => self.load_block(index),
            },
        }
    }

    /// Block `index` as the files have it, whatever was replaced since.
    fn load_block(&self, index: usize) -> Result<Block> {
        Block::load(self.source.as_ref(), &self.architecture, index, self.precision)
            .map_err(|e| e.of_model(&self.name))
    }

    /// Puts another block in place of block `index`, for everything this model computes from now on.
    ///
    /// # Errors
    /// If there is no such block.
    pub fn replace_block(&mut self, index: usize, block: Block) -> Result<()> {
        let count = self.block_count();
        match self.blocks.get_mut(index) {
            Some(slot) => {
                *slot = OnceLock::from(block);
                Ok(())
            }
            None => Err(Error::argument(
                format!("block {index}"),
                format!("the model has blocks 0 to {}", count - 1),
            )),
        }
    }

    pub(crate) fn head(&self) -> Result<&Head> {
        if let Some(head) = self.head.get() {
            return Ok(head);
        }
        let a = &self.architecture;
        let norm = if a.final_norm {
            let norm = Norm::load(self.source.as_ref(), a.family.names.final_norm, a, a.hidden_size);
            Some(norm.map_err(|e| e.of_model(&self.name))?)
        } else {
            None
        };
        let matrix = if a.tie_word_embeddings { OuterTensor::Embedding } else { OuterTensor::Head };
        let missing =
            || Error::MissingTensor { model: self.name.clone(), tensor: matrix.name(a.family.names) };
        let weight = self.outer_matrix(matrix)?.ok_or_else(missing)?;
        let project = self.outer_matrix(OuterTensor::ProjectOut)?;
        let head = Head { norm, project, weight, half: self.precision.half() };
        Ok(self.head.get_or_init(|| head))
    }

    /// Checks that all tokens are in the vocabulary.
    ///
    /// # Errors
    /// [`Error::Argument`] naming `what` if one is not.
    pub fn check_tokens(&self, tokens: &[u32], what: &str) -> Result<()> {
        match tokens.iter().find(|&&t| t as usize >= self.architecture.vocab_size) {
            None => Ok(()),
            Some(token) => Err(Error::argument(
                what,
                format!(
                    "token {token} is beyond the vocabulary of {}; the tokenizer is not this model's",
                    self.architecture.vocab_size
                ),
            )),
        }
    }

    /// Embeds tokens at their positions: `[tokens, hidden size]`.
    ///
    /// # Errors
    /// If a token is not in the vocabulary, or a position beyond those that the model has learned; if their rows cannot be decoded.
    pub fn embed(&self, tokens: &[u32], positions: &[u32]) -> Result<Vec<f32>> {
        self.check_tokens(tokens, "tokens")?;
        let a = &self.architecture;
        let names = a.family.names;
        let rows = |tensor: OuterTensor, rows: &[u32]| {
            let found = self.install(|| self.source.load_rows(&tensor.name(names), rows));
            found.map_err(|e| e.of_model(&self.name))
        };
        let mut hidden = rows(OuterTensor::Embedding, tokens)?;
        if let Some(project) = &self.project_in {
            if let Some(half) = self.precision.half() {
                half.round_all(&mut hidden);
            }
            let mut projected = vec![0f32; tokens.len() * a.hidden_size];
            self.install(|| project.multiply_parallel(&hidden, tokens.len(), &mut projected));
            hidden = projected;
        }
        if let Positions::Learned { offset } = a.positions {
            let limit = a.max_position_embeddings;
            if let Some(beyond) = positions.iter().find(|&&position| position as usize >= limit) {
                return Err(Error::argument(
                    "tokens",
                    format!(
                        "one stands at position {beyond}; the model has learned positions 0 to {}",
                        limit - 1
                    ),
                ));
            }
            let places: Vec<u32> = positions.iter().map(|&position| position + offset as u32).collect();
            add_assign(&mut hidden, &rows(OuterTensor::Positions, &places)?);
        }
        Ok(hidden)
    }

    /// The rotary table for at least so many positions, where queries and keys are turned.
    pub(crate) fn rope(&self, positions: usize) -> Option<Arc<RopeTable>> {
        let (table, rotary) = (self.rope.as_ref()?, self.architecture.rotary()?);
        // A thread that panicked while it held the lock left the table whole: it is only ever replaced.
        let mut table = table.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if table.positions() < positions {
            *table = Arc::new(RopeTable::new(rotary, positions.next_power_of_two()));
        }
        Some(table.clone())
    }

    /// Runs a batch through all blocks: `[rows, hidden size]`, before the last norm.
    ///
    /// Cached spans refer to `caches`. For each `(segment, cache)` of `store`, keys and values of the segment are appended to the cache.
    ///
    /// # Errors
    /// If a token is not in the vocabulary or a block cannot be decoded.
    pub fn forward(
        &self,
        batch: &Batch,
        caches: &mut [KeyValueCache],
        store: &[(usize, usize)],
    ) -> Result<Vec<f32>> {
        let mut hidden = self.embed(&batch.tokens, &batch.positions)?;
        let positions = batch.positions.iter().max().map_or(0, |&p| p as usize + 1);
        let rope = self.rope(positions);
        let mut workspace = Workspace::default();
        let mut capture = Capture::default();
        for index in 0..self.block_count() {
            let block = self.block(index)?;
            let width = block.architecture().key_value_width();
            let cached: Vec<&LayerKeys> = caches.iter().map(|cache| &cache.layers[index]).collect();
            self.install(|| {
                run_block(rope.as_deref(), &block, batch, &cached, &mut hidden, &mut workspace, &mut capture);
            });
            for &(segment, cache) in store {
                let segment = &batch.segments[segment];
                let rows = segment.first_row * width..(segment.first_row + segment.len) * width;
                let layer = &mut caches[cache].layers[index];
                layer.keys.extend_from_slice(&workspace.keys[rows.clone()]);
                layer.values.extend_from_slice(&workspace.values[rows]);
            }
        }
        for &(segment, cache) in store {
            caches[cache].len += batch.segments[segment].len;
        }
        Ok(hidden)
    }

    /// Runs one block, with the weights given, on a batch whose hidden states are in `hidden`, in place.
    pub(crate) fn run_one(
        &self,
        block: &Block,
        batch: &Batch,
        hidden: &mut [f32],
        workspace: &mut Workspace,
        capture: &mut Capture,
    ) {
        let positions = batch.positions.iter().max().map_or(0, |&p| p as usize + 1);
        let rope = self.rope(positions);
        self.install(|| run_block(rope.as_deref(), block, batch, &[], hidden, workspace, capture));
    }

    /// Natural logarithms of the probabilities of every next token after each token of one sequence, `[tokens, vocabulary]`. The whole of
    /// them is held at once, and nothing else of that size.
    ///
    /// # Errors
    /// [`Error::Argument`] for a sequence longer than the model's context; else as [`forward`](Self::forward).
    pub fn log_probabilities(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let limit = self.architecture.max_position_embeddings;
        if tokens.len() > limit {
            return Err(Error::argument(
                "tokens",
                format!("there are {}, more than the {limit} that the model reads at once", tokens.len()),
            ));
        }
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        let mut rows = self.logits(tokens)?;
        let vocabulary = self.architecture.vocab_size;
        self.install(|| {
            rows.par_chunks_mut(vocabulary).for_each(|row| {
                let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
                let log_sum = sum.ln() as f32;
                row.iter_mut().for_each(|x| *x = (*x - max) - log_sum);
            });
        });
        Ok(rows)
    }

    /// All logits of one sequence, `[tokens, vocabulary]`: for tests and small models.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let mut batch = Batch::default();
        batch.push(tokens, Vec::new());
        let hidden = self.forward(&batch, &mut [], &[])?;
        let head = self.head()?;
        Ok(self.install(|| head.logits(&hidden)))
    }
}

/// Whether a bias is all zeros beside packed codes: some writers of GPTQ checkpoints give one to every linear.
fn is_padding(source: &dyn TensorSource, linear: &str) -> Result<bool> {
    let packed = source.contains(&format!("{linear}.qweight"));
    Ok(packed && source.load(&format!("{linear}.bias"))?.iter().all(|v| *v == 0.0))
}

/// Compares the shape of every tensor with what the configuration makes of it.
fn check_shapes(source: &dyn TensorSource, architecture: &Architecture, model: &str) -> Result<()> {
    let check = |name: String, expected: Vec<usize>| -> Result<()> {
        if !source.contains(&name) {
            return Err(Error::MissingTensor { model: model.to_owned(), tensor: name });
        }
        let found = source.shape(&name)?;
        if found != expected {
            return Err(Error::Shape { model: model.to_owned(), tensor: name, found, expected });
        }
        Ok(())
    };
    for (_, name, shape) in OuterTensor::of(architecture) {
        check(name, shape)?;
    }
    let names = architecture.family.names;
    for index in 0..architecture.num_hidden_layers {
        let architecture = &architecture.of_block(index);
        for linear in names.linears {
            let full = names.in_block(index, linear.name);
            let (outputs, inputs) = linear.shape(architecture);
            check(format!("{full}.weight"), vec![outputs, inputs])?;
            let bias = format!("{full}.bias");
            if linear.has_bias(architecture) {
                check(bias, vec![outputs])?;
            } else if source.contains(&bias) && !is_padding(source, &full)? {
                return Err(Error::Config {
                    model: model.to_owned(),
                    problem: format!(
                        "there is a tensor `{bias}`, but the configuration says that this linear has no bias"
                    ),
                    remedy: "set `attention_bias` or `mlp_bias` as the model needs it".to_owned(),
                });
            }
        }
        for norm in names.norms {
            let full = names.in_block(index, norm);
            check(format!("{full}.weight"), vec![architecture.hidden_size])?;
            if architecture.norm.has_bias() {
                check(format!("{full}.bias"), vec![architecture.hidden_size])?;
            }
        }
    }
    let count = architecture.num_hidden_layers;
    let beyond = names.linears.first().map(|linear| format!("{}.weight", names.in_block(count, linear.name)));
    if let Some(beyond) = beyond.filter(|beyond| source.contains(beyond)) {
        return Err(Error::Config {
            model: model.to_owned(),
            problem: format!("the configuration has {count} blocks, but there is a tensor `{beyond}`"),
            remedy: "configuration and weights are not of the same model: fetch both again from one place"
                .to_owned(),
        });
    }
    Ok(())
}
