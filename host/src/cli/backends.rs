//! `backends`: which inference libraries there are, and getting them.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use llmcb_plugin_api::sdk::{Abilities, Descriptor, LibraryStatus, PluginKind};
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::flags::GlobalFlags;
use super::progress::ProgressView;
use super::{output, plugins, request};
use crate::plugins::Plugin;
use crate::report::text_table::TextTable;
use crate::suite::spec::PluginUse;
use crate::worker::protocol::{Event, Level, Request};
use crate::worker::{self, Answer, Interrupt, Supervisor, WorkerError, WorkerOptions};

const EXAMPLES: &str = "\
Backends are plugins. Some bring all that they need; others run models in a library that is installed apart, which `setup` does: into a folder \
of its own below the cache (LLMCB_BACKENDS, if set), touching nothing else. A library of your own is named by the backend's options.

Environment: LLMCB_BACKENDS (folder of the libraries), LLMCB_PYTHON (the interpreter that environments are made with), and what the build of a \
library knows, such as CMAKE_ARGS.

Examples:
  llmcb-host backends list
      which libraries are there, in which version, and what is missing
  llmcb-host backends setup llama-cpp
      downloads and builds llama.cpp for this machine
  llmcb-host run --backend candle,llama-cpp --profile --tasks hellaswag --limit 50";

/// Longest time in which a plugin says whether its library is there.
const FIND_LIMIT: Duration = Duration::from_secs(60);

/// List inference libraries, and install them
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct BackendsCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List backends, their libraries, versions, what they can do, and what is missing
    #[command(after_long_help = "Example:\n  llmcb-host backends list --json")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Install the library of a backend into a folder of its own
    #[command(after_long_help = "Example:\n  llmcb-host backends setup llama-cpp")]
    Setup {
        /// The backend, with options where it has several libraries
        #[arg(value_name = "SPEC")]
        backend: String,
        /// Install it anew though it is there
        #[arg(long)]
        again: bool,
    },
}

/// Runs the command.
pub fn run(global: &GlobalFlags, command: &BackendsCommand) -> Result<ExitCode, Failure> {
    match &command.action {
        Action::List { json } => list(global, *json),
        Action::Setup { backend, again } => set_up(global, backend, *again),
    }
}

/// The complete options of a backend's runner, and the library that it needs with them; nothing where it needs none besides itself.
fn library(
    plugin: &Plugin,
    given: &Map<String, Value>,
) -> Result<Option<(Value, LibraryStatus)>, WorkerError> {
    if plugin.descriptor.library.is_none() {
        return Ok(None);
    }
    let options = WorkerOptions { hang_limit: Some(FIND_LIMIT), ..WorkerOptions::default() };
    let given = Value::Object(given.clone());
    let runner = worker::normalize_options(&plugin.path, "runner", &given, &options)?;
    let status = worker::find_library(&plugin.path, &runner, &options)?;
    Ok(status.map(|status| (runner, status)))
}

fn list(global: &GlobalFlags, as_json: bool) -> Result<ExitCode, Failure> {
    let catalog = plugins::catalog(global)?;
    let mut rows = Vec::new();
    let mut documents = Vec::new();
    let mut missing = Vec::new();
    for plugin in catalog.plugins.iter().filter(|p| p.descriptor.kind == PluginKind::Backend) {
        let descriptor = &plugin.descriptor;
        let roles: Vec<&str> = descriptor.roles.iter().map(|role| role.role.as_str()).collect();
        let status = library(plugin, &Map::new()).map(|found| found.map(|(_, status)| status));
        let (name, version, fault) = match &status {
            Ok(None) => ("built in".to_owned(), Some(descriptor.version.clone()), None),
            Ok(Some(status)) => (status.name.clone(), status.version.clone(), status.missing.clone()),
            Err(error) => (descriptor.library.clone().unwrap_or_default(), None, Some(error.to_string())),
        };
        documents.push(json!({"id": descriptor.id, "roles": roles, "loads": descriptor.formats,
            "devices": descriptor.needs.devices, "can": descriptor.abilities, "ready": fault.is_none(),
            "state": fault.as_deref().unwrap_or("ready"), "library": status.ok().flatten()}));
        rows.push(vec![
            descriptor.id.clone(),
            name,
            version.unwrap_or_else(|| "-".to_owned()),
            if fault.is_none() { "ready" } else { "missing" }.to_owned(),
            does(descriptor),
            descriptor.abilities.as_ref().map_or_else(|| "?".to_owned(), codes),
        ]);
        missing.extend(fault.map(|fault| format!("{}: {fault}", descriptor.id)));
    }
    if as_json {
        output::json(&documents)?;
    } else {
        let header = ["id", "library", "version", "state", "does", "computes with codes"];
        let header = header.map(str::to_owned).to_vec();
        let keys = header.len();
        let mut text = TextTable { header, rows, keys }.render(output::width());
        for line in missing {
            text.push_str(&format!("\n{line}\n"));
        }
        output::data(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a backend can be used for.
fn does(descriptor: &Descriptor) -> String {
    let is = |role: &str| descriptor.roles.iter().any(|found| found.role == role);
    let can = |of: fn(&Abilities) -> bool| descriptor.abilities.as_ref().is_none_or(of);
    let all = [
        (is("engine"), "compresses"),
        (is("runner") && can(|a| a.scores), "scores"),
        (is("runner") && can(|a| a.generates), "generates"),
        (is("runner"), "times"),
    ];
    all.into_iter().filter(|(does, _)| *does).map(|(_, what)| what).collect::<Vec<_>>().join(", ")
}

/// The quantised formats that a backend computes with, devices that are alike together.
fn codes(abilities: &Abilities) -> String {
    let mut groups: Vec<(Vec<&str>, &Vec<String>)> = Vec::new();
    for (device, formats) in &abilities.quantised {
        match groups.iter_mut().find(|(_, known)| *known == formats) {
            Some((devices, _)) => devices.push(device),
            None => groups.push((vec![device], formats)),
        }
    }
    let all =
        groups.iter().map(|(devices, formats)| format!("{}: {}", devices.join(", "), formats.join(", ")));
    match groups.is_empty() {
        true => "none".to_owned(),
        false => all.collect::<Vec<_>>().join("; "),
    }
}

fn set_up(global: &GlobalFlags, spec: &str, again: bool) -> Result<ExitCode, Failure> {
    let catalog = plugins::catalog(global)?;
    let uses = request::backends(&catalog, &[spec.to_owned()])?;
    let [PluginUse { plugin: id, options: given, .. }] = uses.as_slice() else {
        return Err(Failure::usage("one backend is set up at a time"));
    };
    let plugin = catalog.get(id, Some(PluginKind::Backend)).map_err(Failure::usage)?;
    let found = library(plugin, given).map_err(Failure::failed)?;
    let Some((runner, status)) = found else {
        output::say(&format!("{id} needs nothing besides itself"));
        return Ok(ExitCode::SUCCESS);
    };
    if status.missing.is_none() && !again {
        output::say(&format!("{} is there: {}; --again installs it anew", title(&status), status.place));
        return Ok(ExitCode::SUCCESS);
    }
    output::say(&format!("setting up {} in {}: {}", status.name, status.place, status.set_up));
    let interrupt = Interrupt::install().map_err(Failure::failed)?;
    // What is compiled or downloaded in one piece may say nothing for long.
    let options = WorkerOptions { hang_limit: None, ..WorkerOptions::default() };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut worker = Supervisor::spawn(&options).map_err(Failure::failed)?;
    let mut view = ProgressView::new(global.quiet);
    view.begin(&format!("setting up {}", status.name));
    let request = Request::SetUpLibrary { path: plugin.path.clone(), options: runner, threads };
    let answer = worker.call(request, &interrupt, &mut |event| match event {
        Event::Progress { done, total, what } => view.step(*done, *total, what),
        Event::Log { level, message } if *level <= Level::Info => view.note(message),
        _ => {}
    });
    drop(view);
    match answer {
        Ok(Answer::Library(Some(status))) if status.missing.is_none() => {
            output::say(&format!("{} is ready: {}", title(&status), status.place));
            Ok(ExitCode::SUCCESS)
        }
        Ok(Answer::Library(Some(status))) => Err(Failure::failed(status.missing.unwrap_or_default())),
        Ok(other) => Err(Failure::failed(other.unexpected())),
        Err(WorkerError::Cancelled) => Err(Failure::Cancelled),
        Err(error) => Err(Failure::failed(error)),
    }
}

fn title(status: &LibraryStatus) -> String {
    match &status.version {
        Some(version) => format!("{} {version}", status.name),
        None => status.name.clone(),
    }
}
