//! The command line: what users type becomes validated values, and results become text.
//!
//! Data go to standard output, talk goes to standard error. Exit codes: 0 all is well, 1 something failed, 2 the command
//! line or a file it names is wrong, 130 stopped by the user.

mod assets;
mod backends;
mod compare;
mod completions;
mod compress;
mod eval;
mod execute;
mod failure;
mod flags;
mod leaderboard;
mod log;
mod man;
mod metrics;
mod new_plugin;
mod output;
mod plan;
mod plugins;
mod progress;
mod quantities;
mod report;
mod reproduce;
mod request;
mod run;
mod schema;
mod score;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use failure::Failure;
use flags::GlobalFlags;

const EXAMPLES: &str = "\
Examples:
  llmcb-host --plugin libgptq.so
      benchmarks one plugin on the default model and tasks, the dense model beside it
  llmcb-host run --method gptq:bits=4 --method wanda:ratio=0.5 --tasks arc_easy,piqa
      compares two methods on two tasks
  llmcb-host plugins info gptq
      what a plugin does, and all its options
  llmcb-host score table.csv
      LLMCBench's overall metrics of any table of raw numbers

Exit codes:
  0  all is well
  1  something failed; the table and the log say what
  2  the command line, or a file or plugin it names, is wrong; nothing was run
  130  stopped by the user; the same command goes on where it was";

const ABOUT: &str = "Measures what compressing a language model costs and what it buys";

const LONG_ABOUT: &str = "\
Measures what compressing a language model costs and what it buys.

Compression methods and inference backends are plugins: shared objects that are found beside the program, in the folders of \
LLMCB_PLUGIN_PATH, or named with --plugin and --plugin-dir. A run compresses models with methods, scores the results on tasks, and \
ends in a table with the dense model as the baseline. Work that is done is kept: a run that was stopped goes on where it was.

With --plugin and nothing else, the plugin's default benchmark is run.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "llmcb-host", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunCommand),
    Plan(plan::PlanCommand),
    Compress(compress::CompressCommand),
    Eval(eval::EvalCommand),
    Plugins(plugins::PluginsCommand),
    Backends(backends::BackendsCommand),
    Metrics(metrics::MetricsCommand),
    Report(report::ReportCommand),
    Compare(compare::CompareCommand),
    Leaderboard(leaderboard::LeaderboardCommand),
    Reproduce(reproduce::ReproduceCommand),
    Score(score::ScoreCommand),
    Assets(assets::AssetsCommand),
    Completions(completions::CompletionsCommand),
    Man(man::ManCommand),
    #[command(name = "__worker", hide = true)]
    Worker,
    #[command(name = "__schema", hide = true)]
    Schema(schema::SchemaCommand),
}

/// The program's `main`.
pub fn main() -> ExitCode {
    // Before anything else: a worker's standard output is a protocol, and it must greet at once.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == crate::worker::SUBCOMMAND) {
        return crate::worker::main();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data, not errors; clap knows which is which. A closed pipe is nobody's fault.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    log::start(cli.global.loudness());
    match dispatch(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let global = cli.global;
    match cli.command {
        None if global.plugin.is_empty() => {
            let help = Cli::command().render_help();
            output::say(&help.to_string());
            Err(Failure::usage(
                "nothing to do: give a command, or --plugin FILE for that plugin's default benchmark",
            ))
        }
        None => run::default_benchmark(&global),
        Some(Command::Run(command)) => run::run(&global, &command),
        Some(Command::Plan(command)) => plan::run(&global, &command),
        Some(Command::Compress(command)) => compress::run(&global, command),
        Some(Command::Eval(command)) => eval::run(&global, command),
        Some(Command::Plugins(command)) => plugins::run(&global, command),
        Some(Command::Backends(command)) => backends::run(&global, &command),
        Some(Command::Metrics(command)) => metrics::run(&global, command),
        Some(Command::Report(command)) => report::run(&command),
        Some(Command::Compare(command)) => compare::run(&command),
        Some(Command::Leaderboard(command)) => leaderboard::run(&command),
        Some(Command::Reproduce(command)) => reproduce::run(&global, &command),
        Some(Command::Score(command)) => score::run(&command),
        Some(Command::Assets(command)) => assets::run(&command, global.quiet),
        Some(Command::Completions(command)) => completions::run(&command),
        Some(Command::Man(command)) => man::run(&command),
        Some(Command::Worker) => Ok(crate::worker::main()),
        Some(Command::Schema(command)) => schema::run(&command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_is_worth_reading() {
        let mut pages = Vec::new();
        let mut command = Cli::command().term_width(100);
        command.build();
        for path in [
            vec![],
            vec!["run"],
            vec!["plan"],
            vec!["compress"],
            vec!["eval"],
            vec!["plugins"],
            vec!["plugins", "check"],
            vec!["plugins", "new"],
            vec!["backends"],
            vec!["metrics"],
            vec!["metrics", "new"],
            vec!["report"],
            vec!["compare"],
            vec!["leaderboard"],
            vec!["reproduce"],
            vec!["score"],
            vec!["assets"],
        ] {
            let mut at = &mut command;
            for name in &path {
                at = at.find_subcommand_mut(name).expect("a command");
            }
            let text = at.clone().term_width(100).render_long_help().to_string();
            let text: Vec<&str> = text.lines().map(str::trim_end).collect();
            pages.push(format!("===== {}\n{}", path.join(" "), text.join("\n")));
        }
        insta::assert_snapshot!(pages.join("\n"));
    }

    #[test]
    fn help_states_the_defaults_that_a_suite_has() {
        let suite = crate::suite::spec::Suite::default();
        let mut command = Cli::command().term_width(100);
        command.build();
        let help = command.find_subcommand_mut("run").expect("a command").render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for default in [
            format!("[default: {}]", suite.seeds[0]),
            format!("[default: {}]", suite.shots),
            format!("[default: {}]", suite.out.display()),
            format!("[default: {}]", suite.calibration.text),
            format!("[default: {}]", suite.calibration.windows),
            format!("[default: {}]", suite.calibration.length),
            format!("[default: {}m]", suite.hang_limit_seconds / 60),
            format!("[default: {},warm_up=1,repetitions=5]", suite.workloads[0]),
        ] {
            assert!(help.contains(&default), "{default} is not in the help");
        }
    }

    #[test]
    fn every_command_has_an_example() {
        let mut command = Cli::command();
        command.build();
        for sub in command.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
            let help = sub.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("llmcb-host "), "{}: {help}", sub.get_name());
        }
    }
}
