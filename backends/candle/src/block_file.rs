//! A block's parameters in a safetensors file, so that a killed compression can go on.
//!
//! Numbers are stored as `f32`, flat, under their names inside the block. The weight of a linear that is integer codes is stored as
//! `LINEAR.codes`, `LINEAR.scales`, `LINEAR.zeros` and, out of order, `LINEAR.group_index`; the file's metadata have its shape and grid. How
//! activations are rounded stands there, too.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use llmcb_model_files::packed::IntegerMatrix;
use llmcb_plugin_api::sdk::{Error, Result};
use llmcb_runner_kit::translate;
use llmcb_transformer::{ActivationSite, Activations, Architecture, Block, BlockShape};
use safetensors::tensor::{Dtype, Metadata, View};
use serde::{Deserialize, Serialize};

/// What of integer codes is no tensor.
#[derive(Serialize, Deserialize)]
struct Grid {
    rows: usize,
    columns: usize,
    bits: u32,
    group_size: Option<usize>,
    symmetric: bool,
}

/// Key of the metadata for the rounding of activations; no linear has this name.
const ACTIVATIONS: &str = "activations";
/// Key of the metadata for the numbers of heads and channels; no linear has this name either.
const SHAPE: &str = "shape";

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A tensor of the file. Numbers are made when they are written: all at once would be the block once more.
enum Part<'a> {
    Numbers { block: &'a Block, name: String, shape: [usize; 1] },
    Bytes { dtype: Dtype, bytes: Vec<u8>, shape: [usize; 1] },
}

impl Part<'_> {
    fn bytes(dtype: Dtype, bytes: Vec<u8>) -> Self {
        let shape = [bytes.len() * 8 / dtype.bitsize()];
        Part::Bytes { dtype, bytes, shape }
    }
}

impl View for Part<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Part::Numbers { .. } => Dtype::F32,
            Part::Bytes { dtype, .. } => *dtype,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Part::Numbers { shape, .. } | Part::Bytes { shape, .. } => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            // The name is one of the block's own.
            Part::Numbers { block, name, .. } => {
                Cow::Owned(f32_bytes(&block.tensor(name).unwrap_or_default()))
            }
            Part::Bytes { bytes, .. } => Cow::Borrowed(bytes),
        }
    }

    fn data_len(&self) -> usize {
        self.shape()[0] * self.dtype().bitsize() / 8
    }
}

/// Writes all parameters of a block.
pub(crate) fn write(block: &Block, file: &Path) -> Result<()> {
    let mut parts: Vec<(String, Part<'_>)> = Vec::new();
    let mut metadata = HashMap::new();
    for name in block.tensor_names() {
        let linear = name.strip_suffix(".weight").and_then(|linear| block.linear(linear).ok());
        let Some((linear, codes)) = linear.and_then(|linear| Some((linear.name(), linear.integers()?)))
        else {
            let shape = [block.tensor_len(&name).map_err(translate)?];
            parts.push((name.clone(), Part::Numbers { block, name, shape }));
            continue;
        };
        let IntegerMatrix { rows, columns, bits, group_size, symmetric, .. } = codes;
        let grid = serde_json::to_string(&Grid { rows, columns, bits, group_size, symmetric });
        metadata.insert(linear.to_owned(), grid.map_err(|e| Error::failed(e.to_string()))?);
        parts.push((format!("{linear}.codes"), Part::bytes(Dtype::U8, codes.codes)));
        parts.push((format!("{linear}.scales"), Part::bytes(Dtype::F32, f32_bytes(&codes.scales))));
        parts.push((format!("{linear}.zeros"), Part::bytes(Dtype::F32, f32_bytes(&codes.zeros))));
        if let Some(index) = codes.group_index {
            let bytes = index.iter().flat_map(|g| g.to_le_bytes()).collect();
            parts.push((format!("{linear}.group_index"), Part::bytes(Dtype::U32, bytes)));
        }
    }
    if block.activations().any() {
        metadata.insert(ACTIVATIONS.to_owned(), block.activations().to_json().to_string());
    }
    let shape = serde_json::to_string(&block.architecture().block_shape());
    metadata.insert(SHAPE.to_owned(), shape.map_err(|e| Error::failed(e.to_string()))?);
    safetensors::serialize_to_file(parts, Some(metadata), file)
        .map_err(|e| Error::failed(format!("cannot write {}: {e}", file.display())))
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::failed(format!("a saved block is damaged: {what}; remove the stage's folder"))
}

/// A file of [`write`], of which one tensor after the other is read.
struct Saved<'a> {
    file: &'a File,
    header: Metadata,
    /// Where tensors begin.
    start: u64,
}

impl<'a> Saved<'a> {
    fn open(file: &'a File) -> Result<Self> {
        let mut length = [0u8; 8];
        file.read_exact_at(&mut length, 0).map_err(damaged)?;
        let all = file.metadata().map_err(damaged)?.len();
        let start = u64::from_le_bytes(length).checked_add(8).filter(|start| *start <= all);
        let start = start.ok_or_else(|| damaged("its header ends behind its end"))?;
        let mut bytes = vec![0u8; start as usize];
        file.read_exact_at(&mut bytes, 0).map_err(damaged)?;
        let header = serde_json::from_slice(&bytes[8..]).map_err(damaged)?;
        Ok(Self { file, header, start })
    }

    fn bytes(&self, name: &str, dtype: Dtype) -> Result<Vec<u8>> {
        let info = self.header.info(name).ok_or_else(|| damaged(format!("{name} is missing")))?;
        if info.dtype != dtype {
            return Err(damaged(format!("{name} is {:?}, not {dtype:?}", info.dtype)));
        }
        let (from, to) = info.data_offsets;
        let length = to.checked_sub(from).ok_or_else(|| damaged(format!("{name} ends before it begins")))?;
        let mut bytes = vec![0u8; length];
        let read = self.file.read_exact_at(&mut bytes, self.start + from as u64);
        read.map_err(|e| damaged(format!("{name}: {e}")))?;
        Ok(bytes)
    }

    fn numbers(&self, name: &str) -> Result<Vec<f32>> {
        let bytes = self.bytes(name, Dtype::F32)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect())
    }

    fn codes(&self, linear: &str, grid: &str) -> Result<IntegerMatrix> {
        let Grid { rows, columns, bits, group_size, symmetric } =
            serde_json::from_str(grid).map_err(|e| damaged(format!("{linear}: {e}")))?;
        let index = format!("{linear}.group_index");
        let group_index = match self.header.info(&index) {
            Some(_) => {
                let bytes = self.bytes(&index, Dtype::U32)?;
                Some(bytes.as_chunks::<4>().0.iter().map(|c| u32::from_le_bytes(*c)).collect())
            }
            None => None,
        };
        let matrix = IntegerMatrix {
            rows,
            columns,
            bits,
            group_size,
            symmetric,
            codes: self.bytes(&format!("{linear}.codes"), Dtype::U8)?,
            scales: self.numbers(&format!("{linear}.scales"))?,
            zeros: self.numbers(&format!("{linear}.zeros"))?,
            group_index,
        };
        matrix.check().map_err(damaged)?;
        Ok(matrix)
    }
}

/// Reads a block of a model of this architecture from a file of [`write`].
pub(crate) fn read(file: &File, architecture: &Architecture) -> Result<Block> {
    let saved = Saved::open(file)?;
    let metadata = saved.header.metadata().clone().unwrap_or_default();
    let shape = metadata.get(SHAPE).ok_or_else(|| damaged(format!("{SHAPE} is missing")))?;
    let shape: BlockShape = serde_json::from_str(shape).map_err(|e| damaged(format!("{SHAPE}: {e}")))?;
    let mut block = Block::blank(architecture.with_shape(shape));
    if let Some(text) = metadata.get(ACTIVATIONS) {
        let json = serde_json::from_str(text).map_err(|e| damaged(format!("{ACTIVATIONS}: {e}")))?;
        let found = Activations::from_json(&json).map_err(|e| damaged(format!("{ACTIVATIONS}: {e}")))?;
        for site in ActivationSite::ALL {
            block.quantize_activations(site, found.at(site).copied());
        }
    }
    for name in block.tensor_names() {
        let linear = name.strip_suffix(".weight").unwrap_or_default();
        match metadata.get(linear) {
            Some(grid) => block.set_integers(linear, &saved.codes(linear, grid)?),
            None => block.set_tensor(&name, saved.numbers(&name)?),
        }
        .map_err(damaged)?;
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use llmcb_transformer::{LoadOptions, MemorySource, Model, Structure};
    use serde_json::json;

    use super::*;

    fn model() -> Model {
        let config = json!({
            "model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1,
            "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true,
        });
        let mut source = MemorySource::default();
        let mut put = |name: &str, shape: &[usize]| {
            let count: usize = shape.iter().product();
            let values = (0..count).map(|i| i as f32 / 7.0 - name.len() as f32).collect();
            source.insert(name, shape.to_vec(), values).expect("a tensor");
        };
        put("model.embed_tokens.weight", &[8, 8]);
        put("model.norm.weight", &[8]);
        for (name, shape) in [
            ("self_attn.q_proj", &[8, 8][..]),
            ("self_attn.k_proj", &[4, 8]),
            ("self_attn.v_proj", &[4, 8]),
            ("self_attn.o_proj", &[8, 8]),
            ("mlp.gate_proj", &[6, 8]),
            ("mlp.up_proj", &[6, 8]),
            ("mlp.down_proj", &[8, 6]),
            ("input_layernorm", &[8]),
            ("post_attention_layernorm", &[8]),
        ] {
            put(&format!("model.layers.0.{name}.weight"), shape);
        }
        Model::from_source(
            Arc::new(source),
            config,
            "tiny".to_owned(),
            &LoadOptions { threads: 1, ..LoadOptions::default() },
        )
        .expect("a model")
    }

    #[test]
    fn a_pruned_block_comes_back_in_its_shape() {
        let dense = model().block(0).expect("a block");
        let mut block = dense.clone();
        block.keep_units(Structure::Heads, &[1]).expect("heads");
        block.keep_units(Structure::Channels, &[0, 2, 5]).expect("channels");
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("0000.safetensors");
        write(&block, &file).expect("written");

        let again = read(&File::open(&file).expect("the file"), dense.architecture()).expect("read");
        assert_eq!(again.architecture(), block.architecture());
        for name in block.tensor_names() {
            assert_eq!(
                again.tensor(&name).expect("a tensor"),
                block.tensor(&name).expect("a tensor"),
                "{name}"
            );
        }
    }
}
