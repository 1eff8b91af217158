//! OmniQuant: learns where to clip weights, and scales between operations, by gradients, block by block.

mod equivalent;
mod training;

use std::collections::BTreeMap;

use llmcb_method_kit::clipping::Clipping;
use llmcb_method_kit::plugin;
use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::equivalent::{Magnitudes, Scales, scales};
use crate::training::{Parameters, Schedule, Trainee};

/// Whether scales are learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Let {
    /// Where activations are rounded as well, as in the paper.
    #[default]
    Auto,
    /// Yes.
    On,
    /// No.
    Off,
}

/// Options of the method.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Bits of weights (`wbits`).
    #[schemars(range(min = 2, max = 8))]
    pub bits: u8,
    /// Bits of activations (`abits`), 2 to 8; 16: they are not rounded.
    #[schemars(range(min = 2, max = 16))]
    pub activation_bits: u32,
    /// Input columns that share a grid; -1 for the whole row.
    #[schemars(range(min = -1))]
    pub group_size: i64,
    /// Learn where to clip weights.
    pub lwc: bool,
    /// Learn scales between operations.
    pub r#let: Let,
    /// Learning rate of clipping.
    #[schemars(range(min = 0.0))]
    pub lwc_lr: f32,
    /// Learning rate of scales.
    #[schemars(range(min = 0.0))]
    pub let_lr: f32,
    /// Weight decay of both (`wd`).
    #[schemars(range(min = 0.0))]
    pub weight_decay: f32,
    /// Times that training goes through the calibration windows; 0: no training, only initial clipping and scales. Published: 20, and 40 for
    /// 2 bits.
    pub epochs: u32,
    /// Windows for each step.
    #[schemars(range(min = 1))]
    pub batch_size: u32,
    /// Migration strength of initial scales, as in SmoothQuant.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub alpha: f32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            bits: 4,
            activation_bits: 16,
            group_size: -1,
            lwc: true,
            r#let: Let::Auto,
            lwc_lr: 1e-2,
            let_lr: 5e-3,
            weight_decay: 0.0,
            epochs: 20,
            batch_size: 1,
            alpha: 0.5,
        }
    }
}

/// Activations that are not rounded.
const WHOLE: u32 = 16;
/// Sites besides the inputs of linears that are rounded with them: what attention multiplies.
const ATTENTION_SITES: [&str; 3] = ["queries", "keys", "values"];

/// The method.
pub struct OmniQuant {
    options: Options,
    group_size: Option<usize>,
}

impl Method for OmniQuant {
    type Options = Options;

    fn descriptor() -> Descriptor {
        Descriptor::method("omniquant", "OmniQuant", env!("CARGO_PKG_VERSION"))
            .summary("Learns clipping and equivalent scales by gradients, block by block.")
            .description(
                "Each block is trained to give the dense model's outputs: AdamW minimises the mean squared difference between \
                 the rounded block's outputs, on what the compressed blocks before it give, and the dense block's outputs in \
                 the dense model (equation 1 of the paper). Two kinds of parameters are learned.\n\n\
                 Learnable weight clipping (`lwc`): the grid of a group of weights goes from sigmoid(b) min W to sigmoid(a) \
                 max W, with a and b of each group learned from 4 on (equation 2).\n\n\
                 Learnable equivalent transformation (`let`): norms are divided by scales and the linears that read them \
                 multiplied; likewise between the value and the output projection, and between queries and keys (equations 3 \
                 to 5). Scales begin as max|X|^alpha / max|W|^(1-alpha) of the dense model and are folded into weights, so the \
                 model needs no new operation. Shifts, which the published code learns for families whose norms have biases, are \
                 not learned. With grouped key and value heads, a scale is shared by all that read the head.\n\n\
                 With `activation_bits` below 16, inputs of linears are rounded per token, asymmetrically, and so are the \
                 queries, keys and values of each head; in training, in evaluation and in generation alike. The checkpoint says \
                 so (`llmcb_activations` in config.json).\n\n\
                 Settings of the paper: `bits=4`, `bits=3,group_size=128`, `bits=2,group_size=128,epochs=40`, \
                 `bits=8,activation_bits=8`, `bits=4,activation_bits=4` (the published command lines for Llama 2 add \
                 `let_lr=1e-3,alpha=0.75` to the last). They take 128 windows of 2048 tokens. Training takes about \
                 epochs * windows passes forward and back through each block, so fewer epochs or windows are worth a thought on a \
                 CPU. The second loss term of the published code (`aug_loss`) is not offered; the published command lines use it \
                 for 2 bits, for some models at 3 bits with groups, and for W4A4 of the first LLaMA.",
            )
            .citation(
                "OmniQuant: Omnidirectionally Calibrated Quantization for Large Language Models",
                "Wenqi Shao, Mengzhao Chen, Zhaoyang Zhang, Peng Xu, Lirui Zhao, Zhiqian Li, Kaipeng Zhang, Peng Gao, Yu Qiao, Ping Luo",
                "ICLR 2024",
                "https://arxiv.org/abs/2308.13137",
            )
            .licence(env!("CARGO_PKG_LICENSE"))
            .authors("The llmcb-host authors")
            .needs_calibration()
            .needs_gradients()
            .aims_at_dense_outputs()
            .formats(&["gptq", "dense"])
    }

    fn new(options: Options, _host: &Host) -> Result<Self> {
        let group_size = plugin::grid(options.bits, options.group_size, false)?.group_size;
        if options.activation_bits != WHOLE {
            ActivationQuantization::dynamic(options.activation_bits, false).check()?;
        }
        for (name, value) in
            [("lwc_lr", options.lwc_lr), ("let_lr", options.let_lr), ("weight_decay", options.weight_decay)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid(format!("{name} = {value}: must be zero or a positive number")));
            }
        }
        if !(0.0..=1.0).contains(&options.alpha) {
            return Err(Error::invalid(format!("alpha = {}: must be from 0 to 1", options.alpha)));
        }
        if options.batch_size == 0 {
            return Err(Error::invalid("batch_size = 0: must be at least 1"));
        }
        Ok(OmniQuant { options, group_size })
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        let linears = block.linears().to_vec();
        let original = parameters(block)?;
        let (activations, windows) = dense_magnitudes(block, &linears)?;
        let clipping = linears
            .iter()
            .map(|linear| {
                let [rows, columns] = linear.shape();
                let weight = original.get(&linear.name).map(Vec::as_slice).unwrap_or_default();
                // Training would only say that it diverged.
                let clipping = plugin::matrix(weight, linear).and_then(|_| {
                    Ok(Clipping::new(rows, columns, self.options.bits, self.group_size, self.options.lwc)?)
                });
                plugin::name(clipping, block, linear)
            })
            .collect::<Result<Vec<_>>>()?;
        let scales = if self.learns_scales() {
            scales(block, &Magnitudes { activations: &activations, weights: &original }, self.options.alpha)?
        } else {
            Vec::<Scales>::new()
        };
        self.round_activations(block)?;

        let schedule = self.schedule();
        let mut trainee = Trainee::new(linears, original, clipping, scales, &schedule);
        if self.options.lwc || self.learns_scales() {
            train(&mut trainee, block, windows, &schedule, host)?;
        }
        trainee.finish(block)
    }
}

/// Goes through all windows as often as the schedule says.
fn train(
    trainee: &mut Trainee,
    block: &mut Block<'_>,
    windows: u32,
    schedule: &Schedule,
    host: &Host,
) -> Result<()> {
    let steps = u64::from(windows.div_ceil(schedule.batch));
    let per_block = steps * u64::from(schedule.epochs);
    let before = block.index() as u64 * per_block;
    for epoch in 0..schedule.epochs {
        let mut error = 0.0;
        for step in 0..steps {
            host.check_cancelled()?;
            let first = step as u32 * schedule.batch;
            error += trainee.step(block, first..windows.min(first + schedule.batch))? / steps as f64;
            let done = before + u64::from(epoch) * steps + step + 1;
            let what = format!("block {}: epoch {} of {}", block.index(), epoch + 1, schedule.epochs);
            host.progress(done, per_block * u64::from(block.info().of), &what);
        }
        host.log(
            LogLevel::Debug,
            format!("block {}, epoch {}: mean squared output error {error:.4e}", block.index(), epoch + 1),
        );
    }
    Ok(())
}

/// All parameters of a block that may change.
fn parameters(block: &Block<'_>) -> Result<Parameters> {
    let mut all = Parameters::new();
    for linear in block.linears() {
        all.insert(linear.name.clone(), block.weight(&linear.name)?.to_f32()?);
        if linear.bias {
            let name = format!("{}.bias", linear.name);
            let bias = block.weight(&name)?.to_f32()?;
            all.insert(name, bias);
        }
    }
    for norm in block.norms() {
        all.insert(norm.name.clone(), block.weight(&norm.name)?.to_f32()?);
        let name = format!("{}.bias", norm.name);
        if let Ok(bias) = block.weight(&name) {
            all.insert(name, bias.to_f32()?);
        }
    }
    Ok(all)
}

/// Per linear, the largest magnitude of each input in the dense model; and the number of calibration windows.
fn dense_magnitudes(block: &mut Block<'_>, linears: &[Linear]) -> Result<(BTreeMap<String, Vec<f32>>, u32)> {
    let request =
        StatisticsRequest::of(linears.iter().map(|l| l.name.as_str())).magnitudes().of_dense_model();
    let mut largest = BTreeMap::new();
    let mut windows = 0;
    for statistics in block.input_statistics(&request)? {
        let maxima = statistics.abs_max.as_ref();
        let maxima = maxima.ok_or_else(|| Error::failed("the engine gave no magnitudes of its inputs"))?;
        largest.insert(statistics.linear.clone(), maxima.to_f32()?);
        windows = u32::try_from(statistics.sequences).unwrap_or(u32::MAX);
    }
    Ok((largest, windows))
}

impl OmniQuant {
    fn learns_scales(&self) -> bool {
        match self.options.r#let {
            Let::Auto => self.options.activation_bits != WHOLE,
            Let::On => true,
            Let::Off => false,
        }
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            epochs: self.options.epochs,
            batch: self.options.batch_size,
            clipping_rate: self.options.lwc_lr,
            scales_rate: self.options.let_lr,
            weight_decay: self.options.weight_decay,
        }
    }

    /// From now on, rounds what linears read and what attention multiplies.
    fn round_activations(&self, block: &mut Block<'_>) -> Result<()> {
        if self.options.activation_bits == WHOLE {
            return Ok(());
        }
        let quantization = ActivationQuantization::dynamic(self.options.activation_bits, false);
        let known = block.info().activation_sites.clone();
        for group in block.input_groups() {
            block.quantize_activations(&group[0].input_group, Some(quantization))?;
        }
        // An engine whose blocks have no attention has no such activations.
        for site in ATTENTION_SITES.into_iter().filter(|site| known.iter().any(|k| k == site)) {
            block.quantize_activations(site, Some(quantization))?;
        }
        Ok(())
    }
}

llmcb_plugin_api::export_method!(OmniQuant);
