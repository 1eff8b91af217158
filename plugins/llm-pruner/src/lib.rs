//! LLM-Pruner: removes the heads and channels that the loss depends on least.

mod recovery;
mod width;

use std::collections::BTreeMap;

use llmcb_method_kit::plugin;
use llmcb_method_kit::units::{self, Grouping, Importance};
use llmcb_plugin_api::sdk::*;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::recovery::{Schedule, recover};
use crate::width::narrow;

/// What a unit's weights are worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Sum of |g w|: the loss's change to first order, weight by weight.
    #[default]
    ParamFirst,
    /// Sum of |w s w| with the mean squared gradient s: the second order alone.
    ParamSecond,
    /// Sum of |g w - w s w / 2|: both orders.
    ParamMix,
    /// |sum of g w|: the loss's change to first order, channel by channel.
    Vectorize,
    /// Sum of |w|.
    L1,
    /// Sum of w^2.
    L2,
    /// Chance, from the run's seed.
    Random,
}

impl Measure {
    /// Whether it needs gradients of the loss.
    fn by_loss(self) -> bool {
        !matches!(self, Self::L1 | Self::L2 | Self::Random)
    }
}

/// What is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// Of each block heads, and channels of its feed-forward part.
    #[default]
    BlockWise,
    /// Channels of the residual stream, from all blocks at once.
    ChannelWise,
}

/// Options of the method.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Fraction of the heads and channels of each pruned block that goes (`pruning_ratio`), in whole units, and one always stays. Blocks that
    /// are spared lower the model's own ratio: the published 0.25 removes about 20 % of a LLaMA-7B.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ratio: f64,
    /// What is removed (`block_wise`, `channel_wise`).
    pub granularity: Granularity,
    /// What a unit's weights are worth (`pruner_type`, `taylor`).
    pub importance: Measure,
    /// How the parts of a unit in several linears are put together (`grouping_strategy`).
    pub grouping: Grouping,
    /// Blocks at the beginning that stay whole. -1: an eighth of all, as the published 4 of 32.
    #[schemars(range(min = -1))]
    pub keep_first: i64,
    /// Blocks at the end that stay whole. -1: a sixteenth of all, as the published 2 of 32.
    #[schemars(range(min = -1))]
    pub keep_last: i64,
    /// Calibration windows, from the first on, that importance is measured on (`num_examples`); 0: all.
    pub examples: u32,
    /// Times that recovery by LoRA goes through all calibration windows once everything is pruned (`num_epochs`; published: 2); 0: no
    /// recovery.
    pub lora_epochs: u32,
    /// Windows for each step of recovery (`batch_size`).
    #[schemars(range(min = 1))]
    pub lora_batch: u32,
    /// Rank of the changes (`lora_r`).
    #[schemars(range(min = 1, max = 1024))]
    pub lora_rank: u32,
    /// The changes are scaled by this over the rank (`lora_alpha`).
    #[schemars(range(min = 0.0))]
    pub lora_alpha: f32,
    /// Learning rate after 100 steps of rise (or at the last, if there are fewer); it falls to zero.
    #[schemars(range(min = 0.0))]
    pub lora_lr: f32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            ratio: 0.25,
            granularity: Granularity::default(),
            importance: Measure::default(),
            grouping: Grouping::default(),
            keep_first: -1,
            keep_last: -1,
            examples: 10,
            lora_epochs: 0,
            lora_batch: 64,
            lora_rank: 8,
            lora_alpha: 16.0,
            lora_lr: 1e-4,
        }
    }
}

/// The method.
pub struct LlmPruner {
    options: Options,
}

impl Method for LlmPruner {
    type Options = Options;

    fn descriptor() -> Descriptor {
        Descriptor::method("llm-pruner", "LLM-Pruner", env!("CARGO_PKG_VERSION"))
            .summary("Removes the heads and channels that the loss depends on least.")
            .description(
                "A unit is what can only go as a whole: a key and value head with the query heads that read it and their columns of the \
                 output projection, or a channel of the feed-forward part with its rows of gate and up and its column of down. Its \
                 importance is what the loss would change by without it, estimated by a Taylor expansion around the dense model's \
                 weights (section 3.2 of the paper): g is the gradient of the mean loss over the calibration windows, s the mean over \
                 windows of the squared gradient of each window's own loss. Of each block's heads and of its channels, the given ratio of \
                 least importance is removed, all at once (`block_wise`, one step, as published); the first and the last blocks \
                 stay whole.\n\n\
                 The result is a smaller dense model: nothing is stored as zeros, and every runner is faster by it. As blocks that stay \
                 whole differ from the others, its `config.json` says so in `llmcb_block_shapes`, which the embedded backend reads and \
                 other tools do not; with `keep_first=0,keep_last=0` all blocks are alike, the configuration is an ordinary one, and \
                 `transformers` loads it.\n\n\
                 With `lora_epochs` above 0, all linears are then trained by LoRA on the calibration windows: AdamW, a linear schedule with \
                 100 steps of rise, changes of rank 8 that are folded into the weights at the end. Published: 2 epochs of Alpaca's 50,000 \
                 instructions of up to 256 tokens, with dropout, which is not done here.\n\n\
                 As published: importance from 10 windows of 64 tokens (`--calibration-length 64`; the paper takes them from \
                 BookCorpus), and 4 and 2 of LLaMA-7B's 32 blocks spared. The \
                 default spares the same share of any depth.\n\n\
                 With grouped key and value heads, the importance of query heads counts for the key head that they read. The published \
                 code, written for as many key heads as query heads, would add up those of other key heads instead.\n\n\
                 With `granularity=channel_wise`, channels of the residual stream go instead: the same for the embedding, all norms and all \
                 linears, so that no block is spared; importance is summed over all that hold a channel (by magnitude, over all but the embedding, as in the published code), to first order. The paper finds \
                 it far worse than removal block by block. The checkpoint is an ordinary one.\n\n\
                 Not offered: one ranking over all blocks (`global_pruning`), and several steps (`iterative_steps`).",
            )
            .citation(
                "LLM-Pruner: On the Structural Pruning of Large Language Models",
                "Xinyin Ma, Gongfan Fang, Xinchao Wang",
                "NeurIPS 2023",
                "https://arxiv.org/abs/2305.11627",
            )
            .licence(env!("CARGO_PKG_LICENSE"))
            .authors("The llmcb-host authors")
            .needs_calibration()
            .needs_gradients()
            .reads_dense_inputs()
    }

    fn new(options: Options, _host: &Host) -> Result<Self> {
        if !(0.0..=1.0).contains(&options.ratio) {
            return Err(Error::invalid(format!("ratio = {}: must be from 0 to 1", options.ratio)));
        }
        for (name, value) in [("keep_first", options.keep_first), ("keep_last", options.keep_last)] {
            if value < -1 {
                return Err(Error::invalid(format!(
                    "{name} = {value}: must be a number of blocks, or -1 for the published share"
                )));
            }
        }
        let second = [Measure::ParamSecond, Measure::ParamMix].contains(&options.importance);
        if options.granularity == Granularity::ChannelWise && second {
            return Err(Error::invalid(
                "granularity = channel_wise goes with importance of first order, by magnitude or by chance: param_first, vectorize, l1, l2, random",
            ));
        }
        for (name, value) in [("lora_batch", options.lora_batch), ("lora_rank", options.lora_rank)] {
            if value == 0 {
                return Err(Error::invalid(format!("{name} = 0: must be at least 1")));
            }
        }
        for (name, value) in [("lora_alpha", options.lora_alpha), ("lora_lr", options.lora_lr)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid(format!("{name} = {value}: must be zero or a positive number")));
            }
        }
        Ok(LlmPruner { options })
    }

    fn prepare(&mut self, model: &mut WholeModel<'_>, host: &Host) -> Result<()> {
        match self.options.granularity {
            Granularity::BlockWise => Ok(()),
            Granularity::ChannelWise => narrow(model, &self.options, host),
        }
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        host.check_cancelled()?;
        if self.options.granularity == Granularity::ChannelWise {
            return Ok(());
        }
        let (index, of) = (block.info().index, block.info().of);
        let (first, end) = pruned_blocks(&self.options, of)?;
        host.progress(u64::from(index), u64::from(of), &format!("block {index}"));
        if !(first..end).contains(&index) {
            return Ok(());
        }
        let structures = block.info().structures.clone();
        if structures.is_empty() {
            return Err(Error::unsupported("this engine names no units that can be removed from a block"));
        }
        let slopes = self.slopes(block, &structures)?;
        let mut kept = Vec::new();
        for (at, structure) in structures.iter().enumerate() {
            host.check_cancelled()?;
            let importance = match self.options.importance {
                Measure::Random => chance(host.seed(), index, at, structure.units),
                _ => self.importance(block, structure, &slopes)?,
            };
            let width = structure.parts.iter().map(|part| part.width as usize).min().unwrap_or(1);
            let removed = units::count_removed(importance.len(), width, self.options.ratio);
            let what = format!("block {index}: {removed} of {} units of {}", structure.units, structure.name);
            if removed == 0 && index == first {
                host.log(
                    LogLevel::Warning,
                    format!("{what} are removed: {} of them is less than one", self.options.ratio),
                );
            } else {
                host.log(LogLevel::Debug, what);
            }
            kept.push(units::kept(&importance, removed));
        }
        // After all were chosen: a weight may hold units of several structures.
        for (structure, units) in structures.iter().zip(kept) {
            let units: Vec<u32> = units.into_iter().map(|unit| unit as u32).collect();
            block.keep_units(&structure.name, &units)?;
        }
        Ok(())
    }

    fn finish(&mut self, model: &mut WholeModel<'_>, host: &Host) -> Result<()> {
        let Options { lora_epochs, lora_batch, lora_rank, lora_alpha, lora_lr, .. } = self.options;
        if lora_epochs == 0 {
            return Ok(());
        }
        let schedule = Schedule {
            epochs: lora_epochs,
            batch: lora_batch,
            rank: lora_rank,
            alpha: lora_alpha,
            learning_rate: lora_lr,
        };
        recover(model, &schedule, host)
    }
}

impl Options {
    /// The calibration windows, of so many, that importance is measured on; none: all.
    fn windows(&self, of: u32) -> Vec<u32> {
        match self.examples {
            0 => Vec::new(),
            examples => (0..examples.min(of)).collect(),
        }
    }
}

/// The first block that is pruned, and the first one after them.
fn pruned_blocks(options: &Options, of: u32) -> Result<(u32, u32)> {
    let share = |option: i64, parts: u32| match u32::try_from(option) {
        Ok(blocks) => blocks,
        // -1: rounded to nearest.
        Err(_) if option < 0 => (2 * of + parts) / (2 * parts),
        Err(_) => u32::MAX,
    };
    let (first, last) = (share(options.keep_first, 8), share(options.keep_last, 16));
    if first.saturating_add(last) >= of {
        return Err(Error::invalid(format!(
            "keep_first = {first} and keep_last = {last} spare all of the model's {of} blocks; give smaller numbers"
        )));
    }
    Ok((first, of - last))
}

/// Importance by chance: numbers of a generator of its own for each block, so that a resumed run draws the same.
fn chance(seed: u64, block: u32, structure: usize, units: u32) -> Vec<f64> {
    let stream = (u128::from(block) << 32) | structure as u128;
    let mut generator = Pcg64::new(u128::from(seed), stream);
    (0..units).map(|_| (generator.next_u64() >> 11) as f64).collect()
}

/// Gradients of one linear's weight.
struct Slopes {
    gradient: Vec<f32>,
    mean_square: Vec<f32>,
}

impl LlmPruner {
    /// The gradients that the importance needs, by linear.
    fn slopes(&self, block: &mut Block<'_>, structures: &[Structure]) -> Result<BTreeMap<String, Slopes>> {
        let squares = match self.options.importance {
            Measure::L1 | Measure::L2 | Measure::Random => return Ok(BTreeMap::new()),
            Measure::ParamFirst | Measure::Vectorize => false,
            Measure::ParamSecond | Measure::ParamMix => true,
        };
        let mut linears: Vec<&str> =
            structures.iter().flat_map(|s| &s.parts).map(|part| part.linear.as_str()).collect();
        linears.sort_unstable();
        linears.dedup();
        let examples = self.options.windows(block.info().windows);
        let found = block.loss_gradients(&linears, squares, &examples)?;
        found
            .into_iter()
            .map(|found| {
                let mean_square = found.mean_square.map(|tensor| tensor.to_f32()).transpose()?;
                let gradient = found.gradient.to_f32()?;
                Ok((found.linear, Slopes { gradient, mean_square: mean_square.unwrap_or_default() }))
            })
            .collect()
    }

    /// Importance of each unit of a structure.
    fn importance(
        &self,
        block: &Block<'_>,
        structure: &Structure,
        slopes: &BTreeMap<String, Slopes>,
    ) -> Result<Vec<f64>> {
        let mut parts = Vec::new();
        for part in &structure.parts {
            let linear = block.linears().iter().find(|linear| linear.name == part.linear);
            let linear = linear.ok_or_else(|| {
                Error::invalid(format!(
                    "units of {} name a linear `{}` that the block lacks",
                    structure.name, part.linear
                ))
            })?;
            let weight = block.weight(&linear.name)?;
            let weight = weight.as_f32()?;
            let axis = match part.axis {
                Axis::Outputs => units::Axis::Outputs,
                Axis::Inputs => units::Axis::Inputs,
            };
            let channels = plugin::matrix(&weight, linear).and_then(|matrix| {
                let importance = measure(self.options.importance, slopes.get(&linear.name))?;
                let all = units::of_channels(matrix, axis, &importance)?;
                // Those of this part alone: a linear may hold several.
                let own = part.first as usize..(part.first + structure.units * part.width) as usize;
                let own = all.get(own).map(<[f64]>::to_vec);
                own.ok_or_else(|| Error::invalid(format!("units of {} go beyond it", structure.name)))
            });
            parts.push(plugin::name(channels, block, linear)?);
        }
        Ok(units::of_units(&parts, structure.units as usize, self.options.grouping)?)
    }
}

fn measure(measure: Measure, slopes: Option<&Slopes>) -> Result<Importance<'_>> {
    let slopes = || slopes.ok_or_else(|| Error::failed("the engine gave no gradients of its weight"));
    Ok(match measure {
        Measure::L1 => Importance::Magnitude { power: 1 },
        Measure::L2 | Measure::Random => Importance::Magnitude { power: 2 },
        Measure::ParamFirst => Importance::ElementFirst { gradient: &slopes()?.gradient },
        Measure::Vectorize => Importance::Vector { gradient: &slopes()?.gradient },
        Measure::ParamSecond => Importance::ElementSecond { mean_square: &slopes()?.mean_square },
        Measure::ParamMix => {
            let Slopes { gradient, mean_square } = slopes()?;
            Importance::ElementMixed { gradient, mean_square }
        }
    })
}

llmcb_plugin_api::export_method!(LlmPruner);

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(keep_first: i64, keep_last: i64, of: u32) -> Option<(u32, u32)> {
        pruned_blocks(&Options { keep_first, keep_last, ..Options::default() }, of).ok()
    }

    #[test]
    fn the_published_share_of_blocks_is_spared() {
        for (of, expected) in
            [(32, (4, 30)), (30, (4, 28)), (40, (5, 37)), (80, (10, 75)), (2, (0, 2)), (1, (0, 1))]
        {
            assert_eq!(blocks(-1, -1, of), Some(expected), "{of}");
        }
        assert_eq!(blocks(0, 0, 32), Some((0, 32)));
        assert_eq!(blocks(3, 1, 6), Some((3, 5)));
        assert_eq!(blocks(3, 3, 6), None);
        assert_eq!(blocks(i64::MAX, 0, 6), None);
    }

    #[test]
    fn chance_is_another_for_each_seed_block_and_structure_and_repeats() {
        let all: Vec<Vec<f64>> =
            [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)].map(|(s, b, i)| chance(s, b, i, 8)).to_vec();
        for (i, one) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other != one));
        }
        assert_eq!(chance(2, 0, 0, 8), all[1]);
    }
}
