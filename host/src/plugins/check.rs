//! `plugins check`: the conformance suite as people read it, each check in a process of its own.

use std::path::{Path, PathBuf};
use std::time::Instant;

use llmcb_plugin_api::abi::{ABI_MAJOR, ABI_MINOR};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stage::check::Check;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckLine {
    /// Name of the check.
    pub name: String,
    /// What it demands.
    pub demands: String,
    /// How it came out.
    pub verdict: Verdict,
    /// Why, or what was seen; may be empty.
    pub why: String,
    /// The arguments that run this check again as it was; only where it failed or crashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again: Option<String>,
    /// Wall-clock seconds it took.
    pub seconds: f64,
}

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckReport {
    /// The file.
    pub file: PathBuf,
    /// Version of the host.
    pub host_version: String,
    /// The host's version of the plugin ABI, `MAJOR.MINOR`.
    pub abi: String,
    /// Seed of everything that was drawn by chance.
    pub seed: u64,
    /// Every check, in order.
    pub checks: Vec<CheckLine>,
}

/// Checks without which no later one can be tried.
const FOUNDATIONS: [&str; 3] = ["header", "layout", "descriptor"];

/// Runs checks through `one` and tells each line as it comes.
///
/// When a check fails that all others stand on, they are skipped: thirty lines with one cause say less than one.
pub fn run<'a>(
    file: &Path,
    seed: u64,
    checks: impl IntoIterator<Item = &'a Check>,
    one: impl Fn(&Check) -> (Verdict, String),
    mut tell: impl FnMut(&CheckLine),
) -> CheckReport {
    let mut lines = Vec::new();
    let mut broken: Option<&str> = None;
    for check in checks {
        let begin = Instant::now();
        let (verdict, why) = match broken {
            Some(foundation) => (Verdict::Skipped, format!("`{foundation}` must pass first")),
            None => one(check),
        };
        if verdict.bad() && FOUNDATIONS.contains(&check.name) {
            broken = Some(check.name);
        }
        let line = CheckLine {
            name: check.name.to_owned(),
            demands: check.demands.to_owned(),
            verdict,
            why: why.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; "),
            again: verdict.bad().then(|| format!("--only {} --reproduce {seed}", check.name)),
            seconds: begin.elapsed().as_secs_f64(),
        };
        tell(&line);
        lines.push(line);
    }
    CheckReport {
        file: file.to_owned(),
        host_version: env!("CARGO_PKG_VERSION").to_owned(),
        abi: format!("{ABI_MAJOR}.{ABI_MINOR}"),
        seed,
        checks: lines,
    }
}

/// Runs a check with each number of threads. Where there are several, what it sees must be the same with all.
pub fn with_each(threads: &[usize], one: impl Fn(usize) -> (Verdict, String)) -> (Verdict, String) {
    let &[first, ref others @ ..] = threads else {
        return (Verdict::Skipped, "there is no number of threads to run it with".into());
    };
    let (verdict, seen) = one(first);
    if others.is_empty() || verdict != Verdict::Passed {
        return (verdict, seen);
    }
    for &number in others {
        let (verdict, other) = one(number);
        if verdict != Verdict::Passed {
            return (verdict, format!("with {number} threads: {other}"));
        }
        if other != seen {
            return (Verdict::Failed, format!("with {first} threads: {seen}, with {number}: {other}"));
        }
    }
    let numbers: Vec<String> = threads.iter().map(usize::to_string).collect();
    (verdict, format!("{seen} with {} threads", numbers.join(", ")))
}

impl CheckReport {
    /// Whether a check failed or crashed.
    pub fn bad(&self) -> bool {
        self.checks.iter().any(|line| line.verdict.bad())
    }

    /// `7 passed, 1 skipped`.
    pub fn summary(&self) -> String {
        summary_of(self.checks.iter().map(|line| line.verdict))
    }
}

/// How often each verdict was given: `7 passed, 1 skipped`.
pub fn summary_of(verdicts: impl Iterator<Item = Verdict> + Clone) -> String {
    [Verdict::Passed, Verdict::Failed, Verdict::Crashed, Verdict::Skipped]
        .into_iter()
        .filter_map(|verdict| {
            let n = verdicts.clone().filter(|one| *one == verdict).count();
            (n > 0).then(|| format!("{n} {}", verdict.name()))
        })
        .collect::<Vec<_>>()
        .join(", ")
}

/// A line as it is printed.
pub fn line_text(line: &CheckLine) -> String {
    let again = line.again.as_ref().map(|again| format!(" (again: {again})")).unwrap_or_default();
    format!("{:<8} {:<16} {}{again}", line.verdict.name(), line.name, line.why).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::check::CHECKS;

    fn checks<'a>(names: &'a [&str]) -> impl Iterator<Item = &'static Check> + 'a {
        CHECKS.iter().filter(|check| names.contains(&check.name))
    }

    #[test]
    fn what_stands_on_a_broken_foundation_is_skipped() {
        let one = |check: &Check| match check.name {
            "layout" => (Verdict::Crashed, "killed by signal 11".to_owned()),
            _ => (Verdict::Passed, String::new()),
        };
        let mut lines = Vec::new();
        let names = ["header", "layout", "descriptor", "compress"];
        let report = run(Path::new("x.so"), 7, checks(&names), one, |line| lines.push(line_text(line)));
        assert_eq!(
            lines,
            [
                "passed   header",
                "crashed  layout           killed by signal 11 (again: --only layout --reproduce 7)",
                "skipped  descriptor       `layout` must pass first",
                "skipped  compress         `layout` must pass first",
            ]
        );
        assert!(report.bad());
        assert_eq!(report.summary(), "1 passed, 1 crashed, 2 skipped");
    }

    #[test]
    fn a_check_that_fails_stops_no_other() {
        let one = |check: &Check| match check.name {
            "determinism" => (Verdict::Failed, "bytes differ\n\n in block 0".to_owned()),
            _ => (Verdict::Passed, String::new()),
        };
        let report = run(Path::new("x.so"), 0, checks(&["determinism", "memory"]), one, |_| ());
        assert_eq!(report.checks[0].why, "bytes differ; in block 0");
        assert_eq!(report.summary(), "1 passed, 1 failed");
    }

    #[test]
    fn what_is_seen_with_one_number_of_threads_must_be_seen_with_all() {
        let passed = |note: &str| (Verdict::Passed, note.to_owned());
        let failed = |why: &str| (Verdict::Failed, why.to_owned());
        for (seen, expected) in [
            ([passed("a"), passed("a"), passed("a")], passed("a with 1, 2, 4 threads")),
            ([passed("a"), passed("a"), passed("b")], failed("with 1 threads: a, with 4: b")),
            ([passed("a"), failed("no"), passed("a")], failed("with 2 threads: no")),
            ([failed("no"), passed("a"), passed("a")], failed("no")),
        ] {
            let threads = [1, 2, 4];
            let at = |n| threads.iter().position(|t| *t == n).unwrap_or_default();
            assert_eq!(with_each(&threads, |n| seen[at(n)].clone()), expected);
        }
        assert_eq!(with_each(&[2], |_| passed("a")), passed("a"));
    }
}
