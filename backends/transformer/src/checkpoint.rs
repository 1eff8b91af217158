//! Writing a Hugging Face directory, block by block.
//!
//! All shapes are known from the configuration, so the headers of the safetensors files are written first and every tensor goes to its
//! place as soon as its block is done. What was never given is copied from the model's own files at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::{Value, json};

use crate::block::{ATTENTION_NORM, Block, MLP_NORM, Role, tensor_name};
use crate::model::{EMBEDDING, FINAL_NORM, OUTPUT_HEAD};
use crate::{Error, Model, Result};

/// The type that a checkpoint's numbers are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum StorageType {
    /// Single precision: nothing is lost.
    #[default]
    F32,
    /// Half precision.
    F16,
    /// bfloat16.
    BF16,
}

impl StorageType {
    /// The name in a `config.json`.
    pub fn torch_name(self) -> &'static str {
        match self {
            StorageType::F32 => "float32",
            StorageType::F16 => "float16",
            StorageType::BF16 => "bfloat16",
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            StorageType::F32 => Dtype::F32,
            StorageType::F16 => Dtype::F16,
            StorageType::BF16 => Dtype::BF16,
        }
    }

    fn bytes(self) -> usize {
        match self {
            StorageType::F32 => 4,
            StorageType::F16 | StorageType::BF16 => 2,
        }
    }
}

/// How a checkpoint is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// The type of all numbers.
    pub storage: StorageType,
    /// Most bytes of one file of weights; a larger model is sharded with an index.
    pub max_shard_bytes: usize,
    /// Whether the tokenizer goes with it, as it should unless the model has none.
    pub tokenizer: bool,
}

impl Default for CheckpointOptions {
    fn default() -> Self {
        Self { storage: StorageType::F32, max_shard_bytes: 5_000_000_000, tokenizer: true }
    }
}

/// A checkpoint in the making.
#[derive(Debug)]
pub struct CheckpointWriter<'a> {
    model: &'a Model,
    directory: PathBuf,
    options: CheckpointOptions,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
}

#[derive(Debug)]
struct Place {
    shard: usize,
    /// From the start of the file.
    offset: u64,
    elements: usize,
    written: bool,
}

impl<'a> CheckpointWriter<'a> {
    /// Begins a checkpoint of `model` in `directory`, which is made if it is not there. Files of the same names are replaced.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory or its files cannot be written.
    pub fn create(directory: &Path, model: &'a Model, options: CheckpointOptions) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(Error::io(directory, "make the directory"))?;
        let layout = tensor_shapes(model);
        let mut groups: Vec<Vec<(String, Vec<usize>)>> = vec![Vec::new()];
        let mut bytes = 0;
        for (name, shape) in layout {
            let size = shape.iter().product::<usize>() * options.storage.bytes();
            if bytes > 0 && bytes + size > options.max_shard_bytes {
                groups.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            if let Some(group) = groups.last_mut() {
                group.push((name, shape));
            }
        }
        let count = groups.len();
        let mut shards = Vec::new();
        let mut tensors = BTreeMap::new();
        for (i, group) in groups.into_iter().enumerate() {
            let name = if count == 1 {
                "model.safetensors".to_owned()
            } else {
                format!("model-{:05}-of-{count:05}.safetensors", i + 1)
            };
            let path = directory.join(name);
            let mut infos = Vec::new();
            let mut end = 0;
            for (name, shape) in &group {
                let size = shape.iter().product::<usize>() * options.storage.bytes();
                let info = TensorInfo {
                    dtype: options.storage.dtype(),
                    shape: shape.clone(),
                    data_offsets: (end, end + size),
                };
                infos.push((name.clone(), info));
                end += size;
            }
            let format = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
            let metadata = Metadata::new(Some(format), infos).map_err(|e| {
                Error::argument("checkpoint", format!("its tensors do not make a safetensors file: {e}"))
            })?;
            let mut header = serde_json::to_vec(&metadata)
                .map_err(|e| Error::argument("checkpoint", format!("its header cannot be written: {e}")))?;
            header.resize(header.len().next_multiple_of(8), b' ');
            let mut file = File::create(&path).map_err(Error::io(&path, "make the file"))?;
            let start = 8 + header.len() as u64;
            let writing = Error::io(&path, "write the header");
            let written = file
                .write_all(&(header.len() as u64).to_le_bytes())
                .and_then(|()| file.write_all(&header))
                .and_then(|()| file.set_len(start + end as u64));
            written.map_err(writing)?;
            let mut offset = start;
            for (name, shape) in group {
                let elements = shape.iter().product::<usize>();
                tensors.insert(name, Place { shard: i, offset, elements, written: false });
                offset += (elements * options.storage.bytes()) as u64;
            }
            shards.push(Shard { path, file });
        }
        Ok(Self { model, directory: directory.to_owned(), options, shards, tensors })
    }

    /// Writes a tensor by its Hugging Face name, row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] if the model has no such tensor, the number of values is another, or one does not fit the storage type;
    /// [`Error::Io`] if it cannot be written.
    pub fn write_tensor(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let Some(place) = self.tensors.get_mut(name) else {
            return Err(Error::argument(
                format!("tensor `{name}`"),
                "a checkpoint of this model has none of this name",
            ));
        };
        if values.len() != place.elements {
            return Err(Error::argument(
                format!("tensor `{name}`"),
                format!("{} values were given, but it has {}", values.len(), place.elements),
            ));
        }
        if self.options.storage == StorageType::F16
            && let Some(v) = values.iter().find(|v| v.is_finite() && v.abs() >= 65_520.0)
        {
            return Err(Error::argument(
                format!("tensor `{name}`"),
                format!(
                    "the value {v} is beyond half precision; store the checkpoint as bfloat16 or float32"
                ),
            ));
        }
        let shard = &mut self.shards[place.shard];
        let writing = Error::io(&shard.path, "write a tensor");
        write_values(&mut shard.file, place.offset, values, self.options.storage).map_err(writing)?;
        place.written = true;
        Ok(())
    }

    /// Writes all tensors of block `index`.
    ///
    /// # Errors
    /// As [`write_tensor`](Self::write_tensor).
    pub fn write_block(&mut self, index: usize, block: &Block) -> Result<()> {
        for name in block.tensor_names() {
            self.write_tensor(&format!("model.layers.{index}.{name}"), &block.tensor(&name)?)?;
        }
        Ok(())
    }

    /// Writes what was not given from the model as it is, then the configuration and the tokenizer.
    ///
    /// # Errors
    /// If the model's tensors or tokenizer cannot be read, or [`Error::Io`].
    pub fn finish(mut self) -> Result<()> {
        for index in 0..self.model.block_count() {
            let query = tensor_name(index, Role::Query.name(), "weight");
            if self.tensors.get(&query).is_some_and(|place| !place.written) {
                let block = self.model.block(index)?;
                for name in block.tensor_names() {
                    let full = format!("model.layers.{index}.{name}");
                    if self.tensors.get(&full).is_some_and(|place| !place.written) {
                        self.write_tensor(&full, &block.tensor(&name)?)?;
                    }
                }
            }
        }
        let missing: Vec<String> =
            self.tensors.iter().filter(|(_, place)| !place.written).map(|(name, _)| name.clone()).collect();
        for name in missing {
            let values = self.model.source().load(&name).map_err(|e| e.of_model(self.model.name()))?;
            self.write_tensor(&name, &values)?;
        }
        for shard in &self.shards {
            shard.file.sync_all().map_err(Error::io(&shard.path, "write the file"))?;
        }
        if self.shards.len() > 1 {
            let mut map = serde_json::Map::new();
            let mut total = 0;
            for (name, place) in &self.tensors {
                let file = self.shards[place.shard].path.file_name().unwrap_or_default().to_string_lossy();
                map.insert(name.clone(), json!(file));
                total += place.elements * self.options.storage.bytes();
            }
            let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
            self.write_json("model.safetensors.index.json", &index)?;
        }
        if self.options.tokenizer
            && let Some(files) = self.model.files()
        {
            files.tokenizer()?.save(&self.directory)?;
        }
        self.write_json("config.json", &hub_config(self.model, self.options.storage))
    }

    fn write_json(&self, name: &str, value: &Value) -> Result<()> {
        let path = self.directory.join(name);
        let text = format!("{value:#}\n");
        std::fs::write(&path, text).map_err(Error::io(&path, "write the file"))
    }
}

fn write_values(file: &mut File, offset: u64, values: &[f32], storage: StorageType) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut bytes = Vec::new();
    for chunk in values.chunks(1 << 16) {
        bytes.clear();
        match storage {
            StorageType::F32 => bytes.extend(chunk.iter().flat_map(|v| v.to_le_bytes())),
            StorageType::F16 => {
                bytes.extend(chunk.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()))
            }
            StorageType::BF16 => {
                bytes.extend(chunk.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()))
            }
        }
        out.write_all(&bytes)?;
    }
    out.flush()
}

/// Names and shapes of all tensors of a checkpoint, in order.
fn tensor_shapes(model: &Model) -> Vec<(String, Vec<usize>)> {
    let c = model.config();
    let mut shapes = vec![(EMBEDDING.to_owned(), vec![c.vocab_size, c.hidden_size])];
    for index in 0..c.num_hidden_layers {
        for role in Role::ALL {
            let (outputs, inputs) = role.shape(c);
            shapes.push((tensor_name(index, role.name(), "weight"), vec![outputs, inputs]));
            if role.has_bias(c) {
                shapes.push((tensor_name(index, role.name(), "bias"), vec![outputs]));
            }
        }
        for norm in [ATTENTION_NORM, MLP_NORM] {
            shapes.push((tensor_name(index, norm, "weight"), vec![c.hidden_size]));
        }
    }
    shapes.push((FINAL_NORM.to_owned(), vec![c.hidden_size]));
    if !c.tie_word_embeddings {
        shapes.push((OUTPUT_HEAD.to_owned(), vec![c.vocab_size, c.hidden_size]));
    }
    shapes
}

/// The model's configuration for a dense checkpoint, as Python `transformers` reads it.
fn hub_config(model: &Model, storage: StorageType) -> Value {
    let c = model.config();
    let mut config = model.original_config().clone();
    let class = match c.architecture.as_str() {
        "qwen2" => "Qwen2ForCausalLM",
        "mistral" => "MistralForCausalLM",
        _ => "LlamaForCausalLM",
    };
    if let Some(object) = config.as_object_mut() {
        // The weights are dense now, whatever they were.
        object.remove("quantization_config");
        object.remove("dtype");
        object.insert("architectures".to_owned(), json!([class]));
        object.insert("torch_dtype".to_owned(), json!(storage.torch_name()));
        object.insert("tie_word_embeddings".to_owned(), json!(c.tie_word_embeddings));
        object.entry("hidden_act").or_insert_with(|| json!("silu"));
        object.entry("rope_theta").or_insert_with(|| json!(c.rope_theta));
    }
    config
}
