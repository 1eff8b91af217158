//! What engine and runner share: a model with its tokenizer, and errors as the host wants them.

use std::path::Path;
use std::sync::Arc;

use llmcb_model_files::{ModelFiles, Tokenizer};
use llmcb_plugin_api::sdk::{AttentionCost, Error, Host, LinearCost, LogLevel, ModelInfo, Result};
use llmcb_transformer::{LoadOptions, Model, Precision};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::memory;

/// Errors of opening a model are the user's to mend; cancelling is not an error.
pub(crate) fn translate(error: llmcb_transformer::Error) -> Error {
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

/// Where the weights of a model are while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Residency {
    /// In memory if they fit, else streamed.
    #[default]
    Auto,
    /// In memory.
    Memory,
    /// On disk: each block is read anew for every batch.
    Stream,
}

/// Whether all weights fit into memory, with room for what is computed with them; if not, says what follows.
fn fits(files: &ModelFiles, precision: Precision, host: &Host) -> bool {
    /// Share of the memory that weights may take.
    const SHARE: f64 = 0.8;
    let provenance = files.provenance();
    // Integer codes stay as small as they are stored.
    let bytes = match provenance.precision.starts_with("INT") {
        true => provenance.bytes_on_disk,
        false => provenance.parameters * precision.bytes() as u64,
    };
    let Some(available) = memory::available().filter(|available| bytes as f64 > SHARE * *available as f64)
    else {
        return true;
    };
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    host.log(
        LogLevel::Warning,
        format!(
            "weights take {:.1} GB in {precision} and {:.1} GB are free: blocks are read from disk for every batch; a larger batch_tokens reads them less often{}",
            gigabytes(bytes),
            gigabytes(available),
            if precision == Precision::F32 { ", and precision=bf16 takes half the memory" } else { "" }
        ),
    );
    false
}

/// A model that is open, with its tokenizer.
pub(crate) struct Opened {
    pub(crate) model: Arc<Model>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) info: ModelInfo,
}

impl Opened {
    pub(crate) fn new(path: &Path, precision: Precision, residency: Residency, host: &Host) -> Result<Self> {
        let files = Arc::new(ModelFiles::open(path).map_err(|e| Error::invalid(e.to_string()))?);
        let stream = match residency {
            Residency::Memory => false,
            Residency::Stream => true,
            Residency::Auto => !fits(&files, precision, host),
        };
        let options = LoadOptions { threads: host.threads(), precision, stream };
        let model = Model::from_files(files, path.display().to_string(), &options).map_err(translate)?;
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
            compute: precision.name().into(),
            device: "cpu".into(),
            prefix_token: tokenizer.bos().or(tokenizer.prefix().last().copied()).or(tokenizer.eos()),
            end_token: tokenizer.eos(),
            linears: Vec::new(),
            attention: Vec::new(),
        };
        Ok(Opened { model: Arc::new(model), tokenizer, info })
    }

    /// Adds what a pass multiplies to the description.
    pub(crate) fn count_costs(&mut self) -> Result<()> {
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

    pub(crate) fn encode(&self, texts: &[String], add_special: bool) -> Result<Vec<Vec<u32>>> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.tokenizer.encode_batch(&texts, add_special).map_err(|e| Error::failed(e.to_string()))
    }
}
