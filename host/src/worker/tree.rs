//! A process with all that it has started: a library that serves from processes of its own counts with the worker that runs it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::usage::status_bytes;

/// How often memory is looked at.
const TICK: Duration = Duration::from_millis(100);

/// Processes that a process has started, and those that they have.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(one) = found.get(at).copied() {
        // The kernel lists children by the thread that started them.
        let threads = std::fs::read_dir(format!("/proc/{one}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        at += 1;
    }
    found.remove(0);
    found
}

/// Resident memory of a process and of all that it has started. Pages that they share count in each.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let own = status_bytes(&pid.to_string(), "VmRSS")?;
    let others = descendants(pid).into_iter().filter_map(|pid| status_bytes(&pid.to_string(), "VmRSS"));
    Some(own + others.sum::<u64>())
}

/// The largest resident memory of this process with all that it starts, from now on; of this process alone the kernel knows better.
pub(super) struct Peak(Arc<AtomicU64>);

impl Peak {
    /// Begins to look, in a thread that ends with this.
    pub(super) fn watch() -> Self {
        let peak = Arc::new(AtomicU64::new(0));
        let seen = Arc::downgrade(&peak);
        // Without the thread, only what others take is not counted.
        let _ = std::thread::Builder::new().name("memory".into()).spawn(move || look(&seen));
        Peak(peak)
    }

    /// Bytes so far; 0 where nothing was started.
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn look(seen: &Weak<AtomicU64>) {
    let own = std::process::id();
    while let Some(peak) = seen.upgrade() {
        if !descendants(own).is_empty() {
            peak.fetch_max(resident_bytes(own).unwrap_or(0), Ordering::Relaxed);
        }
        drop(peak);
        std::thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_started_counts_with_it() {
        let peak = Peak::watch();
        assert_eq!(peak.bytes(), 0);
        // A shell, and what it starts: `tail` keeps what it reads until there is a line.
        let script = "head -c 50000000 /dev/zero | tail & wait";
        let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
        let alone = status_bytes("self", "VmRSS").unwrap();
        let mut most = 0;
        while child.try_wait().unwrap().is_none() {
            most = most.max(resident_bytes(std::process::id()).unwrap_or(0));
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(most > alone + 20_000_000, "{most} of {alone}");
        let mut sleeping = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(descendants(std::process::id()).contains(&sleeping.id()));
        let seen = (0..100).any(|_| {
            std::thread::sleep(TICK / 10);
            peak.bytes() >= alone / 2
        });
        sleeping.kill().unwrap();
        sleeping.wait().unwrap();
        assert!(seen, "{}", peak.bytes());
    }
}
