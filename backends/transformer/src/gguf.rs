//! Writing a model as one GGUF, which llama.cpp loads.
//!
//! Linears of the blocks are stored in the type asked for, norms and biases in single precision, embedding and head as numbers.
//! Query and key rows of architecture `llama` are put into the order of interleaved rotary pairs that llama.cpp expects there.

use std::path::Path;

use llmcb_model_files::gguf::{GgufTensor, GgufWriter, MetadataValue as M, blocks, gguf_name};
use llmcb_model_files::packed::{FloatType, IntegerMatrix};
use llmcb_model_files::{Encoding, GgmlType};

use crate::architecture::{RopeScaling, Rotary};
use crate::block::{Block, StoredLinear};
use crate::checkpoint::common_shape;
use crate::families::GgufFamily;
use crate::formats::BlockStore;
use crate::layout::{OuterTensor, Role};
use crate::{Architecture, Error, Model, Result, StorageType};

/// Name of the file in a checkpoint's directory.
pub const GGUF_FILE: &str = "model.gguf";

/// The type that linears of blocks are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufType {
    /// Single precision.
    F32,
    /// bfloat16.
    BF16,
    /// Half precision.
    F16,
    /// 8 bits, one scale for 32 values.
    Q8_0,
    /// 4 bits, scale and minimum for 32 values.
    Q4_1,
    /// 4 bits, one scale for 32 values.
    Q4_0,
}

impl GgufType {
    /// All types.
    pub const ALL: [GgufType; 6] =
        [GgufType::F32, GgufType::BF16, GgufType::F16, GgufType::Q8_0, GgufType::Q4_1, GgufType::Q4_0];

    /// The smallest type that holds the weights of all linears as they are stored: integer codes as codes (whose grids may be rounded), numbers
    /// in the type that they have, `numbers`. Where no type holds the codes, that of the numbers.
    ///
    /// # Errors
    /// If a block cannot be read.
    pub fn holding(blocks: &dyn BlockStore, numbers: FloatType) -> Result<GgufType> {
        let mut candidates = vec![GgufType::Q4_0, GgufType::Q4_1, GgufType::Q8_0];
        for index in 0..blocks.count() {
            for linear in blocks.block(index)?.linears() {
                let codes = linear.integers();
                candidates.retain(|kind| match (kind.encoding(), &codes) {
                    (Encoding::Ggml(ggml), Some(codes)) => blocks::convert(ggml, codes).is_ok(),
                    _ => false,
                });
                if candidates.is_empty() {
                    return Ok(Self::of_numbers(numbers));
                }
            }
        }
        Ok(candidates.first().copied().unwrap_or(Self::of_numbers(numbers)))
    }

    fn of_numbers(numbers: FloatType) -> GgufType {
        match numbers {
            FloatType::F32 => GgufType::F32,
            FloatType::F16 => GgufType::F16,
            FloatType::BF16 => GgufType::BF16,
        }
    }

    /// The type of its numbers, where it holds numbers and not blocks of codes.
    pub fn float(self) -> Option<FloatType> {
        match self {
            GgufType::F32 => Some(FloatType::F32),
            GgufType::F16 => Some(FloatType::F16),
            GgufType::BF16 => Some(FloatType::BF16),
            GgufType::Q8_0 | GgufType::Q4_1 | GgufType::Q4_0 => None,
        }
    }

    /// As options spell it.
    pub fn name(self) -> &'static str {
        match self {
            GgufType::F32 => "f32",
            GgufType::BF16 => "bf16",
            GgufType::F16 => "f16",
            GgufType::Q8_0 => "q8_0",
            GgufType::Q4_1 => "q4_1",
            GgufType::Q4_0 => "q4_0",
        }
    }

    fn encoding(self) -> Encoding {
        match self {
            GgufType::F32 => Encoding::F32,
            GgufType::BF16 => Encoding::BF16,
            GgufType::F16 => Encoding::F16,
            GgufType::Q8_0 => Encoding::Ggml(GgmlType::Q8_0),
            GgufType::Q4_1 => Encoding::Ggml(GgmlType::Q4_1),
            GgufType::Q4_0 => Encoding::Ggml(GgmlType::Q4_0),
        }
    }

    /// llama.cpp's number of a file whose weights are mostly of this type.
    fn file_type(self) -> u32 {
        match self {
            GgufType::F32 => 0,
            GgufType::BF16 => 32,
            GgufType::F16 => 1,
            GgufType::Q4_0 => 2,
            GgufType::Q4_1 => 3,
            GgufType::Q8_0 => 7,
        }
    }
}

/// What became of the weights of linears.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GgufSummary {
    /// Linears whose stored values are exactly what they were.
    pub exact: usize,
    /// Linears whose codes are what they were, with scales or minima rounded to half precision; or whose numbers were rounded to the type.
    pub rounded: usize,
    /// Linears whose values were quantised anew.
    pub requantised: usize,
    /// Why integer codes could not be kept, the first reason that was met.
    pub reason: Option<String>,
}

impl GgufSummary {
    /// All linears.
    pub fn linears(&self) -> usize {
        self.exact + self.rounded + self.requantised
    }
}

/// Writes `model.gguf` into an existing directory: the model with `blocks` in place of its own (all, in order). `outside` is the type of embedding
/// and head.
///
/// # Errors
/// [`Error::Argument`] if the architecture, or the shape of a linear, has no place in such a file; if the tokenizer has no counterpart; or if the
/// file cannot be written.
pub fn write_gguf(
    directory: &Path,
    model: &Model,
    blocks: &dyn BlockStore,
    kind: GgufType,
    outside: StorageType,
) -> Result<GgufSummary> {
    let Some(family) = model.architecture().family.gguf else {
        return Err(Error::argument(
            format!("format `gguf:{}`", kind.name()),
            format!(
                "models of type `{}` cannot be stored in it here; choose `dense` or another format",
                model.architecture().model_type
            ),
        ));
    };
    let Some(shape) = common_shape(&blocks.shapes()?) else {
        return Err(Error::argument(
            format!("format `gguf:{}`", kind.name()),
            "blocks differ in their numbers of heads or channels, for which such a file has no words; choose `dense`",
        ));
    };
    let config = &model.architecture().with_shape(shape);
    let names = config.family.names;
    let outer: Vec<(OuterTensor, String, Vec<usize>)> = OuterTensor::of(config).collect();
    let plan_outer = |(tensor, name, shape): &(OuterTensor, String, Vec<usize>)| {
        let encoding = match tensor {
            OuterTensor::FinalNorm => Encoding::F32,
            _ => outside.float().encoding(),
        };
        plan(name, shape, encoding)
    };
    let mut tensors = outer.iter().take(1).map(plan_outer).collect::<Result<Vec<_>>>()?;
    let rope_factors = rope_factors(config);
    let blank = Block::blank(config.clone());
    for index in 0..blocks.count() {
        for name in blank.tensor_names() {
            let owner = name.strip_suffix(".weight").and_then(|owner| names.linear(owner));
            let full = names.in_block(index, &name);
            tensors.push(match owner {
                Some(linear) => {
                    let (outputs, inputs) = linear.shape(config);
                    let shape = [outputs, inputs];
                    if kind.float().is_none() && !shape[1].is_multiple_of(blocks::BLOCK) {
                        return Err(Error::argument(
                            format!("format `gguf:{}`", kind.name()),
                            format!(
                                "{full} has {} inputs, no multiple of {}; choose gguf:f16",
                                shape[1],
                                blocks::BLOCK
                            ),
                        ));
                    }
                    plan(&full, &shape, kind.encoding())?
                }
                None => plan(&full, &[blank.tensor_len(&name)?], Encoding::F32)?,
            });
        }
    }
    for after in outer.iter().skip(1) {
        tensors.push(plan_outer(after)?);
    }
    if let Some(factors) = &rope_factors {
        let (name, shape) = ("rope_freqs.weight".to_owned(), vec![factors.len()]);
        tensors.push(GgufTensor { name, shape, encoding: Encoding::F32 });
    }
    let path = directory.join(GGUF_FILE);
    let mut writer = GgufWriter::create(&path, &metadata(model, config, family, kind)?, &tensors)?;
    let mut at = 0..;
    let mut put = |bytes: Vec<u8>| -> Result<()> {
        let index = at.next().unwrap_or(usize::MAX);
        Ok(writer.write(index, &bytes)?)
    };
    let outer_bytes = |(tensor, name, _): &(OuterTensor, String, Vec<usize>)| -> Result<Vec<u8>> {
        let float = if *tensor == OuterTensor::FinalNorm { FloatType::F32 } else { outside.float() };
        floats(&model.outer(*tensor)?.unwrap_or_default(), float, name)
    };
    for before in outer.iter().take(1) {
        put(outer_bytes(before)?)?;
    }
    let mut summary = GgufSummary::default();
    for index in 0..blocks.count() {
        let block = blocks.block(index)?;
        for name in block.tensor_names() {
            let (owner, is_weight) = match name.rsplit_once('.') {
                Some((owner, kind)) => (owner, kind == "weight"),
                None => (name.as_str(), false),
            };
            let roles = names.linear(owner).map_or(&[][..], |linear| linear.roles);
            let heads = match roles {
                _ if !family.interleaved => None,
                [Role::Query] => Some(config.num_attention_heads),
                [Role::Key] => Some(config.num_key_value_heads),
                _ => None,
            };
            let order = |rows: usize| heads.map(|heads| interleaved(rows, heads));
            let full = names.in_block(index, &name);
            match block.linear(owner).ok().filter(|_| is_weight) {
                Some(linear) => {
                    let order = order(linear.outputs());
                    put(weight(linear, kind, order.as_deref(), &full, &mut summary)?)?;
                }
                None => {
                    let values = block.tensor(&name)?;
                    let values = match order(values.len()) {
                        Some(order) => rows_in_order(&values, &order),
                        None => values,
                    };
                    put(floats(&values, FloatType::F32, &full)?)?;
                }
            }
        }
    }
    for after in outer.iter().skip(1) {
        put(outer_bytes(after)?)?;
    }
    if let Some(factors) = &rope_factors {
        put(floats(factors, FloatType::F32, "rope_freqs.weight")?)?;
    }
    writer.finish()?;
    Ok(summary)
}

fn plan(name: &str, shape: &[usize], encoding: Encoding) -> Result<GgufTensor> {
    let known = gguf_name(name);
    let name =
        known.ok_or_else(|| Error::argument(format!("tensor `{name}`"), "a GGUF has no place for it"))?;
    Ok(GgufTensor { name, shape: shape.to_vec(), encoding })
}

/// For each row of the file, which of ours it is: stored row `2 i + j` of a head is row `j * half + i`.
fn interleaved(rows: usize, heads: usize) -> Vec<usize> {
    let width = rows / heads.max(1);
    (0..rows)
        .map(|stored| {
            let (head, at) = (stored / width, stored % width);
            head * width + at % 2 * (width / 2) + at / 2
        })
        .collect()
}

/// Rows of a row-major matrix in another order.
fn rows_in_order<T: Copy>(values: &[T], order: &[usize]) -> Vec<T> {
    let width = values.len() / order.len().max(1);
    order.iter().flat_map(|row| values[row * width..][..width].iter().copied()).collect()
}

fn floats(values: &[f32], kind: FloatType, name: &str) -> Result<Vec<u8>> {
    if let Some(v) = values.iter().find(|v| !kind.round(**v).is_finite()) {
        return Err(Error::argument(
            format!("tensor `{name}`"),
            format!("the value {v} is beyond {}; choose another type", kind.encoding()),
        ));
    }
    let mut bytes = Vec::new();
    kind.write(values.iter().copied(), &mut bytes);
    Ok(bytes)
}

/// The bytes of a linear's weight, its rows in another order if need be.
fn weight(
    linear: StoredLinear<'_>,
    kind: GgufType,
    order: Option<&[usize]>,
    name: &str,
    summary: &mut GgufSummary,
) -> Result<Vec<u8>> {
    let numbers = || {
        let values = linear.weight();
        order.map_or(values.clone(), |order| rows_in_order(&values, order))
    };
    if let Some(float) = kind.float() {
        let values = numbers();
        let exact = values.iter().all(|v| float.round(*v) == *v);
        *(if exact { &mut summary.exact } else { &mut summary.rounded }) += 1;
        return floats(&values, float, name);
    }
    let Encoding::Ggml(ggml) = kind.encoding() else {
        return Err(Error::argument(
            format!("tensor `{name}`"),
            format!("{} cannot be written", kind.name()),
        ));
    };
    if let Some(matrix) = linear.integers() {
        let matrix = match order {
            Some(order) => IntegerMatrix {
                codes: rows_in_order(&matrix.codes, order),
                scales: rows_in_order(&matrix.scales, order),
                zeros: rows_in_order(&matrix.zeros, order),
                ..matrix
            },
            None => matrix,
        };
        match blocks::convert(ggml, &matrix) {
            Ok(blocks::Converted { bytes, exact }) => {
                *(if exact { &mut summary.exact } else { &mut summary.rounded }) += 1;
                return Ok(bytes);
            }
            Err(reason) => {
                summary.reason.get_or_insert(reason);
            }
        }
    }
    summary.requantised += 1;
    blocks::quantize(ggml, &numbers()).ok_or_else(|| {
        Error::argument(format!("tensor `{name}`"), format!("{} cannot be written", ggml.name()))
    })
}

/// What llama.cpp divides rotary frequencies by, where LLaMA 3's scaling does.
fn rope_factors(architecture: &Architecture) -> Option<Vec<f32>> {
    let rotary = architecture.rotary()?;
    matches!(rotary.scaling, RopeScaling::Llama3 { .. }).then(|| {
        let plain = Rotary { scaling: RopeScaling::Default, ..*rotary }.frequencies();
        plain.iter().zip(rotary.frequencies()).map(|(plain, scaled)| plain / scaled).collect()
    })
}

fn metadata(model: &Model, c: &Architecture, family: GgufFamily, kind: GgufType) -> Result<Vec<(String, M)>> {
    let architecture = family.architecture;
    let number = |n: usize| M::U32(u32::try_from(n).unwrap_or(u32::MAX));
    let mut all: Vec<(String, M)> = vec![
        ("general.architecture".to_owned(), M::Text(architecture.to_owned())),
        ("general.name".to_owned(), M::Text(model_name(model.name()))),
        ("general.file_type".to_owned(), M::U32(kind.file_type())),
        ("general.quantization_version".to_owned(), M::U32(2)),
    ];
    let mut set = |key: &str, value: M| all.push((format!("{architecture}.{key}"), value));
    set("context_length", number(c.max_position_embeddings));
    set("embedding_length", number(c.hidden_size));
    set("block_count", number(c.num_hidden_layers));
    set("feed_forward_length", number(c.intermediate_size));
    set("attention.head_count", number(c.num_attention_heads));
    set("attention.head_count_kv", number(c.num_key_value_heads));
    set("attention.key_length", number(c.head_dim));
    set("attention.value_length", number(c.head_dim));
    set("attention.layer_norm_rms_epsilon", M::F32(c.norm_eps));
    if let Some(rotary) = c.rotary() {
        set("rope.freq_base", M::F32(rotary.theta as f32));
        set("rope.dimension_count", number(rotary.width));
        if let RopeScaling::Linear { factor } = rotary.scaling {
            set("rope.scaling.type", M::Text("linear".to_owned()));
            set("rope.scaling.factor", M::F32(factor as f32));
        }
    }
    set("vocab_size", number(c.vocab_size));
    let files = model.files().ok_or_else(|| {
        Error::argument(
            "format `gguf`",
            "the model was not opened from files, so there is no tokenizer to store",
        )
    })?;
    all.extend(files.tokenizer()?.gguf_metadata(c.vocab_size)?);
    Ok(all)
}

fn model_name(path: &str) -> String {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".gguf").unwrap_or(name).to_owned()
}
