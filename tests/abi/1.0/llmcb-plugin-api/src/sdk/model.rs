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
    /// What a pass through the model multiplies, linears alike in everything taken together: multiply-accumulate
    /// operations are counted from it. Empty where a plugin does not say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub linears: Vec<LinearCost>,
    /// The products of attention, blocks alike taken together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attention: Vec<AttentionCost>,
}

/// Linears of a model that are alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinearCost {
    /// How many there are.
    pub count: u32,
    /// Output features.
    pub out_features: u32,
    /// Input features.
    pub in_features: u32,
    /// Bits of a weight that is stored as an integer code; absent for numbers.
    pub bits: Option<u32>,
    /// Share of weights that are not zero, over all of them; 1 for codes.
    pub density: f64,
    /// Whether it is the output head.
    pub head: bool,
}

/// Attention of blocks that are alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttentionCost {
    /// How many blocks.
    pub count: u32,
    /// Heads of queries.
    pub heads: u32,
    /// Width of a head.
    pub head_dim: u32,
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
    /// Another linear of the block whose output features are, one by one, this one's input features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fed_by: Option<FedBy>,
}

/// Which output feature of one linear each input feature of another is, up to steps between them (attention, a product
/// with a gate) that a factor on the feature passes through unchanged.
///
/// Input feature `c` reads output feature `(c / (width * repeats)) * width + c % width`: with grouped-query attention,
/// each head of values (`width` features) is read by `repeats` heads of queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FedBy {
    /// The linear whose outputs they are.
    pub linear: String,
    /// Features of one piece.
    pub width: u32,
    /// How many times in a row each piece is read.
    pub repeats: u32,
}

impl FedBy {
    /// The output feature that input feature `input` reads.
    pub fn output_of(&self, input: usize) -> usize {
        let width = self.width.max(1) as usize;
        input / (width * self.repeats.max(1) as usize) * width + input % width
    }
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

/// A part of a block with one input and one output: attention, or the feed-forward part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Name within the block, for example `self_attn`.
    pub name: String,
    /// The group of linears that read the part's input.
    pub input_group: String,
    /// All linears inside.
    pub linears: Vec<String>,
}

/// Rows or columns of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Output features, the rows of a weight.
    Outputs,
    /// Input features, the columns of a weight.
    Inputs,
}

/// What a linear has of each unit of a [`Structure`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StructurePart {
    /// The linear.
    pub linear: String,
    /// Whether the unit takes rows or columns of its weight.
    pub axis: Axis,
    /// How many for each unit: unit `u` has `u * width .. (u + 1) * width`.
    pub width: u32,
}

/// Units that can be removed from a block, each with all that depends on it: attention heads, or channels between the
/// linears of the feed-forward part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {
    /// Name within the block, for example `self_attn.heads`.
    pub name: String,
    /// How many units there are now.
    pub units: u32,
    /// The linears that hold them.
    pub parts: Vec<StructurePart>,
}

/// One transformer block: what a method may look at and change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockInfo {
    /// Position in the model, from 0.
    pub index: u32,
    /// How many blocks the model has.
    pub of: u32,
    /// Calibration windows; 0 without calibration data.
    #[serde(default)]
    pub windows: u32,
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
    /// The linear whose outputs are queries, if there is one with no other outputs.
    #[serde(default)]
    pub queries: Option<String>,
    /// The linear whose outputs are keys, likewise.
    #[serde(default)]
    pub keys: Option<String>,
    /// Parts whose outputs can be compared on their own.
    #[serde(default)]
    pub modules: Vec<Module>,
    /// Units that can be removed.
    #[serde(default)]
    pub structures: Vec<Structure>,
    /// Activations that can be quantised: names of input groups, and what attention multiplies.
    #[serde(default)]
    pub activation_sites: Vec<String>,
}

/// How an engine walks the calibration data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CalibrationPlan {
    /// What a block reads: the outputs of the compressed blocks before it, or of the dense ones.
    pub inputs: BlockInputs,
    /// Whether a block's outputs are compared with those of the dense block on the *dense* model's activations, as
    /// OmniQuant does, instead of on the inputs the block reads.
    pub dense_targets: bool,
}

/// Whose outputs a block reads while it is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockInputs {
    /// Those of the compressed blocks before it: errors of earlier blocks are seen, and may be made up for.
    #[default]
    Compressed,
    /// Those of the dense blocks before it: every block is compressed as if it were the only one.
    Dense,
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
