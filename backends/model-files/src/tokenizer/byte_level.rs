//! Byte-level BPE as GPT-2 and OPT have it: `vocab.json` with the tokens, `merges.txt` with the rules.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// Bytes as printable characters; `use_regex` also splits with GPT-2's expression.
pub(super) fn step(use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex })
}

/// Reads the vocabulary: spellings and ids.
pub(super) fn read_vocabulary(path: &Path, text: &[u8]) -> Result<Map<String, Value>> {
    let fail = |problem: String| Error::tokenizer(path, problem, "fetch it again");
    let vocabulary: Map<String, Value> = serde_json::from_slice(text)
        .map_err(|e| fail(format!("is no JSON object of tokens and ids: {e}")))?;
    let mut owners = std::collections::HashMap::with_capacity(vocabulary.len());
    for (token, id) in &vocabulary {
        let Some(number) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
            return Err(fail(format!("gives token {token:?} the id {id}, which is none")));
        };
        if let Some(other) = owners.insert(number, token) {
            return Err(fail(format!("gives both {other:?} and {token:?} the id {number}")));
        }
    }
    Ok(vocabulary)
}

/// The definition of the tokenizer with these tokens and with the rules in `merges`, the content of the file at `path`.
pub(super) fn definition(
    path: &Path,
    vocabulary: &Map<String, Value>,
    merges: &[u8],
    unknown: Option<&str>,
    add_prefix_space: bool,
) -> Result<Value> {
    let fail = |problem: String| Error::tokenizer(path, problem, "fetch it again, together with vocab.json");
    let merges = std::str::from_utf8(merges).map_err(|e| fail(format!("is no UTF-8 text: {e}")))?;
    let mut pairs = Vec::new();
    for (index, line) in merges.lines().enumerate() {
        if line.is_empty() || (index == 0 && line.starts_with("#version")) {
            continue;
        }
        let Some((left, right)) = line.split_once(' ') else {
            return Err(fail(format!("line {} is no pair of tokens: {line:?}", index + 1)));
        };
        pairs.push(json!([left, right]));
    }
    let mut split = step(true);
    split["add_prefix_space"] = json!(add_prefix_space);
    Ok(json!({
        "version": "1.0",
        "normalizer": null,
        "pre_tokenizer": split,
        "post_processor": null,
        "decoder": step(true),
        "added_tokens": [],
        "model": {
            "type": "BPE",
            "unk_token": unknown,
            "fuse_unk": false,
            "vocab": vocabulary,
            "merges": pairs,
        },
    }))
}
