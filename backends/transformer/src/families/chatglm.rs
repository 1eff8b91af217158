//! ChatGLM2 and ChatGLM3 (Zeng et al. 2022; GLM team 2024): queries, keys and values in one linear, gate and up in another, few key and
//! value heads, and a rotation of half of each head in pairs of neighbours.

use serde_json::{Map, Value, json};

use super::Family;
use crate::Result;
use crate::architecture::keys::Keys;
use crate::architecture::{Architecture, FeedForward, NormKind, NormOrder, Positions, RopeScaling, Rotary};
use crate::layout::{LinearName, Names, Role};

pub(super) static FAMILY: Family = Family {
    model_types: &["chatglm"],
    class: "ChatGLMForConditionalGeneration",
    names: &NAMES,
    gguf: None,
    read,
    spell,
};

const NAMES: Names = Names {
    blocks: "transformer.encoder.layers",
    linears: &[
        LinearName { name: "self_attention.query_key_value", roles: &[Role::Query, Role::Key, Role::Value] },
        LinearName { name: "self_attention.dense", roles: &[Role::Output] },
        LinearName { name: "mlp.dense_h_to_4h", roles: &[Role::Gate, Role::Up] },
        LinearName { name: "mlp.dense_4h_to_h", roles: &[Role::Down] },
    ],
    norms: ["input_layernorm", "post_attention_layernorm"],
    attention: "self_attention",
    feed_forward: Some("mlp"),
    embedding: "transformer.embedding.word_embeddings.weight",
    positions: "",
    project_in: "",
    project_out: "",
    final_norm: "transformer.encoder.final_layernorm",
    head: "transformer.output_layer.weight",
    aliases: &[],
};

fn read(keys: &Keys<'_>, model_type: &str) -> Result<Architecture> {
    if keys.get("position_encoding_2d").is_some() {
        return Err(keys
            .wrong("it is of the first ChatGLM, which is another architecture", "use ChatGLM2 or ChatGLM3"));
    }
    if keys.number_or("quantization_bit", 0.0)? != 0.0 {
        return Err(keys.wrong(
            "`quantization_bit` is not 0: its weights are packed in ChatGLM's own way, which is not read",
            "use the model in half precision, and compress it here",
        ));
    }
    keys.expect_flag("rmsnorm", true)?;
    keys.expect_flag("apply_residual_connection_post_layernorm", false)?;
    keys.expect_flag("original_rope", true)?;
    let hidden_size = keys.extent("hidden_size")?;
    let num_attention_heads = keys.extent("num_attention_heads")?;
    let head_dim = keys.head_dim("kv_channels", hidden_size, num_attention_heads)?;
    let shared = keys.flag("multi_query_attention", false)?;
    let num_key_value_heads =
        if shared { keys.extent("multi_query_group_num")? } else { num_attention_heads };
    let bias = keys.flag("add_bias_linear", false)?;
    let rope_ratio = keys.number_or("rope_ratio", 1.0)?;
    if !(rope_ratio > 0.0 && rope_ratio.is_finite()) {
        return Err(keys.wrong(format!("`rope_ratio` is {rope_ratio}"), "it must be positive"));
    }
    let rotary = Rotary {
        theta: 10_000.0 * rope_ratio,
        scaling: RopeScaling::Default,
        width: head_dim / 2,
        interleaved: true,
    };
    Ok(Architecture {
        family: &FAMILY,
        model_type: model_type.to_owned(),
        vocab_size: keys.extent("padded_vocab_size")?,
        embedding_size: hidden_size,
        hidden_size,
        intermediate_size: keys.extent("ffn_hidden_size")?,
        num_hidden_layers: keys.extent("num_layers")?,
        num_attention_heads,
        num_key_value_heads,
        head_dim,
        norm: NormKind::Rms,
        norm_eps: keys.number_or("layernorm_epsilon", 1e-5)? as f32,
        norm_order: NormOrder::Before,
        final_norm: keys.flag("post_layer_norm", true)?,
        feed_forward: FeedForward::GatedSilu,
        positions: Positions::Rotary(rotary),
        max_position_embeddings: keys.extent_or("seq_length", 2048)?,
        tie_word_embeddings: keys.flag("tie_word_embeddings", false)?,
        qkv_bias: bias || keys.flag("add_qkv_bias", false)?,
        output_bias: bias,
        mlp_bias: bias,
        activations: Vec::new(),
        block_shapes: Vec::new(),
    })
}

fn spell(a: &Architecture, config: &mut Map<String, Value>) {
    for (key, value) in [
        ("hidden_size", a.hidden_size),
        ("ffn_hidden_size", a.intermediate_size),
        ("num_attention_heads", a.num_attention_heads),
        ("multi_query_group_num", a.num_key_value_heads),
        ("kv_channels", a.head_dim),
    ] {
        config.insert(key.to_owned(), json!(value));
    }
}
