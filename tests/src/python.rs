//! Environments of Python in which a stand-in is installed as the library it stands in for.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::artifacts::repository_file;
use crate::sandbox::Sandbox;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("stand-in") {
        let entry = entry.expect("stand-in");
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true if entry.file_name() == "__pycache__" => {}
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copy")),
        }
    }
}

/// An environment.
pub struct Environment {
    /// Its interpreter.
    pub python: PathBuf,
    /// Its folder of packages.
    pub packages: PathBuf,
}

/// An environment in a sandbox with the packages below `tests/standins/NAME`, and what is said to be installed there: names and versions.
///
/// # Panics
/// When there is no Python.
pub fn environment(sandbox: &Sandbox, name: &str, installed: &[(&str, &str)]) -> Environment {
    let folder = sandbox.path("env");
    let python = std::env::var("LLMCB_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let made = Command::new(python).args(["-m", "venv", "--without-pip"]).arg(&folder).status();
    assert!(made.expect("python3").success(), "an environment of Python");
    let mut pythons = std::fs::read_dir(folder.join("lib")).expect("lib").flatten();
    let packages = pythons.next().expect("a Python").path().join("site-packages");
    copy(&repository_file("tests/standins").join(name), &packages);
    for (name, version) in installed {
        let folder = packages.join(format!("{name}-{version}.dist-info"));
        std::fs::create_dir(&folder).expect("folder");
        let text = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
        std::fs::write(folder.join("METADATA"), text).expect("metadata");
    }
    Environment { python: folder.join("bin/python3"), packages }
}
