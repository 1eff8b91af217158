//! Everything about a language model's files on disk.
//!
//! [`ModelFiles`] opens a model in the Hugging Face layout (`config.json` with safetensors) or in a GGUF file, and
//! shows both in one way: a configuration spelled as Hugging Face spells it, tensors under Hugging Face names as
//! memory-mapped bytes in their stored encoding, and a [`Tokenizer`]. Nothing is decoded here: that is for the
//! reader of [`StoredTensor::bytes`].
//!
//! Files are untrusted input. Every count, length and offset is checked against the size of its file before it is
//! used, so a broken file ends in an [`Error`] that names the file, what is wrong in it and the way out.

mod encoding;
mod error;
pub mod gguf;
mod hub_layout;
mod mapping;
mod model;
pub mod packed;
mod tokenizer;

pub use encoding::{Encoding, GgmlType};
pub use error::{Error, Result};
pub use model::{ModelFiles, Provenance, StoredTensor};
pub use tokenizer::Tokenizer;
