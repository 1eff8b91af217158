//! What a long fetch tells its caller while it runs.

/// One report of progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A step began; one line for people.
    Message(String),
    /// Bytes of a transfer that have arrived.
    Bytes {
        /// What is being transferred.
        what: String,
        /// Bytes so far.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
}

/// Receives progress; called from the thread that fetches, several times a second at most.
pub type ProgressFn<'a> = dyn Fn(Progress) + 'a;

/// A progress callback that ignores every report.
pub fn silent(_: Progress) {}
