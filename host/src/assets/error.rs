//! What can go wrong with an asset.

use std::path::{Path, PathBuf};

/// One source that was tried and why it gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The source, in words.
    pub source: String,
    /// Why it failed.
    pub reason: String,
}

/// An asset could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AssetError {
    /// No asset has this name.
    #[error("no asset is called `{name}`{hint} (`assets list` shows all)")]
    UnknownAsset {
        /// The name asked for.
        name: String,
        /// Names that resemble it, as a clause.
        hint: String,
    },
    /// The asset has no such part.
    #[error("asset `{asset}` has no part `{part}`; its parts are {known}")]
    UnknownPart {
        /// The asset's id.
        asset: String,
        /// The part asked for.
        part: String,
        /// The parts there are.
        known: String,
    },
    /// Every source failed.
    #[error("cannot obtain {asset} ({part}); tried in order:{}\n  way out: {hint}", list(.attempts))]
    NoSource {
        /// The asset's id.
        asset: String,
        /// The part's name.
        part: String,
        /// What was tried.
        attempts: Vec<Attempt>,
        /// What the user can do.
        hint: String,
    },
    /// A data file holds something that is not its format.
    #[error("{}: {what}", place(.file, .line))]
    Data {
        /// The file, or the file and its member.
        file: String,
        /// Line or row, counted from one.
        line: Option<u64>,
        /// What is wrong and what was expected.
        what: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// With which path.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// No cache folder is known.
    #[error(
        "no cache folder: neither LLMCB_CACHE nor a home folder is set; set LLMCB_CACHE to a folder that can be written"
    )]
    NoCache,
    /// An environment variable cannot be understood.
    #[error("{name} is `{value}`, but must be {expected}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What it is.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A model of the hub cannot be had.
    #[error("cannot obtain {model} from {place}: {reason}")]
    NoHubModel {
        /// `owner/name`.
        model: String,
        /// The hub's address.
        place: String,
        /// Why.
        reason: String,
    },
    /// The user asked to stop; nothing half-written is left.
    #[error("stopped by the user while data were fetched")]
    Stopped,
}

/// Why a source gave nothing.
#[derive(Debug)]
pub(crate) enum SourceError {
    /// It does not have it or cannot be used, in words; the next source is tried.
    Unavailable(String),
    /// No other source would help.
    Fatal(AssetError),
}

impl From<AssetError> for SourceError {
    fn from(error: AssetError) -> Self {
        Self::Fatal(error)
    }
}

fn list(attempts: &[Attempt]) -> String {
    attempts.iter().enumerate().map(|(i, a)| format!("\n  {}. {}: {}", i + 1, a.source, a.reason)).collect()
}

fn place(file: &str, line: &Option<u64>) -> String {
    match line {
        Some(line) => format!("{file}, line {line}"),
        None => file.to_owned(),
    }
}

impl AssetError {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn data(file: impl Into<String>, line: Option<u64>, what: impl Into<String>) -> Self {
        Self::Data { file: file.into(), line, what: what.into() }
    }
}
