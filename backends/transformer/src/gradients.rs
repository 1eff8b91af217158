//! The block once more, in candle's operations, for gradients.
//!
//! Slow beside the kernels, and only used where a derivative is asked for. A test holds it to the fast path.

use candle_core::{D, Device, Tensor, Var};

use crate::block::{Block, Role};
use crate::{Model, Result};

/// One block with some of its weights as variables.
pub(crate) struct BlockGraph<'a> {
    model: &'a Model,
    norms: [Tensor; 2],
    linears: Vec<(Tensor, Option<Tensor>)>,
    variables: Vec<Var>,
}

impl<'a> BlockGraph<'a> {
    /// The graph of `block`, differentiable in the weights of `linears`.
    pub(crate) fn new(model: &'a Model, block: &Block, linears: &[&str]) -> Result<Self> {
        for name in linears {
            model.block_info().linear(name)?;
        }
        let mut by_role: Vec<Option<Var>> = Vec::new();
        let mut tensors = Vec::new();
        for role in Role::ALL {
            let linear = block.role(role);
            let shape = (linear.weight.outputs(), linear.weight.inputs());
            let mut tensor = Tensor::from_vec(linear.weight(), shape, &Device::Cpu)?;
            let mut variable = None;
            if linears.contains(&role.name()) {
                let var = Var::from_tensor(&tensor)?;
                tensor = var.as_tensor().clone();
                variable = Some(var);
            }
            by_role.push(variable);
            let bias = linear.bias().map(|b| Tensor::from_slice(b, b.len(), &Device::Cpu)).transpose()?;
            tensors.push((tensor, bias));
        }
        let variables = linears
            .iter()
            .filter_map(|name| Role::ALL.iter().position(|r| r.name() == *name))
            .filter_map(|role| by_role[role].clone())
            .collect();
        let norm = |weight: &[f32]| Tensor::from_slice(weight, weight.len(), &Device::Cpu);
        let norms = [norm(block.attention_norm())?, norm(block.mlp_norm())?];
        Ok(Self { model, norms, linears: tensors, variables })
    }

    /// Sum of squared differences between the block's outputs on one window and `target`, both `[tokens, hidden size]`, and its gradients with respect
    /// to the variables, in the order in which they were named.
    pub(crate) fn squared_error(&self, inputs: &[f32], target: &[f32]) -> Result<(f64, Vec<Vec<f32>>)> {
        let width = self.model.config().hidden_size;
        let shape = (inputs.len() / width, width);
        let x = Tensor::from_slice(inputs, shape, &Device::Cpu)?;
        let target = Tensor::from_slice(target, shape, &Device::Cpu)?;
        let error = (self.forward(&x)? - target)?.sqr()?.sum_all()?;
        let gradients = error.backward()?;
        let mut found = Vec::with_capacity(self.variables.len());
        for variable in &self.variables {
            found.push(match gradients.get(variable) {
                Some(gradient) => gradient.flatten_all()?.to_vec1()?,
                None => vec![0.0; variable.elem_count()],
            });
        }
        Ok((f64::from(error.to_scalar::<f32>()?), found))
    }

    fn linear(&self, role: Role, x: &Tensor) -> candle_core::Result<Tensor> {
        let (weight, bias) = &self.linears[role as usize];
        let y = x.matmul(&weight.t()?)?;
        match bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    fn norm(&self, weight: &Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        let root = (mean + f64::from(self.model.config().rms_norm_eps))?.sqrt()?;
        x.broadcast_div(&root)?.broadcast_mul(weight)
    }

    /// The block on one window, `[tokens, hidden size]`.
    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let c = self.model.config();
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
        let normed = self.norm(&self.norms[0], x)?;
        let q = rotate(&split(self.linear(Role::Query, &normed)?, heads)?)?;
        let k = shared(rotate(&split(self.linear(Role::Key, &normed)?, key_heads)?)?)?;
        let v = shared(split(self.linear(Role::Value, &normed)?, key_heads)?)?;
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
        let x = (x + self.linear(Role::Output, &mixed)?)?;
        let normed = self.norm(&self.norms[1], &x)?;
        let gated = (self.linear(Role::Gate, &normed)?.silu()? * self.linear(Role::Up, &normed)?)?;
        &x + self.linear(Role::Down, &gated)?
    }
}
