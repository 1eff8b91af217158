//! A block's parameters in a safetensors file, so that a killed compression can go on.

use std::path::Path;

use llmcb_plugin_api::sdk::{Error, Result};
use llmcb_transformer::Block;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::opened::translate;

/// Writes all tensors of a block, f32, flat, under their names inside the block.
pub(crate) fn write(block: &Block, file: &Path) -> Result<()> {
    let mut tensors = Vec::new();
    for name in block.tensor_names() {
        let values = block.tensor(&name).map_err(translate)?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensors.push((name, values.len(), bytes));
    }
    let mut views = Vec::new();
    for (name, length, bytes) in &tensors {
        let view = TensorView::new(Dtype::F32, vec![*length], bytes)
            .map_err(|e| Error::failed(format!("{}: {name}: {e}", file.display())))?;
        views.push((name.as_str(), view));
    }
    safetensors::serialize_to_file(views, None, file)
        .map_err(|e| Error::failed(format!("cannot write {}: {e}", file.display())))
}

/// Sets the tensors of a block from a file of [`write`].
pub(crate) fn read(file: &Path, mut set: impl FnMut(&str, Vec<f32>) -> Result<()>) -> Result<()> {
    let damaged =
        |what: String| Error::failed(format!("{}: {what}; remove the stage's folder", file.display()));
    let bytes = std::fs::read(file).map_err(|e| damaged(e.to_string()))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
    for (name, view) in tensors.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(damaged(format!("{name} is {:?}, not F32", view.dtype())));
        }
        let (chunks, _) = view.data().as_chunks::<4>();
        set(&name, chunks.iter().map(|c| f32::from_le_bytes(*c)).collect())?;
    }
    Ok(())
}
