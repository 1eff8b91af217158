//! What a plan will take: time, memory and disk of each stage, from earlier runs on this machine where there were such, else roughly.

mod history;
mod size;

pub use history::{History, Timing};
pub use size::Size;

use super::facts::Facts;
use super::machine;
use super::plan::{Plan, PlannedStage, model_name};
use super::result::StageKind;
use super::spec::Suite;

/// Operations that a core does in a second where nothing was measured yet: half of what a modern core with wide vectors reaches in products
/// of matrices.
const ROUGH_OPERATIONS: f64 = 3e10;
/// Weights that a method looks at in a second and core where it needs no calibration.
const ROUGH_WEIGHTS: f64 = 2e7;
/// Passes over the calibration text that compressing costs, a method's own arithmetic included.
const ROUGH_PASSES: f64 = 8.0;
/// The same where gradients are needed.
const ROUGH_GRADIENT_PASSES: f64 = 40.0;
/// Bytes of a parameter in the embedded backend's arithmetic.
const BYTES: f64 = 4.0;
/// Tokens of a large vocabulary: the headers of a model's files do not always say.
const ROUGH_VOCABULARY: f64 = 128_256.0;
/// Windows on which gradients of the loss are taken.
const ROUGH_GRADIENT_WINDOWS: usize = 10;
/// Tokens that run at once.
const ROUGH_BATCH: f64 = 4096.0;
/// Memory of a process before it holds a model.
const BASE_MEMORY: f64 = 100e6;

/// What a stage will take. What is not known is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Wall-clock seconds.
    pub seconds: Option<f64>,
    /// Peak of memory, in bytes.
    pub memory_bytes: Option<f64>,
    /// Bytes that it leaves on disk.
    pub disk_bytes: Option<f64>,
    /// Whether its time follows from earlier stages of its kind on this machine.
    pub measured: bool,
    /// Whether weights are read from disk again and again, because they do not fit.
    pub streams: bool,
}

/// How much a stage does: parameters times tokens. One measure serves for writing down what stages took, and for telling what they will take.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Amount {
    /// Kind of stage and plugin: what takes equally long for equal work.
    pub(super) what: String,
    /// The same with what decides sizes: bits and format.
    pub(super) form: String,
    /// Tokens that pass through the model, 1 for work on weights alone; absent where a task's data are not here.
    pub(super) tokens: Option<f64>,
    /// Tokens of a window whose distributions are held at once.
    window: usize,
    /// Whether it needs gradients.
    gradients: bool,
    /// Bits of the codes that it makes, where it makes any.
    bits: Option<f64>,
    /// Whether its backend can do with one block's weights in memory.
    streams: bool,
}

impl Amount {
    /// The work of a planned stage; nothing where its plugins do not answer.
    pub(super) fn of(suite: &Suite, facts: &Facts, stage: &PlannedStage) -> Option<Amount> {
        let method = match stage.method {
            Some(m) => Some(facts.methods[m].as_ref().ok()?),
            None => None,
        };
        let options = method.and_then(|m| m.options.get("method"));
        let bits = options.and_then(|o| o.get("bits")).and_then(serde_json::Value::as_f64);
        let id = method.map_or("dense", |m| m.descriptor.id.as_str());
        let (mut gradients, mut window) = (false, 0);
        let streams;
        let (what, tokens) = match stage.kind {
            StageKind::Compress => {
                streams = matches!(&facts.engine, Some(Ok((_, engine))) if engine.descriptor.streams_weights);
                let needs = &method?.descriptor.needs;
                gradients = needs.gradients;
                let c = &suite.calibration;
                let tokens = if needs.calibration { (c.windows * c.length) as f64 } else { 1.0 };
                (format!("compress {id}"), Some(tokens))
            }
            StageKind::Evaluate => {
                let backend = facts.backends[stage.backend?].as_ref().ok()?;
                let task = facts.tasks[stage.task?].as_ref().ok()?;
                streams = backend.descriptor.streams_weights;
                (format!("evaluate {}", backend.descriptor.id), task.at_hand.then_some(task.tokens as f64))
            }
            StageKind::Diverge => {
                let backend = facts.backends[stage.backend?].as_ref().ok()?;
                // Every window passes through two models.
                let task = facts.tasks[stage.task?].as_ref().ok()?;
                window = task.seqlen.unwrap_or_default();
                streams = backend.descriptor.streams_weights;
                (
                    format!("diverge {}", backend.descriptor.id),
                    task.at_hand.then_some(2.0 * task.tokens as f64),
                )
            }
            // What a metric takes is nothing beside what a model does.
            StageKind::Score => return None,
            StageKind::Profile => {
                let backend = facts.backends[stage.backend?].as_ref().ok()?;
                streams = backend.descriptor.streams_weights;
                let w = &suite.workloads[stage.workload?];
                let runs = f64::from(w.warm_up) + f64::from(w.repetitions);
                let tokens = (w.batch * (w.prompt_tokens + w.new_tokens)) as f64 * runs;
                (format!("profile {}", backend.descriptor.id), Some(tokens))
            }
        };
        let format = suite.format.as_deref().unwrap_or("own");
        let form = format!("{what} {id} {} {format}", bits.map_or_else(|| "-".to_owned(), |b| b.to_string()));
        Some(Amount {
            what,
            form,
            tokens: tokens.map(|tokens: f64| tokens.max(1.0)),
            window,
            gradients,
            bits,
            streams,
        })
    }

    fn rough(&self, kind: StageKind, size: &Size, suite: &Suite, threads: usize) -> Estimate {
        let parameters = size.parameters as f64;
        let cores = threads.max(1) as f64;
        let tokens = self.tokens.unwrap_or(f64::NAN);
        let pass = 2.0 * parameters * tokens / (ROUGH_OPERATIONS * cores);
        let dense = BYTES * parameters + BASE_MEMORY;
        let stored = self.bits.map_or(BYTES, |bits| bits / 8.0 * 1.1) * parameters;
        match kind {
            StageKind::Compress => {
                let passes = if self.gradients { ROUGH_GRADIENT_PASSES } else { ROUGH_PASSES };
                let seconds = if tokens > 1.0 { pass * passes } else { parameters / (ROUGH_WEIGHTS * cores) };
                let windows = (suite.calibration.windows * suite.calibration.length * size.hidden) as f64;
                let activations = if tokens > 1.0 { 3.0 * BYTES * windows } else { 0.0 };
                // The matrices of a method that solves for weights, in double precision: of the widest input.
                let widest = size.intermediate.max(size.hidden) as f64;
                let solver = if tokens > 1.0 { 4.0 * 8.0 * widest * widest } else { 0.0 };
                // As it was and as it becomes; gradients need the model's outputs of every block, and its head.
                let block = 2.0 * BYTES * parameters / size.blocks.max(1) as f64;
                let few =
                    (suite.calibration.windows.min(ROUGH_GRADIENT_WINDOWS) * suite.calibration.length) as f64;
                let outputs = BYTES * few * size.hidden as f64 * size.blocks as f64;
                let whole = if self.gradients { outputs } else { 0.0 };
                let by_block = block + solver + activations + whole + BASE_MEMORY;
                let by_model = dense + activations;
                Estimate {
                    seconds: Some(seconds),
                    memory_bytes: Some(if self.streams && size.blocks > 0 { by_block } else { by_model }),
                    disk_bytes: Some(stored),
                    ..Estimate::default()
                }
            }
            StageKind::Diverge => Estimate {
                seconds: Some(pass).filter(|seconds| seconds.is_finite()),
                memory_bytes: Some(dense + stored + self.distributions()),
                disk_bytes: Some(0.0),
                ..Estimate::default()
            },
            StageKind::Evaluate | StageKind::Profile | StageKind::Score => Estimate {
                seconds: Some(pass).filter(|seconds| seconds.is_finite()),
                memory_bytes: Some(if self.bits.is_some() { stored + BASE_MEMORY } else { dense }),
                disk_bytes: Some(0.0),
                ..Estimate::default()
            },
        }
    }

    /// Memory of a stage that keeps one block's weights, and the head, which is as large as the embedding.
    fn streamed(&self, kind: StageKind, size: &Size) -> Option<f64> {
        if !self.streams || size.blocks == 0 {
            return None;
        }
        let head = BYTES * ROUGH_VOCABULARY * size.hidden as f64;
        let block = BYTES * size.parameters as f64 / size.blocks as f64;
        let pass = BYTES * ROUGH_BATCH * (6.0 * size.hidden as f64 + 2.0 * size.intermediate as f64);
        let one = head + block + pass + BASE_MEMORY;
        Some(match kind {
            StageKind::Evaluate | StageKind::Profile => one,
            StageKind::Diverge => 2.0 * one + self.distributions(),
            StageKind::Compress | StageKind::Score => return None,
        })
    }

    /// Distributions of one window by two models.
    fn distributions(&self) -> f64 {
        2.0 * BYTES * self.window as f64 * ROUGH_VOCABULARY
    }
}

/// Estimates for a plan.
pub struct Estimator<'a> {
    suite: &'a Suite,
    facts: &'a Facts,
    history: &'a History,
    sizes: Vec<Option<Size>>,
    memory_limit: u64,
}

impl<'a> Estimator<'a> {
    /// Looks up how large the models are.
    pub fn new(suite: &'a Suite, facts: &'a Facts, history: &'a History) -> Self {
        let size = |(name, fact): (&String, &Result<super::facts::ModelFact, String>)| {
            let fact = fact.as_ref().ok()?;
            if fact.at_hand { Size::of_files(&fact.path) } else { Size::published(name) }
        };
        let sizes = suite.models.iter().zip(&facts.models).map(size).collect();
        let machine = Some(machine::describe().memory_bytes).filter(|bytes| *bytes > 0);
        let memory_limit = suite.memory_limit_bytes.unwrap_or(u64::MAX).min(machine.unwrap_or(u64::MAX));
        Estimator { suite, facts, history, sizes, memory_limit }
    }

    /// The size of a model, where it is known.
    pub fn size(&self, model: usize) -> Option<Size> {
        self.sizes[model]
    }

    /// What a stage will take.
    pub fn of(&self, stage: &PlannedStage) -> Estimate {
        if stage.kind == StageKind::Score {
            let nothing = Some(0.0);
            return Estimate {
                seconds: nothing,
                memory_bytes: nothing,
                disk_bytes: nothing,
                ..Estimate::default()
            };
        }
        let (Some(size), Some(work)) = (self.sizes[stage.model], Amount::of(self.suite, self.facts, stage))
        else {
            return Estimate::default();
        };
        let rough = work.rough(stage.kind, &size, self.suite, self.facts.threads);
        let parameters = size.parameters as f64;
        let known = self.history.of(&work.what, &self.facts.machine, self.facts.threads);
        let seconds = known.per_work.zip(work.tokens).map(|(rate, tokens)| rate * parameters * tokens);
        let form = self.history.of_form(&work.form);
        // Memory of compressing goes with a block's size, not the model's.
        let known =
            form.memory_per_parameter.filter(|_| !(work.streams && stage.kind == StageKind::Compress));
        let memory = known.map(|m| m * parameters).or(rough.memory_bytes);
        let limit = self.memory_limit as f64;
        let too_large = memory.is_some_and(|memory| memory > limit);
        let streamed = if too_large { work.streamed(stage.kind, &size) } else { None };
        Estimate {
            // Reading takes as long as the disk needs, which nobody knows beforehand.
            seconds: seconds.or(rough.seconds).filter(|_| streamed.is_none()),
            memory_bytes: streamed.or(memory),
            disk_bytes: form.disk_per_parameter.map(|d| d * parameters).or(rough.disk_bytes),
            measured: seconds.is_some() && streamed.is_none(),
            streams: streamed.is_some(),
        }
    }

    /// Memory that a stage may take at most: a worker's limit, or what the machine has.
    pub fn memory_limit(&self) -> u64 {
        self.memory_limit
    }

    /// What is not done and cannot fit, a line for each model and one for the disk: too much memory for the machine or the limit of a worker, too much disk for what is
    /// free. `done` tells which are done.
    pub fn misfits(&self, plan: &Plan, done: impl Fn(&PlannedStage) -> bool) -> Vec<String> {
        use crate::assets::free_disk;
        use crate::report::numbers::bytes;
        let mut lines = Vec::new();
        let limit = self.memory_limit;
        let what = if self.suite.memory_limit_bytes == Some(limit) {
            "a worker may take"
        } else {
            "the machine has"
        };
        let mut disk = 0.0;
        for (model, name) in self.suite.models.iter().enumerate() {
            let (mut count, mut largest, mut first) = (0, 0.0_f64, "");
            for stage in plan.stages.iter().filter(|s| s.model == model && s.blocked.is_none() && !done(s)) {
                let estimate = self.of(stage);
                disk += estimate.disk_bytes.unwrap_or(0.0);
                if let Some(memory) = estimate.memory_bytes.filter(|memory| *memory > limit as f64) {
                    first = if count == 0 { &stage.label } else { first };
                    largest = largest.max(memory);
                    count += 1;
                }
            }
            if count > 0 {
                lines.push(format!(
                    "{}: {count} {} up to about {} of memory (first {first}), {what} {}",
                    model_name(name),
                    if count == 1 { "stage needs" } else { "stages need" },
                    bytes(largest as u64),
                    bytes(limit)
                ));
            }
        }
        if let Some(free) = free_disk(&self.suite.out).filter(|free| disk > *free as f64) {
            lines.push(format!(
                "checkpoints need about {} of disk, {} are free at {}",
                bytes(disk as u64),
                bytes(free),
                self.suite.out.display()
            ));
        }
        lines
    }
}
