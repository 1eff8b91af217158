//! A process with all that it has started: a library that serves from processes of its own counts with the worker that runs it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::usage::status_bytes;

/// How often memory is looked at.
const TICK: Duration = Duration::from_millis(100);

/// Processes that a process has started, and those that they have.
pub(super) fn descendants(pid: u32) -> Vec<u32> {
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
    resident_with(pid, &descendants(pid))
}

fn resident_with(pid: u32, others: &[u32]) -> Option<u64> {
    let own = status_bytes(&pid.to_string(), "VmRSS")?;
    let others = others.iter().filter_map(|pid| status_bytes(&pid.to_string(), "VmRSS"));
    Some(own + others.sum::<u64>())
}

/// Processor time of a process so far, all its threads, in the kernel's ticks; with the time at which it started, which sets it apart from a
/// later one of the same number.
fn processor_ticks(pid: u32) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may have anything in it.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((field(11)? + field(12)?, field(19)?))
}

/// What this process and all that it starts take from now on; of this process alone the kernel knows better.
pub(super) struct Watched(Arc<Taken>);

#[derive(Default)]
struct Taken {
    /// The largest resident memory of all of them together, in bytes.
    memory: AtomicU64,
    /// Processor time of those that were started, in ticks.
    processor: AtomicU64,
}

impl Watched {
    /// Begins to look, in a thread that ends with this.
    pub(super) fn watch() -> Self {
        let taken = Arc::new(Taken::default());
        let seen = Arc::downgrade(&taken);
        // What runs already has taken its time for something else.
        let before = times(&descendants(std::process::id()));
        // Without the thread, only what others take is not counted.
        let _ = std::thread::Builder::new().name("usage".into()).spawn(move || look(&seen, &before));
        Watched(taken)
    }

    /// Largest memory so far, in bytes; 0 where nothing was started.
    pub(super) fn bytes(&self) -> u64 {
        self.0.memory.load(Ordering::Relaxed)
    }

    /// Processor seconds of what was started, so far.
    pub(super) fn cpu_seconds(&self) -> f64 {
        self.0.processor.load(Ordering::Relaxed) as f64 / rustix::param::clock_ticks_per_second() as f64
    }
}

/// By number and start, the processor time of processes.
type Times = HashMap<(u32, u64), u64>;

fn times(pids: &[u32]) -> Times {
    let of = |pid: &u32| processor_ticks(*pid).map(|(ticks, started)| ((*pid, started), ticks));
    pids.iter().filter_map(of).collect()
}

fn look(seen: &Weak<Taken>, before: &Times) {
    let own = std::process::id();
    let mut all = Times::new();
    while let Some(taken) = seen.upgrade() {
        let others = descendants(own);
        if !others.is_empty() {
            taken.memory.fetch_max(resident_with(own, &others).unwrap_or(0), Ordering::Relaxed);
            // What ends is counted up to when it was last looked at.
            all.extend(times(&others));
            let own = all.iter().map(|(process, ticks)| ticks - before.get(process).unwrap_or(&0).min(ticks));
            taken.processor.store(own.sum(), Ordering::Relaxed);
        }
        drop(taken);
        std::thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_started_counts_with_it() {
        let watched = Watched::watch();
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
            watched.bytes() >= alone / 2
        });
        sleeping.kill().unwrap();
        sleeping.wait().unwrap();
        assert!(seen, "{}", watched.bytes());
    }

    #[test]
    fn processor_time_of_what_was_started_is_counted_from_now_on() {
        let mut busy = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let spent = || processor_ticks(busy.id()).unwrap().0;
        while spent() < 50 {
            std::thread::sleep(TICK);
        }
        let watched = Watched::watch();
        let seen = (0..200).any(|_| {
            std::thread::sleep(TICK / 10);
            watched.cpu_seconds() > 0.0
        });
        let (counted, all) = (watched.cpu_seconds(), spent() as f64 / 100.0);
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(seen && counted < all - 0.4, "{counted} of {all}");
    }
}
