//! Cargo, run by tests that build plugins as their authors would.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::artifacts;
use crate::sandbox::{Finished, Sandbox};

/// Longer than the SDK's dependencies take to build on a small machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(900);

/// A folder beside the profile's own, kept between runs so that dependencies are built once.
pub fn target_folder(name: &str) -> PathBuf {
    artifacts::profile_folder().parent().expect("the profile's folder lies in target").join(name)
}

/// Gives a command the sandbox's surroundings, and what cargo needs besides: its own home, where crates were fetched to, and the toolchains.
pub fn surround(sandbox: &Sandbox, command: &mut Command, target: &Path) {
    sandbox.surround(command);
    for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(folder));
        if let Some(place) = std::env::var_os(name).map(PathBuf::from).or_else(home) {
            command.env(name, place);
        }
    }
    if let Some(toolchain) = std::env::var_os("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    command.env("CARGO_TARGET_DIR", target).env("CARGO_INCREMENTAL", "0");
}

/// Runs a command that surrounds itself with what cargo needs, to its end.
pub fn run(sandbox: &Sandbox, mut command: Command, target: &Path) -> Finished {
    surround(sandbox, &mut command, target);
    sandbox.start(command).wait_for(PATIENCE)
}
