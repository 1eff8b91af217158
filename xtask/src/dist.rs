//! `cargo xtask dist`: a release, as a folder that needs nothing of this repository, and an archive of it.
//!
//! ```text
//! llmcb-host-VERSION-ARCH-linux-gnu/
//!   bin/llmcb-host, bin/plugins/*.so     the program finds plugins beside itself
//!   sdk/llmcb-plugin-api/                what plugins are written against, as a crate of its own
//!   guide/                               the author's guide
//!   README.md, CHANGELOG.md, LICENSE-*, SHA256SUMS
//! ```

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::process::{self, Result, cargo, host, output, release_folder, root};

/// The crate that plugins are written against.
const SDK: &str = "llmcb-plugin-api";

/// Files of the repository's root that a release has.
const PAPERS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];

/// Those that the SDK's folder has as well.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

const HELP: &str = "\
cargo xtask dist [--out DIR] [--built] [--no-archive]

  --out DIR      where the folder and the archive are written (dist)
  --built        take what was built before with `cargo build --release`
  --no-archive   write the folder alone
";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_default_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// What the user asked for.
struct Asked {
    out: PathBuf,
    built: bool,
    archive: bool,
}

impl Asked {
    fn of(arguments: &[String]) -> Result<Self> {
        let mut asked = Asked { out: root().join("dist"), built: false, archive: true };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--out" => {
                    let folder =
                        arguments.next().ok_or_else(|| format!("--out names no folder\n\n{HELP}"))?;
                    asked.out = std::path::absolute(folder).map_err(|e| format!("{folder}: {e}"))?;
                }
                "--built" => asked.built = true,
                "--no-archive" => asked.archive = false,
                other => return Err(format!("dist has no option `{other}`\n\n{HELP}")),
            }
        }
        Ok(asked)
    }
}

fn at<T>(path: &Path, result: std::io::Result<T>) -> Result<T> {
    result.map_err(|e| format!("{}: {e}", path.display()))
}

fn make_folder_of(file: &Path) -> Result {
    file.parent().map_or(Ok(()), |folder| at(folder, fs::create_dir_all(folder)))
}

fn copy(from: &Path, to: &Path) -> Result {
    make_folder_of(to)?;
    at(from, fs::copy(from, to)).map(drop)
}

/// A copy of what was linked, without the lines of sources, which are four fifths of it; names of functions stay, for backtraces.
fn copy_stripped(from: &Path, to: &Path) -> Result {
    make_folder_of(to)?;
    // It belongs to the linker's package.
    output(Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(from)).map(drop)
}

/// Makes the release.
pub fn run(arguments: &[String]) -> Result {
    if arguments.iter().any(|argument| argument == "--help") {
        print!("{HELP}");
        return Ok(());
    }
    let asked = Asked::of(arguments)?;
    if !asked.built {
        process::run(cargo().args(["build", "--release", "--locked"]))?;
    }
    let metadata = output(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: Metadata = serde_json::from_str(&metadata).map_err(|e| format!("cargo metadata: {e}"))?;
    let version_of = |name: &str| {
        let package = metadata.packages.iter().find(|package| package.name == name);
        package.map(|p| p.version.as_str()).ok_or_else(|| format!("the workspace has no package {name}"))
    };
    let name = format!("llmcb-host-{}-{}-linux-gnu", version_of("llmcb-host")?, std::env::consts::ARCH);
    let folder = asked.out.join(&name);
    // Nobody finds half a release under its name.
    let partial = asked.out.join(format!("{name}.partial"));
    for old in [&folder, &partial] {
        if old.exists() {
            at(old, fs::remove_dir_all(old))?;
        }
    }
    copy_stripped(&host(), &partial.join("bin/llmcb-host"))?;
    for library in libraries(&metadata) {
        let file = format!("lib{library}.so");
        copy_stripped(&release_folder().join(&file), &partial.join("bin/plugins").join(&file))?;
    }
    let sdk = partial.join("sdk");
    unpack_sdk(version_of(SDK)?, &asked.out, &sdk)?;
    for paper in PAPERS {
        copy(&root().join(paper), &partial.join(paper))?;
    }
    for licence in LICENCES {
        copy(&root().join(licence), &sdk.join(SDK).join(licence))?;
    }
    let guide = sdk.join(SDK).join("guide");
    for chapter in files(&guide)? {
        copy(&guide.join(&chapter), &partial.join("guide").join(&chapter))?;
    }
    write_sums(&partial)?;
    at(&folder, fs::rename(&partial, &folder))?;
    println!("{}", folder.display());
    if asked.archive {
        let archive = asked.out.join(format!("{name}.tar.gz"));
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-czf"]);
        process::run(tar.arg(&archive).arg("-C").arg(&asked.out).arg(&name))?;
        println!("{}", archive.display());
    }
    Ok(())
}

/// Libraries of the plugins that belong to the product.
fn libraries(metadata: &Metadata) -> Vec<&str> {
    let shipped = |package: &&Package| metadata.workspace_default_members.contains(&package.id);
    let targets = metadata.packages.iter().filter(shipped).flat_map(|package| &package.targets);
    targets
        .filter(|target| target.kind.iter().any(|kind| kind == "cdylib"))
        .map(|target| target.name.as_str())
        .collect()
}

/// The SDK as a registry would have it: its manifest names versions, and no workspace.
fn unpack_sdk(version: &str, out: &Path, into: &Path) -> Result {
    let target = out.join("package");
    let mut package = cargo();
    // What it depends on was built before, and so is here.
    package.args(["package", "--package", SDK, "--no-verify", "--allow-dirty", "--offline", "--quiet"]);
    process::run(package.arg("--target-dir").arg(&target))?;
    let archive = target.join("package").join(format!("{SDK}-{version}.crate"));
    at(into, fs::create_dir_all(into))?;
    // With the time of now: cargo packs files with one of long ago, and would take a later SDK in the same place for the same.
    process::run(Command::new("tar").arg("-xzmf").arg(&archive).arg("-C").arg(into))?;
    let unpacked = into.join(format!("{SDK}-{version}"));
    at(&unpacked, fs::rename(&unpacked, into.join(SDK)))?;
    // What says how it was packed, not what it is.
    for left in [".cargo_vcs_info.json", "Cargo.toml.orig", "Cargo.lock"] {
        let file = into.join(SDK).join(left);
        if file.exists() {
            at(&file, fs::remove_file(&file))?;
        }
    }
    at(&target, fs::remove_dir_all(&target))
}

/// Files below a folder, relative to it, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in at(&next, fs::read_dir(&next))? {
            let path = at(&next, entry)?.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(relative) = path.strip_prefix(folder) {
                found.push(relative.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn sha256(file: &Path) -> Result<String> {
    let mut open = at(file, fs::File::open(file))?;
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match at(file, open.read(&mut piece))? {
            0 => break,
            read => hasher.update(&piece[..read]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Sums that `sha256sum --check SHA256SUMS` reads.
fn write_sums(folder: &Path) -> Result {
    let mut text = String::new();
    for file in files(folder)? {
        text.push_str(&format!("{}  {}\n", sha256(&folder.join(&file))?, file.display()));
    }
    let sums = folder.join("SHA256SUMS");
    at(&sums, fs::write(&sums, text))
}
