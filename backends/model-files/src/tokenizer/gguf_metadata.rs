//! A tokenizer as the metadata of a GGUF: the reverse of `gguf_vocabulary`.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::gguf_vocabulary::{KNOWN_PRE, pre_tokenizer};
use super::vocabulary::token_type;
use super::{Inner, Tokenizer};
use crate::gguf::MetadataValue as M;
use crate::{Error, Result};

const REMEDY: &str = "choose another format: the checkpoint's tokenizer has no counterpart in a GGUF";

/// The pairs `tokenizer.*` for a model whose embedding has `rows` rows.
pub(super) fn build(tokenizer: &Tokenizer, rows: usize) -> Result<Vec<(String, M)>> {
    let inner: &Inner = &tokenizer.inner;
    let fail = |problem: String| Error::tokenizer(&inner.source, problem, REMEDY);
    if inner.segmenter.is_some() {
        return Err(fail("cuts text in a way of SentencePiece's that llama.cpp does not know".to_owned()));
    }
    if tokenizer.prefix().len() > 1 {
        return Err(fail(format!(
            "puts {} tokens before every text; llama.cpp puts one",
            tokenizer.prefix().len()
        )));
    }
    let text = inner.tokenizer.to_string(false).map_err(|e| fail(format!("cannot be written: {e}")))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| fail(format!("is not valid JSON: {e}")))?;
    let model = &json["model"];
    let Some(vocab) = model["vocab"].as_object().filter(|_| model["type"] == "BPE") else {
        return Err(fail(format!("is of type {}; byte-pair encoding can be exported", model["type"])));
    };
    let added = json["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sentence_piece = model["byte_fallback"] == true;

    let mut tokens: Vec<Option<(&str, i32)>> = vec![None; rows];
    let mut put = |id: &Value, token, kind| match id.as_u64().and_then(|id| tokens.get_mut(id as usize)) {
        Some(slot) => {
            *slot = Some((token, kind));
            Ok(())
        }
        None => Err(fail(format!("token {token:?} has the id {id}, but the embedding has {rows} rows"))),
    };
    let is_byte = |token: &str| token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
    for (token, id) in vocab {
        let byte = sentence_piece && is_byte(token);
        put(id, token.as_str(), if byte { token_type::BYTE } else { token_type::NORMAL })?;
    }
    for entry in added {
        let Some(token) = entry["content"].as_str() else { continue };
        let special = entry["special"] == true;
        put(&entry["id"], token, if special { token_type::CONTROL } else { token_type::USER_DEFINED })?;
    }
    if let Some(unknown) = model["unk_token"].as_str()
        && let Some(id) = vocab.get(unknown)
    {
        put(id, unknown, token_type::UNKNOWN)?;
    }
    let (names, types): (Vec<String>, Vec<i32>) = tokens
        .iter()
        .enumerate()
        .map(|(id, slot)| match slot {
            Some((token, kind)) => ((*token).to_owned(), *kind),
            // Rows of the embedding beyond the vocabulary.
            None => (format!("[PAD{id}]"), token_type::UNUSED),
        })
        .unzip();

    let merges = merges(model).ok_or_else(|| fail("has merges that are no pairs of tokens".to_owned()))?;
    let mut out: Vec<(String, M)> = Vec::new();
    let mut set = |key: &str, value: M| out.push((format!("tokenizer.{key}"), value));
    if sentence_piece {
        set("ggml.model", M::Text("llama".to_owned()));
        set("ggml.pre", M::Text("default".to_owned()));
        // Whichever pair comes first among the merges is joined first; the score of what it makes says so.
        let mut rank = HashMap::new();
        for (at, (left, right)) in merges.iter().enumerate() {
            rank.entry(format!("{left}{right}")).or_insert(at);
        }
        let score = |name: &String| rank.get(name).map_or(0.0, |at| -(*at as f32) - 1.0);
        set("ggml.scores", M::F32s(names.iter().map(score).collect()));
        let prepends = text.contains("\"Prepend\"")
            || text.contains("\"prepend_scheme\":\"first\"")
            || text.contains("\"prepend_scheme\":\"always\"");
        set("ggml.add_space_prefix", M::Bool(prepends));
    } else {
        let pre = known_pre(&json).ok_or_else(|| {
            fail(format!("splits text in a way that llama.cpp has no name for: {}", json["pre_tokenizer"]))
        })?;
        set("ggml.model", M::Text("gpt2".to_owned()));
        set("ggml.pre", M::Text(pre.to_owned()));
        set("ggml.merges", M::Texts(merges.iter().map(|(left, right)| format!("{left} {right}")).collect()));
    }
    let unknown = model["unk_token"].as_str().and_then(|token| tokenizer.token_to_id(token));
    let padding = inner.config["pad_token"].as_str().and_then(|token| tokenizer.token_to_id(token));
    for (name, id) in [("bos", inner.bos), ("eos", inner.eos), ("unknown", unknown), ("padding", padding)] {
        if let Some(id) = id {
            set(&format!("ggml.{name}_token_id"), M::U32(id));
        }
    }
    let surrounded = tokenizer.encode("a", true)?;
    set("ggml.add_bos_token", M::Bool(inner.bos.is_some() && surrounded.first() == inner.bos.as_ref()));
    set("ggml.add_eos_token", M::Bool(inner.eos.is_some() && surrounded.last() == inner.eos.as_ref()));
    if let Some(template) = inner.config["chat_template"].as_str() {
        set("chat_template", M::Text(template.to_owned()));
    }
    let distinct: HashSet<&String> = names.iter().collect();
    if distinct.len() < names.len() {
        return Err(fail("spells two tokens alike".to_owned()));
    }
    set("ggml.tokens", M::Texts(names));
    set("ggml.token_type", M::I32s(types));
    Ok(out)
}

/// Merges as pairs; older files have lines.
fn merges(model: &Value) -> Option<Vec<(&str, &str)>> {
    model["merges"]
        .as_array()?
        .iter()
        .map(|merge| match merge {
            Value::String(line) => line.split_once(' '),
            pair => Some((pair[0].as_str()?, pair[1].as_str()?)),
        })
        .collect()
}

/// The name that llama.cpp gives to a way of splitting text.
fn known_pre(json: &Value) -> Option<&'static str> {
    let found = steps(&json["pre_tokenizer"]);
    KNOWN_PRE.into_iter().find(|name| {
        pre_tokenizer(name).is_some_and(|known| {
            steps(&known.json) == found
                && (known.normalizer == json["normalizer"])
                && known.ignore_merges == (json["model"]["ignore_merges"] == true)
        })
    })
}

/// The steps of a pre-tokenizer, without settings that do not decide where text is split.
fn steps(pre: &Value) -> Vec<Value> {
    let list = match pre["pretokenizers"].as_array() {
        Some(list) => list.clone(),
        None => vec![pre.clone()],
    };
    let plain = |mut step: Value| {
        if let Some(step) = step.as_object_mut() {
            step.remove("trim_offsets");
        }
        step
    };
    list.into_iter().map(plain).collect()
}
