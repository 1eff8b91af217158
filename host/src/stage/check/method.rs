//! Checks of methods, on a synthetic model whose shape, layout and numbers are what real ones seldom are.

use llmcb_plugin_api::loader::{EngineHandle, LoadedPlugin};
use llmcb_plugin_api::sdk::{Error, ErrorKind, Parameter, PluginKind, Result};

use super::subject::{Bits, Terms, bits_of, difference};
use super::{Checked, Given, Outcome, fail, open, skip};
use crate::stage::synthetic::{Layout, Mood, Poison, Random, Shape, Synthetic, SyntheticOptions};

/// A weight as a method left it.
struct Weight {
    place: String,
    expected: [usize; 2],
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// All weights of the model as a method left them.
pub(super) struct Compressed {
    weights: Vec<Weight>,
    /// Mean squared error of the last block's output.
    error: f64,
}

impl Compressed {
    /// What is wrong with the weights. So many may be no finite numbers.
    fn fault(&self, mut pardoned: usize) -> Option<String> {
        self.weights.iter().find_map(|Weight { place, expected, shape, values }| {
            if shape != expected {
                return Some(format!(
                    "{place} has the shape {shape:?} afterwards, the block says {expected:?}"
                ));
            }
            let bad: Vec<&f32> = values.iter().filter(|v| !v.is_finite()).collect();
            let unpardoned = bad.get(pardoned).copied();
            pardoned = pardoned.saturating_sub(bad.len());
            let bad = unpardoned?;
            Some(format!("{place} has a weight of {bad} afterwards"))
        })
    }

    pub(super) fn bits(&self) -> Bits {
        self.weights.iter().map(|weight| (weight.place.clone(), bits_of(&weight.values))).collect()
    }
}

/// Compresses the synthetic model as the host compresses others.
pub(super) fn compress(plugin: &LoadedPlugin, model: &SyntheticOptions, terms: &Terms) -> Result<Compressed> {
    let steps = &terms.steps;
    let made = terms.options(plugin, "method").and_then(|options| plugin.new_method(&options, terms.host()));
    terms.meet();
    let mut method = steps.obeyed("new", made)?;
    let blocks = model.shape.blocks;
    let mut engine = EngineHandle::in_process(Synthetic::new(SyntheticOptions {
        steps: std::sync::Arc::clone(steps),
        ..model.clone()
    }));
    engine.calibrate(&[vec![0; 4]], &plugin.descriptor().needs.plan)?;
    steps.obeyed("prepare", method.prepare(&mut engine, blocks))?;
    let mut error = 0.0;
    for index in 0..blocks {
        let info = engine.open_block(index)?;
        steps.obeyed("compress_block", method.compress_block(&mut engine, &info))?;
        let info = engine.block_info()?;
        error = steps.aside(|| engine.block(info).output_error(Vec::new()))?;
        engine.close_block()?;
    }
    steps.obeyed("finish", method.finish(&mut engine, blocks))?;
    let weights = steps.aside(|| weights(&mut engine, blocks))?;
    Ok(Compressed { weights, error })
}

fn weights(engine: &mut EngineHandle, blocks: u32) -> Result<Vec<Weight>> {
    let model = engine.whole(blocks);
    let mut all = Vec::new();
    for index in 0..blocks {
        for linear in &model.block(index)?.linears {
            let weight = model.weight(&Parameter::of_block(index, &linear.name))?;
            all.push(Weight {
                place: format!("{} of block {index}", linear.name),
                expected: linear.shape(),
                shape: weight.shape(),
                values: weight.to_f32()?,
            });
        }
    }
    Ok(all)
}

/// The plugin, if it is a method.
fn method(given: &Given) -> Result<LoadedPlugin, Outcome> {
    let plugin = open(&given.path)?;
    match plugin.descriptor().kind {
        PluginKind::Method => Ok(plugin),
        _ => Err(skip("only for methods")),
    }
}

fn usual(given: &Given) -> SyntheticOptions {
    SyntheticOptions { seed: given.seed, ..SyntheticOptions::default() }
}

/// A tiny model is compressed.
pub(super) fn compresses(given: &Given) -> Checked {
    let plugin = method(given)?;
    match compress(&plugin, &usual(given), &Terms::new(given)) {
        Ok(compressed) => match compressed.fault(0) {
            Some(fault) => Err(fail(fault)),
            None => Ok(format!("mean squared error of the last block's output {:.3e}", compressed.error)),
        },
        Err(error) if error.kind() == ErrorKind::Unsupported => Err(skip(error)),
        Err(error) => Err(fail(error)),
    }
}

/// Each model is compressed to finite weights of the right shape, or refused with an ordinary error.
fn each_compressed_or_refused(
    given: &Given,
    models: impl IntoIterator<Item = (String, SyntheticOptions)>,
) -> Checked {
    let plugin = method(given)?;
    let (mut compressed, mut refused) = (0, Vec::new());
    for (what, model) in models {
        match compress(&plugin, &model, &Terms::new(given)) {
            Ok(done) => match done.fault(model.poison.weights()) {
                Some(fault) => return Err(fail(format!("{what}: {fault}"))),
                None => compressed += 1,
            },
            Err(error) => {
                refusal(&error).map_err(|fault| fail(format!("{what}: {fault}")))?;
                refused.push(format!("{what}: {error}"));
            }
        }
    }
    let seen = format!("{compressed} compressed, {} refused", refused.len());
    Ok(match refused.first() {
        Some(first) => format!("{seen}: {first}"),
        None => seen,
    })
}

/// Whether an error is one that a person can make something of.
pub(super) fn refusal(error: &Error) -> Result<(), String> {
    match error.kind() {
        ErrorKind::Panicked => Err(error.to_string()),
        ErrorKind::Cancelled => Err("it says that it was cancelled, which nobody asked for".into()),
        _ if error.message().trim().is_empty() => Err("it is refused without a word".into()),
        _ => Ok(()),
    }
}

fn shapes(given: &Given, shapes: impl IntoIterator<Item = Shape>) -> Checked {
    let model = |shape| SyntheticOptions { shape, ..usual(given) };
    each_compressed_or_refused(given, shapes.into_iter().map(|shape| (shape.to_string(), model(shape))))
}

/// Nothing where something is expected.
pub(super) fn nothing(given: &Given) -> Checked {
    let quick = Shape::quick();
    shapes(
        given,
        [
            Shape { windows: 0, ..quick },
            Shape { inner: 0, ..quick },
            Shape { windows: 0, inner: 0, ..quick },
            Shape { bare: true, ..quick },
        ],
    )
}

/// One where many are expected.
pub(super) fn one(given: &Given) -> Checked {
    let quick = Shape::quick();
    shapes(
        given,
        [
            Shape { hidden: 1, inner: 1, ..quick },
            Shape { hidden: 1, ..quick },
            Shape { inner: 1, ..quick },
            Shape { windows: 1, window: 1, ..quick },
            Shape { blocks: 1, hidden: 1, inner: 1, windows: 1, window: 1, bare: false },
        ],
    )
}

/// Widths that no group divides.
pub(super) fn uneven(given: &Given) -> Checked {
    let mut random = Random(given.seed);
    let drawn: Vec<Shape> = (0..4)
        .map(|_| Shape {
            blocks: random.within(1..=3) as u32,
            hidden: 2 * random.within(2..=100) + 1,
            inner: 2 * random.within(2..=150) + 1,
            windows: random.within(1..=5),
            window: random.within(1..=9),
            bare: false,
        })
        .collect();
    shapes(given, drawn)
}

/// More weights than fit on a thread's stack, or than 16 bits can count.
pub(super) fn large(given: &Given) -> Checked {
    let mut random = Random(given.seed);
    let (hidden, inner) = (128 * random.within(4..=6), 128 * random.within(12..=14));
    shapes(given, [Shape { blocks: 1, hidden, inner, windows: 2, window: 12, bare: false }])
}

/// Tensors that are not contiguous.
pub(super) fn strided(given: &Given) -> Checked {
    let plugin = method(given)?;
    let model = SyntheticOptions { shape: Shape::quick(), ..usual(given) };
    let contiguous = compress(&plugin, &model, &Terms::new(given)).map_err(skip)?.bits();
    let mut refused = Vec::new();
    for layout in Layout::OTHERS {
        match compress(&plugin, &SyntheticOptions { layout, ..model.clone() }, &Terms::new(given)) {
            Ok(compressed) => {
                if let Some(difference) = difference(&contiguous, &compressed.bits()) {
                    return Err(fail(format!(
                        "tensors laid out {layout} give other weights than contiguous ones: {difference}"
                    )));
                }
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => refused.push(error.to_string()),
            Err(error) => return Err(fail(format!("tensors laid out {layout}: {error}"))),
        }
    }
    match refused.first() {
        Some(first) => Ok(format!("{} of {} layouts refused: {first}", refused.len(), Layout::OTHERS.len())),
        None => Ok(String::new()),
    }
}

/// Weights and activations that are not finite numbers. A weight that came in so may stay so: the host finds it.
pub(super) fn not_a_number(given: &Given) -> Checked {
    let kinds = [
        ("a weight of NaN", Poison::Weight(f32::NAN)),
        ("an infinite weight", Poison::Weight(f32::INFINITY)),
        ("an activation of NaN", Poison::Input(f32::NAN)),
        ("an infinite activation", Poison::Input(f32::NEG_INFINITY)),
    ];
    let model = |poison| SyntheticOptions { poison, shape: Shape::quick(), ..usual(given) };
    each_compressed_or_refused(given, kinds.map(|(what, poison)| (what.to_owned(), model(poison))))
}

/// An engine's error comes back.
pub(super) fn engine_errors(given: &Given) -> Checked {
    let plugin = method(given)?;
    match compress(&plugin, &SyntheticOptions { mood: Mood::Fails, ..usual(given) }, &Terms::new(given)) {
        Ok(_) => Err(skip("the method asks nothing of the engine")),
        Err(error) if error.kind() == ErrorKind::Panicked => Err(fail(error)),
        Err(error) if error.message().contains("on purpose") => Ok(String::new()),
        Err(error) => Err(fail(format!("the engine's message is lost: {error}"))),
    }
}

/// A block whose linears the engine does not know is an error, not a panic.
pub(super) fn wrong_names(given: &Given) -> Checked {
    let plugin = method(given)?;
    let terms = Terms::new(given);
    let options = terms.options(&plugin, "method").map_err(fail)?;
    let mut method = plugin.new_method(&options, terms.host()).map_err(fail)?;
    let mut engine = EngineHandle::in_process(Synthetic::new(usual(given)));
    engine.calibrate(&[vec![0; 4]], &plugin.descriptor().needs.plan).map_err(fail)?;
    let mut info = engine.open_block(0).map_err(fail)?;
    for linear in &mut info.linears {
        linear.name = format!("no.such.{}", linear.name);
    }
    match method.compress_block(&mut engine, &info) {
        Ok(()) => Err(fail("linears that do not exist were compressed without an error")),
        Err(error) if error.kind() == ErrorKind::Panicked => Err(fail(error)),
        Err(_) => Ok(String::new()),
    }
}

/// A panic in the engine under a method's call, and the plugin afterwards.
pub(super) fn survives_panics(given: &Given, plugin: &LoadedPlugin) -> Checked {
    let model = |mood| SyntheticOptions { mood, shape: Shape::quick(), ..usual(given) };
    let run = |mood| compress(plugin, &model(mood), &Terms::new(given));
    if run(Mood::Panics).is_ok() {
        return Ok("the method asks nothing of the engine".into());
    }
    match run(Mood::Well) {
        Err(error) if error.kind() != ErrorKind::Unsupported => {
            Err(fail(format!("after a panic it no longer works: {error}")))
        }
        _ => Ok(String::new()),
    }
}
