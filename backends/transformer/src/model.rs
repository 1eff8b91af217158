//! A model: configuration, weights, threads, and the pass through all its blocks.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use llmcb_model_files::ModelFiles;
use rayon::prelude::*;
use serde_json::Value;

use crate::batch::{Batch, KeyValueCache, LayerKeys};
use crate::block::{ATTENTION_NORM, Block, BlockInfo, MLP_NORM, Role, tensor_name};
use crate::forward::{Capture, Geometry, Workspace, run_block};
use crate::head::Head;
use crate::kernels::PackedMatrix;
use crate::rope::RopeTable;
use crate::{Error, LlamaConfig, Result, TensorSource};

/// Name of the embedding.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the last norm.
pub const FINAL_NORM: &str = "model.norm.weight";
/// Name of the output head, absent where it is tied to the embedding.
pub const OUTPUT_HEAD: &str = "lm_head.weight";

/// How a model is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// Compute threads; 0 means as many as the machine runs at once.
    pub threads: usize,
}

/// The embedding; in the packed form of the head where both are one.
#[derive(Debug)]
enum Embedding {
    Rows(Vec<f32>),
    Packed(Arc<PackedMatrix>),
}

/// A model that is open. Blocks are decoded when they are first wanted.
pub struct Model {
    name: String,
    config: LlamaConfig,
    original_config: Value,
    info: BlockInfo,
    source: Arc<dyn TensorSource>,
    files: Option<Arc<ModelFiles>>,
    embedding: Embedding,
    head: OnceLock<Head>,
    blocks: Vec<OnceLock<Block>>,
    rope: Mutex<Arc<RopeTable>>,
    pool: rayon::ThreadPool,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.name)
            .field("config", &self.config)
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
        let config = LlamaConfig::from_json(&original_config, &name)?;
        check_shapes(source.as_ref(), &config, &name)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|i| format!("compute-{i}"))
            .build()
            .map_err(|source| Error::Threads { threads: options.threads, source })?;
        let rows = source.load(EMBEDDING).map_err(|e| e.of_model(&name))?;
        let embedding = if config.tie_word_embeddings {
            Embedding::Packed(Arc::new(PackedMatrix::pack(config.vocab_size, config.hidden_size, &rows)))
        } else {
            Embedding::Rows(rows)
        };
        let rope = Mutex::new(Arc::new(RopeTable::new(&config, 0)));
        let info = BlockInfo::new(&config);
        let blocks = (0..config.num_hidden_layers).map(|_| OnceLock::new()).collect();
        Ok(Self {
            name,
            config,
            original_config,
            info,
            source,
            files: None,
            embedding,
            head: OnceLock::new(),
            blocks,
            rope,
            pool,
        })
    }

    /// Takes the files of the model that this one was made of, for what lies beside the weights.
    pub(crate) fn keep_files_of(&mut self, other: &Model) {
        self.files = other.files.clone();
    }

    /// What messages call the model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The configuration, typed.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
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
        self.config.num_hidden_layers
    }

    /// Number of compute threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `f` on the model's threads: rayon inside `f` uses them.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.pool.install(f)
    }

    /// Decodes all blocks and the head and keeps them, on all threads.
    ///
    /// # Errors
    /// If a tensor cannot be decoded.
    pub fn load_all(&self) -> Result<()> {
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
        Block::load(self.source.as_ref(), &self.config, index).map_err(|e| e.of_model(&self.name))
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
        let norm = self.source.load(FINAL_NORM).map_err(|e| e.of_model(&self.name))?;
        let weight = match &self.embedding {
            Embedding::Packed(weight) => weight.clone(),
            Embedding::Rows(_) => {
                let rows = self.source.load(OUTPUT_HEAD).map_err(|e| e.of_model(&self.name))?;
                Arc::new(PackedMatrix::pack(self.config.vocab_size, self.config.hidden_size, &rows))
            }
        };
        let head = Head { norm, eps: self.config.rms_norm_eps, weight };
        Ok(self.head.get_or_init(|| head))
    }

    /// Checks that all tokens are in the vocabulary.
    ///
    /// # Errors
    /// [`Error::Argument`] naming `what` if one is not.
    pub fn check_tokens(&self, tokens: &[u32], what: &str) -> Result<()> {
        match tokens.iter().find(|&&t| t as usize >= self.config.vocab_size) {
            None => Ok(()),
            Some(token) => Err(Error::argument(
                what,
                format!(
                    "token {token} is beyond the vocabulary of {}; the tokenizer is not this model's",
                    self.config.vocab_size
                ),
            )),
        }
    }

    /// Embeds tokens: `[tokens, hidden size]`.
    ///
    /// # Errors
    /// If a token is not in the vocabulary.
    pub fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        self.check_tokens(tokens, "tokens")?;
        let width = self.config.hidden_size;
        let mut hidden = vec![0f32; tokens.len() * width];
        self.install(|| {
            hidden.par_chunks_mut(width).zip(tokens).with_min_len(64).for_each(|(row, &token)| {
                match &self.embedding {
                    Embedding::Rows(rows) => row.copy_from_slice(&rows[token as usize * width..][..width]),
                    Embedding::Packed(packed) => packed.copy_row(token as usize, row),
                }
            });
        });
        Ok(hidden)
    }

    /// The rotary table for at least so many positions.
    pub(crate) fn rope(&self, positions: usize) -> Arc<RopeTable> {
        // A thread that panicked while it held the lock left the table whole: it is only ever replaced.
        let mut table = self.rope.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if table.positions() < positions {
            *table = Arc::new(RopeTable::new(&self.config, positions.next_power_of_two()));
        }
        table.clone()
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
        let mut hidden = self.embed(&batch.tokens)?;
        let positions = batch.positions.iter().max().map_or(0, |&p| p as usize + 1);
        let rope = self.rope(positions);
        let geometry = Geometry { rope: &rope };
        let mut workspace = Workspace::default();
        let mut capture = Capture::default();
        for index in 0..self.block_count() {
            let block = self.block(index)?;
            let width = block.config().key_value_width();
            let cached: Vec<&LayerKeys> = caches.iter().map(|cache| &cache.layers[index]).collect();
            self.install(|| {
                run_block(&geometry, &block, batch, &cached, &mut hidden, &mut workspace, &mut capture);
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
        let geometry = Geometry { rope: &rope };
        self.install(|| run_block(&geometry, block, batch, &[], hidden, workspace, capture));
    }

    /// Runs one block, with the weights given, on batches whose hidden states stand one after another in `hidden`, in place.
    pub(crate) fn run_batches(
        &self,
        block: &Block,
        batches: &[Batch],
        hidden: &mut [f32],
        workspace: &mut Workspace,
    ) {
        let mut rest = hidden;
        for batch in batches {
            let (rows, after) = rest.split_at_mut(batch.rows() * self.config().hidden_size);
            self.run_one(block, batch, rows, workspace, &mut Capture::default());
            rest = after;
        }
    }

    /// Natural logarithms of the probabilities of every next token after each token of one sequence, `[tokens, vocabulary]`. The whole of
    /// them is held at once, and nothing else of that size.
    ///
    /// # Errors
    /// [`Error::Argument`] for a sequence longer than the model's context; else as [`forward`](Self::forward).
    pub fn log_probabilities(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let limit = self.config.max_position_embeddings;
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
        let vocabulary = self.config.vocab_size;
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
fn is_padding(source: &dyn TensorSource, index: usize, role: Role) -> Result<bool> {
    let packed = source.contains(&tensor_name(index, role.name(), "qweight"));
    Ok(packed && source.load(&tensor_name(index, role.name(), "bias"))?.iter().all(|v| *v == 0.0))
}

/// Compares the shape of every tensor with what the configuration makes of it.
fn check_shapes(source: &dyn TensorSource, config: &LlamaConfig, model: &str) -> Result<()> {
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
    check(EMBEDDING.to_owned(), vec![config.vocab_size, config.hidden_size])?;
    check(FINAL_NORM.to_owned(), vec![config.hidden_size])?;
    if !config.tie_word_embeddings {
        check(OUTPUT_HEAD.to_owned(), vec![config.vocab_size, config.hidden_size])?;
    }
    for index in 0..config.num_hidden_layers {
        let config = &config.of_block(index);
        for role in Role::ALL {
            let (outputs, inputs) = role.shape(config);
            check(tensor_name(index, role.name(), "weight"), vec![outputs, inputs])?;
            let bias = tensor_name(index, role.name(), "bias");
            if role.has_bias(config) {
                check(bias, vec![outputs])?;
            } else if source.contains(&bias) && !is_padding(source, index, role)? {
                return Err(Error::Config {
                    model: model.to_owned(),
                    problem: format!(
                        "there is a tensor `{bias}`, but the configuration says that this linear has no bias"
                    ),
                    remedy: "set `attention_bias` or `mlp_bias` as the model needs it".to_owned(),
                });
            }
        }
        for norm in [ATTENTION_NORM, MLP_NORM] {
            check(tensor_name(index, norm, "weight"), vec![config.hidden_size])?;
        }
    }
    let beyond = tensor_name(config.num_hidden_layers, Role::Query.name(), "weight");
    if source.contains(&beyond) {
        return Err(Error::Config {
            model: model.to_owned(),
            problem: format!(
                "`num_hidden_layers` is {}, but there is a tensor `{beyond}`",
                config.num_hidden_layers
            ),
            remedy: "configuration and weights are not of the same model: fetch both again from one place"
                .to_owned(),
        });
    }
    Ok(())
}
