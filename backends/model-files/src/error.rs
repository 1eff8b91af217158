//! What can be wrong with a model's files.

use std::path::{Path, PathBuf};

/// A `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What is wrong with a model's files. Each message names the file, the thing wrong in it, and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("{}: cannot {action}: {source}; check the path, its permissions and the free space", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The path is no model in a layout that can be read.
    #[error("{}: {problem}; {remedy}", path.display())]
    NotAModel {
        /// The path that was given.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// The way out.
        remedy: String,
    },
    /// `config.json`, or the metadata of a GGUF that stands for it, is broken or incomplete.
    #[error("{}: {problem}; {remedy}", path.display())]
    Config {
        /// The file that holds the configuration.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// The way out.
        remedy: String,
    },
    /// The model's architecture is none that can be read from this format.
    #[error(
        "{}: architecture `{architecture}` is not supported in this format (supported: {supported}); \
         use a model of a supported architecture, or its original safetensors checkpoint",
        path.display()
    )]
    UnsupportedArchitecture {
        /// The model file.
        path: PathBuf,
        /// The architecture as the file names it.
        architecture: String,
        /// Those that are supported, comma-separated.
        supported: &'static str,
    },
    /// A weights file (GGUF, safetensors, or a shard index) is broken or truncated.
    #[error("{}: {problem}; {remedy}", path.display())]
    Weights {
        /// The weights file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// The way out.
        remedy: String,
    },
    /// The model has no tensor of this name.
    #[error(
        "{}: no tensor `{name}` among its {held}; the checkpoint is incomplete, or its configuration names \
         another architecture than its weights have",
        path.display()
    )]
    MissingTensor {
        /// The model's weights file, or its directory when the weights are in shards.
        path: PathBuf,
        /// The tensor asked for, by its Hugging Face name.
        name: String,
        /// How many tensors the model has.
        held: usize,
    },
    /// A tensor is stored in an encoding that cannot be read.
    #[error("{}: tensor `{name}` is stored as {encoding}, which cannot be read; {remedy}", path.display())]
    UnsupportedEncoding {
        /// The weights file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its encoding as the file names it.
        encoding: String,
        /// The way out.
        remedy: String,
    },
    /// The tokenizer is missing, broken, or of a kind that cannot be built.
    #[error("{}: {problem}; {remedy}", path.display())]
    Tokenizer {
        /// The file (or directory) that should hold the tokenizer.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// The way out.
        remedy: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Error::Io { path, action, source }
    }

    pub(crate) fn not_a_model(path: &Path, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::NotAModel { path: path.to_path_buf(), problem: problem.into(), remedy: remedy.into() }
    }

    pub(crate) fn config(path: &Path, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::Config { path: path.to_path_buf(), problem: problem.into(), remedy: remedy.into() }
    }

    pub(crate) fn weights(path: &Path, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::Weights { path: path.to_path_buf(), problem: problem.into(), remedy: remedy.into() }
    }

    pub(crate) fn tokenizer(path: &Path, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::Tokenizer { path: path.to_path_buf(), problem: problem.into(), remedy: remedy.into() }
    }
}
