//! What a stage has found out so far, one JSON object a line, so that an interrupted one goes on where it was.

use std::ops::Range;
use std::path::Path;

use llmcb_plugin_api::sdk::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::suite::store as files;

/// Appends a line.
pub(super) fn write_line(out: &mut Vec<u8>, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(|e| Error::failed(e.to_string()))?;
    out.push(b'\n');
    Ok(())
}

/// Lines that were written whole; what a kill tore off, and all behind it, is left out.
pub(super) fn whole_lines<T: DeserializeOwned>(text: &[u8]) -> Vec<T> {
    let mut lines = Vec::new();
    for line in text.split_inclusive(|b| *b == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let Ok(line) = serde_json::from_slice(line) else { break };
        lines.push(line);
    }
    lines
}

/// All lines of a file that was written whole.
pub(crate) fn read_all<T: DeserializeOwned>(file: &Path) -> std::result::Result<Vec<T>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let line = |(at, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| format!("{}, line {}: {e}", file.display(), at + 1))
    };
    text.split('\n').enumerate().filter(|(_, line)| !line.is_empty()).map(line).collect()
}

/// Lines that an interrupted attempt left, cut back to whole pieces, and how many pieces these are; the file is cut back with them.
pub(super) fn resume<T: Serialize + DeserializeOwned>(
    file: &Path,
    pieces: &[Range<usize>],
) -> Result<(Vec<T>, usize)> {
    let mut lines = match std::fs::read(file) {
        Ok(bytes) => whole_lines(&bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::failed(format!("cannot read {}: {error}", file.display()))),
    };
    let done = pieces.iter().take_while(|piece| piece.end <= lines.len()).count();
    lines.truncate(done.checked_sub(1).map_or(0, |last| pieces[last].end));
    write_all(file, &lines)?;
    Ok((lines, done))
}

/// Writes a file of lines, whole or not at all.
pub(super) fn write_all(file: &Path, lines: &[impl Serialize]) -> Result<()> {
    let mut bytes = Vec::new();
    for line in lines {
        write_line(&mut bytes, line)?;
    }
    files::write_atomically(file, &bytes).map_err(|e| Error::failed(e.to_string()))
}
