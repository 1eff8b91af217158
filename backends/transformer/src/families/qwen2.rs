//! Qwen 2: LLaMA with biases of queries, keys and values.

use super::{Family, GgufFamily, llama, mistral};
use crate::Result;
use crate::architecture::Architecture;
use crate::architecture::keys::Keys;

pub(super) static FAMILY: Family = Family {
    model_types: &["qwen2"],
    class: "Qwen2ForCausalLM",
    names: &llama::NAMES,
    gguf: Some(GgufFamily { architecture: "qwen2", interleaved: false }),
    read,
    spell: llama::spell,
};

fn read(keys: &Keys<'_>, model_type: &str) -> Result<Architecture> {
    let mut read = Architecture { family: &FAMILY, ..llama::read(keys, model_type)? };
    read.qkv_bias = keys.flag("attention_bias", true)?;
    read.output_bias = false;
    if keys.flag("use_sliding_window", false)? {
        read.max_position_embeddings = mistral::within_window(keys, read.max_position_embeddings)?;
    }
    Ok(read)
}
