//! The Hugging Face layout: `config.json` beside safetensors, in one file or in shards named by an index.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;
use serde_json::Value;

use crate::encoding::Encoding;
use crate::mapping::Mapping;
use crate::model::{Entry, Format, PICKLE, PICKLE_REMEDY, Parts, Stored, files_ending_in};
use crate::packed::Quantization;
use crate::tokenizer::Source;
use crate::{Error, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What the format itself allows for the JSON at the head of a file.
const MAX_HEADER: u64 = 100_000_000;
const DOWNLOAD_AGAIN: &str = "the file is truncated or damaged: fetch or write it again";
/// Files beside weights and tokenizer that decide what a model computes.
const DESCRIPTIONS: [&str; 2] = ["config.json", "generation_config.json"];

pub(crate) fn open(directory: &Path) -> Result<Parts> {
    let config = read_config(&directory.join("config.json"))?;
    let single = directory.join(SINGLE);
    let index = directory.join(INDEX);
    let mut maps = Vec::new();
    let mut entries = Vec::new();
    let path = if single.exists() {
        read_file(&single, &mut maps, &mut entries)?;
        single
    } else if index.exists() {
        read_shards(directory, &index, &mut maps, &mut entries)?;
        directory.to_path_buf()
    } else {
        return Err(no_weights(directory)?);
    };
    let described_by = DESCRIPTIONS
        .iter()
        .map(|name| directory.join(name))
        .chain(Source::find(directory).map(|source| source.files()).unwrap_or_default())
        .chain([index])
        .filter(|path| path.is_file())
        .collect::<Vec<PathBuf>>();
    let quantization = Quantization::from_config(&config).map_err(|problem| {
        Error::config(
            &directory.join("config.json"),
            problem,
            "use a checkpoint in one of these formats, or the model's unquantised one",
        )
    })?;
    Ok(Parts {
        path,
        config,
        maps,
        entries,
        quantization,
        format: Format::HubLayout { directory: directory.to_path_buf(), described_by },
    })
}

/// Says what a directory without readable weights has instead, and what to do.
fn no_weights(directory: &Path) -> Result<Error> {
    let mut pickles = files_ending_in(directory, "bin")?;
    pickles.extend(files_ending_in(directory, "pth")?);
    if let Some(pickle) = pickles.first() {
        return Ok(Error::not_a_model(pickle, PICKLE, PICKLE_REMEDY));
    }
    if let Some(gguf) = files_ending_in(directory, "gguf")?.first() {
        return Ok(Error::not_a_model(
            directory,
            format!("has config.json but no {SINGLE}"),
            format!("to open its GGUF, name the file itself: {}", gguf.display()),
        ));
    }
    let others = files_ending_in(directory, "safetensors")?;
    let (problem, remedy) = match others.first() {
        Some(other) => (
            format!(
                "has neither {SINGLE} nor {INDEX}, only {}",
                other.file_name().unwrap_or_default().display()
            ),
            format!("rename a single file to {SINGLE}, or fetch the index that names the shards"),
        ),
        None => (
            format!("has config.json but no weights ({SINGLE} or {INDEX})"),
            "fetch the weights too, or write them with `save_pretrained`".to_owned(),
        ),
    };
    Ok(Error::not_a_model(directory, problem, remedy))
}

fn read_config(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let config: Value = serde_json::from_slice(&text)
        .map_err(|e| Error::config(path, format!("is not valid JSON: {e}"), "fetch or write it again"))?;
    let Some(object) = config.as_object() else {
        return Err(Error::config(
            path,
            "is not a JSON object",
            "use the config.json that came with the model",
        ));
    };
    let remedy = "use the config.json that came with the model";
    let model_type = object.get("model_type").and_then(Value::as_str);
    if model_type.is_none() && !object.get("architectures").is_some_and(Value::is_array) {
        return Err(Error::config(
            path,
            "names no architecture (neither `model_type` nor `architectures`)",
            remedy,
        ));
    }
    if matches!(model_type, Some("llama" | "mistral" | "qwen2" | "opt")) {
        for key in ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"] {
            match object.get(key) {
                None => return Err(Error::config(path, format!("lacks `{key}`"), remedy)),
                Some(value) if value.as_u64().is_some_and(|n| n > 0) => {}
                Some(value) => {
                    let problem = format!("`{key}` is {value}, not a positive integer");
                    return Err(Error::config(path, problem, remedy));
                }
            }
        }
    }
    Ok(config)
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn read_shards(
    directory: &Path,
    index: &Path,
    maps: &mut Vec<Mapping>,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    let text = std::fs::read(index).map_err(Error::io(index, "read"))?;
    let parsed: Index = serde_json::from_slice(&text).map_err(|e| {
        Error::weights(index, format!("is not a shard index: {e}"), "fetch or write the checkpoint again")
    })?;
    let mut shards: Vec<&String> = parsed.weight_map.values().collect();
    shards.sort();
    shards.dedup();
    for shard in shards {
        // A shard is a file of this directory: anything else would let an index reach across the disk.
        if Path::new(shard).file_name() != Some(shard.as_ref()) {
            let problem = format!("names the shard `{shard}`, which is not a plain file name");
            return Err(Error::weights(index, problem, "shards must lie beside their index"));
        }
        let path = directory.join(shard);
        if !path.exists() {
            return Err(Error::weights(
                index,
                format!("names the shard {shard}, which is not there"),
                format!("fetch {shard} into the same directory"),
            ));
        }
        read_file(&path, maps, entries)?;
    }
    // Like other readers, take from each shard what the index says, no more.
    entries.retain(|entry| {
        let shard = parsed.weight_map.get(&entry.name);
        shard.is_some_and(|shard| maps[entry.file].path().file_name() == Some(shard.as_ref()))
    });
    let held: HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    if let Some((name, shard)) = parsed.weight_map.iter().find(|(name, _)| !held.contains(name.as_str())) {
        return Err(Error::weights(
            index,
            format!("says that {shard} holds tensor `{name}`, but it does not"),
            "index and shards are of different checkpoints: fetch them together",
        ));
    }
    Ok(())
}

/// Maps one safetensors file and lists its tensors.
fn read_file(path: &Path, maps: &mut Vec<Mapping>, entries: &mut Vec<Entry>) -> Result<()> {
    let mapping = Mapping::open(path)?;
    let bytes = mapping.bytes();
    let fail = |problem: String| Error::weights(path, problem, DOWNLOAD_AGAIN);
    let Some(length) = bytes.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)) else {
        return Err(fail(format!("is {} bytes long, too short for a safetensors file", bytes.len())));
    };
    let room = bytes.len() as u64 - 8;
    if length > MAX_HEADER || length > room {
        let beginning = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        if beginning.starts_with("version https://git-lfs") {
            return Err(Error::weights(path, "is a Git LFS pointer, not the weights", "run `git lfs pull`"));
        }
        return Err(fail(format!("claims a header of {length} bytes, but only {room} follow")));
    }
    let data_start = 8 + length as usize;
    // Parsing the metadata alone, rather than the whole file, leaves the offsets to the checked arithmetic below.
    let metadata: Metadata = serde_json::from_slice(&bytes[8..data_start])
        .map_err(|e| fail(format!("has a header that is not safetensors JSON: {e}")))?;
    if metadata.data_len() != bytes.len() - data_start {
        return Err(fail(format!(
            "its header describes {} bytes of data, but {} follow",
            metadata.data_len(),
            bytes.len() - data_start
        )));
    }
    let file = maps.len();
    let tensors = metadata.tensors();
    let mut names: Vec<&String> = tensors.keys().collect();
    names.sort_by_key(|name| (tensors[*name].data_offsets, *name));
    for name in names {
        let info = tensors[name];
        let (start, end) = info.data_offsets;
        let place = |offset: usize| data_start.checked_add(offset).filter(|&at| at <= bytes.len());
        let (Some(from), Some(to)) = (place(start), place(end)) else {
            return Err(fail(format!(
                "tensor `{name}` lies at bytes {start}..{end} of the data, of which there are {}",
                bytes.len() - data_start
            )));
        };
        let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, &extent| bits.checked_mul(extent));
        if from > to || bits != (to - from).checked_mul(8) {
            return Err(fail(format!(
                "tensor `{name}` of shape {:?} and type {} does not fit its {start}..{end} bytes",
                info.shape, info.dtype
            )));
        }
        let stored = match info.dtype {
            Dtype::F32 => Stored::Readable(Encoding::F32),
            Dtype::F16 => Stored::Readable(Encoding::F16),
            Dtype::BF16 => Stored::Readable(Encoding::BF16),
            Dtype::I8 => Stored::Readable(Encoding::I8),
            Dtype::I32 => Stored::Readable(Encoding::I32),
            Dtype::I64 => Stored::Readable(Encoding::I64),
            Dtype::U8 => Stored::Readable(Encoding::U8),
            other => Stored::Other(other.to_string()),
        };
        entries.push(Entry {
            name: name.to_string(),
            shape: info.shape.clone(),
            stored,
            file,
            range: from..to,
            rope_interleaved_heads: None,
        });
    }
    maps.push(mapping);
    Ok(())
}
