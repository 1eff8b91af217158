//! What GPTQ and SparseGPT share as plugins: they walk a block input by input, factor the Hessian of each once, and
//! solve every linear that reads it.

use llmcb_plugin_api::sdk::{
    Block, Error, Host, InputStatistics, Linear, LogLevel, Result, StatisticsRequest, Tensor,
};

use crate::Matrix;
use crate::grid::Quantized;
use crate::hessian::{FactorOptions, Hessian, InverseFactor};
use crate::plugin;

/// What a solver makes of one weight matrix.
pub enum Solved {
    /// Integer codes.
    Quantized(Quantized),
    /// Numbers, `[rows, cols]`.
    Dense(Vec<f32>),
}

/// How the blocks are walked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layerwise {
    factor: FactorOptions,
    true_sequential: bool,
}

/// Damping as options spell it: above 0 and at most 1.
pub fn damping(option: f64) -> Result<f64> {
    if option > 0.0 && option <= 1.0 {
        Ok(option)
    } else {
        Err(Error::invalid(format!("damping = {option}: must be above 0 and at most 1")))
    }
}

/// Columns of a block as options spell them: at least 1.
pub fn block_size(option: u32) -> Result<usize> {
    match usize::try_from(option) {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(Error::invalid(format!("block_size = {option}: must be at least 1"))),
    }
}

impl Layerwise {
    /// `true_sequential`: inputs are taken one after the other, each as the linears already changed make it, instead
    /// of all from the block as it was.
    pub fn new(factor: FactorOptions, true_sequential: bool) -> Self {
        Self { factor, true_sequential }
    }

    /// Solves all linears of a block. What it costs each linear's outputs goes to the log.
    pub fn compress(
        &self,
        block: &mut Block<'_>,
        host: &Host,
        solve: impl Fn(Matrix<'_>, &InverseFactor) -> Result<Solved>,
    ) -> Result<()> {
        let groups = block.input_groups();
        let mut at = 0;
        if self.true_sequential {
            for group in &groups {
                let statistics = grams(block, group)?;
                self.compress_group(block, group, &statistics, &mut at, host, &solve)?;
            }
        } else {
            // One pass for all, before any weight changes.
            let all: Vec<Linear> = groups.iter().flatten().cloned().collect();
            let statistics = grams(block, &all)?;
            for group in &groups {
                self.compress_group(block, group, &statistics, &mut at, host, &solve)?;
            }
        }
        Ok(())
    }

    /// Solves linears that share an input, and so the Hessian and its factor.
    fn compress_group(
        &self,
        block: &mut Block<'_>,
        group: &[Linear],
        statistics: &[InputStatistics],
        at: &mut usize,
        host: &Host,
        solve: &impl Fn(Matrix<'_>, &InverseFactor) -> Result<Solved>,
    ) -> Result<()> {
        let Some(first) = group.first() else { return Ok(()) };
        plugin::step(block, *at, first, host)?;
        let (hessian, factor) = plugin::name(self.factored(first, statistics), block, first)?;
        if factor.damping() > self.factor.damping {
            host.log(
                LogLevel::Warning,
                format!(
                    "block {}, {}: the Hessian needed damping {} instead of {}",
                    block.index(),
                    first.input_group,
                    factor.damping(),
                    self.factor.damping
                ),
            );
        }
        for linear in group {
            plugin::step(block, *at, linear, host)?;
            *at += 1;
            let weight = block.weight(&linear.name)?;
            let weight = weight.as_f32()?;
            let solved = plugin::matrix(&weight, linear).and_then(|matrix| {
                let solved = solve(matrix, &factor)?;
                let error = match &solved {
                    Solved::Dense(values) => output_error(&hessian, matrix, values),
                    Solved::Quantized(quantized) => output_error(&hessian, matrix, &quantized.dequantize()),
                };
                Ok((solved, error?))
            });
            let (solved, error) = plugin::name(solved, block, linear)?;
            host.log(
                LogLevel::Debug,
                format!("block {}, {}: relative output error {error:.3e}", block.index(), linear.name),
            );
            match solved {
                Solved::Quantized(quantized) => plugin::quantize(block, linear, quantized)?,
                Solved::Dense(values) => {
                    block.set_weight(&linear.name, Tensor::from_vec(values, &linear.shape())?)?;
                }
            }
        }
        Ok(())
    }

    fn factored(&self, linear: &Linear, statistics: &[InputStatistics]) -> Result<(Hessian, InverseFactor)> {
        let (gram, sequences) = statistics
            .iter()
            .find(|s| s.linear == linear.name)
            .and_then(|s| Some((s.gram.as_ref()?, s.sequences)))
            .ok_or_else(|| Error::failed("the engine gave no statistics of its input"))?;
        let gram = gram.as_f32()?;
        let hessian = Hessian::from_gram(&gram, linear.in_features as usize, sequences.max(1) as usize)?;
        let factor = hessian.factor(&self.factor)?;
        Ok((hessian, factor))
    }
}

fn grams(block: &mut Block<'_>, linears: &[Linear]) -> Result<Vec<InputStatistics>> {
    block.input_statistics(&StatisticsRequest::of(linears.iter().map(|l| l.name.as_str())).gram())
}

fn output_error(hessian: &Hessian, original: Matrix<'_>, changed: &[f32]) -> Result<f64> {
    let changed = Matrix::new(changed, original.rows(), original.cols())?;
    Ok(hessian.relative_output_error(original, changed)?)
}
