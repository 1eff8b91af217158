//! AWQ: scales input channels by their activation before rounding, then clips ranges.

use std::borrow::Cow;
use std::collections::BTreeMap;

use llmcb_method_kit::Matrix;
use llmcb_method_kit::awq::{AwqGrid, RATIOS, clamp_groups, scale_columns, scales};
use llmcb_method_kit::hessian::Hessian;
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
    /// Whether ranges need not be symmetric around zero.
    pub zero_point: bool,
    /// Search for scales of input channels.
    pub auto_scale: bool,
    /// Search for ranges that leave out the largest weights.
    pub clip: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { bits: 4, group_size: 128, zero_point: true, auto_scale: true, clip: true }
    }
}

/// About how many tokens the search for ranges looks at, as published.
const CLIP_TOKENS: usize = 512;

/// The method.
pub struct Awq {
    grid: AwqGrid,
    auto_scale: bool,
    clip: bool,
}

/// What divides by the scales that a group of linears is multiplied by.
enum Source {
    Norm(String),
    /// Outputs of a linear, from the `first` on.
    Linear {
        name: String,
        first: usize,
    },
}

/// What a search compares outputs of.
enum Compared {
    Module(String),
    /// The group's only linear, by the Gram matrix of its input.
    Linear(Hessian),
}

/// Scales found for the input of some linears.
struct Scaling {
    source: Source,
    linears: Vec<Linear>,
    scales: Vec<f32>,
}

impl Method for Awq {
    type Options = Options;

    fn descriptor() -> Descriptor {
        Descriptor::method("awq", "AWQ", env!("CARGO_PKG_VERSION"))
            .summary("Protects the input channels that carry most activation, then rounds.")
            .description(
                "The weights that matter are those whose inputs are large. Multiplying an input channel by s before rounding, \
                 and dividing what comes before by s, keeps the product and makes that channel's rounding error smaller. \
                 For each group of linears that share an input, s = mean(|x|)^a is searched over a = 0, 0.05, ..., 0.95 \
                 (equation 5 of the paper), by the squared error of the output of what they feed: attention for query, key and \
                 value, the feed-forward part for gate and up, else the linear itself. Scales \
                 are folded into the norm or linear before, so the checkpoint needs no operation of its own; where a \
                 linear's outputs are read by several heads (grouped-query attention), it cannot be folded and is left out, as published.\n\n\
                 Then ranges are clipped: for each group of weights, the largest magnitude is lowered by up to half as long as \
                 the group's part of the output gains. Queries and keys are not clipped. The error is taken over about 512 calibration \
                 tokens, evenly spaced.\n\n\
                 Every block is compressed on the dense model's activations. `group_size` must divide the inputs of every linear \
                 for the format `awq` to hold the result.",
            )
            .citation(
                "AWQ: Activation-aware Weight Quantization for On-Device LLM Compression and Acceleration",
                "Ji Lin, Jiaming Tang, Haotian Tang, Shang Yang, Wei-Ming Chen, Wei-Chen Wang, Guangxuan Xiao, Xingyu Dang, \
                 Chuang Gan, Song Han",
                "MLSys 2024",
                "https://arxiv.org/abs/2306.00978",
            )
            .licence(env!("CARGO_PKG_LICENSE"))
            .authors("The llmcb-host authors")
            .needs_calibration()
            .reads_dense_inputs()
            .formats(&["awq", "grouped-integer", "dense"])
    }

    fn new(options: Options, _host: &Host) -> Result<Self> {
        let grid = AwqGrid {
            bits: options.bits,
            group_size: plugin::group_size(options.group_size)?,
            zero_point: options.zero_point,
        };
        grid.validate()?;
        Ok(Awq { grid, auto_scale: options.auto_scale, clip: options.clip })
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        let linears = block.linears().to_vec();
        let statistics =
            if self.auto_scale || self.clip { self.statistics(block, &linears)? } else { Vec::new() };
        // All searches see the block as it was; only then is anything changed, as published.
        let mut found = Vec::new();
        if self.auto_scale {
            for group in block.input_groups() {
                if let Some(source) = source(block, &group) {
                    host.check_cancelled()?;
                    let of = of_input(&statistics, &group[0]);
                    let scales =
                        of.and_then(|statistics| self.search(block, &group, &source, statistics, host));
                    let scales = plugin::name(scales, block, &group[0])?;
                    found.push(Scaling { source, linears: group, scales });
                }
            }
        }
        let mut weights: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        for linear in &linears {
            weights.insert(linear.name.clone(), block.weight(&linear.name)?.to_f32()?);
        }
        for scaling in &found {
            fold(block, scaling, &mut weights)?;
        }
        for (at, linear) in linears.iter().enumerate() {
            plugin::step(block, at, linear, host)?;
            let mut weight = weights.remove(&linear.name).unwrap_or_default();
            let scales = found.iter().find(|s| s.linears.iter().any(|l| l.name == linear.name));
            let quantized = self
                .clipped(linear, &mut weight, &statistics, scales.map(|s| s.scales.as_slice()))
                .and_then(|()| {
                    let [rows, columns] = linear.shape();
                    Ok(self.grid.round(Matrix::new(&weight, rows, columns)?)?)
                });
            let quantized = plugin::name(quantized, block, linear)?;
            plugin::quantize(block, linear, quantized)?;
        }
        Ok(())
    }
}

fn of_input<'a>(statistics: &'a [InputStatistics], linear: &Linear) -> Result<&'a InputStatistics> {
    let found = statistics.iter().find(|s| s.linear == linear.name);
    found.ok_or_else(|| Error::failed("the engine gave no statistics of its input"))
}

fn gram_of(statistics: &InputStatistics) -> Result<Cow<'_, [f32]>> {
    let gram = statistics.gram.as_ref();
    gram.ok_or_else(|| Error::failed("the engine gave no Gram matrix of its input"))?.as_f32()
}

/// What scales of the inputs of these linears can be folded into.
fn source(block: &Block<'_>, group: &[Linear]) -> Option<Source> {
    let first = group.first()?;
    let norm = block.norms().iter().find(|norm| group.iter().all(|l| norm.feeds.contains(&l.name)));
    if let Some(norm) = norm {
        return Some(Source::Norm(norm.name.clone()));
    }
    let before = first.fed_by.as_ref().filter(|_| group.len() == 1)?;
    (before.repeats == 1)
        .then(|| Source::Linear { name: before.linear.clone(), first: before.first as usize })
}

/// The part of the block whose outputs are compared where scales of these linears' input go into `source`: that which a norm feeds, if the
/// engine names it. Otherwise a linear's own are.
fn inspected<'a>(block: &'a Block<'_>, group: &[Linear], source: &Source) -> Option<&'a str> {
    let module =
        block.modules().iter().find(|m| group.first().is_some_and(|l| m.input_group == l.input_group));
    module.filter(|_| matches!(source, Source::Norm(_))).map(|module| module.name.as_str())
}

impl Awq {
    /// What the searches need of each linear's input: magnitudes for scales, rows for clipping, a Gram matrix where the output
    /// compared is the linear's own.
    fn statistics(&self, block: &mut Block<'_>, linears: &[Linear]) -> Result<Vec<InputStatistics>> {
        let names = || linears.iter().map(|l| l.name.as_str());
        let mut request = StatisticsRequest::of(names()).magnitudes();
        if self.clip {
            request = request.rows(CLIP_TOKENS);
        }
        let mut all = block.input_statistics(&request)?;
        let alone: Vec<String> = block
            .input_groups()
            .into_iter()
            .filter(|group| {
                let source = source(block, group).filter(|_| self.auto_scale && group.len() == 1);
                source.is_some_and(|source| inspected(block, group, &source).is_none())
            })
            .flat_map(|group| group.into_iter().map(|l| l.name))
            .collect();
        if !alone.is_empty() {
            for with_gram in block.input_statistics(&StatisticsRequest::of(alone).gram())? {
                if let Some(of) = all.iter_mut().find(|s| s.linear == with_gram.linear) {
                    of.gram = with_gram.gram;
                }
            }
        }
        Ok(all)
    }

    /// The scales whose rounding error hurts least.
    fn search(
        &self,
        block: &mut Block<'_>,
        group: &[Linear],
        source: &Source,
        statistics: &InputStatistics,
        host: &Host,
    ) -> Result<Vec<f32>> {
        let first = &group[0];
        let mean = statistics.abs_mean.as_ref();
        let mean =
            mean.ok_or_else(|| Error::failed("the engine gave no magnitudes of its input"))?.to_f32()?;
        let compared = match inspected(block, group, source) {
            Some(module) => Compared::Module(module.to_owned()),
            None if group.len() == 1 => {
                Compared::Linear(Hessian::from_gram(&gram_of(statistics)?, first.in_features as usize, 1)?)
            }
            None => {
                return Err(Error::unsupported(format!(
                    "the engine names no module that reads `{}`",
                    first.input_group
                )));
            }
        };
        let weights =
            group.iter().map(|linear| block.weight(&linear.name)).collect::<Result<Vec<Tensor>>>()?;
        let weights = weights.iter().map(Tensor::as_f32).collect::<Result<Vec<_>>>()?;
        let mut best = (f64::INFINITY, Vec::new(), 0.0);
        for step in 0..RATIOS {
            host.check_cancelled()?;
            let ratio = step as f32 / RATIOS as f32;
            let scales = scales(&mean, ratio);
            let mut trial = Vec::new();
            for (linear, weight) in group.iter().zip(&weights) {
                let rounded = self.grid.round_scaled(plugin::matrix(weight, linear)?, &scales)?;
                trial.push((linear.name.clone(), Tensor::from_vec(rounded, &linear.shape())?));
            }
            let error = match &compared {
                Compared::Module(module) => block.module_error(module, trial)?,
                Compared::Linear(hessian) => {
                    let changed = trial[0].1.as_f32()?;
                    let changed = plugin::matrix(&changed, first)?;
                    hessian.relative_output_error(plugin::matrix(&weights[0], first)?, changed)?
                }
            };
            if error < best.0 {
                best = (error, scales, ratio);
            }
        }
        let (error, scales, ratio) = best;
        host.log(
            LogLevel::Debug,
            format!(
                "block {}, {}: scales by activation^{ratio:.2}, output error {error:.3e}",
                block.index(),
                first.input_group
            ),
        );
        if scales.is_empty() {
            return Err(Error::failed("no scale gives an output that is a number"));
        }
        Ok(scales)
    }

    /// Clips the (scaled) weight of a linear, where that is wanted.
    fn clipped(
        &self,
        linear: &Linear,
        weight: &mut [f32],
        statistics: &[InputStatistics],
        scales: Option<&[f32]>,
    ) -> Result<()> {
        if !self.clip || decides_attention(linear) {
            return Ok(());
        }
        let [rows, columns] = linear.shape();
        let inputs = of_input(statistics, linear)?.rows.as_ref();
        let mut inputs =
            inputs.ok_or_else(|| Error::failed("the engine gave no rows of its input"))?.to_f32()?;
        if inputs.is_empty() {
            return Err(Error::failed(
                "the engine gave no rows of its input: clipping needs calibration tokens",
            ));
        }
        if let Some(scales) = scales {
            for token in inputs.chunks_mut(columns) {
                token.iter_mut().zip(scales).for_each(|(x, s)| *x /= s);
            }
        }
        let inputs = Matrix::new(&inputs, inputs.len() / columns, columns)?;
        let limits = self.grid.clip(Matrix::new(weight, rows, columns)?, inputs)?;
        clamp_groups(weight, columns, self.grid.group_size, &limits);
        Ok(())
    }
}

/// Whether a linear makes queries or keys. Their product, not their own outputs, is what matters, so the published code does
/// not clip them, nor what holds values as well.
fn decides_attention(linear: &Linear) -> bool {
    if !linear.outputs.is_empty() {
        return [QUERIES, KEYS].iter().any(|what| linear.outputs_of(what).is_some());
    }
    // An engine that does not say what outputs are: the names that the published code goes by.
    ["q_", "k_", "query", "key"].iter().any(|part| linear.name.contains(part))
}

/// Multiplies linears by scales, and divides what comes before by them.
fn fold(block: &mut Block<'_>, scaling: &Scaling, weights: &mut BTreeMap<String, Vec<f32>>) -> Result<()> {
    let scales = &scaling.scales;
    match &scaling.source {
        Source::Norm(norm) => {
            plugin::divide_norm(block, norm, scales)?;
        }
        Source::Linear { name, first } => {
            let before = block.linears().iter().find(|l| l.name == *name).cloned();
            let (Some(before), Some(rows)) = (before, weights.get_mut(name)) else {
                return Err(Error::failed(format!("the engine names no linear `{name}`")));
            };
            let divided = rows.chunks_mut(before.in_features as usize).skip(*first);
            for (row, scale) in divided.zip(scales) {
                row.iter_mut().for_each(|w| *w /= scale);
            }
            if before.bias {
                let mut of_bias = vec![1.0; before.out_features as usize];
                of_bias[*first..][..scales.len()].copy_from_slice(scales);
                plugin::divide(block, &format!("{name}.bias"), &of_bias)?;
            }
        }
    }
    for linear in &scaling.linears {
        let [rows, columns] = linear.shape();
        if let Some(weight) = weights.get_mut(&linear.name) {
            *weight = scale_columns(Matrix::new(weight, rows, columns)?, scales)?;
        }
    }
    Ok(())
}

llmcb_plugin_api::export_method!(Awq);
