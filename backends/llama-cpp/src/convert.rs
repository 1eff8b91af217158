//! A checkpoint as a GGUF, which is all that llama.cpp reads.

use std::path::PathBuf;

use llmcb_plugin_api::sdk::{Error, Host, LogLevel, Result};
use llmcb_runner_kit::install::{Scratch, scratch};
use llmcb_runner_kit::{Checkpoint, translate};
use llmcb_transformer::{GGUF_FILE, GgufType, StorageType, write_gguf};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How weights of linears are given to llama.cpp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// A GGUF as it is; integer codes as the smallest blocks that hold them; numbers in the type they are stored in.
    #[default]
    Auto,
    /// Single precision.
    F32,
    /// bfloat16.
    Bf16,
    /// Half precision.
    F16,
    /// 8 bits, one scale for 32 values.
    #[serde(rename = "q8_0")]
    Q8,
    /// 4 bits, scale and minimum for 32 values.
    #[serde(rename = "q4_1")]
    Q41,
    /// 4 bits, one scale for 32 values.
    #[serde(rename = "q4_0")]
    Q40,
}

impl Weights {
    fn asked(self) -> Option<GgufType> {
        match self {
            Weights::Auto => None,
            Weights::F32 => Some(GgufType::F32),
            Weights::Bf16 => Some(GgufType::BF16),
            Weights::F16 => Some(GgufType::F16),
            Weights::Q8 => Some(GgufType::Q8_0),
            Weights::Q41 => Some(GgufType::Q4_1),
            Weights::Q40 => Some(GgufType::Q4_0),
        }
    }
}

/// A GGUF to load. One that was written for this purpose goes with it; what has loaded it keeps it mapped.
pub(crate) struct Gguf {
    pub file: PathBuf,
    /// How it stores weights, for people.
    pub stored: String,
    _folder: Option<Scratch>,
}

/// The type in which a checkpoint's numbers are stored.
fn numbers(checkpoint: &Checkpoint) -> StorageType {
    let config = checkpoint.model.original_config();
    let named = config["torch_dtype"].as_str().or(config["dtype"].as_str()).unwrap_or_default();
    match (checkpoint.info.source_precision.as_str(), named) {
        ("F32", _) => StorageType::F32,
        ("BF16", _) => StorageType::BF16,
        ("F16", _) => StorageType::F16,
        (_, "float32") => StorageType::F32,
        (_, "bfloat16") => StorageType::BF16,
        _ => StorageType::F16,
    }
}

/// The checkpoint as a GGUF: itself, or written for as long as it is loaded.
pub(crate) fn gguf(checkpoint: &Checkpoint, weights: Weights, host: &Host) -> Result<Gguf> {
    let model = &checkpoint.model;
    if let (Weights::Auto, "gguf") = (weights, checkpoint.info.source_format.as_str()) {
        let files = model.files().ok_or_else(|| Error::failed("a model opened from files has none"))?;
        let is_gguf = |file: &PathBuf| file.extension().is_some_and(|end| end == "gguf");
        let file = files.provenance().files.into_iter().find(is_gguf);
        let file = file.ok_or_else(|| Error::failed("a GGUF without a file"))?;
        return Ok(Gguf { file, stored: checkpoint.info.source_precision.to_lowercase(), _folder: None });
    }
    let outside = numbers(checkpoint);
    let kind = match weights.asked() {
        Some(kind) => kind,
        None => GgufType::holding(&**model, outside.float()).map_err(translate)?,
    };
    let outside = if kind == GgufType::F32 { StorageType::F32 } else { outside };
    let folder = scratch()?;
    host.progress(0, 0, &format!("writing the model as a GGUF ({})", kind.name()));
    let summary = write_gguf(folder.path(), model, &**model, kind, outside).map_err(|e| {
        Error::unsupported(format!(
            "llama.cpp reads GGUF alone, and the checkpoint cannot be written as one: {e}"
        ))
    })?;
    let all = summary.linears();
    let mut stored = kind.name().to_owned();
    if summary.rounded > 0 {
        stored.push_str(" rounded");
    }
    if checkpoint.rounds_activations() {
        // ggml rounds inputs to 8 bits in blocks of 32 where weights are in blocks, and not at all elsewhere.
        let how =
            if kind.float().is_none() { "inputs rounded in blocks of 32" } else { "inputs not rounded" };
        host.log(
            LogLevel::Warning,
            format!("llama.cpp has no place for how the checkpoint rounds activations: {how}"),
        );
        stored.push_str(&format!(", {how} in place of the checkpoint's way"));
    }
    if summary.requantised > 0 {
        let reason = summary.reason.unwrap_or_else(|| "numbers, not codes".to_owned());
        host.log(
            LogLevel::Warning,
            format!(
                "{} of {all} linears were quantised anew to {}: {reason}",
                summary.requantised,
                kind.name()
            ),
        );
        stored.push_str(", quantised anew");
    }
    Ok(Gguf { file: folder.path().join(GGUF_FILE), stored, _folder: Some(folder) })
}
