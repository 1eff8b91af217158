//! Data to standard output, talk to standard error.

use std::io::{ErrorKind, IsTerminal, Write};

use serde::Serialize;

use super::failure::Failure;
use super::progress;
use crate::report::{BETTER, WORSE};

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

/// Writes a table to standard output; in colour, where that is a terminal, what is better and what is worse than the dense model.
///
/// # Errors
/// As [`data`].
pub fn table(text: &str) -> Result<(), Failure> {
    if anstream::AutoStream::choice(&std::io::stdout()) == anstream::ColorChoice::Never {
        return data(text);
    }
    data(&painted(text))
}

/// Numbers in colour by the mark that follows them.
fn painted(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let chars: Vec<char> = line.chars().collect();
        let mut at = 0;
        for (mark, style) in marks(&chars) {
            // A cell begins after two blanks.
            let start = (at..mark)
                .rev()
                .find(|i| *i >= 1 && chars[*i] == ' ' && chars[*i - 1] == ' ')
                .map_or(at, |i| i + 1);
            out.extend(&chars[at..start]);
            out.push_str(&format!("{style}{}{style:#}", chars[start..=mark].iter().collect::<String>()));
            at = mark + 1;
        }
        out.extend(&chars[at..]);
    }
    out
}

/// Where marks stand in a line: after a number and a blank, before a blank or the line's end.
fn marks(line: &[char]) -> Vec<(usize, anstyle::Style)> {
    let is_mark = |at: usize| {
        let ends = line.get(at + 1).is_none_or(|c| c.is_whitespace());
        at >= 2 && ends && line[at - 1] == ' ' && line[at - 2].is_ascii_digit()
    };
    let style = |at: usize| match line[at] {
        BETTER => Some(anstyle::AnsiColor::Green.on_default()),
        WORSE => Some(anstyle::AnsiColor::Red.on_default()),
        _ => None,
    };
    (0..line.len()).filter(|at| is_mark(*at)).filter_map(|at| Some((at, style(at)?))).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_with_a_mark_are_coloured() {
        let text = " rtn    28.48 ±4.43 −  0.400 ±0.112 ~  0.75 +\n~ the same; + better, − worse\n";
        let painted = painted(text);
        assert_eq!(anstream::adapter::strip_str(&painted).to_string(), text);
        assert_eq!(painted.matches("\u{1b}[31m").count(), 1, "{painted:?}");
        assert!(
            painted.contains("\u{1b}[31m28.48 ±4.43 −\u{1b}[0m")
                && painted.contains("\u{1b}[32m0.75 +\u{1b}[0m"),
            "{painted:?}"
        );
    }
}
