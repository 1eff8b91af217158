//! The architecture of a model, typed and checked: what its configuration says, in words that are the same for all families.

pub(crate) mod keys;
mod rotary;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::keys::Keys;
pub use self::rotary::{RopeScaling, Rotary};
use crate::families::Family;
use crate::{Activations, Error, Result, families};

/// No extent of a configuration may be larger: far beyond any real model, and small enough that products of two cannot overflow.
pub(crate) const LARGEST_EXTENT: usize = 1 << 28;

/// Shape and constants of a decoder: blocks of (grouped-query) attention and of a feed-forward part, each with a norm.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// The family: what its files call tensors, and how its configuration is spelled.
    pub family: &'static Family,
    /// `model_type` as Hugging Face spells it.
    pub model_type: String,
    /// Tokens in the vocabulary (rows of the embedding).
    pub vocab_size: usize,
    /// Width of the embedding; where it is another than the residual stream's, two projections lie between.
    pub embedding_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// How the residual stream is normalised.
    pub norm: NormKind,
    /// Added to the variance or mean square before its root.
    pub norm_eps: f32,
    /// Where the norms of a block stand.
    pub norm_order: NormOrder,
    /// Whether a norm follows the last block.
    pub final_norm: bool,
    /// What the feed-forward part computes.
    pub feed_forward: FeedForward,
    /// How attention knows where a token stands.
    pub positions: Positions,
    /// The longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Whether the output projection of attention has a bias.
    pub output_bias: bool,
    /// Whether the linears of the feed-forward part have biases.
    pub mlp_bias: bool,
    /// How each block rounds its activations, where the configuration says so (`llmcb_activations`, a list with an object for each block);
    /// else empty.
    pub activations: Vec<Activations>,
    /// What each block has instead of the numbers above, where blocks differ (`llmcb_block_shapes`, a list with an object for each block); else
    /// empty.
    pub block_shapes: Vec<BlockShape>,
}

/// How the residual stream is normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// By its root mean square, with a weight (Zhang and Sennrich 2019, RMSNorm).
    Rms,
    /// By mean and standard deviation, with a weight and a bias (Ba et al. 2016, LayerNorm).
    Layer,
}

impl NormKind {
    /// Whether norms have biases.
    pub fn has_bias(self) -> bool {
        self == NormKind::Layer
    }
}

/// Where the norms of a block stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormOrder {
    /// Before attention and before the feed-forward part.
    Before,
    /// After each of them has been added to the residual stream (OPT-350m).
    After,
}

/// What the feed-forward part computes between its first and its last linear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedForward {
    /// `silu(gate) * up` (Shazeer 2020, SwiGLU).
    GatedSilu,
    /// `max(up, 0)`.
    Relu,
}

/// How attention knows where a token stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Positions {
    /// Queries and keys are turned.
    Rotary(Rotary),
    /// A learned vector is added to the embedding: of row `position + offset`.
    Learned {
        /// Rows that no position uses.
        offset: usize,
    },
}

/// The key of a configuration that says how each block rounds its activations.
pub(crate) const ACTIVATIONS: &str = "llmcb_activations";
/// The key of a configuration that gives the shape of each block, where they differ.
pub(crate) const BLOCK_SHAPES: &str = "llmcb_block_shapes";

/// What may differ from block to block: pruning leaves some blocks with fewer heads and channels than others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockShape {
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
}

impl BlockShape {
    fn check(&self) -> std::result::Result<(), String> {
        let all = [self.num_attention_heads, self.num_key_value_heads, self.intermediate_size];
        if all.iter().any(|n| !(1..=LARGEST_EXTENT).contains(n)) {
            return Err("its numbers must be at least 1".to_owned());
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(format!(
                "{} query heads are no multiple of {} key and value heads",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        Ok(())
    }
}

impl Architecture {
    /// Reads a Hugging Face `config.json`. `model` is what messages call the model.
    ///
    /// # Errors
    /// [`Error::UnsupportedArchitecture`], or [`Error::Config`] when a key is missing, has a value of the wrong kind, or
    /// contradicts another.
    pub fn from_json(json: &Value, model: &str) -> Result<Self> {
        let keys = Keys { model, object: json.as_object(), prefix: "" };
        if keys.object.is_none() {
            return Err(
                keys.wrong("it is not a JSON object", "give the config.json of a Hugging Face checkpoint")
            );
        }
        let Some(model_type) = json.get("model_type").and_then(Value::as_str) else {
            return Err(
                keys.wrong("`model_type` is missing", "set it to the architecture's name, such as `llama`")
            );
        };
        let family = families::of(model_type).ok_or_else(|| Error::UnsupportedArchitecture {
            model: model.to_owned(),
            architecture: model_type.to_owned(),
            supported: families::model_types().join(", "),
        })?;
        let mut read = (family.read)(&keys, model_type)?;
        read.check(&keys)?;
        if let Some(given) = json.get(ACTIVATIONS) {
            read.activations = activations(given, read.num_hidden_layers).map_err(|problem| {
                keys.wrong(
                    format!("`{ACTIVATIONS}`: {problem}"),
                    "take the configuration as the checkpoint was written, or remove the key to run activations as they are",
                )
            })?;
        }
        if let Some(given) = json.get(BLOCK_SHAPES) {
            read.block_shapes = block_shapes(given, read.num_hidden_layers).map_err(|problem| {
                keys.wrong(
                    format!("`{BLOCK_SHAPES}`: {problem}"),
                    "take the configuration as the checkpoint was written",
                )
            })?;
        }
        Ok(read)
    }

    /// What must hold in every family.
    fn check(&self, keys: &Keys<'_>) -> Result<()> {
        let (heads, key_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(key_heads) {
            return Err(keys.wrong(
                format!(
                    "`num_attention_heads` {heads} is no multiple of {key_heads} key and value heads (`num_key_value_heads`, in ChatGLM `multi_query_group_num`)"
                ),
                "each key and value head must serve the same number of query heads",
            ));
        }
        if let Positions::Rotary(rotary) = self.positions
            && (rotary.width == 0 || !rotary.width.is_multiple_of(2) || rotary.width > self.head_dim)
        {
            return Err(keys.wrong(
                format!("{} numbers of heads of {} are rotated, in pairs", rotary.width, self.head_dim),
                "the number must be even and at most the width of a head (`head_dim`)",
            ));
        }
        if !(0.0..1.0).contains(&self.norm_eps) {
            return Err(keys.wrong(
                format!("the epsilon of norms is {}", self.norm_eps),
                "it must be from 0 up to 1, such as 1e-5",
            ));
        }
        Ok(())
    }

    /// The architecture as it holds for block `index`.
    pub fn of_block(&self, index: usize) -> Self {
        match self.block_shapes.get(index) {
            Some(shape) => self.with_shape(*shape),
            None => self.clone(),
        }
    }

    /// The architecture of a model whose blocks all have this shape.
    pub fn with_shape(&self, shape: BlockShape) -> Self {
        Self {
            num_attention_heads: shape.num_attention_heads,
            num_key_value_heads: shape.num_key_value_heads,
            intermediate_size: shape.intermediate_size,
            block_shapes: Vec::new(),
            ..self.clone()
        }
    }

    /// The shape of blocks that have no other of their own.
    pub fn block_shape(&self) -> BlockShape {
        BlockShape {
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            intermediate_size: self.intermediate_size,
        }
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads together (and of all value heads).
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Rows of the table of learned positions, where there is one.
    pub fn learned_positions(&self) -> Option<usize> {
        match self.positions {
            Positions::Learned { offset } => Some(self.max_position_embeddings + offset),
            Positions::Rotary(_) => None,
        }
    }

    /// How queries and keys are turned, where they are.
    pub fn rotary(&self) -> Option<&Rotary> {
        match &self.positions {
            Positions::Rotary(rotary) => Some(rotary),
            Positions::Learned { .. } => None,
        }
    }

    /// Whether projections lie between the embedding and the residual stream.
    pub fn projects(&self) -> bool {
        self.embedding_size != self.hidden_size
    }

    /// `config` with the extents of this architecture, which may have lost heads or channels, in the family's spelling.
    pub(crate) fn spell(&self, config: &mut serde_json::Map<String, Value>) {
        (self.family.spell)(self, config);
    }
}

/// Reads how each block rounds its activations.
fn activations(given: &Value, blocks: usize) -> std::result::Result<Vec<Activations>, String> {
    let list = given.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.len() != blocks {
        return Err(format!("{} objects are listed for {blocks} blocks", list.len()));
    }
    let read = |(index, one)| Activations::from_json(one).map_err(|e| format!("block {index}: {e}"));
    list.iter().enumerate().map(read).collect()
}

/// Reads the shape of each block.
fn block_shapes(given: &Value, blocks: usize) -> std::result::Result<Vec<BlockShape>, String> {
    let list = given.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.len() != blocks {
        return Err(format!("{} objects are listed for {blocks} blocks", list.len()));
    }
    let read = |(index, one): (usize, &Value)| {
        let shape = BlockShape::deserialize(one).map_err(|e| e.to_string());
        let checked = shape.and_then(|shape| shape.check().map(|()| shape));
        checked.map_err(|e| format!("block {index}: {e}"))
    };
    list.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> Value {
        json!({
            "model_type": "llama", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        })
    }

    fn with(key: &str, value: Value) -> Value {
        let mut json = base();
        if value.is_null() {
            json.as_object_mut().unwrap().remove(key);
        } else {
            json[key] = value;
        }
        json
    }

    #[test]
    fn both_spellings_of_rope_are_one() {
        let section = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        });
        let mut old = with("rope_scaling", section.clone());
        old["rope_theta"] = json!(500_000.0);
        let mut inner = section;
        inner["rope_theta"] = json!(500_000.0);
        let new = with("rope_parameters", inner);
        let (old, new) =
            (Architecture::from_json(&old, "m").unwrap(), Architecture::from_json(&new, "m").unwrap());
        assert_eq!(old, new);
        let rotary = old.rotary().unwrap();
        assert_eq!((rotary.theta, rotary.width), (500_000.0, 16));
        assert!(matches!(rotary.scaling, RopeScaling::Llama3 { .. }));
        let typed = with("rope_scaling", json!({"type": "linear", "factor": 2.0}));
        let linear = Architecture::from_json(&typed, "m").unwrap();
        assert_eq!(linear.rotary().unwrap().scaling, RopeScaling::Linear { factor: 2.0 });
        assert_eq!(linear.rotary().unwrap().frequencies()[0], 0.5);
    }

    #[test]
    fn defaults_follow_the_architecture() {
        let llama = Architecture::from_json(&with("num_key_value_heads", Value::Null), "m").unwrap();
        assert_eq!((llama.num_key_value_heads, llama.head_dim, llama.qkv_bias), (4, 16, false));
        let qwen = Architecture::from_json(&with("model_type", json!("qwen2")), "m").unwrap();
        assert!(qwen.qkv_bias && !qwen.output_bias && !qwen.mlp_bias);
        let biased = Architecture::from_json(&with("attention_bias", json!(true)), "m").unwrap();
        assert!(biased.qkv_bias && biased.output_bias);
    }

    #[test]
    fn nonsense_is_named() {
        for (key, value, expected) in [
            ("model_type", json!("gpt2"), "gpt2"),
            ("model_type", Value::Null, "model_type"),
            ("hidden_size", Value::Null, "hidden_size"),
            ("hidden_size", json!(65), "hidden_size"),
            ("hidden_size", json!(-1), "hidden_size"),
            ("vocab_size", json!(u64::MAX), "vocab_size"),
            ("vocab_size", json!("many"), "vocab_size"),
            ("num_hidden_layers", json!(0), "num_hidden_layers"),
            ("num_key_value_heads", json!(3), "num_key_value_heads"),
            ("num_attention_heads", json!(0), "num_attention_heads"),
            ("head_dim", json!(15), "head_dim"),
            ("hidden_act", json!("gelu"), "gelu"),
            ("rope_theta", json!(-1.0), "rope_theta"),
            ("rope_scaling", json!({"type": "yarn"}), "yarn"),
            ("rope_scaling", json!({"type": "linear"}), "rope_scaling.factor"),
            ("rope_scaling", json!(7), "rope_scaling"),
            ("rms_norm_eps", json!(2.0), "epsilon"),
            ("tie_word_embeddings", json!("yes"), "tie_word_embeddings"),
            ("partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
        ] {
            let message =
                Architecture::from_json(&with(key, value.clone()), "some/model").unwrap_err().to_string();
            assert!(
                message.contains(expected) && message.contains("some/model"),
                "{key} = {value}: {message}"
            );
        }
        assert!(Architecture::from_json(&json!([1]), "m").is_err());
    }

    #[test]
    fn nonsense_of_other_families_is_named() {
        let opt = json!({
            "model_type": "opt", "vocab_size": 96, "hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4,
        });
        let chatglm = json!({
            "model_type": "chatglm", "padded_vocab_size": 96, "hidden_size": 64, "ffn_hidden_size": 112, "num_layers": 2,
            "num_attention_heads": 4, "multi_query_attention": true, "multi_query_group_num": 2, "layernorm_epsilon": 1e-5,
        });
        for (base, key, value, expected) in [
            (&opt, "activation_function", json!("gelu"), "gelu"),
            (&opt, "layer_norm_elementwise_affine", json!(false), "layer_norm_elementwise_affine"),
            (&opt, "ffn_dim", Value::Null, "ffn_dim"),
            (&chatglm, "multi_query_group_num", json!(3), "multi_query_group_num"),
            (&chatglm, "quantization_bit", json!(4), "quantization_bit"),
            (&chatglm, "position_encoding_2d", json!(true), "first ChatGLM"),
            (&chatglm, "rope_ratio", json!(0), "rope_ratio"),
            (&chatglm, "kv_channels", json!(18), "in pairs"),
        ] {
            assert!(Architecture::from_json(base, "m").is_ok());
            let mut json = base.clone();
            json[key] = value.clone();
            let message = Architecture::from_json(&json, "m").unwrap_err().to_string();
            assert!(message.contains(expected), "{key} = {value}: {message}");
        }
    }

    #[test]
    fn a_window_bounds_what_is_run_at_once() {
        for (model_type, window, expected) in [
            ("mistral", json!(32), 32),
            ("mistral", json!(null), 64),
            ("phi3", json!(47), 47),
            ("qwen2", json!(32), 64),
        ] {
            let mut json = with("model_type", json!(model_type));
            json["sliding_window"] = window;
            assert_eq!(Architecture::from_json(&json, "m").unwrap().max_position_embeddings, expected);
        }
    }
}
