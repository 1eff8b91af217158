//! `cargo xtask bench`: ratios against published Python implementations, measured in one run on one machine.

mod methods;
mod metrics;
mod scoring;
mod solvers;

use std::path::PathBuf;
use std::process::Command;

use crate::environment;
use crate::process::{Result, cargo, host, run, target_folder};

/// What is compared with.
const PACKAGES: [&str; 3] = ["torch==2.13.0", "transformers==5.17.0", "numpy"];

const HELP: &str = "\
cargo xtask bench [COMPARISON...]     all of them if none is named

  scoring     log-likelihoods of HellaSwag against transformers
  methods     GPTQ and SparseGPT, end to end, against their published algorithms in PyTorch
  solvers     the same, the solver alone on one block's matrices
  metrics     metric components in C, JavaScript and Python against the built-in metrics
";

/// What all comparisons share.
struct Bench {
    /// Where files are kept between runs.
    folder: PathBuf,
    threads: String,
}

/// Runs the named comparisons, or all.
pub fn run_named(names: &[String]) -> Result {
    type Comparison = fn(&Bench) -> Result;
    let all: [(&str, Comparison); 4] = [
        ("scoring", scoring::compare),
        ("methods", methods::compare),
        ("solvers", solvers::compare),
        ("metrics", metrics::compare),
    ];
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|(known, _)| known != name)) {
        return Err(format!("there is no comparison `{unknown}`\n\n{HELP}"));
    }
    run(cargo().args(["build", "--release", "--workspace", "--bins", "--lib", "--examples"]))?;
    let folder = target_folder().join("bench");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let bench =
        Bench { folder, threads: std::thread::available_parallelism().map_or(1, usize::from).to_string() };
    for (_, compare) in all.iter().filter(|(known, _)| names.is_empty() || names.iter().any(|n| n == known)) {
        compare(&bench)?;
    }
    Ok(())
}

impl Bench {
    /// The default model in the layout that transformers loads: it comes as a GGUF file, and pruning nothing writes it.
    fn dense_checkpoint(&self) -> Result<PathBuf> {
        let dense = self.folder.join("dense");
        if !dense.join("config.json").exists() {
            run(Command::new(host())
                .args(["compress", "--model", "smollm2-135m-instruct", "--method", "magnitude:ratio=0"])
                .args(["--format", "dense", "--out"])
                .arg(&dense))?;
        }
        Ok(dense)
    }

    /// The interpreter with the packages compared with.
    fn python(&self) -> Result<PathBuf> {
        environment::python(&self.folder, &PACKAGES)
    }

    /// A folder that is not there yet.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        Ok(folder)
    }
}
