//! Weights stored as integer codes: the layouts of GPTQ, AWQ and compressed-tensors checkpoints.
//!
//! [`IntegerMatrix`] is what all of them stand for; [`Scheme`] is one layout with its settings, as `quantization_config`
//! in a `config.json` gives them. A scheme writes a matrix as tensors ([`Scheme::encode`]) and reads it back
//! ([`Scheme::decode`]). [`Quantization`] is a whole checkpoint's.

mod awq;
mod bits;
mod compressed_tensors;
mod gptq;
mod matrix;
mod quantization;
mod scheme;
#[cfg(test)]
mod tests;

pub use bits::{pack, packed_words, unpack};
pub use matrix::{IntegerMatrix, MatrixError};
pub use quantization::{InputActivations, Quantization};
pub use scheme::{FloatType, Layout, Parts, Scheme, SchemeError, TensorSpec, ZeroPoints};
