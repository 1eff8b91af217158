//! Training of one block: clipping and scales, by gradients of the block's output error.

use std::collections::BTreeMap;

use llmcb_method_kit::adamw::AdamW;
use llmcb_method_kit::clipping::Clipping;
use llmcb_method_kit::plugin;
use llmcb_plugin_api::sdk::*;

use crate::equivalent::Scales;

/// The parameters of a block before anything changed: weights of linears and norms by name, biases as `NAME.bias`.
pub type Parameters = BTreeMap<String, Vec<f32>>;

/// How training proceeds.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Times that all windows are gone through.
    pub epochs: u32,
    /// Windows for each step.
    pub batch: u32,
    /// Learning rate of clipping.
    pub clipping_rate: f32,
    /// Learning rate of scales.
    pub scales_rate: f32,
    /// Decay of both.
    pub weight_decay: f32,
}

/// What is learned, and the block it is learned for.
pub struct Trainee {
    linears: Vec<Linear>,
    original: Parameters,
    clipping: Vec<Clipping>,
    scales: Vec<Scales>,
    optimisers: Optimisers,
}

/// One optimiser for each array that is learned.
#[derive(Default)]
struct Optimisers {
    clipping: Vec<[AdamW; 2]>,
    scales: Vec<AdamW>,
}

/// A block with all scales applied.
struct Transformed {
    /// By linear, before rounding.
    weights: Vec<Vec<f32>>,
    /// Norms and biases that change.
    others: Vec<(String, Vec<f32>)>,
}

impl Trainee {
    /// For a block whose linears are rounded by `clipping`, one for each, and changed by `scales`.
    pub fn new(
        linears: Vec<Linear>,
        original: Parameters,
        mut clipping: Vec<Clipping>,
        scales: Vec<Scales>,
        schedule: &Schedule,
    ) -> Self {
        let mut optimisers = Optimisers::default();
        for logits in clipping.iter_mut().filter_map(Clipping::logits_mut) {
            let new =
                |logits: &Vec<f32>| AdamW::new(logits.len(), schedule.clipping_rate, schedule.weight_decay);
            optimisers.clipping.push([new(&logits[0]), new(&logits[1])]);
        }
        for scales in &scales {
            let new = AdamW::new(scales.values.len(), schedule.scales_rate, schedule.weight_decay);
            optimisers.scales.push(new);
        }
        Self { linears, original, clipping, scales, optimisers }
    }

    fn original(&self, name: &str) -> Result<&Vec<f32>> {
        self.original.get(name).ok_or_else(|| Error::failed(format!("{name} was not read")))
    }

    fn transformed(&self) -> Result<Transformed> {
        let mut weights = Vec::with_capacity(self.linears.len());
        let mut others = Vec::new();
        for linear in &self.linears {
            let mut weight = self.original(&linear.name)?.clone();
            self.scales.iter().for_each(|scales| scales.apply(linear, &mut weight));
            weights.push(weight);
            if linear.bias && self.scales.iter().any(|scales| scales.changes_bias(&linear.name)) {
                let name = format!("{}.bias", linear.name);
                let mut bias = self.original(&name)?.clone();
                self.scales.iter().for_each(|scales| scales.apply_to_bias(&linear.name, &mut bias));
                others.push((name, bias));
            }
        }
        for scales in &self.scales {
            let Some(norm) = scales.norm() else { continue };
            for name in [norm.to_owned(), format!("{norm}.bias")] {
                if let Some(values) = self.original.get(&name) {
                    others.push((name, values.iter().zip(&scales.values).map(|(n, s)| n / s).collect()));
                }
            }
        }
        Ok(Transformed { weights, others })
    }

    /// Takes one step on some windows; gives the error before it.
    pub fn step(&mut self, block: &mut Block<'_>, windows: std::ops::Range<u32>) -> Result<f64> {
        self.scales.iter_mut().for_each(Scales::keep_from_zero);
        let transformed = self.transformed()?;
        let mut trial = Vec::new();
        for ((linear, clipping), weight) in self.linears.iter().zip(&self.clipping).zip(&transformed.weights)
        {
            trial.push((linear.name.clone(), Tensor::from_vec(clipping.round(weight)?, &linear.shape())?));
        }
        for (name, values) in &transformed.others {
            trial.push((name.clone(), Tensor::from_vec(values.clone(), &[values.len()])?));
        }
        let names: Vec<String> = trial.iter().map(|(name, _)| name.clone()).collect();
        let found = block.gradients(GradientRequest::of(names).at(trial).windows(windows))?;
        if !found.error.is_finite() {
            return Err(Error::failed(format!(
                "block {}: training diverged (error {}); lower lwc_lr and let_lr",
                block.index(),
                found.error
            )));
        }
        let mut of_scales: Vec<Vec<f32>> = self.scales.iter().map(|s| vec![0.0; s.values.len()]).collect();
        let mut gradients = found.gradients.into_iter();
        let mut optimisers = self.optimisers.clipping.iter_mut();
        for ((linear, clipping), weight) in
            self.linears.iter().zip(&mut self.clipping).zip(&transformed.weights)
        {
            let gradient = gradients.next().ok_or_else(|| missing(&linear.name))?.1.to_f32()?;
            let gradients = clipping.backward(weight, &gradient)?;
            for (scales, out) in self.scales.iter().zip(&mut of_scales) {
                scales.backward(linear, weight, &gradients.weight, out);
            }
            if let (Some(logits), Some(optimisers)) = (clipping.logits_mut(), optimisers.next()) {
                for ((logits, optimiser), gradient) in
                    logits.iter_mut().zip(optimisers).zip(&gradients.logits)
                {
                    optimiser.step(logits, gradient);
                }
            }
        }
        for (name, values) in &transformed.others {
            let gradient = gradients.next().ok_or_else(|| missing(name))?.1.to_f32()?;
            let owner = name.strip_suffix(".bias").unwrap_or(name);
            for (scales, out) in self.scales.iter().zip(&mut of_scales) {
                if scales.norm() == Some(owner) {
                    scales.backward_norm(values, &gradient, out);
                } else {
                    scales.backward_bias(owner, values, &gradient, out);
                }
            }
        }
        for ((scales, optimiser), gradient) in
            self.scales.iter_mut().zip(&mut self.optimisers.scales).zip(&of_scales)
        {
            optimiser.step(&mut scales.values, gradient);
        }
        Ok(found.error)
    }

    /// Hands the block over as it was trained.
    pub fn finish(mut self, block: &mut Block<'_>) -> Result<()> {
        self.scales.iter_mut().for_each(Scales::keep_from_zero);
        let transformed = self.transformed()?;
        for (name, values) in transformed.others {
            let length = values.len();
            block.set_weight(&name, Tensor::from_vec(values, &[length])?)?;
        }
        for ((linear, clipping), weight) in self.linears.iter().zip(&self.clipping).zip(&transformed.weights)
        {
            let quantized = plugin::name(clipping.quantize(weight).map_err(Error::from), block, linear)?;
            plugin::quantize(block, linear, quantized)?;
        }
        Ok(())
    }
}

fn missing(name: &str) -> Error {
    Error::failed(format!("the engine gave no gradient of {name}"))
}
