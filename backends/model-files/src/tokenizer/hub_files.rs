//! The tokenizer of a directory in the Hugging Face layout.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokenizers::AddedToken;

use super::sources::Source;
use super::{Inner, assembly, definition};
use crate::{Error, Result};

pub(super) fn read(directory: &Path) -> Result<Inner> {
    let Some(source) = Source::find(directory) else { return Err(missing(directory)) };
    let beside = Beside::read(directory, &source)?;
    match source {
        Source::Definition(path) => from_definition(path, beside),
        Source::SentencePiece(path) => assembly::from_sentence_piece(path, beside),
        Source::BytePairs { vocabulary, merges } => assembly::from_byte_pairs(vocabulary, &merges, beside),
    }
}

/// What other files of the directory say about a tokenizer.
pub(super) struct Beside {
    /// `tokenizer_config.json`.
    pub(super) config: Option<Value>,
    /// `special_tokens_map.json`.
    pub(super) special: Option<Value>,
    /// `added_tokens.json`.
    pub(super) added: Option<Value>,
    pub(super) generation_config: Option<Value>,
    model_config: Option<Value>,
}

impl Beside {
    fn read(directory: &Path, source: &Source) -> Result<Self> {
        let read = |name: &str| read_object(&directory.join(name));
        Ok(Beside {
            config: read("tokenizer_config.json")?,
            special: read("special_tokens_map.json")?,
            // A definition has them already.
            added: match source {
                Source::Definition(_) => None,
                Source::SentencePiece(_) | Source::BytePairs { .. } => read("added_tokens.json")?,
            },
            generation_config: read("generation_config.json")?,
            model_config: read("config.json")?,
        })
    }

    /// How a special token (`bos_token`) is spelled.
    pub(super) fn spelling(&self, name: &str) -> Option<&str> {
        [&self.config, &self.special].into_iter().flatten().find_map(|object| spelling(&object[name]))
    }

    /// The id that the model's configuration gives a special token (`bos_token`).
    pub(super) fn configured_id(&self, name: &str) -> Option<u32> {
        let key = format!("{name}_id");
        let configs = [&self.generation_config, &self.model_config];
        configs.into_iter().flatten().find_map(|object| first_id(&object[&key]))
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.config.as_ref()?[name].as_bool()
    }

    /// Tokens added to a vocabulary, in the order of their ids.
    pub(super) fn added_tokens(&self) -> Vec<(u32, AddedToken)> {
        let mut tokens = BTreeMap::new();
        for (content, id) in self.added.iter().filter_map(Value::as_object).flatten() {
            if let Some(id) = first_id(id) {
                tokens.insert(id, AddedToken::from(content.as_str(), false).normalized(false));
            }
        }
        let listed = self.config.as_ref().and_then(|config| config["added_tokens_decoder"].as_object());
        for (id, token) in listed.into_iter().flatten() {
            let flag = |name: &str| token[name] == true;
            if let (Ok(id), Some(content)) = (id.parse(), spelling(token)) {
                let token = AddedToken::from(content, flag("special"))
                    .normalized(false)
                    .lstrip(flag("lstrip"))
                    .rstrip(flag("rstrip"))
                    .single_word(flag("single_word"));
                tokens.insert(id, token);
            }
        }
        tokens.into_iter().filter(|(_, token)| !token.content.is_empty()).collect()
    }
}

fn from_definition(path: PathBuf, beside: Beside) -> Result<Inner> {
    let text = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    let mut tokenizer = definition::parse(&path, &text)?;
    let find = |name: &str| {
        let by_name = beside.spelling(name).and_then(|token| tokenizer.token_to_id(token));
        by_name.or_else(|| beside.configured_id(name))
    };
    let (bos, eos) = (find("bos_token"), find("eos_token"));
    if let Some(config) = &beside.config {
        obey_added_tokens(&path, &mut tokenizer, config, bos, eos)?;
    }
    if beside.flag("split_special_tokens") == Some(true) {
        tokenizer.set_encode_special_tokens(true);
    }
    Ok(Inner {
        tokenizer,
        segmenter: None,
        source: path,
        bos,
        eos,
        config: beside.config.unwrap_or_else(|| json!({ "tokenizer_class": "PreTrainedTokenizerFast" })),
        generation_config: beside.generation_config,
        originals: Vec::new(),
    })
}

fn missing(directory: &Path) -> Error {
    const WRITE: &str =
        "write it with `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)` in Python transformers";
    let has = |name: &str| directory.join(name).exists();
    if has("vocab.json") {
        Error::tokenizer(
            directory,
            "has vocab.json but no merges.txt",
            "fetch it from where the model came from",
        )
    } else if has("spiece.model") {
        Error::tokenizer(directory, "has spiece.model but no tokenizer.json", WRITE)
    } else {
        Error::tokenizer(
            directory,
            "has no tokenizer.json, no tokenizer.model, and no vocab.json with merges.txt",
            "fetch the tokenizer from where the model came from",
        )
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
    definition::set_surroundings(path, tokenizer, before.as_slice(), after.as_slice())
}
