//! `plugins`: what there is, what it does, whether it behaves.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use llmcb_plugin_api::sdk::{Descriptor, PluginKind};
use serde_json::json;

use super::failure::Failure;
use super::flags::GlobalFlags;
use super::output;
use crate::assets::cache_folder;
use crate::plugins::check::{self, Verdict};
use crate::plugins::{CachedDescriptions, Catalog, Refusal, SearchPath, info};
use crate::report::text_table::TextTable;
use crate::stage::check::{CHECKS, Outcome};
use crate::worker::{self, WorkerError, WorkerOptions};

const EXAMPLES: &str = "\
Plugins are looked for, in this order: files given with --plugin; folders given with --plugin-dir; the folders of LLMCB_PLUGIN_PATH \
(separated by colons); the program's own folder and its `plugins` folder; the user's data folder. The first with an id wins.

Plugins are native code and are trusted like any program: they run in a process of their own against faults, not against malice.

Examples:
  llmcb-host plugins list
  llmcb-host plugins info gptq
  llmcb-host plugins check target/release/libmine.so";

const CHECK_EXAMPLES: &str = "\
Each check runs in a process of its own, so that one that crashes stops no other. Every line reads passed, failed, crashed or skipped, \
the check's name, and why.

Examples:
  llmcb-host plugins check target/release/libmine.so
  llmcb-host plugins check gptq --json

Exit codes: 0 none failed or crashed, 1 one did, 2 there is no such file";

/// A check that takes longer than this hangs: each works on a block of a few thousand weights.
const CHECK_LIMIT: Duration = Duration::from_secs(60);

/// List, describe and check plugins
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
    #[command(after_long_help = CHECK_EXAMPLES)]
    Check {
        /// The plugin file: a path, or a bare name looked up on the plugin path
        file: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Asks a worker for a descriptor.
fn describe(file: &Path) -> Result<Descriptor, Refusal> {
    let options = WorkerOptions { hang_limit: Some(CHECK_LIMIT), ..WorkerOptions::default() };
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
        Action::Check { file, json } => check_file(global, &file, json),
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

fn check_file(global: &GlobalFlags, file: &str, json: bool) -> Result<ExitCode, Failure> {
    let file = search_path(global)?.locate(file).map_err(Failure::usage)?;
    let options = WorkerOptions { hang_limit: Some(CHECK_LIMIT), ..WorkerOptions::default() };
    let mut closed = None;
    let report = check::run(
        &file,
        CHECKS.iter().map(|(name, _)| *name),
        |name| one_check(&file, name, &options),
        |line| {
            if !json && closed.is_none() {
                closed = output::data(&format!("{}\n", check::line_text(line))).err();
            }
        },
    );
    if let Some(failure) = closed {
        return Err(failure);
    }
    if json {
        output::json(&report)?;
    } else {
        output::say(&format!("{}: {}", file.display(), report.summary()));
    }
    Ok(ExitCode::from(u8::from(report.bad())))
}

fn one_check(file: &Path, name: &str, options: &WorkerOptions) -> (Verdict, String) {
    match worker::check(file, name, options) {
        Ok(Outcome::Passed { note }) => (Verdict::Passed, note),
        Ok(Outcome::Failed { why }) => (Verdict::Failed, why),
        Ok(Outcome::Skipped { why }) => (Verdict::Skipped, why),
        Err(WorkerError::Died(death)) => (Verdict::Crashed, format!("the process {death}")),
        Err(WorkerError::Skipped(why)) => (Verdict::Skipped, why),
        Err(error) => (Verdict::Failed, error.to_string()),
    }
}
