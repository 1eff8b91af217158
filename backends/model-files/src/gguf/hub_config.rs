//! The configuration of a GGUF, spelled as Hugging Face's `config.json`.

use serde_json::{Map, Value, json};

use super::metadata::{View, little_endian_f32};
use super::rope_scaling::Llama3Scaling;
use crate::encoding::Encoding;
use crate::{Error, Result};

/// The configuration, and what of it places the tensors.
pub(crate) struct Derived {
    pub(crate) json: Value,
    pub(crate) architecture: &'static str,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) key_value_heads: usize,
}

pub(crate) fn derive(view: &View<'_>) -> Result<Derived> {
    let Some(name) = view.text("general.architecture")? else {
        return Err(view.fail("metadata lacks `general.architecture`"));
    };
    let (architecture, class) = match name {
        "llama" => ("llama", "LlamaForCausalLM"),
        "qwen2" => ("qwen2", "Qwen2ForCausalLM"),
        other => {
            return Err(Error::UnsupportedArchitecture {
                path: view.path.to_path_buf(),
                architecture: other.to_owned(),
                supported: "llama, qwen2",
            });
        }
    };
    let key = |name: &str| format!("{architecture}.{name}");
    if view.count(&key("expert_count"))?.unwrap_or(0) > 0 {
        return Err(Error::UnsupportedArchitecture {
            path: view.path.to_path_buf(),
            architecture: format!("{architecture} with a mixture of experts"),
            supported: "llama, qwen2",
        });
    }
    let layers = view.required_extent(&key("block_count"))?;
    let hidden = view.required_extent(&key("embedding_length"))?;
    let heads = view.required_extent(&key("attention.head_count"))?;
    let key_value_heads = key_value_heads(view, &key("attention.head_count_kv"), heads)?;
    let head_dim = match view.count(&key("attention.key_length"))? {
        Some(length) => length,
        None if hidden % heads == 0 => hidden / heads,
        None => return Err(view.fail(format!("{heads} heads do not divide an embedding of {hidden}"))),
    };
    if head_dim == 0 || head_dim % 2 == 1 {
        return Err(
            view.fail(format!("a head has {head_dim} dimensions; rotary embeddings need an even number"))
        );
    }
    for part in ["attention.value_length", "rope.dimension_count"] {
        if let Some(length) = view.count(&key(part))?
            && length != head_dim
        {
            let problem =
                format!("metadata `{}` is {length}, but heads have {head_dim} dimensions", key(part));
            return Err(Error::config(
                view.path,
                problem,
                "this variant is not supported; use the original checkpoint",
            ));
        }
    }
    let Some(embeddings) = view.tensor("token_embd.weight") else {
        return Err(view.fail("has no tensor `token_embd.weight`"));
    };
    let &[vocabulary, width] = embeddings.shape.as_slice() else {
        return Err(view
            .fail(format!("tensor `token_embd.weight` has shape {:?}, not two extents", embeddings.shape)));
    };
    if width != hidden {
        let problem = format!(
            "tensor `token_embd.weight` is {width} wide, but `{}` is {hidden}",
            key("embedding_length")
        );
        return Err(view.fail(problem));
    }
    let Some(epsilon) = view.float(&key("attention.layer_norm_rms_epsilon"))? else {
        return Err(view.fail(format!("metadata lacks `{}`", key("attention.layer_norm_rms_epsilon"))));
    };
    let theta = view.float(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    if theta <= 0.0 {
        return Err(view.fail(format!("metadata `{}` is {theta}", key("rope.freq_base"))));
    }

    let mut config = Map::new();
    let mut set = |name: &str, value: Value| config.insert(name.to_owned(), value);
    set("architectures", json!([class]));
    set("model_type", json!(architecture));
    set("hidden_act", json!("silu"));
    set("hidden_size", json!(hidden));
    set("intermediate_size", json!(view.required_extent(&key("feed_forward_length"))?));
    set("num_hidden_layers", json!(layers));
    set("num_attention_heads", json!(heads));
    set("num_key_value_heads", json!(key_value_heads));
    set("head_dim", json!(head_dim));
    set("rms_norm_eps", json!(epsilon));
    set("rope_theta", json!(theta));
    set("rope_scaling", rope_scaling(view, architecture, theta, head_dim)?);
    set("vocab_size", json!(vocabulary));
    set("max_position_embeddings", json!(view.required_extent(&key("context_length"))?));
    set("tie_word_embeddings", json!(view.tensor("output.weight").is_none()));
    if architecture == "llama" {
        set("attention_bias", json!(view.tensor("blk.0.attn_q.bias").is_some()));
        set("mlp_bias", json!(view.tensor("blk.0.ffn_gate.bias").is_some()));
    }
    for (hub, own) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
        if let Some(id) = view.count(&format!("tokenizer.ggml.{own}_token_id"))? {
            set(hub, json!(id));
        }
    }
    Ok(Derived { json: Value::Object(config), architecture, layers, heads, key_value_heads })
}

/// One number, or the same number for every layer; as many as there are heads when the file says nothing.
fn key_value_heads(view: &View<'_>, key: &str, heads: usize) -> Result<usize> {
    let count = if view.is_array(key) {
        let per_layer = view.integers(key)?.unwrap_or_default();
        match per_layer.split_first() {
            Some((first, rest)) if rest.iter().all(|n| n == first) => usize::try_from(*first).unwrap_or(0),
            _ => {
                return Err(
                    view.fail(format!("metadata `{key}` differs between layers, which is not supported"))
                );
            }
        }
    } else {
        view.count(key)?.unwrap_or(heads)
    };
    if count == 0 || !heads.is_multiple_of(count) {
        return Err(view.fail(format!("metadata `{key}` is {count}, which does not divide {heads} heads")));
    }
    Ok(count)
}

fn rope_scaling(view: &View<'_>, architecture: &str, theta: f64, head_dim: usize) -> Result<Value> {
    if let Some(tensor) = view.tensor("rope_freqs.weight") {
        if tensor.encoding != Encoding::F32 || tensor.shape != [head_dim / 2] {
            let problem = format!("tensor `rope_freqs.weight` is {:?} of {}", tensor.shape, tensor.encoding);
            return Err(view.fail(format!("{problem}, not {} of F32", head_dim / 2)));
        }
        let factors = little_endian_f32(&view.bytes[tensor.range.clone()]);
        if factors.iter().all(|&factor| factor == 1.0) {
            return Ok(Value::Null);
        }
        let Some(found) = Llama3Scaling::fit(&factors, theta) else {
            return Err(Error::config(
                view.path,
                "the factors in tensor `rope_freqs.weight` are not those of llama3 scaling",
                "this variant is not supported; use the original safetensors checkpoint",
            ));
        };
        return Ok(json!({
            "rope_type": "llama3",
            "factor": found.factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": found.high_freq_factor,
            "original_max_position_embeddings": found.original_context,
        }));
    }
    let kind = view.text(&format!("{architecture}.rope.scaling.type"))?.unwrap_or("none");
    // Files of the first converters give the factor alone, under another key.
    let factor = match view.float(&format!("{architecture}.rope.scaling.factor"))? {
        Some(factor) => Some(factor),
        None => view.float(&format!("{architecture}.rope.scale_linear"))?,
    };
    match (kind, factor) {
        ("linear", Some(factor)) => Ok(json!({ "rope_type": "linear", "factor": factor })),
        ("none", Some(factor)) if factor != 1.0 && factor != 0.0 => {
            Ok(json!({ "rope_type": "linear", "factor": factor }))
        }
        ("none", _) => Ok(Value::Null),
        (other, Some(factor)) => {
            let context = view.count(&format!("{architecture}.rope.scaling.original_context_length"))?;
            Ok(json!({ "rope_type": other, "factor": factor, "original_max_position_embeddings": context }))
        }
        (other, None) => {
            Err(view.fail(format!("metadata gives rotary scaling `{other}` without its factor")))
        }
    }
}
