//! Where TensorRT-LLM is.

use std::path::PathBuf;

use llmcb_plugin_api::sdk::{Error, Host, Library, LibraryStatus, Result};
use llmcb_runner_kit::hardware::gpus;
use llmcb_runner_kit::install::{self, sha256_of};
use llmcb_runner_kit::python::{distributions, environment_of, program, version_of};

use crate::runner::RunnerOptions;

/// How it gets there.
const BY_HAND: &str = "it needs an NVIDIA GPU, and is installed by hand as the installation guide in its documentation says (what pip's public \
                       registry has of it is a stub)";

/// TensorRT-LLM, a package in an environment of Python.
pub struct TensorRtLlm;

/// The interpreter that the options name, as they name it.
fn named(options: &RunnerOptions) -> String {
    match options.python.as_str() {
        "" => install::python(),
        named => named.to_owned(),
    }
}

/// The interpreter that the options name, where it is.
///
/// # Errors
/// It is not there.
pub(crate) fn python(options: &RunnerOptions) -> Result<PathBuf> {
    let named = named(options);
    program(&named).ok_or_else(|| Error::invalid(format!("option python: there is no program {named}")))
}

impl Library for TensorRtLlm {
    type Options = RunnerOptions;

    const NAME: &'static str = "TensorRT-LLM";

    fn find(options: &RunnerOptions) -> Result<LibraryStatus> {
        let named = named(options);
        let mut status =
            LibraryStatus { name: Self::NAME.to_owned(), place: named.clone(), ..LibraryStatus::default() };
        let Some(python) = program(&named) else {
            status.missing = Some(format!("option python: there is no program {named}"));
            return Ok(status);
        };
        status.place = python.display().to_string();
        let all = environment_of(&python).map(|folder| distributions(&folder)).unwrap_or_default();
        match version_of(&all, "tensorrt_llm") {
            Some(version) => {
                let torch = version_of(&all, "torch").unwrap_or_default();
                // What is multiplied how is chosen by the GPU.
                let gpus = gpus().join(", ");
                status.build =
                    format!("torch {torch}, packages {}, {gpus}", sha256_of(all.join("\n").as_bytes()));
                status.version = Some(version);
            }
            None => {
                status.missing = Some(format!(
                    "TensorRT-LLM is not installed for {}: {BY_HAND}; name its interpreter, as in --backend tensorrt-llm:python=/path/to/python3",
                    python.display()
                ));
            }
        }
        Ok(status)
    }

    fn set_up(options: &RunnerOptions, _host: &Host) -> Result<LibraryStatus> {
        let _ = options;
        Err(Error::unsupported(format!(
            "TensorRT-LLM cannot be set up from here: {BY_HAND}; then name its interpreter, as in --backend tensorrt-llm:python=/path/to/python3"
        )))
    }
}

/// The first version whose `prompt_logprobs` have every token of a prompt.
const SCORES: Version = Version { numbers: [1, 3, 0], candidate: 11 };

/// Whether likelihoods of a version can be relied on.
pub(crate) fn scores(version: &str) -> bool {
    Version::read(version).is_some_and(|version| version >= SCORES)
}

/// A version as Python writes it, `1.3.0rc11`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    numbers: [u32; 3],
    /// Number of the release candidate; of a release, the largest number.
    candidate: u32,
}

impl Version {
    fn read(text: &str) -> Option<Self> {
        let text = text.split(['+', '-']).next()?;
        let (release, candidate) = match text.split_once("rc") {
            Some((release, candidate)) => {
                let digits = candidate.split(|c: char| !c.is_ascii_digit()).next()?;
                (release, digits.parse().ok()?)
            }
            None => (text, u32::MAX),
        };
        let mut numbers = [0; 3];
        for (number, part) in numbers.iter_mut().zip(release.split('.')) {
            *number = part.parse().ok()?;
        }
        Some(Version { numbers, candidate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_relied_on_from_a_release_candidate_on() {
        for version in ["1.3.0rc11", "1.3.0rc12.post1", "1.3.0", "1.3.0+cu130", "1.3.1", "1.4.0rc0", "2.0"] {
            assert!(scores(version), "{version}");
        }
        for version in ["1.3.0rc10", "1.3.0rc2", "1.2.0", "1.2.1", "0.21.0", "", "unknown", "1.x"] {
            assert!(!scores(version), "{version}");
        }
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let options = RunnerOptions { python: "/nowhere/python3".to_owned(), ..RunnerOptions::default() };
        let missing = TensorRtLlm::find(&options).unwrap().missing.unwrap();
        assert_eq!(missing, "option python: there is no program /nowhere/python3");
        let folder = tempfile::tempdir().unwrap();
        let packages = folder.path().join("lib/python3.12/site-packages");
        std::fs::create_dir_all(folder.path().join("bin")).unwrap();
        std::fs::create_dir_all(packages.join("torch-2.9.0.dist-info")).unwrap();
        let python = folder.path().join("bin/python3");
        std::os::unix::fs::symlink("/bin/sh", &python).unwrap();
        let options =
            RunnerOptions { python: python.to_str().unwrap().to_owned(), ..RunnerOptions::default() };
        let missing = TensorRtLlm::find(&options).unwrap().missing.unwrap();
        assert!(
            missing.contains("needs an NVIDIA GPU") && missing.contains("tensorrt-llm:python="),
            "{missing}"
        );
        std::fs::create_dir(packages.join("tensorrt_llm-1.3.0rc11.dist-info")).unwrap();
        let found = TensorRtLlm::find(&options).unwrap();
        assert_eq!((found.version.as_deref(), found.missing), (Some("1.3.0rc11"), None));
        assert!(found.build.starts_with("torch 2.9.0, packages "), "{}", found.build);
    }
}
