//! `cargo xtask test`: everything is built first, because end-to-end tests run the real binary with real plugins.

use crate::process::{self, Result, cargo, has_cargo_command, target_folder};
use crate::{environment, guests};

/// TVM and its interface, which go together.
const TVM: [&str; 3] = ["apache-tvm==0.26.0", "apache-tvm-ffi==0.1.13.post3", "numpy==2.4.6"];

/// Builds the workspace and runs all tests; further arguments go to the test runner.
pub fn run(arguments: &[String]) -> Result {
    // All targets, as the test runner will want them: with other features the libraries beneath would be built twice.
    process::run(cargo().args(["build", "--release", "--workspace", "--all-targets"]))?;
    guests::build()?;
    if has_cargo_command("nextest") {
        process::run(cargo().args(["nextest", "run", "--release", "--workspace"]).args(arguments))?;
        // nextest leaves documentation examples to cargo.
        process::run(cargo().args(["test", "--release", "--workspace", "--doc"]))
    } else {
        process::run(cargo().args(["test", "--release", "--workspace"]).args(arguments))
    }
}

/// `cargo xtask tvm`: installs TVM into target/, and runs the tests that need it.
pub fn run_with_tvm() -> Result {
    process::run(cargo().args(["build", "--release", "--workspace", "--all-targets"]))?;
    let folder = target_folder().join("tvm");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let python = environment::python(&folder, &TVM)?;
    let mut tests = cargo();
    tests.args(["test", "--release", "--workspace", "--test", "mlc_llm", "--", "--ignored"]);
    process::run(tests.env("LLMCB_TVM_PYTHON", python))
}
