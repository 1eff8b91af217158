//! A tiny model without files: two gated feed-forward blocks with random weights and inputs, on which conformance checks run methods.
//!
//! A block computes `y = x + W_down (silu(W_gate n) * (W_up n))` with `n = g * x / rms(x)`. Everything an engine offers is computed for real,
//! gradients included.

use std::path::Path;

use llmcb_plugin_api::sdk::{
    BlockInfo, CheckpointInfo, Engine, Error, Host, InputStatistics, Linear, ModelInfo, Norm,
    QuantizedWeight, Result, StatisticsRequest, Tensor,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Width of the residual stream: as wide as the usual group of 128 columns.
pub(crate) const HIDDEN: usize = 128;
/// Width between the linears.
pub(crate) const INNER: usize = 256;
/// Blocks.
pub(crate) const BLOCKS: u32 = 2;
const WINDOWS: usize = 8;
const WINDOW: usize = 48;
const TOKENS: usize = WINDOWS * WINDOW;
const EPSILON: f32 = 1e-6;

/// Names of the linears, in the order of the forward pass.
pub(crate) const GATE: &str = "mlp.gate_proj";
/// See [`GATE`].
pub(crate) const UP: &str = "mlp.up_proj";
/// See [`GATE`].
pub(crate) const DOWN: &str = "mlp.down_proj";
const NORM: &str = "input_layernorm";

/// How the engine misbehaves, to see what a method makes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mood {
    /// Not at all.
    #[default]
    Well,
    /// Every call but the description fails.
    Fails,
    /// Every call but the description panics.
    Panics,
}

/// What the synthetic model is made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SyntheticOptions {
    /// Seed of weights and inputs.
    pub(crate) seed: u64,
    /// How it misbehaves.
    pub(crate) mood: Mood,
}

/// SplitMix64, and from it numbers that are nearly normally distributed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Sum of 12 uniform numbers less 6: mean 0, variance 1.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    fn normals(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.normal() * scale).collect()
    }
}

/// A matrix `[rows, columns]`, row-major.
#[derive(Clone)]
struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

impl Matrix {
    fn new(rows: usize, columns: usize, values: Vec<f32>) -> Self {
        Matrix { rows, columns, values }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// `self other^T`: `[a, c] x [b, c] -> [a, b]`.
    fn times_transposed(&self, other: &Matrix) -> Matrix {
        let mut values = Vec::with_capacity(self.rows * other.rows);
        for a in 0..self.rows {
            for b in 0..other.rows {
                values.push(self.row(a).iter().zip(other.row(b)).map(|(x, y)| x * y).sum());
            }
        }
        Matrix::new(self.rows, other.rows, values)
    }

    fn transposed(&self) -> Matrix {
        let mut values = Vec::with_capacity(self.values.len());
        for column in 0..self.columns {
            values.extend((0..self.rows).map(|row| self.values[row * self.columns + column]));
        }
        Matrix::new(self.columns, self.rows, values)
    }

    fn zip(&self, other: &Matrix, f: impl Fn(f32, f32) -> f32) -> Matrix {
        let values = self.values.iter().zip(&other.values).map(|(a, b)| f(*a, *b)).collect();
        Matrix::new(self.rows, self.columns, values)
    }

    fn tensor(self) -> Result<Tensor> {
        Tensor::from_vec(self.values, &[self.rows, self.columns])
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1.0 + x * (1.0 - s))
}

#[derive(Clone)]
struct Weights {
    norm: Vec<f32>,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

impl Weights {
    fn random(random: &mut Random) -> Self {
        let matrix = |random: &mut Random, rows: usize, columns: usize| {
            Matrix::new(rows, columns, random.normals(rows * columns, (columns as f32).powf(-0.5)))
        };
        Weights {
            norm: (0..HIDDEN).map(|_| 0.5 + random.uniform()).collect(),
            gate: matrix(random, INNER, HIDDEN),
            up: matrix(random, INNER, HIDDEN),
            down: matrix(random, HIDDEN, INNER),
        }
    }

    fn linear(&self, name: &str) -> Option<&Matrix> {
        match name {
            GATE => Some(&self.gate),
            UP => Some(&self.up),
            DOWN => Some(&self.down),
            _ => None,
        }
    }

    fn set(&mut self, name: &str, values: Vec<f32>) -> Result<()> {
        let place = match name {
            GATE => &mut self.gate.values,
            UP => &mut self.up.values,
            DOWN => &mut self.down.values,
            NORM => &mut self.norm,
            _ => return Err(unknown(name)),
        };
        if place.len() != values.len() {
            return Err(Error::invalid(format!(
                "weight of {name} has {} values, {} expected",
                values.len(),
                place.len()
            )));
        }
        *place = values;
        Ok(())
    }
}

fn unknown(name: &str) -> Error {
    Error::invalid(format!("the block has no parameter `{name}`; it has {GATE}, {UP}, {DOWN} and {NORM}"))
}

/// What a forward pass leaves: what its linears read, and what comes out.
struct Pass {
    normed: Matrix,
    gate: Matrix,
    up: Matrix,
    inner: Matrix,
    output: Matrix,
}

fn pass(weights: &Weights, inputs: &Matrix) -> Pass {
    let mut normed = Vec::with_capacity(inputs.values.len());
    for row in 0..inputs.rows {
        let x = inputs.row(row);
        let scale = (x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32 + EPSILON).sqrt().recip();
        normed.extend(x.iter().zip(&weights.norm).map(|(v, g)| v * scale * g));
    }
    let normed = Matrix::new(inputs.rows, inputs.columns, normed);
    let gate = normed.times_transposed(&weights.gate);
    let up = normed.times_transposed(&weights.up);
    let inner = gate.zip(&up, |g, u| silu(g) * u);
    let output = inner.times_transposed(&weights.down).zip(inputs, |y, x| y + x);
    Pass { normed, gate, up, inner, output }
}

struct Open {
    index: u32,
    weights: Weights,
    reference: Matrix,
}

/// The synthetic model.
pub(crate) struct Synthetic {
    mood: Mood,
    blocks: Vec<Weights>,
    inputs: Matrix,
    open: Option<Open>,
}

impl Synthetic {
    pub(crate) fn new(options: SyntheticOptions) -> Self {
        let mut random = Random(options.seed);
        let blocks = (0..BLOCKS).map(|_| Weights::random(&mut random)).collect();
        // A few features are much louder than the others, as in real models; otherwise no method would gain from activations.
        let loud: Vec<f32> = (0..HIDDEN).map(|i| if i % 17 == 3 { 8.0 } else { 1.0 }).collect();
        let values = random.normals(TOKENS * HIDDEN, 1.0);
        let values = values.iter().enumerate().map(|(i, v)| v * loud[i % HIDDEN]).collect();
        Synthetic { mood: options.mood, blocks, inputs: Matrix::new(TOKENS, HIDDEN, values), open: None }
    }

    fn misbehave(&self, call: &str) -> Result<()> {
        match self.mood {
            Mood::Well => Ok(()),
            Mood::Fails => Err(Error::failed(format!("{call} fails on purpose"))),
            Mood::Panics => panic!("{call} panics on purpose"),
        }
    }

    fn open(&self) -> Result<&Open> {
        self.open.as_ref().ok_or_else(|| Error::invalid("no block is open"))
    }

    fn with_trial(&self, trial: &[(String, Tensor)]) -> Result<Weights> {
        let mut weights = self.open()?.weights.clone();
        for (name, tensor) in trial {
            weights.set(name, tensor.to_f32()?)?;
        }
        Ok(weights)
    }

    fn statistics(
        &self,
        linear: &str,
        inputs: &Matrix,
        request: &StatisticsRequest,
    ) -> Result<InputStatistics> {
        let width = inputs.columns;
        let columns = |start: f64, f: fn(f64, f64) -> f64| -> Vec<f64> {
            let mut sums = vec![start; width];
            for row in 0..inputs.rows {
                for (sum, x) in sums.iter_mut().zip(inputs.row(row)) {
                    *sum = f(*sum, f64::from(*x));
                }
            }
            sums
        };
        let vector =
            |values: Vec<f64>| Tensor::from_vec(values.iter().map(|v| *v as f32).collect(), &[width]);
        let mut random = Random(request.seed);
        let sampled: Vec<f32> = (0..request.rows.min(inputs.rows))
            .flat_map(|_| inputs.row((random.next() % inputs.rows as u64) as usize).to_vec())
            .collect();
        let transposed = inputs.transposed();
        Ok(InputStatistics {
            linear: linear.to_owned(),
            tokens: TOKENS as u64,
            sequences: WINDOWS as u64,
            gram: request.gram.then(|| transposed.times_transposed(&transposed).tensor()).transpose()?,
            sum_squares: request.sum_squares.then(|| vector(columns(0.0, |s, x| s + x * x))).transpose()?,
            abs_max: request.abs_max.then(|| vector(columns(0.0, |s, x| s.max(x.abs())))).transpose()?,
            abs_mean: request
                .abs_mean
                .then(|| vector(columns(0.0, |s, x| s + x.abs()).iter().map(|s| s / TOKENS as f64).collect()))
                .transpose()?,
            rows: (request.rows > 0)
                .then(|| Tensor::from_vec(sampled.clone(), &[sampled.len() / width, width]))
                .transpose()?,
        })
    }
}

impl Engine for Synthetic {
    type Options = SyntheticOptions;

    fn open(_: &Path, options: SyntheticOptions, _: &Host) -> Result<Self> {
        Ok(Synthetic::new(options))
    }

    fn model(&self) -> ModelInfo {
        ModelInfo {
            architecture: "Synthetic".into(),
            parameters: u64::from(BLOCKS) * (3 * HIDDEN * INNER + HIDDEN) as u64,
            blocks: BLOCKS,
            hidden_size: HIDDEN as u32,
            compute: "f32".into(),
            device: "cpu".into(),
            ..ModelInfo::default()
        }
    }

    fn encode(&self, texts: &[String], _: bool) -> Result<Vec<Vec<u32>>> {
        Ok(texts.iter().map(|text| text.bytes().map(u32::from).collect()).collect())
    }

    fn calibrate(&mut self, _: &[Vec<u32>]) -> Result<()> {
        Ok(())
    }

    fn open_block(&mut self, index: u32) -> Result<BlockInfo> {
        let weights = self
            .blocks
            .get(index as usize)
            .cloned()
            .ok_or_else(|| Error::invalid(format!("the model has no block {index}")))?;
        let reference = pass(&weights, &self.inputs).output;
        self.open = Some(Open { index, weights, reference });
        let linear = |name: &str, rows: usize, columns: usize, group: &str| Linear {
            name: name.into(),
            out_features: rows as u32,
            in_features: columns as u32,
            input_group: group.into(),
            bias: false,
        };
        Ok(BlockInfo {
            index,
            of: BLOCKS,
            linears: vec![
                linear(GATE, INNER, HIDDEN, "mlp"),
                linear(UP, INNER, HIDDEN, "mlp"),
                linear(DOWN, HIDDEN, INNER, "mlp_inner"),
            ],
            norms: vec![Norm { name: NORM.into(), size: HIDDEN as u32, feeds: vec![GATE.into(), UP.into()] }],
            heads: 0,
            key_value_heads: 0,
            head_dim: 0,
        })
    }

    fn weight(&self, name: &str) -> Result<Tensor> {
        self.misbehave("weight")?;
        let weights = &self.open()?.weights;
        if name == NORM {
            return Tensor::from_vec(weights.norm.clone(), &[HIDDEN]);
        }
        weights.linear(name).ok_or_else(|| unknown(name))?.clone().tensor()
    }

    fn set_weight(&mut self, name: &str, weight: Tensor) -> Result<()> {
        self.misbehave("set_weight")?;
        let values = weight.to_f32()?;
        let open = self.open.as_mut().ok_or_else(|| Error::invalid("no block is open"))?;
        open.weights.set(name, values)
    }

    fn set_quantized(&mut self, name: &str, weight: QuantizedWeight) -> Result<()> {
        self.misbehave("set_quantized")?;
        let open = self.open.as_mut().ok_or_else(|| Error::invalid("no block is open"))?;
        let matrix = open.weights.linear(name).ok_or_else(|| unknown(name))?;
        if (weight.rows, weight.columns) != (matrix.rows, matrix.columns) {
            return Err(Error::invalid(format!(
                "quantised weight of {name} is [{}, {}], [{}, {}] expected",
                weight.rows, weight.columns, matrix.rows, matrix.columns
            )));
        }
        let values = weight.dequantize()?;
        open.weights.set(name, values)
    }

    fn input_statistics(&mut self, request: &StatisticsRequest) -> Result<Vec<InputStatistics>> {
        self.misbehave("input_statistics")?;
        let pass = pass(&self.open()?.weights, &self.inputs);
        request
            .linears
            .iter()
            .map(|name| {
                let inputs = match name.as_str() {
                    GATE | UP => &pass.normed,
                    DOWN => &pass.inner,
                    _ => return Err(unknown(name)),
                };
                self.statistics(name, inputs, request)
            })
            .collect()
    }

    fn forward(&mut self, trial: &[(String, Tensor)]) -> Result<Tensor> {
        self.misbehave("forward")?;
        pass(&self.with_trial(trial)?, &self.inputs).output.tensor()
    }

    fn output_error(&mut self, trial: &[(String, Tensor)]) -> Result<f64> {
        self.misbehave("output_error")?;
        let output = pass(&self.with_trial(trial)?, &self.inputs).output;
        let difference = output.zip(&self.open()?.reference, |a, b| a - b);
        let sum: f64 = difference.values.iter().map(|d| f64::from(*d) * f64::from(*d)).sum();
        Ok(sum / difference.values.len() as f64)
    }

    fn gradients(&mut self, linears: &[String], trial: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
        self.misbehave("gradients")?;
        let weights = self.with_trial(trial)?;
        let pass = pass(&weights, &self.inputs);
        let count = pass.output.values.len() as f32;
        let d_output = pass.output.zip(&self.open()?.reference, |a, b| 2.0 * (a - b) / count);
        let d_inner = d_output.times_transposed(&weights.down.transposed());
        let by_name = |name: &str| -> Result<Matrix> {
            let (d_out, read) = match name {
                DOWN => (d_output.clone(), &pass.inner),
                UP => (d_inner.zip(&pass.gate, |d, g| d * silu(g)), &pass.normed),
                GATE => {
                    let d = d_inner.zip(&pass.up, |d, u| d * u);
                    (d.zip(&pass.gate, |d, g| d * silu_slope(g)), &pass.normed)
                }
                _ => return Err(unknown(name)),
            };
            Ok(d_out.transposed().times_transposed(&read.transposed()))
        };
        linears.iter().map(|name| Ok((name.clone(), by_name(name)?.tensor()?))).collect()
    }

    fn close_block(&mut self) -> Result<()> {
        let open = self.open.take().ok_or_else(|| Error::invalid("no block is open"))?;
        self.inputs = pass(&open.weights, &self.inputs).output;
        self.blocks[open.index as usize] = open.weights;
        Ok(())
    }

    fn save_block(&mut self, _: &Path) -> Result<()> {
        Err(Error::unsupported("the synthetic model has no files"))
    }

    fn restore_block(&mut self, _: &Path) -> Result<()> {
        Err(Error::unsupported("the synthetic model has no files"))
    }

    fn save_checkpoint(&mut self, _: &Path) -> Result<CheckpointInfo> {
        Err(Error::unsupported("the synthetic model has no files"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn opened(seed: u64) -> Synthetic {
        let mut engine = Synthetic::new(SyntheticOptions { seed, mood: Mood::Well });
        engine.open_block(0).unwrap();
        engine
    }

    #[test]
    fn the_same_seed_gives_the_same_model() {
        let weights = |seed| opened(seed).weight(UP).unwrap().to_f32().unwrap();
        assert_eq!(weights(1), weights(1));
        assert_ne!(weights(1), weights(2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6))]

        #[test]
        fn gradients_agree_with_differences(seed in 0u64..1000, which in 0usize..3, at in 0usize..HIDDEN * INNER) {
            let mut engine = opened(seed);
            let name = [GATE, UP, DOWN][which];
            let weight = engine.weight(name).unwrap();
            let shape = weight.shape();
            let mut values = weight.to_f32().unwrap();
            // Away from the minimum, where the gradient is zero.
            for v in &mut values { *v *= 0.5; }
            let trial = |values: &[f32]| vec![(name.to_owned(), Tensor::from_vec(values.to_vec(), &shape).unwrap())];
            let gradient = engine.gradients(&[name.to_owned()], &trial(&values)).unwrap().remove(0).1.to_f32().unwrap()[at];
            let step = 0.05f32;
            let centre = values[at];
            values[at] = centre + step;
            let above = engine.output_error(&trial(&values)).unwrap();
            values[at] = centre - step;
            let below = engine.output_error(&trial(&values)).unwrap();
            let difference = (above - below) / f64::from(2.0 * step);
            let scale = difference.abs().max(1e-4);
            prop_assert!((f64::from(gradient) - difference).abs() < 0.05 * scale, "{gradient} {difference}");
        }
    }

    #[test]
    fn statistics_agree_with_each_other() {
        let mut engine = opened(3);
        let request = StatisticsRequest::of([GATE, DOWN]).gram().sum_squares().magnitudes().rows(5, 1);
        for statistics in engine.input_statistics(&request).unwrap() {
            let gram = statistics.gram.unwrap();
            let width = gram.shape()[0];
            let gram = gram.to_f32().unwrap();
            let squares = statistics.sum_squares.unwrap().to_f32().unwrap();
            let max = statistics.abs_max.unwrap().to_f32().unwrap();
            let mean = statistics.abs_mean.unwrap().to_f32().unwrap();
            for i in 0..width {
                assert!((gram[i * width + i] - squares[i]).abs() <= 1e-3 * squares[i]);
                assert!(mean[i] <= max[i] && max[i] * max[i] <= squares[i] * 1.001);
                assert_eq!(gram[i], gram[i * width]);
            }
            assert_eq!(statistics.rows.unwrap().shape(), [5, width]);
        }
    }

    #[test]
    fn untouched_weights_make_no_error_and_changed_ones_do() {
        let mut engine = opened(5);
        assert_eq!(engine.output_error(&[]).unwrap(), 0.0);
        let zeros = Tensor::from_vec(vec![0.0f32; HIDDEN * INNER], &[HIDDEN, INNER]).unwrap();
        assert!(engine.output_error(&[(DOWN.to_owned(), zeros)]).unwrap() > 0.0);
        assert!(engine.weight("nothing").is_err());
    }
}
