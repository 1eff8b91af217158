//! Checks of what runs have in common, of methods and of backends alike: a run again, two at once, many, stopped, or heard.

use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use llmcb_plugin_api::sdk::{ErrorKind, Result};

use super::subject::{Bits, Subject, Terms, difference, digest};
use super::{Checked, Given, Outcome, Steps, fail};
use crate::stage::synthetic::Random;

/// The same seed gives the same numbers.
pub(super) fn determinism(given: &Given) -> Checked {
    let subject = Subject::open(given)?;
    let first = subject.first_run(&Terms::new(given))?;
    let second = subject.run(&Terms::new(given)).map_err(fail)?;
    match difference(&first, &second) {
        Some(difference) => Err(fail(format!("two runs with one seed: {difference}"))),
        None => Ok(String::new()),
    }
}

/// What a run ends in: the same whatever the number of threads, which is another in each worker that makes this check.
pub(super) fn threads(given: &Given) -> Checked {
    let subject = Subject::open(given)?;
    let bits = subject.first_run(&Terms::new(given))?;
    Ok(format!("{} {}", subject.numbers(), digest(&bits)))
}

/// Stack of a thread that runs a plugin: as much as that of a process.
const STACK: usize = 8 << 20;

fn at_once(subjects: [&Subject; 2], given: &Given) -> [Result<Bits>; 2] {
    let meet = Arc::new(Barrier::new(2));
    std::thread::scope(|scope| {
        let handles = subjects.map(|subject| {
            let terms = Terms { meet: Some(Arc::clone(&meet)), ..Terms::new(given) };
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || subject.run(&terms))
        });
        handles.map(|handle| match handle.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(result)) => result,
            // What a plugin does is caught before; this is the check's own.
            _ => Err(llmcb_plugin_api::sdk::Error::failed("a thread of the check's own came to nothing")),
        })
    })
}

/// Two instances at once, on models that differ, give what each gives alone.
pub(super) fn two_at_once(given: &Given) -> Checked {
    let one = Subject::open(given)?;
    let other = one.other(given)?;
    let subjects = [&one, &other];
    let mut alone = Vec::new();
    for subject in subjects {
        alone.push(subject.first_run(&Terms::new(given))?);
    }
    for (result, alone) in at_once(subjects, given).into_iter().zip(&alone) {
        let together = result.map_err(|e| fail(format!("with another instance beside it: {e}")))?;
        if let Some(difference) = difference(alone, &together) {
            return Err(fail(format!(
                "an instance gives other {} with another beside it than alone: {difference}",
                one.numbers()
            )));
        }
    }
    Ok(String::new())
}

/// Runs before anything is measured: caches and pools of threads are filled by then.
const WARM_UP: usize = 4;
/// Spans of runs that are compared.
const SPANS: usize = 5;
/// The most runs of a span, and about how long one takes.
const SPAN_RUNS: usize = 8;
const SPAN_SECONDS: f64 = 0.5;
/// What every run must leave behind, from each span to the next, to be called a leak, in KiB: half of a weight of the synthetic model.
const LEAK_KIB: u64 = 64;
/// The least growth from a span to the next, in KiB: below, pages come and go by chance.
const CHANCE_KIB: u64 = 128;

/// What a process holds.
#[derive(Clone, Copy)]
struct Held {
    kib: u64,
    files: u64,
    threads: u64,
}

impl Held {
    fn now() -> Result<Self, Outcome> {
        let statm = std::fs::read_to_string("/proc/self/statm").map_err(fail)?;
        let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
        let pages = pages.ok_or_else(|| fail("/proc/self/statm has no resident memory"))?;
        let count =
            |folder: &str| std::fs::read_dir(folder).map(|entries| entries.count() as u64).map_err(fail);
        Ok(Held {
            kib: pages * (rustix::param::page_size() as u64 / 1024),
            files: count("/proc/self/fd")?,
            threads: count("/proc/self/task")?,
        })
    }
}

/// Whether what is least in each span rises by so much from every span to the next.
fn rises(least: &[u64], by: u64) -> bool {
    least.windows(2).all(|pair| pair[1] >= pair[0] + by)
}

/// Runs leave nothing behind.
pub(super) fn memory(given: &Given) -> Checked {
    let subject = Subject::open(given)?;
    subject.first_run(&Terms::new(given))?;
    let begin = Instant::now();
    let run = || subject.run(&Terms::new(given)).map_err(fail);
    for _ in 1..WARM_UP {
        run()?;
    }
    let seconds = begin.elapsed().as_secs_f64() / (WARM_UP - 1) as f64;
    let runs = ((SPAN_SECONDS / seconds) as usize).clamp(1, SPAN_RUNS);
    let mut least: Vec<Held> = Vec::new();
    for _ in 0..SPANS {
        let mut span: Option<Held> = None;
        for _ in 0..runs {
            run()?;
            let now = Held::now()?;
            let low = span.unwrap_or(now);
            span = Some(Held {
                kib: low.kib.min(now.kib),
                files: low.files.min(now.files),
                threads: low.threads.min(now.threads),
            });
        }
        least.extend(span);
    }
    let times = runs as u64;
    for (what, of, by) in [
        ("KiB of memory", (|held| held.kib) as fn(&Held) -> u64, (LEAK_KIB * times).max(CHANCE_KIB)),
        ("open files", |held| held.files, times),
        ("threads", |held| held.threads, times),
    ] {
        let least: Vec<u64> = least.iter().map(of).collect();
        if rises(&least, by) {
            let grown = (least[SPANS - 1] - least[0]) as f64 / ((SPANS - 1) * runs) as f64;
            return Err(fail(format!(
                "every run leaves behind about {grown:.0} {what}, run after run of {}",
                SPANS * runs
            )));
        }
    }
    let grown = least[SPANS - 1].kib as i64 - least[0].kib as i64;
    Ok(format!("{grown:+} KiB in {} runs", (SPANS - 1) * runs))
}

/// So many steps are all tried; of more, the first, the last, and some between.
const ALL_STEPS: u64 = 16;

fn steps_to_try(total: u64, seed: u64) -> Vec<u64> {
    let edge = 3;
    if total <= ALL_STEPS {
        return (0..=total).collect();
    }
    let mut random = Random(seed);
    let between =
        (0..ALL_STEPS - 2 * edge).map(|_| random.within(edge as usize..=(total - edge) as usize) as u64);
    let mut steps: Vec<u64> = (0..edge).chain(between).chain(total - edge + 1..=total).collect();
    steps.sort_unstable();
    steps.dedup();
    steps
}

/// Told to stop at any step, it ends as stopped, or was done.
pub(super) fn cancellation(given: &Given) -> Checked {
    let subject = Subject::open(given)?;
    let counted: Arc<Steps> = Arc::default();
    let whole = subject.first_run(&Terms::with_steps(given, &counted))?;
    let total = counted.taken();
    let tried = steps_to_try(total, given.seed);
    let mut done = 0;
    for &step in &tried {
        let steps = Steps::stop_at(step);
        match subject.run(&Terms::with_steps(given, &steps)) {
            Ok(_) => done += 1,
            Err(error) if error.kind() == ErrorKind::Cancelled => {}
            Err(error) => {
                let place = match step {
                    0 => "before its first step".to_owned(),
                    _ => format!("at step {step} of {total} (`{}`)", steps.at()),
                };
                return Err(fail(format!("told to stop {place}, it did not end as stopped: {error}")));
            }
        }
    }
    let after = subject
        .run(&Terms::new(given))
        .map_err(|e| fail(format!("after it was stopped it no longer works: {e}")))?;
    if let Some(difference) = difference(&whole, &after) {
        return Err(fail(format!(
            "a run after others were stopped ends otherwise than before: {difference}"
        )));
    }
    let asked = counted.asked();
    Ok(format!(
        "stopped {} times in {total} steps, {done} times done before it looked; it asks {asked} times",
        tried.len()
    ))
}

/// Whatever reaches standard output while something is done, up to a line's worth.
fn overheard<T>(work: impl FnOnce() -> T) -> Result<(T, String), Outcome> {
    let mut file = tempfile::tempfile().map_err(fail)?;
    let before = rustix::io::fcntl_dupfd_cloexec(std::io::stdout().as_fd(), 3).map_err(fail)?;
    rustix::stdio::dup2_stdout(&file).map_err(fail)?;
    let result = work();
    rustix::stdio::dup2_stdout(&before).map_err(fail)?;
    file.rewind().map_err(fail)?;
    let mut bytes = Vec::new();
    file.take(1000).read_to_end(&mut bytes).map_err(fail)?;
    Ok((result, String::from_utf8_lossy(&bytes).into_owned()))
}

/// Standard output is the host's.
pub(super) fn stdout(given: &Given) -> Checked {
    let (run, heard) = overheard(|| Subject::open(given)?.first_run(&Terms::new(given)))?;
    match heard.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => Err(fail(format!(
            "it prints to standard output, which is the host's: `{}`; say it with host.log, or on standard error",
            line.chars().take(80).collect::<String>()
        ))),
        None => run.map(|_| String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_rises_from_every_span_to_the_next() {
        for (least, by, leak) in [
            ([100u64, 200, 300, 400, 500], 64, true),
            ([100, 200, 300, 300, 400], 64, false),
            ([100, 100, 100, 100, 900], 64, false),
            ([500, 400, 300, 200, 100], 64, false),
            ([4, 5, 6, 7, 8], 1, true),
            ([4, 4, 4, 4, 4], 1, false),
        ] {
            assert_eq!(rises(&least, by), leak, "{least:?}");
        }
    }

    #[test]
    fn few_steps_are_all_tried_and_of_many_the_first_the_last_and_some_between() {
        assert_eq!(steps_to_try(0, 1), [0]);
        assert_eq!(steps_to_try(3, 1), [0, 1, 2, 3]);
        let many = steps_to_try(10_000, 1);
        assert!(many.len() > 10 && many.len() as u64 <= ALL_STEPS, "{many:?}");
        assert!(many.starts_with(&[0, 1, 2]) && many.ends_with(&[9_998, 9_999, 10_000]));
        assert_eq!(many, steps_to_try(10_000, 1));
        assert_ne!(many, steps_to_try(10_000, 2));
    }
}
