//! Descriptions of models, blocks, checkpoints and workloads. They cross the boundary as JSON and may gain fields.

use serde::{Deserialize, Serialize};

/// A model as an engine or a runner sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelInfo {
    /// Architecture as the model's configuration names it, for example `LlamaForCausalLM`.
    pub architecture: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Number of transformer blocks.
    pub blocks: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Size of the vocabulary.
    pub vocab_size: u32,
    /// Longest sequence the model can take.
    pub max_position_embeddings: u32,
    /// Format of the files, `safetensors` or `gguf`.
    pub source_format: String,
    /// Precision of most of the stored weights, for example `BF16` or `Q4_1`.
    pub source_precision: String,
    /// Bytes of the weight files.
    pub bytes_on_disk: u64,
    /// Precision of the arithmetic, for example `f32`.
    pub compute: String,
    /// Device it runs on, for example `cpu`.
    pub device: String,
    /// Token to put before an empty context: beginning of sequence, else end of sequence.
    pub prefix_token: Option<u32>,
    /// End of sequence.
    pub end_token: Option<u32>,
}

/// A linear layer of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linear {
    /// Name within the block, for example `self_attn.q_proj`.
    pub name: String,
    /// Output features.
    pub out_features: u32,
    /// Input features.
    pub in_features: u32,
    /// Linears with the same group read the same input.
    pub input_group: String,
    /// Whether it has a bias.
    pub bias: bool,
}

impl Linear {
    /// `[out_features, in_features]`, the shape of its weight.
    pub fn shape(&self) -> [usize; 2] {
        [self.out_features as usize, self.in_features as usize]
    }
}

/// A normalisation layer of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Norm {
    /// Name within the block, for example `input_layernorm`.
    pub name: String,
    /// Features.
    pub size: u32,
    /// Linears that read its output.
    pub feeds: Vec<String>,
}

/// One transformer block: what a method may look at and change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockInfo {
    /// Position in the model, from 0.
    pub index: u32,
    /// How many blocks the model has.
    pub of: u32,
    /// Linears, in the order in which the forward pass reaches them.
    pub linears: Vec<Linear>,
    /// Norms, in the same order.
    pub norms: Vec<Norm>,
    /// Attention heads.
    #[serde(default)]
    pub heads: u32,
    /// Heads of keys and values.
    #[serde(default)]
    pub key_value_heads: u32,
    /// Width of a head.
    #[serde(default)]
    pub head_dim: u32,
}

/// A checkpoint as written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointInfo {
    /// Files, relative to the checkpoint's directory, with their sizes in bytes.
    pub files: Vec<(String, u64)>,
    /// Bytes of the weight files.
    pub weight_bytes: u64,
    /// How the weights are stored, for example `dense f32`.
    pub format: String,
    /// Fraction of zeros among the weights of the blocks' linears.
    pub zero_fraction: f64,
    /// What a reader of the sizes should know, such as zeros that are stored like any other number.
    pub notes: Vec<String>,
}

/// What a runner is timed on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Prompts, all of the same length, as token ids; their number is the batch size.
    pub prompts: Vec<Vec<u32>>,
    /// Tokens to generate for each.
    pub new_tokens: u32,
    /// Runs that are not counted.
    pub warm_up: u32,
    /// Runs that are counted.
    pub repetitions: u32,
}

/// Times of one repetition of a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// Seconds from the start until the first new token of each prompt is there.
    pub prefill_seconds: f64,
    /// Seconds of each decoding step after the first token.
    pub decode_seconds: Vec<f64>,
}

/// Times of a workload, one entry per counted repetition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// Counted repetitions.
    pub timings: Vec<Timing>,
    /// How it was measured, in words.
    pub how: String,
}
