//! `cargo xtask test`: everything is built first, because end-to-end tests run the real binary with real plugins.

use crate::process::{self, Result, cargo, has_cargo_command};

/// Builds the workspace and runs all tests; further arguments go to the test runner.
pub fn run(arguments: &[String]) -> Result {
    process::run(cargo().args(["build", "--release", "--workspace"]))?;
    if has_cargo_command("nextest") {
        process::run(cargo().args(["nextest", "run", "--release", "--workspace"]).args(arguments))?;
        // nextest leaves documentation examples to cargo.
        process::run(cargo().args(["test", "--release", "--workspace", "--doc"]))
    } else {
        process::run(cargo().args(["test", "--release", "--workspace"]).args(arguments))
    }
}
