//! From stored tensors to `f32`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use llmcb_model_files::packed::IntegerMatrix;
use llmcb_model_files::{Encoding, GgmlType, ModelFiles, StoredTensor};
use rayon::prelude::*;

use crate::{ActivationQuantization, Architecture, Error, Result};

/// Where a model's tensors come from.
pub trait TensorSource: Send + Sync {
    /// Whether there is a tensor of this Hugging Face name.
    fn contains(&self, name: &str) -> bool;

    /// The shape of a tensor, row-major: `[out, in]` for a linear.
    ///
    /// # Errors
    /// If there is no such tensor or it cannot be read.
    fn shape(&self, name: &str) -> Result<Vec<usize>>;

    /// The values of a tensor as `f32`, row-major.
    ///
    /// # Errors
    /// If there is no such tensor or it cannot be decoded.
    fn load(&self, name: &str) -> Result<Vec<f32>>;

    /// Some rows of a matrix, in the order given, `[rows, columns]`.
    ///
    /// # Errors
    /// As [`load`](Self::load); [`Error::Tensor`] if it has no such row.
    fn load_rows(&self, name: &str, rows: &[u32]) -> Result<Vec<f32>> {
        let shape = self.shape(name)?;
        let columns = shape.last().copied().unwrap_or_default();
        check_rows(name, &shape, rows)?;
        let all = self.load(name)?;
        Ok(rows.iter().flat_map(|&row| &all[row as usize * columns..][..columns]).copied().collect())
    }

    /// The weight of a linear (`model.layers.0.mlp.up_proj`) that is kept as integer codes; `None` for others.
    ///
    /// # Errors
    /// If its codes cannot be read.
    fn integers(&self, linear: &str) -> Result<Option<IntegerMatrix>> {
        let _ = linear;
        Ok(None)
    }

    /// How the inputs of a linear are rounded, where the files say so for such linears and not the configuration for each block.
    ///
    /// # Errors
    /// A way of rounding that is not implemented.
    fn input_rounding(&self, linear: &str) -> Result<Option<ActivationQuantization>> {
        let _ = linear;
        Ok(None)
    }
}

/// Tensors in memory: for models made in tests and by programs.
#[derive(Debug, Clone, Default)]
pub struct MemorySource {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl MemorySource {
    /// Adds a tensor, in place of one of the same name.
    ///
    /// # Errors
    /// If the number of values does not fit the shape.
    pub fn insert(&mut self, name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) -> Result<()> {
        let name = name.into();
        if shape.iter().product::<usize>() != values.len() {
            return Err(Error::argument(
                format!("tensor `{name}`"),
                format!("{} values do not fill the shape {shape:?}", values.len()),
            ));
        }
        self.tensors.insert(name, (shape, values));
        Ok(())
    }

    fn get(&self, name: &str) -> Result<&(Vec<usize>, Vec<f32>)> {
        self.tensors.get(name).ok_or_else(|| Error::MissingTensor {
            model: "model in memory".to_owned(),
            tensor: name.to_owned(),
        })
    }
}

impl TensorSource for MemorySource {
    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.get(name)?.0.clone())
    }

    fn load(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.get(name)?.1.clone())
    }

    fn load_rows(&self, name: &str, rows: &[u32]) -> Result<Vec<f32>> {
        let (shape, values) = self.get(name)?;
        check_rows(name, shape, rows)?;
        let columns = shape.last().copied().unwrap_or_default();
        Ok(rows.iter().flat_map(|&row| &values[row as usize * columns..][..columns]).copied().collect())
    }
}

fn check_rows(name: &str, shape: &[usize], rows: &[u32]) -> Result<()> {
    let count = shape.first().copied().unwrap_or_default();
    match rows.iter().find(|&&row| row as usize >= count) {
        None => Ok(()),
        Some(beyond) => Err(Error::Tensor {
            model: "weights".to_owned(),
            tensor: name.to_owned(),
            problem: format!("there is no row {beyond}; it has {count}"),
        }),
    }
}

/// Tensors whose names begin in another way in the files than in the family's own.
pub(crate) struct Aliased {
    source: Arc<dyn TensorSource>,
    ours: &'static str,
    theirs: &'static str,
}

impl Aliased {
    /// `source` under the family's own names, whichever of its spellings the files have.
    pub(crate) fn over(source: Arc<dyn TensorSource>, architecture: &Architecture) -> Arc<dyn TensorSource> {
        let names = architecture.family.names;
        if source.contains(names.embedding) {
            return source;
        }
        let used = names.aliases.iter().find(|(ours, theirs)| {
            let rest = names.embedding.strip_prefix(ours);
            rest.is_some_and(|rest| source.contains(&format!("{theirs}{rest}")))
        });
        match used {
            Some(&(ours, theirs)) => Arc::new(Self { source, ours, theirs }),
            None => source,
        }
    }

    fn theirs<'a>(&self, name: &'a str) -> Cow<'a, str> {
        match name.strip_prefix(self.ours) {
            Some(rest) => Cow::Owned(format!("{}{rest}", self.theirs)),
            None => Cow::Borrowed(name),
        }
    }
}

impl TensorSource for Aliased {
    fn contains(&self, name: &str) -> bool {
        self.source.contains(&self.theirs(name))
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        self.source.shape(&self.theirs(name))
    }

    fn load(&self, name: &str) -> Result<Vec<f32>> {
        self.source.load(&self.theirs(name))
    }

    fn load_rows(&self, name: &str, rows: &[u32]) -> Result<Vec<f32>> {
        self.source.load_rows(&self.theirs(name), rows)
    }

    fn integers(&self, linear: &str) -> Result<Option<IntegerMatrix>> {
        self.source.integers(&self.theirs(linear))
    }

    fn input_rounding(&self, linear: &str) -> Result<Option<ActivationQuantization>> {
        self.source.input_rounding(&self.theirs(linear))
    }
}

/// A linear whose weight has this name.
fn linear_of(weight: &str) -> Option<&str> {
    weight.strip_suffix(".weight")
}

/// Weights that are stored as integer codes or without their zeros are there like any other: with their shape, and their values.
impl TensorSource for ModelFiles {
    fn contains(&self, name: &str) -> bool {
        let packed = linear_of(name).is_some_and(|linear| {
            !matches!((self.integer_shape(linear), self.sparse_shape(linear)), (Ok(None), Ok(None)))
        });
        packed || ModelFiles::contains(self, name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        if let Some(linear) = linear_of(name) {
            let known = match self.integer_shape(linear)? {
                Some(shape) => Some(shape),
                None => self.sparse_shape(linear)?,
            };
            if let Some(shape) = known {
                return Ok(shape.to_vec());
            }
        }
        Ok(self.tensor(name)?.shape)
    }

    fn load(&self, name: &str) -> Result<Vec<f32>> {
        if let Some(linear) = linear_of(name) {
            if let Some(codes) = ModelFiles::integers(self, linear)? {
                return Ok(codes.dequantize());
            }
            if let Some(values) = self.sparse(linear)? {
                return Ok(values);
            }
        }
        let values = decode(&self.tensor(name)?);
        self.release(name);
        values
    }

    /// Decodes only those rows: an embedding may be larger than all that is needed of it.
    fn load_rows(&self, name: &str, rows: &[u32]) -> Result<Vec<f32>> {
        let stored = self.tensor(name)?;
        let columns = stored.shape.last().copied().unwrap_or_default();
        check_rows(name, &stored.shape, rows)?;
        let bytes = stored.encoding.byte_len(columns).filter(|_| stored.rope_interleaved_heads.is_none());
        let Some(bytes) = bytes else {
            let all = decode(&stored)?;
            return Ok(rows
                .iter()
                .flat_map(|&row| &all[row as usize * columns..][..columns])
                .copied()
                .collect());
        };
        let row = |&row: &u32| {
            let bytes = &stored.bytes[row as usize * bytes..][..bytes];
            decode(&StoredTensor { shape: vec![columns], bytes, ..stored.clone() })
        };
        let found = rows.par_iter().with_min_len(64).map(row).collect::<Result<Vec<_>>>()?;
        Ok(found.concat())
    }

    fn integers(&self, linear: &str) -> Result<Option<IntegerMatrix>> {
        Ok(ModelFiles::integers(self, linear)?)
    }

    fn input_rounding(&self, linear: &str) -> Result<Option<ActivationQuantization>> {
        let given = self.quantization().and_then(|q| q.input_activations(linear));
        let Some(inputs) = given.filter(|_| !matches!(self.integer_shape(linear), Ok(None))) else {
            return Ok(None);
        };
        // Running such a linear on inputs as they are would score another model than the checkpoint is.
        if !(inputs.dynamic && inputs.per_token) {
            return Err(Error::Config {
                model: "weights".to_owned(),
                problem: format!(
                    "the inputs of `{linear}` are quantised {}, which is not supported",
                    if inputs.dynamic { "with a range for all tokens at once" } else { "with stored ranges" }
                ),
                remedy: "use a checkpoint that quantises inputs per token while it runs (W8A8 dynamic), or weights only"
                    .to_owned(),
            });
        }
        Ok(Some(ActivationQuantization {
            bits: inputs.bits,
            symmetric: inputs.symmetric,
            range: None,
            full_range: true,
        }))
    }
}

/// Decodes a stored tensor to `f32` in Hugging Face's order of rows.
///
/// # Errors
/// [`Error::Tensor`] when the bytes cannot be decoded.
pub fn decode(stored: &StoredTensor<'_>) -> Result<Vec<f32>> {
    let wrong =
        |problem: String| Error::Tensor { model: "weights".to_owned(), tensor: stored.name.clone(), problem };
    let values = match stored.encoding {
        Encoding::F32 => stored.bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Encoding::F16 => {
            stored.bytes.as_chunks::<2>().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect()
        }
        Encoding::BF16 => {
            stored.bytes.as_chunks::<2>().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect()
        }
        Encoding::Ggml(kind) => quantised(stored, kind).map_err(|e| wrong(e.to_string()))?,
        Encoding::U8 | Encoding::I8 | Encoding::I32 | Encoding::I64 => {
            return Err(wrong(format!(
                "it is stored as {}, which stands for a weight only with a `quantization_config` that says how",
                stored.encoding
            )));
        }
    };
    let elements = stored.shape.iter().product::<usize>();
    if values.len() != elements {
        return Err(wrong(format!("{} values for the shape {:?}", values.len(), stored.shape)));
    }
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        return Err(wrong(format!("value {at} is {}", values[at])));
    }
    match stored.rope_interleaved_heads {
        None => Ok(values),
        Some(heads) => {
            let rows = stored.shape.first().copied().unwrap_or(0);
            if heads == 0 || !rows.is_multiple_of(2 * heads) {
                return Err(wrong(format!("{rows} rows are not {heads} heads of even width")));
            }
            Ok(undo_interleaving(&values, rows, elements / rows.max(1), heads))
        }
    }
}

fn quantised(stored: &StoredTensor<'_>, kind: GgmlType) -> candle_core::Result<Vec<f32>> {
    let dtype = match kind {
        GgmlType::Q4_0 => GgmlDType::Q4_0,
        GgmlType::Q4_1 => GgmlDType::Q4_1,
        GgmlType::Q5_0 => GgmlDType::Q5_0,
        GgmlType::Q5_1 => GgmlDType::Q5_1,
        GgmlType::Q8_0 => GgmlDType::Q8_0,
        GgmlType::Q8_1 => return Ok(q8_1(stored.bytes)),
        GgmlType::Q2K => GgmlDType::Q2K,
        GgmlType::Q3K => GgmlDType::Q3K,
        GgmlType::Q4K => GgmlDType::Q4K,
        GgmlType::Q5K => GgmlDType::Q5K,
        GgmlType::Q6K => GgmlDType::Q6K,
        GgmlType::Q8K => GgmlDType::Q8K,
        other => candle_core::bail!("no decoder for {}", other.name()),
    };
    if !stored.bytes.len().is_multiple_of(dtype.type_size()) {
        candle_core::bail!("{} bytes are no whole number of {} blocks", stored.bytes.len(), kind.name());
    }
    // candle reads blocks in place and insists on their alignment, which a file need not give.
    const ALIGNMENT: usize = 8;
    let mut copy = Vec::new();
    let bytes = if stored.bytes.as_ptr().align_offset(ALIGNMENT) == 0 {
        stored.bytes
    } else {
        copy.resize(stored.bytes.len() + ALIGNMENT, 0u8);
        let offset = copy.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let aligned = &mut copy[offset..][..stored.bytes.len()];
        aligned.copy_from_slice(stored.bytes);
        aligned
    };
    let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, dtype)?;
    let tensor = QTensor::new(storage, stored.shape.as_slice())?;
    tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1()
}

/// Q8_1, which candle only multiplies: per 32 values a scale, a sum that is not needed here, and 32 signed bytes.
fn q8_1(bytes: &[u8]) -> Vec<f32> {
    let mut values = Vec::with_capacity(bytes.len() / 36 * 32);
    for block in bytes.as_chunks::<36>().0 {
        let scale = half::f16::from_le_bytes([block[0], block[1]]).to_f32();
        values.extend(block[4..].iter().map(|&q| scale * f32::from(q as i8)));
    }
    values
}

/// Undoes llama.cpp's order of query and key rows: stored row `2 i + j` of a head is row `j * half + i` (`j` in 0, 1).
fn undo_interleaving(values: &[f32], rows: usize, width: usize, heads: usize) -> Vec<f32> {
    let head_dim = rows / heads;
    let half = head_dim / 2;
    let mut out = vec![0f32; values.len()];
    for head in 0..heads {
        for i in 0..half {
            for j in 0..2 {
                let from = (head * head_dim + 2 * i + j) * width;
                let to = (head * head_dim + j * half + i) * width;
                out[to..to + width].copy_from_slice(&values[from..from + width]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Tensor;

    fn stored<'a>(
        encoding: Encoding,
        shape: &[usize],
        bytes: &'a [u8],
        heads: Option<usize>,
    ) -> StoredTensor<'a> {
        StoredTensor {
            name: "w".to_owned(),
            shape: shape.to_vec(),
            encoding,
            bytes,
            rope_interleaved_heads: heads,
        }
    }

    #[test]
    fn half_precision_decodes_exactly() {
        let values = [1.5f32, -2.0, 0.25, 3.0];
        let f16: Vec<u8> = values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
        let bf16: Vec<u8> = values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect();
        let f32: Vec<u8> = values.iter().flat_map(|&v| v.to_le_bytes()).collect();
        for (encoding, bytes) in [(Encoding::F16, &f16), (Encoding::BF16, &bf16), (Encoding::F32, &f32)] {
            assert_eq!(decode(&stored(encoding, &[2, 2], bytes, None)).unwrap(), values);
        }
    }

    #[test]
    fn every_ggml_type_decodes_near_what_was_encoded() {
        let values: Vec<f32> = (0..512).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let tensor = Tensor::from_vec(values.clone(), (2, 256), &Device::Cpu).unwrap();
        for (kind, dtype, error) in [
            (GgmlType::Q4_0, GgmlDType::Q4_0, 0.15),
            (GgmlType::Q4_1, GgmlDType::Q4_1, 0.08),
            (GgmlType::Q5_0, GgmlDType::Q5_0, 0.08),
            (GgmlType::Q5_1, GgmlDType::Q5_1, 0.04),
            (GgmlType::Q8_0, GgmlDType::Q8_0, 0.01),
            (GgmlType::Q8_1, GgmlDType::Q8_1, 0.01),
            (GgmlType::Q2K, GgmlDType::Q2K, 0.4),
            (GgmlType::Q3K, GgmlDType::Q3K, 0.3),
            (GgmlType::Q4K, GgmlDType::Q4K, 0.1),
            (GgmlType::Q5K, GgmlDType::Q5K, 0.06),
            (GgmlType::Q6K, GgmlDType::Q6K, 0.05),
            (GgmlType::Q8K, GgmlDType::Q8K, 0.01),
        ] {
            let encoded = QTensor::quantize(&tensor, dtype).unwrap();
            let bytes = encoded.data().unwrap().into_owned();
            let got = decode(&stored(Encoding::Ggml(kind), &[2, 256], &bytes, None)).unwrap();
            let shifted = [&[0u8][..], &bytes].concat();
            let unaligned = decode(&stored(Encoding::Ggml(kind), &[2, 256], &shifted[1..], None)).unwrap();
            assert_eq!(got, unaligned);
            assert!(decode(&stored(Encoding::Ggml(kind), &[2, 256], &bytes[1..], None)).is_err());
            let worst = got.iter().zip(&values).map(|(g, v)| (g - v).abs()).fold(0.0, f32::max);
            assert!(worst < error, "{}: {worst}", kind.name());
        }
    }

    #[test]
    fn interleaved_rows_come_back_in_order() {
        // Two heads of width 4: stored 0 2 1 3 is rows 0 1 2 3 of Hugging Face.
        let order = [0f32, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        let bytes: Vec<u8> = order.iter().flat_map(|&v| [v, v + 0.5]).flat_map(f32::to_le_bytes).collect();
        let got = decode(&stored(Encoding::F32, &[8, 2], &bytes, Some(2))).unwrap();
        let want: Vec<f32> = (0..8).flat_map(|r| [r as f32, r as f32 + 0.5]).collect();
        assert_eq!(got, want);
        assert!(decode(&stored(Encoding::F32, &[8, 2], &bytes, Some(3))).is_err());
        assert!(decode(&stored(Encoding::F32, &[8, 2], &bytes, Some(0))).is_err());
    }

    #[test]
    fn a_tensor_in_memory_must_fill_its_shape() {
        assert!(MemorySource::default().insert("w", vec![2, 3], vec![0.0; 5]).is_err());
        assert!(MemorySource::default().load("w").unwrap_err().to_string().contains("`w`"));
    }
}
