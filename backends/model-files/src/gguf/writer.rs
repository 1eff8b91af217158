//! Writing a GGUF, version 3: metadata and the places of all tensors first, then the tensors in any order.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::encoding::{Encoding, GgmlType};
use crate::{Error, Result};

const ALIGNMENT: u64 = 32;

/// A metadata value that can be written.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataValue {
    /// A whole number.
    U32(u32),
    /// A number.
    F32(f32),
    /// A flag.
    Bool(bool),
    /// A text.
    Text(String),
    /// An array of texts.
    Texts(Vec<String>),
    /// An array of numbers.
    F32s(Vec<f32>),
    /// An array of whole numbers.
    I32s(Vec<i32>),
}

impl MetadataValue {
    fn write(&self, out: &mut Vec<u8>) {
        let code: u32 = match self {
            MetadataValue::U32(_) => 4,
            MetadataValue::F32(_) => 6,
            MetadataValue::Bool(_) => 7,
            MetadataValue::Text(_) => 8,
            MetadataValue::Texts(_) | MetadataValue::F32s(_) | MetadataValue::I32s(_) => 9,
        };
        out.extend(code.to_le_bytes());
        let array = |out: &mut Vec<u8>, code: u32, count: usize| {
            out.extend(code.to_le_bytes());
            out.extend((count as u64).to_le_bytes());
        };
        match self {
            MetadataValue::U32(n) => out.extend(n.to_le_bytes()),
            MetadataValue::F32(x) => out.extend(x.to_le_bytes()),
            MetadataValue::Bool(flag) => out.push(u8::from(*flag)),
            MetadataValue::Text(text) => write_text(text, out),
            MetadataValue::Texts(texts) => {
                array(out, 8, texts.len());
                texts.iter().for_each(|text| write_text(text, out));
            }
            MetadataValue::F32s(numbers) => {
                array(out, 6, numbers.len());
                out.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
            }
            MetadataValue::I32s(numbers) => {
                array(out, 5, numbers.len());
                out.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
            }
        }
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// ggml's number of an encoding.
fn type_code(encoding: Encoding) -> Option<u32> {
    Some(match encoding {
        Encoding::F32 => 0,
        Encoding::F16 => 1,
        Encoding::BF16 => 30,
        Encoding::I8 => 24,
        Encoding::I32 => 26,
        Encoding::I64 => 27,
        Encoding::U8 => return None,
        Encoding::Ggml(kind) => match kind {
            GgmlType::Q4_0 => 2,
            GgmlType::Q4_1 => 3,
            GgmlType::Q5_0 => 6,
            GgmlType::Q5_1 => 7,
            GgmlType::Q8_0 => 8,
            GgmlType::Q8_1 => 9,
            GgmlType::Q2K => 10,
            GgmlType::Q3K => 11,
            GgmlType::Q4K => 12,
            GgmlType::Q5K => 13,
            GgmlType::Q6K => 14,
            GgmlType::Q8K => 15,
        },
    })
}

/// A tensor of a GGUF to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// Its name in the file, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Row-major extents, slowest first.
    pub shape: Vec<usize>,
    /// How its bytes encode its numbers.
    pub encoding: Encoding,
}

/// A GGUF in the making.
#[derive(Debug)]
pub struct GgufWriter {
    path: PathBuf,
    file: File,
    /// Offset and size of each tensor.
    places: Vec<(u64, usize)>,
}

impl GgufWriter {
    /// Writes the header of a file with these tensors.
    ///
    /// # Errors
    /// [`Error::Weights`] for a tensor whose rows do not fill whole blocks, [`Error::Io`].
    pub fn create(path: &Path, metadata: &[(String, MetadataValue)], tensors: &[GgufTensor]) -> Result<Self> {
        let mut header = b"GGUF".to_vec();
        header.extend(3u32.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            write_text(key, &mut header);
            value.write(&mut header);
        }
        let mut sizes = Vec::with_capacity(tensors.len());
        let mut offset = 0u64;
        for tensor in tensors {
            let row = tensor.shape.last().copied().unwrap_or(0);
            let elements = tensor.shape.iter().product();
            let size = tensor.encoding.byte_len(row).and(tensor.encoding.byte_len(elements));
            let (Some(size), Some(code)) = (size, type_code(tensor.encoding)) else {
                return Err(Error::weights(
                    path,
                    format!(
                        "tensor `{}` {:?} cannot be stored as {}",
                        tensor.name, tensor.shape, tensor.encoding
                    ),
                    "choose another type: rows must fill whole blocks",
                ));
            };
            write_text(&tensor.name, &mut header);
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            header.extend(tensor.shape.iter().rev().flat_map(|extent| (*extent as u64).to_le_bytes()));
            header.extend(code.to_le_bytes());
            header.extend(offset.to_le_bytes());
            sizes.push((offset, size));
            offset = (offset + size as u64).next_multiple_of(ALIGNMENT);
        }
        let start = (header.len() as u64).next_multiple_of(ALIGNMENT);
        header.resize(start as usize, 0);
        let mut file = File::create(path).map_err(Error::io(path, "make the file"))?;
        let written = file.write_all(&header).and_then(|()| file.set_len(start + offset));
        written.map_err(Error::io(path, "write the header"))?;
        let places = sizes.into_iter().map(|(offset, size)| (start + offset, size)).collect();
        Ok(GgufWriter { path: path.to_path_buf(), file, places })
    }

    /// Writes the bytes of the tensor at `index` of those the file was made with.
    ///
    /// # Errors
    /// [`Error::Weights`] for another number of bytes than it takes, [`Error::Io`].
    pub fn write(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        let (offset, size) = self.places.get(index).copied().unwrap_or_default();
        if bytes.len() != size {
            let problem = format!("tensor {index} takes {size} bytes, but {} were given", bytes.len());
            return Err(Error::weights(&self.path, problem, "this is a fault of the program: report it"));
        }
        let written = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.write_all(bytes));
        written.map_err(Error::io(&self.path, "write a tensor"))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(Error::io(&self.path, "write the file"))
    }
}
