//! A model that is open, with its tokenizer and its description.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use llmcb_model_files::Tokenizer;
use llmcb_plugin_api::sdk::{AttentionCost, Error, Host, LinearCost, ModelInfo, Result};
use llmcb_transformer::{LoadOptions, Model, Precision};

/// Errors of opening a model are the user's to mend; cancelling is not an error.
pub fn translate(error: llmcb_transformer::Error) -> Error {
    use llmcb_transformer::Error as E;
    match error {
        E::Cancelled => Error::cancelled(),
        E::Files(_)
        | E::Config { .. }
        | E::UnsupportedArchitecture { .. }
        | E::Shape { .. }
        | E::MissingTensor { .. }
        | E::Tensor { .. } => Error::invalid(error.to_string()),
        other => Error::failed(other.to_string()),
    }
}

/// A model that is open, with its tokenizer and its description.
pub struct Checkpoint {
    /// The model.
    pub model: Arc<Model>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// What it is; precision and device of the arithmetic are the runner's to fill in.
    pub info: ModelInfo,
}

impl Checkpoint {
    /// Describes a model that a library is to run, with what a pass multiplies: its numbers are read block by block, where they are read at
    /// all.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn described(path: &Path, host: &Host) -> Result<Self> {
        let options = LoadOptions { threads: host.threads(), precision: Precision::F32, stream: true };
        let mut checkpoint = Self::new(Model::open(path, &options).map_err(translate)?)?;
        checkpoint.count_costs()?;
        Ok(checkpoint)
    }

    /// Describes a model that was opened from files.
    ///
    /// # Errors
    /// It has no files, or their tokenizer cannot be read.
    pub fn new(model: Model) -> Result<Self> {
        let files = model.files().ok_or_else(|| Error::failed("a model opened from files has none"))?;
        let tokenizer = files.tokenizer().map_err(|e| Error::invalid(e.to_string()))?;
        let provenance = files.provenance();
        let config = model.architecture();
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let architecture = model.original_config()["architectures"][0]
            .as_str()
            .or(model.original_config()["model_type"].as_str())
            .unwrap_or_default()
            .to_owned();
        let info = ModelInfo {
            architecture,
            parameters: provenance.parameters,
            blocks: size(config.num_hidden_layers),
            hidden_size: size(config.hidden_size),
            vocab_size: size(config.vocab_size),
            max_position_embeddings: size(config.max_position_embeddings),
            source_format: provenance.format,
            source_precision: provenance.precision,
            bytes_on_disk: provenance.bytes_on_disk,
            device: "cpu".into(),
            prefix_token: tokenizer.bos().or(tokenizer.prefix().last().copied()).or(tokenizer.eos()),
            end_token: tokenizer.eos(),
            ..ModelInfo::default()
        };
        Ok(Checkpoint { model: Arc::new(model), tokenizer, info })
    }

    /// Adds what a pass multiplies to the description.
    ///
    /// # Errors
    /// A block cannot be read.
    pub fn count_costs(&mut self) -> Result<()> {
        let costs = self.model.costs().map_err(translate)?;
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let linear = |one: llmcb_transformer::LinearCost| LinearCost {
            count: size(one.count),
            out_features: size(one.shape[0]),
            in_features: size(one.shape[1]),
            bits: one.bits,
            density: one.density,
            head: one.head,
        };
        let attention = |one: llmcb_transformer::AttentionCost| AttentionCost {
            count: size(one.count),
            heads: size(one.heads),
            head_dim: size(one.head_dim),
        };
        self.info.linears = costs.linears.into_iter().map(linear).collect();
        self.info.attention = costs.attention.into_iter().map(attention).collect();
        Ok(())
    }

    /// Makes what a library reads in place of the checkpoint, and counts how long that takes: it is none of the library's time.
    ///
    /// # Errors
    /// What `make` says.
    pub fn prepare<T>(&mut self, make: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let begin = Instant::now();
        let made = make(self)?;
        self.info.preparation_seconds += begin.elapsed().as_secs_f64();
        Ok(made)
    }

    /// Whether the checkpoint asks for inputs of linears to be rounded while it runs.
    pub fn rounds_activations(&self) -> bool {
        !self.model.architecture().activations.is_empty()
    }

    /// Token ids of texts.
    ///
    /// # Errors
    /// The tokenizer cannot encode one.
    pub fn encode(&self, texts: &[String], add_special: bool) -> Result<Vec<Vec<u32>>> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.tokenizer.encode_batch(&texts, add_special).map_err(|e| Error::failed(e.to_string()))
    }

    /// Text of token ids.
    ///
    /// # Errors
    /// There is no such token.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.tokenizer.decode(tokens, false).map_err(|e| Error::failed(e.to_string()))
    }
}
