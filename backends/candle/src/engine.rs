//! The engine: a model opened for a method, block by block.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use llmcb_model_files::packed::{FloatType, IntegerMatrix};
use llmcb_plugin_api::sdk::{
    ActivationQuantization, BlockInfo, CalibrationPlan, CheckpointInfo, Engine, Error, GradientRequest,
    Gradients, Host, InputStatistics, LossGradient, ModelGradients, ModelInfo, ModelStructure, Parameter,
    QuantizedWeight, Result, StatisticsRequest, Tensor,
};
use llmcb_runner_kit::{Checkpoint, translate};
use llmcb_transformer::{
    ActivationSite, Block, BlockInputs, BlockStore, CalibrationOptions, Calibrator, CheckpointOptions,
    CheckpointWriter, FORMATS, FormatChoice, GgufType, InputGroup, Precision, Statistic, StatisticKind,
    StatisticRequest, StorageFormat, StorageType, Stored, Structure, model_gradients, write_gguf,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::block_file;
use crate::description::{self, HIDDEN, shape_of};
use crate::finished::Finished;
use crate::opened::{self, Residency};

/// Number type of the checkpoints that are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// F32; but beside integer codes, embedding and head as the model's own files have them where that is F16 or BF16.
    #[default]
    Auto,
    /// 32 bits: what a method made is kept exactly.
    F32,
    /// IEEE half precision: half the size; weights are rounded.
    F16,
    /// bfloat16: half the size; weights are rounded.
    Bf16,
}

/// Values of the option `format` that are offered.
fn formats() -> Vec<&'static str> {
    [&["auto"][..], &FORMATS].concat()
}

/// Options of the engine.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EngineOptions {
    /// Format of the checkpoints that are written: `dense`, `gptq`, `awq`, `compressed-tensors` (with
    /// `:pack-quantized` or `:int-quantized` for integer codes, `:sparse-bitmask` or `:sparse-24-bitmask` for numbers without their
    /// zeros), or `auto`: `gptq` for integer codes, or what else holds them, and
    /// `dense` for numbers; `auto:FORMAT` prefers that format. Scales of integer codes are rounded to the precision
    /// that the format stores them in when a method hands them over: what it goes on with is what is evaluated.
    #[schemars(extend("enum" = formats()))]
    pub format: String,
    /// Number type of the checkpoints that are written.
    pub storage: Storage,
    /// Calibration tokens that run through a block at once; bounds memory, does not change results.
    #[schemars(range(min = 1))]
    pub batch_tokens: usize,
    /// Most memory, in MiB, for the activations of all calibration tokens; what is beyond goes to temporary files, which changes no
    /// result. 0: no bound.
    pub activation_memory: usize,
    /// Folder of those files; empty: where the system keeps large temporary files (`TMPDIR`, else /var/tmp).
    pub spill_directory: String,
    /// Tokens at the beginning of each calibration window that statistics leave out. Without a beginning-of-sequence
    /// token, the first one often carries a massive activation that drowns all others.
    pub skip_first: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        let defaults = CalibrationOptions::default();
        EngineOptions {
            format: "auto".to_owned(),
            storage: Storage::default(),
            batch_tokens: defaults.batch_tokens,
            activation_memory: 0,
            spill_directory: String::new(),
            skip_first: defaults.skip_first,
        }
    }
}

/// The engine.
pub struct CandleEngine {
    opened: Checkpoint,
    options: EngineOptions,
    format: FormatChoice,
    walk: Walk,
    /// A file that has the open block as it is.
    saved: Option<File>,
    /// Blocks that were closed, in order.
    finished: Finished,
    zeros: u64,
    weights: u64,
}

/// How the blocks are walked: with calibration data, or without.
enum Walk {
    Calibrated(Box<Calibrator>),
    Plain(Option<Box<Block>>),
}

fn no_calibration() -> Error {
    Error::unsupported(
        "there is no calibration data, so no activations; the method must say that it needs calibration",
    )
}

impl Walk {
    fn block(&self) -> Result<&Block> {
        match self {
            Walk::Calibrated(calibrator) => calibrator.block().map_err(translate),
            Walk::Plain(block) => block.as_deref().ok_or_else(|| Error::failed("no block is open")),
        }
    }

    /// Changes the open block.
    fn change(&mut self, change: impl FnOnce(&mut Block) -> llmcb_transformer::Result<()>) -> Result<()> {
        match self {
            Walk::Calibrated(calibrator) => calibrator.change_block(change).map_err(translate),
            Walk::Plain(Some(block)) => change(block).map_err(translate),
            Walk::Plain(None) => Err(Error::failed("no block is open")),
        }
    }

    fn calibrated(&mut self) -> Result<&mut Calibrator> {
        match self {
            Walk::Calibrated(calibrator) => Ok(calibrator),
            Walk::Plain(_) => Err(no_calibration()),
        }
    }
}

/// A statistic that several linears share.
struct Shared {
    values: Arc<Vec<f32>>,
    shape: Vec<usize>,
    tokens: u64,
}

/// Name of a parameter's tensor inside a block: biases are named in full, weights by their linear or norm.
fn tensor_name(parameter: &str) -> String {
    if parameter.ends_with(".bias") { parameter.to_owned() } else { format!("{parameter}.weight") }
}

/// The same rounding in the words of the library that computes.
fn of_transformer(quantization: ActivationQuantization) -> llmcb_transformer::ActivationQuantization {
    let ActivationQuantization { bits, symmetric, range } = quantization;
    llmcb_transformer::ActivationQuantization { bits, symmetric, range, full_range: false }
}

fn trial_tensors(trial: &[(String, Tensor)]) -> Result<Vec<(String, Vec<f32>)>> {
    trial.iter().map(|(name, tensor)| Ok((tensor_name(name), tensor.to_f32()?))).collect()
}

fn check_shape(name: &str, weight: &Tensor, shape: &[usize]) -> Result<()> {
    if weight.shape() == shape {
        return Ok(());
    }
    Err(Error::invalid(format!("weight of {name} has shape {:?}, not {shape:?}", weight.shape())))
}

fn open(file: &Path) -> Result<File> {
    File::open(file).map_err(|e| Error::failed(format!("cannot open {}: {e}", file.display())))
}

/// Windows or units as this side counts them.
fn indices(given: &[u32]) -> Vec<usize> {
    given.iter().map(|index| *index as usize).collect()
}

impl CandleEngine {
    fn shape_of(&self, name: &str) -> Result<Vec<usize>> {
        shape_of(&self.walk.block()?.info(), name)
    }

    fn describe_block(&self, block: &Block, index: u32) -> BlockInfo {
        let windows = match &self.walk {
            Walk::Calibrated(calibrator) => calibrator.windows(),
            Walk::Plain(_) => 0,
        };
        description::block(block, index, self.opened.model.block_count(), windows)
    }

    /// Changes the open block, which no file has as it is any more.
    fn change(&mut self, change: impl FnOnce(&mut Block) -> llmcb_transformer::Result<()>) -> Result<()> {
        self.saved = None;
        self.walk.change(change)
    }

    /// A block as it is: as it was left, or dense.
    fn present(&self, index: u32) -> Result<Block> {
        let index = index as usize;
        let found = if index < self.finished.len() {
            self.finished.block(index)
        } else {
            self.opened.model.block(index)
        };
        found.map_err(translate)
    }

    fn input_group(&self, linear: &str) -> Result<InputGroup> {
        let info = self.opened.model.block_info().linear(linear).map_err(translate)?;
        Ok(info.input)
    }

    /// The types of numbers in the checkpoint: of what lies outside blocks beside integer codes, and of all others.
    fn storage_types(&self) -> (StorageType, StorageType) {
        match self.options.storage {
            Storage::Auto => {
                let outside = match self.opened.info.source_precision.as_str() {
                    "F16" => StorageType::F16,
                    "BF16" => StorageType::BF16,
                    _ => StorageType::F32,
                };
                (outside, StorageType::F32)
            }
            Storage::F32 => (StorageType::F32, StorageType::F32),
            Storage::F16 => (StorageType::F16, StorageType::F16),
            Storage::Bf16 => (StorageType::BF16, StorageType::BF16),
        }
    }

    fn zero_fraction(&self) -> f64 {
        self.zeros as f64 / self.weights.max(1) as f64
    }

    /// What lies in a checkpoint's directory, measured.
    fn describe(&self, directory: &Path, format: String, notes: Vec<String>) -> Result<CheckpointInfo> {
        let unreadable = |e: std::io::Error| Error::failed(format!("{}: {e}", directory.display()));
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let size = entry.metadata().map_err(unreadable)?.len();
            files.push((entry.file_name().to_string_lossy().into_owned(), size));
        }
        files.sort();
        let is_weights = |name: &str| name.ends_with(".safetensors") || name.ends_with(".gguf");
        let weight_bytes = files.iter().filter(|(name, _)| is_weights(name)).map(|(_, size)| size).sum();
        Ok(CheckpointInfo { files, weight_bytes, format, zero_fraction: self.zero_fraction(), notes })
    }

    fn save_gguf(&self, directory: &Path, kind: GgufType, outside: StorageType) -> Result<CheckpointInfo> {
        let summary =
            write_gguf(directory, &self.opened.model, &self.finished, kind, outside).map_err(translate)?;
        let all = summary.linears();
        let mut notes = Vec::new();
        if summary.rounded > 0 {
            notes.push(format!(
                "values of {} of {all} linears were rounded (numbers to {}, or scales and minima of codes to half precision)",
                summary.rounded,
                kind.name()
            ));
        }
        if summary.requantised > 0 {
            let reason = summary.reason.map_or(String::new(), |reason| format!(": {reason}"));
            notes.push(format!(
                "values of {} of {all} linears were requantised to {}{reason}; what is evaluated is not quite what the method made",
                summary.requantised,
                kind.name()
            ));
        }
        let format = format!("gguf {}; embedding and head {}", kind.name(), outside.torch_name());
        self.describe(directory, format, notes)
    }

    /// The type in which the format stores scales.
    fn scale_type(&self) -> FloatType {
        let stored = match (self.format.format, self.storage_types().1) {
            // Numbers that the codes stand for are rounded anyway when a dense checkpoint is not F32.
            (Some(StorageFormat::Dense), _) | (_, StorageType::F32) => FloatType::F32,
            (_, StorageType::F16) => FloatType::F16,
            (_, StorageType::BF16) => FloatType::BF16,
        };
        self.format.scale_type(stored)
    }

    fn kinds(request: &StatisticsRequest) -> Vec<StatisticKind> {
        [
            request.gram.then_some(StatisticKind::Gram),
            request.sum_squares.then_some(StatisticKind::SquaredSums),
            request.abs_max.then_some(StatisticKind::AbsMax),
            request.abs_mean.then_some(StatisticKind::AbsMean),
            (request.rows > 0).then_some(StatisticKind::Rows { count: request.rows }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Engine for CandleEngine {
    type Options = EngineOptions;

    fn open(model: &Path, options: EngineOptions, host: &Host) -> Result<Self> {
        let format = options.format.parse().map_err(|e| Error::invalid(format!("{e}")))?;
        // Methods work on the numbers as they are, one block at a time.
        let opened = opened::open(model, Precision::F32, Residency::Stream, host)?;
        Ok(CandleEngine {
            finished: Finished::new(opened.model.architecture().clone()),
            opened,
            options,
            format,
            walk: Walk::Plain(None),
            saved: None,
            zeros: 0,
            weights: 0,
        })
    }

    fn model(&self) -> ModelInfo {
        self.opened.info.clone()
    }

    fn encode(&self, texts: &[String], add_special: bool) -> Result<Vec<Vec<u32>>> {
        self.opened.encode(texts, add_special)
    }

    fn calibrate(&mut self, windows: &[Vec<u32>], plan: &CalibrationPlan) -> Result<()> {
        self.finished = Finished::new(self.opened.model.architecture().clone());
        self.walk = if windows.is_empty() {
            Walk::Plain(None)
        } else {
            let options = CalibrationOptions {
                batch_tokens: self.options.batch_tokens,
                skip_first: self.options.skip_first,
                inputs: match plan.inputs {
                    llmcb_plugin_api::sdk::BlockInputs::Compressed => BlockInputs::Compressed,
                    llmcb_plugin_api::sdk::BlockInputs::Dense => BlockInputs::Dense,
                },
                dense_targets: plan.dense_targets,
                activation_bytes: match self.options.activation_memory {
                    0 => None,
                    mebibytes => Some(mebibytes.saturating_mul(1 << 20)),
                },
                spill_directory: match self.options.spill_directory.as_str() {
                    "" => None,
                    folder => Some(folder.into()),
                },
            };
            let calibrator = Calibrator::new(Arc::clone(&self.opened.model), windows.to_vec(), options);
            Walk::Calibrated(Box::new(calibrator.map_err(translate)?))
        };
        Ok(())
    }

    fn open_block(&mut self, index: u32) -> Result<BlockInfo> {
        let model = &self.opened.model;
        let at = index as usize;
        if at != self.finished.len() {
            let next = self.finished.len();
            return Err(Error::failed(format!("block {at} cannot be opened: the next one is {next}")));
        }
        match &mut self.walk {
            Walk::Calibrated(calibrator) => calibrator.open_block(at).map_err(translate)?,
            Walk::Plain(Some(_)) => return Err(Error::failed("a block is open already")),
            Walk::Plain(block) => *block = Some(Box::new(model.block(at).map_err(translate)?)),
        }
        self.block_info()
    }

    fn block_info(&self) -> Result<BlockInfo> {
        Ok(self.describe_block(self.walk.block()?, self.finished.len() as u32))
    }

    fn weight(&self, name: &str) -> Result<Tensor> {
        let shape = self.shape_of(name)?;
        Tensor::from_vec(self.walk.block()?.tensor(&tensor_name(name)).map_err(translate)?, &shape)
    }

    fn set_weight(&mut self, name: &str, weight: Tensor) -> Result<()> {
        let shape = self.shape_of(name)?;
        check_shape(name, &weight, &shape)?;
        let values = weight.to_f32()?;
        self.change(|block| block.set_tensor(&tensor_name(name), values))
    }

    fn set_quantized(&mut self, name: &str, weight: QuantizedWeight) -> Result<()> {
        let shape = self.shape_of(name)?;
        if shape != [weight.rows, weight.columns] {
            return Err(Error::invalid(format!(
                "quantised weight of {name} has shape [{}, {}], not {shape:?}",
                weight.rows, weight.columns
            )));
        }
        let scales = self.scale_type();
        let QuantizedWeight { rows, columns, bits, group_size, symmetric, codes, zeros, group_index, .. } =
            weight;
        let codes = IntegerMatrix {
            rows,
            columns,
            bits,
            group_size,
            symmetric,
            codes,
            scales: weight.scales.iter().map(|scale| scales.round(*scale)).collect(),
            zeros,
            group_index,
        };
        let codes = codes.without_plain_index();
        self.format.check(name, &codes, scales).map_err(|e| Error::invalid(e.to_string()))?;
        self.change(|block| block.set_integers(name, &codes))
    }

    fn input_statistics(&mut self, request: &StatisticsRequest) -> Result<Vec<InputStatistics>> {
        let kinds = Self::kinds(request);
        let groups =
            request.linears.iter().map(|linear| self.input_group(linear)).collect::<Result<Vec<_>>>()?;
        // One request for each group and kind; linears of one group share the answer without a copy.
        let mut asked: Vec<(InputGroup, StatisticKind)> = Vec::new();
        let mut requests = Vec::new();
        for (linear, group) in request.linears.iter().zip(&groups) {
            for kind in &kinds {
                if !asked.contains(&(*group, *kind)) {
                    asked.push((*group, *kind));
                    requests.push(StatisticRequest { linear: linear.clone(), kind: *kind });
                }
            }
        }
        let calibrator = self.walk.calibrated()?;
        let sequences = calibrator.windows() as u64;
        let answers = if request.dense_model {
            calibrator.dense_input_statistics(&requests)
        } else {
            calibrator.input_statistics(&requests)
        };
        let answers = answers.map_err(translate)?;
        let mut shared: HashMap<(InputGroup, StatisticKind), Shared> = HashMap::new();
        for (key, answer) in asked.into_iter().zip(answers) {
            let Statistic { values, shape, tokens } = Arc::unwrap_or_clone(answer);
            shared.insert(key, Shared { values: Arc::new(values), shape, tokens: tokens as u64 });
        }
        let mut all = Vec::with_capacity(groups.len());
        for (linear, group) in request.linears.iter().zip(groups) {
            let mut tokens = 0;
            let mut get = |wanted: fn(&StatisticKind) -> bool| -> Result<Option<Tensor>> {
                let Some(kind) = kinds.iter().find(|k| wanted(k)) else { return Ok(None) };
                let Some(found) = shared.get(&(group, *kind)) else { return Ok(None) };
                tokens = found.tokens;
                Tensor::from_arc(Arc::clone(&found.values), &found.shape).map(Some)
            };
            let gram = get(|k| matches!(k, StatisticKind::Gram))?;
            let sum_squares = get(|k| matches!(k, StatisticKind::SquaredSums))?;
            let abs_max = get(|k| matches!(k, StatisticKind::AbsMax))?;
            let abs_mean = get(|k| matches!(k, StatisticKind::AbsMean))?;
            let rows = get(|k| matches!(k, StatisticKind::Rows { .. }))?;
            all.push(InputStatistics {
                linear: linear.clone(),
                tokens,
                sequences,
                gram,
                sum_squares,
                abs_max,
                abs_mean,
                rows,
            });
        }
        Ok(all)
    }

    fn forward(&mut self, trial: &[(String, Tensor)]) -> Result<Tensor> {
        let width = self.opened.model.architecture().hidden_size;
        let trial = trial_tensors(trial)?;
        let outputs = self.walk.calibrated()?.forward_block(&trial).map_err(translate)?;
        let rows = outputs.len() / width;
        Tensor::from_vec(outputs, &[rows, width])
    }

    fn output_error(&mut self, trial: &[(String, Tensor)]) -> Result<f64> {
        let trial = trial_tensors(trial)?;
        self.walk.calibrated()?.output_error(&trial).map_err(translate)
    }

    fn gradients(&mut self, request: &GradientRequest) -> Result<Gradients> {
        let trial = trial_tensors(&request.trial)?;
        let names: Vec<String> = request.parameters.iter().map(|name| tensor_name(name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let calibrator = self.walk.calibrated()?;
        let (error, gradients) =
            calibrator.block_gradients(&names, &trial, &indices(&request.windows)).map_err(translate)?;
        let parameters = request.parameters.iter().zip(gradients);
        let gradients = parameters
            .map(|(name, values)| Ok((name.clone(), Tensor::from_vec(values, &self.shape_of(name)?)?)))
            .collect::<Result<_>>()?;
        Ok(Gradients { error, gradients })
    }

    fn module_error(&mut self, module: &str, trial: &[(String, Tensor)]) -> Result<f64> {
        let trial = trial_tensors(trial)?;
        let module = self.walk.block()?.module(module).map_err(translate)?;
        self.walk.calibrated()?.module_error(module, &trial).map_err(translate)
    }

    fn quantize_activations(
        &mut self,
        site: &str,
        quantization: Option<ActivationQuantization>,
    ) -> Result<()> {
        if let (Some(format @ StorageFormat::Gguf(_)), Some(_)) = (self.format.format, &quantization) {
            return Err(Error::invalid(format!(
                "format `{format}` has no place for rounded activations; choose `dense` or `compressed-tensors`"
            )));
        }
        let site = ActivationSite::from_name(site).map_err(translate)?;
        self.change(|block| {
            block.quantize_activations(site, quantization.map(of_transformer));
            Ok(())
        })
    }

    fn loss_gradients(
        &mut self,
        linears: &[String],
        mean_square: bool,
        windows: &[u32],
    ) -> Result<Vec<LossGradient>> {
        let names: Vec<&str> = linears.iter().map(String::as_str).collect();
        let calibrator = self.walk.calibrated()?;
        let found = calibrator.loss_gradients(&names, mean_square, &indices(windows)).map_err(translate)?;
        linears
            .iter()
            .zip(found)
            .map(|(linear, found)| {
                let shape = self.shape_of(linear)?;
                let tensor = |values| Tensor::from_vec(values, &shape);
                Ok(LossGradient {
                    linear: linear.clone(),
                    gradient: tensor(found.gradient)?,
                    mean_square: found.mean_square.map(tensor).transpose()?,
                })
            })
            .collect()
    }

    fn keep_units(&mut self, structure: &str, units: &[u32]) -> Result<()> {
        let structure = Structure::from_name(structure).map_err(translate)?;
        self.change(|block| block.keep_units(structure, &indices(units)))
    }

    fn close_block(&mut self) -> Result<()> {
        let block = match &mut self.walk {
            Walk::Calibrated(calibrator) => calibrator.close_block().map_err(translate)?,
            Walk::Plain(block) => *block.take().ok_or_else(|| Error::failed("no block is open"))?,
        };
        self.format.check_block(self.finished.len(), &block).map_err(|e| Error::invalid(e.to_string()))?;
        for linear in block.linears() {
            let values = linear.weight();
            self.zeros += values.iter().filter(|v| **v == 0.0).count() as u64;
            self.weights += values.len() as u64;
        }
        self.finished.push(block, self.saved.take());
        Ok(())
    }

    fn model_structures(&self) -> Result<Vec<ModelStructure>> {
        let model = &self.opened.model;
        let infos = (0..model.block_count() as u32).map(|index| Ok(self.present(index)?.info()));
        Ok(vec![description::residual_stream(model, &infos.collect::<Result<Vec<_>>>()?)])
    }

    fn keep_model_units(&mut self, structure: &str, units: &[u32]) -> Result<()> {
        if structure != HIDDEN {
            return Err(Error::invalid(format!("a model has no units `{structure}`; it has {HIDDEN}")));
        }
        let begun = match &self.walk {
            Walk::Calibrated(calibrator) => calibrator.block().is_ok(),
            Walk::Plain(block) => block.is_some(),
        };
        if begun || !self.finished.is_empty() {
            return Err(Error::failed("blocks were opened already; the model's width is fixed"));
        }
        let model = Arc::new(self.opened.model.keep_hidden(&indices(units)).map_err(translate)?);
        if let Walk::Calibrated(calibrator) = &self.walk {
            let windows = calibrator.window_tokens(&[]).map_err(translate)?;
            let options = calibrator.options().clone();
            let calibrator = Calibrator::new(Arc::clone(&model), windows, options).map_err(translate)?;
            self.walk = Walk::Calibrated(Box::new(calibrator));
        }
        self.finished = Finished::new(model.architecture().clone());
        self.opened.model = model;
        Ok(())
    }

    fn model_block(&self, index: u32) -> Result<BlockInfo> {
        Ok(self.describe_block(&self.present(index)?, index))
    }

    fn model_weight(&self, parameter: &Parameter) -> Result<Tensor> {
        let model = &self.opened.model;
        let Some(index) = parameter.block else {
            let (tensor, shape) = description::outer(model.architecture(), &parameter.name)?;
            return Tensor::from_vec(model.outer(tensor).map_err(translate)?.unwrap_or_default(), &shape);
        };
        let block = self.present(index)?;
        let shape = shape_of(&block.info(), &parameter.name)?;
        Tensor::from_vec(block.tensor(&tensor_name(&parameter.name)).map_err(translate)?, &shape)
    }

    fn set_model_weight(&mut self, parameter: &Parameter, weight: Tensor) -> Result<()> {
        let index = parameter.block.map(|index| index as usize).filter(|index| *index < self.finished.len());
        let Some(index) = index else {
            return Err(Error::invalid(format!("{parameter}: only finished blocks can be changed")));
        };
        let info = self.finished.block(index).map_err(translate)?.info();
        check_shape(&parameter.name, &weight, &shape_of(&info, &parameter.name)?)?;
        let values = weight.to_f32()?;
        let name = tensor_name(&parameter.name);
        self.finished.change(index, |block| block.set_tensor(&name, values)).map_err(translate)
    }

    fn model_gradients(&mut self, parameters: &[Parameter], windows: &[u32]) -> Result<ModelGradients> {
        let model = Arc::clone(&self.opened.model);
        let blocks = (0..model.block_count() as u32).map(|index| self.present(index));
        let blocks = blocks.collect::<Result<Vec<Block>>>()?;
        let architecture = model.architecture();
        let mut shapes = Vec::new();
        let mut names = Vec::new();
        for parameter in parameters {
            shapes.push(match parameter.block {
                Some(index) => match blocks.get(index as usize) {
                    Some(block) => shape_of(&block.info(), &parameter.name)?,
                    None => return Err(Error::invalid(format!("{parameter}: there is no such block"))),
                },
                None => description::outer(architecture, &parameter.name)?.1,
            });
            names.push(tensor_name(&parameter.name));
        }
        let wanted = parameters.iter().zip(&names).map(|(parameter, name)| match parameter.block {
            Some(index) => Ok(llmcb_transformer::Parameter::Block(index as usize, name)),
            None => {
                let (tensor, _) = description::outer(architecture, &parameter.name)?;
                Ok(llmcb_transformer::Parameter::Outer(tensor))
            }
        });
        let wanted = wanted.collect::<Result<Vec<_>>>()?;
        let windows = self.walk.calibrated()?.window_tokens(&indices(windows)).map_err(translate)?;
        let (loss, gradients) = model_gradients(&model, &blocks, &windows, &wanted).map_err(translate)?;
        let tensors = gradients.into_iter().zip(&shapes);
        let gradients =
            tensors.map(|(values, shape)| Tensor::from_vec(values, shape)).collect::<Result<_>>()?;
        Ok(ModelGradients { loss, gradients })
    }

    fn save_block(&mut self, file: &Path) -> Result<()> {
        block_file::write(self.walk.block()?, file)?;
        self.saved = Some(open(file)?);
        Ok(())
    }

    fn restore_block(&mut self, file: &Path) -> Result<()> {
        let saved = open(file)?;
        let block = block_file::read(&saved, self.opened.model.architecture());
        let block = block.map_err(|e| Error::failed(format!("{}: {e}", file.display())))?;
        self.change(|open| {
            *open = block;
            Ok(())
        })?;
        self.saved = Some(saved);
        Ok(())
    }

    fn save_checkpoint(&mut self, directory: &Path) -> Result<CheckpointInfo> {
        let (outside, inside) = self.storage_types();
        if let Some(StorageFormat::Gguf(kind)) = self.format.format {
            return self.save_gguf(directory, kind, outside);
        }
        let chosen = self.format.choose(&self.finished, self.scale_type(), inside.float());
        let chosen = chosen.map_err(|e| Error::invalid(e.to_string()))?;
        let model = &self.opened.model;
        let (storage, format) = match chosen.stored {
            Stored::Dense => (inside, format!("dense {}", inside.torch_name())),
            Stored::Sparse(layout) => {
                (inside, format!("compressed-tensors {} {}", layout.name(), inside.torch_name()))
            }
            Stored::Codes(scheme) => {
                (outside, format!("{}; the rest {}", scheme.describe(), outside.torch_name()))
            }
        };
        let options = CheckpointOptions { storage, block_storage: inside, ..Default::default() };
        let writer = CheckpointWriter::create_of(directory, model, options, chosen.stored, &self.finished);
        let mut writer = writer.map_err(translate)?;
        let mut codes = false;
        for index in 0..self.finished.count() {
            let block = self.finished.block(index).map_err(translate)?;
            codes |= block.linears().any(|linear| linear.has_codes());
            writer.write_block(index, &block).map_err(translate)?;
        }
        writer.finish().map_err(translate)?;
        let zero_fraction = self.zero_fraction();
        let mut notes = Vec::new();
        if let Some((preferred, problem)) = chosen.instead_of {
            notes.push(format!("{preferred} cannot hold it: {problem}"));
        }
        let dense = chosen.stored == Stored::Dense;
        if dense && codes {
            notes.push("integer codes, stored as the numbers that they stand for".to_owned());
        } else if dense && zero_fraction > 0.01 {
            notes.push(format!("{:.0} % zeros, stored dense like any other number", 100.0 * zero_fraction));
        }
        notes.extend(self.finished.activation_note());
        notes.extend(self.finished.shape_note());
        self.describe(directory, format, notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What an author computes with the SDK is what the engine runs.
        #[test]
        fn the_sdk_rounds_as_the_forward_pass_does(
            bits in 2u32..=8, symmetric: bool, values in prop::collection::vec(-30f32..30.0, 1..70), range in prop::option::of((-9f32..0.0, 0f32..9.0)),
        ) {
            let quantization = ActivationQuantization { bits, symmetric, range: range.map(|(low, high)| [low, high]) };
            let (mut author, mut engine) = (values.clone(), values);
            quantization.round(&mut author);
            of_transformer(quantization).round_row(&mut engine);
            prop_assert_eq!(author, engine);
        }
    }
}
