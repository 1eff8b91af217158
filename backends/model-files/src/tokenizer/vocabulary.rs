//! A vocabulary as files of SentencePiece and of llama.cpp list it: tokens in the order of their ids, each of a type.

use std::collections::HashMap;

use serde_json::{Value, json};

/// Types of tokens; `tokenizer.ggml.token_type` has SentencePiece's numbers.
pub(super) mod token_type {
    pub(in crate::tokenizer) const NORMAL: i32 = 1;
    pub(in crate::tokenizer) const UNKNOWN: i32 = 2;
    pub(in crate::tokenizer) const CONTROL: i32 = 3;
    pub(in crate::tokenizer) const USER_DEFINED: i32 = 4;
    pub(in crate::tokenizer) const UNUSED: i32 = 5;
    pub(in crate::tokenizer) const BYTE: i32 = 6;
}

/// Tokens, their types, and the way from a token to its id.
pub(super) struct Vocabulary<'a> {
    pub(super) tokens: Vec<&'a str>,
    pub(super) types: Vec<i32>,
    pub(super) ids: HashMap<&'a str, usize>,
}

impl<'a> Vocabulary<'a> {
    /// As many types as tokens. Fails when two tokens are spelled alike.
    pub(super) fn new(tokens: Vec<&'a str>, types: Vec<i32>) -> Result<Self, String> {
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if let Some(earlier) = ids.insert(*token, id) {
                return Err(format!("spells tokens {earlier} and {id} alike: {token:?}"));
            }
        }
        Ok(Vocabulary { tokens, types, ids })
    }

    pub(super) fn of_type(&self, wanted: i32) -> impl Iterator<Item = (usize, &'a str)> {
        self.tokens
            .iter()
            .zip(&self.types)
            .enumerate()
            .filter(move |(_, (_, kind))| **kind == wanted)
            .map(|(id, (token, _))| (id, *token))
    }

    /// Tokens that are recognised in text before it is split: control tokens, which are special, and user-defined
    /// ones, which are not. A file without types has at least the tokens its metadata name.
    pub(super) fn added_tokens(&self, named: &[Option<(&str, u32)>]) -> Value {
        let mut added: Vec<(usize, &str, bool)> =
            self.of_type(token_type::CONTROL).map(|(id, token)| (id, token, true)).collect();
        added.extend(self.of_type(token_type::USER_DEFINED).map(|(id, token)| (id, token, false)));
        for (token, id) in named.iter().flatten() {
            let id = *id as usize;
            if added.iter().all(|&(other, ..)| other != id) {
                added.push((id, token, true));
            }
        }
        added.sort_unstable();
        added
            .iter()
            .filter(|(_, token, _)| !token.is_empty())
            .map(|&(id, token, special)| added_token(id, token, special))
            .collect()
    }

    /// The vocabulary of a BPE model in `tokenizer.json`.
    pub(super) fn json(&self) -> Value {
        Value::Object(
            self.tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect(),
        )
    }
}

/// An entry of `added_tokens` in `tokenizer.json`.
pub(super) fn added_token(id: usize, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "special": special,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
    })
}
