//! Tokenizers of both formats: ids, special tokens, saving, and what is said of broken ones.

mod support;

use std::fs;
use std::path::Path;

use llmcb_model_files::gguf::MetadataValue;
use llmcb_model_files::{Error, ModelFiles, Tokenizer};
use serde_json::{Value, json};
use support::{Gguf, Meta, assert_says, id, text, tokenizer_json, write_hub_layout, write_json};
use tempfile::tempdir;

fn tokenizer(gguf: &Gguf) -> llmcb_model_files::Result<Tokenizer> {
    let directory = tempdir().unwrap();
    ModelFiles::open(&gguf.write(directory.path())).unwrap().tokenizer()
}

#[test]
fn byte_level_ids() {
    let tokenizer = tokenizer(&Gguf::llama()).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), Some(1)));
    assert_eq!(tokenizer.vocab_size(), support::byte_level_tokens().len());
    for (text, tokens) in [
        ("", vec![]),
        ("ab", vec!["ab"]),
        (" ab", vec!["Ġab"]),
        ("x ab\nb", vec!["x", "Ġab", "Ċ", "b"]),
        // Digits stand alone, whatever the merges say.
        ("12", vec!["1", "2"]),
        // Special and user-defined tokens are found in text.
        ("a<eos>b", vec!["a", "<eos>", "b"]),
        ("a<tool>b", vec!["a", "<tool>", "b"]),
    ] {
        let ids: Vec<u32> = tokens.into_iter().map(id).collect();
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
    assert_eq!(tokenizer.decode(&[id("a"), 1, id("b")], true).unwrap(), "ab");
}

#[test]
fn pre_tokenizers_differ_in_digits() {
    for (pre, tokens) in [
        ("smollm", vec!["Ġab", "1", "2"]),
        ("gpt-2", vec!["Ġab", "12"]),
        ("llama-bpe", vec!["<bos>", "Ġab", "12"]),
        ("qwen2", vec!["Ġab", "1", "2"]),
        ("default", vec!["Ġab", "12"]),
    ] {
        let mut gguf = Gguf::llama();
        gguf.set("tokenizer.ggml.pre", text(pre));
        let ids: Vec<u32> = tokens.into_iter().map(id).collect();
        assert_eq!(tokenizer(&gguf).unwrap().encode(" ab12", true).unwrap(), ids, "{pre}");
    }
}

#[test]
fn bos_and_eos_are_added_when_the_file_says_so() {
    let mut gguf = Gguf::llama();
    gguf.set("tokenizer.ggml.add_bos_token", Meta::Bool(true));
    gguf.set("tokenizer.ggml.add_eos_token", Meta::Bool(true));
    let tokenizer = tokenizer(&gguf).unwrap();
    assert_eq!(tokenizer.encode("ab", true).unwrap(), [0, id("ab"), 1]);
    assert_eq!(tokenizer.encode("ab", false).unwrap(), [id("ab")]);
}

#[test]
fn batches_keep_their_order() {
    let tokenizer = tokenizer(&Gguf::llama()).unwrap();
    let texts: Vec<String> = (0..200).map(|n| format!("{} ab", "x".repeat(n % 17))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let batch = tokenizer.encode_batch(&texts, true).unwrap();
    for (text, ids) in texts.iter().zip(batch) {
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids);
    }
}

/// A SentencePiece vocabulary: `ab` scores above `ba`; bytes cover the rest.
fn sentence_piece() -> Gguf {
    let mut gguf = Gguf::llama();
    let mut tokens: Vec<(String, f32, i32)> =
        vec![("<unk>".into(), 0.0, 2), ("<s>".into(), 0.0, 3), ("</s>".into(), 0.0, 3)];
    tokens.extend((0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
    for (n, piece) in ["ab", "\u{2581}ab", "ba", "\u{2581}", "a", "b"].into_iter().enumerate() {
        tokens.push((piece.to_owned(), -(n as f32), 1));
    }
    let rows = tokens.len() as u64;
    *gguf.tensor("token_embd.weight") = support::Tensor::new("token_embd.weight", &[32, rows], support::F32);
    gguf.set("tokenizer.ggml.model", text("llama"));
    gguf.set("tokenizer.ggml.scores", Meta::F32s(tokens.iter().map(|t| t.1).collect()));
    gguf.set("tokenizer.ggml.token_type", Meta::I32s(tokens.iter().map(|t| t.2).collect()));
    gguf.set("tokenizer.ggml.tokens", Meta::Texts(tokens.into_iter().map(|t| t.0).collect()));
    gguf.set("tokenizer.ggml.bos_token_id", Meta::U32(1));
    gguf.set("tokenizer.ggml.eos_token_id", Meta::U32(2));
    gguf.set("tokenizer.ggml.unknown_token_id", Meta::U32(0));
    gguf
}

#[test]
fn sentence_piece_ids() {
    let tokenizer = tokenizer(&sentence_piece()).unwrap();
    let (ab, space_ab, ba, space, byte) = (259, 260, 261, 262, |b: u8| 3 + u32::from(b));
    for (text, ids) in [
        ("ab", vec![space_ab]),
        ("ab ab", vec![space_ab, space_ab]),
        ("bab", vec![space, 264, ab]),
        ("bba", vec![space, 264, ba]),
        ("é", vec![space, byte(0xc3), byte(0xa9)]),
    ] {
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
    assert_eq!(tokenizer.encode("ab", true).unwrap(), [1, space_ab]);
}

#[test]
fn prefix_space_can_be_off() {
    let mut gguf = sentence_piece();
    gguf.set("tokenizer.ggml.add_space_prefix", Meta::Bool(false));
    gguf.set("tokenizer.ggml.add_bos_token", Meta::Bool(false));
    let tokenizer = tokenizer(&gguf).unwrap();
    assert_eq!(tokenizer.encode("ab", true).unwrap(), [259]);
    assert_eq!(tokenizer.decode(&[260], false).unwrap(), " ab");
}

type Breakage = (&'static str, fn(&mut Gguf), &'static [&'static str]);

#[test]
fn broken_vocabularies_are_explained() {
    let byte_level: &[Breakage] = &[
        ("no tokenizer", |g| g.remove("tokenizer.ggml.model"), &["tokenizer.ggml.model"]),
        ("other kind", |g| g.set("tokenizer.ggml.model", text("rwkv")), &["rwkv", "tokenizer.json"]),
        ("no tokens", |g| g.remove("tokenizer.ggml.tokens"), &["tokenizer.ggml.tokens"]),
        (
            "tokens of numbers",
            |g| g.set("tokenizer.ggml.tokens", Meta::I32s(vec![1])),
            &["tokenizer.ggml.tokens", "strings"],
        ),
        ("types too few", |g| g.set("tokenizer.ggml.token_type", Meta::I32s(vec![1])), &["1 token types"]),
        ("no merges", |g| g.remove("tokenizer.ggml.merges"), &["tokenizer.ggml.merges"]),
        ("merge of one", |g| g.set("tokenizer.ggml.merges", Meta::Texts(vec!["ab".into()])), &["merge 0"]),
        (
            "merge of strangers",
            |g| g.set("tokenizer.ggml.merges", Meta::Texts(vec!["a b".into(), "b a".into()])),
            &["merge 1"],
        ),
        ("pre unknown", |g| g.set("tokenizer.ggml.pre", text("martian")), &["martian", "known: smollm"]),
        (
            "bos beyond",
            |g| g.set("tokenizer.ggml.bos_token_id", Meta::U32(100_000)),
            &["bos_token_id", "100000"],
        ),
        ("flag text", |g| g.set("tokenizer.ggml.add_bos_token", text("yes")), &["add_bos_token", "boolean"]),
        (
            "tokens alike",
            |g| {
                g.set(
                    "tokenizer.ggml.tokens",
                    Meta::Texts(vec!["x".into(); support::byte_level_tokens().len()]),
                )
            },
            &["tokens 0 and 1 alike"],
        ),
        (
            "too few embeddings",
            |g| *g.tensor("token_embd.weight") = support::Tensor::new("token_embd.weight", &[32, 9], 0),
            &["only 9 embeddings"],
        ),
    ];
    for (what, breakage, parts) in byte_level {
        let mut gguf = Gguf::llama();
        breakage(&mut gguf);
        let message = support::message(tokenizer(&gguf));
        assert!(parts.iter().all(|part| message.contains(part)), "{what}: {message}");
    }
    let scored: &[Breakage] = &[
        ("no scores", |g| g.remove("tokenizer.ggml.scores"), &["tokenizer.ggml.scores"]),
        ("scores too few", |g| g.set("tokenizer.ggml.scores", Meta::F32s(vec![0.0])), &["1 scores"]),
    ];
    for (what, breakage, parts) in scored {
        let mut gguf = sentence_piece();
        breakage(&mut gguf);
        let message = support::message(tokenizer(&gguf));
        assert!(parts.iter().all(|part| message.contains(part)), "{what}: {message}");
    }
}

#[test]
fn saved_tokenizers_give_the_same_ids() {
    for gguf in [Gguf::llama(), Gguf::qwen2(), sentence_piece()] {
        let original = tokenizer(&gguf).unwrap();
        let directory = tempdir().unwrap();
        original.save(directory.path()).unwrap();
        let saved = Tokenizer::open(directory.path()).unwrap();
        assert_eq!((saved.bos(), saved.eos()), (original.bos(), original.eos()));
        for text in ["", "ab ab12", " <eos> ba\n\n", "abba"] {
            let ids = original.encode(text, true).unwrap();
            assert_eq!(saved.encode(text, true).unwrap(), ids);
            assert_eq!(saved.decode(&ids, true).unwrap(), original.decode(&ids, true).unwrap());
        }
        let read = |name: &str| -> Value {
            serde_json::from_slice(&fs::read(directory.path().join(name)).unwrap()).unwrap()
        };
        assert_eq!(read("tokenizer_config.json")["tokenizer_class"], json!("PreTrainedTokenizerFast"));
        assert_eq!(read("generation_config.json")["eos_token_id"], json!(original.eos()));
    }
}

/// A file with the metadata of `tokenizer` in place of its own.
fn exported(gguf: &Gguf, tokenizer: &Tokenizer) -> Gguf {
    let rows = gguf.tensors.iter().find(|t| t.name == "token_embd.weight").map_or(0, |t| t.extents[1]);
    let mut again = gguf.clone();
    again.meta.retain(|(key, _)| !key.starts_with("tokenizer."));
    for (key, value) in tokenizer.gguf_metadata(rows as usize).unwrap() {
        let value = match value {
            MetadataValue::U32(n) => Meta::U32(n),
            MetadataValue::F32(x) => Meta::F32(x),
            MetadataValue::Bool(flag) => Meta::Bool(flag),
            MetadataValue::Text(words) => text(&words),
            MetadataValue::Texts(texts) => Meta::Texts(texts),
            MetadataValue::F32s(numbers) => Meta::F32s(numbers),
            MetadataValue::I32s(numbers) => Meta::I32s(numbers),
        };
        again.set(&key, value);
    }
    again
}

#[test]
fn tokenizers_exported_to_a_gguf_give_the_same_ids() {
    let mut without_space = sentence_piece();
    without_space.set("tokenizer.ggml.add_space_prefix", Meta::Bool(false));
    let mut smollm = Gguf::llama();
    smollm.set("tokenizer.ggml.pre", text("smollm"));
    for gguf in [Gguf::llama(), smollm, Gguf::qwen2(), sentence_piece(), without_space] {
        let original = tokenizer(&gguf).unwrap();
        let again = tokenizer(&exported(&gguf, &original)).unwrap();
        assert_eq!((again.bos(), again.eos()), (original.bos(), original.eos()));
        for text in ["", "ab ab12 bab", " <eos> ba\n\n", "abba 12345", "é"] {
            let ids = original.encode(text, true).unwrap();
            assert_eq!(again.encode(text, true).unwrap(), ids, "{text:?}");
            assert_eq!(again.decode(&ids, true).unwrap(), original.decode(&ids, true).unwrap());
        }
    }
}

#[test]
fn a_tokenizer_without_a_counterpart_is_not_exported() {
    let directory = tempdir().unwrap();
    write_hub_layout(directory.path());
    let mut definition = tokenizer_json();
    definition["pre_tokenizer"] = json!({ "type": "Whitespace" });
    write_json(directory.path(), "tokenizer.json", &definition);
    let tokenizer = Tokenizer::open(directory.path()).unwrap();
    let message = tokenizer.gguf_metadata(100_000).unwrap_err().to_string();
    assert!(message.contains("Whitespace") && message.contains("another format"), "{message}");
    assert!(tokenizer.gguf_metadata(1).unwrap_err().to_string().contains("1 rows"));
}

#[test]
fn saving_where_one_cannot_is_an_error() {
    let tokenizer = tokenizer(&Gguf::llama()).unwrap();
    assert_says(
        tokenizer.save(Path::new("/nonexistent/folder")),
        Path::new("/nonexistent/folder"),
        &["cannot write"],
    );
}

#[test]
fn hub_tokenizer_is_whole_and_knows_its_special_tokens() {
    let directory = tempdir().unwrap();
    write_hub_layout(directory.path());
    let tokenizer = ModelFiles::open(directory.path()).unwrap().tokenizer().unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_size()), (Some(1), Some(2), 6));
    // The file's own truncation to 2 tokens is not obeyed.
    assert_eq!(tokenizer.encode("abaab", true).unwrap(), [5, 3, 5]);
    assert_eq!(tokenizer.token_to_id("ab"), Some(5));
}

#[test]
fn special_ids_come_from_the_configuration_when_nothing_names_them() {
    let directory = tempdir().unwrap();
    write_hub_layout(directory.path());
    fs::remove_file(directory.path().join("tokenizer_config.json")).unwrap();
    let tokenizer = Tokenizer::open(directory.path()).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
}

#[test]
fn add_bos_token_is_obeyed() {
    for (class, add_bos, ids) in [
        ("LlamaTokenizer", json!(true), vec![1, 5]),
        ("LlamaTokenizer", json!(false), vec![5]),
        ("PreTrainedTokenizerFast", json!(true), vec![1, 5]),
        ("PreTrainedTokenizerFast", json!(null), vec![5]),
    ] {
        let directory = tempdir().unwrap();
        write_hub_layout(directory.path());
        let config = json!({ "bos_token": "<s>", "tokenizer_class": class, "add_bos_token": add_bos });
        write_json(directory.path(), "tokenizer_config.json", &config);
        let tokenizer = Tokenizer::open(directory.path()).unwrap();
        assert_eq!(tokenizer.encode("ab", true).unwrap(), ids, "{class} {add_bos}");
    }
}

#[test]
fn what_a_definition_has_no_use_for_is_not_read() {
    let directory = tempdir().unwrap();
    write_hub_layout(directory.path());
    fs::write(directory.path().join("added_tokens.json"), "[").unwrap();
    assert!(Tokenizer::open(directory.path()).is_ok());
}

#[test]
fn broken_tokenizer_files_are_explained() {
    let directory = tempdir().unwrap();
    write_hub_layout(directory.path());
    let path = directory.path().join("tokenizer.json");
    let broken = |edit: fn(&mut Value)| {
        let mut json = tokenizer_json();
        edit(&mut json);
        json.to_string()
    };
    for (text, part) in [
        (String::new(), "not valid JSON"),
        ("{}".to_owned(), "not a tokenizer definition"),
        (broken(|j| j["model"]["type"] = json!("Telepathy")), "not a tokenizer definition"),
        (broken(|j| j["model"]["merges"] = json!([["a", "x"]])), "merge 0"),
        (broken(|j| j["model"]["merges"] = json!([["ab", "ab"]])), "`abab`"),
        (broken(|j| j["model"]["continuing_subword_prefix"] = json!("####")), "subword prefix"),
        (
            broken(
                |j| j["pre_tokenizer"] = json!({ "type": "Split", "pattern": { "Regex": "(" }, "behavior": "Isolated", "invert": false }),
            ),
            "tokenizer definition",
        ),
    ] {
        fs::write(&path, text).unwrap();
        assert_says(Tokenizer::open(directory.path()), &path, &[part]);
    }
    fs::remove_file(&path).unwrap();
    assert_says(Tokenizer::open(directory.path()), directory.path(), &["no tokenizer.json"]);
    fs::write(directory.path().join("vocab.json"), "{}").unwrap();
    assert_says(Tokenizer::open(directory.path()), directory.path(), &["vocab.json but no merges.txt"]);
    fs::write(directory.path().join("tokenizer.model"), "").unwrap();
    assert_says(Tokenizer::open(directory.path()), directory.path(), &["tokenizer.model", "save_pretrained"]);
    assert!(matches!(Tokenizer::open(directory.path()), Err(Error::Tokenizer { .. })));
}
