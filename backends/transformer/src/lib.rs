//! Transformers of the LLaMA family on the CPU: opened from a model's files, run, scored, calibrated and written.
//!
//! * [`Model`] opens a model; [`Block`] and [`BlockInfo`] are one decoder block, its weights and its description.
//! * [`Scorer`] gives log-likelihoods of continuations, running shared prefixes once; [`generate`](generate::generate) continues prompts
//!   greedily and times it.
//! * [`Calibrator`] walks a model block by block over calibration data, for compression methods.
//! * [`CheckpointWriter`] writes a Hugging Face directory.
//!
//! Weights are decoded with candle, and gradients are candle's; the passes that are timed run on plain slices through [`kernels`].

mod activation;
mod attention;
mod batch;
mod block;
mod calibration;
mod checkpoint;
mod config;
mod costs;
mod error;
mod formats;
mod forward;
pub mod generate;
mod gguf;
mod gradients;
mod head;
pub mod kernels;
mod loss;
mod model;
mod pruning;
mod rope;
mod scoring;
mod scratch;
mod statistics;
mod trie;
mod weight;
mod weights;
mod width;

pub use activation::{ActivationQuantization, ActivationSite, Activations};
pub use batch::{Batch, KeySpan, KeyValueCache, LayerKeys, Segment};
pub use block::{
    ATTENTION_NORM, Block, BlockInfo, FedBy, InputGroup, Linear, LinearInfo, MLP_NORM, ModuleInfo, NormInfo,
    tensor_name,
};
pub use calibration::{BlockInputs, CalibrationOptions, Calibrator, StatisticRequest, Trial};
pub use checkpoint::{CheckpointOptions, CheckpointWriter, StorageType};
pub use config::{BlockShape, LlamaConfig, RopeScaling, SUPPORTED_ARCHITECTURES};
pub use costs::{AttentionCost, Costs, LinearCost};
pub use error::{Error, Result};
pub use formats::{Chosen, FORMATS, FormatChoice, StorageFormat, Stored};
pub use gguf::{GGUF_FILE, GgufSummary, GgufType, write_gguf};
pub use loss::{LossGradient, Parameter, model_gradients};
pub use model::{EMBEDDING, FINAL_NORM, LoadOptions, Model, OUTPUT_HEAD};
pub use pruning::{Structure, StructurePart, UnitAxis};
pub use scoring::{ScoreOptions, ScoreProgress, ScoreRequest, ScoreResult, Scorer};
pub use statistics::{Statistic, StatisticKind};
pub use weight::Weight;
pub use weights::{MemorySource, TensorSource, decode};
