//! What can be wrong when a model is opened, run or written.

use std::path::{Path, PathBuf};

/// A `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What is wrong. Each message names the file, tensor or argument, and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model's files cannot be read.
    #[error(transparent)]
    Files(#[from] llmcb_model_files::Error),
    /// The configuration lacks a key, or has one with a value that makes no sense.
    #[error("{model}: configuration: {problem}; {remedy}")]
    Config {
        /// The model, as the user named it.
        model: String,
        /// What is wrong.
        problem: String,
        /// The way out.
        remedy: String,
    },
    /// The architecture is none of those that are implemented.
    #[error(
        "{model}: architecture `{architecture}` is not supported by the embedded backend (supported: {supported}); \
         choose a model of these families, or another backend"
    )]
    UnsupportedArchitecture {
        /// The model, as the user named it.
        model: String,
        /// Its `model_type`.
        architecture: String,
        /// Those that are supported, comma-separated.
        supported: String,
    },
    /// A tensor has another shape than the configuration gives it.
    #[error(
        "{model}: tensor `{tensor}` is {found:?}, but the configuration makes it {expected:?}; \
         configuration and weights are not of the same model: fetch both again from one place"
    )]
    Shape {
        /// The model, as the user named it.
        model: String,
        /// The tensor's name.
        tensor: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The shape that follows from the configuration.
        expected: Vec<usize>,
    },
    /// A tensor that the configuration calls for is not in the file.
    #[error(
        "{model}: there is no tensor `{tensor}`, which the configuration calls for; \
         the checkpoint is incomplete or its configuration is of another model"
    )]
    MissingTensor {
        /// The model, as the user named it.
        model: String,
        /// The tensor's name.
        tensor: String,
    },
    /// A tensor cannot be decoded, or has values that are not finite.
    #[error("{model}: tensor `{tensor}` cannot be read: {problem}; the file is damaged, fetch it again")]
    Tensor {
        /// The model, as the user named it.
        model: String,
        /// The tensor's name.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// An argument of a call makes no sense for this model.
    #[error("{what}: {problem}")]
    Argument {
        /// Which argument.
        what: String,
        /// What is wrong with it and what it should be.
        problem: String,
    },
    /// Calls were made in an order that makes no sense.
    #[error("{0}")]
    Order(String),
    /// A file cannot be written.
    #[error("{}: cannot {action}: {source}; check the path, its permissions and the free space", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The tensor library failed.
    #[error("tensor library: {0}")]
    Candle(#[from] candle_core::Error),
    /// The threads could not be started.
    #[error("cannot start {threads} compute threads: {source}; ask for fewer")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The reason.
        source: rayon::ThreadPoolBuildError,
    },
    /// The caller asked to stop.
    #[error("stopped on request")]
    Cancelled,
}

impl Error {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Error::Io { path, action, source }
    }

    /// The same error with the model's name where it was not known.
    pub(crate) fn of_model(self, name: &str) -> Self {
        match self {
            Error::Tensor { tensor, problem, .. } => {
                Error::Tensor { model: name.to_owned(), tensor, problem }
            }
            Error::MissingTensor { tensor, .. } => Error::MissingTensor { model: name.to_owned(), tensor },
            other => other,
        }
    }

    /// An [`Error::Argument`].
    pub fn argument(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Error::Argument { what: what.into(), problem: problem.into() }
    }
}
