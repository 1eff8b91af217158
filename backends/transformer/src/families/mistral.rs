//! Mistral: LLaMA with attention that reaches back a window of tokens.

use super::{Family, GgufFamily, llama};
use crate::Result;
use crate::architecture::Architecture;
use crate::architecture::keys::Keys;

pub(super) static FAMILY: Family = Family {
    model_types: &["mistral"],
    class: "MistralForCausalLM",
    names: &llama::NAMES,
    gguf: Some(GgufFamily { architecture: "llama", interleaved: true }),
    read,
    spell: llama::spell,
};

fn read(keys: &Keys<'_>, model_type: &str) -> Result<Architecture> {
    let mut read = Architecture { family: &FAMILY, ..llama::read(keys, model_type)? };
    read.max_position_embeddings = within_window(keys, read.max_position_embeddings)?;
    Ok(read)
}

/// The longest sequence for which a window (`sliding_window`) hides nothing. Longer ones are not run: windowed attention is not implemented,
/// and full attention would be another model.
pub(super) fn within_window(keys: &Keys<'_>, positions: usize) -> Result<usize> {
    Ok(keys.optional_extent("sliding_window")?.map_or(positions, |window| window.min(positions)))
}
