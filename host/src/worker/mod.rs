//! Work in another process: native plugins may crash, hang or run out of memory without harm to the run.
//!
//! The worker is this same program with the hidden subcommand [`SUBCOMMAND`], whose `main` is [`main`]. The two sides speak
//! [`protocol`]; the parent's side is [`Supervisor`], which tells apart the ways in which a worker can end ([`Death`]).

mod child;
mod death;
mod gpu;
mod interrupt;
mod oom;
pub mod protocol;
mod services;
mod supervisor;
mod tree;
mod usage;

#[cfg(test)]
mod tests;

pub use child::main;
pub use death::{Death, FailureKind};
pub use interrupt::Interrupt;
pub(crate) use services::{EventSink, Services, state_file};
pub use supervisor::{Answer, Supervisor, WorkerError, WorkerOptions};
pub(crate) use usage::Usage;

use std::path::Path;

use llmcb_plugin_api::sdk::{Descriptor, LibraryStatus};
use serde_json::Value;

/// Name of the hidden subcommand that turns the program into a worker.
pub const SUBCOMMAND: &str = "__worker";

/// Loads a plugin in a worker and returns its descriptor.
///
/// # Errors
/// Why the file is no usable plugin, or how the worker died of it.
pub fn describe(path: &Path, options: &WorkerOptions) -> Result<Descriptor, WorkerError> {
    let mut worker = Supervisor::spawn(options)?;
    match worker.call(protocol::Request::Describe { path: path.into() }, &Interrupt::never(), &mut |_| ())? {
        Answer::Described(descriptor) => Ok(*descriptor),
        other => Err(other.unexpected()),
    }
}

/// Checks options of a role of a plugin in a worker and returns them complete with defaults.
///
/// # Errors
/// What the plugin objects to, or how the worker died of it.
pub fn normalize_options(
    path: &Path,
    role: &str,
    given: &Value,
    options: &WorkerOptions,
) -> Result<Value, WorkerError> {
    let mut worker = Supervisor::spawn(options)?;
    let request =
        protocol::Request::Normalize { path: path.into(), role: role.into(), options: given.clone() };
    match worker.call(request, &Interrupt::never(), &mut |_| ())? {
        Answer::Normalized(options) => Ok(options),
        other => Err(other.unexpected()),
    }
}

/// Asks a backend in a worker for the library that its runner, with complete options, needs; nothing where it needs none.
///
/// # Errors
/// What the plugin objects to, or how the worker died of it.
pub fn find_library(
    path: &Path,
    runner: &Value,
    options: &WorkerOptions,
) -> Result<Option<LibraryStatus>, WorkerError> {
    let mut worker = Supervisor::spawn(options)?;
    let request = protocol::Request::FindLibrary { path: path.into(), options: runner.clone() };
    match worker.call(request, &Interrupt::never(), &mut |_| ())? {
        Answer::Library(status) => Ok(status.map(|status| *status)),
        other => Err(other.unexpected()),
    }
}

/// Runs one conformance check (a name of [`crate::stage::check::CHECKS`]) on a plugin in a worker of its own.
///
/// # Errors
/// How the worker died of the check: that is an outcome, too (`crashed`).
pub fn check(
    name: &str,
    given: &crate::stage::check::Given,
    options: &WorkerOptions,
) -> Result<crate::stage::check::Outcome, WorkerError> {
    let mut worker = Supervisor::spawn(&WorkerOptions { threads: given.threads, ..options.clone() })?;
    let request = protocol::Request::Check { name: name.into(), given: given.clone() };
    match worker.call(request, &Interrupt::never(), &mut |_| ())? {
        Answer::Checked(outcome) => Ok(outcome),
        other => Err(other.unexpected()),
    }
}
