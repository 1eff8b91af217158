//! What a pass through a model multiplies, from which operations are counted.

use rayon::prelude::*;

use crate::block::Role;
use crate::weight::Weight;
use crate::{Model, Result};

/// Linears that are alike: same shape, same way of storing.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearCost {
    /// How many.
    pub count: usize,
    /// `[outputs, inputs]`.
    pub shape: [usize; 2],
    /// Bits of integer codes; none for numbers.
    pub bits: Option<u32>,
    /// Share of the numbers that are not zero; 1 for codes.
    pub density: f64,
    /// Whether it is the output head.
    pub head: bool,
}

/// Attention of blocks that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttentionCost {
    /// How many blocks.
    pub count: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// Everything that a pass multiplies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Costs {
    /// Linears.
    pub linears: Vec<LinearCost>,
    /// Products of attention.
    pub attention: Vec<AttentionCost>,
}

impl Costs {
    fn add_linear(&mut self, one: LinearCost) {
        let alike = |known: &&mut LinearCost| {
            (known.shape, known.bits, known.head) == (one.shape, one.bits, one.head)
        };
        match self.linears.iter_mut().find(alike) {
            Some(known) => {
                let count = known.count as f64;
                known.density = (known.density * count + one.density) / (count + 1.0);
                known.count += 1;
            }
            None => self.linears.push(one),
        }
    }

    fn add_attention(&mut self, heads: usize, head_dim: usize) {
        match self.attention.iter_mut().find(|known| (known.heads, known.head_dim) == (heads, head_dim)) {
            Some(known) => known.count += 1,
            None => self.attention.push(AttentionCost { count: 1, heads, head_dim }),
        }
    }
}

fn linear(weight: &Weight) -> LinearCost {
    let shape = [weight.outputs(), weight.inputs()];
    let (bits, density) = match weight {
        Weight::Integers(codes) => (Some(codes.bits()), 1.0),
        Weight::Dense(numbers) => (None, numbers.nonzeros() as f64 / (shape[0] * shape[1]).max(1) as f64),
    };
    LinearCost { count: 1, shape, bits, density, head: false }
}

impl Model {
    /// What a pass multiplies. Zeros of weights that are numbers are counted, so every weight is read.
    ///
    /// # Errors
    /// If a block cannot be decoded.
    pub fn costs(&self) -> Result<Costs> {
        let of_block = |index: usize| -> Result<(Vec<LinearCost>, usize, usize)> {
            let block = self.block(index)?;
            let linears = Role::ALL.iter().map(|role| Ok(linear(&block.linear(role.name())?.weight)));
            let info = block.info();
            Ok((linears.collect::<Result<_>>()?, info.heads, info.head_dim))
        };
        let blocks: Vec<_> =
            self.install(|| (0..self.block_count()).into_par_iter().map(of_block).collect::<Result<_>>())?;
        let mut costs = Costs::default();
        for (linears, heads, head_dim) in blocks {
            linears.into_iter().for_each(|one| costs.add_linear(one));
            costs.add_attention(heads, head_dim);
        }
        let shape = [self.config().vocab_size, self.config().hidden_size];
        // No method prunes the head, and it counts in full.
        costs.add_linear(LinearCost { count: 1, shape, bits: None, density: 1.0, head: true });
        Ok(costs)
    }
}
