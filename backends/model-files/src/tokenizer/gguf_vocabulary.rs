//! The tokenizer of a GGUF, built from its own vocabulary.
//!
//! `tokenizer.ggml.model` says which of two algorithms the vocabulary is for: `gpt2`, byte-level BPE with merge rules
//! and a pre-tokenizer named by `tokenizer.ggml.pre`; or `llama`, SentencePiece's BPE with scores and byte fallback.
//! Either becomes the `tokenizer.json` that the original model has, so that ids agree with Python transformers'.

use serde_json::{Map, Value, json};

use super::byte_level;
use super::sentence_piece::pipeline;
use super::vocabulary::{Vocabulary, token_type};
use super::{Inner, definition};
use crate::gguf::View;
use crate::{Error, Result};

const REMEDY: &str = "convert the model again with a current converter, or use its original checkpoint";

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

pub(super) fn build(view: &View<'_>) -> Result<Inner> {
    let fail = |problem: String| Error::tokenizer(view.path, problem, REMEDY);
    let Some(model) = view.text("tokenizer.ggml.model")? else {
        return Err(fail("holds no tokenizer (metadata lacks `tokenizer.ggml.model`)".to_owned()));
    };
    let vocabulary = read_vocabulary(view)?;
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
    if let Some(processor) =
        definition::surround(bos.filter(|_| add_bos).as_slice(), eos.filter(|_| add_eos).as_slice())
    {
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
        segmenter: None,
        source: view.path.to_path_buf(),
        bos: bos.map(|(_, id)| id),
        eos: eos.map(|(_, id)| id),
        config,
        generation_config: None,
        originals: Vec::new(),
    })
}

fn read_vocabulary<'a>(view: &View<'a>) -> Result<Vocabulary<'a>> {
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
    Vocabulary::new(tokens, types).map_err(fail)
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
        "decoder": byte_level::step(false),
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
            plain(vec![json!({ "type": "Digits", "individual_digits": true }), byte_level::step(true)])
        }
        "gpt-2" => plain(vec![byte_level::step(true)]),
        "llama-bpe" | "llama3" | "llama-v3" => PreTokenizer {
            ignore_merges: true,
            add_bos: true,
            ..plain(vec![split(WORDS_AND_UP_TO_THREE_DIGITS), byte_level::step(false)])
        },
        "qwen2" | "deepseek-r1-qwen" => PreTokenizer {
            normalizer: json!({ "type": "NFC" }),
            ..plain(vec![split(WORDS_AND_SINGLE_DIGITS), byte_level::step(false)])
        },
        // What ggml's own programs do with a vocabulary whose pre-tokenizer nobody recorded.
        "default" => plain(vec![
            split(r"[\p{P}\$\+<=>\^~\|]+"),
            split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
            split(r"\p{N}+"),
            split("[0-9][0-9][0-9]"),
            byte_level::step(false),
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
    let byte_fallback =
        vocabulary.of_type(token_type::BYTE).next().is_some() || vocabulary.ids.contains_key("<0x0A>");
    let prefix_space = view.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);

    let model = pipeline::byte_pairs(vocabulary, &scores, unknown, byte_fallback).map_err(fail)?;
    Ok((pipeline::definition(model, prefix_space), true))
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
