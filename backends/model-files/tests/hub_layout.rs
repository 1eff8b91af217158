//! Directories in the Hugging Face layout: what is read from good ones, and what is said of broken ones.

mod support;

use std::fs;
use std::path::Path;

use llmcb_model_files::{Encoding, Error, ModelFiles};
use serde_json::json;
use support::{assert_says, llama_config, safetensors, with_header, write_hub_layout, write_json};
use tempfile::tempdir;

#[test]
fn single_file_opens() {
    let directory = tempdir().unwrap();
    write_hub_layout(directory.path());
    let files = ModelFiles::open(directory.path()).unwrap();
    assert_eq!(files.config(), &llama_config());
    let norm = files.tensor("model.norm.weight").unwrap();
    assert_eq!(
        (norm.shape, norm.encoding, norm.bytes),
        (vec![4], Encoding::BF16, &[0, 1, 2, 3, 4, 5, 6, 7][..])
    );
    assert_eq!(files.tensor("model.embed_tokens.weight").unwrap().shape, [6, 4]);
    assert_eq!(files.tensor("lm_head.weight").unwrap().encoding, Encoding::F16);
    assert_eq!(files.tensor_names().count(), 4);
    assert_says(files.tensor("nothing"), &directory.path().join("model.safetensors"), &["`nothing`", "4"]);
    assert!(
        matches!(files.tensor("model.steps"), Err(Error::UnsupportedEncoding { encoding, .. }) if encoding == "F64")
    );

    let provenance = files.provenance();
    assert_eq!((provenance.format.as_str(), provenance.parameters), ("safetensors", 24 + 4 + 24 + 2));
    for name in ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"] {
        assert!(provenance.files.contains(&directory.path().join(name)), "{name}");
    }
}

fn write_shards(directory: &Path, weight_map: serde_json::Value) {
    write_json(directory, "config.json", &llama_config());
    fs::write(
        directory.join("a.safetensors"),
        safetensors(&[("x", "F32", &[2], &[1; 8]), ("extra", "F32", &[1], &[3; 4])]),
    )
    .unwrap();
    fs::write(directory.join("b.safetensors"), safetensors(&[("y", "F16", &[2], &[2; 4])])).unwrap();
    write_json(directory, "model.safetensors.index.json", &json!({ "weight_map": weight_map }));
}

#[test]
fn shards_open_as_their_index_says() {
    let directory = tempdir().unwrap();
    write_shards(directory.path(), json!({ "x": "a.safetensors", "y": "b.safetensors" }));
    let files = ModelFiles::open(directory.path()).unwrap();
    assert_eq!(files.tensor_names().collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(files.tensor("y").unwrap().bytes, [2; 4]);
    assert_eq!(files.provenance().files.len(), 4);
}

#[test]
fn broken_shard_indices_are_explained() {
    for (weight_map, parts) in [
        (json!({ "x": "a.safetensors", "z": "c.safetensors" }), ["c.safetensors", "not there"]),
        (json!({ "x": "a.safetensors", "z": "b.safetensors" }), ["`z`", "b.safetensors"]),
        (json!({ "x": "../a.safetensors" }), ["../a.safetensors", "plain file name"]),
        (json!({ "x": "/etc/passwd" }), ["/etc/passwd", "plain file name"]),
        (json!(["x"]), ["shard index", "again"]),
    ] {
        let directory = tempdir().unwrap();
        write_shards(directory.path(), weight_map);
        assert_says(
            ModelFiles::open(directory.path()),
            &directory.path().join("model.safetensors.index.json"),
            &parts,
        );
    }
}

#[test]
fn broken_weights_are_explained() {
    let good = safetensors(&[("x", "F32", &[2, 2], &[0; 16])]);
    let entry = |shape: &str, offsets: &str| {
        format!(r#"{{"x":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "0 bytes long"),
        ("no header", good[..5].to_vec(), "5 bytes long"),
        ("cut in the header", good[..20].to_vec(), "claims a header"),
        ("cut in the data", good[..good.len() - 1].to_vec(), "15 follow"),
        ("longer than it says", [&good[..], &[0; 9]].concat(), "25 follow"),
        ("absurd header length", [&u64::MAX.to_le_bytes()[..], &[0; 64]].concat(), "18446744073709551615"),
        ("not JSON", with_header("{\"x\": ", &[]), "not safetensors JSON"),
        ("not UTF-8", [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat(), "not safetensors JSON"),
        ("JSON of another kind", with_header("[1, 2]", &[]), "not safetensors JSON"),
        ("unknown type", with_header(&entry("[4]", "[0,16]").replace("F32", "F7"), &[0; 16]), "F7"),
        ("shape and bytes differ", with_header(&entry("[3]", "[0,16]"), &[0; 16]), "shape"),
        ("shape overflows", with_header(&entry("[4294967296,4294967296,4]", "[0,16]"), &[0; 16]), "overflow"),
        ("negative shape", with_header(&entry("[-1]", "[0,16]"), &[0; 16]), "not safetensors JSON"),
        ("offsets far", with_header(&entry("[1048576]", "[0,4194304]"), &[0; 16]), "4194304 bytes of data"),
        ("offsets backwards", with_header(&entry("[4]", "[16,0]"), &[0; 16]), "x"),
        ("deep nesting", with_header(&"[".repeat(100_000), &[]), "not safetensors JSON"),
        (
            "LFS pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec(),
            "git lfs pull",
        ),
    ];
    let directory = tempdir().unwrap();
    write_json(directory.path(), "config.json", &llama_config());
    let path = directory.path().join("model.safetensors");
    for (what, bytes, part) in cases {
        fs::write(&path, bytes).unwrap();
        let message = support::message(ModelFiles::open(directory.path()));
        assert!(message.contains("model.safetensors") && message.contains(part), "{what}: {message}");
    }
}

#[test]
fn broken_configurations_are_explained() {
    let without = |key: &str| {
        let mut config = llama_config();
        config.as_object_mut().unwrap().remove(key);
        config.to_string()
    };
    let with = |key: &str, value: serde_json::Value| {
        let mut config = llama_config();
        config[key] = value;
        config.to_string()
    };
    let directory = tempdir().unwrap();
    write_hub_layout(directory.path());
    let path = directory.path().join("config.json");
    for (text, part) in [
        (String::new(), "not valid JSON"),
        ("{\"hidden_size\": ".to_owned(), "not valid JSON"),
        ("[]".to_owned(), "not a JSON object"),
        ("{}".to_owned(), "names no architecture"),
        (without("hidden_size"), "lacks `hidden_size`"),
        (without("num_attention_heads"), "lacks `num_attention_heads`"),
        (with("vocab_size", json!(-4)), "`vocab_size` is -4"),
        (with("num_hidden_layers", json!("two")), "`num_hidden_layers` is \"two\""),
        (with("num_hidden_layers", json!(0)), "`num_hidden_layers` is 0"),
    ] {
        fs::write(&path, &text).unwrap();
        assert_says(ModelFiles::open(directory.path()), &path, &[part]);
    }
}

#[test]
fn paths_that_are_no_model_are_explained() {
    let directory = tempdir().unwrap();
    let here = directory.path();
    assert_says(ModelFiles::open(&here.join("nowhere")), &here.join("nowhere"), &["check the path"]);
    assert_says(ModelFiles::open(here), here, &["neither config.json nor a .gguf"]);
    write_json(here, "config.json", &llama_config());
    assert_says(ModelFiles::open(here), here, &["no weights"]);
    assert_says(ModelFiles::open(&here.join("config.json")), here, &["one file of", "give the directory"]);
    fs::write(here.join("weights.safetensors"), "").unwrap();
    assert_says(ModelFiles::open(here), here, &["weights.safetensors", "rename"]);
    fs::write(here.join("model.gguf"), "").unwrap();
    assert_says(ModelFiles::open(here), here, &["model.gguf", "name the file itself"]);
    fs::write(here.join("pytorch_model.bin"), "").unwrap();
    assert_says(
        ModelFiles::open(here),
        &here.join("pytorch_model.bin"),
        &["pickled", "safe_serialization=True"],
    );
    assert_says(ModelFiles::open(&here.join("pytorch_model.bin")), here, &["pickled"]);
    fs::write(here.join("notes.txt"), "hello").unwrap();
    assert_says(ModelFiles::open(&here.join("notes.txt")), here, &["not a GGUF file"]);
}
