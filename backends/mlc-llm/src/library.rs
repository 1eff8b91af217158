//! Where MLC-LLM and TVM are.

use std::path::{Path, PathBuf};

use llmcb_plugin_api::sdk::{Error, Library, LibraryStatus, Result};
use llmcb_runner_kit::hardware::{gpus, processor};
use llmcb_runner_kit::install::{self, sha256};
use llmcb_runner_kit::python::{distributions, environment_of, program, site_packages, version_of};

use crate::runner::{Device, Engine, RunnerOptions};

/// MLC-LLM, a package in an environment of Python, with TVM's shared objects.
pub struct MlcLlm;

const INSTALL: &str = "install mlc_llm as its documentation says (it is not in the package registry of pip), and name the interpreter, as in \
     --backend mlc-llm:python=/path/to/env/bin/python";

/// An installation.
pub(crate) struct Installation {
    /// The interpreter.
    pub python: PathBuf,
    /// Version of MLC-LLM.
    version: String,
    /// Versions of what it rests on.
    rest: String,
    /// TVM's C interface, and the runtimes that register with it.
    pub interface: Option<PathBuf>,
    pub runtimes: Vec<PathBuf>,
}

impl Installation {
    /// Looks for the installation that options name; why there is none, where there is none.
    pub(crate) fn find(options: &RunnerOptions) -> std::result::Result<Self, String> {
        let name = if options.python.is_empty() { install::python() } else { options.python.clone() };
        let python = program(&name).ok_or_else(|| match options.python.as_str() {
            "" => format!("MLC-LLM is not installed: {INSTALL}"),
            named => format!("option python: {named} is no file"),
        })?;
        let environment = environment_of(&python)
            .ok_or_else(|| format!("option python: {} is in no environment", python.display()))?;
        let all = distributions(&environment);
        // Nightly builds carry their device in their name: mlc_llm_nightly_cu128.
        let own = all.iter().find(|one| one.starts_with("mlc_llm"));
        let version = own.and_then(|one| one.rsplit_once('-')).map(|(_, version)| version.to_owned());
        let version = version.ok_or_else(|| {
            format!("MLC-LLM is not installed in the environment of {}: {INSTALL}", python.display())
        })?;
        let tvm = all.iter().find(|one| one.starts_with("mlc_ai") || one.starts_with("apache_tvm-"));
        let rest = format!(
            "{} {}",
            tvm.map_or("tvm of its own", String::as_str),
            version_of(&all, "apache_tvm_ffi").map_or_else(String::new, |version| format!("ffi {version}")),
        );
        let folders = site_packages(&environment);
        let first = |names: &[&str]| {
            folders.iter().flat_map(|f| names.iter().map(|n| f.join(n))).find(|file| file.is_file())
        };
        let mut runtimes = Vec::from_iter(first(&[
            "tvm/lib/libtvm_runtime.so",
            "tvm/libtvm_runtime.so",
            "tvm/lib/libtvm.so",
            "tvm/libtvm.so",
        ]));
        if options.device == Device::Cuda {
            runtimes.extend(first(&["tvm/lib/libtvm_runtime_cuda.so", "tvm/libtvm_runtime_cuda.so"]));
        }
        // Libraries of others that models may call, such as cuBLAS.
        runtimes.extend(first(&["tvm/lib/libtvm_runtime_extra.so", "tvm/libtvm_runtime_extra.so"]));
        let interface = first(&["tvm_ffi/lib/libtvm_ffi.so"]);
        Ok(Installation { python, version, rest, interface, runtimes })
    }

    /// What decides results besides the version of MLC-LLM.
    fn build(&self, device: Device) -> Result<String> {
        let runtimes: Vec<String> = self.runtimes.iter().map(|file| sha256(file)).collect::<Result<_>>()?;
        // Models are compiled for the very chip.
        let chip = match device {
            Device::Cpu => processor(),
            Device::Cuda => gpus().join(", "),
        };
        Ok(format!("{} {} for {chip}", self.rest.trim(), runtimes.join(" ")))
    }

    /// TVM's C interface and its runtimes.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn tvm(&self) -> Result<(&Path, Vec<&Path>)> {
        match &self.interface {
            Some(interface) if !self.runtimes.is_empty() => {
                Ok((interface, self.runtimes.iter().map(PathBuf::as_path).collect()))
            }
            _ => Err(Error::unsupported(NO_TVM)),
        }
    }
}

const NO_TVM: &str = "the environment of MLC-LLM has no libtvm_ffi.so or no libtvm_runtime.so, which engine=ffi loads: install a newer MLC-LLM \
                      with tvm-ffi 0.1, or use engine=serve";

impl Library for MlcLlm {
    type Options = RunnerOptions;

    const NAME: &'static str = "MLC-LLM";

    fn find(options: &RunnerOptions) -> Result<LibraryStatus> {
        let mut status = LibraryStatus { name: Self::NAME.to_owned(), ..LibraryStatus::default() };
        match Installation::find(options) {
            Err(missing) => status.missing = Some(missing),
            Ok(found) => {
                status.place = found.python.display().to_string();
                status.build = found.build(options.device)?;
                if options.engine == Engine::Ffi && found.tvm().is_err() {
                    status.missing = Some(NO_TVM.to_owned());
                }
                status.version = Some(found.version);
            }
        }
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_and_what_is_there_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let packages = folder.path().join("lib/python3.12/site-packages");
        let python = folder.path().join("bin/python3");
        std::fs::create_dir_all(folder.path().join("bin")).unwrap();
        std::fs::create_dir_all(&packages).unwrap();
        let mut options = RunnerOptions { python: python.display().to_string(), ..RunnerOptions::default() };
        let missing = |options: &RunnerOptions| MlcLlm::find(options).unwrap().missing.unwrap_or_default();
        assert!(missing(&options).contains("is no file"));
        std::fs::write(&python, "").unwrap();
        assert!(missing(&options).contains("is not installed in the environment"));
        for one in ["mlc_llm_nightly_cpu-0.20.dev1", "mlc_ai_nightly_cpu-0.20.dev2", "apache_tvm_ffi-0.1.9"] {
            std::fs::create_dir_all(packages.join(format!("{one}.dist-info"))).unwrap();
        }
        assert!(missing(&options).contains("libtvm_ffi.so"));
        options.engine = Engine::Serve;
        let status = MlcLlm::find(&options).unwrap();
        assert_eq!((status.version.as_deref(), status.missing), (Some("0.20.dev1"), None));
        assert!(status.build.contains("mlc_ai_nightly_cpu-0.20.dev2 ffi 0.1.9"), "{}", status.build);
        for file in ["tvm_ffi/lib/libtvm_ffi.so", "tvm/libtvm_runtime.so"] {
            let file = packages.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "x").unwrap();
        }
        options.engine = Engine::Ffi;
        assert_eq!(MlcLlm::find(&options).unwrap().missing, None);
    }
}
