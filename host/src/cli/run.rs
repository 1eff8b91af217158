//! `run`, and the default benchmark of a plugin.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::execute::{Show, execute};
use super::failure::Failure;
use super::flags::{CalibrationFlags, GlobalFlags, MeasureFlags};
use super::{plugins, request};
use crate::assets::registry::DEFAULT_MODEL;
use crate::plugins::Catalog;
use crate::suite::file::{PluginLine, SuiteFile};
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
  llmcb-host run --method gptq:bits=3|4,group_size=64|128 --seed 1,2,3
      a grid of options, everything with three seeds
  llmcb-host run suite.toml --limit 100
      a suite file; flags go before what the file says
  llmcb-host run --method gptq --print-suite > suite.toml
      the suite file that says the same

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
    /// Suite file (TOML): models, methods, backends, tasks, seeds, limits; every flag goes before what it says
    #[arg(value_name = "SUITE")]
    suite: Option<PathBuf>,
    #[command(flatten)]
    pub(super) measure: MeasureFlags,
    /// Method with its options, for example gptq:bits=4,group_size=128, or a grid of them, gptq:bits=3|4; repeatable
    #[arg(long, value_name = "SPEC", display_order = 0)]
    method: Vec<String>,
    /// Backend that opens models for methods [default: the first --backend that can, else candle]
    #[arg(long, value_name = "SPEC", display_order = 1)]
    engine: Option<String>,
    /// Format of the checkpoints: dense, gptq, awq, compressed-tensors, compressed-tensors:pack-quantized,
    /// compressed-tensors:int-quantized, compressed-tensors:sparse-bitmask, compressed-tensors:sparse-24-bitmask, gguf:f32, gguf:bf16, gguf:f16, gguf:q8_0, gguf:q4_1, gguf:q4_0 [default: what the method is known for, where it can hold the result]
    #[arg(long, value_name = "FORMAT", display_order = 1)]
    format: Option<String>,
    /// Leave out the dense model
    #[arg(long, display_order = 2)]
    no_dense: bool,
    #[command(flatten)]
    calibration: CalibrationFlags,
}

/// The suite that the command means.
pub fn suite(catalog: &Catalog, command: &RunCommand) -> Result<Suite, Failure> {
    let flags = SuiteFile {
        methods: request::lines(&command.method),
        engine: command.engine.clone().map(PluginLine::Text),
        format: command.format.clone(),
        dense: command.no_dense.then_some(false),
        calibration: request::calibration_lines(&command.calibration),
        ..request::measured(&command.measure)?
    };
    let file = match &command.suite {
        Some(path) => SuiteFile::read(path).map_err(Failure::usage)?,
        None => SuiteFile::default(),
    };
    let suite = request::resolve(catalog, flags.over(file))?;
    request::check_formats(catalog, &suite)?;
    Ok(suite)
}

/// Runs the command.
pub fn run(global: &GlobalFlags, command: &RunCommand) -> Result<ExitCode, Failure> {
    let suite = suite(&plugins::catalog(global)?, command)?;
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
        models: vec![DEFAULT_MODEL.to_owned()],
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
    execute(suite, Show { json: false, print_suite: false, dry_run: false, quiet: global.quiet })
}
