//! Magnitude pruning: the smallest weights of every output row become zero. No calibration; the baseline that every
//! pruning method has to beat.

use llmcb_method_kit::mask::{Sparsity, magnitude};
use llmcb_method_kit::plugin::{self, SparsityOptions};
use llmcb_plugin_api::sdk::*;

/// The method.
pub struct Magnitude {
    sparsity: Sparsity,
}

impl Method for Magnitude {
    type Options = SparsityOptions;

    fn descriptor() -> Descriptor {
        Descriptor::method("magnitude", "Magnitude", env!("CARGO_PKG_VERSION"))
            .summary("Sets the weights of smallest absolute value to zero.")
            .description(
                "In every output row of every linear, the given fraction of the weights with the smallest |W| is set \
                 to zero; with `pattern=2:4`, two of every four neighbouring weights. Nothing is learnt from data. \
                 Rows are compared within themselves, as Wanda does, so that the two differ in their score alone.",
            )
            .citation(
                "Learning both Weights and Connections for Efficient Neural Networks",
                "Song Han, Jeff Pool, John Tran, William J. Dally",
                "NeurIPS 2015",
                "https://arxiv.org/abs/1506.02626",
            )
            .licence(env!("CARGO_PKG_LICENSE"))
            .authors("The llmcb-host authors")
    }

    fn new(options: SparsityOptions, _host: &Host) -> Result<Self> {
        Ok(Magnitude { sparsity: options.sparsity()? })
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        for (at, linear) in block.linears().to_vec().iter().enumerate() {
            plugin::step(block, at, linear, host)?;
            let weight = block.weight(&linear.name)?;
            let weight = weight.as_f32()?;
            let mask =
                plugin::matrix(&weight, linear).and_then(|matrix| Ok(magnitude(matrix, self.sparsity)?));
            let mask = plugin::name(mask, block, linear)?;
            plugin::prune(block, linear, &weight, &mask)?;
        }
        Ok(())
    }
}

llmcb_plugin_api::export_method!(Magnitude);
