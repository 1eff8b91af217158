//! What stages took, kept from run to run in the cache: one JSON line a stage.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file in the cache folder.
const FILE: &str = "timings.jsonl";
/// A file that grew beyond this is cut to its later half.
const LARGEST: u64 = 1 << 20;

/// What a stage took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Kind of stage and plugin.
    pub what: String,
    /// The same with what decides sizes.
    pub form: String,
    /// The machine.
    pub machine: String,
    /// Threads.
    pub threads: usize,
    /// Parameters of the model.
    pub parameters: f64,
    /// Tokens that passed through it.
    pub tokens: f64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Peak of memory.
    pub memory_bytes: f64,
    /// Bytes of the weights that were written; 0 for none.
    pub disk_bytes: f64,
}

/// What stages took so far.
#[derive(Clone, Debug, Default)]
pub struct History {
    file: Option<PathBuf>,
    timings: Vec<Timing>,
}

/// Rates of one kind of stage; absent where none was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Seconds for one parameter and token.
    pub per_work: Option<f64>,
    /// Bytes of memory for one parameter.
    pub memory_per_parameter: Option<f64>,
    /// Bytes on disk for one parameter.
    pub disk_per_parameter: Option<f64>,
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite() && *value > 0.0);
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

impl History {
    /// The history in a cache folder; lines that cannot be read are passed over.
    pub fn read(cache: &Path) -> History {
        let file = cache.join(FILE);
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let timings = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        History { file: Some(file), timings }
    }

    /// Adds a stage, if there is one. That it cannot be written costs no result.
    pub fn extend(&mut self, timing: Option<Timing>) {
        let Some(timing) = timing else { return };
        if let Some(file) = &self.file {
            let write = || -> std::io::Result<()> {
                if std::fs::metadata(file).is_ok_and(|data| data.len() > LARGEST) {
                    let text = std::fs::read_to_string(file)?;
                    let lines: Vec<&str> = text.lines().collect();
                    let later = lines[lines.len() / 2..].join("\n") + "\n";
                    crate::suite::store::write_atomically(file, later.as_bytes())
                        .map_err(std::io::Error::other)?;
                }
                let mut line = serde_json::to_vec(&timing)?;
                line.push(b'\n');
                std::fs::File::options().create(true).append(true).open(file)?.write_all(&line)
            };
            let _ = write();
        }
        self.timings.push(timing);
    }

    /// How long stages of a kind take on a machine.
    pub fn of(&self, what: &str, machine: &str, threads: usize) -> Rates {
        let same = |t: &&Timing| t.what == what && t.machine == machine && t.threads == threads;
        let rate = |t: &Timing| t.seconds / (t.parameters * t.tokens);
        Rates { per_work: median(self.timings.iter().filter(same).map(rate).collect()), ..Rates::default() }
    }

    /// How much memory and disk stages of a form take, on any machine.
    pub fn of_form(&self, form: &str) -> Rates {
        let same = || self.timings.iter().filter(|t| t.form == form);
        Rates {
            per_work: None,
            memory_per_parameter: median(same().map(|t| t.memory_bytes / t.parameters).collect()),
            disk_per_parameter: median(same().map(|t| t.disk_bytes / t.parameters).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(seconds: f64) -> Timing {
        Timing {
            what: "compress gptq".into(),
            form: "compress gptq 4 own".into(),
            machine: "m".into(),
            threads: 2,
            parameters: 1e8,
            tokens: 1e3,
            seconds,
            memory_bytes: 4e8,
            disk_bytes: 6e7,
        }
    }

    #[test]
    fn rates_are_medians_and_survive_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = History::read(folder.path());
        for seconds in [10.0, 1000.0, 20.0] {
            history.extend(Some(timing(seconds)));
        }
        std::fs::File::options()
            .append(true)
            .open(folder.path().join(FILE))
            .unwrap()
            .write_all(b"{\"what\"")
            .unwrap();
        let history = History::read(folder.path());
        assert!((history.of("compress gptq", "m", 2).per_work.unwrap() - 20.0 / 1e11).abs() < 1e-20);
        assert_eq!(history.of("compress gptq", "other", 2), Rates::default());
        let form = history.of_form("compress gptq 4 own");
        assert_eq!((form.memory_per_parameter, form.disk_per_parameter), (Some(4.0), Some(0.6)));
    }
}
