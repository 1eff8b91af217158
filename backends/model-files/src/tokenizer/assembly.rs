//! Tokenizers put together from `tokenizer.model`, or from `vocab.json` and `merges.txt`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::hub_files::Beside;
use super::sentence_piece::Segmenter;
use super::{Inner, byte_level, chatglm, definition, sentence_piece};
use crate::{Error, Result};

/// Spellings of the special tokens.
struct Special {
    bos: Option<String>,
    eos: Option<String>,
    unknown: Option<String>,
    padding: Option<String>,
}

/// What is done with a text beyond cutting it into tokens.
struct Use {
    /// What stands before every text, besides a BOS.
    prefix: Vec<(String, u32)>,
    add_bos: bool,
    add_eos: bool,
    /// Whether special tokens are sought in the text.
    finds_special: bool,
    segmenter: Option<Segmenter>,
}

/// From SentencePiece's model at `path`.
pub(super) fn from_sentence_piece(path: PathBuf, beside: Beside) -> Result<Inner> {
    let file = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    let mut read = sentence_piece::read(&path, &file)?;
    let named =
        |name: &str, own: &Option<String>| beside.spelling(name).map(str::to_owned).or_else(|| own.clone());
    let mut special = Special {
        bos: named("bos_token", &read.bos),
        eos: named("eos_token", &read.eos),
        unknown: named("unk_token", &Some(read.unknown.clone())),
        padding: named("pad_token", &read.padding),
    };
    let usage = if beside.config.as_ref().is_some_and(chatglm::is_meant) {
        let listed = beside.added_tokens();
        let extension =
            chatglm::extend(&mut read, |token| listed.iter().any(|(_, added)| added.content == token));
        // Its prefix stands where others have a BOS; it pads with the unknown token.
        special.bos = beside.spelling("bos_token").map(str::to_owned);
        special.padding = Some(read.unknown.clone());
        Use {
            prefix: extension.prefix,
            add_bos: false,
            add_eos: false,
            finds_special: extension.finds_tokens,
            segmenter: read.segmenter,
        }
    } else {
        Use {
            prefix: Vec::new(),
            add_bos: beside.flag("add_bos_token").unwrap_or(true),
            add_eos: beside.flag("add_eos_token").unwrap_or(false),
            finds_special: true,
            segmenter: read.segmenter,
        }
    };
    assemble(path, &read.json, &special, usage, beside, vec![("tokenizer.model", file)])
}

/// From GPT-2's or OPT's two files.
pub(super) fn from_byte_pairs(path: PathBuf, merges_path: &Path, beside: Beside) -> Result<Inner> {
    let file = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    let merges = std::fs::read(merges_path).map_err(Error::io(merges_path, "read"))?;
    let vocabulary = byte_level::read_vocabulary(&path, &file)?;
    // Both families have one token for beginning, end and unknown; only OPT's vocabulary has this one.
    let is_opt = vocabulary.contains_key("</s>");
    let usual = if is_opt { "</s>" } else { "<|endoftext|>" };
    let known = |token: &str| Some(token.to_owned()).filter(|token| vocabulary.contains_key(token));
    let named = |name: &str, usual: &str| known(beside.spelling(name).unwrap_or(usual));
    let special = Special {
        bos: named("bos_token", usual),
        eos: named("eos_token", usual),
        unknown: named("unk_token", usual),
        padding: named("pad_token", "<pad>"),
    };
    let add_prefix_space = beside.flag("add_prefix_space").unwrap_or(false);
    let json = byte_level::definition(
        merges_path,
        &vocabulary,
        &merges,
        special.unknown.as_deref(),
        add_prefix_space,
    )?;
    let usage = Use {
        prefix: Vec::new(),
        // GPT-2's class adds none unless told to, and OPT's configuration tells it to.
        add_bos: beside.flag("add_bos_token").unwrap_or(is_opt && beside.config.is_none()),
        add_eos: beside.flag("add_eos_token").unwrap_or(false),
        finds_special: true,
        segmenter: None,
    };
    assemble(path, &json, &special, usage, beside, vec![("vocab.json", file), ("merges.txt", merges)])
}

fn assemble(
    path: PathBuf,
    json: &Value,
    special: &Special,
    usage: Use,
    beside: Beside,
    mut originals: Vec<(&'static str, Vec<u8>)>,
) -> Result<Inner> {
    let mut tokenizer = definition::parse(&path, json.to_string().as_bytes())?;
    let fail = |problem: String| {
        Error::tokenizer(&path, problem, "check tokenizer_config.json and added_tokens.json beside it")
    };
    for (id, token) in beside.added_tokens() {
        let content = token.content.clone();
        tokenizer.add_tokens([token]).map_err(|e| fail(format!("cannot take the token {content:?}: {e}")))?;
        let got = tokenizer.token_to_id(&content);
        if got != Some(id) {
            let got = got.map_or("none".to_owned(), |id| id.to_string());
            return Err(fail(format!(
                "has the added token {content:?} with id {id}, but the id that is free is {got}"
            )));
        }
    }
    let named = [&special.bos, &special.eos, &special.unknown, &special.padding];
    for token in named.into_iter().flatten() {
        let is_known = tokenizer.token_to_id(token).is_some();
        let is_added = tokenizer.get_added_vocabulary().is_special_token(token);
        if is_known && !is_added {
            let token = tokenizers::AddedToken::from(token.as_str(), true);
            tokenizer
                .add_special_tokens([token])
                .map_err(|e| fail(format!("cannot take a special token: {e}")))?;
        }
    }
    let with_id = |token: &Option<String>| {
        let token = token.clone()?;
        let id = tokenizer.token_to_id(&token)?;
        Some((token, id))
    };
    let (bos, eos) = (with_id(&special.bos), with_id(&special.eos));
    let mut before: Vec<(String, u32)> = bos.clone().filter(|_| usage.add_bos).into_iter().collect();
    before.extend(usage.prefix);
    let after = eos.clone().filter(|_| usage.add_eos);
    definition::set_surroundings(&path, &mut tokenizer, &before, after.as_slice())?;
    tokenizer.set_encode_special_tokens(!usage.finds_special);
    let config = if usage.segmenter.is_some() {
        // No `tokenizer.json` will stand beside it: what the others say must stay said.
        let others = [("special_tokens_map.json", beside.special), ("added_tokens.json", beside.added)];
        originals.extend(
            others.into_iter().filter_map(|(name, json)| Some((name, json?.to_string().into_bytes()))),
        );
        beside.config.unwrap_or_else(|| json!({}))
    } else {
        config(special, usage.finds_special, beside.config)
    };
    Ok(Inner {
        tokenizer,
        segmenter: usage.segmenter,
        source: path,
        bos: bos.map(|(_, id)| id),
        eos: eos.map(|(_, id)| id),
        config,
        generation_config: beside.generation_config,
        originals,
    })
}

/// `tokenizer_config.json` for what is now a `tokenizer.json`: `original` without what only a Python class of the
/// model's own understands.
fn config(special: &Special, finds_special: bool, original: Option<Value>) -> Value {
    let mut config = match original {
        Some(Value::Object(config)) => config,
        _ => Map::from_iter([("clean_up_tokenization_spaces".to_owned(), json!(false))]),
    };
    for key in ["auto_map", "sp_model_kwargs", "legacy", "use_fast"] {
        config.remove(key);
    }
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    if !finds_special {
        config.insert("split_special_tokens".to_owned(), json!(true));
    }
    let tokens = [
        ("bos_token", &special.bos),
        ("eos_token", &special.eos),
        ("unk_token", &special.unknown),
        ("pad_token", &special.padding),
    ];
    for (name, token) in tokens {
        if let Some(token) = token {
            config.insert(name.to_owned(), json!(token));
        }
    }
    Value::Object(config)
}
