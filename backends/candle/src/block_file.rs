//! A block's parameters in a safetensors file, so that a killed compression can go on.
//!
//! Numbers are stored as `f32`, flat, under their names inside the block. The weight of a linear that is integer codes is stored as
//! `LINEAR.codes`, `LINEAR.scales`, `LINEAR.zeros` and, out of order, `LINEAR.group_index`; the file's metadata have its shape and grid. How
//! activations are rounded stands there, too.

use std::collections::HashMap;
use std::path::Path;

use llmcb_model_files::packed::IntegerMatrix;
use llmcb_plugin_api::sdk::{Error, Result};
use llmcb_transformer::{Activations, Block};
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
