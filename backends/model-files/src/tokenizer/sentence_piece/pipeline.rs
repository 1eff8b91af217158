//! SentencePiece's steps in the terms of `tokenizer.json`: marking spaces, merging pairs, and the way back.

use serde_json::{Value, json};

use super::normalizer::SPACE;
use crate::tokenizer::merges::{self, MAX_PIECE, Piece};
use crate::tokenizer::vocabulary::{Vocabulary, token_type};

/// The definition of a tokenizer that makes spaces visible before `model` cuts the text; `prefixed` where one is put in front of a
/// text, which is no empty one.
pub(in crate::tokenizer) fn definition(model: Value, prefixed: bool) -> Value {
    let mut normalizers = vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE })];
    if prefixed {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": SPACE }));
    }
    json!({
        "version": "1.0",
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": decoders(prefixed) },
        "model": model,
    })
}

/// From pieces to text.
fn decoders(prefixed: bool) -> Vec<Value> {
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefixed {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    decoders
}

/// A model that merges pairs of pieces as the scores say. Control, byte, user-defined and unused pieces never come out
/// of merging.
pub(in crate::tokenizer) fn byte_pairs(
    vocabulary: &Vocabulary<'_>,
    scores: &[f32],
    unknown: Option<&str>,
    byte_fallback: bool,
) -> Result<Value, String> {
    if let Some((id, token)) = vocabulary.tokens.iter().enumerate().find(|(_, token)| token.len() > MAX_PIECE)
    {
        return Err(format!("token {id} is {} bytes long; pieces are at most {MAX_PIECE}", token.len()));
    }
    let pieces: Vec<Piece<'_>> = vocabulary
        .of_type(token_type::NORMAL)
        .filter(|(_, text)| !text.is_empty())
        .map(|(id, text)| Piece { text, score: scores[id] })
        .collect();
    let pairs: Vec<Value> =
        merges::from_scores(&pieces).into_iter().map(|(left, right)| json!([left, right])).collect();
    Ok(json!({
        "type": "BPE",
        "unk_token": unknown,
        "fuse_unk": true,
        "byte_fallback": byte_fallback,
        "vocab": vocabulary.json(),
        "merges": pairs,
    }))
}
