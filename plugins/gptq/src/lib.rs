//! GPTQ: quantises column by column and lets the columns that follow make up for each one's error.

use llmcb_method_kit::Matrix;
use llmcb_method_kit::gptq::{GptqOptions, GptqResult, gptq};
use llmcb_method_kit::hessian::{FactorOptions, Hessian, InverseFactor};
use llmcb_method_kit::plugin;
use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Columns that are quantised before their errors are passed on to the rest, as published.
const BLOCK_SIZE: usize = 128;

/// Options of the method.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Bits per weight: 2, 3, 4 or 8.
    #[schemars(extend("enum" = [2, 3, 4, 8]))]
    pub bits: u8,
    /// Input columns that share a scale and a zero; -1 for the whole row.
    #[schemars(range(min = -1))]
    pub group_size: i64,
    /// Whether the grid is symmetric around zero.
    pub symmetric: bool,
    /// Quantise columns in the order of falling activation (the Hessian's diagonal) instead of from left to right.
    pub act_order: bool,
    /// Added to the Hessian's diagonal, as a fraction of its mean.
    #[schemars(range(min = 0.0001, max = 1.0))]
    pub damping: f64,
    /// Quantise the linears of a block one input after the other, each seeing the inputs that the quantised ones
    /// before it produce, instead of all with the inputs of the original block.
    pub true_sequential: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            bits: 4,
            group_size: 128,
            symmetric: false,
            act_order: false,
            damping: 0.01,
            true_sequential: false,
        }
    }
}

/// The method.
pub struct Gptq {
    solver: GptqOptions,
    factor: FactorOptions,
    true_sequential: bool,
}

impl Method for Gptq {
    type Options = Options;

    fn descriptor() -> Descriptor {
        Descriptor::method("gptq", "GPTQ", env!("CARGO_PKG_VERSION"))
            .summary("Quantises with second-order error compensation.")
            .description(
                "For each linear, H = 2 X X^T over the calibration inputs X tells how much each input column matters. \
                 Columns are quantised one after the other; the error of each, divided by its entry of the Cholesky \
                 factor of H^-1, is subtracted from the columns not yet quantised (equations 2 and 3 and algorithm 1 \
                 of the paper). Groups get their grid when the first of their columns is reached, from the weights as \
                 they are by then.\n\n\
                 `act_order` helps when few input features carry most of the activation, which is the case for models \
                 whose first token has a massive activation; the report's log shows each linear's output error.",
            )
            .citation(
                "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
                "Elias Frantar, Saleh Ashkboos, Torsten Hoefler, Dan Alistarh",
                "ICLR 2023",
                "https://arxiv.org/abs/2210.17323",
            )
            .licence(env!("CARGO_PKG_LICENSE"))
            .authors("The llmcb-host authors")
            .needs_calibration()
            .formats(&["gptq", "grouped-integer", "dense"])
    }

    fn new(options: Options, _host: &Host) -> Result<Self> {
        if ![2, 3, 4, 8].contains(&options.bits) {
            return Err(Error::invalid(format!("bits = {}: must be 2, 3, 4 or 8", options.bits)));
        }
        if !(options.damping > 0.0 && options.damping <= 1.0) {
            return Err(Error::invalid(format!(
                "damping = {}: must be above 0 and at most 1",
                options.damping
            )));
        }
        let grid = plugin::grid(options.bits, options.group_size, options.symmetric)?;
        Ok(Gptq {
            solver: GptqOptions { grid, static_groups: false, block_size: BLOCK_SIZE },
            factor: FactorOptions { damping: options.damping, activation_order: options.act_order },
            true_sequential: options.true_sequential,
        })
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        let groups = block.input_groups();
        let all: Vec<Linear> = groups.iter().flatten().cloned().collect();
        let mut at = 0;
        if self.true_sequential {
            for group in &groups {
                let statistics = gram(block, group)?;
                self.quantize_group(block, group, &statistics, &mut at, host)?;
            }
        } else {
            // One pass for all, before any weight changes.
            let statistics = gram(block, &all)?;
            for group in &groups {
                self.quantize_group(block, group, &statistics, &mut at, host)?;
            }
        }
        Ok(())
    }
}

fn gram(block: &mut Block<'_>, linears: &[Linear]) -> Result<Vec<InputStatistics>> {
    block.input_statistics(&StatisticsRequest::of(linears.iter().map(|l| l.name.as_str())).gram())
}

impl Gptq {
    /// Quantises linears that share an input, and so the Hessian and its factor.
    fn quantize_group(
        &self,
        block: &mut Block<'_>,
        group: &[Linear],
        statistics: &[InputStatistics],
        at: &mut usize,
        host: &Host,
    ) -> Result<()> {
        let Some(first) = group.first() else { return Ok(()) };
        let factored = statistics
            .iter()
            .find(|s| s.linear == first.name)
            .and_then(|s| Some((s.gram.as_ref()?, s.sequences)))
            .ok_or_else(|| Error::failed("the engine gave no statistics of its input"))
            .and_then(|(gram, sequences)| {
                let gram = gram.as_slice::<f32>()?;
                let hessian =
                    Hessian::from_gram(gram, first.in_features as usize, sequences.max(1) as usize)?;
                let factor = hessian.factor(&self.factor)?;
                Ok((hessian, factor))
            });
        let (hessian, factor) = plugin::name(factored, block, first)?;
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
            let solved = self.solve(&weight, linear, &factor);
            let solved = plugin::name(solved, block, linear)?;
            let dequantized = solved.quantized.dequantize();
            let error = plugin::matrix(&weight, linear).and_then(|original| {
                let changed = Matrix::new(&dequantized, original.rows(), original.cols())?;
                Ok(hessian.relative_output_error(original, changed)?)
            });
            let error = plugin::name(error, block, linear)?;
            host.log(
                LogLevel::Debug,
                format!("block {}, {}: relative output error {error:.3e}", block.index(), linear.name),
            );
            plugin::quantize(block, linear, solved.quantized)?;
        }
        Ok(())
    }

    fn solve(&self, weight: &Tensor, linear: &Linear, factor: &InverseFactor) -> Result<GptqResult> {
        Ok(gptq(plugin::matrix(weight, linear)?, factor, &self.solver)?)
    }
}

llmcb_plugin_api::export_method!(Gptq);
