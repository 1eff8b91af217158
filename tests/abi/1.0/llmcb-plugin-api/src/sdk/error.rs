//! Errors of plugins and of calls into them.

use abi_stable::std_types::RResult;

use crate::abi::error::{AbiError, AbiResult, kind};

/// What sort of error it is; the host treats each differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The work could not be done.
    Failed,
    /// An option, a file or an argument was wrong: the user can mend it.
    Invalid,
    /// The plugin does not do this; the host reports the stage as skipped.
    Unsupported,
    /// Stopped because the user asked for it.
    Cancelled,
    /// The plugin panicked; the SDK makes these.
    Panicked,
}

/// An error: one line that says what was wrong, where, and what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into() }
    }

    /// The work could not be done.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, message)
    }

    /// Something the user gave was wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The plugin does not do this.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// The user asked to stop.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled")
    }

    /// What sort of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The line for a person.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with a place put before its message.
    pub fn at(self, place: impl std::fmt::Display) -> Self {
        Error { kind: self.kind, message: format!("{place}: {}", self.message) }
    }
}

impl From<AbiError> for Error {
    fn from(error: AbiError) -> Self {
        let kind = match error.kind {
            kind::INVALID => ErrorKind::Invalid,
            kind::UNSUPPORTED => ErrorKind::Unsupported,
            kind::CANCELLED => ErrorKind::Cancelled,
            kind::PANICKED => ErrorKind::Panicked,
            _ => ErrorKind::Failed,
        };
        Error { kind, message: error.message.into_string() }
    }
}

impl From<Error> for AbiError {
    fn from(error: Error) -> Self {
        let kind = match error.kind {
            ErrorKind::Failed => kind::FAILED,
            ErrorKind::Invalid => kind::INVALID,
            ErrorKind::Unsupported => kind::UNSUPPORTED,
            ErrorKind::Cancelled => kind::CANCELLED,
            ErrorKind::Panicked => kind::PANICKED,
        };
        AbiError { kind, message: error.message.into() }
    }
}

/// Across the boundary and back.
pub(crate) fn to_abi<T>(result: Result<T>) -> AbiResult<T> {
    match result {
        Ok(value) => RResult::ROk(value),
        Err(error) => RResult::RErr(error.into()),
    }
}

pub(crate) fn from_abi<T>(result: AbiResult<T>) -> Result<T> {
    result.into_result().map_err(Error::from)
}
