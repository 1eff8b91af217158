//! Data to standard output, talk to standard error.

use std::io::{ErrorKind, IsTerminal, Write};

use serde::Serialize;

use super::failure::Failure;
use super::progress;

/// Characters in a line where nobody says how wide it is: what logs and files are commonly read at.
const DEFAULT_WIDTH: usize = 120;

const ERROR: anstyle::Style = anstyle::AnsiColor::Red.on_default().bold();
const WARNING: anstyle::Style = anstyle::AnsiColor::Yellow.on_default().bold();

/// Writes data to standard output.
///
/// # Errors
/// [`Failure::ClosedPipe`] when the reader has gone, else what the operating system says.
pub fn data(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(Failure::ClosedPipe),
        Err(e) => Err(Failure::failed(format!("standard output cannot be written: {e}"))),
    }
}

/// Writes a value as JSON to standard output.
///
/// # Errors
/// As [`data`].
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
    text.push('\n');
    data(&text)
}

/// A line, or several, for the person at the terminal.
pub fn say(text: &str) {
    progress::aside(|| {
        // Nobody can be told that standard error is gone.
        let _ = writeln!(anstream::stderr().lock(), "{}", text.trim_end_matches('\n'));
    });
}

fn labelled(style: anstyle::Style, label: &str, text: &str) {
    say(&format!("{style}{label}:{style:#} {}", text.trim_end()));
}

/// Why something failed.
pub fn error(text: &str) {
    labelled(ERROR, "error", text);
}

/// What the user should know.
pub fn warning(text: &str) {
    labelled(WARNING, "warning", text);
}

/// Width of tables on standard output.
pub fn width() -> usize {
    let columns = || std::env::var("COLUMNS").ok()?.parse::<usize>().ok();
    let terminal = || {
        let terminal = std::io::stdout().is_terminal();
        terminal.then(|| comfy_table::Table::new().width().map(usize::from)).flatten()
    };
    terminal().or_else(columns).unwrap_or(DEFAULT_WIDTH).max(40)
}
