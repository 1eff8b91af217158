//! GGUF files: what is read from good ones, and what is said of broken ones.

mod support;

use llmcb_model_files::{Encoding, Error, GgmlType, ModelFiles};
use serde_json::json;
use support::{F32, Gguf, Meta, Q4_0, Tensor, assert_says, text};
use tempfile::tempdir;

fn open(gguf: &Gguf) -> llmcb_model_files::Result<ModelFiles> {
    let directory = tempdir().unwrap();
    // The mapping outlives the name.
    ModelFiles::open(&gguf.write(directory.path()))
}

#[test]
fn configuration_is_spelled_as_on_the_hub() {
    let files = open(&Gguf::llama()).unwrap();
    let rows = support::byte_level_tokens().len();
    let expected = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "rope_scaling": null,
        "vocab_size": rows, "max_position_embeddings": 128, "tie_word_embeddings": true,
        "attention_bias": false, "mlp_bias": false, "bos_token_id": 0, "eos_token_id": 1,
    });
    assert_eq!(files.config(), &expected);
}

#[test]
fn tensors_come_under_hub_names_with_their_bytes() {
    let mut gguf = Gguf::llama();
    let files = open(&gguf).unwrap();
    for (hub, own, shape, encoding, heads) in [
        ("model.norm.weight", "output_norm.weight", vec![32], Encoding::F32, None),
        (
            "model.layers.0.self_attn.q_proj.weight",
            "blk.0.attn_q.weight",
            vec![32, 32],
            Encoding::Ggml(GgmlType::Q4_0),
            Some(4),
        ),
        (
            "model.layers.0.self_attn.k_proj.weight",
            "blk.0.attn_k.weight",
            vec![16, 32],
            Encoding::Ggml(GgmlType::Q4_0),
            Some(2),
        ),
        (
            "model.layers.0.self_attn.v_proj.weight",
            "blk.0.attn_v.weight",
            vec![16, 32],
            Encoding::Ggml(GgmlType::Q4_0),
            None,
        ),
        (
            "model.layers.0.mlp.down_proj.weight",
            "blk.0.ffn_down.weight",
            vec![32, 64],
            Encoding::Ggml(GgmlType::Q4_0),
            None,
        ),
    ] {
        let tensor = files.tensor(hub).unwrap();
        assert_eq!(
            (&tensor.shape, tensor.encoding, tensor.rope_interleaved_heads),
            (&shape, encoding, heads),
            "{hub}"
        );
        assert_eq!(tensor.bytes, gguf.tensor(own).bytes, "{hub}");
    }
    assert_eq!(files.tensor_names().count(), 11);
    assert!(files.contains("model.embed_tokens.weight") && !files.contains("lm_head.weight"));
    assert!(matches!(files.tensor("lm_head.weight"), Err(Error::MissingTensor { .. })));
}

#[test]
fn qwen2_has_biases_and_rows_in_order() {
    let files = open(&Gguf::qwen2()).unwrap();
    assert_eq!(files.config()["architectures"], json!(["Qwen2ForCausalLM"]));
    let bias = files.tensor("model.layers.0.self_attn.q_proj.bias").unwrap();
    assert_eq!((bias.shape, bias.rope_interleaved_heads), (vec![32], None));
    assert_eq!(files.tensor("model.layers.0.self_attn.q_proj.weight").unwrap().rope_interleaved_heads, None);
}

#[test]
fn version_2_and_other_alignments_are_read() {
    let mut gguf = Gguf::llama();
    gguf.version = 2;
    gguf.alignment = 64;
    gguf.set("general.alignment", Meta::U32(64));
    assert_eq!(
        open(&gguf).unwrap().tensor("model.norm.weight").unwrap().bytes,
        gguf.tensor("output_norm.weight").bytes
    );
}

#[test]
fn output_head_unties_the_embeddings() {
    let mut gguf = Gguf::llama();
    gguf.tensors.push(Tensor::new("output.weight", &[32, 101], F32));
    let files = open(&gguf).unwrap();
    assert_eq!(files.config()["tie_word_embeddings"], json!(false));
    assert!(files.contains("lm_head.weight"));
}

#[test]
fn rope_factors_become_llama3_scaling_and_are_no_tensor() {
    let mut gguf = Gguf::llama();
    let mut tensor = Tensor::new("rope_freqs.weight", &[4], F32);
    tensor.bytes = [1.0f32, 1.0, 8.0, 8.0].iter().flat_map(|f| f.to_le_bytes()).collect();
    gguf.tensors.push(tensor);
    gguf.set("llama.rope.freq_base", Meta::F32(500_000_000.0));
    let files = open(&gguf).unwrap();
    let scaling = &files.config()["rope_scaling"];
    assert_eq!((&scaling["rope_type"], &scaling["factor"]), (&json!("llama3"), &json!(8.0)));
    assert!(!files.contains("rope_freqs.weight"));

    gguf.tensor("rope_freqs.weight").bytes =
        [8.0f32, 1.0, 5.0, 3.0].iter().flat_map(|f| f.to_le_bytes()).collect();
    let message = support::message(open(&gguf));
    assert!(message.contains("rope_freqs.weight"), "{message}");
}

#[test]
fn rope_scaling_of_metadata_is_kept() {
    for (kind, expected) in [
        ("linear", json!({ "rope_type": "linear", "factor": 2.0 })),
        ("yarn", json!({ "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64 })),
    ] {
        let mut gguf = Gguf::llama();
        gguf.set("llama.rope.scaling.type", text(kind));
        gguf.set("llama.rope.scaling.factor", Meta::F32(2.0));
        gguf.set("llama.rope.scaling.original_context_length", Meta::U32(64));
        assert_eq!(open(&gguf).unwrap().config()["rope_scaling"], expected);
    }
}

#[test]
fn provenance_counts_numbers_and_bytes() {
    let directory = tempdir().unwrap();
    let path = Gguf::llama().write(directory.path());
    let provenance = ModelFiles::open(&path).unwrap().provenance();
    let rows = support::byte_level_tokens().len() as u64;
    let quantised = 32 * (32 + 16 + 16 + 32 + 64 + 64 + 64);
    assert_eq!(provenance.precision, "Q4_0");
    assert_eq!(provenance.parameters, quantised + 32 * rows + 3 * 32);
    assert_eq!(provenance.bytes_on_disk, std::fs::metadata(&path).unwrap().len());
    assert_eq!(provenance.files, [path]);
    assert_eq!(serde_json::to_value(&provenance).unwrap()["format"], json!("gguf"));
}

#[test]
fn directory_with_one_gguf_opens() {
    let directory = tempdir().unwrap();
    let path = Gguf::llama().write(directory.path());
    assert!(ModelFiles::open(directory.path()).is_ok());
    std::fs::copy(&path, directory.path().join("other.gguf")).unwrap();
    assert_says(ModelFiles::open(directory.path()), directory.path(), &["2 .gguf files", "name one"]);
}

/// A way to break a good file, and what the message must say.
type Breakage = (&'static str, fn(&mut Gguf), &'static [&'static str]);

const BREAKAGES: &[Breakage] = &[
    ("magic", |g| g.magic = *b"GGML", &["not a GGUF file"]),
    ("version 1", |g| g.version = 1, &["version 1", "convert"]),
    ("version far", |g| g.version = 99, &["version 99"]),
    ("big-endian", |g| g.version = 3u32.swap_bytes(), &["big-endian"]),
    ("absurd tensors", |g| g.claimed_tensors = Some(u64::MAX), &["18446744073709551615 tensors"]),
    ("many tensors", |g| g.claimed_tensors = Some(1 << 40), &["tensors"]),
    ("one tensor more", |g| g.claimed_tensors = Some(12), &["0 dimensions"]),
    ("absurd pairs", |g| g.claimed_pairs = Some(u64::MAX / 2), &["metadata pairs"]),
    ("absurd string", |g| g.set("x", Meta::Raw(8, u64::MAX.to_le_bytes().to_vec())), &["bytes in x"]),
    (
        "absurd array",
        |g| g.set("x", Meta::Raw(9, [&[6, 0, 0, 0][..], &[255; 8]].concat())),
        &["elements in `x`"],
    ),
    ("unknown value type", |g| g.set("x", Meta::Raw(77, vec![0; 8])), &["`x`", "unknown type 77"]),
    ("boolean of 2", |g| g.set("x", Meta::Raw(7, vec![2])), &["`x`", "boolean"]),
    (
        "deep nesting",
        |g| g.set("x", Meta::Raw(9, [&[9, 0, 0, 0][..], &1u64.to_le_bytes()].concat().repeat(40))),
        &["`x`", "nests"],
    ),
    (
        "key twice",
        |g| g.meta.push(("llama.block_count".into(), Meta::U32(1))),
        &["`llama.block_count` occurs twice"],
    ),
    (
        "key not UTF-8",
        |g| g.set("general.architecture", Meta::Text(vec![0xff, 0xfe])),
        &["general.architecture", "UTF-8"],
    ),
    ("alignment 0", |g| g.set("general.alignment", Meta::U32(0)), &["general.alignment"]),
    ("alignment 48", |g| g.set("general.alignment", Meta::U32(48)), &["general.alignment"]),
    ("alignment text", |g| g.set("general.alignment", text("32")), &["general.alignment"]),
    (
        "tensor twice",
        |g| g.tensors.push(Tensor::new("output_norm.weight", &[32], F32)),
        &["output_norm.weight", "twice"],
    ),
    (
        "type unknown",
        |g| g.tensor("output_norm.weight").kind = 4000,
        &["output_norm.weight", "unknown ggml type 4000"],
    ),
    (
        "type not readable",
        |g| g.tensor("output_norm.weight").kind = 23,
        &["output_norm.weight", "IQ4_XS", "use a GGUF"],
    ),
    (
        "no dimensions",
        |g| g.tensor("output_norm.weight").extents = vec![],
        &["output_norm.weight", "0 dimensions"],
    ),
    ("five dimensions", |g| g.tensor("output_norm.weight").extents = vec![2; 5], &["5 dimensions"]),
    ("dimension 0", |g| g.tensor("output_norm.weight").extents = vec![0], &["dimension of 0"]),
    (
        "product overflows",
        |g| g.tensor("output_norm.weight").extents = vec![1 << 62, 1 << 62],
        &["output_norm.weight", "cannot be stored"],
    ),
    ("bytes overflow", |g| g.tensor("output_norm.weight").extents = vec![1 << 63], &["output_norm.weight"]),
    (
        "too large",
        |g| g.tensor("output_norm.weight").extents = vec![1 << 40],
        &["output_norm.weight", "bytes at offset"],
    ),
    (
        "row of broken blocks",
        |g| g.tensor("blk.0.attn_q.weight").extents = vec![16, 64],
        &["blk.0.attn_q.weight", "Q4_0"],
    ),
    (
        "offset far",
        |g| g.tensor("output_norm.weight").claimed_offset = Some(1 << 50),
        &["output_norm.weight", "offset"],
    ),
    (
        "offset overflows",
        |g| g.tensor("output_norm.weight").claimed_offset = Some(u64::MAX - 31),
        &["output_norm.weight"],
    ),
    (
        "offset unaligned",
        |g| g.tensor("output_norm.weight").claimed_offset = Some(3),
        &["output_norm.weight", "alignment"],
    ),
    (
        "overlap",
        |g| g.tensor("output_norm.weight").claimed_offset = Some(0),
        &["overlap", "output_norm.weight"],
    ),
    ("no architecture", |g| g.remove("general.architecture"), &["general.architecture"]),
    ("unknown architecture", |g| g.set("general.architecture", text("gemma9")), &["gemma9", "llama, qwen2"]),
    ("experts", |g| g.set("llama.expert_count", Meta::U32(8)), &["experts"]),
    ("split", |g| g.set("split.count", Meta::U32(3)), &["3 parts", "gguf-split"]),
    ("no blocks", |g| g.remove("llama.block_count"), &["lacks `llama.block_count`"]),
    ("blocks 0", |g| g.set("llama.block_count", Meta::U32(0)), &["llama.block_count"]),
    (
        "blocks text",
        |g| g.set("llama.block_count", text("one")),
        &["`llama.block_count` is not a whole number"],
    ),
    ("blocks absurd", |g| g.set("llama.block_count", Meta::U64(u64::MAX)), &["llama.block_count"]),
    ("no epsilon", |g| g.remove("llama.attention.layer_norm_rms_epsilon"), &["layer_norm_rms_epsilon"]),
    ("epsilon NaN", |g| g.set("llama.attention.layer_norm_rms_epsilon", Meta::F32(f32::NAN)), &["finite"]),
    ("heads", |g| g.set("llama.attention.head_count", Meta::U32(5)), &["5 heads"]),
    ("odd heads", |g| g.set("llama.attention.key_length", Meta::U32(7)), &["7 dimensions"]),
    ("kv heads", |g| g.set("llama.attention.head_count_kv", Meta::U32(3)), &["head_count_kv"]),
    (
        "kv heads differ",
        |g| g.set("llama.attention.head_count_kv", Meta::I32s(vec![2, 4])),
        &["differs between layers"],
    ),
    (
        "partial rotary",
        |g| g.set("llama.rope.dimension_count", Meta::U32(4)),
        &["rope.dimension_count", "not supported"],
    ),
    ("width", |g| g.set("llama.embedding_length", Meta::U32(64)), &["token_embd.weight", "32 wide", "64"]),
    ("no embeddings", |g| g.tensors.retain(|t| t.name != "token_embd.weight"), &["token_embd.weight"]),
    (
        "stranger",
        |g| g.tensors.push(Tensor::new("blk.0.ssm_in.weight", &[32, 1], Q4_0)),
        &["blk.0.ssm_in.weight"],
    ),
    (
        "layer beyond",
        |g| g.tensors.push(Tensor::new("blk.7.attn_q.weight", &[32, 1], Q4_0)),
        &["blk.7.attn_q.weight"],
    ),
];

#[test]
fn broken_files_are_named_with_what_is_wrong() {
    let directory = tempdir().unwrap();
    for (what, breakage, parts) in BREAKAGES {
        let mut gguf = Gguf::llama();
        breakage(&mut gguf);
        let path = gguf.write(directory.path());
        let message = support::message(ModelFiles::open(&path));
        assert!(message.contains("model.gguf"), "{what}: {message}");
        for part in *parts {
            assert!(message.contains(part), "{what}: {message:?} does not say {part:?}");
        }
    }
}

#[test]
fn every_truncation_is_an_error() {
    let directory = tempdir().unwrap();
    let whole = Gguf::llama().to_bytes();
    let path = directory.path().join("cut.gguf");
    for length in (0..whole.len()).step_by(97).chain(whole.len() - 3..whole.len()) {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(ModelFiles::open(&path).is_err(), "{length} of {} bytes", whole.len());
    }
    std::fs::write(&path, &whole).unwrap();
    assert!(ModelFiles::open(&path).is_ok());
}
