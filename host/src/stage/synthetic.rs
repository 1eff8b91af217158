//! A model without files: gated feed-forward blocks with random weights and inputs, on which conformance checks run methods.
//!
//! A block computes `y = x + W_down (silu(W_gate n) * (W_up n))` with `n = g * x / rms(x)`. Everything an engine offers is computed for real,
//! gradients included.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::check::Steps;
use llmcb_plugin_api::sdk::{
    ActivationQuantization, Axis, BlockInfo, BlockInputs, CalibrationPlan, CheckpointInfo, Engine, Error,
    FedBy, GradientRequest, Gradients, Host, InputStatistics, Linear, LossGradient, ModelGradients,
    ModelInfo, Module, Norm, Parameter, QuantizedWeight, Result, StatisticsRequest, Structure, StructurePart,
    Tensor,
};

const EPSILON: f32 = 1e-6;

/// Names of the linears, in the order of the forward pass.
pub(crate) const GATE: &str = "mlp.gate_proj";
/// See [`GATE`].
pub(crate) const UP: &str = "mlp.up_proj";
/// See [`GATE`].
pub(crate) const DOWN: &str = "mlp.down_proj";
const NORM: &str = "input_layernorm";
/// What gate and up read; a site of quantised activations.
const INPUT: &str = "mlp_in";
/// What down reads; a site of quantised activations.
const MIDDLE: &str = "mlp_out";
const MODULE: &str = "mlp";
const CHANNELS: &str = "mlp.channels";

/// How the engine misbehaves, to see what a method makes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Not at all.
    #[default]
    Well,
    /// Every call but the description fails.
    Fails,
    /// Every call but the description panics.
    Panics,
}

/// How large everything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Blocks.
    pub(crate) blocks: u32,
    /// Width of the residual stream.
    pub(crate) hidden: usize,
    /// Width between the linears.
    pub(crate) inner: usize,
    /// Calibration windows.
    pub(crate) windows: usize,
    /// Tokens of each.
    pub(crate) window: usize,
    /// Blocks show neither linears nor anything else that could be compressed.
    pub(crate) bare: bool,
}

impl Default for Shape {
    /// As wide as the usual group of 128 columns, with more tokens than columns.
    fn default() -> Self {
        Shape { blocks: 2, hidden: 128, inner: 256, windows: 8, window: 48, bare: false }
    }
}

impl Shape {
    /// As wide as the usual one, with few tokens: for checks that run a method many times.
    pub(crate) fn quick() -> Self {
        Shape { windows: 4, window: 8, ..Shape::default() }
    }

    fn tokens(self) -> usize {
        self.windows * self.window
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shape { hidden, inner, windows, window, bare, .. } = self;
        if *bare {
            return write!(f, "blocks without linears");
        }
        write!(
            f,
            "linears [{inner}, {hidden}] and [{hidden}, {inner}], calibration {windows} x {window} tokens"
        )
    }
}

/// How the tensors that the engine hands out lie in memory. What lies between their elements is not a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Row after row without gaps.
    #[default]
    RowMajor,
    /// Column after column, from the fourth value on.
    ColumnMajor,
    /// Row after row with gaps between the rows, from the second value on.
    Padded,
    /// A gap after every element.
    Spread,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Layout::RowMajor => "row after row",
            Layout::ColumnMajor => "column after column",
            Layout::Padded => "with gaps between rows",
            Layout::Spread => "with gaps between elements",
        })
    }
}

impl Layout {
    /// The layouts that are not contiguous.
    pub(crate) const OTHERS: [Layout; 3] = [Layout::ColumnMajor, Layout::Padded, Layout::Spread];

    fn lay(self, values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
        let columns = shape.last().copied().unwrap_or(1);
        if self == Layout::RowMajor || values.is_empty() {
            return Tensor::from_vec(values, shape);
        }
        let rows = values.len() / columns;
        let (offset, across, along) = match self {
            Layout::ColumnMajor if shape.len() > 1 => (3, 1, rows),
            Layout::Padded => (1, columns + 5, 1),
            _ => (1, 2 * columns, 2),
        };
        let strides: Vec<i64> = [across as i64, along as i64][2 - shape.len()..].to_vec();
        let reach = offset + (rows - 1) * across + (columns - 1) * along;
        let mut place = vec![f32::NAN; reach + 1];
        for (i, value) in values.into_iter().enumerate() {
            place[offset + i / columns * across + i % columns * along] = value;
        }
        Tensor::strided(Arc::new(place), offset, shape, &strides)
    }
}

/// Where the model holds a value that is not a finite number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Poison {
    /// Nowhere.
    #[default]
    None,
    /// One weight of the first block.
    Weight(f32),
    /// One feature of one token.
    Input(f32),
}

impl Poison {
    /// How many weights are no finite numbers.
    pub(crate) fn weights(self) -> usize {
        usize::from(matches!(self, Poison::Weight(_)))
    }
}

/// What the synthetic model is made from.
#[derive(Clone, Default)]
pub(crate) struct SyntheticOptions {
    /// Seed of weights and inputs.
    pub(crate) seed: u64,
    /// How large it is.
    pub(crate) shape: Shape,
    /// How it misbehaves.
    pub(crate) mood: Mood,
    /// How its tensors lie in memory.
    pub(crate) layout: Layout,
    /// What is not a number in it.
    pub(crate) poison: Poison,
    /// Who counts the calls.
    pub(crate) steps: Arc<Steps>,
}

/// SplitMix64, and from it numbers that are nearly normally distributed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A whole number of `range`, which is not empty.
    pub(crate) fn within(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        range.start() + (self.next() % (range.end() - range.start() + 1) as u64) as usize
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

/// In sixteen sums side by side, which processors add at once: in the order of one sum they may not.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for (sum, (x, y)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += x * y;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
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

    fn zeros_like(&self) -> Self {
        Matrix::new(self.rows, self.columns, vec![0.0; self.values.len()])
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// `self other^T`: `[a, c] x [b, c] -> [a, b]`.
    fn times_transposed(&self, other: &Matrix) -> Matrix {
        let mut values = Vec::with_capacity(self.rows * other.rows);
        for a in 0..self.rows {
            for b in 0..other.rows {
                values.push(dot(self.row(a), other.row(b)));
            }
        }
        Matrix::new(self.rows, other.rows, values)
    }

    fn rows(&self, from: usize, count: usize) -> Matrix {
        let values = self.values[from * self.columns..(from + count) * self.columns].to_vec();
        Matrix::new(count, self.columns, values)
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

    fn mean_square(&self) -> f64 {
        let sum: f64 = self.values.iter().map(|d| f64::from(*d) * f64::from(*d)).sum();
        // The mean of nothing is no error.
        sum / self.values.len().max(1) as f64
    }

    fn tensor(self, layout: Layout) -> Result<Tensor> {
        layout.lay(self.values, &[self.rows, self.columns])
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
    fn random(random: &mut Random, hidden: usize, inner: usize) -> Self {
        let matrix = |random: &mut Random, rows: usize, columns: usize| {
            Matrix::new(rows, columns, random.normals(rows * columns, (columns as f32).powf(-0.5)))
        };
        Weights {
            norm: (0..hidden).map(|_| 0.5 + random.uniform()).collect(),
            gate: matrix(random, inner, hidden),
            up: matrix(random, inner, hidden),
            down: matrix(random, hidden, inner),
        }
    }

    fn zeros_like(&self) -> Self {
        Weights {
            norm: vec![0.0; self.norm.len()],
            gate: self.gate.zeros_like(),
            up: self.up.zeros_like(),
            down: self.down.zeros_like(),
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

    fn tensor(&self, name: &str, layout: Layout) -> Result<Tensor> {
        if name == NORM {
            return layout.lay(self.norm.clone(), &[self.norm.len()]);
        }
        self.linear(name).ok_or_else(|| unknown(name))?.clone().tensor(layout)
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

/// How the activations of sites are rounded.
type Rounding = BTreeMap<String, ActivationQuantization>;

/// What a forward pass leaves: what its linears read, and what comes out.
struct Pass {
    /// `1 / rms(x)` of each token.
    scales: Vec<f32>,
    normed: Matrix,
    gate: Matrix,
    up: Matrix,
    inner: Matrix,
    /// What the feed-forward part adds to its input.
    added: Matrix,
    output: Matrix,
}

fn round(mut matrix: Matrix, site: &str, rounding: &Rounding) -> Matrix {
    if let Some(quantization) = rounding.get(site).filter(|_| matrix.columns > 0) {
        matrix.values.chunks_mut(matrix.columns).for_each(|token| quantization.round(token));
    }
    matrix
}

fn normalise(norm: &[f32], inputs: &Matrix) -> (Vec<f32>, Matrix) {
    let mut scales = Vec::with_capacity(inputs.rows);
    let mut normed = Vec::with_capacity(inputs.values.len());
    for row in 0..inputs.rows {
        let x = inputs.row(row);
        let scale = (x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32 + EPSILON).sqrt().recip();
        normed.extend(x.iter().zip(norm).map(|(v, g)| v * scale * g));
        scales.push(scale);
    }
    (scales, Matrix::new(inputs.rows, inputs.columns, normed))
}

/// The feed-forward part on its own input: gate, up, their product, what it adds.
fn feed_forward(weights: &Weights, normed: &Matrix, rounding: &Rounding) -> [Matrix; 4] {
    let gate = normed.times_transposed(&weights.gate);
    let up = normed.times_transposed(&weights.up);
    let inner = round(gate.zip(&up, |g, u| silu(g) * u), MIDDLE, rounding);
    let added = inner.times_transposed(&weights.down);
    [gate, up, inner, added]
}

fn pass(weights: &Weights, inputs: &Matrix, rounding: &Rounding) -> Pass {
    let (scales, normed) = normalise(&weights.norm, inputs);
    let normed = round(normed, INPUT, rounding);
    let [gate, up, inner, added] = feed_forward(weights, &normed, rounding);
    let output = added.zip(inputs, |y, x| y + x);
    Pass { scales, normed, gate, up, inner, added, output }
}

/// Gradients with respect to the parameters and to the block's inputs. Rounding counts as the identity.
struct Slopes {
    weights: Weights,
    inputs: Matrix,
}

fn backward(weights: &Weights, pass: &Pass, inputs: &Matrix, d_output: &Matrix) -> Slopes {
    let by_weight = |d_out: &Matrix, read: &Matrix| d_out.transposed().times_transposed(&read.transposed());
    let d_inner = d_output.times_transposed(&weights.down.transposed());
    let d_up = d_inner.zip(&pass.gate, |d, g| d * silu(g));
    let d_gate = d_inner.zip(&pass.up, |d, u| d * u).zip(&pass.gate, |d, g| d * silu_slope(g));
    let d_normed = d_gate
        .times_transposed(&weights.gate.transposed())
        .zip(&d_up.times_transposed(&weights.up.transposed()), |a, b| a + b);
    let mut norm = vec![0.0; weights.norm.len()];
    let mut d_inputs = d_output.clone();
    for row in 0..inputs.rows {
        let (x, d, scale) = (inputs.row(row), d_normed.row(row), pass.scales[row]);
        let along: f32 = x.iter().zip(d).zip(&weights.norm).map(|((x, d), g)| x * d * g).sum();
        let shrink = along * scale * scale / x.len() as f32;
        let d_x = &mut d_inputs.values[row * x.len()..(row + 1) * x.len()];
        for i in 0..x.len() {
            norm[i] += d[i] * x[i] * scale;
            d_x[i] += scale * (d[i] * weights.norm[i] - x[i] * shrink);
        }
    }
    let weights = Weights {
        norm,
        gate: by_weight(&d_gate, &pass.normed),
        up: by_weight(&d_up, &pass.normed),
        down: by_weight(d_output, &pass.inner),
    };
    Slopes { weights, inputs: d_inputs }
}

/// Half the mean square of the last block's outputs, which stands for the loss of a model without a vocabulary; and its gradients with
/// respect to all blocks' weights.
fn loss_slopes(blocks: &[&Weights], mut inputs: Matrix) -> (f64, Vec<Weights>) {
    let mut passes = Vec::new();
    for weights in blocks {
        let pass = pass(weights, &inputs, &Rounding::new());
        let output = pass.output.clone();
        passes.push((weights, pass, inputs));
        inputs = output;
    }
    let values = inputs.values.len() as f32;
    let mut slope = inputs.zip(&inputs, |y, _| y / values);
    let mut all = Vec::new();
    for (weights, pass, inputs) in passes.iter().rev() {
        let slopes = backward(weights, pass, inputs, &slope);
        slope = slopes.inputs;
        all.insert(0, slopes.weights);
    }
    (inputs.mean_square() / 2.0, all)
}

/// The description of a block.
fn describe(index: u32, shape: Shape, weights: &Weights) -> BlockInfo {
    let linear = |name: &str, matrix: &Matrix, group: &str, fed_by: Option<FedBy>| Linear {
        name: name.into(),
        out_features: matrix.rows as u32,
        in_features: matrix.columns as u32,
        input_group: group.into(),
        bias: false,
        outputs: Vec::new(),
        fed_by,
    };
    let inner = weights.up.rows as u32;
    let part = |linear: &str, axis: Axis| StructurePart { linear: linear.into(), axis, first: 0, width: 1 };
    let all = BlockInfo {
        index,
        of: shape.blocks,
        windows: shape.windows as u32,
        linears: vec![
            linear(GATE, &weights.gate, INPUT, None),
            linear(UP, &weights.up, INPUT, None),
            linear(
                DOWN,
                &weights.down,
                MIDDLE,
                Some(FedBy { linear: UP.into(), first: 0, width: inner, repeats: 1 }),
            ),
        ],
        norms: vec![Norm {
            name: NORM.into(),
            size: shape.hidden as u32,
            bias: false,
            feeds: vec![GATE.into(), UP.into()],
        }],
        heads: 0,
        key_value_heads: 0,
        head_dim: 0,
        modules: vec![Module {
            name: MODULE.into(),
            input_group: INPUT.into(),
            linears: vec![GATE.into(), UP.into(), DOWN.into()],
        }],
        structures: vec![Structure {
            name: CHANNELS.into(),
            units: inner,
            parts: vec![part(GATE, Axis::Outputs), part(UP, Axis::Outputs), part(DOWN, Axis::Inputs)],
        }],
        activation_sites: vec![INPUT.into(), MIDDLE.into()],
    };
    if !shape.bare {
        return all;
    }
    BlockInfo {
        linears: Vec::new(),
        norms: Vec::new(),
        modules: Vec::new(),
        structures: Vec::new(),
        activation_sites: Vec::new(),
        ..all
    }
}

struct Open {
    index: u32,
    weights: Weights,
    rounding: Rounding,
    /// What the block's outputs are compared with.
    targets: Matrix,
}

/// The synthetic model.
pub(crate) struct Synthetic {
    options: SyntheticOptions,
    plan: CalibrationPlan,
    /// The dense blocks.
    blocks: Vec<Weights>,
    /// What the open block reads.
    inputs: Matrix,
    /// What it reads in the dense model.
    dense_inputs: Matrix,
    open: Option<Open>,
    /// What the first block reads.
    first: Matrix,
    /// Blocks that were closed.
    finished: Vec<Weights>,
}

impl Synthetic {
    pub(crate) fn new(options: SyntheticOptions) -> Self {
        let Shape { blocks, hidden, inner, .. } = options.shape;
        let mut random = Random(options.seed);
        let mut blocks: Vec<Weights> =
            (0..blocks).map(|_| Weights::random(&mut random, hidden, inner)).collect();
        // A few features are much louder than the others, as in real models; otherwise no method would gain from activations.
        let loud: Vec<f32> = (0..hidden).map(|i| if i % 17 == 3 { 8.0 } else { 1.0 }).collect();
        let tokens = options.shape.tokens();
        let values = random.normals(tokens * hidden, 1.0);
        let values = values.iter().enumerate().map(|(i, v)| v * loud[i % hidden]).collect();
        let mut inputs = Matrix::new(tokens, hidden, values);
        match options.poison {
            Poison::None => {}
            Poison::Weight(value) => {
                let weights = &mut blocks[0].up.values;
                let at = random.within(0..=weights.len() - 1);
                weights[at] = value;
            }
            Poison::Input(value) => {
                let at = random.within(0..=inputs.values.len() - 1);
                inputs.values[at] = value;
            }
        }
        Synthetic {
            options,
            plan: CalibrationPlan::default(),
            blocks,
            dense_inputs: inputs.clone(),
            first: inputs.clone(),
            inputs,
            open: None,
            finished: Vec::new(),
        }
    }

    /// What comes before every call of a method's.
    fn enter(&self, call: &str) -> Result<()> {
        let steps = &self.options.steps;
        if steps.is_aside() {
            return Ok(());
        }
        steps.of_engine(call)?;
        match self.options.mood {
            Mood::Well => Ok(()),
            Mood::Fails => Err(Error::failed(format!("{call} fails on purpose"))),
            Mood::Panics => panic!("{call} panics on purpose"),
        }
    }

    fn shape(&self) -> Shape {
        self.options.shape
    }

    fn layout(&self) -> Layout {
        self.options.layout
    }

    /// A block as it is: as it was left, or dense.
    fn present(&self, index: Option<u32>) -> Result<&Weights> {
        let at = index.map(|index| index as usize);
        let found = at.and_then(|at| self.finished.get(at).or_else(|| self.blocks.get(at)));
        found.ok_or_else(|| match index {
            Some(index) => Error::invalid(format!("the model has no block {index}")),
            None => Error::invalid("the synthetic model has nothing outside its blocks"),
        })
    }

    fn open(&self) -> Result<&Open> {
        self.open.as_ref().ok_or_else(|| Error::invalid("no block is open"))
    }

    fn open_mut(&mut self) -> Result<&mut Open> {
        self.open.as_mut().ok_or_else(|| Error::invalid("no block is open"))
    }

    /// Rows of some windows, one after the other; of all if none is named.
    fn windows_of(&self, read: &Matrix, windows: &[u32]) -> Result<Vec<Matrix>> {
        let Shape { windows: known, window: length, .. } = self.shape();
        let all: Vec<u32> = (0..known as u32).collect();
        let windows = if windows.is_empty() { &all } else { windows };
        let window = |w: &u32| match *w as usize {
            w if w < known => Ok(read.rows(w * length, length)),
            w => Err(Error::invalid(format!("there is no window {w}; there are {known}"))),
        };
        windows.iter().map(window).collect()
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
            |values: Vec<f64>| self.layout().lay(values.iter().map(|v| *v as f32).collect(), &[width]);
        let tokens = inputs.rows.max(1) as f64;
        let spacing = (inputs.rows / request.rows.max(1)).max(1);
        let sampled = || {
            let rows: Vec<&[f32]> = (0..inputs.rows).step_by(spacing).map(|row| inputs.row(row)).collect();
            self.layout().lay(rows.concat(), &[rows.len(), width])
        };
        let transposed = inputs.transposed();
        Ok(InputStatistics {
            linear: linear.to_owned(),
            tokens: inputs.rows as u64,
            sequences: self.shape().windows as u64,
            gram: request
                .gram
                .then(|| transposed.times_transposed(&transposed).tensor(self.layout()))
                .transpose()?,
            sum_squares: request.sum_squares.then(|| vector(columns(0.0, |s, x| s + x * x))).transpose()?,
            abs_max: request.abs_max.then(|| vector(columns(0.0, |s, x| s.max(x.abs())))).transpose()?,
            abs_mean: request
                .abs_mean
                .then(|| vector(columns(0.0, |s, x| s + x.abs()).iter().map(|s| s / tokens).collect()))
                .transpose()?,
            rows: (request.rows > 0).then(sampled).transpose()?,
        })
    }
}

impl Engine for Synthetic {
    type Options = ();

    fn open(_: &Path, _: (), _: &Host) -> Result<Self> {
        Ok(Synthetic::new(SyntheticOptions::default()))
    }

    fn model(&self) -> ModelInfo {
        let Shape { blocks, hidden, inner, .. } = self.shape();
        ModelInfo {
            architecture: "Synthetic".into(),
            parameters: u64::from(blocks) * (3 * hidden * inner + hidden) as u64,
            blocks,
            hidden_size: hidden as u32,
            compute: "f32".into(),
            device: "cpu".into(),
            ..ModelInfo::default()
        }
    }

    fn encode(&self, texts: &[String], _: bool) -> Result<Vec<Vec<u32>>> {
        Ok(texts.iter().map(|text| text.bytes().map(u32::from).collect()).collect())
    }

    fn calibrate(&mut self, _: &[Vec<u32>], plan: &CalibrationPlan) -> Result<()> {
        self.plan = *plan;
        Ok(())
    }

    fn open_block(&mut self, index: u32) -> Result<BlockInfo> {
        let weights = self
            .blocks
            .get(index as usize)
            .cloned()
            .ok_or_else(|| Error::invalid(format!("the model has no block {index}")))?;
        let read = if self.plan.dense_targets { &self.dense_inputs } else { &self.inputs };
        let targets = pass(&weights, read, &Rounding::new()).output;
        self.open = Some(Open { index, weights, rounding: Rounding::new(), targets });
        self.block_info()
    }

    fn block_info(&self) -> Result<BlockInfo> {
        let open = self.open()?;
        Ok(describe(open.index, self.shape(), &open.weights))
    }

    fn weight(&self, name: &str) -> Result<Tensor> {
        self.enter("weight")?;
        self.open()?.weights.tensor(name, self.layout())
    }

    fn set_weight(&mut self, name: &str, weight: Tensor) -> Result<()> {
        self.enter("set_weight")?;
        let values = weight.to_f32()?;
        let open = self.open_mut()?;
        open.weights.set(name, values)
    }

    fn set_quantized(&mut self, name: &str, weight: QuantizedWeight) -> Result<()> {
        self.enter("set_quantized")?;
        let open = self.open_mut()?;
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
        self.enter("input_statistics")?;
        let open = self.open()?;
        let pass = if request.dense_model {
            let dense = self.blocks.get(open.index as usize).ok_or_else(|| Error::failed("no such block"))?;
            pass(dense, &self.dense_inputs, &Rounding::new())
        } else {
            pass(&open.weights, &self.inputs, &open.rounding)
        };
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
        self.enter("forward")?;
        pass(&self.with_trial(trial)?, &self.inputs, &self.open()?.rounding).output.tensor(self.layout())
    }

    fn output_error(&mut self, trial: &[(String, Tensor)]) -> Result<f64> {
        self.enter("output_error")?;
        let open = self.open()?;
        let output = pass(&self.with_trial(trial)?, &self.inputs, &open.rounding).output;
        Ok(output.zip(&open.targets, |a, b| a - b).mean_square())
    }

    fn gradients(&mut self, request: &GradientRequest) -> Result<Gradients> {
        self.enter("gradients")?;
        let open = self.open()?;
        let weights = self.with_trial(&request.trial)?;
        let joined = |read: &Matrix| -> Result<Matrix> {
            let windows = self.windows_of(read, &request.windows)?;
            let rows = windows.iter().map(|window| window.rows).sum();
            let values: Vec<&[f32]> = windows.iter().map(|window| window.values.as_slice()).collect();
            Ok(Matrix::new(rows, read.columns, values.concat()))
        };
        let (inputs, targets) = (joined(&self.inputs)?, joined(&open.targets)?);
        let pass = pass(&weights, &inputs, &open.rounding);
        let difference = pass.output.zip(&targets, |a, b| a - b);
        let count = difference.values.len() as f32;
        let slopes =
            backward(&weights, &pass, &inputs, &difference.zip(&difference, |d, _| 2.0 * d / count)).weights;
        let gradient = |name: &String| -> Result<(String, Tensor)> {
            Ok((name.clone(), slopes.tensor(name, self.layout())?))
        };
        let gradients = request.parameters.iter().map(gradient).collect::<Result<_>>()?;
        Ok(Gradients { error: difference.mean_square(), gradients })
    }

    fn module_error(&mut self, module: &str, trial: &[(String, Tensor)]) -> Result<f64> {
        self.enter("module_error")?;
        if module != MODULE {
            return Err(Error::invalid(format!("a block has no module `{module}`; it has {MODULE}")));
        }
        let open = self.open()?;
        let present = pass(&open.weights, &self.inputs, &open.rounding);
        let [.., added] = feed_forward(&self.with_trial(trial)?, &present.normed, &open.rounding);
        Ok(added.zip(&present.added, |a, b| a - b).mean_square())
    }

    fn quantize_activations(
        &mut self,
        site: &str,
        quantization: Option<ActivationQuantization>,
    ) -> Result<()> {
        self.enter("quantize_activations")?;
        if ![INPUT, MIDDLE].contains(&site) {
            return Err(Error::invalid(format!(
                "a block has no activations `{site}`; it has {INPUT}, {MIDDLE}"
            )));
        }
        let rounding = &mut self.open_mut()?.rounding;
        match quantization {
            Some(quantization) => rounding.insert(site.into(), quantization),
            None => rounding.remove(site),
        };
        Ok(())
    }

    fn loss_gradients(
        &mut self,
        linears: &[String],
        mean_square: bool,
        windows: &[u32],
    ) -> Result<Vec<LossGradient>> {
        self.enter("loss_gradients")?;
        let blocks: Vec<&Weights> = self.blocks[self.open()?.index as usize..].iter().collect();
        let windows: Vec<Weights> = self
            .windows_of(&self.dense_inputs, windows)?
            .into_iter()
            .map(|inputs| loss_slopes(&blocks, inputs).1.swap_remove(0))
            .collect();
        let share = 1.0 / windows.len() as f32;
        let like = blocks[0];
        linears
            .iter()
            .map(|name| {
                let zeros = like.linear(name).ok_or_else(|| unknown(name))?.zeros_like();
                let (mut gradient, mut squares) = (zeros.clone(), zeros);
                for window in windows.iter().filter_map(|w| w.linear(name)) {
                    gradient = gradient.zip(window, |sum, g| sum + g * share);
                    squares = squares.zip(window, |sum, g| sum + g * g * share);
                }
                Ok(LossGradient {
                    linear: name.clone(),
                    gradient: gradient.tensor(self.layout())?,
                    mean_square: mean_square.then(|| squares.tensor(self.layout())).transpose()?,
                })
            })
            .collect()
    }

    fn keep_units(&mut self, structure: &str, units: &[u32]) -> Result<()> {
        self.enter("keep_units")?;
        let weights = &mut self.open_mut()?.weights;
        if structure != CHANNELS {
            return Err(Error::invalid(format!("a block has no units `{structure}`; it has {CHANNELS}")));
        }
        let known = weights.up.rows as u32;
        if units.is_empty() || !units.is_sorted_by(|a, b| a < b) || units.iter().any(|u| *u >= known) {
            return Err(Error::invalid(format!(
                "units to keep must ascend, be at least one, and below {known}"
            )));
        }
        let rows = |matrix: &Matrix| {
            let values = units.iter().flat_map(|u| matrix.row(*u as usize).to_vec()).collect();
            Matrix::new(units.len(), matrix.columns, values)
        };
        weights.gate = rows(&weights.gate);
        weights.up = rows(&weights.up);
        weights.down = rows(&weights.down.transposed()).transposed();
        Ok(())
    }

    fn close_block(&mut self) -> Result<()> {
        let open = self.open.take().ok_or_else(|| Error::invalid("no block is open"))?;
        let dense = &self.blocks[open.index as usize];
        self.finished.truncate(open.index as usize);
        self.dense_inputs = pass(dense, &self.dense_inputs, &Rounding::new()).output;
        self.inputs = match self.plan.inputs {
            BlockInputs::Compressed => pass(&open.weights, &self.inputs, &open.rounding).output,
            BlockInputs::Dense => self.dense_inputs.clone(),
        };
        self.finished.push(open.weights);
        Ok(())
    }

    fn model_block(&self, index: u32) -> Result<BlockInfo> {
        self.enter("model_block")?;
        Ok(describe(index, self.shape(), self.present(Some(index))?))
    }

    fn model_weight(&self, parameter: &Parameter) -> Result<Tensor> {
        self.enter("model_weight")?;
        self.present(parameter.block)?.tensor(&parameter.name, self.layout())
    }

    fn set_model_weight(&mut self, parameter: &Parameter, weight: Tensor) -> Result<()> {
        self.enter("set_model_weight")?;
        let index = parameter.block.map(|index| index as usize);
        match index.and_then(|index| self.finished.get_mut(index)) {
            Some(weights) => weights.set(&parameter.name, weight.to_f32()?),
            None => Err(Error::invalid(format!("{parameter}: only finished blocks can be changed"))),
        }
    }

    fn model_gradients(&mut self, parameters: &[Parameter], windows: &[u32]) -> Result<ModelGradients> {
        self.enter("model_gradients")?;
        let blocks = (0..self.shape().blocks)
            .map(|index| self.present(Some(index)))
            .collect::<Result<Vec<&Weights>>>()?;
        let windows: Vec<(f64, Vec<Weights>)> = self
            .windows_of(&self.first, windows)?
            .into_iter()
            .map(|inputs| loss_slopes(&blocks, inputs))
            .collect();
        let share = 1.0 / windows.len().max(1) as f32;
        let loss = windows.iter().map(|(loss, _)| loss).sum::<f64>() * f64::from(share);
        let gradients = parameters
            .iter()
            .map(|parameter| {
                let like =
                    self.present(parameter.block)?.zeros_like().tensor(&parameter.name, Layout::RowMajor)?;
                let index = parameter.block.unwrap_or_default() as usize;
                let mut sum = like.to_f32()?;
                for (_, slopes) in &windows {
                    let part = slopes[index].tensor(&parameter.name, Layout::RowMajor)?.to_f32()?;
                    sum.iter_mut().zip(part).for_each(|(sum, g)| *sum += g * share);
                }
                self.layout().lay(sum, &like.shape())
            })
            .collect::<Result<_>>()?;
        Ok(ModelGradients { loss, gradients })
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
        let mut engine = Synthetic::new(SyntheticOptions { seed, ..SyntheticOptions::default() });
        engine.open_block(0).unwrap();
        engine
    }

    const HIDDEN: usize = 128;
    const INNER: usize = 256;
    const WINDOWS: usize = 8;
    const TOKENS: usize = WINDOWS * 48;

    #[test]
    fn the_same_seed_gives_the_same_model() {
        let weights = |seed| opened(seed).weight(UP).unwrap().to_f32().unwrap();
        assert_eq!(weights(1), weights(1));
        assert_ne!(weights(1), weights(2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6))]

        #[test]
        fn gradients_agree_with_differences(seed in 0u64..1000, which in 0usize..4, at in 0usize..HIDDEN * INNER) {
            let mut engine = opened(seed);
            let name = [GATE, UP, DOWN, NORM][which];
            let at = if name == NORM { at % HIDDEN } else { at };
            let weight = engine.weight(name).unwrap();
            let shape = weight.shape();
            let mut values = weight.to_f32().unwrap();
            // Away from the minimum, where the gradient is zero.
            for v in &mut values { *v *= 0.5; }
            let trial = |values: &[f32]| vec![(name.to_owned(), Tensor::from_vec(values.to_vec(), &shape).unwrap())];
            let answer = engine.gradients(&GradientRequest::of([name]).at(trial(&values))).unwrap();
            prop_assert!((answer.error - engine.output_error(&trial(&values)).unwrap()).abs() < 1e-9);
            let gradient = answer.gradients[0].1.to_f32().unwrap()[at];
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
        let request = StatisticsRequest::of([GATE, DOWN]).gram().sum_squares().magnitudes().rows(5);
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
            assert_eq!(statistics.rows.unwrap().shape(), [TOKENS.div_ceil(TOKENS / 5), width]);
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

    #[test]
    fn gradients_of_all_windows_are_the_mean_of_those_of_each() {
        let mut engine = opened(2);
        let mut gradient = |windows: std::ops::Range<u32>| {
            let trial = vec![(NORM.to_owned(), Tensor::from_vec(vec![0.5f32; HIDDEN], &[HIDDEN]).unwrap())];
            let request = GradientRequest::of([UP]).at(trial).windows(windows);
            engine.gradients(&request).unwrap().gradients[0].1.to_f32().unwrap()
        };
        let all = gradient(0..WINDOWS as u32);
        let parts: Vec<Vec<f32>> = (0..WINDOWS as u32).map(|w| gradient(w..w + 1)).collect();
        for (i, whole) in all.iter().enumerate().step_by(997) {
            let mean = parts.iter().map(|p| p[i]).sum::<f32>() / WINDOWS as f32;
            assert!((whole - mean).abs() <= 1e-5 * (1.0 + whole.abs()), "{whole} {mean}");
        }
    }

    #[test]
    fn the_loss_falls_along_its_gradient() {
        let loss = |engine: &Synthetic| {
            let mut inputs = engine.inputs.clone();
            for weights in &engine.blocks {
                inputs = pass(weights, &inputs, &Rounding::new()).output;
            }
            inputs.mean_square() / 2.0
        };
        let mut engine = opened(4);
        let gradient = engine.loss_gradients(&[GATE.to_owned()], true, &[]).unwrap().remove(0);
        let (slope, squares) =
            (gradient.gradient.to_f32().unwrap(), gradient.mean_square.unwrap().to_f32().unwrap());
        // The mean of squares is at least the square of the mean.
        assert!(slope.iter().zip(&squares).all(|(g, s)| s * 1.01 + 1e-12 >= g * g));
        let before = loss(&engine);
        let step = 1e-2 / slope.iter().map(|g| g * g).sum::<f32>().sqrt();
        for (w, g) in engine.blocks[0].gate.values.iter_mut().zip(&slope) {
            *w -= step * g;
        }
        let expected = f64::from(step) * slope.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
        let fallen = before - loss(&engine);
        assert!((fallen - expected).abs() < 0.2 * expected, "{fallen} {expected}");
    }

    #[test]
    fn removed_channels_take_their_part_of_the_output_with_them() {
        let mut engine = opened(6);
        let mut down = engine.open().unwrap().weights.down.clone();
        for row in down.values.chunks_mut(INNER) {
            row[INNER / 2..].fill(0.0);
        }
        let expected = engine
            .module_error(MODULE, &[(DOWN.to_owned(), down.tensor(Layout::RowMajor).unwrap())])
            .unwrap();
        let present = pass(&engine.open().unwrap().weights, &engine.inputs, &Rounding::new()).added;
        let kept: Vec<u32> = (0..INNER as u32 / 2).collect();
        engine.keep_units(CHANNELS, &kept).unwrap();
        let info = engine.block_info().unwrap();
        assert_eq!(info.structures[0].units, INNER as u32 / 2);
        assert_eq!(engine.weight(DOWN).unwrap().shape(), [HIDDEN, INNER / 2]);
        let now = pass(&engine.open().unwrap().weights, &engine.inputs, &Rounding::new()).added;
        assert!((now.zip(&present, |a, b| a - b).mean_square() - expected).abs() < 1e-6);
        assert!(engine.keep_units(CHANNELS, &[3, 3]).is_err() && engine.keep_units(CHANNELS, &[]).is_err());
    }

    #[test]
    fn rounded_activations_change_the_output() {
        let mut engine = opened(7);
        engine.quantize_activations(MIDDLE, Some(ActivationQuantization::dynamic(4, true))).unwrap();
        let four = engine.output_error(&[]).unwrap();
        engine.quantize_activations(MIDDLE, Some(ActivationQuantization::dynamic(8, true))).unwrap();
        let eight = engine.output_error(&[]).unwrap();
        engine.quantize_activations(MIDDLE, None).unwrap();
        assert!(four > 50.0 * eight && eight > 0.0 && engine.output_error(&[]).unwrap() == 0.0);
        assert!(engine.quantize_activations("nowhere", None).is_err());
    }
}
