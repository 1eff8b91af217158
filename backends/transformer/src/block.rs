//! One description of a decoder block, and its weights.
//!
//! Compression methods see a block as this module lists it: linears with names and shapes, which of them share an input, and which
//! norm feeds which linears.

use std::sync::Arc;

use llmcb_model_files::packed::IntegerMatrix;
use serde::Serialize;

use crate::activation::{ActivationQuantization, ActivationSite, Activations};
use crate::kernels::PackedIntegers;
use crate::weight::Weight;
use crate::width::residual_side;
use crate::{BlockShape, Error, LlamaConfig, Result, TensorSource, UnitAxis};

/// What a linear of a block reads. Linears of one group share their input, so their statistics are computed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InputGroup {
    /// The normalised residual stream before attention: query, key and value projections.
    AttnIn,
    /// The mixed values of all heads: the output projection.
    AttnOut,
    /// The normalised residual stream before the feed-forward part: gate and up projections.
    MlpIn,
    /// The gated activations: the down projection.
    MlpOut,
}

impl InputGroup {
    /// All groups, in the order in which a block computes them.
    pub const ALL: [InputGroup; 4] =
        [InputGroup::AttnIn, InputGroup::AttnOut, InputGroup::MlpIn, InputGroup::MlpOut];

    /// The name used in descriptions: `attn_in`, `attn_out`, `mlp_in`, `mlp_out`.
    pub fn name(self) -> &'static str {
        match self {
            InputGroup::AttnIn => "attn_in",
            InputGroup::AttnOut => "attn_out",
            InputGroup::MlpIn => "mlp_in",
            InputGroup::MlpOut => "mlp_out",
        }
    }
}

/// The seven linears of a block, as indices of its arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Query,
    Key,
    Value,
    Output,
    Gate,
    Up,
    Down,
}

impl Role {
    pub(crate) const ALL: [Role; 7] =
        [Role::Query, Role::Key, Role::Value, Role::Output, Role::Gate, Role::Up, Role::Down];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Query => "self_attn.q_proj",
            Role::Key => "self_attn.k_proj",
            Role::Value => "self_attn.v_proj",
            Role::Output => "self_attn.o_proj",
            Role::Gate => "mlp.gate_proj",
            Role::Up => "mlp.up_proj",
            Role::Down => "mlp.down_proj",
        }
    }

    pub(crate) fn group(self) -> InputGroup {
        match self {
            Role::Query | Role::Key | Role::Value => InputGroup::AttnIn,
            Role::Output => InputGroup::AttnOut,
            Role::Gate | Role::Up => InputGroup::MlpIn,
            Role::Down => InputGroup::MlpOut,
        }
    }

    /// `(outputs, inputs)`.
    pub(crate) fn shape(self, c: &LlamaConfig) -> (usize, usize) {
        match self {
            Role::Query => (c.query_width(), c.hidden_size),
            Role::Key | Role::Value => (c.key_value_width(), c.hidden_size),
            Role::Output => (c.hidden_size, c.query_width()),
            Role::Gate | Role::Up => (c.intermediate_size, c.hidden_size),
            Role::Down => (c.hidden_size, c.intermediate_size),
        }
    }

    pub(crate) fn has_bias(self, c: &LlamaConfig) -> bool {
        match self {
            Role::Query | Role::Key | Role::Value => c.qkv_bias,
            Role::Output => c.output_bias,
            Role::Gate | Role::Up | Role::Down => c.mlp_bias,
        }
    }

    fn fed_by(self, c: &LlamaConfig) -> Option<FedBy> {
        match self {
            Role::Output => Some(FedBy {
                linear: Role::Value.name().to_owned(),
                width: c.head_dim,
                repeats: c.num_attention_heads / c.num_key_value_heads,
            }),
            Role::Down => {
                Some(FedBy { linear: Role::Up.name().to_owned(), width: c.intermediate_size, repeats: 1 })
            }
            _ => None,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// The name of the norm before attention.
pub const ATTENTION_NORM: &str = "input_layernorm";
/// The name of the norm before the feed-forward part.
pub const MLP_NORM: &str = "post_attention_layernorm";

/// One linear of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinearInfo {
    /// Its name inside the block: `self_attn.q_proj`.
    pub name: String,
    /// Rows of the weight.
    pub out_features: usize,
    /// Columns of the weight.
    pub in_features: usize,
    /// What it reads.
    pub input: InputGroup,
    /// Whether it adds a bias.
    pub bias: bool,
    /// Whose outputs its inputs are.
    pub fed_by: Option<FedBy>,
}

/// Another linear whose output features are a linear's input features: input feature `c` is output feature
/// `(c / (width * repeats)) * width + c % width`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FedBy {
    /// Name of the other linear.
    pub linear: String,
    /// Features of one piece.
    pub width: usize,
    /// How often each piece is read.
    pub repeats: usize,
}

/// A part of a block with one input and one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleInfo {
    /// Attention, from the normalised residual stream to what is added to it.
    Attention,
    /// The feed-forward part, likewise.
    Mlp,
}

impl ModuleInfo {
    /// All parts, in order.
    pub const ALL: [ModuleInfo; 2] = [ModuleInfo::Attention, ModuleInfo::Mlp];

    /// The name of the part inside a block: `self_attn`, `mlp`.
    pub fn name(self) -> &'static str {
        match self {
            ModuleInfo::Attention => "self_attn",
            ModuleInfo::Mlp => "mlp",
        }
    }

    /// The part of this name.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|part| part.name() == name);
        found.ok_or_else(|| {
            Error::argument(
                format!("module `{name}`"),
                format!("a block has only {}", Self::ALL.map(Self::name).join(", ")),
            )
        })
    }

    /// What its first linears read.
    pub fn input(self) -> InputGroup {
        match self {
            ModuleInfo::Attention => InputGroup::AttnIn,
            ModuleInfo::Mlp => InputGroup::MlpIn,
        }
    }

    /// What its last linear reads.
    pub fn inner(self) -> InputGroup {
        match self {
            ModuleInfo::Attention => InputGroup::AttnOut,
            ModuleInfo::Mlp => InputGroup::MlpOut,
        }
    }

    pub(crate) fn last(self) -> Role {
        match self {
            ModuleInfo::Attention => Role::Output,
            ModuleInfo::Mlp => Role::Down,
        }
    }
}

/// One norm of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NormInfo {
    /// Its name inside the block: `input_layernorm`.
    pub name: String,
    /// Length of its weight.
    pub size: usize,
    /// Names of the linears that read its output.
    pub feeds: Vec<String>,
}

/// A block as methods see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockInfo {
    /// Linears, in the order in which they are computed.
    pub linears: Vec<LinearInfo>,
    /// Norms, in the order in which they are computed.
    pub norms: Vec<NormInfo>,
    /// Query heads; rows of `q_proj` and columns of `o_proj` come in this many pieces.
    pub heads: usize,
    /// Key and value heads; rows of `k_proj` and `v_proj` come in this many pieces.
    pub key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Name of the linear whose outputs are queries.
    pub queries: String,
    /// Name of the linear whose outputs are keys.
    pub keys: String,
}

impl BlockInfo {
    /// The description of a block with this configuration.
    pub fn new(config: &LlamaConfig) -> Self {
        let linears = Role::ALL
            .into_iter()
            .map(|role| {
                let (out_features, in_features) = role.shape(config);
                LinearInfo {
                    name: role.name().to_owned(),
                    out_features,
                    in_features,
                    input: role.group(),
                    bias: role.has_bias(config),
                    fed_by: role.fed_by(config),
                }
            })
            .collect::<Vec<_>>();
        let norm = |name: &str, group: InputGroup| NormInfo {
            name: name.to_owned(),
            size: config.hidden_size,
            feeds: linears.iter().filter(|l| l.input == group).map(|l| l.name.clone()).collect(),
        };
        let norms = vec![norm(ATTENTION_NORM, InputGroup::AttnIn), norm(MLP_NORM, InputGroup::MlpIn)];
        Self {
            linears,
            norms,
            heads: config.num_attention_heads,
            key_value_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            queries: Role::Query.name().to_owned(),
            keys: Role::Key.name().to_owned(),
        }
    }

    /// Norms, linears and biases that read or write the residual stream, and on which side; the only side of a norm or a bias is its outputs.
    pub fn residual_sides(&self) -> Vec<(String, UnitAxis)> {
        let mut sides: Vec<(String, UnitAxis)> =
            self.norms.iter().map(|norm| (norm.name.clone(), UnitAxis::Outputs)).collect();
        for role in Role::ALL {
            let side = residual_side(role);
            sides.push((role.name().to_owned(), side));
            let bias = self.linears.iter().any(|l| l.name == role.name() && l.bias);
            if bias && side == UnitAxis::Outputs {
                sides.push((format!("{}.bias", role.name()), side));
            }
        }
        sides
    }

    /// The linear of this name.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is none.
    pub fn linear(&self, name: &str) -> Result<&LinearInfo> {
        self.linears.iter().find(|l| l.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.linears.iter().map(|l| l.name.as_str()).collect();
            Error::argument(format!("linear `{name}`"), format!("a block has only {}", names.join(", ")))
        })
    }
}

/// A linear: `y = x W^T + b`.
#[derive(Debug, Clone)]
pub struct Linear {
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Arc<Vec<f32>>>,
}

impl Linear {
    /// The weight, row-major `[out, in]`.
    pub fn weight(&self) -> Vec<f32> {
        self.weight.unpack()
    }

    /// The integer codes of the weight, where it has them.
    pub fn integers(&self) -> Option<&PackedIntegers> {
        self.weight.integers()
    }

    /// The bias, `[out]`.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(|b| b.as_slice())
    }
}

/// The weights of one block. Cloning is cheap: tensors are shared.
#[derive(Debug, Clone)]
pub struct Block {
    linears: [Linear; 7],
    norms: [Arc<Vec<f32>>; 2],
    activations: Activations,
    config: Arc<LlamaConfig>,
}

/// How the linears of block `index` read their inputs, as the files say it linear by linear.
fn input_rounding(source: &dyn TensorSource, index: usize) -> Result<Activations> {
    let mut activations = Activations::default();
    for group in InputGroup::ALL {
        let mut seen = None;
        for role in Role::ALL.into_iter().filter(|role| role.group() == group) {
            let name = format!("model.layers.{index}.{}", role.name());
            let rounding = source.input_rounding(&name)?;
            if seen.is_some_and(|seen| seen != rounding) {
                return Err(Error::Config {
                    model: "weights".to_owned(),
                    problem: format!(
                        "`{name}` rounds its inputs in another way than linears that read the same"
                    ),
                    remedy: "use a checkpoint that treats them alike".to_owned(),
                });
            }
            seen = Some(rounding);
        }
        activations.set(ActivationSite::Input(group), seen.flatten());
    }
    Ok(activations)
}

impl Block {
    /// Loads block `index` of a model.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape than the configuration gives it, or cannot be decoded.
    pub fn load(source: &dyn TensorSource, config: &LlamaConfig, index: usize) -> Result<Self> {
        let config = Arc::new(config.of_block(index));
        let linear = |role: Role| -> Result<Linear> {
            let (outputs, inputs) = role.shape(&config);
            let weight = match source.integers(&format!("model.layers.{index}.{}", role.name()))? {
                Some(codes) => Weight::Integers(Arc::new(PackedIntegers::pack(&codes)?)),
                None => {
                    let weight = source.load(&tensor_name(index, role.name(), "weight"))?;
                    check_length(&tensor_name(index, role.name(), "weight"), &weight, outputs * inputs)?;
                    Weight::dense(outputs, inputs, &weight)
                }
            };
            let bias = if role.has_bias(&config) {
                let name = tensor_name(index, role.name(), "bias");
                let bias = source.load(&name)?;
                check_length(&name, &bias, outputs)?;
                Some(Arc::new(bias))
            } else {
                None
            };
            Ok(Linear { weight, bias })
        };
        let norm = |name: &str| -> Result<Arc<Vec<f32>>> {
            let name = tensor_name(index, name, "weight");
            let weight = source.load(&name)?;
            check_length(&name, &weight, config.hidden_size)?;
            Ok(Arc::new(weight))
        };
        Ok(Self {
            linears: [
                linear(Role::Query)?,
                linear(Role::Key)?,
                linear(Role::Value)?,
                linear(Role::Output)?,
                linear(Role::Gate)?,
                linear(Role::Up)?,
                linear(Role::Down)?,
            ],
            norms: [norm(ATTENTION_NORM)?, norm(MLP_NORM)?],
            activations: match config.activations.get(index) {
                Some(activations) => *activations,
                None => input_rounding(source, index)?,
            },
            config,
        })
    }

    /// The model's configuration, with this block's numbers of heads and channels.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Gives the block another shape. Weights (and biases) whose shape changes become zero, and are to be set anew.
    pub fn reshape(&mut self, shape: BlockShape) {
        let config = self.config.with_shape(shape);
        for role in Role::ALL {
            let (outputs, inputs) = role.shape(&config);
            let linear = &mut self.linears[role as usize];
            if (linear.weight.outputs(), linear.weight.inputs()) != (outputs, inputs) {
                linear.weight = Weight::dense(outputs, inputs, &vec![0.0; outputs * inputs]);
                linear.bias = linear.bias.as_ref().map(|_| Arc::new(vec![0.0; outputs]));
            }
        }
        self.config = Arc::new(config);
    }

    /// What it is made of.
    pub fn info(&self) -> BlockInfo {
        BlockInfo::new(&self.config)
    }

    /// How its activations are rounded.
    pub fn activations(&self) -> &Activations {
        &self.activations
    }

    /// Rounds the activations of a site from now on, or no longer. Other clones of the block stay as they are.
    pub fn quantize_activations(
        &mut self,
        site: ActivationSite,
        quantization: Option<ActivationQuantization>,
    ) {
        self.activations.set(site, quantization);
    }

    pub(crate) fn role(&self, role: Role) -> &Linear {
        &self.linears[role as usize]
    }

    pub(crate) fn attention_norm(&self) -> &[f32] {
        &self.norms[0]
    }

    pub(crate) fn mlp_norm(&self) -> &[f32] {
        &self.norms[1]
    }

    /// The linear of this name, such as `mlp.down_proj`.
    ///
    /// # Errors
    /// [`Error::Argument`] if a block has none of this name.
    pub fn linear(&self, name: &str) -> Result<&Linear> {
        Ok(self.role(find_linear(name)?))
    }

    /// The values of a tensor of this block by its name inside the block: `self_attn.q_proj.weight` (row-major `[out, in]`),
    /// `self_attn.q_proj.bias`, `input_layernorm.weight`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the block has no such tensor.
    pub fn tensor(&self, name: &str) -> Result<Vec<f32>> {
        match Slot::parse(name)? {
            Slot::Weight(role) => Ok(self.role(role).weight()),
            Slot::Bias(role) => match self.role(role).bias() {
                Some(bias) => Ok(bias.to_vec()),
                None => Err(no_bias(role)),
            },
            Slot::Norm(i) => Ok(self.norms[i].to_vec()),
        }
    }

    /// Replaces a tensor of this block; names as for [`tensor`](Self::tensor). Other clones of the block keep the old one.
    ///
    /// # Errors
    /// [`Error::Argument`] if the block has no such tensor, or the number of values is another.
    pub fn set_tensor(&mut self, name: &str, values: Vec<f32>) -> Result<()> {
        let fits = |expected: usize| {
            if values.len() == expected {
                Ok(())
            } else {
                Err(Error::argument(
                    format!("tensor `{name}`"),
                    format!("{} values were given, but it has {expected}", values.len()),
                ))
            }
        };
        match Slot::parse(name)? {
            Slot::Weight(role) => {
                let old = &self.role(role).weight;
                let (outputs, inputs) = (old.outputs(), old.inputs());
                fits(outputs * inputs)?;
                self.linears[role as usize].weight = Weight::dense(outputs, inputs, &values);
            }
            Slot::Bias(role) => {
                let Some(old) = self.role(role).bias() else { return Err(no_bias(role)) };
                fits(old.len())?;
                self.linears[role as usize].bias = Some(Arc::new(values));
            }
            Slot::Norm(i) => {
                fits(self.norms[i].len())?;
                self.norms[i] = Arc::new(values);
            }
        }
        Ok(())
    }

    /// Replaces the weight of a linear, such as `mlp.down_proj`, by integer codes: the forward pass runs on them as they are, and
    /// [`tensor`](Self::tensor) gives the values that they stand for. `set_tensor` puts numbers in their place again.
    ///
    /// # Errors
    /// [`Error::Argument`] if the block has no such linear, the shape is another, or the parts of `codes` do not fit together.
    pub fn set_integers(&mut self, linear: &str, codes: &IntegerMatrix) -> Result<()> {
        let role = find_linear(linear)?;
        let old = &self.role(role).weight;
        if (old.outputs(), old.inputs()) != (codes.rows, codes.columns) {
            return Err(Error::argument(
                format!("weight of `{linear}`"),
                format!(
                    "integer codes [{}, {}] were given, but it is [{}, {}]",
                    codes.rows,
                    codes.columns,
                    old.outputs(),
                    old.inputs()
                ),
            ));
        }
        self.linears[role as usize].weight = Weight::Integers(Arc::new(PackedIntegers::pack(codes)?));
        Ok(())
    }

    /// Names of all tensors of this block, in the order in which checkpoints hold them.
    pub fn tensor_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for role in Role::ALL {
            names.push(format!("{}.weight", role.name()));
            if self.role(role).bias.is_some() {
                names.push(format!("{}.bias", role.name()));
            }
        }
        names.extend([ATTENTION_NORM, MLP_NORM].map(|norm| format!("{norm}.weight")));
        names
    }
}

/// A tensor inside a block.
enum Slot {
    Weight(Role),
    Bias(Role),
    Norm(usize),
}

impl Slot {
    fn parse(name: &str) -> Result<Self> {
        let unknown = || {
            let linears: Vec<&str> = Role::ALL.iter().map(|r| r.name()).collect();
            Error::argument(
                format!("tensor `{name}`"),
                format!(
                    "a block has only `NAME.weight` and `NAME.bias` of {}, and `{ATTENTION_NORM}.weight`, `{MLP_NORM}.weight`",
                    linears.join(", ")
                ),
            )
        };
        let (owner, kind) = name.rsplit_once('.').ok_or_else(unknown)?;
        match (owner, kind, Role::from_name(owner)) {
            (_, "weight", Some(role)) => Ok(Slot::Weight(role)),
            (_, "bias", Some(role)) => Ok(Slot::Bias(role)),
            (ATTENTION_NORM, "weight", _) => Ok(Slot::Norm(0)),
            (MLP_NORM, "weight", _) => Ok(Slot::Norm(1)),
            _ => Err(unknown()),
        }
    }
}

fn find_linear(name: &str) -> Result<Role> {
    Role::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Role::ALL.iter().map(|r| r.name()).collect();
        Error::argument(format!("linear `{name}`"), format!("a block has only {}", names.join(", ")))
    })
}

fn no_bias(role: Role) -> Error {
    Error::argument(format!("tensor `{}.bias`", role.name()), "this model's linear has no bias")
}

fn check_length(name: &str, values: &[f32], expected: usize) -> Result<()> {
    if values.len() == expected {
        return Ok(());
    }
    Err(Error::Tensor {
        model: "weights".to_owned(),
        tensor: name.to_owned(),
        problem: format!("{} values where the configuration calls for {expected}", values.len()),
    })
}

/// The Hugging Face name of a tensor of a block.
pub fn tensor_name(block: usize, owner: &str, kind: &str) -> String {
    format!("model.layers.{block}.{owner}.{kind}")
}
