//! GPTQ: quantises column by column and lets the columns that follow make up for each one's error.

use llmcb_method_kit::gptq::{GptqOptions, gptq};
use llmcb_method_kit::grid::{GridOptions, RangeSearch};
use llmcb_method_kit::hessian::FactorOptions;
use llmcb_method_kit::layerwise::{self, Layerwise, Solved};
use llmcb_method_kit::plugin;
use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Find the grids of all groups before anything is quantised, over neighbouring columns. With `act_order`, groups
    /// then are those of the columns' own order, so that no group index is needed to read the weights.
    pub static_groups: bool,
    /// Search each grid's range for the least sum of |error|^2.4, among 80 ranges from the whole down to 21 % of it,
    /// instead of taking the minimum and maximum.
    pub mse: bool,
    /// Added to the Hessian's diagonal, as a fraction of its mean.
    #[schemars(range(min = 0.0001, max = 1.0))]
    pub damping: f64,
    /// Columns after which the errors are passed on to all that follow. Groups that begin within such a block see
    /// the errors of earlier blocks only, so it matters a little with groups smaller than it.
    #[schemars(range(min = 1))]
    pub block_size: u32,
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
            static_groups: false,
            mse: false,
            damping: 0.01,
            block_size: 128,
            true_sequential: false,
        }
    }
}

/// The method.
pub struct Gptq {
    solver: GptqOptions,
    walk: Layerwise,
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
                 they are by then, or all at the beginning with `static_groups`.\n\n\
                 `act_order` helps when few input features carry most of the activation, which is the case for models \
                 whose first token has a massive activation; the report's log shows each linear's output error. It \
                 scatters groups over the columns, which costs kernels speed; with `static_groups` it does not.\n\n\
                 Defaults are the published code's, but for groups of 128 columns instead of whole rows.",
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
        let grid = GridOptions {
            search: options.mse.then(RangeSearch::default),
            ..plugin::grid(options.bits, options.group_size, options.symmetric)?
        };
        let factor = FactorOptions {
            damping: layerwise::damping(options.damping)?,
            activation_order: options.act_order,
        };
        Ok(Gptq {
            solver: GptqOptions {
                grid,
                static_groups: options.static_groups,
                block_size: layerwise::block_size(options.block_size)?,
            },
            walk: Layerwise::new(factor, options.true_sequential),
        })
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        self.walk.compress(block, host, |weight, factor| {
            Ok(Solved::Quantized(gptq(weight, factor, &self.solver)?.quantized))
        })
    }
}

llmcb_plugin_api::export_method!(Gptq);
