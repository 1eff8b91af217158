//! LLaMA 1, 2 and 3, Vicuna, and whatever else has LLaMA's configuration (Touvron et al. 2023).

use serde_json::{Map, Value, json};

use super::{Family, GgufFamily};
use crate::Result;
use crate::architecture::keys::Keys;
use crate::architecture::{Architecture, FeedForward, NormKind, NormOrder, Positions, Rotary};
use crate::layout::{LinearName, Names, Role};

pub(super) static FAMILY: Family = Family {
    model_types: &["llama"],
    class: "LlamaForCausalLM",
    names: &NAMES,
    gguf: Some(GgufFamily { architecture: "llama", interleaved: true }),
    read,
    spell,
};

/// Shared by the families that Hugging Face derived from LLaMA.
pub(super) const NAMES: Names = Names {
    blocks: "model.layers",
    linears: &[
        LinearName { name: "self_attn.q_proj", roles: &[Role::Query] },
        LinearName { name: "self_attn.k_proj", roles: &[Role::Key] },
        LinearName { name: "self_attn.v_proj", roles: &[Role::Value] },
        LinearName { name: "self_attn.o_proj", roles: &[Role::Output] },
        LinearName { name: "mlp.gate_proj", roles: &[Role::Gate] },
        LinearName { name: "mlp.up_proj", roles: &[Role::Up] },
        LinearName { name: "mlp.down_proj", roles: &[Role::Down] },
    ],
    norms: ["input_layernorm", "post_attention_layernorm"],
    attention: "self_attn",
    feed_forward: Some("mlp"),
    embedding: "model.embed_tokens.weight",
    positions: "",
    project_in: "",
    project_out: "",
    final_norm: "model.norm",
    head: "lm_head.weight",
    aliases: &[],
};

pub(super) fn read(keys: &Keys<'_>, model_type: &str) -> Result<Architecture> {
    let read = read_partly_rotated(keys, model_type)?;
    match read.rotary() {
        Some(rotary) if rotary.width != read.head_dim => Err(keys.wrong(
            "`partial_rotary_factor` is not 1, and no model of this family rotates parts of heads",
            "remove the key, or correct `model_type`",
        )),
        _ => Ok(read),
    }
}

/// As [`read`], of which only a part of each head may be rotated.
pub(super) fn read_partly_rotated(keys: &Keys<'_>, model_type: &str) -> Result<Architecture> {
    keys.expect_text("hidden_act", &["silu", "swish"], "silu")?;
    let hidden_size = keys.extent("hidden_size")?;
    let num_attention_heads = keys.extent("num_attention_heads")?;
    let head_dim = keys.head_dim("head_dim", hidden_size, num_attention_heads)?;
    let attention_bias = keys.flag("attention_bias", false)?;
    let rotary = Rotary::read(keys, head_dim)?;
    Ok(Architecture {
        family: &FAMILY,
        model_type: model_type.to_owned(),
        vocab_size: keys.extent("vocab_size")?,
        embedding_size: hidden_size,
        hidden_size,
        intermediate_size: keys.extent("intermediate_size")?,
        num_hidden_layers: keys.extent("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: keys.extent_or("num_key_value_heads", num_attention_heads)?,
        head_dim,
        norm: NormKind::Rms,
        norm_eps: keys.number_or("rms_norm_eps", 1e-6)? as f32,
        norm_order: NormOrder::Before,
        final_norm: true,
        feed_forward: FeedForward::GatedSilu,
        positions: Positions::Rotary(rotary),
        max_position_embeddings: keys.extent_or("max_position_embeddings", 2048)?,
        tie_word_embeddings: keys.flag("tie_word_embeddings", false)?,
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: keys.flag("mlp_bias", false)?,
        activations: Vec::new(),
        block_shapes: Vec::new(),
    })
}

pub(super) fn spell(a: &Architecture, config: &mut Map<String, Value>) {
    for (key, value) in [
        ("hidden_size", a.hidden_size),
        ("intermediate_size", a.intermediate_size),
        ("num_attention_heads", a.num_attention_heads),
        ("num_key_value_heads", a.num_key_value_heads),
        // No longer the hidden size over the number of heads.
        ("head_dim", a.head_dim),
    ] {
        config.insert(key.to_owned(), json!(value));
    }
}
