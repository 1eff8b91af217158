//! How the program ends when it cannot do what was asked.

use std::process::ExitCode;

use super::output;

/// Why a command ended without its result.
#[derive(Debug)]
pub enum Failure {
    /// The command line, or a file or plugin it names, is wrong. Exit code 2.
    Usage(String),
    /// Something failed. Exit code 1.
    Failed(String),
    /// Stopped by the user. Exit code 130.
    Cancelled,
    /// Nobody reads standard output any more. Exit code 0: `| head` is no error.
    ClosedPipe,
}

impl Failure {
    /// Something the user gave is wrong.
    pub fn usage(message: impl ToString) -> Self {
        Failure::Usage(message.to_string())
    }

    /// Something failed.
    pub fn failed(message: impl ToString) -> Self {
        Failure::Failed(message.to_string())
    }

    /// Tells the user, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        match self {
            Failure::Usage(message) => {
                output::error(message);
                ExitCode::from(2)
            }
            Failure::Failed(message) => {
                output::error(message);
                ExitCode::from(1)
            }
            Failure::Cancelled => {
                output::say("stopped by the user; the same command goes on where it was");
                ExitCode::from(130)
            }
            Failure::ClosedPipe => ExitCode::SUCCESS,
        }
    }
}
