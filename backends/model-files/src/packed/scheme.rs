//! One layout of integer weights with its settings.

use super::matrix::IntegerMatrix;
use super::{awq, compressed_tensors, gptq, modelopt};
use crate::encoding::Encoding;
use crate::model::StoredTensor;

/// How the tensors of an integer weight are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// GPTQ's (AutoGPTQ, GPTQModel): codes packed along the inputs, transposed.
    Gptq,
    /// AWQ's `gemm`: 4-bit codes packed along the outputs in an interleaved order, transposed.
    Awq,
    /// compressed-tensors' `pack-quantized`: codes packed along the inputs.
    PackQuantized,
    /// compressed-tensors' `int-quantized`: one signed byte for each code.
    IntQuantized,
    /// Model Optimizer's `W4A16_AWQ`: signed 4-bit codes of two outputs in a byte.
    ModelOpt,
}

/// How a GPTQ checkpoint stores zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ZeroPoints {
    /// `gptq`: one less than the zero, modulo `2^bits`. What most tools read. A zero of 0, which only asymmetric grids
    /// have, wraps around, and some readers do not undo that.
    #[default]
    V1,
    /// `gptq_v2`: the zero itself.
    V2,
}

/// A floating-point type on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FloatType {
    /// Single precision.
    #[default]
    F32,
    /// Half precision.
    F16,
    /// bfloat16.
    BF16,
}

impl FloatType {
    /// How files say it.
    pub fn encoding(self) -> Encoding {
        match self {
            FloatType::F32 => Encoding::F32,
            FloatType::F16 => Encoding::F16,
            FloatType::BF16 => Encoding::BF16,
        }
    }

    /// The nearest value that this type has.
    pub fn round(self, value: f32) -> f32 {
        match self {
            FloatType::F32 => value,
            FloatType::F16 => half::f16::from_f32(value).to_f32(),
            FloatType::BF16 => half::bf16::from_f32(value).to_f32(),
        }
    }

    /// Appends values, little endian.
    pub fn write(self, values: impl IntoIterator<Item = f32>, bytes: &mut Vec<u8>) {
        match self {
            FloatType::F32 => bytes.extend(values.into_iter().flat_map(f32::to_le_bytes)),
            FloatType::F16 => {
                bytes.extend(values.into_iter().flat_map(|v| half::f16::from_f32(v).to_le_bytes()))
            }
            FloatType::BF16 => {
                bytes.extend(values.into_iter().flat_map(|v| half::bf16::from_f32(v).to_le_bytes()))
            }
        }
    }
}

/// A layout with the settings that all integer weights of a checkpoint share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheme {
    /// The layout.
    pub layout: Layout,
    /// Bits per code.
    pub bits: u32,
    /// Columns that share a scale; `None` is the whole row.
    pub group_size: Option<usize>,
    /// Whether all zeros are the middle code.
    pub symmetric: bool,
    /// Whether one scale serves the whole matrix (compressed-tensors' strategy `tensor`).
    pub per_tensor: bool,
    /// Whether groups may be out of the order of the columns (GPTQ's `desc_act`).
    pub act_order: bool,
    /// How zeros are stored, in GPTQ's layout.
    pub zero_points: ZeroPoints,
    /// The type of scales.
    pub scales: FloatType,
}

/// A tensor of an integer weight: `model.layers.0.mlp.up_proj.` + `suffix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The last part of its name.
    pub suffix: &'static str,
    /// Its type.
    pub encoding: Encoding,
    /// Its extents.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    pub(super) fn new(suffix: &'static str, encoding: Encoding, shape: &[usize]) -> Self {
        TensorSpec { suffix, encoding, shape: shape.to_vec() }
    }
}

/// Why a weight cannot be stored in a layout, or its tensors cannot be read as one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemeError(pub String);

pub(super) fn fail<T>(problem: impl Into<String>) -> Result<T, SchemeError> {
    Err(SchemeError(problem.into()))
}

impl Scheme {
    /// The name of the layout as configurations spell it.
    pub fn name(&self) -> &'static str {
        match self.layout {
            Layout::Gptq => "gptq",
            Layout::Awq => "awq",
            Layout::PackQuantized => "compressed-tensors pack-quantized",
            Layout::IntQuantized => "compressed-tensors int-quantized",
            Layout::ModelOpt => "modelopt W4A16_AWQ",
        }
    }

    /// In words: layout, bits, grid.
    pub fn describe(&self) -> String {
        let group = match (self.group_size, self.per_tensor) {
            (_, true) => "per tensor".to_owned(),
            (Some(size), _) => format!("groups of {size}"),
            (None, _) => "per output".to_owned(),
        };
        let kind = if self.symmetric { "symmetric" } else { "asymmetric" };
        let order = if self.act_order { ", activation order" } else { "" };
        format!("{} {}-bit, {group}, {kind}{order}", self.name(), self.bits)
    }

    pub(super) fn groups(&self, columns: usize) -> usize {
        self.group_size.map_or(1, |g| columns.div_ceil(g.max(1)))
    }

    /// Checks that a matrix can be stored so without a change of its values (but for scales, which are rounded).
    ///
    /// # Errors
    /// Says what stands against it.
    pub fn fits(&self, matrix: &IntegerMatrix) -> Result<(), SchemeError> {
        matrix.check().map_err(|e| SchemeError(e.to_string()))?;
        if matrix.bits != self.bits {
            return fail(format!("{} bits among weights of {}", matrix.bits, self.bits));
        }
        if matrix.group_size.unwrap_or(matrix.columns) != self.group_size.unwrap_or(matrix.columns) {
            return fail(format!(
                "groups of {:?} columns among weights with groups of {:?}",
                matrix.group_size, self.group_size
            ));
        }
        let whole = |z: &f32| z.fract() == 0.0 && (0.0..f32::from(1u16 << self.bits)).contains(z);
        if let Some(zero) = matrix.zeros.iter().find(|z| !whole(z)) {
            return fail(format!("the zero {zero} is no code of {} bits", self.bits));
        }
        if self.symmetric && matrix.zeros.iter().any(|z| *z != matrix.middle()) {
            return fail("an asymmetric grid among symmetric ones");
        }
        if matrix.group_index.is_some() && !self.act_order {
            return fail(format!(
                "groups are out of the order of the columns (activation order), which {} cannot express",
                self.name()
            ));
        }
        if self.per_tensor && matrix.scales.windows(2).any(|s| s[0] != s[1]) {
            return fail("several scales where one must serve the whole matrix");
        }
        if let Some(scale) = matrix.scales.iter().find(|s| !self.scales.round(**s).is_finite()) {
            return fail(format!("the scale {scale} is beyond {}", self.scales.encoding()));
        }
        self.fits_shape(matrix.rows, matrix.columns)
    }

    /// Checks that the layout can express a weight of this shape.
    ///
    /// # Errors
    /// Says what stands against it.
    pub fn fits_shape(&self, rows: usize, columns: usize) -> Result<(), SchemeError> {
        match self.layout {
            Layout::Gptq => gptq::fits_shape(self, rows, columns),
            Layout::Awq => awq::fits_shape(self, rows, columns),
            Layout::ModelOpt => modelopt::fits_shape(self, rows, columns),
            Layout::PackQuantized | Layout::IntQuantized => {
                compressed_tensors::fits_shape(self, rows, columns)
            }
        }
    }

    /// The tensors that a weight of this shape is stored as.
    pub fn tensors(&self, rows: usize, columns: usize) -> Vec<TensorSpec> {
        match self.layout {
            Layout::Gptq => gptq::tensors(self, rows, columns),
            Layout::Awq => awq::tensors(self, rows, columns),
            Layout::ModelOpt => modelopt::tensors(self, rows, columns),
            Layout::PackQuantized | Layout::IntQuantized => compressed_tensors::tensors(self, rows, columns),
        }
    }

    /// The bytes of [`tensors`](Self::tensors), in the same order.
    ///
    /// # Errors
    /// As [`fits`](Self::fits).
    pub fn encode(&self, matrix: &IntegerMatrix) -> Result<Vec<Vec<u8>>, SchemeError> {
        self.fits(matrix)?;
        Ok(match self.layout {
            Layout::Gptq => gptq::encode(self, matrix),
            Layout::Awq => awq::encode(self, matrix),
            Layout::ModelOpt => modelopt::encode(self, matrix),
            Layout::PackQuantized | Layout::IntQuantized => compressed_tensors::encode(self, matrix),
        })
    }

    /// Whether a linear with these tensors (asked for by the last part of their names) is stored in this layout.
    pub fn recognises(&self, has: impl Fn(&str) -> bool) -> bool {
        match self.layout {
            Layout::Gptq | Layout::Awq => has("qweight"),
            Layout::PackQuantized => has("weight_packed"),
            Layout::IntQuantized | Layout::ModelOpt => has("weight") && has("weight_scale"),
        }
    }

    /// Whether the tensor with this last part of its name holds the codes.
    pub(crate) fn holds_codes(&self, suffix: &str) -> bool {
        match self.layout {
            Layout::Gptq | Layout::Awq => suffix == "qweight",
            Layout::PackQuantized => suffix == "weight_packed",
            Layout::IntQuantized | Layout::ModelOpt => suffix == "weight",
        }
    }

    /// `[rows, columns]` of a weight, from the extents of its tensors alone.
    ///
    /// # Errors
    /// A tensor is missing or has extents that cannot be.
    pub fn shape(&self, parts: &Parts<'_>) -> Result<[usize; 2], SchemeError> {
        match self.layout {
            Layout::Gptq => gptq::shape(self, parts),
            Layout::Awq => awq::shape(parts),
            Layout::ModelOpt => modelopt::shape(parts),
            Layout::PackQuantized | Layout::IntQuantized => compressed_tensors::shape(self, parts),
        }
    }

    /// Reads a weight from its tensors.
    ///
    /// # Errors
    /// A tensor is missing, has other extents or another type than the layout and the others demand, or holds what cannot be.
    pub fn decode(&self, parts: &Parts<'_>) -> Result<IntegerMatrix, SchemeError> {
        let [rows, columns] = self.shape(parts)?;
        if rows == 0 || columns == 0 || rows.checked_mul(columns).is_none() {
            return fail(format!("its tensors make it a weight of [{rows}, {columns}]"));
        }
        let matrix = match self.layout {
            Layout::Gptq => gptq::decode(self, parts, rows, columns)?,
            Layout::Awq => awq::decode(self, parts, rows, columns)?,
            Layout::ModelOpt => modelopt::decode(self, parts, rows, columns)?,
            Layout::PackQuantized | Layout::IntQuantized => {
                compressed_tensors::decode(self, parts, rows, columns)?
            }
        };
        let mut matrix = matrix.without_plain_index();
        matrix.symmetric = matrix.zeros.iter().all(|z| *z == matrix.middle());
        matrix.check().map_err(|e| SchemeError(e.to_string()))?;
        Ok(matrix)
    }
}

/// The tensors of one linear, asked for by the last part of their names.
pub struct Parts<'a> {
    get: &'a dyn Fn(&str) -> Option<StoredTensor<'a>>,
}

impl<'a> Parts<'a> {
    pub(crate) fn new(get: &'a dyn Fn(&str) -> Option<StoredTensor<'a>>) -> Self {
        Parts { get }
    }

    pub(super) fn optional(&self, suffix: &str) -> Option<StoredTensor<'a>> {
        (self.get)(suffix)
    }

    pub(super) fn required(&self, suffix: &str) -> Result<StoredTensor<'a>, SchemeError> {
        self.optional(suffix).ok_or_else(|| SchemeError(format!("there is no tensor `{suffix}`")))
    }

    /// The two extents of a matrix.
    pub(super) fn extents(&self, suffix: &str) -> Result<[usize; 2], SchemeError> {
        let tensor = self.required(suffix)?;
        match tensor.shape.as_slice() {
            &[a, b] => Ok([a, b]),
            other => fail(format!("`{suffix}` has the extents {other:?}, two expected")),
        }
    }

    fn of_shape(
        &self,
        suffix: &str,
        encoding: &[Encoding],
        shape: &[usize],
    ) -> Result<&'a [u8], SchemeError> {
        let tensor = self.required(suffix)?;
        if !encoding.contains(&tensor.encoding) {
            return fail(format!("`{suffix}` is stored as {}, {} expected", tensor.encoding, encoding[0]));
        }
        if tensor.shape != shape {
            return fail(format!("`{suffix}` has the extents {:?}, {shape:?} expected", tensor.shape));
        }
        Ok(tensor.bytes)
    }

    pub(super) fn words(&self, suffix: &str, shape: &[usize]) -> Result<Vec<u32>, SchemeError> {
        let bytes = self.of_shape(suffix, &[Encoding::I32], shape)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect())
    }

    pub(super) fn unsigned(&self, suffix: &str, shape: &[usize]) -> Result<&'a [u8], SchemeError> {
        self.of_shape(suffix, &[Encoding::U8], shape)
    }

    pub(super) fn bytes(&self, suffix: &str, shape: &[usize]) -> Result<&'a [u8], SchemeError> {
        self.of_shape(suffix, &[Encoding::I8], shape)
    }

    pub(super) fn floats(&self, suffix: &str, shape: &[usize]) -> Result<Vec<f32>, SchemeError> {
        let bytes = self.of_shape(suffix, &[Encoding::F16, Encoding::BF16, Encoding::F32], shape)?;
        let tensor = self.required(suffix)?;
        Ok(match tensor.encoding {
            Encoding::F16 => {
                bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
            }
            Encoding::BF16 => {
                bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()
            }
            _ => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        })
    }

    /// Group of each column, where the file says; an index beyond the groups is refused.
    pub(super) fn group_index(
        &self,
        suffix: &str,
        columns: usize,
        groups: usize,
    ) -> Result<Option<Vec<u32>>, SchemeError> {
        if self.optional(suffix).is_none() {
            return Ok(None);
        }
        let index = self.words(suffix, &[columns])?;
        match index.iter().find(|g| **g as usize >= groups) {
            Some(g) => fail(format!("`{suffix}` names group {}, but there are {groups}", *g as i32)),
            None => Ok(Some(index)),
        }
    }
}

pub(super) fn words_to_bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// Transposes a row-major `[rows, columns]` matrix.
pub(super) fn transposed<T: Copy>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    for column in 0..columns {
        for row in 0..rows {
            out.push(values[row * columns + column]);
        }
    }
    out
}
