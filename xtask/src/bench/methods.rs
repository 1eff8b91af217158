//! GPTQ and SparseGPT end to end, in float32, against their published algorithms in PyTorch on the same tokens.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use super::Bench;
use crate::process::{Result, host, output, root, run};

const METHODS: [&str; 2] =
    ["gptq:bits=4,group_size=128,symmetric=true,act_order=true", "sparsegpt:ratio=0.5"];
const WINDOWS: &str = "16";
const LENGTH: &str = "2048";
const EVALUATE_WINDOWS: &str = "4";

/// What `tests/published/run.py` prints.
#[derive(Deserialize)]
struct Theirs {
    seconds: Option<Seconds>,
    perplexity: f64,
    torch: String,
}

#[derive(Deserialize)]
struct Seconds {
    forward: f64,
    solve: f64,
    whole: f64,
}

/// Runs both sides of each method and prints the ratios.
pub fn compare(bench: &Bench) -> Result {
    let dense = bench.dense_checkpoint()?;
    // Any text will do for a comparison of times, and these are at hand.
    let calibration = sources(bench, "backends/transformer/src", "calibration.txt")?;
    let evaluation = sources(bench, "host/src/suite", "evaluation.txt")?;
    for method in METHODS {
        let ours = bench.fresh("ours-compressed")?;
        run(Command::new(host())
            .args(["compress", "--method", method, "--format", "dense"])
            .args(["--calibration-windows", WINDOWS, "--calibration-length", LENGTH, "--calibration"])
            .arg(&calibration)
            .arg("--model")
            .arg(&dense)
            .arg("--out")
            .arg(&ours))?;
        let stage = result(&ours)?;
        let blocks = number(&stage, "/phases/blocks")?;
        let whole = number(&stage, "/wall_seconds")?;
        let memory = number(&stage, "/peak_memory_bytes")?;

        let published = |model: &Path, method: &str| -> Result<Theirs> {
            let text = output(
                Command::new(bench.python()?)
                    .arg(root().join("tests/published/run.py"))
                    .args(["--method", method, "--windows", WINDOWS, "--length", LENGTH])
                    .args(["--threads", &bench.threads, "--evaluate-windows", EVALUATE_WINDOWS, "--model"])
                    .arg(model)
                    .arg("--calibration")
                    .arg(&calibration)
                    .arg("--evaluate")
                    .arg(&evaluation),
            )?;
            serde_json::from_str(&text).map_err(|e| format!("run.py: {e}"))
        };
        let theirs = published(&dense, method)?;
        let seconds = theirs.seconds.ok_or("run.py timed nothing")?;
        let check = published(&ours, "dense")?;
        println!("{method}, {WINDOWS} windows of {LENGTH} tokens, float32");
        println!(
            "  published (torch {}) / llmcb-host: {:.2}x over the blocks ({:.1} s, {:.1} s of it its solver; {blocks:.1} s), with loading {:.2}x",
            theirs.torch,
            (seconds.forward + seconds.solve) / blocks,
            seconds.forward + seconds.solve,
            seconds.solve,
            seconds.whole / whole,
        );
        println!("  peak memory of llmcb-host: {:.0} MiB", memory / 1048576.0);
        println!(
            "  perplexity on other text, scored by transformers: published {:.4}, llmcb-host {:.4}",
            theirs.perplexity, check.perplexity
        );
    }
    Ok(())
}

/// A text of the repository's own sources under a folder.
fn sources(bench: &Bench, under: &str, name: &str) -> Result<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(under)];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "rs" => files.push(path),
                _ => {}
            }
        }
    }
    files.sort();
    let mut text = String::new();
    for file in files {
        text += &std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    let path = bench.folder.join(name);
    std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

/// What a compression says of itself.
fn result(checkpoint: &Path) -> Result<Value> {
    let file = checkpoint.join("llmcb-result.json");
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))
}

fn number(result: &Value, pointer: &str) -> Result<f64> {
    result
        .pointer(pointer)
        .and_then(Value::as_f64)
        .ok_or_else(|| format!("llmcb-result.json has no {pointer}"))
}
