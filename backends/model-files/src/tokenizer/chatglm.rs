//! ChatGLM2 and ChatGLM3: SentencePiece with tokens of their own behind its pieces.
//!
//! Their Python code (`tokenization_chatglm.py`, which comes with the models) numbers nine tokens from the first id
//! that is free, and puts two of them before every text. It does not look for them in text: there, `sop` is part of
//! `philosopher`. Only those that `tokenizer_config.json` lists under `added_tokens_decoder` are found, by transformers
//! itself. ChatGLM2 lacks the last four, which are unused rows of its embedding; giving them names there does no harm.

use serde_json::{Value, json};

use super::sentence_piece::Definition;
use super::vocabulary::added_token;

const TOKENS: [&str; 9] = [
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "sop",
    "eop",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
];
/// What stands before every text.
const PREFIX: [&str; 2] = ["[gMASK]", "sop"];

/// Whether `tokenizer_config.json` speaks of such a tokenizer.
pub(super) fn is_meant(config: &Value) -> bool {
    config["tokenizer_class"] == "ChatGLMTokenizer"
}

/// What a text gets from ChatGLM.
pub(super) struct Extension {
    /// What stands before it.
    pub(super) prefix: Vec<(String, u32)>,
    /// Whether tokens are sought in it.
    pub(super) finds_tokens: bool,
}

/// Adds the tokens. Only those for which `is_listed` holds are sought in text.
pub(super) fn extend(definition: &mut Definition, is_listed: impl Fn(&str) -> bool) -> Extension {
    let any_listed = TOKENS.into_iter().any(&is_listed);
    let mut prefix: Vec<Option<(String, u32)>> = vec![None; PREFIX.len()];
    for (id, token) in (definition.pieces..).zip(TOKENS) {
        // In the vocabulary without a merge that makes it, a token has an id, but no text turns into it.
        if let Some(vocab) = definition.json["model"]["vocab"].as_object_mut() {
            vocab.insert(token.to_owned(), json!(id));
        }
        if let Some(added) = definition.json["added_tokens"].as_array_mut()
            && (!any_listed || is_listed(token))
        {
            added.push(added_token(id, token, true));
        }
        if let (Some(at), Ok(id)) = (PREFIX.iter().position(|first| *first == token), u32::try_from(id)) {
            prefix[at] = Some((token.to_owned(), id));
        }
    }
    Extension { prefix: prefix.into_iter().flatten().collect(), finds_tokens: any_listed }
}
