//! What engine and runner share: how a model is opened.

use std::path::Path;
use std::sync::Arc;

use llmcb_model_files::ModelFiles;
use llmcb_plugin_api::sdk::{Error, Host, LogLevel, Result};
use llmcb_runner_kit::{Checkpoint, translate};
use llmcb_transformer::{LoadOptions, Model, Precision};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::memory;

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

/// Opens a model.
pub(crate) fn open(
    path: &Path,
    precision: Precision,
    residency: Residency,
    host: &Host,
) -> Result<Checkpoint> {
    let files = Arc::new(ModelFiles::open(path).map_err(|e| Error::invalid(e.to_string()))?);
    let stream = match residency {
        Residency::Memory => false,
        Residency::Stream => true,
        Residency::Auto => !fits(&files, precision, host),
    };
    let options = LoadOptions { threads: host.threads(), precision, stream };
    let model = Model::from_files(files, path.display().to_string(), &options).map_err(translate)?;
    let mut checkpoint = Checkpoint::new(model)?;
    checkpoint.info.compute = precision.name().into();
    Ok(checkpoint)
}
