//! Checkpoints read back as they were written, and bad models are refused.

mod support;

use std::sync::Arc;

use llmcb_transformer::{
    CheckpointOptions, CheckpointWriter, LoadOptions, MemorySource, Model, StorageType, TensorSource,
};
use serde_json::{Value, json};
use support::{CASES, golden, model, source, tokens};

fn options() -> CheckpointOptions {
    CheckpointOptions { tokenizer: false, ..CheckpointOptions::default() }
}

#[test]
fn a_checkpoint_gives_the_same_logits() {
    for name in CASES {
        let model = model(name, 2);
        let want = model.logits(&tokens(1, 20, 96)).unwrap();
        for max_shard_bytes in [100_000, 5_000_000_000] {
            let directory = tempfile::tempdir().unwrap();
            CheckpointWriter::create(
                directory.path(),
                &model,
                CheckpointOptions { max_shard_bytes, ..options() },
            )
            .unwrap()
            .finish()
            .unwrap();
            let again = Model::open(directory.path(), &LoadOptions::default()).unwrap();
            assert_eq!(again.architecture(), model.architecture());
            assert_eq!(again.logits(&tokens(1, 20, 96)).unwrap(), want, "{name}");
            let sharded = directory.path().join("model.safetensors.index.json").exists();
            assert_eq!(sharded, max_shard_bytes == 100_000);
        }
    }
}

#[test]
fn replaced_blocks_and_half_precision_are_what_is_read() {
    let mut model = model("qwen2-bias", 2);
    let mut block = model.block(1).unwrap();
    block.set_tensor("mlp.up_proj.weight", vec![0.125; 112 * 64]).unwrap();
    block.set_tensor("self_attn.k_proj.bias", vec![0.25; 32]).unwrap();
    for (storage, tolerance) in [(StorageType::F32, 0.0), (StorageType::F16, 2e-3), (StorageType::BF16, 2e-2)]
    {
        let directory = tempfile::tempdir().unwrap();
        let mut writer =
            CheckpointWriter::create(directory.path(), &model, CheckpointOptions { storage, ..options() })
                .unwrap();
        writer.write_block(1, &block).unwrap();
        writer.finish().unwrap();
        let again = Model::open(directory.path(), &LoadOptions::default()).unwrap();
        assert_eq!(again.original_config()["torch_dtype"], storage.torch_name());
        let written = again.block(1).unwrap();
        assert_eq!(written.tensor("mlp.up_proj.weight").unwrap(), vec![0.125; 112 * 64]);
        assert_eq!(written.tensor("self_attn.k_proj.bias").unwrap(), vec![0.25; 32]);
        let (a, b) = (again.block(0).unwrap(), model.block(0).unwrap());
        for name in a.tensor_names() {
            for (x, y) in a.tensor(&name).unwrap().iter().zip(b.tensor(&name).unwrap()) {
                assert!((x - y).abs() <= tolerance, "{name}: {x} and {y}");
            }
        }
    }
    model.replace_block(1, block).unwrap();
    assert!(model.replace_block(2, model.block(0).unwrap()).is_err());
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = model("llama2", 1);
    let directory = tempfile::tempdir().unwrap();
    let options = CheckpointOptions { storage: StorageType::F16, ..options() };
    let mut writer = CheckpointWriter::create(directory.path(), &model, options).unwrap();
    assert!(writer.write_tensor("nothing", &[]).unwrap_err().to_string().contains("nothing"));
    assert!(writer.write_tensor("model.norm.weight", &[1.0]).unwrap_err().to_string().contains("64"));
    let large = vec![1e6; 64];
    assert!(writer.write_tensor("model.norm.weight", &large).unwrap_err().to_string().contains("bfloat16"));
    let file = directory.path().join("a file");
    std::fs::write(&file, "x").unwrap();
    assert!(CheckpointWriter::create(&file, &model, options).unwrap_err().to_string().contains("a file"));
}

fn open(config: Value, source: MemorySource) -> Result<Model, String> {
    Model::from_source(
        Arc::new(source),
        config,
        "some/model".to_owned(),
        &LoadOptions { threads: 1, ..LoadOptions::default() },
    )
    .map_err(|e| e.to_string())
}

#[test]
fn other_beginnings_of_names_are_read() {
    let case = golden()["cases"]["opt"].clone();
    let (ours, mut theirs) = (source(&case), MemorySource::default());
    for entry in case["parameters"].as_array().unwrap() {
        let name = entry[0].as_str().unwrap();
        let stored = name.strip_prefix("model.").unwrap();
        theirs.insert(stored, ours.shape(name).unwrap(), ours.load(name).unwrap()).unwrap();
    }
    let again = open(case["config"].clone(), theirs).unwrap();
    let given = tokens(1, 20, 96);
    assert_eq!(again.logits(&given).unwrap(), model("opt", 1).logits(&given).unwrap());
}

#[test]
fn a_configuration_that_contradicts_the_tensors_is_refused() {
    let case = golden()["cases"]["llama2"].clone();
    for (key, value, expected) in [
        ("vocab_size", json!(95), "model.embed_tokens.weight"),
        ("hidden_size", json!(128), "model.embed_tokens.weight"),
        ("intermediate_size", json!(111), "gate_proj"),
        ("num_key_value_heads", json!(2), "k_proj"),
        ("num_hidden_layers", json!(3), "model.layers.2"),
        ("num_hidden_layers", json!(1), "has 1 blocks"),
        ("head_dim", json!(8), "q_proj"),
        ("attention_bias", json!(true), "q_proj.bias"),
    ] {
        let mut config = case["config"].clone();
        config[key] = value;
        let message = open(config, source(&case)).unwrap_err();
        assert!(message.contains(expected) && message.contains("some/model"), "{key}: {message}");
    }
    // A bias that the configuration does not speak of.
    let mut biased = source(&case);
    biased.insert("model.layers.0.self_attn.q_proj.bias", vec![64], vec![0.0; 64]).unwrap();
    assert!(open(case["config"].clone(), biased).unwrap_err().contains("attention_bias"));
    // An output head that is not there.
    let mut tied = case["config"].clone();
    tied["tie_word_embeddings"] = json!(true);
    assert!(open(tied, source(&case)).is_ok());
    assert!(!source(&golden()["cases"]["smollm2-tied"]).contains("lm_head.weight"));
    let mut untied = golden()["cases"]["smollm2-tied"]["config"].clone();
    untied["tie_word_embeddings"] = json!(false);
    assert!(open(untied, source(&golden()["cases"]["smollm2-tied"])).unwrap_err().contains("lm_head.weight"));
}
