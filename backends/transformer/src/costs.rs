//! What a pass through a model multiplies, from which operations are counted.

use rayon::prelude::*;

use crate::block::StoredLinear;
use crate::layout::OuterTensor;
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

fn linear(linear: StoredLinear<'_>) -> LinearCost {
    let shape = [linear.outputs(), linear.inputs()];
    let density = linear.nonzeros() as f64 / (shape[0] * shape[1]).max(1) as f64;
    LinearCost { count: 1, shape, bits: linear.bits(), density, head: false }
}

impl Model {
    /// What a pass multiplies. Zeros of weights that are numbers are counted, so every weight is read.
    ///
    /// # Errors
    /// If a block cannot be decoded.
    pub fn costs(&self) -> Result<Costs> {
        let of_block = |index: usize| -> Result<(Vec<LinearCost>, usize, usize)> {
            let block = self.block(index)?;
            let a = block.architecture();
            Ok((block.linears().map(linear).collect(), a.num_attention_heads, a.head_dim))
        };
        let all = 0..self.block_count();
        // Blocks that are streamed are read one at a time: all at once may not fit.
        let blocks: Vec<_> = if self.streams() {
            all.map(of_block).collect::<Result<_>>()?
        } else {
            self.install(|| all.into_par_iter().map(of_block).collect::<Result<_>>())?
        };
        let mut costs = Costs::default();
        for (linears, heads, head_dim) in blocks {
            linears.into_iter().for_each(|one| costs.add_linear(one));
            costs.add_attention(heads, head_dim);
        }
        let a = self.architecture();
        for projection in [OuterTensor::ProjectIn, OuterTensor::ProjectOut] {
            if let Some(&[outputs, inputs]) = projection.shape(a).as_deref() {
                let shape = [outputs, inputs];
                costs.add_linear(LinearCost { count: 1, shape, bits: None, density: 1.0, head: false });
            }
        }
        // No method prunes the head, and it counts in full.
        let shape = [a.vocab_size, a.embedding_size];
        costs.add_linear(LinearCost { count: 1, shape, bits: None, density: 1.0, head: true });
        Ok(costs)
    }
}
