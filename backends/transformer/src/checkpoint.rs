//! Writing a Hugging Face directory, block by block.
//!
//! All shapes are known from the configuration, so the headers of the safetensors files are written first and every tensor goes to its
//! place as soon as its block is done. What was never given is copied from the model's own files at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use llmcb_model_files::Encoding;
use llmcb_model_files::packed::{
    Bitmask, FloatType, InputActivations, Layout, Quantization, Scheme, TensorSpec, sparsity_to_json,
};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::{Value, json};

use crate::architecture::{ACTIVATIONS, BLOCK_SHAPES, BlockShape};
use crate::block::{Block, StoredLinear};
use crate::formats::{BlockStore, Stored, is_sparse};
use crate::layout::{Names, OuterTensor};
use crate::{ActivationQuantization, Activations, Error, Model, Result};

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

    /// The same for tensors of integer weights.
    pub fn float(self) -> FloatType {
        match self {
            StorageType::F32 => FloatType::F32,
            StorageType::F16 => FloatType::F16,
            StorageType::BF16 => FloatType::BF16,
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            StorageType::F32 => Dtype::F32,
            StorageType::F16 => Dtype::F16,
            StorageType::BF16 => Dtype::BF16,
        }
    }
}

fn dtype_of(encoding: Encoding) -> Option<Dtype> {
    Some(match encoding {
        Encoding::F32 => Dtype::F32,
        Encoding::F16 => Dtype::F16,
        Encoding::BF16 => Dtype::BF16,
        Encoding::U8 => Dtype::U8,
        Encoding::I8 => Dtype::I8,
        Encoding::I32 => Dtype::I32,
        Encoding::I64 => Dtype::I64,
        Encoding::Ggml(_) => return None,
    })
}

/// How a checkpoint is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// The type of all numbers; beside integer codes, of the embedding, the last norm and the head.
    pub storage: StorageType,
    /// The type of what is not integer codes inside blocks, in a checkpoint that has such codes.
    pub block_storage: StorageType,
    /// Most bytes of one file of weights; a larger model is sharded with an index.
    pub max_shard_bytes: usize,
    /// Whether the tokenizer goes with it, as it should unless the model has none.
    pub tokenizer: bool,
}

impl Default for CheckpointOptions {
    fn default() -> Self {
        Self {
            storage: StorageType::F32,
            block_storage: StorageType::F32,
            max_shard_bytes: 5_000_000_000,
            tokenizer: true,
        }
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
    linears: Linears,
    /// How each block rounds its activations.
    activations: Vec<Activations>,
    /// The shape of each block.
    shapes: Vec<BlockShape>,
}

/// How linears are stored.
#[derive(Debug)]
enum Linears {
    Dense,
    Codes {
        scheme: Scheme,
        /// Names, inside a block, of linears that have codes, in order.
        quantised: Vec<String>,
        /// Full names of linears that have none.
        dense: Vec<String>,
    },
    Sparse {
        layout: Bitmask,
        /// Full names of linears that keep their zeros.
        dense: Vec<String>,
        /// Share of zeros in the weights of all linears.
        zero_fraction: f64,
    },
}

/// A tensor of a checkpoint.
struct TensorPlan {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl TensorPlan {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn bytes(&self) -> usize {
        self.elements() * self.dtype.bitsize() / 8
    }
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
    dtype: Dtype,
    written: bool,
}

impl Place {
    fn bytes(&self) -> usize {
        self.elements * self.dtype.bitsize() / 8
    }
}

impl<'a> CheckpointWriter<'a> {
    /// Begins a checkpoint of `model` in `directory`, which is made if it is not there. Files of the same names are replaced.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory or its files cannot be written.
    pub fn create(directory: &Path, model: &'a Model, options: CheckpointOptions) -> Result<Self> {
        let shapes: Vec<BlockShape> = (0..model.block_count())
            .map(|index| model.architecture().of_block(index).block_shape())
            .collect();
        let plan = dense_plan(model, &shapes, options.storage.dtype());
        Self::begin(directory, model, options, shapes, plan, Linears::Dense)
    }

    /// As [`create`](Self::create), for `blocks` that may have lost heads or channels, or are `stored` in another way than as numbers. Blocks
    /// are all the model's, in order.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_of(
        directory: &Path,
        model: &'a Model,
        options: CheckpointOptions,
        stored: Stored,
        blocks: &dyn BlockStore,
    ) -> Result<Self> {
        let shapes = blocks.shapes()?;
        let outer = options.storage.dtype();
        if stored == Stored::Dense {
            let plan = dense_plan(model, &shapes, outer);
            return Self::begin(directory, model, options, shapes, plan, Linears::Dense);
        }
        let names = model.architecture().family.names;
        let inner = options.block_storage.dtype();
        let mut outside = outer_plan(model, outer);
        // The embedding comes first, what follows the blocks after them.
        let mut plan: Vec<TensorPlan> = outside.drain(..1.min(outside.len())).collect();
        let (mut quantised, mut dense) = (Vec::<String>::new(), Vec::new());
        let (mut zeros, mut weights) = (0, 0);
        for index in 0..blocks.count() {
            let block = blocks.block(index)?;
            for linear in block.linears() {
                let full = names.in_block(index, linear.name());
                if let Stored::Sparse(_) = stored {
                    zeros += linear.outputs() * linear.inputs() - linear.nonzeros();
                    weights += linear.outputs() * linear.inputs();
                }
                match parts(linear, stored, options) {
                    Some(parts) => {
                        if !quantised.iter().any(|name| name == linear.name()) {
                            quantised.push(linear.name().to_owned());
                        }
                        for part in parts {
                            let dtype = dtype_of(part.encoding).ok_or_else(|| {
                                Error::argument("checkpoint", "ggml's blocks have no place in safetensors")
                            })?;
                            let name = format!("{full}.{}", part.suffix);
                            plan.push(TensorPlan { name, dtype, shape: part.shape });
                        }
                    }
                    None => {
                        dense.push(full.clone());
                        let shape = vec![linear.outputs(), linear.inputs()];
                        plan.push(TensorPlan { name: format!("{full}.weight"), dtype: inner, shape });
                    }
                }
                if let Some(bias) = linear.bias() {
                    let (name, shape) = (format!("{full}.bias"), vec![bias.len()]);
                    plan.push(TensorPlan { name, dtype: inner, shape });
                }
            }
            plan.extend(norm_plan(model, index, inner));
        }
        plan.extend(outside);
        let linears = match stored {
            Stored::Dense => Linears::Dense,
            Stored::Codes(scheme) => Linears::Codes { scheme, quantised, dense },
            Stored::Sparse(layout) => {
                let zero_fraction = zeros as f64 / weights.max(1) as f64;
                Linears::Sparse { layout, dense, zero_fraction }
            }
        };
        Self::begin(directory, model, options, shapes, plan, linears)
    }

    fn begin(
        directory: &Path,
        model: &'a Model,
        options: CheckpointOptions,
        shapes: Vec<BlockShape>,
        plan: Vec<TensorPlan>,
        linears: Linears,
    ) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(Error::io(directory, "make the directory"))?;
        let mut groups: Vec<Vec<TensorPlan>> = vec![Vec::new()];
        let mut bytes = 0;
        for tensor in plan {
            let size = tensor.bytes();
            if bytes > 0 && bytes + size > options.max_shard_bytes {
                groups.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            if let Some(group) = groups.last_mut() {
                group.push(tensor);
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
            for tensor in &group {
                let size = tensor.bytes();
                let info = TensorInfo {
                    dtype: tensor.dtype,
                    shape: tensor.shape.clone(),
                    data_offsets: (end, end + size),
                };
                infos.push((tensor.name.clone(), info));
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
            for tensor in group {
                let (elements, dtype, size) = (tensor.elements(), tensor.dtype, tensor.bytes());
                tensors.insert(tensor.name, Place { shard: i, offset, elements, dtype, written: false });
                offset += size as u64;
            }
            shards.push(Shard { path, file });
        }
        let activations = vec![Activations::default(); model.block_count()];
        Ok(Self {
            model,
            directory: directory.to_owned(),
            options,
            shards,
            tensors,
            linears,
            activations,
            shapes,
        })
    }

    /// Writes a tensor by its Hugging Face name, row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] if the model has no such tensor, the number of values is another, or one does not fit the storage type;
    /// [`Error::Io`] if it cannot be written.
    pub fn write_tensor(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let storage = match self.place(name, values.len())?.dtype {
            Dtype::F32 => StorageType::F32,
            Dtype::F16 => StorageType::F16,
            Dtype::BF16 => StorageType::BF16,
            other => {
                return Err(Error::argument(
                    format!("tensor `{name}`"),
                    format!("numbers were given, but it is stored as {other}"),
                ));
            }
        };
        if storage == StorageType::F16
            && let Some(v) = values.iter().find(|v| v.is_finite() && v.abs() >= 65_520.0)
        {
            return Err(Error::argument(
                format!("tensor `{name}`"),
                format!(
                    "the value {v} is beyond half precision; store the checkpoint as bfloat16 or float32"
                ),
            ));
        }
        self.write(name, |file, offset| write_values(file, offset, values, storage))
    }

    /// The place of a tensor that has so many elements.
    fn place(&self, name: &str, elements: usize) -> Result<&Place> {
        let Some(place) = self.tensors.get(name) else {
            return Err(Error::argument(
                format!("tensor `{name}`"),
                "a checkpoint of this model has none of this name",
            ));
        };
        if elements != place.elements {
            return Err(Error::argument(
                format!("tensor `{name}`"),
                format!("{elements} values were given, but it has {}", place.elements),
            ));
        }
        Ok(place)
    }

    fn write(&mut self, name: &str, write: impl FnOnce(&mut File, u64) -> std::io::Result<()>) -> Result<()> {
        if let Some(place) = self.tensors.get_mut(name) {
            let shard = &mut self.shards[place.shard];
            let writing = Error::io(&shard.path, "write a tensor");
            write(&mut shard.file, place.offset).map_err(writing)?;
            place.written = true;
        }
        Ok(())
    }

    fn names(&self) -> &'static Names {
        self.model.architecture().family.names
    }

    /// Writes a linear of a block in the parts that it is stored in; `false`: it is stored as numbers.
    fn write_linear(&mut self, index: usize, linear: &str, block: &Block) -> Result<bool> {
        let owner = self.names().in_block(index, linear);
        let wrong = |problem: String| Error::argument(format!("weight of `{owner}`"), problem);
        let found = block.linear(linear)?;
        let (specs, parts) = match (&self.linears, found.integers()) {
            (Linears::Codes { scheme, .. }, Some(matrix)) => {
                let parts = scheme.encode(&matrix).map_err(|e| wrong(e.to_string()))?;
                (scheme.tensors(matrix.rows, matrix.columns), parts)
            }
            (Linears::Sparse { layout, dense, .. }, _) if !dense.contains(&owner) => {
                let (values, rows, columns) = (found.weight(), found.outputs(), found.inputs());
                let numbers = self.options.block_storage.float();
                let parts = layout.encode(&values, columns, numbers).map_err(|e| wrong(e.to_string()))?;
                (layout.tensors(&values, rows, columns, numbers), parts)
            }
            _ => return Ok(false),
        };
        for (part, bytes) in specs.iter().zip(parts) {
            let name = format!("{owner}.{}", part.suffix);
            let expected = self.tensors.get(&name).map(Place::bytes);
            if expected != Some(bytes.len()) {
                return Err(wrong(format!(
                    "`{}` takes {} bytes, {expected:?} planned",
                    part.suffix,
                    bytes.len()
                )));
            }
            self.write(&name, |file, offset| {
                file.seek(SeekFrom::Start(offset))?;
                file.write_all(&bytes)
            })?;
        }
        Ok(true)
    }

    /// Writes all tensors of block `index`.
    ///
    /// # Errors
    /// As [`write_tensor`](Self::write_tensor).
    pub fn write_block(&mut self, index: usize, block: &Block) -> Result<()> {
        if let Some(activations) = self.activations.get_mut(index) {
            *activations = *block.activations();
        }
        for name in block.tensor_names() {
            let linear = name.strip_suffix(".weight").filter(|linear| block.linear(linear).is_ok());
            if let Some(linear) = linear
                && self.write_linear(index, linear, block)?
            {
                continue;
            }
            self.write_tensor(&self.names().in_block(index, &name), &block.tensor(&name)?)?;
        }
        Ok(())
    }

    /// Writes what was not given from the model as it is, then the configuration and the tokenizer.
    ///
    /// # Errors
    /// If the model's tensors or tokenizer cannot be read, or [`Error::Io`].
    pub fn finish(mut self) -> Result<()> {
        let names = self.names();
        for index in 0..self.model.block_count() {
            let first = names.norms.first().map(|norm| format!("{}.weight", names.in_block(index, norm)));
            if first.and_then(|name| self.tensors.get(&name)).is_some_and(|place| !place.written) {
                let block = self.model.block(index)?;
                self.activations[index] = *block.activations();
                for name in block.tensor_names() {
                    let full = names.in_block(index, &name);
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
                total += place.bytes();
            }
            let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
            self.write_json("model.safetensors.index.json", &index)?;
        }
        if self.options.tokenizer
            && let Some(files) = self.model.files()
        {
            files.tokenizer()?.save(&self.directory)?;
        }
        let mut config = hub_config(self.model, &self.shapes, self.options.storage);
        match &self.linears {
            Linears::Dense => {}
            Linears::Codes { scheme, quantised, dense } => {
                let inputs = self.inputs_alike().map(|rounding| InputActivations {
                    bits: rounding.bits,
                    symmetric: rounding.symmetric,
                    dynamic: true,
                    per_token: true,
                });
                let quantization = Quantization::new(*scheme).with_input_activations(inputs);
                config["quantization_config"] = quantization.to_json(dense, quantised);
                // What the kernels that read these two layouts compute in.
                let half = matches!(scheme.layout, Layout::Gptq | Layout::Awq);
                if half && self.options.storage == StorageType::F32 {
                    config["torch_dtype"] = json!(StorageType::F16.torch_name());
                }
            }
            Linears::Sparse { layout, dense, zero_fraction } => {
                config["quantization_config"] = sparsity_to_json(*layout, *zero_fraction, dense);
            }
        }
        // Only this says it whole: other tools have no words for most sites, and compressed-tensors rounds by another rule.
        if self.activations.iter().any(Activations::any) {
            config[ACTIVATIONS] = self.activations.iter().map(Activations::to_json).collect();
        }
        self.write_json("config.json", &config)
    }

    /// How the inputs of all linears of all blocks are rounded, if all are alike.
    fn inputs_alike(&self) -> Option<ActivationQuantization> {
        let first = self.activations.first()?.inputs_alike()?;
        self.activations.iter().all(|a| a.inputs_alike() == Some(first)).then_some(first)
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

/// The tensors that a linear is stored as; none: its weight, as numbers.
fn parts(linear: StoredLinear<'_>, stored: Stored, options: CheckpointOptions) -> Option<Vec<TensorSpec>> {
    let (rows, columns) = (linear.outputs(), linear.inputs());
    let numbers = options.block_storage.float();
    match stored {
        Stored::Dense => None,
        Stored::Codes(scheme) => linear.has_codes().then(|| scheme.tensors(rows, columns)),
        Stored::Sparse(layout) => is_sparse(linear, layout, numbers)
            .then(|| layout.tensors(&linear.weight(), rows, columns, numbers)),
    }
}

/// The shape that all blocks have, if it is one.
pub(crate) fn common_shape(shapes: &[BlockShape]) -> Option<BlockShape> {
    shapes.first().filter(|first| shapes.iter().all(|shape| shape == *first)).copied()
}

/// What lies outside the blocks.
fn outer_plan(model: &Model, dtype: Dtype) -> Vec<TensorPlan> {
    OuterTensor::of(model.architecture()).map(|(_, name, shape)| TensorPlan { name, dtype, shape }).collect()
}

/// The norms of a block.
fn norm_plan(model: &Model, index: usize, dtype: Dtype) -> Vec<TensorPlan> {
    let architecture = model.architecture();
    let names = architecture.family.names;
    let kinds: &[&str] = if architecture.norm.has_bias() { &["weight", "bias"] } else { &["weight"] };
    let name = |norm: &str, kind: &str| format!("{}.{kind}", names.in_block(index, norm));
    let of = |norm: &'static str| kinds.iter().map(move |kind| name(norm, kind));
    let all = names.norms.into_iter().flat_map(of);
    all.map(|name| TensorPlan { name, dtype, shape: vec![architecture.hidden_size] }).collect()
}

/// All tensors of the model with blocks of these shapes, as numbers, in order.
fn dense_plan(model: &Model, shapes: &[BlockShape], dtype: Dtype) -> Vec<TensorPlan> {
    let names = model.architecture().family.names;
    let mut outside = outer_plan(model, dtype);
    let mut plan: Vec<TensorPlan> = outside.drain(..1.min(outside.len())).collect();
    for (index, shape) in shapes.iter().enumerate() {
        let architecture = model.architecture().with_shape(*shape);
        for linear in names.linears {
            let full = names.in_block(index, linear.name);
            let (outputs, inputs) = linear.shape(&architecture);
            let shape = vec![outputs, inputs];
            plan.push(TensorPlan { name: format!("{full}.weight"), dtype, shape });
            if linear.has_bias(&architecture) {
                plan.push(TensorPlan { name: format!("{full}.bias"), dtype, shape: vec![outputs] });
            }
        }
        plan.extend(norm_plan(model, index, dtype));
    }
    plan.extend(outside);
    plan
}

/// The model's configuration for a dense checkpoint, as Python `transformers` reads it.
fn hub_config(model: &Model, shapes: &[BlockShape], storage: StorageType) -> Value {
    let a = model.architecture();
    let mut config = model.original_config().clone();
    if let Some(object) = config.as_object_mut() {
        // Whatever the weights were stored as.
        object.remove("quantization_config");
        object.remove("compression_config");
        object.remove("dtype");
        object.remove(ACTIVATIONS);
        object.remove(BLOCK_SHAPES);
        match common_shape(shapes) {
            Some(shape) if shape == a.block_shape() => {}
            Some(shape) => a.with_shape(shape).spell(object),
            None => {
                object.insert(BLOCK_SHAPES.to_owned(), json!(shapes));
            }
        }
        // A family may have several classes of its own; one that the model names is kept.
        object.entry("architectures").or_insert_with(|| json!([a.family.class]));
        object.insert("torch_dtype".to_owned(), json!(storage.torch_name()));
        object.insert("tie_word_embeddings".to_owned(), json!(a.tie_word_embeddings));
    }
    config
}
