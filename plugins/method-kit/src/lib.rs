//! The mathematics that compression methods share.
//!
//! The mathematics works on plain slices of numbers: no tensor library, no `unsafe`. Only [`plugin`] and
//! [`layerwise`] know the plugin interface.
//!
//! | module | what it holds |
//! |---|---|
//! | [`matrix`] | a checked view of a row-major weight matrix |
//! | [`adamw`] | the optimiser AdamW |
//! | [`clipping`] | OmniQuant's learnable weight clipping, and its gradients |
//! | [`smoothquant`] | SmoothQuant: scales that move outliers, and its grids |
//! | [`awq`] | AWQ: scales by activation, and the search for clipped ranges |
//! | [`grid`] | uniform quantisation grids and rounding to nearest |
//! | [`hessian`] | the layer-wise Hessian of calibration inputs and the factor of its inverse |
//! | [`gptq`] | the GPTQ solver |
//! | [`mask`] | magnitude and Wanda scores, unstructured and N:M masks |
//! | [`sparsegpt`] | the SparseGPT solver |
//! | [`lora`] | low-rank changes of weights, trained |
//! | [`units`] | importance of heads and channels, and the choice of the lowest |
//! | [`layerwise`] | the walk over a block that the solvers share as plugins |
//! | [`plugin`] | the same for the plugins around it: walking a block's linears, option types, error conversion |
//!
//! Weights are always `[rows, cols]` = `[outputs, inputs]`, row-major, as a linear layer stores them. Results do
//! not depend on the number of threads of the rayon pool the caller is in, apart from the last bits of the
//! Cholesky factor.

pub mod adamw;
pub mod awq;
pub mod clipping;
pub mod gptq;
pub mod grid;
pub mod hessian;
pub mod layerwise;
pub mod lora;
pub mod mask;
pub mod matrix;
pub mod plugin;
pub mod smoothquant;
pub mod sparsegpt;
pub mod units;

mod error;
mod sweep;

pub use error::KitError;
pub use matrix::Matrix;
