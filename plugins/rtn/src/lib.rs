//! RTN: every weight goes to the nearest point of its group's grid. No calibration; the baseline that every
//! quantisation method has to beat.

use llmcb_method_kit::grid::{GridOptions, RangeSearch, round_to_nearest};
use llmcb_method_kit::plugin;
use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the method.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Bits per weight.
    #[schemars(range(min = 2, max = 8))]
    pub bits: u8,
    /// Input columns that share a scale and a zero; -1 for the whole row.
    #[schemars(range(min = -1))]
    pub group_size: i64,
    /// Whether the grid is symmetric around zero.
    pub symmetric: bool,
    /// Search each grid's range for the least sum of |error|^2.4, among 80 ranges from the whole down to 21 % of it,
    /// instead of taking the minimum and maximum.
    pub mse: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { bits: 4, group_size: 128, symmetric: false, mse: false }
    }
}

/// The method.
pub struct Rtn {
    grid: GridOptions,
}

impl Method for Rtn {
    type Options = Options;

    fn descriptor() -> Descriptor {
        Descriptor::method("rtn", "RTN", env!("CARGO_PKG_VERSION"))
            .summary("Rounds every weight to the nearest point of its group's grid.")
            .description(
                "Each group of input columns of each output row gets a grid of 2^bits evenly spaced points from its \
                 smallest to its largest weight (always including zero), and every weight takes the nearest point. \
                 Nothing is learnt from data, so it takes seconds and serves as the baseline for methods that do.\n\n\
                 The grid is the one of the published GPTQ code: scale = (max - min) / (2^bits - 1), zero = \
                 round(-min / scale); with `symmetric`, the range is widened to [-m, m] and zero is the middle code.",
            )
            .licence(env!("CARGO_PKG_LICENSE"))
            .authors("The llmcb-host authors")
            .formats(&["gptq", "grouped-integer", "dense"])
    }

    fn new(options: Options, _host: &Host) -> Result<Self> {
        let grid = plugin::grid(options.bits, options.group_size, options.symmetric)?;
        Ok(Rtn { grid: GridOptions { search: options.mse.then(RangeSearch::default), ..grid } })
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        for (at, linear) in block.linears().to_vec().iter().enumerate() {
            plugin::step(block, at, linear, host)?;
            let weight = block.weight(&linear.name)?;
            let weight = weight.as_f32()?;
            let rounded =
                plugin::matrix(&weight, linear).and_then(|matrix| Ok(round_to_nearest(matrix, &self.grid)?));
            let rounded = plugin::name(rounded, block, linear)?;
            plugin::quantize(block, linear, rounded)?;
        }
        Ok(())
    }
}

llmcb_plugin_api::export_method!(Rtn);
