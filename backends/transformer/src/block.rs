//! One description of a block, and its weights.
//!
//! Compression methods see a block as this module lists it: linears with names and shapes as they are stored, which of them share an input,
//! what each output is, and which norm feeds which linears.

use std::sync::Arc;

use llmcb_model_files::packed::IntegerMatrix;
use rayon::prelude::*;
use serde::Serialize;

use crate::activation::{ActivationQuantization, ActivationSite, Activations};
use crate::architecture::{Architecture, FeedForward, NormOrder};
use crate::kernels::{HalfFormat, PackedIntegers};
use crate::layout::{InputGroup, LinearName, ModuleInfo, Names, Role};
use crate::norm::Norm;
use crate::weight::Weight;
use crate::{BlockShape, Error, Precision, Result, TensorSource, UnitAxis};

/// One linear of a block, as it is stored.
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
    /// What its outputs are, from the first on.
    pub outputs: Vec<OutputRange>,
    /// Whose outputs its inputs are.
    pub fed_by: Option<FedBy>,
}

/// Neighbouring outputs of a linear that are of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutputRange {
    /// What they are: `queries`, `keys`, `values`, `attention`, `gate`, `up` or `feed_forward`.
    pub what: &'static str,
    /// The first of them.
    pub first: usize,
    /// How many.
    pub count: usize,
}

/// Another linear whose output features are a linear's input features: input feature `c` is output feature
/// `first + (c / (width * repeats)) * width + c % width`. What lies between passes a positive factor on a feature through unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FedBy {
    /// Name of the other linear.
    pub linear: String,
    /// The first output feature that is read.
    pub first: usize,
    /// Features of one piece.
    pub width: usize,
    /// How often each piece is read.
    pub repeats: usize,
}

/// One norm of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NormInfo {
    /// Its name inside the block: `input_layernorm`.
    pub name: String,
    /// Length of its weight.
    pub size: usize,
    /// Whether it has a bias as long.
    pub bias: bool,
    /// Names of the linears that read its output, where nothing else does.
    pub feeds: Vec<String>,
}

/// A block as methods see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockInfo {
    /// Linears, in the order in which they are computed.
    pub linears: Vec<LinearInfo>,
    /// Norms, in the order in which they are computed.
    pub norms: Vec<NormInfo>,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// Whose outputs a linear reads.
fn fed_by(linear: &LinearName, a: &Architecture) -> Option<FedBy> {
    let (source, width, repeats) = match linear.roles {
        [Role::Output] => (Role::Value, a.head_dim, a.num_attention_heads / a.num_key_value_heads),
        // Both a gate and a rectifier pass positive factors on.
        [Role::Down] => (Role::Up, a.intermediate_size, 1),
        _ => return None,
    };
    let (holder, first) = a.family.names.holder(source, a)?;
    Some(FedBy { linear: holder.name.to_owned(), first, width, repeats })
}

fn output_ranges(linear: &LinearName, a: &Architecture) -> Vec<OutputRange> {
    let mut first = 0;
    let range = |role: &Role| {
        let count = role.shape(a).0;
        first += count;
        OutputRange { what: role.outputs_name(), first: first - count, count }
    };
    linear.roles.iter().map(range).collect()
}

impl BlockInfo {
    /// The description of a block of this architecture.
    pub fn new(a: &Architecture) -> Self {
        let names = a.family.names;
        let describe = |linear: &LinearName| {
            let (out_features, in_features) = linear.shape(a);
            LinearInfo {
                name: linear.name.to_owned(),
                out_features,
                in_features,
                input: linear.group(),
                bias: linear.has_bias(a),
                outputs: output_ranges(linear, a),
                fed_by: fed_by(linear, a),
            }
        };
        let linears: Vec<LinearInfo> = names.linears.iter().map(describe).collect();
        let norm = |name: &str, group: InputGroup| {
            let readers = linears.iter().filter(|l| l.input == group).map(|l| l.name.clone());
            NormInfo {
                name: name.to_owned(),
                size: a.hidden_size,
                bias: a.norm.has_bias(),
                feeds: match a.norm_order {
                    NormOrder::Before => readers.collect(),
                    // The residual stream goes on from it, too.
                    NormOrder::After => Vec::new(),
                },
            }
        };
        let norms = vec![norm(names.norms[0], InputGroup::AttnIn), norm(names.norms[1], InputGroup::MlpIn)];
        Self {
            linears,
            norms,
            heads: a.num_attention_heads,
            key_value_heads: a.num_key_value_heads,
            head_dim: a.head_dim,
        }
    }

    /// Norms, linears and biases that read or write the residual stream, and on which side; the only side of a norm or a bias is its outputs.
    pub fn residual_sides(&self) -> Vec<(String, UnitAxis)> {
        let mut sides = Vec::new();
        for norm in &self.norms {
            sides.push((norm.name.clone(), UnitAxis::Outputs));
            if norm.bias {
                sides.push((format!("{}.bias", norm.name), UnitAxis::Outputs));
            }
        }
        for linear in &self.linears {
            let side = linear.input.residual_side();
            sides.push((linear.name.clone(), side));
            if linear.bias && side == UnitAxis::Outputs {
                sides.push((format!("{}.bias", linear.name), side));
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

/// A matrix of the forward pass: `y = x W^T + b`.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Arc<Vec<f32>>>,
}

impl Linear {
    pub(crate) fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(|b| b.as_slice())
    }

    fn zeros(outputs: usize, inputs: usize, bias: bool) -> Self {
        let weight = Weight::dense(outputs, inputs, &vec![0.0; outputs * inputs]);
        Self { weight, bias: bias.then(|| Arc::new(vec![0.0; outputs])) }
    }
}

/// The weights of one block. Cloning is cheap: tensors are shared.
#[derive(Debug, Clone)]
pub struct Block {
    /// By [`Role`]; a gate that there is not has no rows.
    matrices: [Linear; 7],
    norms: [Norm; 2],
    activations: Activations,
    /// What numbers of weights, and inputs, are rounded to.
    half: Option<HalfFormat>,
    architecture: Arc<Architecture>,
}

/// How the linears of block `index` read their inputs, as the files say it linear by linear.
fn input_rounding(source: &dyn TensorSource, names: &Names, index: usize) -> Result<Activations> {
    let mut activations = Activations::default();
    for group in InputGroup::ALL {
        let mut seen = None;
        for linear in names.linears.iter().filter(|linear| linear.group() == group) {
            let name = names.in_block(index, linear.name);
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
    pub(crate) fn load(
        source: &dyn TensorSource,
        architecture: &Architecture,
        index: usize,
        precision: Precision,
    ) -> Result<Self> {
        let names = architecture.family.names;
        let mut block = Self::blank(architecture.of_block(index));
        block.half = precision.half();
        for linear in names.linears {
            let (outputs, inputs) = linear.shape(&block.architecture);
            let full = names.in_block(index, linear.name);
            match source.integers(&full)? {
                Some(codes) => block.set_codes(linear, &codes)?,
                None => {
                    let name = format!("{full}.weight");
                    let weight = source.load(&name)?;
                    check_length(&name, &weight, outputs * inputs)?;
                    block.set_numbers(linear, &weight);
                }
            }
            if linear.has_bias(&block.architecture) {
                let name = format!("{full}.bias");
                let bias = source.load(&name)?;
                check_length(&name, &bias, outputs)?;
                block.set_bias(linear, &bias);
            }
        }
        let hidden = architecture.hidden_size;
        for (norm, name) in block.norms.iter_mut().zip(names.norms) {
            *norm = Norm::load(source, &names.in_block(index, name), architecture, hidden)?;
        }
        block.activations = match architecture.activations.get(index) {
            Some(activations) => *activations,
            None => input_rounding(source, names, index)?,
        };
        Ok(block)
    }

    /// A block whose tensors are all still to be set.
    pub fn blank(architecture: Architecture) -> Self {
        let architecture = Arc::new(architecture);
        let norm = Norm::ones(&architecture);
        Self {
            matrices: Role::ALL.map(|_| Linear::zeros(0, architecture.hidden_size, false)),
            norms: [norm.clone(), norm],
            activations: Activations::default(),
            half: None,
            architecture,
        }
    }

    /// The architecture, with this block's numbers of heads and channels.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    fn names(&self) -> &'static Names {
        self.architecture.family.names
    }

    /// Gives the block another shape. Weights (and biases) whose shape changes become zero, and are to be set anew.
    pub(crate) fn reshape(&mut self, shape: BlockShape) {
        let architecture = self.architecture.with_shape(shape);
        for role in Role::ALL {
            let (outputs, inputs) = role.shape(&architecture);
            let matrix = &mut self.matrices[role as usize];
            if (matrix.weight.outputs(), matrix.weight.inputs()) != (outputs, inputs) {
                *matrix = Linear::zeros(outputs, inputs, matrix.bias.is_some());
            }
        }
        self.architecture = Arc::new(architecture);
    }

    /// What it is made of.
    pub fn info(&self) -> BlockInfo {
        BlockInfo::new(&self.architecture)
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

    /// Rounds what the linears of a group read, rows of `width`, as the block's activations are rounded and its products formed.
    pub(crate) fn round_inputs(&self, group: InputGroup, rows: &mut [f32], width: usize) {
        if let Some(rounding) = self.activations.input(group) {
            rounding.round_rows(rows, width);
        }
        if let Some(half) = self.half {
            half.round_all(rows);
        }
    }

    /// As [`round_inputs`](Self::round_inputs), on the threads of the current rayon pool.
    pub(crate) fn round_inputs_parallel(&self, group: InputGroup, rows: &mut [f32], width: usize) {
        const ROWS: usize = 64;
        rows.par_chunks_mut(ROWS * width.max(1)).for_each(|rows| self.round_inputs(group, rows, width));
    }

    pub(crate) fn role(&self, role: Role) -> &Linear {
        &self.matrices[role as usize]
    }

    /// The gate, where the feed-forward part has one.
    pub(crate) fn gate(&self) -> Option<&Linear> {
        match self.architecture.feed_forward {
            FeedForward::GatedSilu => Some(self.role(Role::Gate)),
            FeedForward::Relu => None,
        }
    }

    pub(crate) fn attention_norm(&self) -> &Norm {
        &self.norms[0]
    }

    pub(crate) fn mlp_norm(&self) -> &Norm {
        &self.norms[1]
    }

    /// The linear of this name, such as `mlp.down_proj`, as it is stored.
    ///
    /// # Errors
    /// [`Error::Argument`] if a block has none of this name.
    pub fn linear(&self, name: &str) -> Result<StoredLinear<'_>> {
        Ok(StoredLinear { block: self, linear: self.find_linear(name)? })
    }

    /// All linears as they are stored, in order.
    pub fn linears(&self) -> impl Iterator<Item = StoredLinear<'_>> {
        self.names().linears.iter().map(|linear| StoredLinear { block: self, linear })
    }

    fn find_linear(&self, name: &str) -> Result<&'static LinearName> {
        let names = self.names();
        names.linear(name).ok_or_else(|| {
            let known: Vec<&str> = names.linears.iter().map(|linear| linear.name).collect();
            Error::argument(format!("linear `{name}`"), format!("a block has only {}", known.join(", ")))
        })
    }

    /// The part of this name.
    ///
    /// # Errors
    /// [`Error::Argument`] if a block has none of this name.
    pub fn module(&self, name: &str) -> Result<ModuleInfo> {
        ModuleInfo::from_name(name, self.names())
    }

    /// The values of a tensor of this block by its name inside the block: `self_attn.q_proj.weight` (row-major `[out, in]`),
    /// `self_attn.q_proj.bias`, `input_layernorm.weight`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the block has no such tensor.
    pub fn tensor(&self, name: &str) -> Result<Vec<f32>> {
        match self.slot(name)? {
            Slot::Weight(linear) => Ok(StoredLinear { block: self, linear }.weight()),
            Slot::Bias(linear) => {
                StoredLinear { block: self, linear }.bias().ok_or_else(|| no_bias(linear.name))
            }
            Slot::Norm(i) => Ok(self.norms[i].weight.to_vec()),
            Slot::NormBias(i) => match &self.norms[i].bias {
                Some(bias) => Ok(bias.to_vec()),
                None => Err(no_bias(self.names().norms[i])),
            },
        }
    }

    /// How many values a tensor of this block has.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn tensor_len(&self, name: &str) -> Result<usize> {
        match self.slot(name)? {
            Slot::Weight(linear) => {
                let (outputs, inputs) = linear.shape(&self.architecture);
                Ok(outputs * inputs)
            }
            Slot::Bias(linear) if linear.has_bias(&self.architecture) => {
                Ok(linear.shape(&self.architecture).0)
            }
            Slot::Bias(linear) => Err(no_bias(linear.name)),
            Slot::Norm(_) | Slot::NormBias(_) => Ok(self.architecture.hidden_size),
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
        match self.slot(name)? {
            Slot::Weight(linear) => {
                let (outputs, inputs) = linear.shape(&self.architecture);
                fits(outputs * inputs)?;
                self.set_numbers(linear, &values);
            }
            Slot::Bias(linear) => {
                if !linear.has_bias(&self.architecture) {
                    return Err(no_bias(linear.name));
                }
                fits(linear.shape(&self.architecture).0)?;
                self.set_bias(linear, &values);
            }
            Slot::Norm(i) => {
                fits(self.norms[i].weight.len())?;
                self.norms[i].weight = Arc::new(values);
            }
            Slot::NormBias(i) => {
                let Some(bias) = &mut self.norms[i].bias else { return Err(no_bias(self.names().norms[i])) };
                fits(bias.len())?;
                *bias = Arc::new(values);
            }
        }
        Ok(())
    }

    /// Replaces one matrix, `[out, in]`, and its bias.
    pub(crate) fn set_matrix(&mut self, role: Role, weight: &[f32], bias: Option<Vec<f32>>) {
        let (outputs, inputs) = role.shape(&self.architecture);
        let bias = bias.map(Arc::new);
        self.matrices[role as usize] =
            Linear { weight: Weight::numbers(self.half, outputs, inputs, weight), bias };
    }

    /// Shares out a weight among the matrices that it holds.
    fn set_numbers(&mut self, linear: &LinearName, values: &[f32]) {
        let mut rest = values;
        for role in linear.roles {
            let (outputs, inputs) = role.shape(&self.architecture);
            let (own, others) = rest.split_at(outputs * inputs);
            self.matrices[*role as usize].weight = Weight::numbers(self.half, outputs, inputs, own);
            rest = others;
        }
    }

    fn set_bias(&mut self, linear: &LinearName, values: &[f32]) {
        let mut rest = values;
        for role in linear.roles {
            let (own, others) = rest.split_at(role.shape(&self.architecture).0);
            self.matrices[*role as usize].bias = Some(Arc::new(own.to_vec()));
            rest = others;
        }
    }

    fn set_codes(&mut self, linear: &LinearName, codes: &IntegerMatrix) -> Result<()> {
        // Whole, so that what is wrong with a part is said of the linear.
        codes.check().map_err(|e| Error::argument(linear.name, e.to_string()))?;
        let mut first = 0;
        for role in linear.roles {
            let (outputs, _) = role.shape(&self.architecture);
            let packed = PackedIntegers::pack(&codes.row_range(first..first + outputs))?;
            self.matrices[*role as usize].weight = Weight::Integers(Arc::new(packed));
            first += outputs;
        }
        Ok(())
    }

    /// Replaces the weight of a linear, such as `mlp.down_proj`, by integer codes: the forward pass runs on them as they are, and
    /// [`tensor`](Self::tensor) gives the values that they stand for. `set_tensor` puts numbers in their place again.
    ///
    /// # Errors
    /// [`Error::Argument`] if the block has no such linear, the shape is another, or the parts of `codes` do not fit together.
    pub fn set_integers(&mut self, linear: &str, codes: &IntegerMatrix) -> Result<()> {
        let found = self.find_linear(linear)?;
        let (outputs, inputs) = found.shape(&self.architecture);
        if (outputs, inputs) != (codes.rows, codes.columns) {
            return Err(Error::argument(
                format!("weight of `{linear}`"),
                format!(
                    "integer codes [{}, {}] were given, but it is [{outputs}, {inputs}]",
                    codes.rows, codes.columns,
                ),
            ));
        }
        self.set_codes(found, codes)
    }

    /// Names of all tensors of this block, in the order in which checkpoints hold them.
    pub fn tensor_names(&self) -> Vec<String> {
        let names = self.names();
        let mut all = Vec::new();
        for linear in names.linears {
            all.push(format!("{}.weight", linear.name));
            if linear.has_bias(&self.architecture) {
                all.push(format!("{}.bias", linear.name));
            }
        }
        for norm in names.norms {
            all.push(format!("{norm}.weight"));
            if self.architecture.norm.has_bias() {
                all.push(format!("{norm}.bias"));
            }
        }
        all
    }

    fn slot(&self, name: &str) -> Result<Slot> {
        let names = self.names();
        let unknown = || {
            let linears: Vec<&str> = names.linears.iter().map(|linear| linear.name).collect();
            let [first, second] = names.norms;
            Error::argument(
                format!("tensor `{name}`"),
                format!(
                    "a block has only `NAME.weight` and `NAME.bias` of {}, and `{first}.weight`, `{second}.weight`",
                    linears.join(", ")
                ),
            )
        };
        let (owner, kind) = name.rsplit_once('.').ok_or_else(unknown)?;
        let norm = names.norms.iter().position(|norm| *norm == owner);
        match (kind, names.linear(owner), norm) {
            ("weight", Some(linear), _) => Ok(Slot::Weight(linear)),
            ("bias", Some(linear), _) => Ok(Slot::Bias(linear)),
            ("weight", _, Some(i)) => Ok(Slot::Norm(i)),
            ("bias", _, Some(i)) if self.architecture.norm.has_bias() => Ok(Slot::NormBias(i)),
            _ => Err(unknown()),
        }
    }
}

/// A linear of a block as it is stored: one matrix of the forward pass, or several.
#[derive(Clone, Copy)]
pub struct StoredLinear<'a> {
    block: &'a Block,
    linear: &'static LinearName,
}

impl<'a> StoredLinear<'a> {
    fn matrices(self) -> impl Iterator<Item = &'a Linear> {
        self.linear.roles.iter().map(move |role| self.block.role(*role))
    }

    /// Its name inside the block.
    pub fn name(&self) -> &'static str {
        self.linear.name
    }

    /// Rows of the weight.
    pub fn outputs(&self) -> usize {
        self.linear.shape(self.block.architecture()).0
    }

    /// Columns of the weight.
    pub fn inputs(&self) -> usize {
        self.linear.shape(self.block.architecture()).1
    }

    /// The weight, row-major `[out, in]`.
    pub fn weight(&self) -> Vec<f32> {
        let mut parts = self.matrices().map(|matrix| matrix.weight.unpack());
        let first = parts.next().unwrap_or_default();
        parts.fold(first, |mut all, part| {
            all.extend(part);
            all
        })
    }

    /// Whether the weight is integer codes.
    pub fn has_codes(&self) -> bool {
        self.matrices().all(|matrix| matrix.weight.integers().is_some())
    }

    /// Bits of its codes, where it has them.
    pub fn bits(&self) -> Option<u32> {
        self.matrices().next()?.weight.integers().map(PackedIntegers::bits)
    }

    /// The integer codes of the weight, where it has them.
    pub fn integers(&self) -> Option<IntegerMatrix> {
        let mut parts = self.matrices().map(|matrix| Some(matrix.weight.integers()?.to_matrix()));
        let first = parts.next()??;
        parts.try_fold(first, |all, part| all.with_rows_of(part?))
    }

    /// How many numbers of the weight are not zero; codes count in full.
    pub fn nonzeros(&self) -> usize {
        self.matrices().map(|matrix| matrix.weight.nonzeros()).sum()
    }

    /// The bias, `[out]`.
    pub fn bias(&self) -> Option<Vec<f32>> {
        let parts = self.matrices().map(|matrix| matrix.bias()).collect::<Option<Vec<_>>>()?;
        Some(parts.concat())
    }
}

/// A tensor inside a block.
enum Slot {
    Weight(&'static LinearName),
    Bias(&'static LinearName),
    Norm(usize),
    NormBias(usize),
}

fn no_bias(owner: &str) -> Error {
    Error::argument(format!("tensor `{owner}.bias`"), "this model has no such bias")
}

/// Refuses a tensor that has not as many values as the configuration says.
pub(crate) fn check_length(name: &str, values: &[f32], expected: usize) -> Result<()> {
    if values.len() == expected {
        return Ok(());
    }
    Err(Error::Tensor {
        model: "weights".to_owned(),
        tensor: name.to_owned(),
        problem: format!("{} values where the configuration calls for {expected}", values.len()),
    })
}
