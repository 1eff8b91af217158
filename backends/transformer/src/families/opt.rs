//! OPT (Zhang et al. 2022): learned positions, LayerNorm, ReLU and biases everywhere. Its 350M model alone has norms after attention and
//! feed-forward part, and an embedding narrower than the residual stream.

use serde_json::{Map, Value, json};

use super::Family;
use crate::Result;
use crate::architecture::keys::Keys;
use crate::architecture::{Architecture, FeedForward, NormKind, NormOrder, Positions};
use crate::layout::{LinearName, Names, Role};

pub(super) static FAMILY: Family =
    Family { model_types: &["opt"], class: "OPTForCausalLM", names: &NAMES, gguf: None, read, spell };

const NAMES: Names = Names {
    blocks: "model.decoder.layers",
    linears: &[
        LinearName { name: "self_attn.q_proj", roles: &[Role::Query] },
        LinearName { name: "self_attn.k_proj", roles: &[Role::Key] },
        LinearName { name: "self_attn.v_proj", roles: &[Role::Value] },
        LinearName { name: "self_attn.out_proj", roles: &[Role::Output] },
        LinearName { name: "fc1", roles: &[Role::Up] },
        LinearName { name: "fc2", roles: &[Role::Down] },
    ],
    norms: ["self_attn_layer_norm", "final_layer_norm"],
    attention: "self_attn",
    feed_forward: None,
    embedding: "model.decoder.embed_tokens.weight",
    positions: "model.decoder.embed_positions.weight",
    project_in: "model.decoder.project_in.weight",
    project_out: "model.decoder.project_out.weight",
    final_norm: "model.decoder.final_layer_norm",
    head: "lm_head.weight",
    // The checkpoints of the larger models were saved without their head.
    aliases: &[("model.decoder.", "decoder.")],
};

/// Rows of the table of positions that no position uses.
const POSITION_OFFSET: usize = 2;

/// torch's default, which the configuration does not name.
const NORM_EPS: f32 = 1e-5;

fn read(keys: &Keys<'_>, model_type: &str) -> Result<Architecture> {
    keys.expect_text("activation_function", &["relu"], "relu")?;
    keys.expect_flag("layer_norm_elementwise_affine", true)?;
    let hidden_size = keys.extent("hidden_size")?;
    let num_attention_heads = keys.extent("num_attention_heads")?;
    let before = keys.flag("do_layer_norm_before", true)?;
    let biases = keys.flag("enable_bias", true)?;
    Ok(Architecture {
        family: &FAMILY,
        model_type: model_type.to_owned(),
        vocab_size: keys.extent("vocab_size")?,
        embedding_size: keys.extent_or("word_embed_proj_dim", hidden_size)?,
        hidden_size,
        intermediate_size: keys.extent("ffn_dim")?,
        num_hidden_layers: keys.extent("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: num_attention_heads,
        head_dim: keys.head_dim("head_dim", hidden_size, num_attention_heads)?,
        norm: NormKind::Layer,
        norm_eps: NORM_EPS,
        norm_order: if before { NormOrder::Before } else { NormOrder::After },
        final_norm: before && !keys.flag("_remove_final_layer_norm", false)?,
        feed_forward: FeedForward::Relu,
        positions: Positions::Learned { offset: POSITION_OFFSET },
        max_position_embeddings: keys.extent_or("max_position_embeddings", 2048)?,
        tie_word_embeddings: keys.flag("tie_word_embeddings", true)?,
        qkv_bias: biases,
        output_bias: biases,
        mlp_bias: biases,
        activations: Vec::new(),
        block_shapes: Vec::new(),
    })
}

fn spell(a: &Architecture, config: &mut Map<String, Value>) {
    for (key, value) in [
        ("hidden_size", a.hidden_size),
        ("word_embed_proj_dim", a.embedding_size),
        ("ffn_dim", a.intermediate_size),
        ("num_attention_heads", a.num_attention_heads),
        // Ours alone: other tools divide the hidden size by the number of heads.
        ("head_dim", a.head_dim),
    ] {
        config.insert(key.to_owned(), json!(value));
    }
}
