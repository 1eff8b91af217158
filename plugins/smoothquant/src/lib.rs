//! SmoothQuant: moves outliers of activations into weights, then rounds both.

use std::collections::BTreeMap;

use llmcb_method_kit::Matrix;
use llmcb_method_kit::awq::scale_columns;
use llmcb_method_kit::plugin;
use llmcb_method_kit::smoothquant::{column_maxima, round_weight, smoothing_scales};
use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What shares the step of a weight's grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightGrid {
    /// Every output has its own.
    #[default]
    PerChannel,
    /// One for the whole weight.
    PerTensor,
}

/// What shares the step of the grid of activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActivationGrid {
    /// Every token has its own, found while the model runs.
    #[default]
    PerToken,
    /// One for all tokens, from the largest magnitude in calibration.
    Static,
}

/// Options of the method.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Migration strength: 0 leaves outliers to the activations, 1 moves all of them to the weights. Published: 0.5 for OPT and BLOOM, 0.85 for
    /// LLaMA 2 7B and 13B, 0.9 for 70B, 0.8 for Mistral.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub alpha: f32,
    /// Bits of weights.
    #[schemars(range(min = 2, max = 8))]
    pub bits: u8,
    /// Bits of activations.
    #[schemars(range(min = 2, max = 8))]
    pub activation_bits: u32,
    /// What shares a step of the weights' grid.
    pub weights: WeightGrid,
    /// What shares a step of the activations' grid.
    pub activations: ActivationGrid,
    /// Round the outputs of the query, key and value projections as well, per token, so that attention multiplies integers, too.
    pub quantize_attention: bool,
    /// Whether to smooth at all; without, it is plain rounding of weights and activations.
    pub smooth: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            alpha: 0.5,
            bits: 8,
            activation_bits: 8,
            weights: WeightGrid::default(),
            activations: ActivationGrid::default(),
            quantize_attention: false,
            smooth: true,
        }
    }
}

/// Sites of a block that `quantize_attention` adds.
const ATTENTION_SITES: [&str; 3] = ["query_outputs", "key_outputs", "value_outputs"];

/// The method.
pub struct SmoothQuant {
    options: Options,
}

impl Method for SmoothQuant {
    type Options = Options;

    fn descriptor() -> Descriptor {
        Descriptor::method("smoothquant", "SmoothQuant", env!("CARGO_PKG_VERSION"))
            .summary("Moves outliers of activations into weights, then rounds both to 8 bits.")
            .description(
                "A few channels of activations are far larger than the others, so that rounding whole tokens to 8 bits loses \
                 the small ones; weights have no such channels. For each group of linears that read a norm's output, input \
                 channel j of the activations is divided, and of the weights multiplied, by s_j = max|X_j|^alpha / \
                 max|W_j|^(1-alpha) (equation 4 of the paper). The division is folded into the norm, so the model needs no \
                 new operation. Other linears (output and down projections) are not smoothed, as published for LLaMA.\n\n\
                 Then every linear's weight is rounded symmetrically, by row or as a whole, and the inputs of every linear are \
                 rounded while the model runs: symmetrically, each token by its own largest magnitude, or all by the largest \
                 in calibration. This happens in calibration, in evaluation and in generation alike, and the checkpoint says \
                 so: `llmcb_activations` in config.json, and compressed-tensors' `input_activations` where that format can \
                 express it. That library rounds by max|x| / 127.5 instead of / 127 when it runs the checkpoint.\n\n\
                 Every block is compressed on the dense model's activations. Rounding outputs of attention's projections \
                 (`quantize_attention`) is what the published perplexity script does besides.",
            )
            .citation(
                "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
                "Guangxuan Xiao, Ji Lin, Mickael Seznec, Hao Wu, Julien Demouth, Song Han",
                "ICML 2023",
                "https://arxiv.org/abs/2211.10438",
            )
            .licence(env!("CARGO_PKG_LICENSE"))
            .authors("The llmcb-host authors")
            .needs_calibration()
            .reads_dense_inputs()
            .formats(&["compressed-tensors:int-quantized", "dense"])
    }

    fn new(options: Options, _host: &Host) -> Result<Self> {
        if !(0.0..=1.0).contains(&options.alpha) {
            return Err(Error::invalid(format!("alpha = {}: must be from 0 to 1", options.alpha)));
        }
        plugin::grid(options.bits, -1, true)?;
        ActivationQuantization::dynamic(options.activation_bits, true).check()?;
        Ok(SmoothQuant { options })
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        let linears = block.linears().to_vec();
        let request = StatisticsRequest::of(linears.iter().map(|l| l.name.as_str())).magnitudes();
        let mut largest: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        for statistics in block.input_statistics(&request)? {
            let maxima = statistics.abs_max.as_ref();
            let maxima =
                maxima.ok_or_else(|| Error::failed("the engine gave no magnitudes of its inputs"))?;
            largest.insert(statistics.linear.clone(), maxima.to_f32()?);
        }
        let mut weights: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        for linear in &linears {
            weights.insert(linear.name.clone(), block.weight(&linear.name)?.to_f32()?);
        }
        if self.options.smooth {
            for group in block.input_groups() {
                host.check_cancelled()?;
                self.smooth(block, &group, &mut largest, &mut weights)?;
            }
        }
        for (at, linear) in linears.iter().enumerate() {
            plugin::step(block, at, linear, host)?;
            let weight = weights.remove(&linear.name).unwrap_or_default();
            let [rows, columns] = linear.shape();
            let rounded = Matrix::new(&weight, rows, columns).and_then(|weight| {
                round_weight(weight, self.options.bits, self.options.weights == WeightGrid::PerTensor)
            });
            let rounded = plugin::name(rounded.map_err(Error::from), block, linear)?;
            plugin::quantize(block, linear, rounded)?;
        }
        self.round_activations(block, &largest)
    }
}

impl SmoothQuant {
    /// Smooths the input of some linears, if it is a norm's output; `largest` and `weights` are then those of the smoothed block.
    fn smooth(
        &self,
        block: &mut Block<'_>,
        group: &[Linear],
        largest: &mut BTreeMap<String, Vec<f32>>,
        weights: &mut BTreeMap<String, Vec<f32>>,
    ) -> Result<()> {
        let norm = block.norms().iter().find(|norm| group.iter().all(|l| norm.feeds.contains(&l.name)));
        let (Some(norm), Some(first)) = (norm.map(|norm| norm.name.clone()), group.first()) else {
            return Ok(());
        };
        let missing =
            || Error::failed(format!("the engine gave no statistics of the input of {}", first.name));
        let maxima = largest.get(&first.name).ok_or_else(missing)?;
        let matrices: Vec<Matrix<'_>> = group
            .iter()
            .filter_map(|l| Some((l, weights.get(&l.name)?)))
            .map(|(l, weight)| plugin::name(plugin::matrix(weight, l), block, l))
            .collect::<Result<_>>()?;
        let scales = smoothing_scales(maxima, &column_maxima(&matrices)?, self.options.alpha)?;
        for linear in group {
            let [rows, columns] = linear.shape();
            if let Some(weight) = weights.get_mut(&linear.name) {
                *weight = scale_columns(Matrix::new(weight, rows, columns)?, &scales)?;
            }
            if let Some(maxima) = largest.get_mut(&linear.name) {
                maxima.iter_mut().zip(&scales).for_each(|(x, s)| *x /= s);
            }
        }
        plugin::divide_norm(block, &norm, &scales)
    }

    /// From now on, rounds what linears read.
    fn round_activations(&self, block: &mut Block<'_>, largest: &BTreeMap<String, Vec<f32>>) -> Result<()> {
        let bits = self.options.activation_bits;
        let dynamic = ActivationQuantization::dynamic(bits, true);
        for group in block.input_groups() {
            let quantization = match self.options.activations {
                ActivationGrid::PerToken => dynamic,
                ActivationGrid::Static => {
                    let maxima = largest.get(&group[0].name).map(Vec::as_slice).unwrap_or_default();
                    let most = maxima.iter().fold(0f32, |m, x| m.max(*x));
                    ActivationQuantization::fixed(bits, true, -most, most)
                }
            };
            block.quantize_activations(&group[0].input_group, Some(quantization))?;
        }
        if self.options.quantize_attention {
            for site in ATTENTION_SITES {
                if !block.info().activation_sites.iter().any(|known| known == site) {
                    return Err(Error::unsupported(format!(
                        "quantize_attention: the engine has no activations `{site}`"
                    )));
                }
                block.quantize_activations(site, Some(dynamic))?;
            }
        }
        Ok(())
    }
}

llmcb_plugin_api::export_method!(SmoothQuant);
