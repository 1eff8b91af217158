//! Tokenizers put together from SentencePiece's models and from OPT's two files: ids are those of the Python libraries
//! (`golden/tokenizers/make.py`), whatever special tokens stand around them, and broken files are explained.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use llmcb_model_files::Tokenizer;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizers").join(name)
}

fn expected(name: &str) -> Vec<Case> {
    let text = fs::read_to_string(golden("expected.json")).unwrap();
    serde_json::from_str::<HashMap<String, Vec<Case>>>(&text).unwrap().remove(name).unwrap()
}

/// A directory with a SentencePiece model and what stands beside it.
fn directory(model: &str, config: Option<Value>) -> TempDir {
    let directory = tempdir().unwrap();
    fs::copy(golden(&format!("{model}.model")), directory.path().join("tokenizer.model")).unwrap();
    if let Some(config) = config {
        fs::write(directory.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    }
    directory
}

fn byte_pairs(config: Option<Value>) -> TempDir {
    let directory = tempdir().unwrap();
    for file in ["vocab.json", "merges.txt"] {
        fs::copy(golden(file), directory.path().join(file)).unwrap();
    }
    if let Some(config) = config {
        fs::write(directory.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    }
    directory
}

/// Texts in which SentencePiece itself finds no special token, though LLaMA's class does.
fn plain(case: &Case) -> bool {
    !["<s>", "</s>", "<unk>"].iter().any(|token| case.text.contains(token))
}

#[test]
fn pieces_are_those_of_sentencepiece() {
    for model in ["bpe", "unigram", "unigram-bytes"] {
        let tokenizer = Tokenizer::open(directory(model, None).path()).unwrap();
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.prefix()), (Some(1), Some(2), &[1][..]));
        for case in expected(model).iter().filter(|case| plain(case)) {
            assert_eq!(tokenizer.encode(&case.text, false).unwrap(), case.ids, "{model}: {:?}", case.text);
            let with_bos = [&[1], case.ids.as_slice()].concat();
            assert_eq!(tokenizer.encode(&case.text, true).unwrap(), with_bos, "{model}: {:?}", case.text);
        }
    }
}

#[test]
fn opt_reads_its_two_files_and_begins_with_its_token() {
    let tokenizer = Tokenizer::open(byte_pairs(None).path()).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.prefix()), (Some(2), Some(2), &[2][..]));
    for case in expected("opt") {
        assert_eq!(tokenizer.encode(&case.text, true).unwrap(), case.ids, "{:?}", case.text);
        assert_eq!(tokenizer.decode(&case.ids[1..], false).unwrap(), case.text);
    }
    let plain = Tokenizer::open(byte_pairs(Some(json!({ "add_bos_token": false }))).path()).unwrap();
    assert_eq!(plain.prefix(), [] as [u32; 0]);
}

#[test]
fn llamas_flags_are_obeyed() {
    for (config, around) in [
        (json!({ "add_bos_token": true, "add_eos_token": true }), (&[1][..], &[2][..])),
        (json!({ "add_bos_token": false }), (&[], &[])),
        (json!({ "tokenizer_class": "LlamaTokenizer" }), (&[1], &[])),
    ] {
        let tokenizer = Tokenizer::open(directory("bpe", Some(config.clone())).path()).unwrap();
        let bare = tokenizer.encode("a text", false).unwrap();
        let expected = [around.0, &bare, around.1].concat();
        assert_eq!(tokenizer.encode("a text", true).unwrap(), expected, "{config}");
    }
    // Special tokens written in text are found, as LLaMA's class finds them.
    let tokenizer = Tokenizer::open(directory("bpe", None).path()).unwrap();
    assert!(tokenizer.encode("a</s>b", false).unwrap().contains(&2));
}

#[test]
fn chatglm_has_two_tokens_before_every_text_and_finds_none_in_it() {
    let tokenizer =
        Tokenizer::open(directory("bpe", Some(json!({ "tokenizer_class": "ChatGLMTokenizer" }))).path())
            .unwrap();
    let pieces = 560;
    assert_eq!(tokenizer.token_to_id("[MASK]"), Some(pieces));
    let (mask, begin) = (tokenizer.token_to_id("[gMASK]").unwrap(), tokenizer.token_to_id("sop").unwrap());
    assert_eq!((mask, begin), (pieces + 1, pieces + 3));
    assert_eq!(tokenizer.token_to_id("<|observation|>"), Some(pieces + 8));
    assert_eq!((tokenizer.prefix(), tokenizer.eos()), (&[mask, begin][..], Some(2)));
    for case in expected("bpe") {
        let expected = [&[mask, begin], case.ids.as_slice()].concat();
        assert_eq!(tokenizer.encode(&case.text, true).unwrap(), expected, "{:?}", case.text);
    }
}

#[test]
fn what_is_saved_gives_the_same_ids_and_keeps_the_files() {
    for (directory, file) in [
        (directory("bpe", None), "tokenizer.model"),
        (directory("unigram", None), "tokenizer.model"),
        (directory("bpe", Some(json!({ "tokenizer_class": "ChatGLMTokenizer" }))), "tokenizer.model"),
        (byte_pairs(None), "merges.txt"),
    ] {
        let tokenizer = Tokenizer::open(directory.path()).unwrap();
        let saved = tempdir().unwrap();
        tokenizer.save(saved.path()).unwrap();
        let again = Tokenizer::open(saved.path()).unwrap();
        assert!(fs::read(saved.path().join(file)).unwrap() == fs::read(directory.path().join(file)).unwrap());
        assert_eq!(
            (again.bos(), again.eos(), again.prefix()),
            (tokenizer.bos(), tokenizer.eos(), tokenizer.prefix())
        );
        for case in expected("bpe") {
            for special in [false, true] {
                let of = |tokenizer: &Tokenizer| tokenizer.encode(&case.text, special).unwrap();
                assert_eq!(of(&again), of(&tokenizer), "{:?}", case.text);
            }
        }
    }
}

#[test]
fn broken_files_are_explained() {
    let says = |directory: &TempDir, part: &str| {
        let error = Tokenizer::open(directory.path()).unwrap_err().to_string();
        assert!(
            error.contains(part) && error.contains(&*directory.path().to_string_lossy()),
            "{part}: {error}"
        );
    };
    let cut = directory("bpe", None);
    let path = cut.path().join("tokenizer.model");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    says(&cut, "claims");
    fs::write(&path, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n").unwrap();
    says(&cut, "tokenizer.model");
    fs::write(&path, b"").unwrap();
    says(&cut, "tokenizer.model");
    let pairs = byte_pairs(None);
    fs::write(pairs.path().join("merges.txt"), "#version: 0.2\na b c\nlonely\n").unwrap();
    says(&pairs, "lonely");
    fs::write(pairs.path().join("vocab.json"), r#"{"a": 0, "b": 0}"#).unwrap();
    says(&pairs, "the id 0");
    fs::remove_file(pairs.path().join("merges.txt")).unwrap();
    says(&pairs, "no merges.txt");
    says(&tempdir().unwrap(), "no tokenizer.json");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Anything may come of a damaged model but a panic or a hang.
    #[test]
    fn damaged_models_are_survived(
        which in 0usize..3, cut in prop::option::of(0.0f64..1.0),
        bytes in prop::collection::vec((0.0f64..1.0, any::<u8>()), 0..6), text in ".{0,20}",
    ) {
        let directory = directory(["bpe", "unigram", "unigram-bytes"][which], None);
        let path = directory.path().join("tokenizer.model");
        let mut model = fs::read(&path).unwrap();
        for (at, byte) in bytes {
            let at = (at * model.len() as f64) as usize;
            model[at] = byte;
        }
        if let Some(cut) = cut {
            model.truncate((cut * model.len() as f64) as usize);
        }
        fs::write(&path, model).unwrap();
        if let Ok(tokenizer) = Tokenizer::open(directory.path()) {
            let _ = tokenizer.encode(&text, true);
        }
    }

    /// A text that was cut into bytes and pieces is put together again.
    #[test]
    fn texts_come_back(text in "[ a-zA-Z0-9é日😀\n.,]{0,60}") {
        let llama = Tokenizer::open(directory("bpe", None).path()).unwrap();
        prop_assert_eq!(&llama.decode(&llama.encode(&text, true).unwrap(), true).unwrap(), &text);
        let opt = Tokenizer::open(byte_pairs(None).path()).unwrap();
        prop_assert_eq!(&opt.decode(&opt.encode(&text, true).unwrap(), true).unwrap(), &text);
    }
}
