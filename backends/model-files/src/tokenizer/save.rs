//! Writing a tokenizer where Python transformers finds it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Inner;
use crate::{Error, Result};

pub(super) fn write(inner: &Inner, directory: &Path) -> Result<()> {
    if inner.segmenter.is_none() {
        let definition = inner.tokenizer.to_string(true).map_err(|e| {
            Error::tokenizer(
                &inner.source,
                format!("cannot be written as JSON: {e}"),
                "use the model's own tokenizer.json",
            )
        })?;
        write_file(&directory.join("tokenizer.json"), definition.as_bytes())?;
    }
    write_json(&directory.join("tokenizer_config.json"), &inner.config)?;
    let generation = inner.generation_config.clone().or_else(|| generation_config(inner));
    if let Some(generation) = generation {
        write_json(&directory.join("generation_config.json"), &generation)?;
    }
    for (name, content) in &inner.originals {
        write_file(&directory.join(name), content)?;
    }
    Ok(())
}

fn generation_config(inner: &Inner) -> Option<Value> {
    let ids = [("bos_token_id", inner.bos), ("eos_token_id", inner.eos)];
    let known: Map<String, Value> =
        ids.into_iter().filter_map(|(key, id)| Some((key.to_owned(), json!(id?)))).collect();
    (!known.is_empty()).then_some(Value::Object(known))
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_file(path, format!("{value:#}\n").as_bytes())
}

fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content).map_err(Error::io(path, "write"))
}
