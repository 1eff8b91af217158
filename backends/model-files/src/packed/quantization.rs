//! `quantization_config`: what a configuration says of a checkpoint's integer weights.

use serde_json::{Value, json};

use super::bitmask::Bitmask;
use super::scheme::{FloatType, Layout, Scheme, ZeroPoints};

/// The formats that can be read, for messages.
const KNOWN: &str = "gptq, awq, compressed-tensors and modelopt can be read";

/// The one algorithm of Model Optimizer's whose weights are integer codes alone.
const W4A16_AWQ: &str = "W4A16_AWQ";

/// How the inputs of linears are quantised when the model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputActivations {
    /// Bits per value.
    pub bits: u32,
    /// Whether the grid is symmetric around zero.
    pub symmetric: bool,
    /// Whether the grid is found while the model runs; else it is stored.
    pub dynamic: bool,
    /// Whether every token has a grid of its own; else one serves the whole tensor.
    pub per_token: bool,
}

/// Linears that are stored alike.
#[derive(Debug, Clone, PartialEq)]
struct Group {
    targets: Vec<String>,
    scheme: Scheme,
    input_activations: Option<InputActivations>,
}

/// How the integer weights of a checkpoint are stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantization {
    /// Never empty.
    groups: Vec<Group>,
}

impl Quantization {
    /// All linears stored alike, with inputs as they are.
    pub fn new(scheme: Scheme) -> Self {
        Quantization {
            groups: vec![Group { targets: vec!["Linear".to_owned()], scheme, input_activations: None }],
        }
    }

    /// The same with quantised inputs, which only compressed-tensors' layouts can express.
    pub fn with_input_activations(mut self, inputs: Option<InputActivations>) -> Self {
        for group in &mut self.groups {
            group.input_activations = inputs;
        }
        self
    }

    /// The scheme of a linear by its name, `model.layers.0.mlp.up_proj`. Whether it is stored so is for its tensors to say.
    pub fn scheme(&self, linear: &str) -> &Scheme {
        &self.group(linear).scheme
    }

    /// How the inputs of a linear are quantised.
    pub fn input_activations(&self, linear: &str) -> Option<InputActivations> {
        self.group(linear).input_activations
    }

    fn group(&self, linear: &str) -> &Group {
        let named = |g: &&Group| g.targets.iter().any(|t| t != "Linear" && target_matches(t, linear));
        let any = |g: &&Group| g.targets.iter().any(|t| t == "Linear");
        let found = self.groups.iter().find(named).or_else(|| self.groups.iter().find(any));
        found.unwrap_or(&self.groups[0])
    }

    /// Reads the configuration of a model; `None` where it speaks of no quantisation.
    ///
    /// # Errors
    /// A method or a setting that cannot be read, in one line.
    pub fn from_config(config: &Value) -> Result<Option<Self>, String> {
        let given = ["quantization_config", "compression_config"].iter().find_map(|key| config.get(key));
        let Some(given) = given.filter(|g| !g.is_null()) else { return Ok(None) };
        match given["quant_method"].as_str() {
            Some("gptq") => gptq(given).map(Quantization::new).map(Some),
            Some("awq") => awq(given).map(Quantization::new).map(Some),
            Some("modelopt") => modelopt(given).map(Quantization::new).map(Some),
            Some("compressed-tensors") if only_sparse(given) => Ok(None),
            Some("compressed-tensors") => compressed_tensors(given).map(Some),
            // The first versions of compressed-tensors did not say who they are.
            None if given.get("config_groups").is_some() => compressed_tensors(given).map(Some),
            Some(other) => Err(format!("the weights are quantised by `{other}`; {KNOWN}")),
            None => Err(format!("`quantization_config` names no `quant_method`; {KNOWN}")),
        }
    }

    /// What a `config.json` says of a checkpoint whose linears are all stored by the first scheme, except those named in `dense`
    /// (`model.layers.0.mlp.up_proj`); `quantised` are the names, inside a block, of those that are not.
    pub fn to_json(&self, dense: &[String], quantised: &[String]) -> Value {
        let Group { scheme, input_activations, .. } = &self.groups[0];
        let group_size = scheme.group_size.map_or(json!(-1), Value::from);
        let maker = concat!("llmcb-host:", env!("CARGO_PKG_VERSION"));
        match scheme.layout {
            Layout::Gptq => {
                let format = if scheme.zero_points == ZeroPoints::V1 { "gptq" } else { "gptq_v2" };
                let mut config = json!({
                    "quant_method": "gptq",
                    "bits": scheme.bits,
                    "group_size": group_size,
                    "desc_act": scheme.act_order,
                    "sym": scheme.symmetric,
                    "lm_head": false,
                    "pack_dtype": "int32",
                    "checkpoint_format": format,
                    "meta": { "quantizer": [maker] },
                });
                if !dense.is_empty() {
                    let each: Vec<[&String; 1]> = quantised.iter().map(|name| [name]).collect();
                    config["modules_in_block_to_quantize"] = json!(each);
                }
                config
            }
            Layout::Awq => json!({
                "quant_method": "awq",
                "version": "gemm",
                "bits": scheme.bits,
                "group_size": group_size,
                "zero_point": true,
                "modules_to_not_convert": if dense.is_empty() { Value::Null } else { json!(dense) },
            }),
            Layout::ModelOpt => {
                let ignore: Vec<&str> = dense.iter().map(String::as_str).chain(["lm_head"]).collect();
                json!({
                    "quant_method": "modelopt",
                    "quant_algo": W4A16_AWQ,
                    "group_size": scheme.group_size,
                    "has_zero_point": false,
                    "pre_quant_scale": true,
                    "ignore": ignore,
                    "config_groups": { "group_0": {
                        "targets": ["Linear"],
                        "weights": {
                            "num_bits": scheme.bits,
                            "type": "int",
                            "group_size": scheme.group_size,
                            "dynamic": false,
                        },
                    } },
                })
            }
            Layout::PackQuantized | Layout::IntQuantized => {
                let strategy = match (scheme.group_size, scheme.per_tensor) {
                    (_, true) => "tensor",
                    (Some(_), _) => "group",
                    (None, _) => "channel",
                };
                let format =
                    if scheme.layout == Layout::PackQuantized { "pack-quantized" } else { "int-quantized" };
                let inputs = input_activations.map(|inputs| {
                    json!({
                        "num_bits": inputs.bits,
                        "type": "int",
                        "symmetric": inputs.symmetric,
                        "strategy": if inputs.per_token { "token" } else { "tensor" },
                        "dynamic": inputs.dynamic,
                    })
                });
                let ignore: Vec<&str> = dense.iter().map(String::as_str).chain(["lm_head"]).collect();
                json!({
                    "quant_method": "compressed-tensors",
                    "format": format,
                    "quantization_status": "compressed",
                    "kv_cache_scheme": null,
                    "ignore": ignore,
                    "config_groups": { "group_0": {
                        "targets": ["Linear"],
                        "format": format,
                        "weights": {
                            "num_bits": scheme.bits,
                            "type": "int",
                            "symmetric": scheme.symmetric,
                            "strategy": strategy,
                            "group_size": scheme.group_size,
                            "dynamic": false,
                        },
                        "input_activations": inputs,
                        "output_activations": null,
                    } },
                })
            }
        }
    }
}

/// A target of compressed-tensors: a module's name, the end of one, or `re:` and an expression, of which those made of a literal with
/// `.*` before or after it are understood (others were refused when the configuration was read).
fn target_matches(target: &str, linear: &str) -> bool {
    match target.strip_prefix("re:").and_then(literal) {
        Some((open, text, close)) => match (open, close) {
            (true, true) => linear.contains(&text),
            (true, false) => linear.ends_with(&text),
            (false, true) => linear.starts_with(&text),
            (false, false) => linear == text,
        },
        None => linear == target || linear.strip_suffix(target).is_some_and(|head| head.ends_with('.')),
    }
}

/// The literal in an expression, and whether anything may stand before and after it.
fn literal(expression: &str) -> Option<(bool, String, bool)> {
    let text = expression.strip_prefix('^').unwrap_or(expression);
    let (open, text) = text.strip_prefix(".*").map_or((false, text), |rest| (true, rest));
    // Expressions are matched from the beginning; without `$` anything may follow.
    let (close, text) = text.strip_suffix('$').map_or((true, text), |rest| (false, rest));
    let text = text.strip_suffix(".*").unwrap_or(text);
    let text = text.replace("\\.", ".");
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    text.chars().all(plain).then_some((open, text, close))
}

fn bits(value: &Value, key: &str, allowed: &[u64]) -> Result<u32, String> {
    match value[key].as_u64() {
        Some(n) if allowed.contains(&n) => Ok(n as u32),
        _ => {
            let list: Vec<String> = allowed.iter().map(u64::to_string).collect();
            Err(format!("`{key}` of the quantisation is {}; {} can be read", value[key], list.join(", ")))
        }
    }
}

fn group_size(value: &Value) -> Result<Option<usize>, String> {
    match (value.as_i64(), value.is_null()) {
        (Some(-1), _) | (_, true) => Ok(None),
        (Some(n), _) if n > 0 => Ok(Some(n as usize)),
        _ => Err(format!("`group_size` of the quantisation is {value}; it must be positive, or -1")),
    }
}

fn gptq(given: &Value) -> Result<Scheme, String> {
    let format = given["checkpoint_format"].as_str().or(given["format"].as_str()).unwrap_or("gptq");
    let zero_points = match format {
        "gptq" => ZeroPoints::V1,
        "gptq_v2" => ZeroPoints::V2,
        other => {
            return Err(format!("the gptq checkpoint is in format `{other}`; gptq and gptq_v2 can be read"));
        }
    };
    if let Some(overrides) = given["dynamic"].as_object()
        && overrides.keys().any(|key| !key.starts_with('-'))
    {
        return Err(
            "the gptq checkpoint has other settings for some linears (`dynamic`), which cannot be read"
                .into(),
        );
    }
    Ok(Scheme {
        layout: Layout::Gptq,
        bits: bits(given, "bits", &[2, 3, 4, 8])?,
        group_size: group_size(&given["group_size"])?,
        symmetric: given["sym"].as_bool().unwrap_or(true),
        per_tensor: false,
        act_order: given["desc_act"].as_bool().unwrap_or(false),
        zero_points,
        scales: FloatType::F16,
    })
}

fn awq(given: &Value) -> Result<Scheme, String> {
    // AutoAWQ and GPTQModel name the same thing differently.
    let version = given["version"].as_str().or(given["checkpoint_format"].as_str()).unwrap_or("gemm");
    if !version.eq_ignore_ascii_case("gemm") {
        return Err(format!("the awq checkpoint is of version `{version}`; gemm can be read"));
    }
    let bits_key = if given.get("bits").is_some() { "bits" } else { "w_bit" };
    let group_key = if given.get("group_size").is_some() { "group_size" } else { "q_group_size" };
    Ok(Scheme {
        layout: Layout::Awq,
        bits: bits(given, bits_key, &[4])?,
        group_size: group_size(&given[group_key])?,
        symmetric: given["zero_point"].as_bool() == Some(false),
        per_tensor: false,
        act_order: false,
        zero_points: ZeroPoints::V2,
        scales: FloatType::F16,
    })
}

fn modelopt(given: &Value) -> Result<Scheme, String> {
    let algorithm = given["quant_algo"].as_str().unwrap_or("none");
    if algorithm != W4A16_AWQ {
        return Err(format!(
            "the modelopt checkpoint is quantised by `{algorithm}`; {W4A16_AWQ} can be read"
        ));
    }
    let weights = &given["config_groups"]["group_0"]["weights"];
    let size = if given["group_size"].is_null() { &weights["group_size"] } else { &given["group_size"] };
    Ok(Scheme {
        layout: Layout::ModelOpt,
        bits: 4,
        group_size: group_size(size)?,
        symmetric: true,
        per_tensor: false,
        act_order: false,
        zero_points: ZeroPoints::V2,
        scales: FloatType::F16,
    })
}

/// Whether a compressed-tensors checkpoint has no integer weights, but weights without their zeros, whose tensors say all that is to be known.
fn only_sparse(given: &Value) -> bool {
    let format = given["sparsity_config"]["format"].as_str();
    let known = format.is_some_and(|f| f == "dense" || Bitmask::ALL.iter().any(|layout| layout.name() == f));
    known && given["config_groups"].as_object().is_none_or(|groups| groups.is_empty())
}

/// What a `config.json` says of a checkpoint whose linears are stored without their zeros, except those named in `dense`.
pub fn sparsity_to_json(layout: Bitmask, zero_fraction: f64, dense: &[String]) -> Value {
    let ignore: Vec<&str> = dense.iter().map(String::as_str).chain(["lm_head"]).collect();
    json!({
        "quant_method": "compressed-tensors",
        "sparsity_config": {
            "format": layout.name(),
            "sparsity_structure": layout.structure(),
            "global_sparsity": zero_fraction,
            "targets": ["Linear"],
            "ignore": ignore,
        },
    })
}

fn compressed_tensors(given: &Value) -> Result<Quantization, String> {
    let global = given["format"].as_str();
    let Some(listed) = given["config_groups"].as_object().filter(|groups| !groups.is_empty()) else {
        let what = global.unwrap_or("none");
        return Err(format!(
            "the compressed-tensors checkpoint has no `config_groups` (format {what}), so no integer weights"
        ));
    };
    let several = listed.len() > 1;
    let mut groups = Vec::new();
    for (name, group) in listed {
        let weights = &group["weights"];
        let targets: Vec<String> = group["targets"]
            .as_array()
            .map(|list| list.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect())
            .unwrap_or_default();
        let opaque = targets.iter().find(|t| t.strip_prefix("re:").is_some_and(|e| literal(e).is_none()));
        if let Some(opaque) = opaque.filter(|_| several) {
            return Err(format!(
                "`{name}` is for modules `{opaque}`, an expression too intricate to be read"
            ));
        }
        let kind = weights["type"].as_str().unwrap_or("int");
        if kind != "int" {
            return Err(format!("the weights of `{name}` are of type {kind}; int can be read"));
        }
        let bits = bits(weights, "num_bits", &[1, 2, 3, 4, 5, 6, 7, 8])?;
        let layout = match group["format"].as_str().or(global) {
            Some("pack-quantized") => Layout::PackQuantized,
            Some("int-quantized" | "naive-quantized") => Layout::IntQuantized,
            other => {
                return Err(format!(
                    "`{name}` is in format `{}`; pack-quantized and int-quantized can be read",
                    other.unwrap_or("none")
                ));
            }
        };
        let size = group_size(&weights["group_size"])?;
        let (group_size, per_tensor) = match weights["strategy"].as_str() {
            Some("tensor") => (None, true),
            Some("channel") => (None, false),
            Some("group") if size.is_some() => (size, false),
            None => (size, size.is_none() && weights.get("group_size").is_none_or(Value::is_null)),
            Some(other) => {
                return Err(format!(
                    "the weights of `{name}` have the strategy `{other}` with group size {}; tensor, channel and \
                     group can be read",
                    weights["group_size"]
                ));
            }
        };
        groups.push(Group {
            targets,
            scheme: Scheme {
                layout,
                bits,
                group_size,
                symmetric: weights["symmetric"].as_bool().unwrap_or(true),
                per_tensor,
                act_order: true,
                zero_points: ZeroPoints::V2,
                scales: FloatType::F32,
            },
            input_activations: inputs(name, &group["input_activations"])?,
        });
    }
    Ok(Quantization { groups })
}

fn inputs(group: &str, given: &Value) -> Result<Option<InputActivations>, String> {
    if given.is_null() {
        return Ok(None);
    }
    let kind = given["type"].as_str().unwrap_or("int");
    if kind != "int" {
        return Err(format!("the inputs of `{group}` are quantised to type {kind}; int can be run"));
    }
    let dynamic = given["dynamic"].as_bool().unwrap_or(false);
    let per_token = match given["strategy"].as_str() {
        Some("token") => true,
        Some("tensor") => false,
        None => dynamic,
        Some(other) => {
            return Err(format!(
                "the inputs of `{group}` are quantised per {other}; per token or tensor can be run"
            ));
        }
    };
    Ok(Some(InputActivations {
        bits: bits(given, "num_bits", &[4, 8])?,
        symmetric: given["symmetric"].as_bool().unwrap_or(true),
        dynamic,
        per_token,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: Value) -> Result<Option<Quantization>, String> {
        Quantization::from_config(&json!({ "quantization_config": config }))
    }

    #[test]
    fn what_is_written_is_read() {
        let base = Scheme {
            layout: Layout::Gptq,
            bits: 4,
            group_size: Some(128),
            symmetric: true,
            per_tensor: false,
            act_order: false,
            zero_points: ZeroPoints::V1,
            scales: FloatType::F16,
        };
        let tensors = Scheme { zero_points: ZeroPoints::V2, act_order: true, scales: FloatType::F32, ..base };
        for scheme in [
            base,
            Scheme { bits: 3, group_size: None, symmetric: false, act_order: true, ..base },
            Scheme { zero_points: ZeroPoints::V2, symmetric: false, ..base },
            Scheme { layout: Layout::Awq, zero_points: ZeroPoints::V2, symmetric: false, ..base },
            Scheme { layout: Layout::ModelOpt, zero_points: ZeroPoints::V2, ..base },
            Scheme { layout: Layout::PackQuantized, ..tensors },
            Scheme { layout: Layout::PackQuantized, bits: 8, group_size: None, symmetric: false, ..tensors },
            Scheme { layout: Layout::IntQuantized, bits: 8, group_size: None, per_tensor: true, ..tensors },
        ] {
            let quantization = Quantization::new(scheme);
            assert_eq!(read(quantization.to_json(&[], &[])), Ok(Some(quantization)));
        }
        let inputs = InputActivations { bits: 8, symmetric: true, dynamic: true, per_token: true };
        let scheme = Scheme { layout: Layout::IntQuantized, bits: 8, group_size: None, ..tensors };
        let quantization = Quantization::new(scheme).with_input_activations(Some(inputs));
        assert_eq!(read(quantization.to_json(&[], &[])), Ok(Some(quantization)));
    }

    #[test]
    fn weights_without_their_zeros_are_no_quantisation() {
        for layout in Bitmask::ALL {
            let config = sparsity_to_json(layout, 0.5, &["model.layers.0.mlp.up_proj".to_owned()]);
            assert_eq!(read(config), Ok(None));
        }
        let as_llm_compressor_writes_it = json!({
            "quant_method": "compressed-tensors", "format": "dense", "config_groups": {}, "ignore": [], "version": "0.9.2",
            "sparsity_config": {"format": "sparse-24-bitmask", "global_sparsity": 0.5, "sparsity_structure": "2:4"},
        });
        assert_eq!(read(as_llm_compressor_writes_it), Ok(None));
        let unknown =
            json!({"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-braids"}});
        assert!(read(unknown).is_err());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (config, expected) in [
            (json!({"quant_method": "bitsandbytes"}), "`bitsandbytes`"),
            (json!({"bits": 4}), "no `quant_method`"),
            (
                json!({"quant_method": "gptq", "bits": 5, "group_size": 128}),
                "`bits` of the quantisation is 5",
            ),
            (json!({"quant_method": "gptq", "bits": "4"}), "`bits` of the quantisation is \"4\""),
            (
                json!({"quant_method": "gptq", "bits": 4, "group_size": 0}),
                "`group_size` of the quantisation is 0",
            ),
            (json!({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}), "format `marlin`"),
            (json!({"quant_method": "awq", "bits": 4, "version": "gemv"}), "version `gemv`"),
            (json!({"quant_method": "awq", "bits": 3}), "is 3; 4 can"),
            (json!({"quant_method": "modelopt", "quant_algo": "NVFP4"}), "by `NVFP4`; W4A16_AWQ can"),
            (json!({"quant_method": "compressed-tensors", "format": "dense"}), "no `config_groups`"),
            (
                json!({"quant_method": "compressed-tensors", "format": "marlin-24",
                    "config_groups": {"a": {"weights": {"num_bits": 4}}}}),
                "format `marlin-24`",
            ),
            (
                json!({"quant_method": "compressed-tensors", "format": "float-quantized",
                    "config_groups": {"a": {"weights": {"num_bits": 8, "type": "float"}}}}),
                "type float",
            ),
            (
                json!({"quant_method": "compressed-tensors", "format": "pack-quantized",
                    "config_groups": {"a": {"weights": {"num_bits": 4, "strategy": "block"}}}}),
                "`block`",
            ),
        ] {
            let message = read(config.clone()).expect_err(&config.to_string());
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(Quantization::from_config(&json!({})), Ok(None));
    }

    #[test]
    fn targets_choose_among_groups() {
        let weights = |bits: u32| json!({"num_bits": bits, "strategy": "channel"});
        let read =
            read(json!({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {
                "a": {"targets": ["re:.*down_proj$"], "weights": weights(8)},
                "b": {"targets": ["self_attn.q_proj"], "weights": weights(6)},
                "c": {"targets": ["Linear"], "weights": weights(4)},
            }}));
        let quantization = read.unwrap().unwrap();
        for (name, bits) in [
            ("model.layers.0.mlp.down_proj", 8),
            ("model.layers.3.self_attn.q_proj", 6),
            ("model.layers.3.self_attn.k_proj", 4),
        ] {
            assert_eq!(quantization.scheme(name).bits, bits, "{name}");
        }
    }
}
