//! SentencePiece (Kudo & Richardson 2018, arXiv:1808.06226): `tokenizer.model` as a `tokenizer.json`.

mod charsmap;
mod model;
pub(super) mod pipeline;
mod protobuf;

use std::path::Path;

use serde_json::{Value, json};

use self::model::{Algorithm, Model, Normalizer};
use super::vocabulary::{Vocabulary, token_type};
use crate::{Error, Result};

const REMEDY: &str =
    "fetch it again, or write tokenizer.json with `AutoTokenizer.from_pretrained(..).save_pretrained(..)`";

/// A SentencePiece model in the terms of `tokenizer.json`; no special tokens are put around a text yet.
pub(super) struct Definition {
    pub(super) json: Value,
    /// How many pieces there are; ids of further tokens follow.
    pub(super) pieces: usize,
    pub(super) bos: Option<String>,
    pub(super) eos: Option<String>,
    pub(super) unknown: String,
    pub(super) padding: Option<String>,
}

/// Reads `file`, the content of the `tokenizer.model` at `path`.
pub(super) fn read(path: &Path, file: &[u8]) -> Result<Definition> {
    let fail = |problem: String| {
        Error::tokenizer(path, format!("is no SentencePiece model that can be read: {problem}"), REMEDY)
    };
    let model = Model::parse(file).map_err(fail)?;
    let vocabulary = &model.vocabulary;
    let unknown = vocabulary.tokens[model.unknown];
    let unknown_id = u32::try_from(model.unknown).map_err(|e| fail(e.to_string()))?;
    let definition = match model.algorithm {
        Algorithm::BytePairs => {
            pipeline::byte_pairs(vocabulary, &model.scores, Some(unknown), model.byte_fallback)
        }
        Algorithm::Unigram => unigram(&model),
    }
    .map_err(fail)?;
    let normalizers = normalizers(&model.normalizer, vocabulary).map_err(fail)?;
    let decoders = pipeline::decoders(model.normalizer.add_dummy_prefix);
    let mut json = pipeline::definition(normalizers, definition, decoders);
    json["added_tokens"] = added_tokens(vocabulary, (unknown, unknown_id));
    let spelling = |id: Option<usize>| id.map(|id| vocabulary.tokens[id].to_owned());
    Ok(Definition {
        json,
        pieces: vocabulary.tokens.len(),
        bos: spelling(model.bos),
        eos: spelling(model.eos),
        unknown: unknown.to_owned(),
        padding: spelling(model.padding),
    })
}

/// A model that takes the pieces whose scores, logarithms of probabilities, have the greatest sum.
fn unigram(model: &Model<'_>) -> std::result::Result<Value, String> {
    if let Some((id, piece)) = model.vocabulary.of_type(token_type::UNUSED).next() {
        return Err(format!(
            "piece {id} ({piece:?}) is switched off, which a unigram tokenizer cannot express"
        ));
    }
    let vocab: Vec<Value> = model
        .vocabulary
        .tokens
        .iter()
        .zip(&model.scores)
        .map(|(piece, score)| json!([piece, score]))
        .collect();
    Ok(
        json!({ "type": "Unigram", "unk_id": model.unknown, "vocab": vocab, "byte_fallback": model.byte_fallback }),
    )
}

fn normalizers(
    settings: &Normalizer<'_>,
    vocabulary: &Vocabulary<'_>,
) -> std::result::Result<Vec<Value>, String> {
    let mut steps = Vec::new();
    if !settings.charsmap.is_empty() {
        steps.push(charsmap::step(settings.charsmap)?);
    }
    let replace = |regex: &str, content: &str| json!({ "type": "Replace", "pattern": { "Regex": regex }, "content": content });
    if settings.remove_extra_whitespaces {
        steps.push(replace(r"\A +| +\z", ""));
        steps.push(replace(" {2,}", " "));
    }
    if settings.escape_whitespaces {
        steps.push(pipeline::mark_spaces());
        if settings.remove_extra_whitespaces {
            // What marks a space counts as one at the end, even where the text itself had it.
            steps.push(replace("\u{2581}+\\z", ""));
        }
    } else if settings.add_dummy_prefix {
        return Err("puts a space before texts without marking it, which cannot be expressed".to_owned());
    }
    if settings.add_dummy_prefix {
        // A user-defined token is sought in the text as it is after these steps, which the library applies to the
        // token, too: alone, it stays what it is.
        let tokens: Vec<String> =
            vocabulary.of_type(token_type::USER_DEFINED).map(|(_, token)| quote(token)).collect();
        steps.push(match tokens.as_slice() {
            [] => pipeline::prefix_space(),
            tokens => replace(&format!(r"\A(?!\z|(?:{})\z)", tokens.join("|")), "\u{2581}"),
        });
    }
    Ok(steps)
}

/// A regular expression that matches `text` and nothing else.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_punctuation() || character.is_ascii_whitespace() {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

fn added_tokens(vocabulary: &Vocabulary<'_>, unknown: (&str, u32)) -> Value {
    let mut added = vocabulary.added_tokens(&[Some(unknown)]);
    for token in added.as_array_mut().into_iter().flatten() {
        // SentencePiece normalises the text around user-defined tokens as one.
        token["normalized"] = json!(token["special"] == false);
    }
    added
}
