//! Flags that several commands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::quantities;
use crate::suite::spec::ProfileSpec;

const GLOBAL: &str = "Global options";
pub(super) const WORKERS: &str = "Limits";
const CALIBRATION: &str = "Calibration";

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub struct GlobalFlags {
    /// Plugin file: a path, or a bare name looked up on the plugin path (`gptq` finds libgptq.so); repeatable
    #[arg(long, value_name = "FILE", global = true, help_heading = GLOBAL)]
    pub plugin: Vec<String>,
    /// Folder with plugins, searched before all others; repeatable
    #[arg(long, value_name = "DIR", global = true, help_heading = GLOBAL)]
    pub plugin_dir: Vec<PathBuf>,
    /// Say more on standard error (-vv: details, -vvv: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL)]
    pub verbose: u8,
    /// Say nothing on standard error but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = GLOBAL)]
    pub quiet: bool,
}

impl GlobalFlags {
    /// How much to say: -1 errors only, 0 as usual, more with each -v.
    pub fn loudness(&self) -> i8 {
        if self.quiet { -1 } else { i8::try_from(self.verbose).unwrap_or(i8::MAX) }
    }
}

/// What is scored.
#[derive(Clone, Debug, Args)]
pub struct TaskFlags {
    /// Tasks, separated by commas: wikitext2, squad_passages, arc_easy, arc_challenge, hellaswag, piqa, winogrande, mmlu,
    /// mmlu_SUBJECT, text:FILE for the perplexity of a text, or FILE.toml for a task of your own
    ///
    /// Options follow a colon: wikitext2:seqlen=1024, mmlu:shots=5,limit=10. Without --tasks, all that can be had without the hub are
    /// scored: squad_passages, arc_easy, arc_challenge, hellaswag, piqa, winogrande, mmlu.
    ///
    /// `conversation=vicuna` (or chatglm2, chatglm3) asks in the form that such models were trained on; it is off by default, as in the paper.
    ///
    /// A task of your own is a TOML file that says how the rows of a JSON Lines file become questions: name, data, prompt (with {field}),
    /// choices, answer, and more; host/examples/tasks/README.md explains each with an example.
    #[arg(long, value_name = "TASKS")]
    pub tasks: Vec<String>,
    /// Metric beside those that tasks have of themselves: brier_score, expected_calibration_error, exact_match, token_f1, or a component of your
    /// own, FILE.wasm; repeatable
    ///
    /// `llmcb-host metrics list` shows all, `llmcb-host metrics new` begins one of your own.
    #[arg(long, value_name = "METRIC")]
    pub metric: Vec<String>,
    /// Score at most N documents of each task (of each subject, for mmlu), from the first on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Solved examples before each question [default: 0]
    #[arg(long, value_name = "K")]
    pub shots: Option<usize>,
}

/// What `run` and `eval` share: which models are measured, how, and where the results go.
#[derive(Clone, Debug, Args)]
pub struct MeasureFlags {
    /// Model: an asset's id, a folder in the Hugging Face layout, a GGUF file, or ORG/NAME[@REVISION] on the hub;
    /// repeatable [default: smollm2-135m-instruct]
    #[arg(long, value_name = "MODEL")]
    pub model: Vec<String>,
    /// Backends that run the models, each with its options: candle,llama-cpp:weights=f32; repeatable [default: candle]
    #[arg(long, value_name = "SPEC")]
    pub backend: Vec<String>,
    #[command(flatten)]
    pub tasks: TaskFlags,
    #[command(flatten)]
    pub workers: WorkerFlags,
    /// Measure speed, too: prefill and decoding rates
    #[arg(long)]
    pub profile: bool,
    /// What speed is measured on; repeatable; implies --profile [default: batch=1,prompt=128,new=32,warm_up=1,repetitions=5]
    #[arg(long, value_name = "WORKLOAD")]
    pub workload: Vec<ProfileSpec>,
    /// Folder for results; what an earlier run left there is used [default: results]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print what would be run as a suite file, and do nothing
    #[arg(long)]
    pub print_suite: bool,
    /// Print what would be done, and do nothing: as `plan`, which sums up long ones
    #[arg(long)]
    pub dry_run: bool,
    /// Print run.json instead of the table
    #[arg(long)]
    pub json: bool,
}

/// What methods learn the statistics of activations from.
#[derive(Clone, Debug, Args)]
pub struct CalibrationFlags {
    /// Calibration text: boolq_passages, wikitext2, wikitext2:validation, or a text file [default: boolq_passages]
    #[arg(long, value_name = "TEXT", help_heading = CALIBRATION)]
    pub calibration: Option<String>,
    /// Windows of calibration text [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = CALIBRATION)]
    pub calibration_windows: Option<u32>,
    /// Tokens in each window [default: 512]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = CALIBRATION)]
    pub calibration_length: Option<u32>,
}

/// How workers are held.
#[derive(Clone, Debug, Args)]
pub struct WorkerFlags {
    /// Seed of all randomness; with several (1,2,3), everything is done with each [default: 1234]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub seed: Vec<u64>,
    /// Folder with data sets in their published layout, searched before anything is fetched
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Threads of a worker; 0: all cores [default: 0]
    #[arg(long, value_name = "N", help_heading = WORKERS)]
    pub threads: Option<usize>,
    /// Kill a worker that takes more memory than this, for example 4G; its stage fails, the run goes on
    #[arg(long, value_name = "SIZE", value_parser = quantities::bytes, help_heading = WORKERS)]
    pub memory_limit: Option<u64>,
    /// Kill a worker that shows no progress for so long, for example 10m; 0: never [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = quantities::duration, help_heading = WORKERS)]
    pub hang_limit: Option<Duration>,
}
