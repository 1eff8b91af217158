//! `tokenizer.json`: from its text to a tokenizer, with what the library would not survive refused first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::PostProcessorWrapper;

use super::merges;
use crate::{Error, Result};

const REMEDY: &str =
    "fetch it again, or write it with `AutoTokenizer.from_pretrained(..).save_pretrained(..)`";

/// Builds the tokenizer that `text`, the content of a `tokenizer.json`, defines. Truncation and padding are off: a
/// benchmark wants the whole text and nothing but the text.
pub(super) fn parse(path: &Path, text: &[u8]) -> Result<tokenizers::Tokenizer> {
    let parsed: Value = serde_json::from_slice(text)
        .map_err(|e| Error::tokenizer(path, format!("is not valid JSON: {e}"), REMEDY))?;
    merges::check(&parsed["model"]).map_err(|problem| Error::tokenizer(path, problem, REMEDY))?;
    // The library asserts in places. What it trips over is a broken file, never a state of this program.
    let built = catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(text)));
    let mut tokenizer = match built {
        Ok(Ok(tokenizer)) => tokenizer,
        Ok(Err(e)) => {
            return Err(Error::tokenizer(path, format!("is not a tokenizer definition: {e}"), REMEDY));
        }
        Err(_) => return Err(Error::tokenizer(path, "contradicts itself", REMEDY)),
    };
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|e| Error::tokenizer(path, format!("has impossible truncation settings: {e}"), REMEDY))?;
    Ok(tokenizer)
}

/// A post-processor that puts `before` in front of every text and `after` behind it: pairs of spelling and id.
pub(super) fn surround(before: &[(&str, u32)], after: &[(&str, u32)]) -> Option<Value> {
    if before.is_empty() && after.is_empty() {
        return None;
    }
    let template = |sequences: &[(&str, u32)]| {
        let mut pieces = Vec::new();
        for &(sequence, type_id) in sequences {
            let special =
                |(token, _): &(&str, u32)| json!({ "SpecialToken": { "id": token, "type_id": type_id } });
            pieces.extend(before.iter().map(special));
            pieces.push(json!({ "Sequence": { "id": sequence, "type_id": type_id } }));
            pieces.extend(after.iter().map(special));
        }
        Value::Array(pieces)
    };
    let mut special_tokens = serde_json::Map::new();
    for &(token, id) in before.iter().chain(after) {
        special_tokens.insert(token.to_owned(), json!({ "id": token, "ids": [id], "tokens": [token] }));
    }
    Some(json!({
        "type": "TemplateProcessing",
        "single": template(&[("A", 0)]),
        "pair": template(&[("A", 0), ("B", 1)]),
        "special_tokens": special_tokens,
    }))
}

/// Puts `before` in front of every text and `after` behind it, and nothing else.
pub(super) fn set_surroundings(
    path: &Path,
    tokenizer: &mut tokenizers::Tokenizer,
    before: &[(String, u32)],
    after: &[(String, u32)],
) -> Result<()> {
    fn borrowed(tokens: &[(String, u32)]) -> Vec<(&str, u32)> {
        tokens.iter().map(|(token, id)| (token.as_str(), *id)).collect()
    }
    let processor: Option<PostProcessorWrapper> = surround(&borrowed(before), &borrowed(after))
        .map(serde_json::from_value)
        .transpose()
        .map_err(|e| {
            Error::tokenizer(
                path,
                format!("cannot add its special tokens: {e}"),
                "check tokenizer_config.json",
            )
        })?;
    tokenizer.with_post_processor(processor);
    Ok(())
}
