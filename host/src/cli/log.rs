//! The log, on standard error.

use std::io::Write;

use tracing_subscriber::EnvFilter;

use super::progress;

/// Environment variable that sets the log's filter in full, in the form `level` or `module=level,...`.
const VARIABLE: &str = "LLMCB_LOG";

/// Writes beside the progress bar, not through it.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        progress::aside(|| std::io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Starts the log: -1 errors only, 0 warnings, 1 what happens, 2 in detail, 3 everything.
pub fn start(loudness: i8) {
    let level = match loudness {
        ..0 => "error",
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(level));
    let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_target(false)
        .without_time()
        .with_writer(|| Stderr)
        .finish();
    // A second start, in tests, keeps the first log.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
