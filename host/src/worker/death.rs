//! The ways in which a worker can end without having finished its work.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Why the host itself killed a worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum KilledBecause {
    Hung { seconds: u64 },
    MemoryLimit { resident: u64, limit: u64 },
    User,
    Garbage,
}

/// What is known about a worker's end besides its exit status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// Why the host killed it, if it did.
    pub(crate) killed: Option<KilledBecause>,
    /// Whether the kernel's count of kills for lack of memory rose.
    pub(crate) oom_kills_rose: bool,
    /// End of what the worker wrote to its standard error.
    pub(crate) tail: String,
    /// What came instead of an event.
    pub(crate) garbage: Option<String>,
}

/// How a worker died. Each message is one line.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Death {
    /// A signal that says that the code was faulty.
    #[error("crashed: {name} ({what}){}", hint(.last_words))]
    Crashed {
        /// Name of the signal, for example `SIGSEGV`.
        name: &'static str,
        /// What the signal means.
        what: &'static str,
        /// Last line that the worker wrote to its standard error, or empty.
        last_words: String,
    },
    /// SIGKILL, and not from the host.
    #[error("was killed from outside (SIGKILL)")]
    Killed,
    /// SIGTERM, SIGINT or another signal that asks to end, not from the host.
    #[error("was ended from outside ({name})")]
    Ended {
        /// Name of the signal.
        name: &'static str,
    },
    /// The kernel had no memory left for it.
    #[error(
        "ran out of memory: {how}; try a smaller model, fewer --calibration-windows or a machine with more memory"
    )]
    OutOfMemory {
        /// How that is known.
        how: String,
    },
    /// It grew beyond the limit that the user set.
    #[error(
        "ran out of memory: it grew to {} MiB, beyond --memory-limit ({} MiB), and was killed",
        .resident / (1 << 20), .limit / (1 << 20)
    )]
    MemoryLimit {
        /// Resident bytes when it was killed.
        resident: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// It ended by itself in the midst of work.
    #[error("exited with code {code} before it had finished{}", hint(.last_words))]
    Exited {
        /// The exit code; 0 is no better than others here.
        code: i32,
        /// Last line that the worker wrote to its standard error, or empty.
        last_words: String,
    },
    /// It gave no sign of progress.
    #[error("hung: no sign of progress for {seconds} s (--hang-limit), so it was killed")]
    Hung {
        /// The limit in seconds.
        seconds: u64,
    },
    /// What it sent is not the protocol.
    #[error("sent something that is not the worker protocol ({line}), so it was killed")]
    Garbage {
        /// What came, shortened.
        line: String,
    },
    /// It is another version of the program.
    #[error(
        "speaks version {theirs} of the worker protocol, this program version {}: the program was replaced during the run; start it again",
        super::protocol::PROTOCOL_VERSION
    )]
    Version {
        /// The worker's version.
        theirs: u32,
    },
    /// The user asked twice to stop.
    #[error("was killed because Ctrl-C was pressed twice")]
    ByUser,
}

fn hint(last_words: &str) -> String {
    if last_words.is_empty() { String::new() } else { format!("; its last words: {last_words}") }
}

/// Sorts of failure, for tables and exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The process died of a fault.
    Crashed,
    /// The process was killed or ended from outside, or by the user.
    Killed,
    /// There was not enough memory.
    OutOfMemory,
    /// It did not come to an end.
    Hung,
    /// It left, or sent nonsense.
    Misbehaved,
}

impl Death {
    /// The sort of failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Death::Crashed { .. } => FailureKind::Crashed,
            Death::Killed | Death::Ended { .. } | Death::ByUser => FailureKind::Killed,
            Death::OutOfMemory { .. } | Death::MemoryLimit { .. } => FailureKind::OutOfMemory,
            Death::Hung { .. } => FailureKind::Hung,
            Death::Exited { .. } | Death::Garbage { .. } | Death::Version { .. } => FailureKind::Misbehaved,
        }
    }

    /// Works out how a worker died.
    pub(crate) fn classify(status: ExitStatus, evidence: &Evidence) -> Death {
        match evidence.killed {
            Some(KilledBecause::Hung { seconds }) => return Death::Hung { seconds },
            Some(KilledBecause::MemoryLimit { resident, limit }) => {
                return Death::MemoryLimit { resident, limit };
            }
            Some(KilledBecause::User) => return Death::ByUser,
            Some(KilledBecause::Garbage) | None => {}
        }
        if let Some(line) = &evidence.garbage {
            return Death::Garbage { line: shorten(line) };
        }
        let last_words = last_line(&evidence.tail);
        let Some(signal) = status.signal() else {
            return Death::Exited { code: status.code().unwrap_or(-1), last_words };
        };
        let allocation = failed_allocation(&evidence.tail);
        match (signal, allocation) {
            (SIGKILL, _) if evidence.oom_kills_rose => {
                Death::OutOfMemory { how: "the kernel killed it to free memory".into() }
            }
            (SIGKILL, _) => Death::Killed,
            (SIGABRT, Some(what)) => Death::OutOfMemory { how: what },
            _ => match SIGNALS.iter().find(|(number, ..)| *number == signal) {
                Some((_, name, Some(what))) => Death::Crashed { name, what, last_words },
                Some((_, name, None)) => Death::Ended { name },
                None => Death::Ended { name: "an unusual signal" },
            },
        }
    }
}

const SIGABRT: i32 = signal_hook::consts::SIGABRT;
const SIGKILL: i32 = signal_hook::consts::SIGKILL;

/// Signals with their names; those of faulty code with their meaning.
const SIGNALS: &[(i32, &str, Option<&str>)] = {
    use signal_hook::consts::*;
    &[
        (SIGSEGV, "SIGSEGV", Some("access to memory that is not its own")),
        (SIGABRT, "SIGABRT", Some("it aborted")),
        (SIGILL, "SIGILL", Some("an instruction this processor does not have, or a trap")),
        (SIGBUS, "SIGBUS", Some("access to memory that is not there, such as a mapped file that was cut")),
        (SIGFPE, "SIGFPE", Some("an impossible whole-number calculation, such as division by zero")),
        (SIGTRAP, "SIGTRAP", Some("a trap")),
        (SIGSYS, "SIGSYS", Some("a forbidden system call")),
        (SIGXCPU, "SIGXCPU", Some("the processor time limit")),
        (SIGXFSZ, "SIGXFSZ", Some("the file size limit")),
        (SIGTERM, "SIGTERM", None),
        (SIGINT, "SIGINT", None),
        (SIGHUP, "SIGHUP", None),
        (SIGQUIT, "SIGQUIT", None),
        (SIGPIPE, "SIGPIPE", None),
        (SIGALRM, "SIGALRM", None),
        (SIGUSR1, "SIGUSR1", None),
        (SIGUSR2, "SIGUSR2", None),
    ]
};

/// The line in which an allocator says that it gives up: Rust's, then C++'s.
fn failed_allocation(tail: &str) -> Option<String> {
    tail.lines().rev().map(str::trim).find_map(|line| {
        let rust = line.starts_with("memory allocation of ") && line.contains(" bytes failed");
        (rust || line.contains("std::bad_alloc")).then(|| shorten(line))
    })
}

fn last_line(tail: &str) -> String {
    shorten(tail.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default())
}

fn shorten(line: &str) -> String {
    const MOST: usize = 200;
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= MOST {
        return line;
    }
    line.chars().take(MOST).chain("...".chars()).collect()
}
