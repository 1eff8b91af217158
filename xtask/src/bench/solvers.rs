//! The solvers of GPTQ and SparseGPT alone, on matrices of the shapes of one block, against PyTorch.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::Bench;
use crate::process::{Result, output, release_folder, root};

/// Seconds and the solver's estimate of the outputs' squared error, of one side.
#[derive(Deserialize)]
struct Solved {
    seconds: f64,
    loss: f64,
}

/// Runs both sides and prints the ratios.
pub fn compare(bench: &Bench) -> Result {
    let matrices = bench.fresh("matrices")?;
    std::fs::create_dir_all(&matrices).map_err(|e| format!("{}: {e}", matrices.display()))?;
    // The script writes the matrices as well, so it comes first.
    let theirs = parse(&output(
        Command::new(bench.python()?)
            .arg(root().join("xtask/bench/solve_torch.py"))
            .arg(&matrices)
            .arg(&bench.threads),
    )?)?;
    let ours = parse(&output(
        Command::new(release_folder().join("examples").join("solve"))
            .arg(Path::new(&matrices))
            .arg(&bench.threads),
    )?)?;
    for (method, theirs) in &theirs {
        let ours = ours.get(method).ok_or_else(|| format!("`solve` left out {method}"))?;
        println!("solver of {method}, the seven matrices of a block of SmolLM2 135M");
        println!(
            "  published / llmcb-host: {:.2}x ({:.3} s, {:.3} s); relative difference in loss {:.1e}",
            theirs.seconds / ours.seconds,
            theirs.seconds,
            ours.seconds,
            (ours.loss / theirs.loss - 1.0).abs()
        );
    }
    Ok(())
}

fn parse(text: &str) -> Result<BTreeMap<String, Solved>> {
    serde_json::from_str(text).map_err(|e| format!("{text}: {e}"))
}
