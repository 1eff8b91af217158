//! Decoder models on the CPU: opened from a model's files, run, scored, calibrated and written.
//!
//! * [`families`] says which models these are, and how one more is added; [`Architecture`] is what their configurations say.
//! * [`Model`] opens a model; [`Block`] and [`BlockInfo`] are one decoder block, its weights and its description.
//! * [`Scorer`] gives log-likelihoods of continuations, running shared prefixes once; [`generate`](generate::generate) continues prompts
//!   greedily and times it.
//! * [`Calibrator`] walks a model block by block over calibration data, for compression methods.
//! * [`CheckpointWriter`] writes a Hugging Face directory.
//!
//! Weights are decoded with candle, and gradients are candle's; the passes that are timed run on plain slices through [`kernels`].

mod activation;
mod architecture;
mod attention;
mod batch;
mod block;
mod calibration;
mod checkpoint;
mod costs;
mod error;
pub mod families;
mod fit;
mod formats;
mod forward;
pub mod generate;
mod gguf;
mod gradients;
mod head;
pub mod kernels;
mod layout;
mod loss;
mod model;
mod norm;
mod precision;
mod pruning;
mod rope;
mod scoring;
mod scratch;
mod states;
mod statistics;
mod trie;
mod weight;
mod weights;
mod width;

pub use activation::{ActivationQuantization, ActivationSite, Activations};
pub use architecture::{
    Architecture, BlockShape, FeedForward, NormKind, NormOrder, Positions, RopeScaling, Rotary,
};
pub use batch::{Batch, KeySpan, KeyValueCache, LayerKeys, Segment};
pub use block::{Block, BlockInfo, FedBy, LinearInfo, NormInfo, OutputRange, StoredLinear};
pub use calibration::{BlockInputs, CalibrationOptions, Calibrator, StatisticRequest, Trial};
pub use checkpoint::{CheckpointOptions, CheckpointWriter, StorageType};
pub use costs::{AttentionCost, Costs, LinearCost};
pub use error::{Error, Result};
pub use fit::{Fitted, fit};
pub use formats::{BlockStore, Chosen, FORMATS, FormatChoice, StorageFormat, Stored};
pub use gguf::{GGUF_FILE, GgufSummary, GgufType, write_gguf};
pub use layout::{InputGroup, LinearName, ModuleInfo, Names, OuterTensor, Role};
pub use loss::{LossGradient, Parameter, model_gradients};
pub use model::{LoadOptions, Model};
pub use precision::Precision;
pub use pruning::{Structure, StructurePart, UnitAxis};
pub use scoring::{ScoreOptions, ScoreProgress, ScoreRequest, ScoreResult, Scorer};
pub use statistics::{Statistic, StatisticKind};
pub use weight::Weight;
pub use weights::{MemorySource, TensorSource, decode};
