//! Tokenizers without a `tokenizer.json`: small models of each kind, with the tokens that Python makes of texts
//! (`golden/tokenizer_models.py`).

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use llmcb_model_files::{ModelFiles, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{assert_says, write_hub_layout, write_json};
use tempfile::{TempDir, tempdir};

const NAMES: [&str; 6] = ["llama", "chatglm", "bpe-rules", "unigram", "unigram-bytes", "opt"];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizer_models")
}

fn open(name: &str) -> Tokenizer {
    Tokenizer::open(&golden().join(name)).unwrap()
}

fn expected() -> BTreeMap<String, Vec<(String, Vec<u32>)>> {
    serde_json::from_slice(&fs::read(golden().join("expected.json")).unwrap()).unwrap()
}

/// A copy of a model's directory, to change.
fn copy(name: &str) -> TempDir {
    let directory = tempdir().unwrap();
    for entry in fs::read_dir(golden().join(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    directory
}

#[test]
fn tokens_are_those_of_python() {
    let expected = expected();
    assert!(expected.keys().all(|name| NAMES.contains(&name.as_str())) && expected.len() == NAMES.len());
    for (name, texts) in expected {
        let tokenizer = open(&name);
        for (text, ids) in &texts {
            assert_eq!(&tokenizer.encode(text, true).unwrap(), ids, "{name}: {text:?}");
        }
        let all: Vec<&str> = texts.iter().map(|(text, _)| text.as_str()).collect();
        let ids: Vec<Vec<u32>> = texts.iter().map(|(_, ids)| ids.clone()).collect();
        assert_eq!(tokenizer.encode_batch(&all, true).unwrap(), ids);
    }
}

#[test]
fn special_tokens_are_the_models_own() {
    for (name, bos, eos, prefix) in [
        ("llama", Some(1), Some(2), vec![1]),
        ("chatglm", None, Some(2), vec![401, 403]),
        ("unigram", Some(1), Some(2), vec![1]),
        ("unigram-bytes", Some(1), Some(2), vec![]),
        ("opt", Some(2), Some(2), vec![2]),
    ] {
        let tokenizer = open(name);
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (bos, eos), "{name}");
        assert_eq!(tokenizer.prefix(), prefix, "{name}");
    }
    let chatglm = open("chatglm");
    assert_eq!(chatglm.vocab_size(), 409);
    for (token, id) in [("[MASK]", 400), ("[gMASK]", 401), ("sop", 403), ("<|user|>", 406)] {
        assert_eq!(chatglm.token_to_id(token), Some(id));
    }
    let ids = chatglm.encode("The river", true).unwrap();
    assert_eq!(chatglm.decode(&ids, true).unwrap(), "The river");
}

#[test]
fn special_tokens_are_found_in_text_where_the_models_own_code_finds_them() {
    let llama = open("llama");
    let (river, end) = (llama.encode("river", false).unwrap(), 2);
    let joined: Vec<u32> = [river.as_slice(), &[end], &river].concat();
    // As in the first LLaMA's code, text behind a special token begins with a space of its own.
    assert_eq!(llama.encode("river</s>river", false).unwrap(), joined);
    // ChatGLM finds what its configuration lists, no more: `people` stays a word.
    let directory = copy("chatglm");
    let listed = json!({ "406": { "content": "<|user|>", "special": true } });
    let config = json!({ "tokenizer_class": "ChatGLMTokenizer", "added_tokens_decoder": listed });
    write_json(directory.path(), "tokenizer_config.json", &config);
    let tokenizer = Tokenizer::open(directory.path()).unwrap();
    let people = tokenizer.encode("people", false).unwrap();
    assert_eq!(people, open("chatglm").encode("people", false).unwrap());
    assert_eq!(tokenizer.encode("<|user|>people", false).unwrap(), [&[406], people.as_slice()].concat());
    assert_eq!(tokenizer.prefix(), [401, 403]);
}

#[test]
fn configuration_rules_what_is_added() {
    for (config, ids) in [
        (json!({ "add_bos_token": false }), vec![]),
        (
            json!({ "add_bos_token": true, "add_eos_token": true, "tokenizer_class": "LlamaTokenizer" }),
            vec![1, 2],
        ),
        (json!({ "bos_token": { "content": "</s>" } }), vec![2]),
    ] {
        let directory = copy("llama");
        write_json(directory.path(), "tokenizer_config.json", &config);
        let tokenizer = Tokenizer::open(directory.path()).unwrap();
        assert_eq!(tokenizer.encode("", true).unwrap(), ids, "{config}");
    }
    // OPT's directory as published, and GPT-2's way of saying nothing.
    for (config, ids) in [(json!({ "add_bos_token": true }), vec![2]), (json!({}), vec![])] {
        let directory = copy("opt");
        write_json(directory.path(), "tokenizer_config.json", &config);
        assert_eq!(Tokenizer::open(directory.path()).unwrap().encode("", true).unwrap(), ids, "{config}");
    }
}

#[test]
fn added_tokens_have_the_ids_that_their_file_gives_them() {
    let directory = copy("llama");
    write_json(directory.path(), "added_tokens.json", &json!({ "<pad>": 400, "<extra>": 401 }));
    let tokenizer = Tokenizer::open(directory.path()).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.token_to_id("<extra>")), (402, Some(401)));
    assert_eq!(tokenizer.encode("<extra><pad>", false).unwrap(), [401, 400]);
    write_json(directory.path(), "added_tokens.json", &json!({ "<pad>": 500 }));
    assert_says(Tokenizer::open(directory.path()), directory.path(), &["<pad>", "500", "400"]);
}

#[test]
fn saved_tokenizers_give_the_same_tokens() {
    for (name, texts) in expected() {
        let original = open(&name);
        let directory = tempdir().unwrap();
        original.save(directory.path()).unwrap();
        // What no tokenizer.json can express has none.
        let has_definition = directory.path().join("tokenizer.json").exists();
        assert_eq!(has_definition, ["llama", "chatglm", "opt"].contains(&name.as_str()), "{name}");
        for file in ["tokenizer.model", "vocab.json", "merges.txt"] {
            let (from, to) = (golden().join(&name).join(file), directory.path().join(file));
            assert_eq!(fs::read(from).ok(), fs::read(to).ok(), "{name}: {file}");
        }
        let saved = Tokenizer::open(directory.path()).unwrap();
        assert_eq!((saved.bos(), saved.eos()), (original.bos(), original.eos()), "{name}");
        assert_eq!(
            (saved.prefix(), saved.vocab_size()),
            (original.prefix(), original.vocab_size()),
            "{name}"
        );
        for (text, ids) in texts {
            assert_eq!(saved.encode(&text, true).unwrap(), ids, "{name}: {text:?}");
        }
    }
}

#[test]
fn tokenizers_without_a_counterpart_in_a_gguf_are_not_exported() {
    assert!(open("llama").gguf_metadata(400).is_ok() && open("opt").gguf_metadata(340).is_ok());
    for (name, part) in [
        ("chatglm", "2 tokens before every text"),
        ("unigram", "SentencePiece"),
        ("bpe-rules", "SentencePiece"),
    ] {
        let message = open(name).gguf_metadata(500).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn the_files_count_among_those_of_the_model() {
    for (name, files) in [
        ("chatglm", vec!["tokenizer.model", "tokenizer_config.json"]),
        ("opt", vec!["vocab.json", "merges.txt"]),
    ] {
        let directory = copy(name);
        let config = fs::read(directory.path().join("tokenizer_config.json")).ok();
        write_hub_layout(directory.path());
        fs::remove_file(directory.path().join("tokenizer.json")).unwrap();
        let path = directory.path().join("tokenizer_config.json");
        match config {
            Some(config) => fs::write(path, config).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let model = ModelFiles::open(directory.path()).unwrap();
        let listed = model.provenance().files;
        let names: Vec<&str> = listed.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, [&["model.safetensors", "config.json"], files.as_slice()].concat());
        assert_eq!(model.tokenizer().unwrap().prefix(), open(name).prefix());
    }
}

#[test]
fn broken_byte_pair_files_are_explained() {
    for (file, content, parts) in [
        ("vocab.json", "[]", &["vocab.json", "no JSON object"][..]),
        ("vocab.json", r#"{"a":0,"b":-1}"#, &["\"b\"", "-1"]),
        ("vocab.json", r#"{"a":0,"b":0}"#, &["\"a\" and \"b\"", "id 0"]),
        ("merges.txt", "#version: 0.2\na\n", &["merges.txt", "line 2", "\"a\""]),
        ("merges.txt", "zz zz\n", &["merge 0", "zz"]),
    ] {
        let directory = copy("opt");
        fs::write(directory.path().join(file), content).unwrap();
        assert_says(Tokenizer::open(directory.path()), directory.path(), parts);
    }
}

/// A protobuf field of bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

#[test]
fn broken_sentence_piece_models_are_explained() {
    let whole = fs::read(golden().join("llama/tokenizer.model")).unwrap();
    let unknown = field(1, &[field(1, b"<unk>"), vec![0x18, 2]].concat());
    let piece = |text: &[u8]| field(1, &field(1, text));
    for (bytes, part) in [
        (vec![], "0 unknown tokens"),
        (whole[..whole.len() - 3].to_vec(), "claims"),
        (b"not a model".to_vec(), "wire type"),
        (piece(b""), "piece 0: has no spelling"),
        (piece(b"\xff"), "no UTF-8"),
        ([unknown.clone(), unknown.clone()].concat(), "tokens 0 and 1 alike"),
        ([unknown.clone(), field(2, &[0x18, 3])].concat(), "word model"),
        ([unknown.clone(), field(2, &[0x18, 9])].concat(), "unknown kind 9"),
        ([unknown.clone(), field(2, &[0x18, 2, 0x98, 0x02, 1])].concat(), "piece <0x00>"),
        ([unknown.clone(), field(2, &[0xc0, 0x01, 1])].concat(), "behind words"),
        ([unknown.clone(), field(3, &field(2, &[9, 0, 0, 0]))].concat(), "too short for its trie"),
        ([unknown, field(1, &[field(1, b"a"), vec![0x15, 0, 0, 0xc0, 0x7f]].concat())].concat(), "NaN"),
    ] {
        let directory = tempdir().unwrap();
        let path = directory.path().join("tokenizer.model");
        fs::write(&path, bytes).unwrap();
        assert_says(Tokenizer::open(directory.path()), &path, &["SentencePiece", part]);
    }
}

/// Text of pieces that matter to tokenizers.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-e .]{0,8}",
        "\\PC{0,4}",
        prop::sample::select(vec![
            " ", "  ", "\n", "<sep>", "</s>", "\u{2581}", "e\u{301}", "\u{3000}", "日", "😀", "\0"
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn texts_decode_to_themselves(text in text()) {
        for name in ["llama", "opt", "unigram-bytes", "chatglm"] {
            let tokenizer = open(name);
            // Marks of spaces become spaces, and special tokens are no text.
            let text = text.replace(['\u{2581}', '<'], " ");
            let ids = tokenizer.encode(&text, true).unwrap();
            prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
            prop_assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        }
    }

    #[test]
    fn extra_spaces_are_removed(text in text()) {
        for name in ["bpe-rules", "unigram"] {
            let tokenizer = open(name);
            // A mark of a space that stands in a text is no space to the rules.
            let ids = tokenizer.encode(&text.replace('\u{2581}', "a"), false).unwrap();
            prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
            let again = tokenizer.decode(&ids, false).unwrap();
            prop_assert!(!again.contains("  ") && !again.contains('\u{3000}'), "{again:?}");
        }
    }

    #[test]
    fn damaged_models_never_panic(
        which in 0..5usize,
        places in prop::collection::vec((0.0..1.0, any::<u8>()), 1..6),
        cut in prop::option::of(0.0..1.0),
        text in text(),
    ) {
        let directory = copy(NAMES[which]);
        let path = directory.path().join("tokenizer.model");
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in places {
            let at = (at * bytes.len() as f64) as usize;
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate((cut * bytes.len() as f64) as usize);
        }
        fs::write(&path, &bytes).unwrap();
        if let Ok(tokenizer) = Tokenizer::open(directory.path())
            && let Ok(ids) = tokenizer.encode(&text, true)
        {
            let _ = tokenizer.decode(&ids, false);
        }
    }

    #[test]
    fn damaged_rules_never_panic(
        which in 2..4usize,
        places in prop::collection::vec((0.0..1.0, any::<u8>()), 1..6),
        text in text(),
    ) {
        let directory = copy(NAMES[which]);
        let path = directory.path().join("tokenizer.model");
        let mut bytes = fs::read(&path).unwrap();
        // The rules are what comes last.
        let reach = bytes.len().min(1300);
        for (at, byte) in places {
            let at = bytes.len() - 1 - (at * reach as f64) as usize;
            bytes[at] = byte;
        }
        fs::write(&path, &bytes).unwrap();
        if let Ok(tokenizer) = Tokenizer::open(directory.path()) {
            let _: Result<Vec<u32>, _> = tokenizer.encode(&text, true);
        }
    }

    #[test]
    fn damaged_byte_pairs_never_panic(victim in any::<bool>(), at in 0.0..1.0, byte in any::<u8>()) {
        let directory = copy("opt");
        let path = directory.path().join(if victim { "vocab.json" } else { "merges.txt" });
        let mut bytes = fs::read(&path).unwrap();
        let at = (at * bytes.len() as f64) as usize;
        bytes[at] = byte;
        fs::write(&path, &bytes).unwrap();
        if let Ok(tokenizer) = Tokenizer::open(directory.path()) {
            let _: Value = json!(tokenizer.encode("the people", true).ok());
        }
    }
}
