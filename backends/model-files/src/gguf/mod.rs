//! GGUF, versions 2 and 3, little endian: ggml's single-file format of metadata, vocabulary and tensors.

pub mod blocks;
mod header;
mod hub_config;
mod metadata;
mod names;
mod rope_scaling;
mod writer;

use std::collections::HashSet;
use std::path::Path;

use crate::mapping::Mapping;
use crate::model::{Entry, Format, Parts, Stored};
use crate::{Error, Result};
use header::Header;
pub(crate) use metadata::View;
use names::Role;
pub use names::gguf_name;
pub use writer::{GgufTensor, GgufWriter, MetadataValue};

/// A GGUF's header: everything in it but the tensors' bytes.
pub(crate) struct Gguf {
    header: Header,
}

impl Gguf {
    /// Reads the header, translates names and configuration, and places every tensor.
    pub(crate) fn open(path: &Path) -> Result<Parts> {
        let map = Mapping::open(path)?;
        let header = Header::read(path, map.bytes())?;
        let gguf = Gguf { header };
        let (config, entries) = {
            let view = gguf.view(&map);
            refuse_splits(&view)?;
            let config = hub_config::derive(&view)?;
            let entries = place_tensors(&view, &config)?;
            (config.json, entries)
        };
        Ok(Parts {
            path: path.to_path_buf(),
            config,
            maps: vec![map],
            entries,
            quantization: None,
            format: Format::Gguf(Box::new(gguf)),
        })
    }

    /// The header together with the bytes it points into.
    pub(crate) fn view<'a>(&'a self, map: &'a Mapping) -> View<'a> {
        View { path: map.path(), bytes: map.bytes(), header: &self.header }
    }
}

fn refuse_splits(view: &View<'_>) -> Result<()> {
    match view.count("split.count")? {
        Some(parts) if parts > 1 => Err(Error::not_a_model(
            view.path,
            format!("is one of {parts} parts of a split GGUF"),
            "join the parts with `gguf-split --merge` and open the result",
        )),
        _ => Ok(()),
    }
}

fn place_tensors(view: &View<'_>, config: &hub_config::Derived) -> Result<Vec<Entry>> {
    let mut entries = Vec::with_capacity(view.header.tensors.len());
    let mut seen = HashSet::new();
    for tensor in &view.header.tensors {
        let name = match names::hub_name(&tensor.name, config.layers) {
            Role::Weight(name) => name,
            Role::Configuration => continue,
            Role::Unknown => {
                return Err(Error::weights(
                    view.path,
                    format!(
                        "tensor `{}` has no place in a model of architecture {}",
                        tensor.name, config.architecture
                    ),
                    "the file belongs to a variant that is not supported; use the original safetensors checkpoint",
                ));
            }
        };
        // Different spellings of one layer number could meet in one name.
        if !seen.insert(name.clone()) {
            return Err(Error::weights(
                view.path,
                format!("holds tensor `{name}` twice"),
                "convert the model again",
            ));
        }
        let rope_interleaved_heads = match () {
            () if config.architecture != "llama" => None,
            () if name.contains("q_proj") => Some(config.heads),
            () if name.contains("k_proj") => Some(config.key_value_heads),
            () => None,
        };
        entries.push(Entry {
            name,
            shape: tensor.shape.clone(),
            stored: Stored::Readable(tensor.encoding),
            file: 0,
            range: tensor.range.clone(),
            rope_interleaved_heads,
        });
    }
    Ok(entries)
}
