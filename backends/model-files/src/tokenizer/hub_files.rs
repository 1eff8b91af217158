//! The tokenizer of a directory in the Hugging Face layout.

use std::path::Path;

use serde_json::Value;
use tokenizers::PostProcessorWrapper;

use super::{Inner, definition};
use crate::{Error, Result};

pub(super) fn read(directory: &Path) -> Result<Inner> {
    let path = directory.join("tokenizer.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(missing(directory)),
        Err(e) => return Err(Error::io(&path, "read")(e)),
    };
    let mut tokenizer = definition::parse(&path, &text)?;
    let config = read_object(&directory.join("tokenizer_config.json"))?;
    let special = read_object(&directory.join("special_tokens_map.json"))?;
    let generation_config = read_object(&directory.join("generation_config.json"))?;
    let model_config = read_object(&directory.join("config.json"))?;

    let find = |name: &str| {
        let named = [&config, &special].into_iter().flatten().find_map(|object| spelling(&object[name]));
        let by_name = named.and_then(|token| tokenizer.token_to_id(token));
        let id_key = format!("{name}_id");
        by_name.or_else(|| {
            [&generation_config, &model_config]
                .into_iter()
                .flatten()
                .find_map(|object| first_id(&object[&id_key]))
        })
    };
    let (bos, eos) = (find("bos_token"), find("eos_token"));
    if let Some(config) = &config {
        obey_added_tokens(&path, &mut tokenizer, config, bos, eos)?;
    }
    Ok(Inner {
        tokenizer,
        source: path,
        bos,
        eos,
        config: config.unwrap_or_else(|| serde_json::json!({ "tokenizer_class": "PreTrainedTokenizerFast" })),
        generation_config,
    })
}

fn missing(directory: &Path) -> Error {
    let slow = ["tokenizer.model", "spiece.model", "vocab.json"]
        .into_iter()
        .find(|name| directory.join(name).exists());
    match slow {
        Some(slow) => Error::tokenizer(
            directory,
            format!("has {slow} but no tokenizer.json"),
            "write it with `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)` in Python transformers",
        ),
        None => {
            Error::tokenizer(directory, "has no tokenizer.json", "fetch it from where the model came from")
        }
    }
}

/// A JSON object, or `None` when the file is not there.
fn read_object(path: &Path) -> Result<Option<Value>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, "read")(e)),
    };
    match serde_json::from_slice::<Value>(&text) {
        Ok(value) if value.is_object() => Ok(Some(value)),
        Ok(_) => Err(Error::tokenizer(path, "is not a JSON object", "fetch it again, or remove it")),
        Err(e) => {
            Err(Error::tokenizer(path, format!("is not valid JSON: {e}"), "fetch it again, or remove it"))
        }
    }
}

/// A token is given as a string, or as an object with its content.
fn spelling(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// An id, or the first of several.
fn first_id(ids: &Value) -> Option<u32> {
    ids.as_u64().or_else(|| ids[0].as_u64()).and_then(|id| u32::try_from(id).ok())
}

/// `add_bos_token` and `add_eos_token` rule LLaMA's tokenizers, whatever post-processor they come with, and give one to
/// those without.
fn obey_added_tokens(
    path: &Path,
    tokenizer: &mut tokenizers::Tokenizer,
    config: &Value,
    bos: Option<u32>,
    eos: Option<u32>,
) -> Result<()> {
    let (add_bos, add_eos) = (config["add_bos_token"].as_bool(), config["add_eos_token"].as_bool());
    let class = config["tokenizer_class"].as_str().unwrap_or_default();
    let is_llama = matches!(class, "LlamaTokenizer" | "LlamaTokenizerFast");
    let asked = add_bos.is_some() || add_eos.is_some();
    if !asked || !(is_llama || tokenizer.get_post_processor().is_none()) {
        return Ok(());
    }
    // LLaMA's classes add a BOS unless told not to; with no class to go by, only what is asked for is added.
    let wanted = |asked: Option<bool>, default: bool, id: Option<u32>| -> Option<(String, u32)> {
        let id = id.filter(|_| asked.unwrap_or(default))?;
        Some((tokenizer.id_to_token(id)?, id))
    };
    let (before, after) = (wanted(add_bos, is_llama, bos), wanted(add_eos, false, eos));
    let processor = definition::surround(
        before.as_ref().map(|(token, id)| (token.as_str(), *id)),
        after.as_ref().map(|(token, id)| (token.as_str(), *id)),
    );
    let processor: Option<PostProcessorWrapper> =
        processor.map(serde_json::from_value).transpose().map_err(|e| {
            Error::tokenizer(
                path,
                format!("cannot add its special tokens: {e}"),
                "check tokenizer_config.json",
            )
        })?;
    tokenizer.with_post_processor(processor);
    Ok(())
}
