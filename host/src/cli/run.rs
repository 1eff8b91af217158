//! `run`, and the default benchmark of a plugin.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::execute::{Show, execute};
use super::failure::Failure;
use super::flags::{CalibrationFlags, GlobalFlags, TaskFlags, WorkerFlags};
use super::{plugins, request};
use crate::suite::spec::{PluginUse, Suite};
use crate::tasks::DEFAULT_CALIBRATION;

const EXAMPLES: &str = "\
A run compresses every model with every method, scores it on every backend and task, and does the same with the dense model as the \
baseline. Results are kept in --out: the table and results.csv, run.json, and a folder per stage with its result.json, one JSON line \
per item, and the checkpoint a method made. What is done already, with the same files and settings, is not done again.

Examples:
  llmcb-host run --method gptq:bits=4,group_size=128 --method rtn:bits=4
      two methods on the default model and tasks
  llmcb-host run --model ./llama --method wanda:ratio=0.5 --tasks wikitext2,arc_easy
      a model of one's own, two tasks
  llmcb-host run --method gptq --tasks text:notes.txt --calibration notes-train.txt
      calibration and perplexity on one's own text
  llmcb-host run --method gptq --limit 100 --dry-run
      what would be done, and what is done already

Exit codes: 0 all done, 1 a stage failed (the others were run), 2 nothing was run because something named is wrong, 130 stopped";

/// Documents per task in a plugin's default benchmark: minutes, not hours, on a small machine.
const QUICK_LIMIT: usize = 100;

/// Tasks whose documents are many or long have limits of their own there: MMLU's is for each of 57 subjects, perplexity's counts windows of
/// 2048 tokens.
const QUICK_TASKS: [(&str, &str); 2] =
    [("mmlu", "mmlu:limit=1"), ("squad_passages", "squad_passages:limit=8")];

/// Compress models with methods and score them on tasks, the dense model beside them
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct RunCommand {
    /// Model: an asset's id, a folder in the Hugging Face layout, a GGUF file, or ORG/NAME on the hub; repeatable
    /// [default: smollm2-135m-instruct]
    #[arg(long, value_name = "MODEL")]
    model: Vec<String>,
    /// Method with its options, for example gptq:bits=4,group_size=128; repeatable
    #[arg(long, value_name = "SPEC")]
    method: Vec<String>,
    /// Backend that runs the models, with its options; repeatable [default: candle]
    #[arg(long, value_name = "SPEC")]
    backend: Vec<String>,
    /// Backend that opens models for methods [default: the first --backend that can]
    #[arg(long, value_name = "SPEC")]
    engine: Option<String>,
    /// Format of the checkpoints: dense, gptq, awq, compressed-tensors, compressed-tensors:pack-quantized,
    /// compressed-tensors:int-quantized, gguf:f16, gguf:q8_0, gguf:q4_1, gguf:q4_0 [default: what the method is known for, where it can hold the result]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    #[command(flatten)]
    tasks: TaskFlags,
    #[command(flatten)]
    calibration: CalibrationFlags,
    #[command(flatten)]
    workers: WorkerFlags,
    /// Leave out the dense model
    #[arg(long)]
    no_dense: bool,
    /// Measure speed, too: prefill and decoding rates
    #[arg(long)]
    profile: bool,
    /// Folder for results; what an earlier run left there is used
    #[arg(long, value_name = "DIR", default_value = "results")]
    out: PathBuf,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print run.json instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(global: &GlobalFlags, command: RunCommand) -> Result<ExitCode, Failure> {
    let catalog = plugins::catalog(global)?;
    let suite = Suite {
        models: request::models(&command.model),
        methods: request::methods(&catalog, &command.method)?,
        backends: request::backends(&catalog, &command.backend)?,
        engine: request::engine(&catalog, command.engine.as_deref())?,
        format: command.format,
        tasks: request::tasks(&command.tasks, command.workers.seed)?,
        limit: command.tasks.limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        shots: command.tasks.shots,
        dense: !command.no_dense,
        calibration: request::calibration(&command.calibration)?,
        profile: command.profile,
        ..request::base(&command.workers, command.out)?
    };
    request::check_formats(&catalog, &suite)?;
    execute(suite, Show { json: command.json, dry_run: command.dry_run, quiet: global.quiet })
}

/// `llmcb-host --plugin FILE`: the plugin on the default model and tasks, with the dense model as the baseline. A backend runs the dense model.
pub fn default_benchmark(global: &GlobalFlags) -> Result<ExitCode, Failure> {
    let catalog = plugins::catalog(global)?;
    let (mut methods, mut backends) = (Vec::new(), Vec::new());
    for plugin in catalog.plugins.iter().filter(|plugin| plugin.named) {
        let one = PluginUse::new(plugin.descriptor.id.clone(), plugin.path.clone());
        if request::is_method(plugin) { methods.push(one) } else { backends.push(one) }
    }
    if backends.is_empty() {
        backends = request::backends(&catalog, &[])?;
    }
    let tasks = crate::tasks::default_suite();
    let suite = Suite {
        models: request::models(&[]),
        methods,
        backends,
        tasks: tasks
            .into_iter()
            .map(|task| {
                QUICK_TASKS.iter().find(|(name, _)| *name == task).map_or(task, |(_, quick)| quick).to_owned()
            })
            .collect(),
        limit: Some(QUICK_LIMIT),
        calibration: crate::suite::spec::Calibration {
            text: DEFAULT_CALIBRATION.to_owned(),
            ..Default::default()
        },
        ..Suite::default()
    };
    execute(suite, Show { json: false, dry_run: false, quiet: global.quiet })
}
