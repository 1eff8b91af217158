//! A model's files, whatever their format.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::encoding::Encoding;
use crate::gguf::Gguf;
use crate::mapping::Mapping;
use crate::packed::{IntegerMatrix, Parts as WeightParts, Quantization, Scheme, SchemeError, bitmask};
use crate::{Error, Result, Tokenizer, hub_layout};

/// A model on disk: configuration, tensors and tokenizer. Weights are memory-mapped and stay as they are stored.
///
/// The files may not be changed or truncated while a `ModelFiles` is open.
pub struct ModelFiles {
    /// What messages name: the GGUF, the single safetensors file, or the directory.
    path: PathBuf,
    config: Value,
    maps: Vec<Mapping>,
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    quantization: Option<Quantization>,
    format: Format,
}

/// Where a tensor lies.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) stored: Stored,
    /// Index into the model's maps.
    pub(crate) file: usize,
    /// Already checked to lie inside that map.
    pub(crate) range: Range<usize>,
    pub(crate) rope_interleaved_heads: Option<usize>,
}

/// A tensor's encoding: one that readers understand, or another's name, refused when the tensor is asked for.
pub(crate) enum Stored {
    Readable(Encoding),
    Other(String),
}

/// What a reader of one format hands over.
pub(crate) struct Parts {
    pub(crate) path: PathBuf,
    pub(crate) config: Value,
    pub(crate) maps: Vec<Mapping>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) quantization: Option<Quantization>,
    pub(crate) format: Format,
}

pub(crate) enum Format {
    /// The directory, and the files beside the weights that were read.
    HubLayout {
        directory: PathBuf,
        described_by: Vec<PathBuf>,
    },
    Gguf(Box<Gguf>),
}

/// One tensor as its file holds it.
#[derive(Debug, Clone)]
pub struct StoredTensor<'a> {
    /// Its Hugging Face name.
    pub name: String,
    /// Row-major extents in Hugging Face order: `[out, in]` for a linear.
    pub shape: Vec<usize>,
    /// How `bytes` encode its numbers.
    pub encoding: Encoding,
    /// The stored bytes, exactly as many as `shape` and `encoding` need; no particular alignment.
    pub bytes: &'a [u8],
    /// `Some(heads)` when rows of a query or key projection are permuted for interleaved rotary pairs (GGUF files of
    /// architecture `llama`). Per head, stored row `2 i + j` is Hugging Face's row `j * head_dim / 2 + i` (`j` in 0, 1);
    /// the reader undoes that after decoding.
    pub rope_interleaved_heads: Option<usize>,
}

/// Where a model's numbers come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Provenance {
    /// `gguf` or `safetensors`.
    pub format: String,
    /// The encoding that holds most parameters: `Q4_1`, `F32`, `BF16`, ...
    pub precision: String,
    /// Numbers in all stored tensors; an output head tied to the embeddings counts once.
    pub parameters: u64,
    /// Size of the weights files together, in bytes.
    pub bytes_on_disk: u64,
    /// Every file that decides what the model computes: weights, configuration, shard index, tokenizer.
    pub files: Vec<PathBuf>,
}

impl ModelFiles {
    /// Opens a model: a directory in the Hugging Face layout (`config.json` with `model.safetensors`, or with
    /// `model.safetensors.index.json` and its shards), a GGUF file, or a directory with exactly one `.gguf` and no
    /// `config.json`.
    ///
    /// # Errors
    /// When the path is none of these, a file cannot be read, is truncated or contradicts itself, or the
    /// configuration lacks what is needed.
    pub fn open(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(Error::io(path, "open the model"))?;
        let parts = if meta.is_dir() { open_directory(path)? } else { open_file(path)? };
        let by_name = parts.entries.iter().enumerate().map(|(i, e)| (e.name.clone(), i)).collect();
        Ok(ModelFiles {
            path: parts.path,
            config: parts.config,
            maps: parts.maps,
            entries: parts.entries,
            by_name,
            quantization: parts.quantization,
            format: parts.format,
        })
    }

    /// The configuration, a JSON object spelled as in Hugging Face's `config.json`; for a GGUF derived from its
    /// metadata.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Hugging Face names of all tensors, in the order in which they are stored.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// The tensor of this Hugging Face name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] when there is none, [`Error::UnsupportedEncoding`] when it cannot be read.
    pub fn tensor(&self, name: &str) -> Result<StoredTensor<'_>> {
        let Some(entry) = self.by_name.get(name).map(|&i| &self.entries[i]) else {
            return Err(Error::MissingTensor {
                path: self.path.clone(),
                name: name.to_owned(),
                held: self.entries.len(),
            });
        };
        let map = &self.maps[entry.file];
        let encoding = match &entry.stored {
            Stored::Readable(encoding) => *encoding,
            Stored::Other(encoding) => {
                return Err(Error::UnsupportedEncoding {
                    path: map.path().to_path_buf(),
                    name: name.to_owned(),
                    encoding: encoding.clone(),
                    remedy: "store the weights as F32, F16 or BF16 (`save_pretrained` after `.to(torch.bfloat16)`)"
                        .to_owned(),
                });
            }
        };
        Ok(StoredTensor {
            name: entry.name.clone(),
            shape: entry.shape.clone(),
            encoding,
            bytes: &map.bytes()[entry.range.clone()],
            rope_interleaved_heads: entry.rope_interleaved_heads,
        })
    }

    /// Says that a tensor was read and will not be needed soon, so that its part of the file does not stay in memory.
    pub fn release(&self, name: &str) {
        if let Some(entry) = self.by_name.get(name).map(|&i| &self.entries[i]) {
            self.maps[entry.file].release(entry.range.clone());
        }
    }

    /// Whether the model has a tensor of this Hugging Face name.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// How integer weights are stored, where the configuration speaks of any.
    pub fn quantization(&self) -> Option<&Quantization> {
        self.quantization.as_ref()
    }

    /// The scheme of a linear (`model.layers.0.mlp.up_proj`) whose weight is stored as integer codes; `None` for others.
    fn scheme_of(&self, linear: &str) -> Option<&Scheme> {
        let scheme = self.quantization.as_ref()?.scheme(linear);
        let has = |suffix: &str| self.by_name.contains_key(&format!("{linear}.{suffix}"));
        scheme.recognises(has).then_some(scheme)
    }

    fn with_parts<T>(
        &self,
        linear: &str,
        read: impl FnOnce(&WeightParts<'_>) -> std::result::Result<T, SchemeError>,
    ) -> Result<T> {
        let get = |suffix: &str| self.tensor(&format!("{linear}.{suffix}")).ok();
        read(&WeightParts::new(&get)).map_err(|e| {
            Error::weights(
                &self.path,
                format!("linear `{linear}`: {e}"),
                "the file is damaged, or its `quantization_config` is another's: fetch both again from one place",
            )
        })
    }

    /// `[outputs, inputs]` of a linear whose weight is stored as integer codes; `None` for others.
    ///
    /// # Errors
    /// [`Error::Weights`] where its tensors cannot be.
    pub fn integer_shape(&self, linear: &str) -> Result<Option<[usize; 2]>> {
        match self.scheme_of(linear) {
            Some(scheme) => self.with_parts(linear, |parts| scheme.shape(parts)).map(Some),
            None => Ok(None),
        }
    }

    /// The weight of a linear (`model.layers.0.mlp.up_proj`) that is stored as integer codes; `None` for others.
    ///
    /// # Errors
    /// [`Error::Weights`] where its tensors do not fit together.
    pub fn integers(&self, linear: &str) -> Result<Option<IntegerMatrix>> {
        match self.scheme_of(linear) {
            Some(scheme) => self.with_parts(linear, |parts| scheme.decode(parts)).map(Some),
            None => Ok(None),
        }
    }

    fn is_sparse(&self, linear: &str) -> bool {
        bitmask::recognises(|suffix| self.by_name.contains_key(&format!("{linear}.{suffix}")))
    }

    /// `[outputs, inputs]` of a linear whose weight is stored without its zeros; `None` for others.
    ///
    /// # Errors
    /// [`Error::Weights`] where its tensors cannot be.
    pub fn sparse_shape(&self, linear: &str) -> Result<Option<[usize; 2]>> {
        if !self.is_sparse(linear) {
            return Ok(None);
        }
        self.with_parts(linear, bitmask::shape).map(Some)
    }

    /// The weight of a linear (`model.layers.0.mlp.up_proj`) that is stored without its zeros, row by row; `None` for others.
    ///
    /// # Errors
    /// [`Error::Weights`] where its tensors do not fit together.
    pub fn sparse(&self, linear: &str) -> Result<Option<Vec<f32>>> {
        if !self.is_sparse(linear) {
            return Ok(None);
        }
        self.with_parts(linear, bitmask::decode).map(Some)
    }

    /// The model's tokenizer: from `tokenizer.json`, or from a GGUF's own vocabulary.
    ///
    /// # Errors
    /// When it is missing, broken, or of a kind that cannot be built.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.format {
            Format::HubLayout { directory, .. } => Tokenizer::open(directory),
            Format::Gguf(gguf) => Tokenizer::from_gguf(&gguf.view(&self.maps[0])),
        }
    }

    /// Where the numbers come from: format, dominant encoding, sizes and files.
    pub fn provenance(&self) -> Provenance {
        let mut by_encoding = BTreeMap::<String, u64>::new();
        for entry in &self.entries {
            let (linear, suffix) = entry.name.rsplit_once('.').unwrap_or(("", &entry.name));
            if let Some(scheme) = self.scheme_of(linear).filter(|_| suffix != "bias") {
                // All tensors of an integer weight together are as many parameters as the weight has elements.
                if scheme.holds_codes(suffix) {
                    let [rows, columns] = self.integer_shape(linear).ok().flatten().unwrap_or_default();
                    *by_encoding.entry(format!("INT{}", scheme.bits)).or_default() += (rows * columns) as u64;
                }
                continue;
            }
            let sparse = suffix != "bias" && self.is_sparse(linear);
            if sparse && suffix != "compressed" {
                continue;
            }
            let name = match &entry.stored {
                Stored::Readable(encoding) => encoding.name(),
                Stored::Other(name) => name,
            };
            let shape = if sparse { self.sparse_shape(linear).ok().flatten() } else { None };
            let shape = shape.as_ref().map_or(entry.shape.as_slice(), |shape| shape);
            let elements = shape.iter().map(|&extent| extent as u64).product::<u64>();
            *by_encoding.entry(name.to_owned()).or_default() += elements;
        }
        let most = by_encoding.iter().max_by_key(|&(_, &elements)| elements);
        // What the blocks are made of says more than the embedding, which may be larger.
        let integers = by_encoding.keys().rfind(|name| name.starts_with("INT"));
        let precision = integers.or(most.map(|(name, _)| name)).cloned().unwrap_or_default();
        let mut files: Vec<PathBuf> = self.maps.iter().map(|map| map.path().to_path_buf()).collect();
        let format = match &self.format {
            Format::HubLayout { described_by, .. } => {
                files.extend(described_by.iter().cloned());
                "safetensors"
            }
            Format::Gguf(_) => "gguf",
        };
        Provenance {
            format: format.to_owned(),
            precision,
            parameters: by_encoding.values().sum(),
            bytes_on_disk: self.maps.iter().map(|map| map.bytes().len() as u64).sum(),
            files,
        }
    }
}

impl std::fmt::Debug for ModelFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelFiles").field("path", &self.path).field("tensors", &self.entries.len()).finish()
    }
}

fn open_directory(directory: &Path) -> Result<Parts> {
    if directory.join("config.json").exists() {
        return hub_layout::open(directory);
    }
    let ggufs = files_ending_in(directory, "gguf")?;
    match ggufs.as_slice() {
        [one] => Gguf::open(one),
        [] => Err(Error::not_a_model(
            directory,
            "holds neither config.json nor a .gguf file",
            "give the directory of a Hugging Face checkpoint, or a .gguf file",
        )),
        many => Err(Error::not_a_model(
            directory,
            format!("holds {} .gguf files and no config.json", many.len()),
            "name one of the .gguf files itself",
        )),
    }
}

fn open_file(path: &Path) -> Result<Parts> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match extension {
        "safetensors" | "json" => Err(Error::not_a_model(
            path,
            "is one file of a Hugging Face checkpoint",
            "give the directory that holds it together with config.json",
        )),
        "bin" | "pt" | "pth" => Err(Error::not_a_model(path, PICKLE, PICKLE_REMEDY)),
        _ => Gguf::open(path),
    }
}

pub(crate) const PICKLE: &str = "is a pickled PyTorch checkpoint, which can run code when it is read";
pub(crate) const PICKLE_REMEDY: &str = "convert it once with `model.save_pretrained(DIR, safe_serialization=True)` in Python transformers and open DIR";

/// Regular files of a directory with this extension, sorted.
pub(crate) fn files_ending_in(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(Error::io(directory, "list the directory"))? {
        let path = entry.map_err(Error::io(directory, "list the directory"))?.path();
        if path.extension().is_some_and(|e| e == extension) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
