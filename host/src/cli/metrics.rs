//! `metrics`: what there is to ask for, and tools for authors of metric components.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::Failure;
use super::flags::GlobalFlags;
use super::output;
use crate::assets::sha256_hex;
use crate::metrics::component::{Component, Sandbox, component_of, read};
use crate::metrics::scaffold::{Language, scaffold};
use crate::metrics::scoring::{BUILT_IN, Description, FIELDS, Field, MetricOrder, built_in, resolve};
use crate::metrics::{OF_TASKS, check};
use crate::report::text_table::TextTable;

const EXAMPLES: &str = "\
Metrics that tasks have of themselves (acc, perplexity, ...) are always measured. The others are asked for with --metric: built-in ones by name, \
those of your own by file. A metric of your own is a wasm component: it reads results per item and gives a number, in a sandbox without files, network, \
clocks or randomness. Its value stands in tables, results and comparisons like any other.

Examples:
  llmcb-host metrics list
  llmcb-host metrics new my_metric --language python
  llmcb-host metrics check ./my_metric.wasm
  llmcb-host run --method gptq --metric brier_score --metric ./my_metric.wasm";

/// List, describe and check metrics, and begin new ones
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct MetricsCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the metrics that come with the program
    #[command(after_long_help = "Example:\n  llmcb-host metrics list")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a metric measures and reads; without one, the fields that metrics may read
    #[command(
        after_long_help = "Example:\n  llmcb-host metrics info ./my_metric.wasm\n  llmcb-host metrics info"
    )]
    Info {
        /// Name of a built-in metric, or a component's file
        #[arg(value_name = "NAME|FILE")]
        metric: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check that a metric component keeps to the rules
    #[command(
        after_long_help = "Example:\n  llmcb-host metrics check ./my_metric.wasm\n\nExit codes: 0 nothing failed, 1 something did, 2 there is no such file"
    )]
    Check {
        /// The component's file
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Begin a metric of your own: a folder with a source that works and a script that builds it
    #[command(
        after_long_help = "Examples:\n  llmcb-host metrics new my_metric --language python\n  llmcb-host metrics new my_metric --language c --path ./metrics/mine"
    )]
    New {
        /// Its name: small letters, digits and `_`
        name: String,
        /// What it is written in
        #[arg(long, value_enum)]
        language: Language,
        /// Folder to write, which must not be there or be empty [default: the name]
        #[arg(long, value_name = "DIR")]
        path: Option<PathBuf>,
    },
    /// Make a component of a core wasm module, as compilers of C and Rust leave it
    #[command(
        after_long_help = "Example:\n  llmcb-host metrics component my_metric.core.wasm --output my_metric.wasm"
    )]
    Component {
        /// The module
        module: PathBuf,
        /// The component to write
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// Runs the command.
pub fn run(global: &GlobalFlags, command: MetricsCommand) -> Result<ExitCode, Failure> {
    match command.action {
        Action::List { json } => list(json),
        Action::Info { metric: None, json } => fields(json),
        Action::Info { metric: Some(metric), json } => info(&metric, json),
        Action::Check { file, json } => check_file(&file, json),
        Action::New { name, language, path } => new(global, &name, language, path),
        Action::Component { module, output } => component(&module, &output),
    }
}

fn table(header: &[&str], rows: Vec<Vec<String>>) -> Result<ExitCode, Failure> {
    let header = header.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>();
    let keys = header.len();
    output::data(&TextTable { header, rows, keys }.render(output::width()))?;
    Ok(ExitCode::SUCCESS)
}

fn better(higher: bool) -> &'static str {
    if higher { "more" } else { "less" }
}

fn list(json: bool) -> Result<ExitCode, Failure> {
    let asked: Vec<Description> = BUILT_IN.iter().map(|metric| metric.describe()).collect();
    if json {
        let of_tasks: Vec<_> = OF_TASKS
            .iter()
            .map(|m| json!({"name": m.name, "summary": m.summary, "higher_is_better": m.higher_is_better}))
            .collect();
        output::json(&json!({"of_tasks": of_tasks, "built_in": asked}))?;
        return Ok(ExitCode::SUCCESS);
    }
    let of_tasks = OF_TASKS.iter().map(|m| [m.name, "its tasks", better(m.higher_is_better), m.summary]);
    let rows = of_tasks.map(|row| row.map(str::to_owned).to_vec());
    let own = asked
        .into_iter()
        .map(|m| vec![m.name, "--metric".to_owned(), better(m.higher_is_better).to_owned(), m.summary]);
    table(&["name", "measured with", "better", "what it is"], rows.chain(own).collect())
}

fn fields(json: bool) -> Result<ExitCode, Failure> {
    if json {
        let one =
            |f: &Field| json!({"name": f.name, "column": f.kind.name(), "of": f.of.words(), "what": f.what});
        output::json(&FIELDS.iter().map(one).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |f: &Field| [f.name, f.kind.name(), f.of.words(), f.what].map(str::to_owned).to_vec();
    table(&["field", "column", "of", "what it is"], FIELDS.iter().map(row).collect())
}

/// The bytes of a file that was named.
fn bytes_of(file: &Path) -> Result<Vec<u8>, Failure> {
    read(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))
}

fn sandbox() -> Result<Sandbox, Failure> {
    let sandbox = Sandbox::of_user().map_err(|e| Failure::failed(e.to_string()))?;
    if let Some(why) = &sandbox.uncached {
        output::warning(why);
    }
    Ok(sandbox)
}

fn info(metric: &str, json: bool) -> Result<ExitCode, Failure> {
    let fault = |e: &dyn std::fmt::Display| Failure::usage(format!("metric {metric}: {e}"));
    // Read once, for the hash and for what is in it.
    let mut bytes = Vec::new();
    let hash = |file: &Path| {
        bytes = read(file).map_err(std::io::Error::other)?;
        Ok(sha256_hex(&bytes))
    };
    let order = resolve(metric, hash).map_err(|e| fault(&e))?;
    let mut more = Vec::new();
    let description = match &order {
        MetricOrder::BuiltIn { name } => {
            built_in(name).map(|m| m.describe()).ok_or_else(|| fault(&"gone"))?
        }
        MetricOrder::Component { path, sha256 } => {
            let component: Component = sandbox()?.open(&bytes).map_err(|e| fault(&e))?;
            let description = component.describe().answer.map_err(|e| fault(&e))?;
            description.fields().map_err(|e| fault(&e))?;
            more = vec![
                ("file", path.display().to_string()),
                ("sha256", sha256.clone()),
                ("world", format!("llmcb:metric@{}", component.version())),
            ];
            description
        }
    };
    if json {
        let mut value = json!(description);
        for (name, text) in more {
            value[name] = text.into();
        }
        output::json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Description { name, summary, unit, higher_is_better, fields } = description;
    let mut lines = vec![
        ("name", name),
        ("measures", summary),
        ("unit", if unit.is_empty() { "none".to_owned() } else { unit }),
        ("better", better(higher_is_better).to_owned()),
        ("reads", fields.join(", ")),
    ];
    lines.extend(more);
    let text: String = lines.iter().map(|(what, text)| format!("{what:<9} {text}\n")).collect();
    output::data(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn check_file(file: &Path, json: bool) -> Result<ExitCode, Failure> {
    let bytes = bytes_of(file)?;
    let sandbox = sandbox()?;
    let mut closed = None;
    let report = check::run(&sandbox, file, &bytes, |line| {
        if !json && closed.is_none() {
            closed = output::data(&format!("{line}\n")).err();
        }
    });
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

fn new(
    global: &GlobalFlags,
    name: &str,
    language: Language,
    path: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    let folder = path.unwrap_or_else(|| PathBuf::from(name));
    let files = scaffold(name, language, &folder).map_err(Failure::usage)?;
    for file in files {
        output::data(&format!("{}\n", file.display()))?;
    }
    if global.quiet {
        return Ok(ExitCode::SUCCESS);
    }
    output::say(&format!(
        "next:\n  cd {} && sh build.sh\n  llmcb-host metrics check ./{name}.wasm\n  llmcb-host run --metric ./{name}.wasm --tasks arc_easy --limit 20",
        folder.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn component(module: &Path, out: &Path) -> Result<ExitCode, Failure> {
    let fault = |e: &dyn std::fmt::Display| Failure::usage(format!("{}: {e}", module.display()));
    let component = component_of(&bytes_of(module)?).map_err(|e| fault(&e))?;
    crate::suite::store::write_atomically(out, &component).map_err(|e| Failure::failed(e.to_string()))?;
    Ok(ExitCode::SUCCESS)
}
