//! Numeric kernels on plain `f32` slices: packed matrix products and the element-wise steps of a block.
//!
//! Everything unsafe of this crate is here. Two promises hold for all kernels, and the rest of the crate builds on them:
//!
//! 1. *A row's result depends on that row alone.* Every output element is one chain of fused multiply-adds in the order of
//!    the inner dimension, whatever the number of rows, the blocking, or the number of threads. That is why scores are the same to
//!    the last bit however requests are batched, ordered, or share prefixes.
//! 2. *One build runs everywhere.* The release build targets the baseline instruction set; the kernels are compiled
//!    again for AVX2 + FMA (and AVX-512 for the products) and picked when the program starts.
#![allow(unsafe_code)]

mod buffer;
mod elementwise;
mod gram;
mod halves;
mod integers;
mod matmul;
mod panels;
mod vector;

pub use elementwise::{
    RowStatistics, add_assign, layer_norm_rows, relu, rms_norm_rows, row_statistics, silu_multiply,
    softmax_columns,
};
pub use gram::GramSum;
pub use halves::{HalfFormat, PackedHalves};
pub use integers::PackedIntegers;
pub use matmul::{INNER_BLOCK, PANEL, PackedMatrix, Start, Strided, multiply_strided};
pub use panels::{Panels, Product};

/// The instruction set the kernels run on, found once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstructionSet {
    /// What the compiler targets.
    Baseline,
    /// AVX2 with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 foundation, beside AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The best instruction set of this machine.
pub(crate) fn instruction_set() -> InstructionSet {
    #[cfg(target_arch = "x86_64")]
    {
        use std::sync::OnceLock;
        static SET: OnceLock<InstructionSet> = OnceLock::new();
        *SET.get_or_init(|| {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                if is_x86_feature_detected!("avx512f") {
                    InstructionSet::Avx512
                } else {
                    InstructionSet::Avx2
                }
            } else {
                InstructionSet::Baseline
            }
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        InstructionSet::Baseline
    }
}

/// The name of the instruction set in use, for logs and benchmark results.
pub fn instruction_set_name() -> &'static str {
    match instruction_set() {
        InstructionSet::Baseline => "baseline",
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => "avx2+fma",
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => "avx512f",
    }
}
