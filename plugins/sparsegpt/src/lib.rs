//! SparseGPT: prunes column by column and lets the weights that stay make up for each removal.

use llmcb_method_kit::hessian::FactorOptions;
use llmcb_method_kit::layerwise::{self, Layerwise, Solved};
use llmcb_method_kit::mask::Sparsity;
use llmcb_method_kit::plugin::SparsityOptions;
use llmcb_method_kit::sparsegpt::sparsegpt;
use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the method.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Fraction of the weights of each block of columns that is set to zero. Not used with `pattern`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ratio: f64,
    /// Semi-structured sparsity `N:M`: of every M neighbouring inputs, N weights are kept, for example `2:4`. M must
    /// divide `block_size`. Empty: unstructured, by `ratio`.
    #[schemars(regex(pattern = r"^([0-9]+:[0-9]+)?$"))]
    pub pattern: String,
    /// Columns whose weights compete for removal with each other, over all output rows, and after which the errors
    /// are passed on to all columns that follow.
    #[schemars(range(min = 1))]
    pub block_size: u32,
    /// Added to the Hessian's diagonal, as a fraction of its mean.
    #[schemars(range(min = 0.0001, max = 1.0))]
    pub damping: f64,
    /// Prune the linears of a block one input after the other, each seeing the inputs that the pruned ones before it
    /// produce, instead of all with the inputs of the original block.
    pub true_sequential: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { ratio: 0.5, pattern: String::new(), block_size: 128, damping: 0.01, true_sequential: false }
    }
}

/// The method.
pub struct SparseGpt {
    sparsity: Sparsity,
    block_size: usize,
    walk: Layerwise,
}

impl Method for SparseGpt {
    type Options = Options;

    fn descriptor() -> Descriptor {
        Descriptor::method("sparsegpt", "SparseGPT", env!("CARGO_PKG_VERSION"))
            .summary("Prunes with second-order error compensation: the weights that stay are adjusted.")
            .description(
                "For each linear, H = 2 X X^T over the calibration inputs X tells how much each input column matters, \
                 and U, the upper Cholesky factor of H^-1, how much can be made up for by the columns that follow. \
                 Columns are visited from left to right. In each block of `block_size` columns the weights of least \
                 w^2 / u^2 become zero, where u is the column's diagonal entry of U: the given fraction of the whole \
                 block, so that rows may end up with unequal shares, or with `pattern=2:4` two of every four \
                 neighbours of a row. The error of each removal, w / u, times the column's row of U is subtracted \
                 from the weights not yet visited (algorithm 1 of the paper).\n\n\
                 Choose it over Wanda when its time is affordable: the adjusted weights pay off most at high ratios \
                 and for patterns. The report's log shows each linear's output error. A 2:4 result runs faster on \
                 hardware with sparse tensor cores; unstructured zeros save no time in a dense runner.\n\n\
                 `ratio` has no default in the published code; block size, damping and order are its defaults.",
            )
            .citation(
                "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
                "Elias Frantar, Dan Alistarh",
                "ICML 2023",
                "https://arxiv.org/abs/2301.00774",
            )
            .licence(env!("CARGO_PKG_LICENSE"))
            .authors("The llmcb-host authors")
            .needs_calibration()
    }

    fn new(options: Options, _host: &Host) -> Result<Self> {
        let Options { ratio, pattern, block_size, damping, true_sequential } = options;
        let sparsity = SparsityOptions { ratio, pattern: pattern.clone() }.sparsity()?;
        let block_size = layerwise::block_size(block_size)?;
        if let Sparsity::Pattern { of, .. } = sparsity
            && !block_size.is_multiple_of(of)
        {
            return Err(Error::invalid(format!(
                "block_size = {block_size}: must be a multiple of {of}, the length of the pattern {pattern}"
            )));
        }
        let factor = FactorOptions { damping: layerwise::damping(damping)?, activation_order: false };
        Ok(SparseGpt { sparsity, block_size, walk: Layerwise::new(factor, true_sequential) })
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        self.walk.compress(block, host, |weight, factor| {
            Ok(Solved::Dense(sparsegpt(weight, factor, self.sparsity, self.block_size)?.weight))
        })
    }
}

llmcb_plugin_api::export_method!(SparseGpt);
