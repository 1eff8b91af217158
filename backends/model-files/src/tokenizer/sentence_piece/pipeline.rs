//! SentencePiece's steps in the terms of `tokenizer.json`: marking spaces, merging pairs, and the way back.

use serde_json::{Value, json};

use crate::tokenizer::merges::{self, MAX_PIECE, Piece};
use crate::tokenizer::vocabulary::{Vocabulary, token_type};

/// What stands for a space in pieces.
const SPACE: &str = "\u{2581}";

/// The definition of a tokenizer that turns text into pieces with `normalizers`, then `model`, and joins pieces with
/// `decoders`.
pub(in crate::tokenizer) fn definition(normalizers: Vec<Value>, model: Value, decoders: Vec<Value>) -> Value {
    json!({
        "version": "1.0",
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": decoders },
        "model": model,
    })
}

/// The step that puts a space in front of a text, which is no empty one.
pub(in crate::tokenizer) fn prefix_space() -> Value {
    json!({ "type": "Prepend", "prepend": SPACE })
}

/// The step that makes spaces visible.
pub(in crate::tokenizer) fn mark_spaces() -> Value {
    json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE })
}

/// From pieces to text; `prefixed` where [`prefix_space`] or its like was a step of the way there.
pub(in crate::tokenizer) fn decoders(prefixed: bool) -> Vec<Value> {
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
