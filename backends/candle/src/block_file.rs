//! A block's parameters in a safetensors file, so that a killed compression can go on.
//!
//! Numbers are stored as `f32`, flat, under their names inside the block. The weight of a linear that is integer codes is stored as
//! `LINEAR.codes`, `LINEAR.scales`, `LINEAR.zeros` and, out of order, `LINEAR.group_index`; the file's metadata have its shape and grid. How
//! activations are rounded stands there, too.

use std::collections::HashMap;
use std::path::Path;

use llmcb_model_files::packed::IntegerMatrix;
use llmcb_plugin_api::sdk::{Error, Result};
use llmcb_transformer::{Activations, Block, BlockShape};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::opened::translate;

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

/// Writes all parameters of a block.
pub(crate) fn write(block: &Block, file: &Path) -> Result<()> {
    let mut tensors: Vec<(String, Dtype, Vec<u8>)> = Vec::new();
    let mut metadata = HashMap::new();
    for name in block.tensor_names() {
        let linear =
            name.strip_suffix(".weight").and_then(|linear| Some((linear, block.linear(linear).ok()?)));
        let Some((linear, codes)) = linear.and_then(|(name, linear)| Some((name, linear.integers()?))) else {
            tensors.push((name.clone(), Dtype::F32, f32_bytes(&block.tensor(&name).map_err(translate)?)));
            continue;
        };
        let matrix = codes.to_matrix();
        let IntegerMatrix { rows, columns, bits, group_size, symmetric, .. } = matrix;
        let grid = serde_json::to_string(&Grid { rows, columns, bits, group_size, symmetric });
        metadata.insert(linear.to_owned(), grid.map_err(|e| Error::failed(e.to_string()))?);
        tensors.push((format!("{linear}.codes"), Dtype::U8, matrix.codes));
        tensors.push((format!("{linear}.scales"), Dtype::F32, f32_bytes(&matrix.scales)));
        tensors.push((format!("{linear}.zeros"), Dtype::F32, f32_bytes(&matrix.zeros)));
        if let Some(index) = matrix.group_index {
            let bytes = index.iter().flat_map(|g| g.to_le_bytes()).collect();
            tensors.push((format!("{linear}.group_index"), Dtype::U32, bytes));
        }
    }
    if block.activations().any() {
        metadata.insert(ACTIVATIONS.to_owned(), block.activations().to_json().to_string());
    }
    let shape = serde_json::to_string(&block.config().block_shape());
    metadata.insert(SHAPE.to_owned(), shape.map_err(|e| Error::failed(e.to_string()))?);
    let mut views = Vec::new();
    for (name, dtype, bytes) in &tensors {
        let view = TensorView::new(*dtype, vec![bytes.len() * 8 / dtype.bitsize()], bytes)
            .map_err(|e| Error::failed(format!("{}: {name}: {e}", file.display())))?;
        views.push((name.as_str(), view));
    }
    safetensors::serialize_to_file(views, Some(metadata), file)
        .map_err(|e| Error::failed(format!("cannot write {}: {e}", file.display())))
}

/// A parameter as it was saved.
pub(crate) enum Saved {
    /// The numbers of heads and channels; comes first.
    Shape(BlockShape),
    /// A tensor by its name inside the block.
    Numbers(String, Vec<f32>),
    /// The weight of a linear.
    Codes(String, IntegerMatrix),
    /// How activations are rounded.
    Activations(Activations),
}

/// Reads the parameters of a block from a file of [`write`].
pub(crate) fn read(file: &Path, mut set: impl FnMut(Saved) -> Result<()>) -> Result<()> {
    let damaged =
        |what: String| Error::failed(format!("{}: {what}; remove the stage's folder", file.display()));
    let bytes = std::fs::read(file).map_err(|e| damaged(e.to_string()))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(e.to_string()))?;
    let grids = header.metadata().clone().unwrap_or_default();
    let data = |name: &str, dtype: Dtype| {
        let view = tensors.tensor(name).map_err(|e| damaged(format!("{name}: {e}")))?;
        if view.dtype() != dtype {
            return Err(damaged(format!("{name} is {:?}, not {dtype:?}", view.dtype())));
        }
        Ok(view.data())
    };
    let numbers = |name: &str| -> Result<Vec<f32>> {
        Ok(data(name, Dtype::F32)?.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect())
    };
    let shape = grids.get(SHAPE).ok_or_else(|| damaged(format!("{SHAPE} is missing")))?;
    set(Saved::Shape(serde_json::from_str(shape).map_err(|e| damaged(format!("{SHAPE}: {e}")))?))?;
    let activations = match grids.get(ACTIVATIONS) {
        Some(text) => {
            let json = serde_json::from_str(text).map_err(|e| damaged(format!("{ACTIVATIONS}: {e}")))?;
            Activations::from_json(&json).map_err(|e| damaged(format!("{ACTIVATIONS}: {e}")))?
        }
        None => Activations::default(),
    };
    set(Saved::Activations(activations))?;
    for name in tensors.names() {
        let linear = name.rsplit_once('.').map_or("", |(linear, _)| linear);
        let Some(grid) = grids.get(linear).filter(|_| !name.ends_with(".bias")) else {
            set(Saved::Numbers(name.to_owned(), numbers(name)?))?;
            continue;
        };
        if !name.ends_with(".codes") {
            continue;
        }
        let Grid { rows, columns, bits, group_size, symmetric } =
            serde_json::from_str(grid).map_err(|e| damaged(format!("{linear}: {e}")))?;
        let index = format!("{linear}.group_index");
        let group_index = if tensors.names().contains(&index.as_str()) {
            let chunks = data(&index, Dtype::U32)?.as_chunks::<4>().0;
            Some(chunks.iter().map(|c| u32::from_le_bytes(*c)).collect())
        } else {
            None
        };
        let matrix = IntegerMatrix {
            rows,
            columns,
            bits,
            group_size,
            symmetric,
            codes: data(name, Dtype::U8)?.to_vec(),
            scales: numbers(&format!("{linear}.scales"))?,
            zeros: numbers(&format!("{linear}.zeros"))?,
            group_index,
        };
        matrix.check().map_err(|e| damaged(e.to_string()))?;
        set(Saved::Codes(linear.to_owned(), matrix))?;
    }
    Ok(())
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
        Model::from_source(Arc::new(source), config, "tiny".to_owned(), &LoadOptions { threads: 1 })
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

        let mut again = dense;
        read(&file, |saved| {
            match saved {
                Saved::Shape(shape) => again.reshape(shape),
                Saved::Numbers(name, values) => again.set_tensor(&name, values).map_err(translate)?,
                Saved::Codes(..) => panic!("there are no codes"),
                Saved::Activations(activations) => assert!(!activations.any()),
            }
            Ok(())
        })
        .expect("read");
        assert_eq!(again.config(), block.config());
        for name in block.tensor_names() {
            assert_eq!(
                again.tensor(&name).expect("a tensor"),
                block.tensor(&name).expect("a tensor"),
                "{name}"
            );
        }
    }
}
