//! A checkpoint as TensorRT-LLM reads it.
//!
//! Numbers are read as they are. Integer weights are read in one layout, Model Optimizer's, and only what that holds code by code is run.

use std::path::Path;

use llmcb_model_files::packed::{FloatType, IntegerMatrix, Layout, Scheme, ZeroPoints};
use llmcb_plugin_api::sdk::{Error, Result};
use llmcb_runner_kit::hub_layout::{HubLayout, as_numbers, link_files};
use llmcb_runner_kit::install::scratch;
use llmcb_runner_kit::{Checkpoint, translate};
use llmcb_transformer::{CheckpointOptions, CheckpointWriter, StorageType, Stored};
use serde_json::{Value, json};

use crate::runner::Dtype;

/// Group sizes that the kernels have.
const GROUPS: [usize; 2] = [64, 128];
/// Linears of blocks that are read one by one: others hold several matrices in one, which TensorRT-LLM takes apart itself.
const LINEARS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// A checkpoint that can be loaded.
pub(crate) struct Prepared {
    pub layout: HubLayout,
    /// The type of its numbers, as TensorRT-LLM calls it.
    pub dtype: &'static str,
    /// How it is computed with, for people.
    pub compute: String,
}

/// What the integer weights of a model have in common.
struct Codes {
    group_size: usize,
    /// Whether half precision holds all scales as they are.
    half: bool,
    /// Whether bfloat16 does.
    bfloat: bool,
}

/// Prepares a checkpoint for numbers of a type.
///
/// # Errors
/// Of kind `Unsupported` where TensorRT-LLM has no kernels for its weights; a directory that cannot be written.
pub(crate) fn prepare(checkpoint: &Checkpoint, path: &Path, dtype: Dtype) -> Result<Prepared> {
    let mut prepared = match codes(checkpoint)? {
        Some(codes) => write_codes(checkpoint, &codes, dtype)?,
        None => numbers(checkpoint, path, dtype)?,
    };
    if checkpoint.rounds_activations() {
        prepared.compute.push_str(", inputs not rounded as the checkpoint asks");
    }
    Ok(prepared)
}

/// Looks at all integer weights; nothing where there are none.
fn codes(checkpoint: &Checkpoint) -> Result<Option<Codes>> {
    let config = checkpoint.model.original_config();
    let given = [&config["quantization_config"], &config["compression_config"]]
        .into_iter()
        .find(|one| !one.is_null());
    let method = given.and_then(|given| given["quant_method"].as_str()).unwrap_or_default();
    let mut found: Option<Codes> = None;
    let mut dense = None;
    for index in 0..checkpoint.model.block_count() {
        let block = checkpoint.model.block(index).map_err(translate)?;
        for linear in block.linears() {
            let name = linear.name();
            let place = format!("{name} of block {index}");
            let Some(matrix) = linear.integers() else {
                dense = dense.or(Some(place));
                continue;
            };
            let group_size = group_size(&matrix, method).map_err(|reason| unsupported(&place, &reason))?;
            if !LINEARS.contains(&name) {
                let reason = "it holds several matrices in one, or is none of those whose layout is known";
                return Err(unsupported(&place, reason));
            }
            let holds = |float: FloatType| matrix.scales.iter().all(|scale| float.round(*scale) == *scale);
            let (half, bfloat) = (holds(FloatType::F16), holds(FloatType::BF16));
            match &mut found {
                None => found = Some(Codes { group_size, half, bfloat }),
                Some(codes) if codes.group_size == group_size => {
                    codes.half &= half;
                    codes.bfloat &= bfloat;
                }
                Some(codes) => {
                    let other = codes.group_size;
                    return Err(unsupported(
                        &place,
                        &format!("groups of {group_size} among others of {other}"),
                    ));
                }
            }
        }
    }
    match (found, dense) {
        (Some(_), Some(place)) => Err(unsupported(&place, "numbers among integer weights")),
        (found, _) => Ok(found),
    }
}

fn unsupported(place: &str, reason: &str) -> Error {
    Error::unsupported(format!(
        "TensorRT-LLM's kernels do not run the weights of this checkpoint ({place}): {reason}"
    ))
}

/// The group size of a matrix that the layout holds.
fn group_size(matrix: &IntegerMatrix, method: &str) -> Result<usize, String> {
    let bits = matrix.bits;
    if bits == 8 && method == "compressed-tensors" {
        return Err("it would take integers of 8 bits for FP8 without a word; use another backend".to_owned());
    }
    if bits != 4 {
        return Err(format!("integers of {bits} bits; they multiply those of 4"));
    }
    if !matrix.symmetric {
        return Err("an asymmetric grid; compress with symmetric=true".to_owned());
    }
    if matrix.group_index.is_some() {
        return Err("groups out of the order of the inputs; compress without act_order".to_owned());
    }
    match matrix.group_size {
        Some(size) if GROUPS.contains(&size) => Ok(size),
        Some(size) => Err(format!("groups of {size}; compress with group_size=64 or group_size=128")),
        None => Err("one scale for each output; compress with group_size=64 or group_size=128".to_owned()),
    }
}

/// Writes integer weights as Model Optimizer does, code by code.
fn write_codes(checkpoint: &Checkpoint, codes: &Codes, dtype: Dtype) -> Result<Prepared> {
    // Scales are kept in the type of the numbers.
    let storage = match dtype {
        Dtype::Auto if codes.half || !codes.bfloat => StorageType::F16,
        Dtype::Auto | Dtype::Bfloat16 => StorageType::BF16,
        Dtype::Float16 => StorageType::F16,
    };
    let exact = if storage == StorageType::F16 { codes.half } else { codes.bfloat };
    let scheme = Scheme {
        layout: Layout::ModelOpt,
        bits: 4,
        group_size: Some(codes.group_size),
        symmetric: true,
        per_tensor: false,
        act_order: false,
        zero_points: ZeroPoints::V2,
        scales: storage.float(),
    };
    let folder = scratch()?;
    let model = &*checkpoint.model;
    let options = CheckpointOptions { storage, block_storage: storage, ..CheckpointOptions::default() };
    let stored = Stored::Codes(scheme);
    let mut writer =
        CheckpointWriter::create_of(folder.path(), model, options, stored, model).map_err(translate)?;
    for index in 0..model.block_count() {
        writer.write_block(index, &model.block(index).map_err(translate)?).map_err(translate)?;
    }
    writer.finish().map_err(translate)?;
    write_json(&folder.path().join("hf_quant_config.json"), &quantisation(codes.group_size))?;
    let rounded = if exact { "" } else { ", scales rounded to it" };
    Ok(Prepared {
        layout: HubLayout::of_folder(folder),
        dtype: storage.torch_name(),
        compute: format!("{}{rounded}, W4A16_AWQ", storage.torch_name()),
    })
}

/// What Model Optimizer writes beside weights of 4 bits.
fn quantisation(group_size: usize) -> Value {
    json!({
        "producer": { "name": "llmcb-host", "version": env!("CARGO_PKG_VERSION") },
        "quantization": {
            "quant_algo": "W4A16_AWQ",
            "kv_cache_quant_algo": null,
            "group_size": group_size,
            "has_zero_point": false,
            "pre_quant_scale": true,
            "exclude_modules": ["lm_head"],
        },
    })
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    std::fs::write(path, format!("{value:#}\n"))
        .map_err(|e| Error::failed(format!("cannot write {}: {e}", path.display())))
}

/// A directory with numbers: the checkpoint's own, one that calls the type of its numbers otherwise, or one that was written.
fn numbers(checkpoint: &Checkpoint, path: &Path, dtype: Dtype) -> Result<Prepared> {
    let config = checkpoint.model.original_config();
    let said = config["torch_dtype"].as_str().or(config["dtype"].as_str()).unwrap_or_default();
    let storage = match dtype {
        Dtype::Float16 => StorageType::F16,
        Dtype::Auto if said == "float16" => StorageType::F16,
        // Attention has no kernels for single precision.
        Dtype::Auto | Dtype::Bfloat16 => StorageType::BF16,
    };
    let name = storage.torch_name();
    let mut layout = as_numbers(checkpoint, path, storage)?;
    if !layout.written && said != name {
        let folder = scratch()?;
        link_as(path, folder.path(), config, name)?;
        layout = HubLayout::of_folder(folder);
    }
    Ok(Prepared { layout, dtype: name, compute: name.to_owned() })
}

/// Links a checkpoint's files into a folder, with a configuration that calls the type of its numbers by another name: what TensorRT-LLM computes in.
fn link_as(path: &Path, folder: &Path, config: &Value, name: &str) -> Result<()> {
    link_files(path, folder, &["config.json"])?;
    let mut config = config.clone();
    if let Some(config) = config.as_object_mut() {
        config.remove("dtype");
        config.insert("torch_dtype".to_owned(), json!(name));
    }
    write_json(&folder.join("config.json"), &config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernels_do_not_run_is_named_with_the_way_out() {
        let good = IntegerMatrix {
            rows: 2,
            columns: 64,
            bits: 4,
            group_size: Some(64),
            symmetric: true,
            codes: vec![3; 128],
            scales: vec![0.5; 2],
            zeros: vec![8.0; 2],
            group_index: None,
        };
        assert_eq!(group_size(&good, "gptq"), Ok(64));
        let of = |change: fn(&mut IntegerMatrix)| {
            let mut matrix = good.clone();
            change(&mut matrix);
            matrix
        };
        for (matrix, method, says) in [
            (of(|m| m.bits = 8), "compressed-tensors", "for FP8 without a word"),
            (of(|m| m.bits = 8), "gptq", "integers of 8 bits; they multiply those of 4"),
            (of(|m| m.bits = 3), "gptq", "integers of 3 bits"),
            (of(|m| m.symmetric = false), "awq", "symmetric=true"),
            (of(|m| m.group_size = None), "gptq", "one scale for each output"),
            (of(|m| m.group_size = Some(32)), "gptq", "groups of 32; compress with group_size=64"),
            (of(|m| m.group_index = Some(vec![0; 64])), "gptq", "act_order"),
        ] {
            let message = group_size(&matrix, method).unwrap_err();
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn a_checkpoint_gets_another_type_without_being_copied() {
        let (model, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for file in ["model.safetensors", "config.json", ".lock"] {
            std::fs::write(model.path().join(file), file).unwrap();
        }
        let config = json!({"model_type": "llama", "dtype": "float32"});
        link_as(model.path(), folder.path(), &config, "bfloat16").unwrap();
        let link = std::fs::read_link(folder.path().join("model.safetensors")).unwrap();
        assert_eq!(link, model.path().canonicalize().unwrap().join("model.safetensors"));
        let written = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
        let written: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(written, json!({"model_type": "llama", "torch_dtype": "bfloat16"}));
        assert!(!folder.path().join(".lock").exists());
    }
}
