//! `plugins check`: a conformance list, each check in a process of its own.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// Not as it should be.
    Failed,
    /// The process that ran the check died.
    Crashed,
    /// Could not be tried.
    Skipped,
}

impl Verdict {
    /// Name in output.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Crashed => "crashed",
            Verdict::Skipped => "skipped",
        }
    }

    fn bad(self) -> bool {
        matches!(self, Verdict::Failed | Verdict::Crashed)
    }
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckLine {
    /// Name of the check.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// Why, or what was seen; may be empty.
    pub why: String,
}

/// The whole list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// The file.
    pub file: std::path::PathBuf,
    /// Every check, in order.
    pub checks: Vec<CheckLine>,
}

/// Checks without which no later one can be tried.
const FOUNDATIONS: [&str; 3] = ["header", "layout", "descriptor"];

/// Runs every check of `names` through `one` and tells each line as it comes.
///
/// When a check fails that all others stand on, they are skipped: thirty lines with one cause say less than one.
pub fn run(
    file: &Path,
    names: impl IntoIterator<Item = &'static str>,
    one: impl Fn(&str) -> (Verdict, String),
    mut tell: impl FnMut(&CheckLine),
) -> CheckReport {
    let mut checks = Vec::new();
    let mut broken: Option<&str> = None;
    for name in names {
        let (verdict, why) = match broken {
            Some(foundation) => (Verdict::Skipped, format!("`{foundation}` must pass first")),
            None => one(name),
        };
        if verdict.bad() && FOUNDATIONS.contains(&name) {
            broken = Some(name);
        }
        let why = why.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        let line = CheckLine { name: name.to_owned(), verdict, why };
        tell(&line);
        checks.push(line);
    }
    CheckReport { file: file.to_owned(), checks }
}

impl CheckReport {
    /// Whether a check failed or crashed.
    pub fn bad(&self) -> bool {
        self.checks.iter().any(|line| line.verdict.bad())
    }

    /// `7 passed, 1 skipped`.
    pub fn summary(&self) -> String {
        [Verdict::Passed, Verdict::Failed, Verdict::Crashed, Verdict::Skipped]
            .into_iter()
            .filter_map(|verdict| {
                let n = self.checks.iter().filter(|line| line.verdict == verdict).count();
                (n > 0).then(|| format!("{n} {}", verdict.name()))
            })
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// A line as it is printed.
pub fn line_text(line: &CheckLine) -> String {
    format!("{:<8} {:<22} {}", line.verdict.name(), line.name, line.why).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_on_a_broken_foundation_is_skipped() {
        let one = |name: &str| match name {
            "layout" => (Verdict::Crashed, "killed by signal 11".to_owned()),
            _ => (Verdict::Passed, String::new()),
        };
        let mut lines = Vec::new();
        let report = run(Path::new("x.so"), ["header", "layout", "descriptor", "compress"], one, |line| {
            lines.push(line_text(line))
        });
        assert_eq!(
            lines,
            [
                "passed   header",
                "crashed  layout                 killed by signal 11",
                "skipped  descriptor             `layout` must pass first",
                "skipped  compress               `layout` must pass first",
            ]
        );
        assert!(report.bad());
        assert_eq!(report.summary(), "1 passed, 1 crashed, 2 skipped");
    }

    #[test]
    fn a_check_that_fails_stops_no_other() {
        let one = |name: &str| match name {
            "determinism" => (Verdict::Failed, "bytes differ\n\n in block 0".to_owned()),
            _ => (Verdict::Passed, String::new()),
        };
        let report = run(Path::new("x.so"), ["determinism", "panics"], one, |_| ());
        assert_eq!(report.checks[0].why, "bytes differ; in block 0");
        assert_eq!(report.summary(), "1 passed, 1 failed");
    }
}
