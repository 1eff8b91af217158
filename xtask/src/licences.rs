//! `cargo xtask licences`: every dependency's licence must be one that deny.toml allows.

use std::collections::BTreeSet;

use serde::Deserialize;
use spdx::{Expression, Licensee};

use crate::process::{self, Result, cargo, has_cargo_command, output, root};

#[derive(Deserialize)]
struct Configuration {
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// Uses cargo-deny where it is installed, and the same configuration without it.
pub fn run() -> Result {
    if has_cargo_command("deny") {
        return process::run(cargo().args(["deny", "check", "licenses", "bans", "sources"]));
    }
    let text = std::fs::read_to_string(root().join("deny.toml")).map_err(|e| format!("deny.toml: {e}"))?;
    let configuration: Configuration = toml::from_str(&text).map_err(|e| format!("deny.toml: {e}"))?;
    let allowed = configuration
        .licenses
        .allow
        .iter()
        .map(|l| Licensee::parse(l).map_err(|e| format!("deny.toml: `{l}`: {e}")))
        .collect::<Result<Vec<_>>>()?;

    let metadata = output(cargo().args(["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Metadata = serde_json::from_str(&metadata).map_err(|e| format!("cargo metadata: {e}"))?;
    let mut faults = BTreeSet::new();
    for package in &metadata.packages {
        let name = format!("{} {}", package.name, package.version);
        if package.source.as_deref().is_some_and(|s| !s.starts_with("registry+")) {
            faults.insert(format!("{name}: does not come from a registry"));
        }
        match package.license.as_deref().map(|l| (l, Expression::parse_mode(l, spdx::ParseMode::LAX))) {
            None => {
                faults.insert(format!("{name}: names no licence"));
            }
            Some((text, Err(_))) => {
                faults.insert(format!("{name}: `{text}` is no SPDX expression"));
            }
            Some((text, Ok(expression))) => {
                if !expression.evaluate(|required| allowed.iter().any(|l| l.satisfies(required))) {
                    faults.insert(format!("{name}: `{text}` is not allowed by deny.toml"));
                }
            }
        }
    }
    if faults.is_empty() {
        println!("licences: {} packages, all allowed by deny.toml", metadata.packages.len());
        return Ok(());
    }
    Err(format!("licences:\n  {}", faults.into_iter().collect::<Vec<_>>().join("\n  ")))
}
