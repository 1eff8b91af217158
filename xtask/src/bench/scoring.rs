//! Scoring throughput on HellaSwag, in float32, against transformers at its best batch size.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use super::Bench;
use crate::process::{Result, host, output, root, run};

const ITEMS: &str = "40";
const BATCH_SIZES: [&str; 5] = ["1", "4", "8", "16", "32"];

#[derive(Deserialize)]
struct Theirs {
    /// Seconds of scoring by batch size, the model being in memory.
    seconds: BTreeMap<String, f64>,
    /// Seconds of opening the model and of tokenising.
    preparation: f64,
    log_likelihoods: Vec<f64>,
    torch: String,
}

/// Runs both sides and prints the ratio.
pub fn compare(bench: &Bench) -> Result {
    let dense = bench.dense_checkpoint()?;
    let ours = bench.fresh("ours")?;
    run(Command::new(host())
        .args(["eval", "--tasks", "hellaswag", "--limit", ITEMS, "--model"])
        .arg(&dense)
        .arg("--out")
        .arg(&ours))?;
    let (items, stage) = evaluated(&ours)?;
    let log_likelihoods = log_likelihoods(&items)?;

    let theirs = output(
        Command::new(bench.python()?)
            .arg(root().join("xtask/bench/score_transformers.py"))
            .arg(&dense)
            .arg(&items)
            .arg(&bench.threads)
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
