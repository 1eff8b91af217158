//! What authors of plugins write against: safe traits and types.

mod activation;
mod block;
mod descriptor;
mod engine;
mod error;
mod gradients;
mod host;
mod library;
mod method;
mod model;
mod quantized;
mod runner;
mod statistics;
mod tensor;
mod whole;

pub use activation::ActivationQuantization;
pub use block::Block;
pub use descriptor::{Abilities, Citation, Descriptor, Needs, PluginKind, RoleDescriptor};
pub use engine::Engine;
pub use error::{Error, ErrorKind, Result};
pub use gradients::{GradientRequest, Gradients, LossGradient, ModelGradients};
pub use host::{Host, HostServices, LogLevel};
pub use library::{LIBRARIES_VARIABLE, Library, LibraryStatus, libraries_folder};
pub use method::Method;
pub use model::{
    AttentionCost, Axis, BlockInfo, BlockInputs, CalibrationPlan, CheckpointInfo, FedBy, KEYS, Linear,
    LinearCost, ModelInfo, Module, Norm, OutputRange, Profile, QUERIES, Structure, StructurePart, Timing,
    VALUES, Workload,
};
pub use quantized::QuantizedWeight;
pub use runner::{Runner, Score, ScoreRequest};
pub use statistics::{InputStatistics, StatisticsRequest};
pub use tensor::{DType, Element, Tensor};
pub use whole::{
    EMBEDDING, HEAD, LAST_NORM, LAST_NORM_BIAS, ModelPart, ModelStructure, POSITIONS, PROJECT_IN,
    PROJECT_OUT, Parameter, WholeModel,
};

pub(crate) use block::EngineAccess;
pub(crate) use host::services_to_abi;
