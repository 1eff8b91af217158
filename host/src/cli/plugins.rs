//! `plugins`: what there is, what it does, whether it behaves; and new ones.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use llmcb_plugin_api::sdk::{Descriptor, PluginKind};
use serde_json::json;

use super::failure::Failure;
use super::flags::{GlobalFlags, WORKERS};
use super::new_plugin::{self, NewCommand};
use super::{output, quantities};
use crate::assets::cache_folder;
use crate::plugins::check::{self, Verdict};
use crate::plugins::{CachedDescriptions, Catalog, Refusal, SearchPath, info};
use crate::report::text_table::TextTable;
use crate::stage::check::{CHECKS, Check, Given, Outcome, names as check_names};
use crate::worker::{self, WorkerError, WorkerOptions};

const EXAMPLES: &str = "\
Plugins are looked for, in this order: files given with --plugin; folders given with --plugin-dir; the folders of LLMCB_PLUGIN_PATH \
(separated by colons); the program's own folder and its `plugins` folder; the user's data folder. The first with an id wins.

Plugins are native code and are trusted like any program: they run in a process of their own against faults, not against malice.

Examples:
  llmcb-host plugins list
  llmcb-host plugins info gptq
  llmcb-host plugins check target/release/libmine.so
  llmcb-host plugins new mine";

const CHECK_EXAMPLES: &str = "\
Each check runs in a process of its own, so that one that crashes stops no other. Every line reads passed, failed, crashed or skipped, \
the check's name, and why. Where one failed, the line ends with the flags that run it again as it was.

Shapes, weights and moments are drawn by chance, each time others: --reproduce takes the seed that is printed at the end.

Examples:
  llmcb-host plugins check target/release/libmine.so
  llmcb-host plugins check target/release/libmine.so --only shape-uneven,memory --reproduce 1234
  llmcb-host plugins check gptq --json

Exit codes: 0 none failed or crashed, 1 one did, 2 there is no such file";

/// What each check demands, and the examples.
fn check_help() -> String {
    let names = CHECKS.iter().map(|check| format!("  {}\n      {}\n", check.name, check.demands));
    format!("Checks:\n{}\n{CHECK_EXAMPLES}", names.collect::<String>())
}

/// A descriptor that takes longer than this does not come.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(60);

/// List, describe and check plugins, begin new ones
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct PluginsCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the plugins on the plugin path
    #[command(after_long_help = "Example:\n  llmcb-host plugins list --plugin-dir target/release")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a plugin does, needs and makes, and all its options
    #[command(after_long_help = "Example:\n  llmcb-host plugins info gptq")]
    Info {
        /// Id of a plugin on the plugin path, or a plugin file
        #[arg(value_name = "ID|FILE")]
        id: String,
        /// Print the descriptor as JSON, options as a JSON Schema
        #[arg(long)]
        json: bool,
    },
    /// Check that a plugin keeps to the rules
    #[command(after_long_help = check_help())]
    Check(CheckFlags),
    New(NewCommand),
}

#[derive(Debug, Args)]
struct CheckFlags {
    /// The plugin file: a path, or a bare name looked up on the plugin path
    file: String,
    /// Run these checks alone, separated by commas
    #[arg(long, value_name = "CHECKS", value_delimiter = ',', hide_possible_values = true,
        value_parser = PossibleValuesParser::new(check_names()))]
    only: Vec<String>,
    /// Draw everything as the run did that printed this seed [default: another seed each time]
    #[arg(long, value_name = "SEED")]
    reproduce: Option<u64>,
    /// Kill a check when one run of the plugin within it takes longer than this, for example 5m; 0: never
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = quantities::duration, help_heading = WORKERS)]
    hang_limit: Duration,
    /// Kill a check that takes more memory than this: its models are of a few megabytes
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = quantities::bytes, help_heading = WORKERS)]
    memory_limit: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks a worker for a descriptor.
fn describe(file: &Path) -> Result<Descriptor, Refusal> {
    let options = WorkerOptions { hang_limit: Some(DESCRIBE_LIMIT), ..WorkerOptions::default() };
    worker::describe(file, &options).map_err(|error| match error {
        WorkerError::Failed { message, .. } if message.contains("it exports no `") => {
            Refusal::Foreign(message)
        }
        WorkerError::Failed { message, .. } => Refusal::Broken(message),
        other => Refusal::Broken(format!("{}: when it was loaded, {other}", file.display())),
    })
}

fn search_path(global: &GlobalFlags) -> Result<SearchPath, Failure> {
    SearchPath::of_process(global.plugin.clone(), global.plugin_dir.clone()).map_err(Failure::usage)
}

/// All plugins on the path; what was passed over is told.
///
/// # Errors
/// When a plugin that the user named cannot be used.
pub fn catalog(global: &GlobalFlags) -> Result<Catalog, Failure> {
    let path = search_path(global)?;
    let catalog =
        path.discover(&CachedDescriptions::new(&describe, cache_folder().ok())).map_err(Failure::usage)?;
    if !global.quiet {
        catalog.notes.iter().for_each(|note| output::warning(note));
    }
    Ok(catalog)
}

/// Runs the command.
pub fn run(global: &GlobalFlags, command: PluginsCommand) -> Result<ExitCode, Failure> {
    match command.action {
        Action::List { json } => list(global, json),
        Action::Info { id, json } => show(global, &id, json),
        Action::Check(flags) => check_file(global, &flags),
        Action::New(command) => new_plugin::run(&command),
    }
}

fn kind_name(kind: PluginKind) -> &'static str {
    match kind {
        PluginKind::Method => "method",
        PluginKind::Backend => "backend",
        _ => "plugin",
    }
}

fn roles(descriptor: &Descriptor) -> String {
    match descriptor.kind {
        PluginKind::Backend => {
            let roles: Vec<&str> = descriptor.roles.iter().map(|r| r.role.as_str()).collect();
            format!("backend ({})", roles.join(", "))
        }
        kind => kind_name(kind).to_owned(),
    }
}

fn list(global: &GlobalFlags, json: bool) -> Result<ExitCode, Failure> {
    let catalog = catalog(global)?;
    if json {
        let all: Vec<_> = catalog
            .plugins
            .iter()
            .map(|p| {
                let d = &p.descriptor;
                json!({"id": d.id, "name": d.name, "version": d.version, "kind": d.kind, "summary": d.summary,
                    "file": p.path, "sha256": p.sha256, "found": p.origin.words()})
            })
            .collect();
        output::json(&all)?;
    } else if catalog.plugins.is_empty() {
        output::say(
            "no plugins found; name one with --plugin FILE, or a folder of them with --plugin-dir DIR",
        );
    } else {
        let rows = catalog.plugins.iter().map(|p| {
            let d = &p.descriptor;
            vec![d.id.clone(), d.version.clone(), roles(d), d.summary.clone()]
        });
        let header = ["id", "version", "kind", "summary"].map(str::to_owned).to_vec();
        let table = TextTable { header, rows: rows.collect(), keys: 4 };
        output::data(&table.render(output::width()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(global: &GlobalFlags, plugin: &str, json: bool) -> Result<ExitCode, Failure> {
    let (descriptor, file) = if plugin.contains('/') || plugin.ends_with(".so") {
        let file = search_path(global)?.locate(plugin).map_err(Failure::usage)?;
        let cached = CachedDescriptions::new(&describe, cache_folder().ok());
        let (_, descriptor) = cached.describe(&file).map_err(Failure::usage)?;
        (descriptor, file)
    } else {
        let catalog = catalog(global)?;
        let found = catalog.get(plugin, None).map_err(Failure::usage)?;
        (found.descriptor.clone(), found.path.clone())
    };
    if json {
        output::json(&descriptor)?;
    } else {
        output::data(&info::render(&descriptor, &file.display().to_string(), output::width()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A seed that is another each time, and short enough to be typed.
fn fresh_seed() -> u64 {
    RandomState::new().hash_one(std::process::id()) % 1_000_000_000
}

fn check_file(global: &GlobalFlags, flags: &CheckFlags) -> Result<ExitCode, Failure> {
    let file = search_path(global)?.locate(&flags.file).map_err(Failure::usage)?;
    let options = WorkerOptions {
        hang_limit: Some(flags.hang_limit).filter(|limit| !limit.is_zero()),
        memory_limit_bytes: Some(flags.memory_limit),
        ..WorkerOptions::default()
    };
    let seed = flags.reproduce.unwrap_or_else(fresh_seed);
    let wanted = |check: &&Check| flags.only.is_empty() || flags.only.iter().any(|name| name == check.name);
    let mut closed = None;
    let report = check::run(
        &file,
        seed,
        CHECKS.iter().filter(wanted),
        |check| {
            check::with_each(check.threads, |threads| {
                one_check(check.name, &Given::new(&file, seed, threads), &options)
            })
        },
        |line| {
            if !flags.json && closed.is_none() {
                closed = output::data(&format!("{}\n", check::line_text(line))).err();
            }
        },
    );
    if let Some(failure) = closed {
        return Err(failure);
    }
    if flags.json {
        output::json(&report)?;
    } else {
        output::say(&format!("{}: {}; seed {seed}", file.display(), report.summary()));
    }
    Ok(ExitCode::from(u8::from(report.bad())))
}

fn one_check(name: &str, given: &Given, options: &WorkerOptions) -> (Verdict, String) {
    match worker::check(name, given, options) {
        Ok(Outcome::Passed { note }) => (Verdict::Passed, note),
        Ok(Outcome::Failed { why }) => (Verdict::Failed, why),
        Ok(Outcome::Skipped { why }) => (Verdict::Skipped, why),
        Err(WorkerError::Died(death)) => (Verdict::Crashed, format!("the process {death}")),
        Err(WorkerError::Skipped(why)) => (Verdict::Skipped, why),
        Err(error) => (Verdict::Failed, error.to_string()),
    }
}
