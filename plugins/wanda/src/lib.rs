//! Wanda: prunes weights by |W| times the norm of the input they meet.

use llmcb_method_kit::mask::{Sparsity, wanda};
use llmcb_method_kit::plugin::{self, SparsityOptions};
use llmcb_plugin_api::sdk::*;

/// The method.
pub struct Wanda {
    sparsity: Sparsity,
}

impl Method for Wanda {
    type Options = SparsityOptions;

    fn descriptor() -> Descriptor {
        Descriptor::method("wanda", "Wanda", env!("CARGO_PKG_VERSION"))
            .summary("Prunes by the product of a weight's magnitude and the norm of its input.")
            .description(
                "The score of a weight is |W_ij| * ||X_j||_2, where X_j is the j-th input feature over all calibration \
                 tokens (equation 1 of the paper). In every output row, the weights with the lowest scores become \
                 zero: the given fraction of them, or with `pattern=2:4` two of every four neighbours. The remaining \
                 weights keep their values, so it needs one forward pass and no solver.",
            )
            .citation(
                "A Simple and Effective Pruning Approach for Large Language Models",
                "Mingjie Sun, Zhuang Liu, Anna Bair, J. Zico Kolter",
                "ICLR 2024",
                "https://arxiv.org/abs/2306.11695",
            )
            .licence(env!("CARGO_PKG_LICENSE"))
            .authors("The llmcb-host authors")
            .needs_calibration()
    }

    fn new(options: SparsityOptions, _host: &Host) -> Result<Self> {
        Ok(Wanda { sparsity: options.sparsity()? })
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        let linears = block.linears().to_vec();
        // All statistics before any weight changes: the scores belong to the block as it was.
        let request = StatisticsRequest::of(linears.iter().map(|l| l.name.as_str())).sum_squares();
        let statistics = block.input_statistics(&request)?;
        for (at, linear) in linears.iter().enumerate() {
            plugin::step(block, at, linear, host)?;
            let weight = block.weight(&linear.name)?;
            let mask = statistics
                .iter()
                .find(|s| s.linear == linear.name)
                .and_then(|s| Some((s.sum_squares.as_ref()?, s.tokens)))
                .ok_or_else(|| Error::failed("the engine gave no statistics of its input"))
                .and_then(|(sums, tokens)| {
                    let tokens = tokens.max(1) as f32;
                    let mean_square: Vec<f32> = sums.as_slice::<f32>()?.iter().map(|s| s / tokens).collect();
                    Ok(wanda(plugin::matrix(&weight, linear)?, &mean_square, self.sparsity)?)
                });
            let mask = plugin::name(mask, block, linear)?;
            plugin::prune(block, linear, &weight, &mask)?;
        }
        Ok(())
    }
}

llmcb_plugin_api::export_method!(Wanda);
