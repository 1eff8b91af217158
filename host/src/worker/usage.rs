//! What a stage cost: time and memory, over all its attempts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::gpu;
use super::tree::Watched;

/// Processor seconds of this process so far, user and system, all threads.
pub(super) fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Makes the peak of resident memory start again from what is resident now. Where the kernel refuses, the peak stays that of the process's
/// whole life, which is never too low.
pub(super) fn reset_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// A line of `/proc/<pid>/status` in bytes; those lines are in KiB.
pub(super) fn status_bytes(pid: &str, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Largest resident memory of this process since [`reset_peak_memory`].
pub(super) fn peak_memory_bytes() -> u64 {
    status_bytes("self", "VmHWM").unwrap_or(0)
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Attempts {
    started_unix: f64,
    wall_seconds: f64,
    cpu_seconds: f64,
    peak_memory_bytes: u64,
    #[serde(default)]
    gpu_peak_memory_bytes: u64,
    attempts: u32,
    /// Wall-clock seconds of each phase.
    #[serde(default)]
    phases: BTreeMap<String, f64>,
}

/// Seconds of the phases that are over, and the one that goes on.
#[derive(Default)]
struct Phases {
    over: BTreeMap<String, f64>,
    now: Option<(&'static str, Instant)>,
}

impl Phases {
    /// All phases so far, the present one up to now.
    fn so_far(&self) -> BTreeMap<String, f64> {
        let mut all = self.over.clone();
        if let Some((name, since)) = self.now {
            *all.entry(name.to_owned()).or_default() += since.elapsed().as_secs_f64();
        }
        all
    }
}

/// Counts what a stage costs and keeps it in the stage's directory, so that an interrupted attempt is not forgotten.
pub(crate) struct Usage {
    file: std::path::PathBuf,
    before: Attempts,
    started: Instant,
    cpu_at_start: f64,
    tree: Watched,
    phases: RefCell<Phases>,
}

impl Usage {
    /// Starts counting an attempt.
    pub(crate) fn start(directory: &Path) -> Self {
        reset_peak_memory();
        gpu::count_anew();
        let file = directory.join("attempts.json");
        let before = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let before = before.unwrap_or(Attempts { started_unix: now, ..Attempts::default() });
        let phases = RefCell::new(Phases { over: before.phases.clone(), now: None });
        Usage {
            file,
            before,
            started: Instant::now(),
            cpu_at_start: cpu_seconds(),
            tree: Watched::watch(),
            phases,
        }
    }

    /// Ends the phase that goes on and begins another.
    pub(crate) fn phase(&self, name: &'static str) {
        let mut phases = self.phases.borrow_mut();
        phases.over = phases.so_far();
        phases.now = Some((name, Instant::now()));
    }

    fn total(&self) -> Attempts {
        Attempts {
            started_unix: self.before.started_unix,
            wall_seconds: self.before.wall_seconds + self.started.elapsed().as_secs_f64(),
            cpu_seconds: self.before.cpu_seconds
                + (cpu_seconds() - self.cpu_at_start).max(0.0)
                + self.tree.cpu_seconds(),
            peak_memory_bytes: self.before.peak_memory_bytes.max(peak_memory_bytes()).max(self.tree.bytes()),
            gpu_peak_memory_bytes: self.before.gpu_peak_memory_bytes.max(gpu::peak_bytes()),
            attempts: self.before.attempts + 1,
            phases: self.phases.borrow().so_far(),
        }
    }

    /// Keeps the count so far. Losing it costs no result, so a failure to write is left to the writes that matter.
    pub(crate) fn keep(&self) {
        if let Ok(json) = serde_json::to_vec(&self.total()) {
            let _ = crate::suite::store::write_atomically(&self.file, &json);
        }
    }

    /// Fills the counts into an outcome and forgets the file.
    pub(crate) fn finish(&self, outcome: &mut super::protocol::StageOutcome) {
        let total = self.total();
        outcome.started_unix = total.started_unix;
        outcome.wall_seconds = total.wall_seconds;
        outcome.cpu_seconds = total.cpu_seconds;
        outcome.peak_memory_bytes = total.peak_memory_bytes;
        outcome.gpu_peak_memory_bytes = total.gpu_peak_memory_bytes;
        outcome.phases = total.phases;
        outcome.resumed = self.before.attempts;
        let _ = std::fs::remove_file(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::protocol::StageOutcome;

    #[test]
    fn phases_add_up_over_attempts() {
        let folder = tempfile::tempdir().unwrap();
        let first = Usage::start(folder.path());
        first.phase("loading");
        first.phase("scoring");
        first.keep();
        let mut kept: Attempts =
            serde_json::from_slice(&std::fs::read(folder.path().join("attempts.json")).unwrap()).unwrap();
        assert_eq!(kept.phases.keys().collect::<Vec<_>>(), ["loading", "scoring"]);
        kept.phases.insert("scoring".to_owned(), 1000.0);
        std::fs::write(folder.path().join("attempts.json"), serde_json::to_vec(&kept).unwrap()).unwrap();

        let second = Usage::start(folder.path());
        second.phase("scoring");
        second.phase("metrics");
        let mut outcome = StageOutcome::default();
        second.finish(&mut outcome);
        assert_eq!(outcome.phases.keys().collect::<Vec<_>>(), ["loading", "metrics", "scoring"]);
        assert!(outcome.phases["scoring"] >= 1000.0 && outcome.phases["metrics"] < 500.0);
        assert_eq!(outcome.resumed, 1);
    }
}
