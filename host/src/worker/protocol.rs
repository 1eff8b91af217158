//! What host and worker say to each other: one JSON object a line, requests one way, events the other.
//!
//! A request is answered by any number of [`Event::Progress`] and [`Event::Log`], then by exactly one event that ends it. The worker
//! speaks first, with [`Event::Hello`]. [`Request::Cancel`] may come at any time and has no answer of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use llmcb_plugin_api::sdk::{Descriptor, LibraryStatus, ModelInfo};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::metrics::MetricValue;
use crate::metrics::scoring::{Description, MetricOrder};
use crate::stage::check::{Given as CheckGiven, Outcome as CheckOutcome};
use crate::suite::result::{CheckpointRecord, ProfileRecord};
use crate::suite::spec::{Calibration, ProfileSpec};

/// Version of this protocol: both sides must have the same, and have it unless the program was replaced during a run.
pub const PROTOCOL_VERSION: u32 = 2;

/// What the host asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Load a plugin and tell its descriptor.
    Describe {
        /// The shared object.
        path: PathBuf,
    },
    /// Check options of a role and complete them.
    Normalize {
        /// The shared object.
        path: PathBuf,
        /// `method`, `engine` or `runner`.
        role: String,
        /// The options, an object.
        options: Value,
    },
    /// Look for the library that a backend's runner needs.
    FindLibrary {
        /// The shared object.
        path: PathBuf,
        /// Complete options of the runner.
        options: Value,
    },
    /// Install that library.
    SetUpLibrary {
        /// The shared object.
        path: PathBuf,
        /// Complete options of the runner.
        options: Value,
        /// Threads to keep busy.
        threads: usize,
    },
    /// Tell what a metric says of itself.
    DescribeMetric {
        /// Which one.
        metric: MetricOrder,
    },
    /// Run a conformance check.
    Check {
        /// Name of the check.
        name: String,
        /// What it is given.
        given: CheckGiven,
    },
    /// Run a stage.
    Stage(Box<StageOrder>),
    /// Stop the present stage at the next opportunity.
    Cancel,
    /// End the process.
    Exit,
}

/// A plugin with complete options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginOrder {
    /// The shared object.
    pub path: PathBuf,
    /// Options of the role in question.
    pub options: Map<String, Value>,
}

/// Where a worker finds data sets. Everything has been fetched by the host before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataAccess {
    /// Folders that the user named.
    pub folders: Vec<PathBuf>,
}

/// A stage, with everything that a worker needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageOrder {
    /// The stage's content key.
    pub key: String,
    /// The stage's temporary directory; it may hold what an interrupted attempt left.
    pub directory: PathBuf,
    /// Seed of all randomness.
    pub seed: u64,
    /// Threads to keep busy.
    pub threads: usize,
    /// Where data sets are.
    pub data: DataAccess,
    /// SHA-256 of each piece of data as planned; other data than these are an error.
    pub expected_data: BTreeMap<String, String>,
    /// What to do.
    pub work: Work,
}

/// What a stage does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Work {
    /// Make a checkpoint.
    Compress {
        /// The model's directory or file.
        model: PathBuf,
        /// The plugin that opens the model.
        engine: PluginOrder,
        /// The method.
        method: PluginOrder,
        /// Calibration text.
        calibration: Calibration,
    },
    /// Score a task.
    Evaluate {
        /// The model's directory or file.
        model: PathBuf,
        /// The plugin that runs the model.
        runner: PluginOrder,
        /// The task with its options.
        task: String,
        /// At most so many documents.
        limit: Option<usize>,
        /// Solved examples before each question.
        shots: usize,
    },
    /// Compare a compressed model's distributions with the dense one's.
    Diverge {
        /// The dense model's directory or file.
        dense: PathBuf,
        /// The compressed model's.
        model: PathBuf,
        /// The plugin that runs both.
        runner: PluginOrder,
        /// The perplexity task with its options.
        task: String,
        /// At most so many windows.
        limit: Option<usize>,
    },
    /// Measure speed.
    Profile {
        /// The model's directory or file.
        model: PathBuf,
        /// The plugin that runs the model.
        runner: PluginOrder,
        /// The workload.
        workload: ProfileSpec,
        /// Text of the prompts: an asset or a file.
        text: String,
    },
    /// Apply a metric.
    Score {
        /// The results per item.
        items: PathBuf,
        /// The metric.
        metric: MetricOrder,
    },
}

/// What a worker found out in a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageOutcome {
    /// The model as the plugin that opened it describes it.
    pub model: Option<ModelInfo>,
    /// Documents scored.
    pub items: u64,
    /// Metrics of the task.
    pub metrics: Vec<MetricValue>,
    /// The checkpoint made.
    pub checkpoint: Option<CheckpointRecord>,
    /// Times.
    pub profile: Option<ProfileRecord>,
    /// SHA-256 of each piece of data used.
    pub data: BTreeMap<String, String>,
    /// Lines a reader of the numbers should know.
    pub warnings: Vec<String>,
    /// When the first attempt was started, seconds since 1970-01-01 UTC.
    pub started_unix: f64,
    /// Wall-clock seconds of all attempts.
    pub wall_seconds: f64,
    /// The same by phase.
    pub phases: BTreeMap<String, f64>,
    /// Processor seconds of all attempts.
    pub cpu_seconds: f64,
    /// Largest resident memory over all attempts.
    pub peak_memory_bytes: u64,
    /// Largest memory on GPUs over all attempts; 0 where it is not known.
    pub gpu_peak_memory_bytes: u64,
    /// Attempts before this one.
    pub resumed: u32,
    /// Fuel that a metric component used.
    pub fuel: Option<u64>,
}

/// What sort of failure ended a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The work could not be done.
    Failed,
    /// Something the user gave was wrong.
    Invalid,
    /// A plugin panicked.
    Panicked,
}

/// How important a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something failed.
    Error,
    /// Something looks wrong.
    Warning,
    /// What happens, for everybody.
    Info,
    /// What happens, in detail.
    Debug,
    /// Everything.
    Trace,
}

/// What a worker tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// First of all: which protocol the worker speaks.
    Hello {
        /// [`PROTOCOL_VERSION`] of the worker.
        protocol: u32,
        /// Version of the worker's program.
        host_version: String,
    },
    /// `done` of `total` steps are done.
    Progress {
        /// Steps done.
        done: u64,
        /// Steps in all.
        total: u64,
        /// What is being done.
        what: String,
    },
    /// A line for the log.
    Log {
        /// How important it is.
        level: Level,
        /// The line.
        message: String,
    },
    /// Ends [`Request::Describe`].
    Described {
        /// The descriptor.
        descriptor: Box<Descriptor>,
    },
    /// Ends [`Request::Normalize`].
    Normalized {
        /// The complete options.
        options: Value,
    },
    /// Ends [`Request::FindLibrary`] and [`Request::SetUpLibrary`].
    Library {
        /// What is there; nothing where none is needed.
        status: Option<Box<LibraryStatus>>,
    },
    /// Ends [`Request::DescribeMetric`].
    Metric {
        /// What it says.
        description: Box<Description>,
    },
    /// Ends [`Request::Check`].
    Checked {
        /// How the check came out.
        outcome: CheckOutcome,
    },
    /// Ends [`Request::Stage`]: everything is in the stage's directory.
    Done {
        /// What was found out.
        outcome: Box<StageOutcome>,
    },
    /// Ends any request: it could not be done.
    Failed {
        /// What sort of failure.
        kind: Failure,
        /// What was wrong, where, and what to do.
        message: String,
    },
    /// Ends [`Request::Stage`]: a plugin does not do this.
    Skipped {
        /// Why.
        reason: String,
    },
    /// Ends [`Request::Stage`] after [`Request::Cancel`].
    Cancelled,
}
