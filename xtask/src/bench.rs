//! `cargo xtask bench`: ratios against published Python implementations, measured in one run on one machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::process::{Result, cargo, host, output, release_folder, root, run};

const ITEMS: &str = "40";
const BATCH_SIZES: [&str; 5] = ["1", "4", "8", "16", "32"];
/// What the bench installs into its own virtual environment.
const PACKAGES: [&str; 3] = ["torch==2.13.0", "transformers==5.17.0", "numpy"];

#[derive(Deserialize)]
struct Theirs {
    /// Seconds of scoring by batch size, the model being in memory.
    seconds: BTreeMap<String, f64>,
    /// Seconds of opening the model and of tokenising.
    preparation: f64,
    log_likelihoods: Vec<f64>,
    torch: String,
}

/// Runs all comparisons.
pub fn run_all() -> Result {
    run(cargo().args(["build", "--release"]))?;
    let folder = release_folder().parent().unwrap_or(Path::new("target")).join("bench");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let python = environment(&folder)?;
    scoring(&folder, &python)
}

fn environment(folder: &Path) -> Result<PathBuf> {
    let environment = folder.join("venv");
    let python = environment.join("bin/python");
    let ready = environment.join("installed");
    if std::fs::read_to_string(&ready).is_ok_and(|found| found == PACKAGES.join(" ")) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
    std::fs::write(&ready, PACKAGES.join(" ")).map_err(|e| format!("{}: {e}", ready.display()))?;
    Ok(python)
}

/// Scoring throughput on HellaSwag, in float32, against transformers at its best batch size.
fn scoring(folder: &Path, python: &Path) -> Result {
    // Pruning nothing writes the model, which comes as a GGUF file, in the layout that transformers loads.
    let dense = folder.join("dense");
    if !dense.join("config.json").exists() {
        let out = dense.as_os_str();
        run(Command::new(host())
            .args(["compress", "--model", "smollm2-135m-instruct", "--method", "magnitude:ratio=0", "--out"])
            .arg(out))?;
    }
    let ours = folder.join("ours");
    if ours.exists() {
        std::fs::remove_dir_all(&ours).map_err(|e| format!("{}: {e}", ours.display()))?;
    }
    run(Command::new(host())
        .args(["eval", "--tasks", "hellaswag", "--limit", ITEMS, "--model"])
        .arg(&dense)
        .arg("--out")
        .arg(&ours))?;
    let (items, stage) = evaluated(&ours)?;
    let log_likelihoods = log_likelihoods(&items)?;

    let threads = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let theirs = output(
        Command::new(python)
            .arg(root().join("xtask/bench/score_transformers.py"))
            .arg(&dense)
            .arg(&items)
            .arg(threads)
            .args(BATCH_SIZES),
    )?;
    let theirs: Theirs = serde_json::from_str(&theirs).map_err(|e| format!("score_transformers.py: {e}"))?;
    if theirs.log_likelihoods.len() != log_likelihoods.len() {
        return Err(format!("{} scores against {}", log_likelihoods.len(), theirs.log_likelihoods.len()));
    }
    let difference =
        log_likelihoods.iter().zip(&theirs.log_likelihoods).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let (batch, best) = theirs
        .seconds
        .iter()
        .min_by(|a, b| a.1.total_cmp(b.1))
        .ok_or("score_transformers.py timed nothing")?;
    println!("scoring, HellaSwag, {} choices, float32", log_likelihoods.len());
    println!(
        "  transformers (torch {}, its best batch size {batch}) / llmcb-host: {:.2}x; with loading and tokenising {:.2}x",
        theirs.torch,
        best / stage.scoring,
        (best + theirs.preparation) / stage.whole
    );
    println!("  largest difference in log-likelihood: {difference:.1e}");
    Ok(())
}

/// Seconds of an evaluate stage.
struct Stage {
    /// From a model that is in memory and requests that are token ids to scores.
    scoring: f64,
    /// From opening the model to metrics.
    whole: f64,
}

/// The items and the seconds of the one evaluate stage of a result directory.
fn evaluated(results: &Path) -> Result<(PathBuf, Stage)> {
    let stages = results.join("stages");
    let entries = std::fs::read_dir(&stages).map_err(|e| format!("{}: {e}", stages.display()))?;
    for entry in entries.flatten() {
        let file = entry.path().join("result.json");
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let result: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
        let seconds = (result["phases"]["scoring"].as_f64(), result["wall_seconds"].as_f64());
        if let (Some("evaluate"), (Some(scoring), Some(whole))) = (result["kind"].as_str(), seconds) {
            return Ok((entry.path().join("items.jsonl"), Stage { scoring, whole }));
        }
    }
    Err(format!("{}: no evaluation was done", stages.display()))
}

fn log_likelihoods(items: &Path) -> Result<Vec<f64>> {
    let text = std::fs::read_to_string(items).map_err(|e| format!("{}: {e}", items.display()))?;
    let mut all = Vec::new();
    for line in text.lines() {
        let item: Value = serde_json::from_str(line).map_err(|e| format!("{}: {e}", items.display()))?;
        let values =
            item["answered"]["log_likelihoods"].as_array().ok_or("an item has no log-likelihoods")?;
        all.extend(values.iter().filter_map(Value::as_f64));
    }
    Ok(all)
}
