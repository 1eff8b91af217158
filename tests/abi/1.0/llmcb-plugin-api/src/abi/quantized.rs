//! Quantised weights: packed integer codes with their grids.

use abi_stable::StableAbi;
use abi_stable::std_types::ROption;

use super::tensor::AbiTensor;

/// A weight matrix `[rows, columns]` (output, input features) stored as integers on a grid:
/// `w = scale * (code - zero)`, with one scale and zero for each row and group of columns.
#[repr(C)]
#[derive(StableAbi)]
pub struct AbiQuantizedWeight {
    /// Output features.
    pub rows: u64,
    /// Input features.
    pub columns: u64,
    /// Bits per code, 1 to 8.
    pub bits: u32,
    /// Axis along which groups lie; 1: along the input features.
    pub axis: u32,
    /// Columns per group; the last one may be shorter. -1: the whole row.
    pub group_size: i64,
    /// 1 when the grid is symmetric around the middle code, else 0.
    pub symmetric: u32,
    /// How codes are packed; 0: each row is a little-endian bit stream, least significant bit first, padded to a
    /// whole number of `u32` words.
    pub packing: u32,
    /// Packed codes, `u32`, `[rows, words]`.
    pub codes: AbiTensor,
    /// `f32`, `[rows, groups]`.
    pub scales: AbiTensor,
    /// `f32`, `[rows, groups]`.
    pub zeros: AbiTensor,
    /// `i32`, `[columns]`: group of each column; absent: column / group_size.
    pub group_index: ROption<AbiTensor>,
}
