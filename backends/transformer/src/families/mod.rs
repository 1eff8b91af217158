//! Model families: what the files of each call their tensors, and how its configuration is spelled.
//!
//! # Adding a family
//!
//! A family is one file in this folder and one row of [`FAMILIES`]. The file says three things:
//!
//! 1. [`Names`]: what the checkpoint calls its tensors, and which linears hold several matrices at once. Methods see linears as they are
//!    stored; the forward pass sees the [`Role`](crate::Role)s.
//! 2. `read`: an [`Architecture`] from a `config.json`. Everything that families differ in is a field of it: the kind of norm and where it
//!    stands, the feed-forward part, positions, biases, projections around the embedding.
//! 3. `spell`: the keys of `config.json` that change when a method removes heads or channels.
//!
//! `phi3.rs` is a good example to begin with: two fused linears, otherwise LLaMA. `mistral.rs` differs from LLaMA in one limit.
//! Where a family computes something that no field of [`Architecture`] says yet, that is a new field (or a new value of an enum there),
//! and three places to compute it: the forward pass (`forward.rs`), the same in candle's operations for gradients (`gradients.rs`), and, for
//! what lies outside the blocks, `model.rs`.
//!
//! Then add a tiny model to the golden file (`tests/golden/make.py` writes reference logits with Python `transformers`): the tests
//! that walk over all cases hold the forward pass, gradients, statistics, pruning, checkpoints and every method to it.

mod chatglm;
mod llama;
mod mistral;
mod opt;
mod phi3;
mod qwen2;

use serde_json::{Map, Value};

use crate::Result;
use crate::architecture::Architecture;
use crate::architecture::keys::Keys;
use crate::layout::Names;

/// A family of models.
pub struct Family {
    /// Values of `model_type` that are of this family.
    pub model_types: &'static [&'static str],
    /// The entry of `architectures` that other tools load a checkpoint by.
    pub class: &'static str,
    /// What its files call tensors.
    pub names: &'static Names,
    /// How llama.cpp names the architecture and what it does to rows of queries and keys, where a GGUF can hold it.
    pub gguf: Option<GgufFamily>,
    /// Reads a configuration; the second argument is its `model_type`.
    pub(crate) read: fn(&Keys<'_>, &str) -> Result<Architecture>,
    /// Writes the extents that may have changed into a configuration.
    pub(crate) spell: fn(&Architecture, &mut Map<String, Value>),
}

/// A family in llama.cpp's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GgufFamily {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Whether rows of queries and keys are stored in pairs of neighbours.
    pub interleaved: bool,
}

/// All families.
pub static FAMILIES: [&Family; 6] =
    [&llama::FAMILY, &mistral::FAMILY, &qwen2::FAMILY, &phi3::FAMILY, &opt::FAMILY, &chatglm::FAMILY];

/// The family of a `model_type`.
pub(crate) fn of(model_type: &str) -> Option<&'static Family> {
    FAMILIES.into_iter().find(|family| family.model_types.contains(&model_type))
}

/// Values of `model_type` that are implemented.
pub fn model_types() -> Vec<&'static str> {
    FAMILIES.iter().flat_map(|family| family.model_types).copied().collect()
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Family").field(&self.model_types).finish()
    }
}
