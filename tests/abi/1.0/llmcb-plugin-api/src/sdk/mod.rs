//! What authors of plugins write against: safe traits and types.

mod activation;
mod block;
mod descriptor;
mod engine;
mod error;
mod gradients;
mod host;
mod method;
mod model;
mod quantized;
mod runner;
mod statistics;
mod tensor;
mod whole;

pub use activation::ActivationQuantization;
pub use block::Block;
pub use descriptor::{Citation, Descriptor, Needs, PluginKind, RoleDescriptor};
pub use engine::Engine;
pub use error::{Error, ErrorKind, Result};
pub use gradients::{GradientRequest, Gradients, LossGradient, ModelGradients};
pub use host::{Host, HostServices, LogLevel};
pub use method::Method;
pub use model::{
    AttentionCost, Axis, BlockInfo, BlockInputs, CalibrationPlan, CheckpointInfo, FedBy, Linear, LinearCost,
    ModelInfo, Module, Norm, Profile, Structure, StructurePart, Timing, Workload,
};
pub use quantized::QuantizedWeight;
pub use runner::{Runner, Score, ScoreRequest};
pub use statistics::{InputStatistics, StatisticsRequest};
pub use tensor::{DType, Element, Tensor};
pub use whole::{EMBEDDING, HEAD, LAST_NORM, ModelPart, ModelStructure, Parameter, WholeModel};

pub(crate) use block::EngineAccess;
pub(crate) use host::services_to_abi;
