//! What can be wrong with a component, in one line each.

use wasmtime::Trap;

use super::limits::{Guest, LARGEST_FILE, LARGEST_INPUT, MEMORY, TIME_LIMIT};
use super::world::VERSION;

/// Who ended a call before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    ByUser,
    ByTime,
}

/// A component that is none, or a call that gave nothing. Its text is a clause about the component.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComponentError {
    /// The sandbox itself does not work.
    #[error("the sandbox cannot be had on this machine: {0}")]
    Sandbox(String),
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// The file is too large.
    #[error("it has {} MiB; a metric has at most {}", .0 >> 20, LARGEST_FILE >> 20)]
    TooLarge(u64),
    /// The bytes are no wasm.
    #[error("it is not wasm: it does not begin as a component does")]
    NotWasm,
    /// The bytes are a core module.
    #[error(
        "it is a core wasm module, not a component; make one of it with `llmcb-host metrics component FILE`"
    )]
    CoreModule,
    /// The bytes are damaged.
    #[error("it is no sound component: {0}")]
    Broken(String),
    /// It wants more than it may have.
    #[error("it imports `{0}`, which a metric may not have: its only import is the log ({hint})", hint = import_hint(.0))]
    Import(String),
    /// It is of another version of the world.
    #[error(
        "it was made for version {0} of the world llmcb:metric; this host has {VERSION}: build it again with this host's metric.wit"
    )]
    Version(String),
    /// It is something else.
    #[error("it exports no `llmcb:metric/scoring`, so it is a component for something else")]
    Foreign,
    /// Its exports have other types.
    #[error("its `llmcb:metric/scoring` is not that of version {VERSION}: {0}")]
    Interface(String),
    /// It trapped.
    #[error("it trapped: {0}")]
    Trapped(String),
    /// It spent its fuel.
    #[error("it spent its budget of {0} units of fuel: an endless loop, or far too much work for each item")]
    Fuel(u64),
    /// It took too much memory.
    #[error("it asked for more than {} MiB of memory, and trapped when it did not get them", MEMORY >> 20)]
    Memory,
    /// It took too long.
    #[error("it took longer than {} s", TIME_LIMIT.as_secs())]
    Time,
    /// It said that it has no value.
    #[error("it gave no value: {0}")]
    Refused(String),
    /// There are too many items for it.
    #[error("the items have {} MiB of what it reads; a metric is given at most {}", .bytes >> 20, LARGEST_INPUT >> 20)]
    Input {
        /// Bytes of the columns.
        bytes: usize,
    },
    /// The user asked to stop.
    #[error("stopped by the user")]
    Cancelled,
}

/// What to do about an import.
fn import_hint(import: &str) -> &'static str {
    if import.starts_with("wasi:") || import.starts_with("wasi_") {
        "componentize-py leaves WASI out with --stub-wasi, componentize-js with disableFeatures; a C library's files and clocks cannot be had"
    } else {
        "llmcb:metric/host"
    }
}

/// A text on one line.
pub(super) fn one_line(text: &str) -> String {
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    line.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The innermost cause, on one line.
pub(super) fn first_line(error: &wasmtime::Error) -> String {
    one_line(&error.root_cause().to_string())
}

impl ComponentError {
    pub(super) fn sandbox(error: impl std::fmt::Display) -> Self {
        ComponentError::Sandbox(one_line(&error.to_string()))
    }

    /// Why a call ended in an error.
    pub(super) fn of_call(error: &wasmtime::Error, guest: &Guest, budget: u64) -> Self {
        match (guest.stopped, error.downcast_ref::<Trap>()) {
            (Some(Stopped::ByUser), _) => ComponentError::Cancelled,
            (Some(Stopped::ByTime), _) => ComponentError::Time,
            (None, Some(Trap::OutOfFuel)) => ComponentError::Fuel(budget),
            (None, _) if guest.too_much_memory => ComponentError::Memory,
            (None, Some(trap)) => {
                // What it logged last is most likely why.
                let said = guest.log.last().map(|line| format!("; it logged last: {line}"));
                let trap = trap.to_string();
                let trap = trap.strip_prefix("wasm trap: ").unwrap_or(&trap);
                ComponentError::Trapped(format!("{trap}{}", said.unwrap_or_default()))
            }
            (None, None) => ComponentError::Trapped(first_line(error)),
        }
    }
}
