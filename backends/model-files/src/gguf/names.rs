//! Tensor names: GGUF's to Hugging Face's, for models of the LLaMA shape.

/// What a tensor of a GGUF is to a reader of Hugging Face checkpoints.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A weight, by its Hugging Face name.
    Weight(String),
    /// Something that Hugging Face keeps in the configuration, or computes.
    Configuration,
    /// Nothing known.
    Unknown,
}

/// Translates a name; `layers` is the number of blocks the model has.
pub(crate) fn hub_name(name: &str, layers: usize) -> Role {
    match name {
        "token_embd.weight" => return Role::Weight("model.embed_tokens.weight".to_owned()),
        "output_norm.weight" => return Role::Weight("model.norm.weight".to_owned()),
        "output.weight" => return Role::Weight("lm_head.weight".to_owned()),
        "rope_freqs.weight" => return Role::Configuration,
        _ => {}
    }
    let Some((layer, part)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        return Role::Unknown;
    };
    if !layer.parse::<usize>().is_ok_and(|n| n < layers && n.to_string() == layer) {
        return Role::Unknown;
    }
    if matches!(part, "rope_freqs.weight" | "attn_rot_embd.weight") {
        return Role::Configuration;
    }
    let Some((module, kind @ ("weight" | "bias"))) = part.rsplit_once('.') else {
        return Role::Unknown;
    };
    let module = match module {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return Role::Unknown,
    };
    Role::Weight(format!("model.layers.{layer}.{module}.{kind}"))
}

/// The name in a GGUF of the weight that Hugging Face calls `name`; `None` for one that has no place there.
pub fn gguf_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".to_owned()),
        "model.norm.weight" => return Some("output_norm.weight".to_owned()),
        "lm_head.weight" => return Some("output.weight".to_owned()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = part.rsplit_once('.')?;
    let module = match module {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    matches!(kind, "weight" | "bias").then(|| format!("blk.{layer}.{module}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_translate() {
        for (gguf, hub) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output.weight", "lm_head.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"),
            ("blk.11.attn_q.weight", "model.layers.11.self_attn.q_proj.weight"),
            ("blk.1.attn_k.bias", "model.layers.1.self_attn.k_proj.bias"),
            ("blk.1.attn_v.bias", "model.layers.1.self_attn.v_proj.bias"),
            ("blk.2.attn_output.weight", "model.layers.2.self_attn.o_proj.weight"),
            ("blk.2.ffn_norm.weight", "model.layers.2.post_attention_layernorm.weight"),
            ("blk.2.ffn_gate.weight", "model.layers.2.mlp.gate_proj.weight"),
            ("blk.2.ffn_up.weight", "model.layers.2.mlp.up_proj.weight"),
            ("blk.2.ffn_down.weight", "model.layers.2.mlp.down_proj.weight"),
        ] {
            assert_eq!(hub_name(gguf, 12), Role::Weight(hub.to_owned()), "{gguf}");
            assert_eq!(gguf_name(hub).as_deref(), Some(gguf));
        }
    }

    #[test]
    fn names_without_a_place_are_unknown() {
        for name in [
            "",
            "blk",
            "blk.",
            "blk.0",
            "blk.12.attn_q.weight",
            "blk.00.attn_q.weight",
            "blk.0.attn_q.scale",
            "blk.0.attn_q_norm.weight",
            "blk.-1.attn_q.weight",
        ] {
            assert_eq!(hub_name(name, 12), Role::Unknown, "{name}");
        }
        assert_eq!(hub_name("rope_freqs.weight", 12), Role::Configuration);
    }
}
