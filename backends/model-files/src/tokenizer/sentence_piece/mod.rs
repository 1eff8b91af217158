//! SentencePiece (Kudo & Richardson 2018, arXiv:1808.06226): `tokenizer.model` as a `tokenizer.json`.

mod charsmap;
mod model;
mod normalizer;
pub(super) mod pipeline;
mod protobuf;
mod segmenter;
mod trie;
mod unigram;

use std::path::Path;

use serde_json::{Value, json};

use self::model::{Algorithm, Model};
pub(super) use self::segmenter::Segmenter;
use super::vocabulary::Vocabulary;
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
    /// What cuts text in place of the steps in `json`, where those would do it differently.
    pub(super) segmenter: Option<Segmenter>,
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
    let segmenter = Segmenter::for_model(&model).map_err(fail)?;
    let definition = match model.algorithm {
        Algorithm::BytePairs => {
            pipeline::byte_pairs(vocabulary, &model.scores, Some(unknown), model.byte_fallback)
                .map_err(fail)?
        }
        Algorithm::Unigram => unigram(&model),
    };
    let mut json = pipeline::definition(definition, model.normalizer.add_dummy_prefix);
    json["added_tokens"] = added_tokens(vocabulary, (unknown, unknown_id));
    let spelling = |id: Option<usize>| id.map(|id| vocabulary.tokens[id].to_owned());
    Ok(Definition {
        json,
        pieces: vocabulary.tokens.len(),
        bos: spelling(model.bos),
        eos: spelling(model.eos),
        unknown: unknown.to_owned(),
        padding: spelling(model.padding),
        segmenter,
    })
}

/// The scores as the library has them; texts are cut by [`Segmenter`].
fn unigram(model: &Model<'_>) -> Value {
    let vocab: Vec<Value> = model
        .vocabulary
        .tokens
        .iter()
        .zip(&model.scores)
        .map(|(piece, score)| json!([piece, score]))
        .collect();
    json!({ "type": "Unigram", "unk_id": model.unknown, "vocab": vocab, "byte_fallback": model.byte_fallback })
}

/// Control tokens and the unknown one. Others that are found in text, user-defined ones, are the [`Segmenter`]'s.
fn added_tokens(vocabulary: &Vocabulary<'_>, unknown: (&str, u32)) -> Value {
    let mut added = vocabulary.added_tokens(&[Some(unknown)]);
    if let Some(tokens) = added.as_array_mut() {
        tokens.retain(|token| token["special"] == true);
    }
    added
}
