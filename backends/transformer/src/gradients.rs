//! The block once more, in candle's operations, for gradients.
//!
//! Slow beside the kernels, and only used where a derivative is asked for. A test holds it to the fast path.

use candle_core::backprop::GradStore;
use candle_core::{D, Device, Tensor, Var};

use crate::activation::{ActivationQuantization, ActivationSite, Activations};
use crate::block::{ATTENTION_NORM, Block, InputGroup, MLP_NORM, Role};
use crate::{Error, LlamaConfig, Model, Result};

/// One block with some of its tensors as variables.
pub(crate) struct BlockGraph<'a> {
    model: &'a Model,
    config: LlamaConfig,
    activations: Activations,
    norms: [Tensor; 2],
    linears: Vec<(Tensor, Option<Tensor>)>,
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
        let mut linears = Vec::new();
        for role in Role::ALL {
            let (outputs, inputs) = role.shape(block.config());
            let weight = tensor(&format!("{}.weight", role.name()), &[outputs, inputs])?;
            let bias = match block.role(role).bias() {
                Some(_) => Some(tensor(&format!("{}.bias", role.name()), &[outputs])?),
                None => None,
            };
            linears.push((weight, bias));
        }
        let width = block.config().hidden_size;
        let norms = [
            tensor(&format!("{ATTENTION_NORM}.weight"), &[width])?,
            tensor(&format!("{MLP_NORM}.weight"), &[width])?,
        ];
        let found = found.into_iter().zip(variables).map(|(variable, name)| {
            // A name that is none of the block's tensors, or was given twice.
            variable.ok_or_else(|| match block.tensor(name) {
                Ok(_) => Error::argument(format!("tensor `{name}`"), "its gradient is asked for twice"),
                Err(error) => error,
            })
        });
        let variables = found.collect::<Result<Vec<Var>>>()?;
        let (config, activations) = (block.config().clone(), *block.activations());
        Ok(Self { model, config, activations, norms, linears, variables })
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
        let width = self.config.hidden_size;
        (rows.len() / width, width)
    }

    fn of_variables(&self, gradients: &GradStore) -> Result<Vec<Vec<f32>>> {
        self.variables.iter().map(|variable| of_variable(gradients, variable)).collect()
    }

    fn linear(&self, role: Role, x: &Tensor) -> candle_core::Result<Tensor> {
        let (weight, bias) = &self.linears[role as usize];
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

    fn norm(&self, weight: &Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
        rms_norm(x, weight, self.config.rms_norm_eps)
    }

    /// The block on one window, `[tokens, hidden size]`.
    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let c = &self.config;
        let tokens = x.dim(0)?;
        let half = c.head_dim / 2;
        let rope = self.model.rope(tokens);
        let mut cos = Vec::with_capacity(tokens * half);
        let mut sin = Vec::with_capacity(tokens * half);
        for position in 0..tokens {
            let (c, s) = rope.at(position);
            cos.extend_from_slice(c);
            sin.extend_from_slice(s);
        }
        let cos = Tensor::from_vec(cos, (1, tokens, half), &Device::Cpu)?;
        let sin = Tensor::from_vec(sin, (1, tokens, half), &Device::Cpu)?;
        let rotate = |x: &Tensor| -> candle_core::Result<Tensor> {
            let low = x.narrow(2, 0, half)?;
            let high = x.narrow(2, half, half)?;
            let turned_low = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
            let turned_high = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
            Tensor::cat(&[turned_low, turned_high], 2)
        };
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
        let normed = self.read(InputGroup::AttnIn, self.norm(&self.norms[0], x)?)?;
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
        let normed = self.read(InputGroup::MlpIn, self.norm(&self.norms[1], &x)?)?;
        let gated = (self.linear(Role::Gate, &normed)?.silu()? * self.linear(Role::Up, &normed)?)?;
        &x + self.linear(Role::Down, &self.read(InputGroup::MlpOut, gated)?)?
    }
}

/// Rows divided by their root mean square, times `weight`.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> candle_core::Result<Tensor> {
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
