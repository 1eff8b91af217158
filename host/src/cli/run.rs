//! `run`, and the default benchmark of a plugin.

use std::process::ExitCode;

use clap::Args;

use super::execute::{Show, execute};
use super::failure::Failure;
use super::flags::{CalibrationFlags, GlobalFlags, MeasureFlags};
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
    #[command(flatten)]
    measure: MeasureFlags,
    /// Method with its options, for example gptq:bits=4,group_size=128; repeatable
    #[arg(long, value_name = "SPEC", display_order = 0)]
    method: Vec<String>,
    /// Backend that opens models for methods [default: the first --backend that can]
    #[arg(long, value_name = "SPEC", display_order = 1)]
    engine: Option<String>,
    /// Format of the checkpoints: dense, gptq, awq, compressed-tensors, compressed-tensors:pack-quantized,
    /// compressed-tensors:int-quantized, compressed-tensors:sparse-bitmask, compressed-tensors:sparse-24-bitmask, gguf:f16, gguf:q8_0, gguf:q4_1, gguf:q4_0 [default: what the method is known for, where it can hold the result]
    #[arg(long, value_name = "FORMAT", display_order = 1)]
    format: Option<String>,
    /// Leave out the dense model
    #[arg(long, display_order = 2)]
    no_dense: bool,
    #[command(flatten)]
    calibration: CalibrationFlags,
}

/// Runs the command.
pub fn run(global: &GlobalFlags, command: RunCommand) -> Result<ExitCode, Failure> {
    let catalog = plugins::catalog(global)?;
    let suite = Suite {
        methods: request::methods(&catalog, &command.method)?,
        engine: request::engine(&catalog, command.engine.as_deref())?,
        format: command.format,
        dense: !command.no_dense,
        calibration: request::calibration(&command.calibration)?,
        ..request::measured(&catalog, &command.measure)?
    };
    request::check_formats(&catalog, &suite)?;
    execute(suite, Show::of(&command.measure, global.quiet))
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
