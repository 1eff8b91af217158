//! Phi-3 (Abdin et al. 2024): LLaMA with queries, keys and values in one linear, and gate and up in another.

use super::{Family, llama, mistral};
use crate::Result;
use crate::architecture::Architecture;
use crate::architecture::keys::Keys;
use crate::layout::{LinearName, Names, Role};

pub(super) static FAMILY: Family = Family {
    model_types: &["phi3"],
    class: "Phi3ForCausalLM",
    names: &NAMES,
    gguf: None,
    read,
    spell: llama::spell,
};

const NAMES: Names = Names {
    linears: &[
        LinearName { name: "self_attn.qkv_proj", roles: &[Role::Query, Role::Key, Role::Value] },
        LinearName { name: "self_attn.o_proj", roles: &[Role::Output] },
        LinearName { name: "mlp.gate_up_proj", roles: &[Role::Gate, Role::Up] },
        LinearName { name: "mlp.down_proj", roles: &[Role::Down] },
    ],
    ..llama::NAMES
};

fn read(keys: &Keys<'_>, model_type: &str) -> Result<Architecture> {
    let mut read = Architecture { family: &FAMILY, ..llama::read_partly_rotated(keys, model_type)? };
    read.max_position_embeddings = mistral::within_window(keys, read.max_position_embeddings)?;
    Ok(read)
}
