//! The tokenizer of a GGUF, built from its own vocabulary.
//!
//! `tokenizer.ggml.model` says which of two algorithms the vocabulary is for: `gpt2`, byte-level BPE with merge rules
//! and a pre-tokenizer named by `tokenizer.ggml.pre`; or `llama`, SentencePiece's BPE with scores and byte fallback.
//! Either becomes the `tokenizer.json` that the original model has, so that ids agree with Python transformers'.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::merges::{self, MAX_PIECE, Piece};
use super::{Inner, definition};
use crate::gguf::View;
use crate::{Error, Result};

const REMEDY: &str = "convert the model again with a current converter, or use its original checkpoint";

/// `tokenizer.ggml.token_type`.
pub(super) mod token_type {
    pub(in crate::tokenizer) const NORMAL: i32 = 1;
    pub(in crate::tokenizer) const UNKNOWN: i32 = 2;
    pub(in crate::tokenizer) const CONTROL: i32 = 3;
    pub(in crate::tokenizer) const USER_DEFINED: i32 = 4;
    pub(in crate::tokenizer) const UNUSED: i32 = 5;
    pub(in crate::tokenizer) const BYTE: i32 = 6;
}

/// Splits text into words, then byte-level BPE works inside each.
pub(super) struct PreTokenizer {
    /// The pre-tokenizer's JSON.
    pub(super) json: Value,
    /// Applied to the text before anything else.
    pub(super) normalizer: Value,
    /// A whole word that is a token stays one, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Whether a BOS is added when the file does not say.
    add_bos: bool,
}

/// The vocabulary as the file lists it.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    types: Vec<i32>,
    ids: HashMap<&'a str, usize>,
}

pub(super) fn build(view: &View<'_>) -> Result<Inner> {
    let fail = |problem: String| Error::tokenizer(view.path, problem, REMEDY);
    let Some(model) = view.text("tokenizer.ggml.model")? else {
        return Err(fail("holds no tokenizer (metadata lacks `tokenizer.ggml.model`)".to_owned()));
    };
    let vocabulary = Vocabulary::read(view)?;
    let special = |name: &str| -> Result<Option<(&str, u32)>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = view.count(&key)? else { return Ok(None) };
        match (vocabulary.tokens.get(id), u32::try_from(id)) {
            (Some(token), Ok(id)) => Ok(Some((token, id))),
            _ => Err(fail(format!(
                "metadata `{key}` is {id}, but there are {} tokens",
                vocabulary.tokens.len()
            ))),
        }
    };
    let (bos, eos, unknown, padding) =
        (special("bos")?, special("eos")?, special("unknown")?, special("padding")?);
    let (mut json, add_bos) = match model {
        "gpt2" => byte_level(view, &vocabulary)?,
        "llama" => sentence_piece(view, &vocabulary, unknown.map(|(token, _)| token))?,
        other => {
            let problem = format!(
                "has a tokenizer of kind `{other}` (tokenizer.ggml.model); `gpt2` and `llama` can be built"
            );
            return Err(Error::tokenizer(
                view.path,
                problem,
                "use the original checkpoint with its tokenizer.json",
            ));
        }
    };
    let add_bos = view.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos);
    let add_eos = view.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    if let Some(processor) = definition::surround(bos.filter(|_| add_bos), eos.filter(|_| add_eos)) {
        json["post_processor"] = processor;
    }
    json["added_tokens"] = vocabulary.added_tokens(&[bos, eos, unknown]);
    let text =
        serde_json::to_vec(&json).map_err(|e| fail(format!("has a vocabulary that is no JSON: {e}")))?;
    let tokenizer = definition::parse(view.path, &text)?;
    let config = tokenizer_config(
        view,
        [("bos_token", bos), ("eos_token", eos), ("unk_token", unknown), ("pad_token", padding)],
    )?;
    Ok(Inner {
        tokenizer,
        source: view.path.to_path_buf(),
        bos: bos.map(|(_, id)| id),
        eos: eos.map(|(_, id)| id),
        config,
        generation_config: None,
    })
}

impl<'a> Vocabulary<'a> {
    fn read(view: &View<'a>) -> Result<Self> {
        let fail = |problem: String| Error::tokenizer(view.path, problem, REMEDY);
        let Some(tokens) = view.texts("tokenizer.ggml.tokens")? else {
            return Err(fail("holds no vocabulary (metadata lacks `tokenizer.ggml.tokens`)".to_owned()));
        };
        let types = match view.integers("tokenizer.ggml.token_type")? {
            Some(types) if types.len() == tokens.len() => types,
            Some(types) => {
                return Err(fail(format!("has {} tokens but {} token types", tokens.len(), types.len())));
            }
            None => vec![token_type::NORMAL; tokens.len()],
        };
        if let Some(embeddings) = view.tensor("token_embd.weight")
            && embeddings.shape.first().is_some_and(|&rows| tokens.len() > rows)
        {
            let problem = format!("has {} tokens but only {} embeddings", tokens.len(), embeddings.shape[0]);
            return Err(fail(problem));
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if let Some(earlier) = ids.insert(*token, id) {
                return Err(fail(format!("spells tokens {earlier} and {id} alike: {token:?}")));
            }
        }
        Ok(Vocabulary { tokens, types, ids })
    }

    fn of_type(&self, wanted: i32) -> impl Iterator<Item = (usize, &'a str)> {
        self.tokens
            .iter()
            .zip(&self.types)
            .enumerate()
            .filter(move |(_, (_, kind))| **kind == wanted)
            .map(|(id, (token, _))| (id, *token))
    }

    /// Tokens that are recognised in text before it is split: control tokens, which are special, and user-defined
    /// ones, which are not. A file without types has at least the tokens its metadata name.
    fn added_tokens(&self, named: &[Option<(&str, u32)>]) -> Value {
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
        let entry = |&(id, token, special): &(usize, &str, bool)| {
            json!({
                "id": id, "content": token, "special": special,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        };
        added.iter().filter(|(_, token, _)| !token.is_empty()).map(entry).collect()
    }

    fn json(&self) -> Value {
        Value::Object(
            self.tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect(),
        )
    }
}

fn byte_level(view: &View<'_>, vocabulary: &Vocabulary<'_>) -> Result<(Value, bool)> {
    let fail = |problem: String| Error::tokenizer(view.path, problem, REMEDY);
    let Some(lines) = view.texts("tokenizer.ggml.merges")? else {
        return Err(fail(
            "has a byte-level vocabulary without merges (metadata lacks `tokenizer.ggml.merges`)".to_owned(),
        ));
    };
    let mut pairs = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        let Some((left, right)) = line.split_once(' ') else {
            return Err(fail(format!("merge {index} is no pair of tokens: {line:?}")));
        };
        let known = |token: &str| vocabulary.ids.contains_key(token);
        if !(known(left) && known(right) && known(&format!("{left}{right}"))) {
            return Err(fail(format!("merge {index} ({line:?}) does not join two tokens into a third")));
        }
        pairs.push(json!([left, right]));
    }
    let pre = match view.text("tokenizer.ggml.pre")? {
        Some(pre) => pre,
        None => {
            tracing::warn!(
                file = %view.path.display(),
                "the GGUF does not name its pre-tokenizer; `default` is assumed, and some texts may be split wrongly"
            );
            "default"
        }
    };
    let Some(pre) = pre_tokenizer(pre) else {
        return Err(Error::tokenizer(
            view.path,
            format!("names the pre-tokenizer `{pre}`, which is not known (known: {})", KNOWN_PRE.join(", ")),
            "use the original checkpoint with its tokenizer.json",
        ));
    };
    let json = json!({
        "version": "1.0",
        "normalizer": pre.normalizer,
        "pre_tokenizer": pre.json,
        "post_processor": null,
        "decoder": byte_level_json(false),
        "model": {
            "type": "BPE",
            "ignore_merges": pre.ignore_merges,
            "vocab": vocabulary.json(),
            "merges": pairs,
        },
    });
    Ok((json, pre.add_bos))
}

pub(super) const KNOWN_PRE: [&str; 10] = [
    "smollm",
    "llama-bpe",
    "llama3",
    "llama-v3",
    "qwen2",
    "deepseek-r1-qwen",
    "gpt-2",
    "starcoder",
    "refact",
    "default",
];

/// The pre-tokenizer of this name, as the models' own `tokenizer.json` files have it.
pub(super) fn pre_tokenizer(name: &str) -> Option<PreTokenizer> {
    let plain = |steps: Vec<Value>| PreTokenizer {
        json: json!({ "type": "Sequence", "pretokenizers": steps }),
        normalizer: Value::Null,
        ignore_merges: false,
        add_bos: false,
    };
    Some(match name {
        "smollm" | "starcoder" | "refact" => {
            plain(vec![json!({ "type": "Digits", "individual_digits": true }), byte_level_json(true)])
        }
        "gpt-2" => plain(vec![byte_level_json(true)]),
        "llama-bpe" | "llama3" | "llama-v3" => PreTokenizer {
            ignore_merges: true,
            add_bos: true,
            ..plain(vec![split(WORDS_AND_UP_TO_THREE_DIGITS), byte_level_json(false)])
        },
        "qwen2" | "deepseek-r1-qwen" => PreTokenizer {
            normalizer: json!({ "type": "NFC" }),
            ..plain(vec![split(WORDS_AND_SINGLE_DIGITS), byte_level_json(false)])
        },
        // What ggml's own programs do with a vocabulary whose pre-tokenizer nobody recorded.
        "default" => plain(vec![
            split(r"[\p{P}\$\+<=>\^~\|]+"),
            split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
            split(r"\p{N}+"),
            split("[0-9][0-9][0-9]"),
            byte_level_json(false),
        ]),
        _ => return None,
    })
}

/// LLaMA 3's words.
const WORDS_AND_UP_TO_THREE_DIGITS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's words.
const WORDS_AND_SINGLE_DIGITS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn split(regex: &str) -> Value {
    json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false })
}

/// Bytes as printable characters; `use_regex` also splits with GPT-2's expression.
fn byte_level_json(use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex })
}

fn sentence_piece(
    view: &View<'_>,
    vocabulary: &Vocabulary<'_>,
    unknown: Option<&str>,
) -> Result<(Value, bool)> {
    let fail = |problem: String| Error::tokenizer(view.path, problem, REMEDY);
    let scores = match view.floats("tokenizer.ggml.scores")? {
        Some(scores) if scores.len() == vocabulary.tokens.len() => scores,
        Some(scores) => {
            return Err(fail(format!("has {} tokens but {} scores", vocabulary.tokens.len(), scores.len())));
        }
        None => {
            return Err(fail(
                "has a SentencePiece vocabulary without scores (metadata lacks `tokenizer.ggml.scores`)"
                    .to_owned(),
            ));
        }
    };
    if let Some((id, token)) = vocabulary.tokens.iter().enumerate().find(|(_, token)| token.len() > MAX_PIECE)
    {
        return Err(fail(format!(
            "token {id} is {} bytes long; pieces are at most {MAX_PIECE}",
            token.len()
        )));
    }
    // Control, byte and user-defined pieces never come out of merging.
    let pieces: Vec<Piece<'_>> = vocabulary
        .tokens
        .iter()
        .zip(&vocabulary.types)
        .zip(&scores)
        .filter(|((token, kind), _)| **kind == token_type::NORMAL && !token.is_empty())
        .map(|((text, _), &score)| Piece { text, score })
        .collect();
    let pairs: Vec<Value> =
        merges::from_scores(&pieces).into_iter().map(|(left, right)| json!([left, right])).collect();
    let byte_fallback =
        vocabulary.of_type(token_type::BYTE).next().is_some() || vocabulary.ids.contains_key("<0x0A>");
    let prefix_space = view.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);

    let mut normalizers =
        vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" })];
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": "\u{2581}" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix_space {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": "\u{2581}" }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let json = json!({
        "version": "1.0",
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": decoders },
        "model": {
            "type": "BPE",
            "unk_token": unknown,
            "fuse_unk": true,
            "byte_fallback": byte_fallback,
            "vocab": vocabulary.json(),
            "merges": pairs,
        },
    });
    Ok((json, true))
}

fn tokenizer_config(view: &View<'_>, special: [(&str, Option<(&str, u32)>); 4]) -> Result<Value> {
    let mut config = Map::new();
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    for (name, token) in special {
        if let Some((token, _)) = token {
            config.insert(name.to_owned(), json!(token));
        }
    }
    let architecture = view.text("general.architecture")?.unwrap_or_default();
    if let Some(length) = view.count(&format!("{architecture}.context_length"))? {
        config.insert("model_max_length".to_owned(), json!(length));
    }
    if let Some(template) = view.text("tokenizer.chat_template")? {
        config.insert("chat_template".to_owned(), json!(template));
    }
    Ok(Value::Object(config))
}
