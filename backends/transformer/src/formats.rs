//! In which format a checkpoint is stored.

use std::fmt;
use std::str::FromStr;

use llmcb_model_files::packed::{Bitmask, FloatType, IntegerMatrix, Layout, Scheme, ZeroPoints};

use crate::block::StoredLinear;
use crate::gguf::GgufType;
use crate::{Block, BlockShape, Error, Model, Result};

/// The blocks of a model as a method left them, all of them, wherever they are: none need be in memory.
pub trait BlockStore {
    /// How many there are.
    fn count(&self) -> usize;

    /// Block `index`, brought into memory if it is not there.
    ///
    /// # Errors
    /// If there is no such block, or it cannot be read.
    fn block(&self, index: usize) -> Result<Block>;

    /// The shape of block `index`, which a store may know without reading the block.
    ///
    /// # Errors
    /// As [`block`](Self::block).
    fn shape(&self, index: usize) -> Result<BlockShape> {
        Ok(self.block(index)?.architecture().block_shape())
    }

    /// The shapes of all blocks.
    ///
    /// # Errors
    /// As [`block`](Self::block).
    fn shapes(&self) -> Result<Vec<BlockShape>> {
        (0..self.count()).map(|index| self.shape(index)).collect()
    }
}

/// The blocks of a model as it is.
impl BlockStore for Model {
    fn count(&self) -> usize {
        self.block_count()
    }

    fn block(&self, index: usize) -> Result<Block> {
        Model::block(self, index)
    }
}

impl BlockStore for Vec<Block> {
    fn count(&self) -> usize {
        self.len()
    }

    fn block(&self, index: usize) -> Result<Block> {
        let found = self.get(index).cloned();
        found.ok_or_else(|| Error::argument(format!("block {index}"), format!("there are {}", self.len())))
    }
}

/// Shows `visit` every linear of every block, with its full name, block by block.
fn each_linear(
    blocks: &dyn BlockStore,
    mut visit: impl FnMut(String, StoredLinear<'_>) -> Result<()>,
) -> Result<()> {
    for index in 0..blocks.count() {
        let block = blocks.block(index)?;
        let names = block.architecture().family.names;
        for linear in block.linears() {
            visit(names.in_block(index, linear.name()), linear)?;
        }
    }
    Ok(())
}

/// A format of checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageFormat {
    /// Numbers, whatever the method made.
    Dense,
    /// GPTQ's.
    Gptq,
    /// AWQ's.
    Awq,
    /// compressed-tensors', in the layout named, or the one that fits.
    CompressedTensors(Option<Layout>),
    /// compressed-tensors' for numbers among many zeros.
    Sparse(Bitmask),
    /// One GGUF, with linears in a type of ggml's; values that it cannot hold are rounded.
    Gguf(GgufType),
}

/// Names of all formats, for messages.
pub const FORMATS: [&str; 14] = [
    "dense",
    "gptq",
    "awq",
    "compressed-tensors",
    "compressed-tensors:pack-quantized",
    "compressed-tensors:int-quantized",
    "compressed-tensors:sparse-bitmask",
    "compressed-tensors:sparse-24-bitmask",
    "gguf:f32",
    "gguf:bf16",
    "gguf:f16",
    "gguf:q8_0",
    "gguf:q4_1",
    "gguf:q4_0",
];

impl FromStr for StorageFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "dense" => StorageFormat::Dense,
            "gptq" => StorageFormat::Gptq,
            "awq" => StorageFormat::Awq,
            "compressed-tensors" => StorageFormat::CompressedTensors(None),
            "compressed-tensors:pack-quantized" => {
                StorageFormat::CompressedTensors(Some(Layout::PackQuantized))
            }
            "compressed-tensors:int-quantized" => {
                StorageFormat::CompressedTensors(Some(Layout::IntQuantized))
            }
            "compressed-tensors:sparse-bitmask" => StorageFormat::Sparse(Bitmask::Unstructured),
            "compressed-tensors:sparse-24-bitmask" => StorageFormat::Sparse(Bitmask::TwoOfFour),
            other => {
                let named = |kind: &GgufType| other.strip_prefix("gguf:") == Some(kind.name());
                if let Some(kind) = GgufType::ALL.into_iter().find(named) {
                    return Ok(StorageFormat::Gguf(kind));
                }
                return Err(Error::argument(
                    format!("format `{other}`"),
                    format!("there are {}", FORMATS.join(", ")),
                ));
            }
        })
    }
}

impl StorageFormat {
    /// Whether it holds whatever a method made, as numbers if need be.
    fn holds_all(self) -> bool {
        matches!(self, StorageFormat::Dense | StorageFormat::Gguf(_))
    }
}

impl fmt::Display for StorageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StorageFormat::Dense => "dense",
            StorageFormat::Gptq => "gptq",
            StorageFormat::Awq => "awq",
            StorageFormat::CompressedTensors(None) => "compressed-tensors",
            StorageFormat::CompressedTensors(Some(Layout::IntQuantized)) => {
                "compressed-tensors:int-quantized"
            }
            StorageFormat::CompressedTensors(Some(_)) => "compressed-tensors:pack-quantized",
            StorageFormat::Sparse(Bitmask::Unstructured) => "compressed-tensors:sparse-bitmask",
            StorageFormat::Sparse(Bitmask::TwoOfFour) => "compressed-tensors:sparse-24-bitmask",
            StorageFormat::Gguf(GgufType::F32) => "gguf:f32",
            StorageFormat::Gguf(GgufType::BF16) => "gguf:bf16",
            StorageFormat::Gguf(GgufType::F16) => "gguf:f16",
            StorageFormat::Gguf(GgufType::Q8_0) => "gguf:q8_0",
            StorageFormat::Gguf(GgufType::Q4_1) => "gguf:q4_1",
            StorageFormat::Gguf(GgufType::Q4_0) => "gguf:q4_0",
        })
    }
}

/// A format that was asked for (`gptq`), or one that is preferred (`auto:gptq`, `auto`): the latter gives way to another where it cannot hold
/// what a method made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatChoice {
    /// The format; without one, whichever fits.
    pub format: Option<StorageFormat>,
    /// Whether it is that one or none.
    pub demanded: bool,
}

impl FromStr for FormatChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("auto") {
            Some("") => Ok(FormatChoice { format: None, demanded: false }),
            Some(rest) if rest.starts_with(':') => {
                Ok(FormatChoice { format: Some(rest[1..].parse()?), demanded: false })
            }
            _ => Ok(FormatChoice { format: Some(text.parse()?), demanded: true }),
        }
    }
}

/// What the integer weights of a model have in common.
#[derive(Debug, Clone, Default)]
struct Traits {
    bits: Vec<u32>,
    group_sizes: Vec<Option<usize>>,
    symmetric: bool,
    zero_of_zero: bool,
    shuffled: bool,
    per_tensor: bool,
}

impl Traits {
    fn none() -> Self {
        Traits { symmetric: true, per_tensor: true, ..Traits::default() }
    }

    fn add(&mut self, m: &IntegerMatrix) {
        if !self.bits.contains(&m.bits) {
            self.bits.push(m.bits);
        }
        if !self.group_sizes.contains(&m.group_size) {
            self.group_sizes.push(m.group_size);
        }
        self.symmetric &= m.zeros.iter().all(|z| *z == m.middle());
        self.zero_of_zero |= m.zeros.contains(&0.0);
        self.shuffled |= m.group_index.is_some();
        let uniform = |values: &[f32]| values.windows(2).all(|v| v[0] == v[1]);
        self.per_tensor &= uniform(&m.scales) && uniform(&m.zeros);
    }

    /// The scheme that holds such weights in a format.
    fn scheme(&self, format: StorageFormat, scales: FloatType) -> std::result::Result<Scheme, String> {
        let (&[bits], &[group_size]) = (self.bits.as_slice(), self.group_sizes.as_slice()) else {
            return Err(format!(
                "linears differ in bits ({:?}) or group sizes ({:?}), which {format} cannot express here",
                self.bits, self.group_sizes
            ));
        };
        let base = Scheme {
            layout: Layout::Gptq,
            bits,
            group_size,
            symmetric: self.symmetric,
            per_tensor: false,
            act_order: false,
            zero_points: ZeroPoints::V2,
            scales: FloatType::F16,
        };
        Ok(match format {
            StorageFormat::Dense | StorageFormat::Sparse(_) | StorageFormat::Gguf(_) => {
                return Err(format!("{format} has no place for integer codes"));
            }
            // Readers of the older format do not all undo the wrap of a zero of 0.
            StorageFormat::Gptq if self.zero_of_zero => Scheme { act_order: self.shuffled, ..base },
            StorageFormat::Gptq => Scheme { act_order: self.shuffled, zero_points: ZeroPoints::V1, ..base },
            StorageFormat::Awq => Scheme { layout: Layout::Awq, ..base },
            StorageFormat::CompressedTensors(layout) => {
                let layout = layout.unwrap_or(Layout::PackQuantized);
                let per_tensor = layout == Layout::IntQuantized && group_size.is_none() && self.per_tensor;
                Scheme { layout, per_tensor, scales, ..base }
            }
        })
    }
}

impl FormatChoice {
    /// The type that scales are stored in, and that they are therefore rounded to when a method hands codes over, so that what is compressed
    /// is what is evaluated. `storage` is the type of the checkpoint's numbers.
    pub fn scale_type(&self, storage: FloatType) -> FloatType {
        match self.format {
            Some(StorageFormat::Dense | StorageFormat::CompressedTensors(_) | StorageFormat::Sparse(_)) => {
                storage
            }
            // Readers of gptq and awq have scales in half precision, and so have ggml's blocks.
            None | Some(StorageFormat::Gptq | StorageFormat::Awq | StorageFormat::Gguf(_)) => FloatType::F16,
        }
    }

    /// Refuses a weight that the format asked for cannot hold.
    ///
    /// # Errors
    /// [`Error::Argument`] that says why, and what to do.
    pub fn check(&self, linear: &str, codes: &IntegerMatrix, scales: FloatType) -> Result<()> {
        let Some(format) = self.format.filter(|f| self.demanded && !f.holds_all()) else {
            return Ok(());
        };
        let mut traits = Traits::none();
        traits.add(codes);
        traits
            .scheme(format, scales)
            .and_then(|scheme| scheme.fits(codes).map_err(|e| e.to_string()))
            .map_err(|problem| cannot_hold(format, &format!("{linear}: {problem}")))
    }

    /// Refuses a finished block that the format asked for cannot hold, before all others are made: one whose zeros are many, but not of its
    /// pattern.
    ///
    /// # Errors
    /// [`Error::Argument`] that says why, and what to do.
    pub fn check_block(&self, index: usize, block: &Block) -> Result<()> {
        let Some(format @ StorageFormat::Sparse(layout)) = self.format.filter(|_| self.demanded) else {
            return Ok(());
        };
        let names = block.architecture().family.names;
        for linear in block.linears() {
            let weight = linear.weight();
            let zeros = weight.iter().filter(|w| **w == 0.0).count();
            if 4 * zeros < weight.len() {
                continue;
            }
            layout.fits(&weight, linear.inputs()).map_err(|e| {
                cannot_hold(format, &format!("{}: {e}", names.in_block(index, linear.name())))
            })?;
        }
        Ok(())
    }

    /// Chooses the format of a model's blocks, with the scheme of its integer codes; and says, where the preferred format gave way, why.
    /// `numbers` is the type that numbers are stored in.
    ///
    /// # Errors
    /// [`Error::Argument`] if the format asked for cannot hold them.
    pub fn choose(&self, blocks: &dyn BlockStore, scales: FloatType, numbers: FloatType) -> Result<Chosen> {
        if self.format.is_some_and(StorageFormat::holds_all) {
            return Ok(Chosen { stored: Stored::Dense, instead_of: None });
        }
        let mut traits = Traits::none();
        let mut sparse = false;
        each_linear(blocks, |_, linear| {
            if let Some(codes) = linear.integers() {
                traits.add(&codes);
            } else if let Some(StorageFormat::Sparse(layout)) = self.format {
                sparse |= is_sparse(linear, layout, numbers);
            }
            Ok(())
        })?;
        if traits.bits.is_empty() {
            return match self.format {
                Some(format @ StorageFormat::Sparse(layout)) => {
                    let problem = "no linear has enough zeros of its pattern to be smaller so";
                    match (sparse, self.demanded) {
                        (true, _) => Ok(Chosen { stored: Stored::Sparse(layout), instead_of: None }),
                        (false, true) => Err(cannot_hold(format, problem)),
                        (false, false) => {
                            let instead_of = Some((format, problem.to_owned()));
                            Ok(Chosen { stored: Stored::Dense, instead_of })
                        }
                    }
                }
                Some(format) if self.demanded => {
                    Err(cannot_hold(format, "the method made no integer codes, only numbers"))
                }
                _ => Ok(Chosen { stored: Stored::Dense, instead_of: None }),
            };
        }
        let mut candidates =
            vec![StorageFormat::Gptq, StorageFormat::CompressedTensors(None), StorageFormat::Dense];
        if let Some(format) = self.format {
            if self.demanded {
                candidates.clear();
            }
            candidates.retain(|other| *other != format);
            candidates.insert(0, format);
        }
        let mut refused = None;
        for format in candidates {
            if format.holds_all() {
                return Ok(Chosen { stored: Stored::Dense, instead_of: refused });
            }
            let fits = match traits.scheme(format, scales) {
                Ok(scheme) => misfit(blocks, &scheme)?.map_or(Ok(scheme), Err),
                Err(problem) => Err(problem),
            };
            match fits {
                Ok(scheme) => return Ok(Chosen { stored: Stored::Codes(scheme), instead_of: refused }),
                Err(problem) if self.demanded => return Err(cannot_hold(format, &problem)),
                Err(problem) => {
                    refused.get_or_insert((format, problem));
                }
            }
        }
        Ok(Chosen { stored: Stored::Dense, instead_of: refused })
    }
}

/// Why a scheme does not hold the codes of some linear, if there is such a linear.
fn misfit(blocks: &dyn BlockStore, scheme: &Scheme) -> Result<Option<String>> {
    let mut problem = None;
    each_linear(blocks, |name, linear| {
        if let (None, Some(codes)) = (&problem, linear.integers()) {
            problem = scheme.fits(&codes).err().map(|e| format!("{name}: {e}"));
        }
        Ok(())
    })?;
    Ok(problem)
}

/// Whether a linear can be stored without its zeros, and is smaller so.
pub(crate) fn is_sparse(linear: StoredLinear<'_>, layout: Bitmask, numbers: FloatType) -> bool {
    let (rows, columns) = (linear.outputs(), linear.inputs());
    let weight = linear.weight();
    let dense = numbers.encoding().byte_len(weight.len());
    layout.fits(&weight, columns).is_ok() && Some(layout.bytes(&weight, rows, columns, numbers)) < dense
}

fn cannot_hold(format: StorageFormat, problem: &str) -> Error {
    Error::argument(
        format!("format `{format}`"),
        format!(
            "it cannot hold what the method made: {problem}; choose another format, or other options of the method"
        ),
    )
}

/// How the linears of a checkpoint are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// As numbers.
    Dense,
    /// As integer codes, where they are.
    Codes(Scheme),
    /// As numbers without the zeros, where that is smaller.
    Sparse(Bitmask),
}

/// The outcome of [`FormatChoice::choose`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// How linears are stored.
    pub stored: Stored,
    /// The preferred format, and why it could not be.
    pub instead_of: Option<(StorageFormat, String)>,
}
