//! The block once more, in candle's operations, for gradients.
//!
//! Slow beside the kernels, and only used where a derivative is asked for. A test holds it to the fast path.

use candle_core::backprop::GradStore;
use candle_core::{D, Device, Tensor, Var};

use crate::activation::{ActivationQuantization, ActivationSite, Activations};
use crate::architecture::{FeedForward, NormKind, NormOrder};
use crate::block::Block;
use crate::layout::{InputGroup, Role};
use crate::{Architecture, Error, Model, Result};

/// One block with some of its tensors as variables.
pub(crate) struct BlockGraph<'a> {
    model: &'a Model,
    architecture: Architecture,
    activations: Activations,
    norms: [NormGraph; 2],
    /// By [`Role`]; of a gate that there is not, nothing.
    matrices: [Option<(Tensor, Option<Tensor>)>; 7],
    variables: Vec<Var>,
}

impl<'a> BlockGraph<'a> {
    /// The graph of `block`, differentiable in the tensors named (`mlp.down_proj.weight`, `input_layernorm.weight`).
    pub(crate) fn new(model: &'a Model, block: &Block, variables: &[&str]) -> Result<Self> {
        let mut found: Vec<Option<Var>> = vec![None; variables.len()];
        let mut tensor = |name: &str, shape: &[usize]| -> Result<Tensor> {
            let plain = Tensor::from_vec(block.tensor(name)?, shape, &Device::Cpu)?;
            match variables.iter().position(|v| *v == name) {
                None => Ok(plain),
                Some(place) => {
                    let variable = Var::from_tensor(&plain)?;
                    let tensor = variable.as_tensor().clone();
                    found[place] = Some(variable);
                    Ok(tensor)
                }
            }
        };
        let architecture = block.architecture().clone();
        let names = architecture.family.names;
        let mut matrices = [const { None }; 7];
        for linear in names.linears {
            let (outputs, inputs) = linear.shape(&architecture);
            let weight = tensor(&format!("{}.weight", linear.name), &[outputs, inputs])?;
            let bias = if linear.has_bias(&architecture) {
                Some(tensor(&format!("{}.bias", linear.name), &[outputs])?)
            } else {
                None
            };
            let mut first = 0;
            for role in linear.roles {
                let rows = role.shape(&architecture).0;
                let own = bias.as_ref().map(|bias| bias.narrow(0, first, rows)).transpose()?;
                matrices[*role as usize] = Some((weight.narrow(0, first, rows)?, own));
                first += rows;
            }
        }
        let width = architecture.hidden_size;
        let mut norm = |name: &str| -> Result<NormGraph> {
            let bias = match architecture.norm {
                NormKind::Rms => None,
                NormKind::Layer => Some(tensor(&format!("{name}.bias"), &[width])?),
            };
            let weight = tensor(&format!("{name}.weight"), &[width])?;
            Ok(NormGraph { weight, bias, eps: architecture.norm_eps })
        };
        let norms = [norm(names.norms[0])?, norm(names.norms[1])?];
        let found = found.into_iter().zip(variables).map(|(variable, name)| {
            // A name that is none of the block's tensors, or was given twice.
            variable.ok_or_else(|| match block.tensor(name) {
                Ok(_) => Error::argument(format!("tensor `{name}`"), "its gradient is asked for twice"),
                Err(error) => error,
            })
        });
        let variables = found.collect::<Result<Vec<Var>>>()?;
        Ok(Self { model, architecture, activations: *block.activations(), norms, matrices, variables })
    }

    /// Sum of squared differences between the block's outputs on one window and `target`, both `[tokens, hidden size]`, and its gradients with respect
    /// to the variables, in the order in which they were named.
    pub(crate) fn squared_error(&self, inputs: &[f32], target: &[f32]) -> Result<(f64, Vec<Vec<f32>>)> {
        let shape = self.shape(inputs);
        let x = Tensor::from_slice(inputs, shape, &Device::Cpu)?;
        let target = Tensor::from_slice(target, shape, &Device::Cpu)?;
        let error = (self.forward(&x)? - target)?.sqr()?.sum_all()?;
        let found = self.of_variables(&error.backward()?)?;
        Ok((f64::from(error.to_scalar::<f32>()?), found))
    }

    /// Gradients of a loss whose gradient with respect to the block's outputs on one window is `slopes`, like `inputs` `[tokens, hidden size]`: with
    /// respect to the inputs, where wanted (else nothing), and to the variables.
    pub(crate) fn slopes(
        &self,
        inputs: &[f32],
        slopes: &[f32],
        of_inputs: bool,
    ) -> Result<(Vec<f32>, Vec<Vec<f32>>)> {
        let x = Var::from_slice(inputs, self.shape(inputs), &Device::Cpu)?;
        let slopes = Tensor::from_slice(slopes, x.shape(), &Device::Cpu)?;
        let read = if of_inputs { x.as_tensor().clone() } else { x.as_tensor().detach() };
        let gradients = (self.forward(&read)? * slopes)?.sum_all()?.backward()?;
        let inputs = if of_inputs { of_variable(&gradients, &x)? } else { Vec::new() };
        Ok((inputs, self.of_variables(&gradients)?))
    }

    fn shape(&self, rows: &[f32]) -> (usize, usize) {
        let width = self.architecture.hidden_size;
        (rows.len() / width, width)
    }

    fn of_variables(&self, gradients: &GradStore) -> Result<Vec<Vec<f32>>> {
        self.variables.iter().map(|variable| of_variable(gradients, variable)).collect()
    }

    fn linear(&self, role: Role, x: &Tensor) -> candle_core::Result<Tensor> {
        let Some((weight, bias)) = &self.matrices[role as usize] else {
            candle_core::bail!("a block of this family has no such matrix");
        };
        let y = x.matmul(&weight.t()?)?;
        match bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// Rounds the last dimension's rows. Rounding itself counts as the identity (straight-through estimator, Bengio et al. 2013, arXiv
    /// 1308.3432); values that are cut off have no gradient, and a dynamic grid's step has one, through the row's extremes.
    fn round(&self, site: ActivationSite, x: Tensor) -> candle_core::Result<Tensor> {
        let Some(rounding) = self.activations.at(site) else { return Ok(x) };
        let slopes = Slopes::new(rounding, &x)?;
        let mut through = (&x * slopes.of_value)?;
        if rounding.range.is_none() {
            let largest = if rounding.symmetric {
                x.abs()?.max_keepdim(D::Minus1)?
            } else {
                (x.max_keepdim(D::Minus1)? - x.min_keepdim(D::Minus1)?)?
            };
            through = (through + slopes.of_range.broadcast_mul(&largest)?)?;
        }
        slopes.rounded + (&through - through.detach())?
    }

    fn read(&self, group: InputGroup, x: Tensor) -> candle_core::Result<Tensor> {
        self.round(ActivationSite::Input(group), x)
    }

    /// The block on one window, `[tokens, hidden size]`.
    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let c = &self.architecture;
        let norms_first = c.norm_order == NormOrder::Before;
        let tokens = x.dim(0)?;
        let rotate = self.rotation(tokens)?;
        let split = |x: Tensor, heads: usize| -> candle_core::Result<Tensor> {
            x.reshape((tokens, heads, c.head_dim))?.transpose(0, 1)?.contiguous()
        };
        let (heads, key_heads) = (c.num_attention_heads, c.num_key_value_heads);
        let group = heads / key_heads;
        let shared = |x: Tensor| -> candle_core::Result<Tensor> {
            x.unsqueeze(1)?
                .broadcast_as((key_heads, group, tokens, c.head_dim))?
                .contiguous()?
                .reshape((heads, tokens, c.head_dim))
        };
        let normed = if norms_first { self.norms[0].apply(x)? } else { x.clone() };
        let normed = self.read(InputGroup::AttnIn, normed)?;
        let q = self.round(ActivationSite::QueryOutputs, self.linear(Role::Query, &normed)?)?;
        let q = self.round(ActivationSite::Queries, rotate(&split(q, heads)?)?)?;
        let k = self.round(ActivationSite::KeyOutputs, self.linear(Role::Key, &normed)?)?;
        let k = shared(self.round(ActivationSite::Keys, rotate(&split(k, key_heads)?)?)?)?;
        let v = self.round(ActivationSite::ValueOutputs, self.linear(Role::Value, &normed)?)?;
        let v = split(v, key_heads)?;
        let v = shared(self.round(ActivationSite::Values, v)?)?;
        let mask: Vec<f32> = (0..tokens)
            .flat_map(|query| (0..tokens).map(move |key| if key <= query { 0.0 } else { f32::NEG_INFINITY }))
            .collect();
        let mask = Tensor::from_vec(mask, (1, tokens, tokens), &Device::Cpu)?;
        let scale = 1.0 / (c.head_dim as f64).sqrt();
        let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? * scale)?.broadcast_add(&mask)?;
        let largest = scores.max_keepdim(2)?.detach();
        let weights = scores.broadcast_sub(&largest)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(2)?)?;
        let mixed = weights.matmul(&v)?.transpose(0, 1)?.contiguous()?.reshape((tokens, c.query_width()))?;
        let mixed = self.read(InputGroup::AttnOut, mixed)?;
        let x = (x + self.linear(Role::Output, &mixed)?)?;
        let (x, normed) = if norms_first {
            let normed = self.norms[1].apply(&x)?;
            (x, normed)
        } else {
            let normed = self.norms[0].apply(&x)?;
            (normed.clone(), normed)
        };
        let normed = self.read(InputGroup::MlpIn, normed)?;
        let up = self.linear(Role::Up, &normed)?;
        let inner = match c.feed_forward {
            FeedForward::GatedSilu => (self.linear(Role::Gate, &normed)?.silu()? * up)?,
            FeedForward::Relu => up.relu()?,
        };
        let x = (&x + self.linear(Role::Down, &self.read(InputGroup::MlpOut, inner)?)?)?;
        if norms_first { Ok(x) } else { self.norms[1].apply(&x) }
    }

    /// What turns queries and keys, `[heads, tokens, head width]`, to their positions.
    fn rotation(
        &self,
        tokens: usize,
    ) -> candle_core::Result<impl Fn(&Tensor) -> candle_core::Result<Tensor>> {
        let turned = match (self.architecture.rotary(), self.model.rope(tokens)) {
            (Some(rotary), Some(rope)) => {
                let half = rotary.width / 2;
                let (mut cos, mut sin) = (Vec::new(), Vec::new());
                for position in 0..tokens {
                    let (c, s) = rope.at(position);
                    cos.extend_from_slice(c);
                    sin.extend_from_slice(s);
                }
                let cos = Tensor::from_vec(cos, (1, tokens, half), &Device::Cpu)?;
                let sin = Tensor::from_vec(sin, (1, tokens, half), &Device::Cpu)?;
                Some((half, rotary.interleaved, cos, sin))
            }
            _ => None,
        };
        Ok(move |x: &Tensor| {
            let Some((half, interleaved, cos, sin)) = &turned else { return Ok(x.clone()) };
            let half = *half;
            let (heads, tokens, width) = x.dims3()?;
            let part = x.narrow(2, 0, 2 * half)?;
            let (low, high) = if *interleaved {
                let pairs = part.contiguous()?.reshape((heads, tokens, half, 2))?;
                (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?)
            } else {
                (part.narrow(2, 0, half)?, part.narrow(2, half, half)?)
            };
            let turned_low = (low.broadcast_mul(cos)? - high.broadcast_mul(sin)?)?;
            let turned_high = (high.broadcast_mul(cos)? + low.broadcast_mul(sin)?)?;
            let turned = if *interleaved {
                let pairs = Tensor::cat(&[turned_low.unsqueeze(3)?, turned_high.unsqueeze(3)?], 3)?;
                pairs.reshape((heads, tokens, 2 * half))?
            } else {
                Tensor::cat(&[turned_low, turned_high], 2)?
            };
            match width - 2 * half {
                0 => Ok(turned),
                rest => Tensor::cat(&[turned, x.narrow(2, 2 * half, rest)?], 2),
            }
        })
    }
}

/// A norm in candle's operations.
pub(crate) struct NormGraph {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    pub eps: f32,
}

impl NormGraph {
    pub(crate) fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match &self.bias {
            None => rms_norm(x, &self.weight, self.eps),
            Some(bias) => {
                let off = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
                rms_norm(&off, &self.weight, self.eps)?.broadcast_add(bias)
            }
        }
    }
}

/// Rows divided by their root mean square, times `weight`.
fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> candle_core::Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    let root = (mean + f64::from(eps))?.sqrt()?;
    x.broadcast_div(&root)?.broadcast_mul(weight)
}

/// Gradient with respect to one variable; zero where it has no part in the result.
pub(crate) fn of_variable(gradients: &GradStore, variable: &Var) -> Result<Vec<f32>> {
    Ok(match gradients.get(variable) {
        Some(gradient) => gradient.flatten_all()?.to_vec1()?,
        None => vec![0.0; variable.elem_count()],
    })
}

/// Rounded values, and how they change.
struct Slopes {
    rounded: Tensor,
    /// With the value: 1, or 0 where it is cut off.
    of_value: Tensor,
    /// With the row's range (the largest magnitude of a symmetric grid): the step's share of it, times the difference that the step makes.
    of_range: Tensor,
}

impl Slopes {
    fn new(rounding: &ActivationQuantization, x: &Tensor) -> candle_core::Result<Self> {
        let width = x.dim(D::Minus1)?;
        let values: Vec<f32> = x.detach().flatten_all()?.to_vec1()?;
        let mut rounded = values.clone();
        let (mut of_value, mut of_range) = (vec![0.0; values.len()], vec![0.0; values.len()]);
        for (at, row) in values.chunks_exact(width).enumerate() {
            let place = at * width..(at + 1) * width;
            rounding.round_row(&mut rounded[place.clone()]);
            rounding.slopes(row, &rounded[place.clone()], &mut of_value[place.clone()], &mut of_range[place]);
        }
        let tensor = |values| Tensor::from_vec(values, x.shape(), &Device::Cpu);
        Ok(Self { rounded: tensor(rounded)?, of_value: tensor(of_value)?, of_range: tensor(of_range)? })
    }
}
