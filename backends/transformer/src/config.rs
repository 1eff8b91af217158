//! The configuration of the LLaMA family, typed and checked.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Activations, Error, Result};

/// Values of `model_type` that are implemented.
pub const SUPPORTED_ARCHITECTURES: [&str; 3] = ["llama", "mistral", "qwen2"];

/// No extent of a configuration may be larger: far beyond any real model, and small enough that products of two cannot overflow.
const LARGEST_EXTENT: usize = 1 << 28;

/// The shape and constants of a decoder of the LLaMA family: pre-normalised blocks of grouped-query attention with rotary
/// positions and of a gated feed-forward part with SiLU (Touvron et al. 2023).
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// `model_type` as Hugging Face spells it.
    pub architecture: String,
    /// Tokens in the vocabulary (rows of the embedding).
    pub vocab_size: usize,
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
    /// Added to the mean square before its root.
    pub rms_norm_eps: f32,
    /// The longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Whether the output projection of attention has a bias.
    pub output_bias: bool,
    /// Whether the three linears of the feed-forward part have biases.
    pub mlp_bias: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched.
    pub rope_scaling: RopeScaling,
    /// How each block rounds its activations, where the configuration says so (`llmcb_activations`, a list with an object for each block);
    /// else empty.
    pub activations: Vec<Activations>,
    /// What each block has instead of the numbers above, where blocks differ (`llmcb_block_shapes`, a list with an object for each block); else
    /// empty.
    pub block_shapes: Vec<BlockShape>,
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

/// How rotary frequencies are stretched for contexts longer than those of pre-training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All frequencies divided by `factor` (Chen et al. 2023, position interpolation).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, those between interpolated (LLaMA 3.1).
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Frequencies with fewer turns than this in the original context are low.
        low_freq_factor: f64,
        /// Frequencies with more turns than this in the original context are high.
        high_freq_factor: f64,
        /// The context of pre-training, in tokens.
        original_max_position_embeddings: f64,
    },
}

impl LlamaConfig {
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
        let architecture = match json.get("model_type").and_then(Value::as_str) {
            Some(name) => name.to_owned(),
            None => {
                return Err(keys
                    .wrong("`model_type` is missing", "set it to the architecture's name, such as `llama`"));
            }
        };
        if !SUPPORTED_ARCHITECTURES.contains(&architecture.as_str()) {
            return Err(Error::UnsupportedArchitecture {
                model: model.to_owned(),
                architecture,
                supported: SUPPORTED_ARCHITECTURES.join(", "),
            });
        }
        if let Some(activation) = json.get("hidden_act").and_then(Value::as_str)
            && !["silu", "swish"].contains(&activation)
        {
            return Err(keys.wrong(
                format!("`hidden_act` is `{activation}`, but this family is computed with `silu`"),
                "use a model with `silu`",
            ));
        }
        let hidden_size = keys.extent("hidden_size")?;
        let num_attention_heads = keys.extent("num_attention_heads")?;
        let num_key_value_heads = keys.extent_or("num_key_value_heads", num_attention_heads)?;
        let head_dim = match keys.optional_extent("head_dim")? {
            Some(width) => width,
            None if hidden_size.is_multiple_of(num_attention_heads) => hidden_size / num_attention_heads,
            None => {
                return Err(keys.wrong(
                    format!("`hidden_size` {hidden_size} is no multiple of `num_attention_heads` {num_attention_heads}"),
                    "correct one of them, or give `head_dim`",
                ));
            }
        };
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            return Err(keys.wrong(
                format!(
                    "`num_attention_heads` {num_attention_heads} is no multiple of `num_key_value_heads` {num_key_value_heads}"
                ),
                "each key and value head must serve the same number of query heads",
            ));
        }
        if !head_dim.is_multiple_of(2) {
            return Err(keys.wrong(
                format!("`head_dim` is {head_dim}, but rotary positions turn pairs"),
                "it must be even",
            ));
        }
        let max_position_embeddings = keys.extent_or("max_position_embeddings", 2048)?;
        let qwen2 = architecture == "qwen2";
        if keys.flag("use_sliding_window", false)? {
            return Err(keys.wrong(
                "`use_sliding_window` is true, and windowed attention is not implemented",
                "use a model without it, or another backend",
            ));
        }
        if let Some(window) = json.get("sliding_window").and_then(Value::as_u64)
            && architecture == "mistral"
            && (window as usize) < max_position_embeddings
        {
            return Err(keys.wrong(
                format!("`sliding_window` is {window}, and windowed attention is not implemented"),
                format!("set `max_position_embeddings` to {window} or less, where a window changes nothing"),
            ));
        }
        let attention_bias = keys.flag("attention_bias", qwen2)?;
        let (rope_theta, rope_scaling) = rope(&keys)?;
        let eps = keys.number_or("rms_norm_eps", 1e-6)?;
        if !(0.0..1.0).contains(&eps) {
            return Err(
                keys.wrong(format!("`rms_norm_eps` is {eps}"), "it must be from 0 up to 1, such as 1e-5")
            );
        }
        let num_hidden_layers = keys.extent("num_hidden_layers")?;
        let activations = match json.get(ACTIVATIONS) {
            None => Vec::new(),
            Some(given) => activations(given, num_hidden_layers).map_err(|problem| {
                keys.wrong(
                    format!("`{ACTIVATIONS}`: {problem}"),
                    "take the configuration as the checkpoint was written, or remove the key to run activations as they are",
                )
            })?,
        };
        let block_shapes = match json.get(BLOCK_SHAPES) {
            None => Vec::new(),
            Some(given) => block_shapes(given, num_hidden_layers).map_err(|problem| {
                keys.wrong(
                    format!("`{BLOCK_SHAPES}`: {problem}"),
                    "take the configuration as the checkpoint was written",
                )
            })?,
        };
        Ok(Self {
            vocab_size: keys.extent("vocab_size")?,
            hidden_size,
            intermediate_size: keys.extent("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            rms_norm_eps: eps as f32,
            max_position_embeddings,
            tie_word_embeddings: keys.flag("tie_word_embeddings", false)?,
            qkv_bias: attention_bias,
            output_bias: attention_bias && !qwen2,
            mlp_bias: keys.flag("mlp_bias", false)?,
            rope_theta,
            rope_scaling,
            activations,
            block_shapes,
            architecture,
        })
    }

    /// The configuration as it holds for block `index`.
    pub fn of_block(&self, index: usize) -> Self {
        match self.block_shapes.get(index) {
            Some(shape) => self.with_shape(*shape),
            None => self.clone(),
        }
    }

    /// The configuration of a model whose blocks all have this shape.
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

    /// Rotary frequencies, radians per position: `[head_dim / 2]`.
    ///
    /// In single precision, step by step as the models' own implementations compute them: they were trained with these values, and at
    /// long distances exact ones give measurably other scores.
    pub fn rope_frequencies(&self) -> Vec<f32> {
        (0..self.head_dim / 2)
            .map(|i| {
                let exponent = (2 * i) as f32 / self.head_dim as f32;
                let frequency = 1.0 / (self.rope_theta as f32).powf(exponent);
                match self.rope_scaling {
                    RopeScaling::Default => frequency,
                    RopeScaling::Linear { factor } => frequency / factor as f32,
                    RopeScaling::Llama3 {
                        factor,
                        low_freq_factor,
                        high_freq_factor,
                        original_max_position_embeddings: original,
                    } => {
                        let wavelength = std::f32::consts::TAU / frequency;
                        if f64::from(wavelength) > original / low_freq_factor {
                            frequency / factor as f32
                        } else if f64::from(wavelength) < original / high_freq_factor {
                            frequency
                        } else {
                            let turns = original as f32 / wavelength;
                            let smooth = (turns - low_freq_factor as f32)
                                / (high_freq_factor - low_freq_factor) as f32;
                            (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
                        }
                    }
                }
            })
            .collect()
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

/// Reads the base and the stretching, in the spelling of transformers 5 (`rope_parameters`) or the older one (`rope_theta` and
/// `rope_scaling`).
fn rope(keys: &Keys<'_>) -> Result<(f64, RopeScaling)> {
    let (section, name) = match (keys.section("rope_parameters")?, keys.section("rope_scaling")?) {
        (Some(section), _) => (Some(section), "rope_parameters"),
        (None, scaling) => (scaling, "rope_scaling"),
    };
    let inner = Keys { model: keys.model, object: section, prefix: name };
    let theta = match inner.optional_number("rope_theta")? {
        Some(theta) => theta,
        None => keys.number_or("rope_theta", 10_000.0)?,
    };
    if !(theta > 0.0 && theta.is_finite()) {
        return Err(keys.wrong(format!("`rope_theta` is {theta}"), "it must be positive"));
    }
    if let Some(part) = keys.optional_number("partial_rotary_factor")?
        && part != 1.0
    {
        return Err(keys.wrong(
            format!("`partial_rotary_factor` is {part}, and partial rotation is not implemented"),
            "use a model that rotates whole heads",
        ));
    }
    let kind = section
        .and_then(|s| s.get("rope_type").or_else(|| s.get("type")))
        .and_then(Value::as_str)
        .unwrap_or("default");
    let positive = |key: &'static str| -> Result<f64> {
        match inner.optional_number(key)? {
            Some(v) if v > 0.0 && v.is_finite() => Ok(v),
            Some(v) => Err(inner.wrong(format!("`{name}.{key}` is {v}"), "it must be positive")),
            None => {
                Err(inner.wrong(format!("`{name}.{key}` is missing"), format!("rope type `{kind}` needs it")))
            }
        }
    };
    let scaling = match kind {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: positive("factor")? },
        "llama3" => {
            let low_freq_factor = positive("low_freq_factor")?;
            let high_freq_factor = positive("high_freq_factor")?;
            if high_freq_factor <= low_freq_factor {
                return Err(inner.wrong(
                    format!("`{name}.high_freq_factor` {high_freq_factor} is not above `low_freq_factor` {low_freq_factor}"),
                    "LLaMA 3 has 4 and 1",
                ));
            }
            RopeScaling::Llama3 {
                factor: positive("factor")?,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: positive("original_max_position_embeddings")?,
            }
        }
        other => {
            return Err(inner.wrong(
                format!("rope type `{other}` is not implemented"),
                "use a model with `default`, `linear` or `llama3`, or another backend",
            ));
        }
    };
    Ok((theta, scaling))
}

/// A JSON object whose keys are asked for with messages that name them.
struct Keys<'a> {
    model: &'a str,
    object: Option<&'a Map<String, Value>>,
    prefix: &'a str,
}

impl<'a> Keys<'a> {
    fn wrong(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Config { model: self.model.to_owned(), problem: problem.into(), remedy: remedy.into() }
    }

    fn path(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) }
    }

    /// The value of a key; JSON's null counts as absent.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.and_then(|object| object.get(key)).filter(|value| !value.is_null())
    }

    fn optional_extent(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(v) if (1..=LARGEST_EXTENT).contains(&v) => Ok(Some(v)),
            _ => Err(self.wrong(
                format!("`{}` is {value}", self.path(key)),
                format!("it must be a whole number from 1 to {LARGEST_EXTENT}"),
            )),
        }
    }

    fn extent(&self, key: &str) -> Result<usize> {
        self.optional_extent(key)?.ok_or_else(|| {
            self.wrong(format!("`{}` is missing", self.path(key)), "a model of this family needs it")
        })
    }

    fn extent_or(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.optional_extent(key)?.unwrap_or(default))
    }

    fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            Some(v) => Ok(Some(v)),
            None => Err(self.wrong(format!("`{}` is {value}", self.path(key)), "it must be a number")),
        }
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(v)) => Ok(*v),
            Some(value) => {
                Err(self.wrong(format!("`{}` is {value}", self.path(key)), "it must be true or false"))
            }
        }
    }

    fn section(&self, key: &str) -> Result<Option<&'a Map<String, Value>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(section)) => Ok(Some(section)),
            Some(value) => {
                Err(self.wrong(format!("`{}` is {value}", self.path(key)), "it must be an object"))
            }
        }
    }
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
            (LlamaConfig::from_json(&old, "m").unwrap(), LlamaConfig::from_json(&new, "m").unwrap());
        assert_eq!(old, new);
        assert_eq!(old.rope_theta, 500_000.0);
        assert!(matches!(old.rope_scaling, RopeScaling::Llama3 { .. }));
        let typed = with("rope_scaling", json!({"type": "linear", "factor": 2.0}));
        let linear = LlamaConfig::from_json(&typed, "m").unwrap();
        assert_eq!(linear.rope_scaling, RopeScaling::Linear { factor: 2.0 });
        assert_eq!(linear.rope_frequencies()[0], 0.5);
    }

    #[test]
    fn defaults_follow_the_architecture() {
        let llama = LlamaConfig::from_json(&with("num_key_value_heads", Value::Null), "m").unwrap();
        assert_eq!((llama.num_key_value_heads, llama.head_dim, llama.qkv_bias), (4, 16, false));
        let qwen = LlamaConfig::from_json(&with("model_type", json!("qwen2")), "m").unwrap();
        assert!(qwen.qkv_bias && !qwen.output_bias && !qwen.mlp_bias);
        let biased = LlamaConfig::from_json(&with("attention_bias", json!(true)), "m").unwrap();
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
            ("rms_norm_eps", json!(2.0), "rms_norm_eps"),
            ("tie_word_embeddings", json!("yes"), "tie_word_embeddings"),
            ("use_sliding_window", json!(true), "use_sliding_window"),
        ] {
            let message =
                LlamaConfig::from_json(&with(key, value.clone()), "some/model").unwrap_err().to_string();
            assert!(
                message.contains(expected) && message.contains("some/model"),
                "{key} = {value}: {message}"
            );
        }
        assert!(LlamaConfig::from_json(&json!([1]), "m").is_err());
    }
}
