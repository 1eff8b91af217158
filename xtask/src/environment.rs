//! Python packages in a virtual environment of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Result, run};

/// The interpreter; installs the packages when they are not there.
pub fn python(folder: &Path, packages: &[&str]) -> Result<PathBuf> {
    let environment = folder.join("venv");
    let python = environment.join("bin/python");
    let ready = environment.join("installed");
    if std::fs::read_to_string(&ready).is_ok_and(|found| found == packages.join(" ")) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
    std::fs::write(&ready, packages.join(" ")).map_err(|e| format!("{}: {e}", ready.display()))?;
    Ok(python)
}
