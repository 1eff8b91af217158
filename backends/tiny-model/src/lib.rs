//! A tiny LLaMA-shaped model with reproducible weights and a tokenizer, in the Hugging Face layout: what backends are checked and tested on.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

/// The shape of a model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Transformer blocks.
    pub blocks: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward part.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub key_value_heads: usize,
    /// Longest sequence.
    pub positions: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { blocks: 3, hidden: 64, intermediate: 128, heads: 4, key_value_heads: 2, positions: 512 }
    }
}

/// FNV-1a, 64 bits.
fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Number `index` of the sequence called `name`, in [-0.5, 0.5) on a 24-bit grid (SplitMix64 seeded by the name's hash).
pub fn uniform(name: &str, index: usize) -> f32 {
    let step = (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut x = fnv1a64(name.as_bytes()).wrapping_add(step);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    ((x >> 40) as f64 / f64::from(1 << 24) - 0.5) as f32
}

/// Values of a parameter: weights of norms around 1, all others around 0 with a standard deviation of about 0.14 (biases: half of it).
pub fn parameter(name: &str, shape: &[usize]) -> Vec<f32> {
    let is_norm = name.contains("norm") && name.ends_with("weight");
    let value = |u: f32| match () {
        () if is_norm => 1.0 + u / 2.0,
        () if name.ends_with("bias") => u / 4.0,
        () => u / 2.0,
    };
    (0..shape.iter().product()).map(|i| value(uniform(name, i))).collect()
}

/// Names and shapes of all parameters.
pub fn parameters(shape: Shape, vocabulary: usize) -> Vec<(String, Vec<usize>)> {
    let Shape { hidden, intermediate, .. } = shape;
    let key_values = hidden / shape.heads * shape.key_value_heads;
    let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden])];
    for block in 0..shape.blocks {
        for (name, extents) in [
            ("self_attn.q_proj", vec![hidden, hidden]),
            ("self_attn.k_proj", vec![key_values, hidden]),
            ("self_attn.v_proj", vec![key_values, hidden]),
            ("self_attn.o_proj", vec![hidden, hidden]),
            ("mlp.gate_proj", vec![intermediate, hidden]),
            ("mlp.up_proj", vec![intermediate, hidden]),
            ("mlp.down_proj", vec![hidden, intermediate]),
            ("input_layernorm", vec![hidden]),
            ("post_attention_layernorm", vec![hidden]),
        ] {
            all.push((format!("model.layers.{block}.{name}.weight"), extents));
        }
    }
    all.push(("model.norm.weight".to_owned(), vec![hidden]));
    all.push(("lm_head.weight".to_owned(), vec![vocabulary, hidden]));
    all
}

/// Pairs that the tokenizer merges, in order of rank. `Ġ` is byte-level BPE's letter for a space.
const MERGES: &[(&str, &str)] = &[
    ("t", "h"),
    ("th", "e"),
    ("Ġ", "the"),
    ("a", "n"),
    ("an", "d"),
    ("Ġ", "and"),
    ("i", "n"),
    ("in", "g"),
    ("e", "r"),
    ("o", "n"),
    ("Ġ", "a"),
    ("o", "r"),
    ("e", "n"),
    ("Ġ", "s"),
    ("Ġ", "w"),
    ("a", "t"),
    ("e", "s"),
    ("r", "e"),
    ("i", "s"),
    ("Ġ", "b"),
    ("o", "u"),
    ("l", "l"),
    ("Ġ", "c"),
    ("Ġ", "m"),
    ("o", "f"),
    ("Ġ", "of"),
    ("Ġ", "f"),
    ("e", "d"),
    ("a", "r"),
    ("i", "t"),
    ("s", "t"),
    ("Ġ", "p"),
    ("l", "e"),
    ("Ġ", "d"),
    ("a", "l"),
    ("o", "w"),
    ("Ġ", "h"),
    ("Ġ", "t"),
    ("r", "o"),
    ("Ġ", "in"),
    ("Ġ", "is"),
    ("at", "er"),
];

const SPECIAL: [&str; 2] = ["<s>", "</s>"];

/// The letter that byte-level BPE writes for a byte: printable ones stand for themselves, the others for U+0100 and on.
fn byte_letter(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|b| !printable(*b)).count() as u32;
    char::from_u32(0x100 + rank).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The vocabulary: token to id.
pub fn vocabulary() -> BTreeMap<String, usize> {
    let letters = (0..=255u8).map(|byte| byte_letter(byte).to_string());
    let merged = MERGES.iter().map(|(left, right)| format!("{left}{right}"));
    let tokens = SPECIAL.iter().map(|token| (*token).to_owned()).chain(letters).chain(merged);
    tokens.enumerate().map(|(id, token)| (token, id)).collect()
}

fn tokenizer() -> Value {
    let special: Vec<Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special,
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary(),
            "merges": MERGES.iter().map(|(left, right)| format!("{left} {right}")).collect::<Vec<_>>(),
        },
    })
}

/// What `config.json` says.
pub fn config(shape: Shape, vocabulary: usize) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.blocks,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": false,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    })
}

/// Writes JSON for people.
///
/// # Errors
/// The file cannot be written.
pub fn write_json(path: &Path, value: &Value) -> io::Result<()> {
    std::fs::write(path, serde_json::to_vec_pretty(value)?)
}

/// Writes the model into a folder, which is made. Models of different `names` have different weights.
///
/// # Errors
/// The folder cannot be written.
pub fn write(folder: &Path, shape: Shape, names: &str) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let words = vocabulary().len();
    write_json(&folder.join("config.json"), &config(shape, words))?;
    write_tokenizer(folder)?;
    let values: Vec<(String, Vec<usize>, Vec<u8>)> = parameters(shape, words)
        .into_iter()
        .map(|(name, extents)| {
            let bytes = parameter(&format!("{names}{name}"), &extents)
                .into_iter()
                .flat_map(f32::to_le_bytes)
                .collect();
            (name, extents, bytes)
        })
        .collect();
    write_weights(folder, &values)
}

/// Writes the tokenizer of all tiny models.
///
/// # Errors
/// The folder cannot be written.
pub fn write_tokenizer(folder: &Path) -> io::Result<()> {
    write_json(&folder.join("tokenizer.json"), &tokenizer())?;
    write_json(
        &folder.join("tokenizer_config.json"),
        &json!({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}),
    )
}

/// Writes tensors in single precision: name, shape and bytes.
///
/// # Errors
/// The file cannot be written, or a shape is not that of the bytes.
pub fn write_weights(folder: &Path, values: &[(String, Vec<usize>, Vec<u8>)]) -> io::Result<()> {
    let views = values
        .iter()
        .map(|(name, extents, bytes)| {
            let view = TensorView::new(Dtype::F32, extents.clone(), bytes).map_err(io::Error::other)?;
            Ok((name.as_str(), view))
        })
        .collect::<io::Result<Vec<_>>>()?;
    let about = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(about), &folder.join("model.safetensors"))
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_published_formula() {
        // The first value by hand: splitmix64 of fnv1a64("a") + golden ratio.
        assert_eq!(fnv1a64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a64(b"a"), 0xaf63_dc4c_8601_ec8c);
        let values: Vec<f32> = (0..1000).map(|i| uniform("x", i)).collect();
        assert!(values.iter().all(|v| (-0.5..0.5).contains(v)));
        let mean = values.iter().sum::<f32>() / 1000.0;
        assert!(mean.abs() < 0.05, "{mean}");
    }

    #[test]
    fn every_byte_has_a_letter_and_every_merge_its_parts() {
        let vocabulary = vocabulary();
        assert_eq!(vocabulary.len(), 2 + 256 + MERGES.len());
        assert_eq!(vocabulary["Ġ"], 2 + 32);
        for (left, right) in MERGES {
            assert!(vocabulary.contains_key(*left) && vocabulary.contains_key(*right), "{left} {right}");
        }
    }
}
