//! Weights stored as integer codes: the layouts of GPTQ, AWQ, compressed-tensors and Model Optimizer checkpoints.
//!
//! [`IntegerMatrix`] is what all of them stand for; [`Scheme`] is one layout with its settings, as `quantization_config`
//! in a `config.json` gives them. A scheme writes a matrix as tensors ([`Scheme::encode`]) and reads it back
//! ([`Scheme::decode`]). [`Quantization`] is a whole checkpoint's. [`Bitmask`] are layouts of numbers among many zeros.

mod awq;
pub(crate) mod bitmask;
mod bits;
mod compressed_tensors;
mod gptq;
mod matrix;
mod modelopt;
mod quantization;
mod scheme;
#[cfg(test)]
mod tests;

pub use bitmask::Bitmask;
pub use bits::{pack, packed_words, unpack};
pub use matrix::{IntegerMatrix, MatrixError};
pub use quantization::{InputActivations, Quantization, sparsity_to_json};
pub use scheme::{FloatType, Layout, Parts, Scheme, SchemeError, TensorSpec, ZeroPoints};
