//! The header of a GGUF file, read over its bytes with nothing trusted.
//!
//! Layout: magic, version, number of tensors, number of metadata pairs; the pairs (key, type, value); the tensors
//! (name, extents fastest first, type, offset); padding to the alignment; data. Strings are a 64-bit length and bytes.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use crate::encoding::{Encoding, GgmlType};
use crate::{Error, Result};

const DAMAGED: &str = "the file is truncated or damaged: fetch or convert it again";
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 20;
const MAX_DIMENSIONS: u32 = 4;
/// Arrays of arrays are legal; nobody nests them deeper, and recursion must end.
const MAX_NESTING: u32 = 4;
/// Smallest pair: an empty key (8), a type (4), a one-byte value.
const MIN_PAIR: usize = 13;
/// Smallest tensor entry: an empty name (8), one extent (4 + 8), a type (4), an offset (8).
const MIN_TENSOR: usize = 32;

/// What a header says, each value checked against the file.
pub(crate) struct Header {
    pub(crate) metadata: HashMap<String, Value>,
    pub(crate) tensors: Vec<Tensor>,
}

/// A metadata value; strings and arrays stay in the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(Range<usize>),
    Array(Array),
}

/// An array whose `count` elements were walked once and fill `range` of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) kind: Kind,
    pub(crate) count: usize,
    pub(crate) range: Range<usize>,
}

/// The type of a metadata value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Kind::U8,
            1 => Kind::I8,
            2 => Kind::U16,
            3 => Kind::I16,
            4 => Kind::U32,
            5 => Kind::I32,
            6 => Kind::F32,
            7 => Kind::Bool,
            8 => Kind::String,
            9 => Kind::Array,
            10 => Kind::U64,
            11 => Kind::I64,
            12 => Kind::F64,
            _ => return None,
        })
    }

    /// Bytes of a value, the least for strings and arrays.
    fn min_size(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::String => 8,
            Kind::Array => 12,
        }
    }
}

/// One tensor, placed in the file.
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// Row-major, slowest first: the reverse of the file's order.
    pub(crate) shape: Vec<usize>,
    pub(crate) encoding: Encoding,
    /// Bytes of the file, inside its bounds.
    pub(crate) range: Range<usize>,
}

/// A tensor before the start of the data is known.
struct Listed {
    name: String,
    shape: Vec<usize>,
    encoding: Encoding,
    offset: u64,
    size: usize,
}

impl Header {
    pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor { path, bytes, at: 0 };
        let (tensor_count, pair_count) = read_preamble(&mut cursor)?;
        let metadata = read_metadata(&mut cursor, pair_count)?;
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(Value::Unsigned(n)) if n.is_power_of_two() && *n <= MAX_ALIGNMENT => *n,
            Some(other) => {
                let problem =
                    format!("general.alignment is {other:?}, not a power of two up to {MAX_ALIGNMENT}");
                return Err(cursor.fail(problem));
            }
        };
        let listed = read_tensor_list(&mut cursor, tensor_count)?;
        let tensors = place(path, bytes.len(), cursor.at, alignment, listed)?;
        Ok(Header { metadata, tensors })
    }
}

fn read_preamble(cursor: &mut Cursor<'_>) -> Result<(u64, u64)> {
    let path = cursor.path;
    if cursor.bytes.first_chunk::<4>() != Some(b"GGUF") {
        let beginning = cursor.bytes.get(..4).unwrap_or(cursor.bytes);
        return Err(Error::not_a_model(
            path,
            format!("is not a GGUF file (it begins with {beginning:02x?}, not with \"GGUF\")"),
            "give a .gguf file, or the directory of a Hugging Face checkpoint",
        ));
    }
    cursor.at = 4;
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => {}
        _ if (1..=3).contains(&version.swap_bytes()) => {
            return Err(Error::weights(
                path,
                "is a big-endian GGUF",
                "convert the model for little-endian machines",
            ));
        }
        _ => {
            return Err(Error::weights(
                path,
                format!("is GGUF version {version}; versions 2 and 3 can be read"),
                "convert the model again with a current converter",
            ));
        }
    }
    let tensors = cursor.u64("the number of tensors")?;
    let pairs = cursor.u64("the number of metadata pairs")?;
    cursor.check_count(tensors, MIN_TENSOR, "tensors")?;
    cursor.check_count(pairs, MIN_PAIR, "metadata pairs")?;
    Ok((tensors, pairs))
}

fn read_metadata(cursor: &mut Cursor<'_>, count: u64) -> Result<HashMap<String, Value>> {
    let mut metadata = HashMap::new();
    for index in 0..count {
        let range = cursor.string(&format!("the key of metadata pair {index}"))?;
        let Ok(key) = std::str::from_utf8(&cursor.bytes[range]) else {
            return Err(cursor.fail(format!("the key of metadata pair {index} is not UTF-8")));
        };
        let kind = cursor.kind(key)?;
        let value = cursor.value(kind, key, MAX_NESTING)?;
        if metadata.insert(key.to_owned(), value).is_some() {
            return Err(cursor.fail(format!("metadata key `{key}` occurs twice")));
        }
    }
    Ok(metadata)
}

fn read_tensor_list(cursor: &mut Cursor<'_>, count: u64) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    let mut names = HashSet::new();
    for index in 0..count {
        let range = cursor.string(&format!("the name of tensor {index}"))?;
        let Ok(name) = std::str::from_utf8(&cursor.bytes[range]) else {
            return Err(cursor.fail(format!("the name of tensor {index} is not UTF-8")));
        };
        if !names.insert(name) {
            return Err(cursor.fail(format!("tensor `{name}` is listed twice")));
        }
        let dimensions = cursor.u32(name)?;
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return Err(cursor
                .fail(format!("tensor `{name}` has {dimensions} dimensions, not 1 to {MAX_DIMENSIONS}")));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            let extent = cursor.u64(name)?;
            match usize::try_from(extent) {
                Ok(extent) if extent > 0 => shape.push(extent),
                _ => return Err(cursor.fail(format!("tensor `{name}` has a dimension of {extent}"))),
            }
        }
        let code = cursor.u32(name)?;
        let offset = cursor.u64(name)?;
        let encoding = encoding_of(code).map_err(|known| Error::UnsupportedEncoding {
            path: cursor.path.to_path_buf(),
            name: name.to_owned(),
            encoding: known
                .map_or_else(|| format!("unknown ggml type {code}"), |name| format!("ggml type {name}")),
            remedy:
                "use a GGUF quantised to one of F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K"
                    .to_owned(),
        })?;
        // Blocks run along rows, so a row must fill whole ones.
        let row = shape[0];
        let elements = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        let size = elements.and_then(|n| encoding.byte_len(row).and(encoding.byte_len(n)));
        let Some(size) = size else {
            return Err(
                cursor.fail(format!("tensor `{name}` of extents {shape:?} cannot be stored as {encoding}"))
            );
        };
        shape.reverse();
        listed.push(Listed { name: name.to_owned(), shape, encoding, offset, size });
    }
    Ok(listed)
}

/// Turns offsets into ranges of the file, refusing what lies outside it, off the alignment, or over another tensor.
fn place(
    path: &Path,
    length: usize,
    header_end: usize,
    alignment: u64,
    listed: Vec<Listed>,
) -> Result<Vec<Tensor>> {
    let fail = |problem: String| Error::weights(path, problem, DAMAGED);
    let data_start = (header_end as u64).next_multiple_of(alignment);
    let mut tensors = Vec::with_capacity(listed.len());
    for Listed { name, shape, encoding, offset, size } in listed {
        if !offset.is_multiple_of(alignment) {
            return Err(fail(format!(
                "tensor `{name}` has offset {offset}, not a multiple of the alignment {alignment}"
            )));
        }
        let start = data_start.checked_add(offset).and_then(|start| usize::try_from(start).ok());
        let range = start.and_then(|start| Some(start..start.checked_add(size)?));
        match range {
            Some(range) if range.end <= length => tensors.push(Tensor { name, shape, encoding, range }),
            _ => {
                return Err(fail(format!(
                    "tensor `{name}` needs {size} bytes at offset {offset} of the data, which starts at {data_start} \
                     in a file of {length} bytes"
                )));
            }
        }
    }
    let mut order: Vec<&Tensor> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.range.start);
    if let Some(pair) = order.windows(2).find(|pair| pair[0].range.end > pair[1].range.start) {
        return Err(fail(format!("tensors `{}` and `{}` overlap", pair[0].name, pair[1].name)));
    }
    Ok(tensors)
}

/// The encoding of a ggml type code; otherwise the type's name if it has one.
fn encoding_of(code: u32) -> std::result::Result<Encoding, Option<&'static str>> {
    Ok(match code {
        0 => Encoding::F32,
        1 => Encoding::F16,
        2 => Encoding::Ggml(GgmlType::Q4_0),
        3 => Encoding::Ggml(GgmlType::Q4_1),
        6 => Encoding::Ggml(GgmlType::Q5_0),
        7 => Encoding::Ggml(GgmlType::Q5_1),
        8 => Encoding::Ggml(GgmlType::Q8_0),
        9 => Encoding::Ggml(GgmlType::Q8_1),
        10 => Encoding::Ggml(GgmlType::Q2K),
        11 => Encoding::Ggml(GgmlType::Q3K),
        12 => Encoding::Ggml(GgmlType::Q4K),
        13 => Encoding::Ggml(GgmlType::Q5K),
        14 => Encoding::Ggml(GgmlType::Q6K),
        15 => Encoding::Ggml(GgmlType::Q8K),
        30 => Encoding::BF16,
        16 => return Err(Some("IQ2_XXS")),
        17 => return Err(Some("IQ2_XS")),
        18 => return Err(Some("IQ3_XXS")),
        19 => return Err(Some("IQ1_S")),
        20 => return Err(Some("IQ4_NL")),
        21 => return Err(Some("IQ3_S")),
        22 => return Err(Some("IQ2_S")),
        23 => return Err(Some("IQ4_XS")),
        24 => return Err(Some("I8")),
        25 => return Err(Some("I16")),
        26 => return Err(Some("I32")),
        27 => return Err(Some("I64")),
        28 => return Err(Some("F64")),
        29 => return Err(Some("IQ1_M")),
        34 => return Err(Some("TQ1_0")),
        35 => return Err(Some("TQ2_0")),
        39 => return Err(Some("MXFP4")),
        _ => return Err(None),
    })
}

struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn fail(&self, problem: String) -> Error {
        Error::weights(self.path, problem, DAMAGED)
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            return Err(self.fail(format!(
                "ends inside {what}: {length} bytes wanted at {}, {} left",
                self.at,
                self.left()
            )));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Refuses a count whose elements could not fit into the rest of the file, before anything is sized by it.
    fn check_count(&self, count: u64, min_size: usize, what: &str) -> Result<usize> {
        let most = self.left() / min_size;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(self.fail(format!(
                "claims {count} {what}, but its {} remaining bytes hold at most {most}",
                self.left()
            ))),
        }
    }

    fn string(&mut self, what: &str) -> Result<Range<usize>> {
        let length = self.u64(what)?;
        let length = self.check_count(length, 1, &format!("bytes in {what}"))?;
        let start = self.at;
        self.take(length, what)?;
        Ok(start..self.at)
    }

    fn kind(&mut self, what: &str) -> Result<Kind> {
        let code = self.u32(what)?;
        Kind::from_code(code)
            .ok_or_else(|| self.fail(format!("metadata `{what}` has the unknown type {code}")))
    }

    fn value(&mut self, kind: Kind, key: &str, nesting: u32) -> Result<Value> {
        Ok(match kind {
            Kind::U8 => Value::Unsigned(u64::from(self.array::<1>(key)?[0])),
            Kind::U16 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array(key)?))),
            Kind::U32 => Value::Unsigned(u64::from(self.u32(key)?)),
            Kind::U64 => Value::Unsigned(self.u64(key)?),
            Kind::I8 => Value::Signed(i64::from(i8::from_le_bytes(self.array(key)?))),
            Kind::I16 => Value::Signed(i64::from(i16::from_le_bytes(self.array(key)?))),
            Kind::I32 => Value::Signed(i64::from(i32::from_le_bytes(self.array(key)?))),
            Kind::I64 => Value::Signed(i64::from_le_bytes(self.array(key)?)),
            Kind::F32 => Value::Float(shortest(f32::from_le_bytes(self.array(key)?))),
            Kind::F64 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            Kind::Bool => match self.array::<1>(key)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(self.fail(format!("metadata `{key}` is a boolean of value {other}"))),
            },
            Kind::String => Value::String(self.string(key)?),
            Kind::Array => Value::Array(self.walk_array(key, nesting)?),
        })
    }

    /// Steps over an array, checking every length in it.
    fn walk_array(&mut self, key: &str, nesting: u32) -> Result<Array> {
        let kind = self.kind(key)?;
        let count = self.u64(key)?;
        let count = self.check_count(count, kind.min_size(), &format!("elements in `{key}`"))?;
        let start = self.at;
        match kind {
            Kind::String => {
                for _ in 0..count {
                    self.string(key)?;
                }
            }
            Kind::Array => {
                if nesting == 0 {
                    return Err(self.fail(format!("metadata `{key}` nests arrays too deeply")));
                }
                for _ in 0..count {
                    self.walk_array(key, nesting - 1)?;
                }
            }
            // `check_count` showed that the product stays inside the file.
            _ => {
                self.take(count * kind.min_size(), key)?;
            }
        }
        Ok(Array { kind, count, range: start..self.at })
    }
}

/// The double with the shortest decimal spelling that is this single: 1e-5 for 9.999999747378752e-6.
fn shortest(single: f32) -> f64 {
    single.to_string().parse().unwrap_or(f64::from(single))
}
