//! What is written down: one result per stage, one for the run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use llmcb_plugin_api::sdk::{CheckpointInfo, ModelInfo, Profile};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::spec::Suite;
use crate::metrics::{MetricValue, Paired};
use crate::tracks::{Macs, Om};

/// Version of the result files. Fields may be added under one version; a change of meaning raises it.
pub const SCHEMA_VERSION: u32 = 1;

/// What a stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// Makes a checkpoint with a method.
    Compress,
    /// Scores a model on one task.
    Evaluate,
    /// Measures speed.
    Profile,
    /// Compares a compressed model's distributions over the next token with the dense one's.
    Diverge,
    /// Applies a metric to the results per item of an evaluation.
    Score,
}

impl StageKind {
    /// Name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            StageKind::Compress => "compress",
            StageKind::Evaluate => "evaluate",
            StageKind::Profile => "profile",
            StageKind::Diverge => "diverge",
            StageKind::Score => "score",
        }
    }
}

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All was done.
    Done,
    /// It could not be done; the reason says why.
    Failed,
    /// It was not tried, or the plugin does not do it; the reason says why.
    Skipped,
    /// Stopped by the user; it goes on with the next run.
    Cancelled,
}

impl Status {
    /// Name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Status::Done => "done",
            Status::Failed => "failed",
            Status::Skipped => "skipped",
            Status::Cancelled => "cancelled",
        }
    }
}

/// The model of a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ModelRecord {
    /// As the user named it.
    pub reference: String,
    /// Where its files were.
    pub path: PathBuf,
    /// SHA-256 over the names and contents of its files.
    pub sha256: String,
    /// As the plugin that opened it described it.
    #[schemars(with = "Option<Map<String, Value>>")]
    pub info: Option<ModelInfo>,
}

/// A plugin in a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PluginRecord {
    /// The plugin's id.
    pub id: String,
    /// Its name in tables.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Name of this use of it in the suite.
    pub label: String,
    /// Options, complete with defaults.
    pub options: Map<String, Value>,
    /// SHA-256 of the shared object.
    pub sha256: String,
}

/// A number that a task or a measurement gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricRecord {
    /// The task as the suite names it, or `profile` for measured speed (`profile:WORKLOAD` where there are several workloads).
    pub task: String,
    /// Its name, value, standard error and number of items.
    #[serde(flatten)]
    pub metric: MetricValue,
}

impl MetricRecord {
    /// Whether another record is of the same metric of the same task and part of it.
    pub fn is_like(&self, other: &MetricRecord) -> bool {
        (&self.task, &self.metric.name, &self.metric.subset)
            == (&other.task, &other.metric.name, &other.metric.subset)
    }
}

/// Reduced times of a workload. Rates are tokens per second over the whole batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProfileRecord {
    /// Prompts at once.
    pub batch: usize,
    /// Tokens in each prompt.
    pub prompt_tokens: usize,
    /// Tokens generated for each prompt.
    pub new_tokens: usize,
    /// Prompt tokens per second at the median time until the first token.
    pub prefill_tokens_per_second: f64,
    /// Generated tokens per second at the median time of a decoding step.
    pub decode_tokens_per_second: f64,
    /// Seconds until the first token: percentile to value.
    pub prefill_seconds: BTreeMap<String, f64>,
    /// Seconds of a decoding step: percentile to value.
    pub decode_step_seconds: BTreeMap<String, f64>,
    /// Seconds from the start of the backend until the model could be run: starting its library, and loading.
    pub load_seconds: f64,
    /// Seconds before that in which the checkpoint was converted or compiled for the library, which are not among them.
    pub preparation_seconds: f64,
    /// What was measured, every repetition.
    #[schemars(with = "Map<String, Value>")]
    pub raw: Profile,
}

/// The checkpoint that a compress stage made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CheckpointRecord {
    /// Its directory, relative to the stage's directory.
    pub path: PathBuf,
    /// Files, sizes, format and share of zeros.
    #[schemars(with = "Map<String, Value>")]
    pub info: CheckpointInfo,
}

/// Everything about one stage. `result.json` in the stage's directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageResult {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Content key, 64 hexadecimal digits: the same for the same work.
    pub key: String,
    /// What the stage does.
    pub kind: StageKind,
    /// How it ended.
    pub status: Status,
    /// Why, in one line, when it did not end well.
    #[serde(default)]
    pub reason: Option<String>,
    /// Name for people, for example `gptq / candle / arc_easy`.
    pub label: String,
    /// The model.
    #[serde(default)]
    pub model: ModelRecord,
    /// The method; absent for the dense model.
    #[serde(default)]
    pub method: Option<PluginRecord>,
    /// The backend: an engine in compress stages, else a runner.
    #[serde(default)]
    pub backend: Option<PluginRecord>,
    /// The task, of evaluate and diverge stages.
    #[serde(default)]
    pub task: Option<String>,
    /// Device the arithmetic ran on.
    #[serde(default)]
    pub device: String,
    /// Seed of the run.
    #[serde(default)]
    pub seed: u64,
    /// `major.minor` of the plugin ABI.
    #[serde(default)]
    pub abi_version: String,
    /// Version of the host.
    #[serde(default)]
    pub host_version: String,
    /// SHA-256 of each piece of data used, by name.
    #[serde(default)]
    pub data: BTreeMap<String, String>,
    /// All other settings that decide the result.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// When the stage was started, seconds since 1970-01-01 UTC.
    #[serde(default)]
    pub started_unix: f64,
    /// Wall-clock seconds, summed over interrupted attempts.
    #[serde(default)]
    pub wall_seconds: f64,
    /// Wall-clock seconds by phase, such as `loading` and `scoring`, summed over interrupted attempts. A stage that goes
    /// on with the model of the stage before it has no `loading` to speak of.
    #[serde(default)]
    pub phases: BTreeMap<String, f64>,
    /// Processor seconds of the worker and of all that it started, user and system, summed over interrupted attempts.
    #[serde(default)]
    pub cpu_seconds: f64,
    /// Largest resident memory of the worker, with all that it started, during the stage, as the operating system counts it.
    #[serde(default)]
    pub peak_memory_bytes: u64,
    /// Largest memory that they took on NVIDIA GPUs, as `nvidia-smi` tells it every second; 0 where they took none or it is not known.
    #[serde(default, skip_serializing_if = "is_none")]
    pub gpu_peak_memory_bytes: u64,
    /// How often the stage was interrupted and went on.
    #[serde(default)]
    pub resumed: u32,
    /// Threads the worker was given.
    #[serde(default)]
    pub threads: usize,
    /// Documents scored, of evaluate stages.
    #[serde(default)]
    pub items: u64,
    /// Metrics, of evaluate, score, diverge and profile stages.
    #[serde(default)]
    pub metrics: Vec<MetricRecord>,
    /// The checkpoint, of compress stages.
    #[serde(default)]
    pub checkpoint: Option<CheckpointRecord>,
    /// Times, of profile stages.
    #[serde(default)]
    pub profile: Option<ProfileRecord>,
    /// Fuel that a metric component used, of score stages: instructions, the same on every machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Files in the stage's directory.
    #[serde(default)]
    pub files: Vec<String>,
    /// Lines a reader of the numbers should know, such as data that differ from the published ones.
    #[serde(default)]
    pub warnings: Vec<String>,
}

fn is_none(bytes: &u64) -> bool {
    *bytes == 0
}

/// The machine of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Machine {
    /// Processor, as the operating system names it.
    pub cpu: String,
    /// Cores that the program may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Operating system, for example `Debian GNU/Linux 13 (trixie)`.
    pub os: String,
    /// Kernel and its release.
    pub kernel: String,
    /// Processor architecture.
    pub architecture: String,
}

/// One stage as the run saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageSummary {
    /// Content key; empty when it could not be computed.
    pub key: String,
    /// What the stage does.
    pub kind: StageKind,
    /// Name for people.
    pub label: String,
    /// The task, of evaluate stages.
    #[serde(default)]
    pub task: Option<String>,
    /// Name of the metric, of score stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// How it ended; absent: not yet reached.
    #[serde(default)]
    pub status: Option<Status>,
    /// Why, when it did not end well.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether an earlier run had done it.
    #[serde(default)]
    pub reused: bool,
    /// Wall-clock seconds of the stage when it was done.
    #[serde(default)]
    pub wall_seconds: f64,
    /// Processor seconds of its worker and of all that it started, user and system.
    #[serde(default)]
    pub cpu_seconds: f64,
    /// Largest resident memory of its worker, with all that it started.
    #[serde(default)]
    pub peak_memory_bytes: u64,
    /// Largest memory that they took on GPUs; 0 where they took none or it is not known.
    #[serde(default, skip_serializing_if = "is_none")]
    pub gpu_peak_memory_bytes: u64,
    /// Its directory, relative to the result directory.
    #[serde(default)]
    pub directory: PathBuf,
}

impl StageSummary {
    /// The memory that the stage is known for: on GPUs, where it took any, else of its processes.
    pub fn memory_bytes(&self) -> u64 {
        match self.gpu_peak_memory_bytes {
            0 => self.peak_memory_bytes,
            on_gpus => on_gpus,
        }
    }
}

/// A metric of a compressed model against that of the dense one, item by item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PairedRecord {
    /// The task as the suite names it.
    pub task: String,
    /// The comparison.
    #[serde(flatten)]
    pub paired: Paired,
}

/// How far a backend agrees with the run's first one on a task: the same checkpoint, the same items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgreementRecord {
    /// The task as the suite names it.
    pub task: String,
    /// Label of the other backend.
    pub with: String,
    /// The comparison.
    #[serde(flatten)]
    pub agreement: Agreement,
}

/// A comparison of log-likelihoods.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Agreement {
    /// How many log-likelihoods were compared: of each choice of a question, or of a window of a text.
    pub log_likelihoods: usize,
    /// By how much they differ on average, in nats.
    pub mean_difference: f64,
    /// By how much at most, in nats.
    pub largest_difference: f64,
    /// Questions whose likeliest choice differs.
    pub choices_differ: usize,
}

/// One model with one method (or none) on one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cell {
    /// The model as the user named it.
    pub model: String,
    /// Label of the method, or `dense`.
    pub method: String,
    /// Label of the backend.
    pub backend: String,
    /// The seed.
    #[serde(default)]
    pub seed: u64,
    /// Its stages, in order: compress, for each task evaluate and score for each metric, profile, diverge for each text.
    pub stages: Vec<StageSummary>,
    /// All metrics of its stages.
    #[serde(default)]
    pub metrics: Vec<MetricRecord>,
    /// Each of its metrics against the dense model's on the same items, where both were measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paired: Vec<PairedRecord>,
    /// How far its log-likelihoods agree with those of the run's first backend.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agreement: Vec<AgreementRecord>,
    /// What the method's checkpoint is.
    #[serde(default)]
    pub checkpoint: Option<CheckpointRecord>,
    /// Bytes of the weight files that were evaluated.
    #[serde(default)]
    pub weight_bytes: u64,
    /// Operations of a pass over a prompt, where the backend says what the model multiplies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macs: Option<Macs>,
    /// Times, one entry for each workload that it was profiled on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<ProfileRecord>,
}

/// An overall metric: `100 * sqrt(mean over cells of ratio^2)`, ratios taken against the dense model on the same backend (in track 3
/// against the cheapest method).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OverallMetric {
    /// Number of the track.
    pub track: u32,
    /// Label of the method.
    pub method: String,
    /// Label of the backend.
    pub backend: String,
    /// The metric over all models and seeds of the suite; 100 is as good as dense.
    #[serde(flatten)]
    pub om: Om,
}

/// What a run was made from, by hash.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Inputs {
    /// SHA-256 of each model's files, by the name the user gave it.
    pub models: BTreeMap<String, String>,
    /// Plugins by id.
    pub plugins: BTreeMap<String, PluginFile>,
    /// SHA-256 of each piece of data, by name.
    pub data: BTreeMap<String, String>,
    /// SHA-256 of each metric component, by the metric's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, String>,
    /// SHA-256 of the program.
    pub program: String,
}

/// A plugin's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PluginFile {
    /// The plugin's version.
    pub version: String,
    /// SHA-256 of the shared object.
    pub sha256: String,
}

/// The whole run. `run.json` in the result directory, written anew after every stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunResult {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Version of the host.
    pub host_version: String,
    /// `major.minor` of the plugin ABI.
    pub abi_version: String,
    /// The suite as it was run.
    pub suite: Suite,
    /// What it was made from.
    #[serde(default)]
    pub inputs: Inputs,
    /// The machine.
    pub machine: Machine,
    /// When the run was started, seconds since 1970-01-01 UTC.
    pub started_unix: f64,
    /// Wall-clock seconds of this run.
    pub wall_seconds: f64,
    /// Whether the run came to its end; false while it goes on, and after a stop.
    pub complete: bool,
    /// Whether the user stopped it.
    #[serde(default)]
    pub interrupted: bool,
    /// One per model, method, backend and seed.
    pub cells: Vec<Cell>,
    /// Overall metrics of every track; without a value where nothing was measured.
    #[serde(default)]
    pub overall: Vec<OverallMetric>,
    /// What could not be planned, one line each (a model that is not there, options that a plugin refuses).
    #[serde(default)]
    pub problems: Vec<String>,
}

impl RunResult {
    /// Every stage of every cell once.
    pub fn stages(&self) -> impl Iterator<Item = &StageSummary> {
        let mut seen = std::collections::HashSet::new();
        self.cells
            .iter()
            .flat_map(|cell| &cell.stages)
            // Two uses of a plugin that mean the same have the same keys, and results of their own.
            .filter(move |stage| {
                stage.key.is_empty() || seen.insert((stage.key.clone(), stage.directory.clone()))
            })
    }

    /// Whether something failed, so that the program must not end with success.
    pub fn failed(&self) -> bool {
        !self.problems.is_empty() || self.stages().any(|s| s.status == Some(Status::Failed))
    }

    /// The program's exit code: 0 all is well, 1 something failed, 130 stopped by the user.
    pub fn exit_code(&self) -> u8 {
        match (self.interrupted, self.failed()) {
            (true, _) => 130,
            (false, true) => 1,
            (false, false) => 0,
        }
    }
}

/// JSON Schema of what is written for others to read, such as a stage's [`StageResult`] or a run's [`RunResult`].
pub fn json_schema<T: JsonSchema>(title: &str) -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    schema["title"] = title.into();
    schema
}
