//! A program of a library's that runs for as long as it is wanted: it ends with us, and what it says is passed on and kept.

use std::collections::VecDeque;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use llmcb_plugin_api::sdk::{Error, Host, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::process::{ends_with_us, read_lines};

/// How often is looked.
const TICK: Duration = Duration::from_millis(200);
/// How long the last lines of one that has ended may be on their way. What it has started may hold its output open for longer.
const LAST: Duration = Duration::from_secs(2);
/// How long a program may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);
/// Lines of its output that are kept for messages.
const KEPT: usize = 300;
/// Variable whose value all processes of a program's have in their environments, also those that leave its group, as what MPI starts does.
const MARK: &str = "LLMCB_ATTENDED";

/// A running program. Dropping it ends its process, and all that it has started.
pub(crate) struct Attended {
    name: &'static str,
    child: Child,
    /// Ends all processes of the program's when this process ends, however it does.
    guard: Child,
    said: Arc<Mutex<Said>>,
    /// Lines that were told as progress.
    told: u64,
    /// Whether it was ended with its group.
    killed: bool,
}

/// What a program wrote.
#[derive(Default)]
struct Said {
    last: VecDeque<String>,
    lines: u64,
    /// Outputs that are not at their end.
    open: usize,
}

/// An output that is being read.
struct Open(Arc<Mutex<Said>>);

impl Open {
    fn of(said: &Arc<Mutex<Said>>) -> Self {
        lock(said).open += 1;
        Open(Arc::clone(said))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.0).open -= 1;
    }
}

fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Attended {
    /// Starts a program, and watches its standard error.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let failed = |e: std::io::Error| Error::failed(format!("{name} could not be started: {e}"));
        let mark = mark();
        command.env(MARK, &mark).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = ends_with_us(command).spawn().map_err(failed)?;
        let guard = guard(&child, &mark).inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        });
        let guard = guard.map_err(failed)?;
        let stderr = child.stderr.take();
        let program = Attended { name, child, guard, said: Arc::default(), told: u64::MAX, killed: false };
        if let Some(stderr) = stderr {
            program.watch(stderr)?;
        }
        Ok(program)
    }

    /// Passes some of its output on to standard error, which goes beside the result, and keeps its end.
    ///
    /// # Errors
    /// No thread can be started for it.
    pub(crate) fn watch(&self, from: impl Read + Send + 'static) -> Result<()> {
        let open = Open::of(&self.said);
        let reading = read_lines(from, move |line| {
            eprintln!("{line}");
            if !line.trim().is_empty() {
                let mut said = lock(&open.0);
                said.lines += 1;
                said.last.push_back(line.to_owned());
                if said.last.len() > KEPT {
                    said.last.pop_front();
                }
            }
            true
        });
        reading.map_err(|e| Error::failed(format!("output of {}: {e}", self.name)))
    }

    /// Its standard output, once.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its standard input, once, if it was made a pipe.
    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// How it ended, with the cause that it gave; nothing while it runs.
    pub(crate) fn end(&mut self) -> Option<Error> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(self.ended(status)),
            Err(e) => Some(Error::failed(e.to_string())),
        }
    }

    fn ended(&self, status: ExitStatus) -> Error {
        let begin = Instant::now();
        while lock(&self.said).open > 0 && begin.elapsed() < LAST {
            std::thread::sleep(TICK / 20);
        }
        Error::failed(format!("{} ended with {status}{}", self.name, self.cause()))
    }

    /// What it said, after a colon.
    pub(crate) fn cause(&self) -> String {
        let said = lock(&self.said);
        match cause(&Vec::from_iter(&said.last)) {
            Some(cause) => format!(": {cause} (all of it is in the stage's log)"),
            None => ", and said nothing".to_owned(),
        }
    }

    /// Tells the host that it is starting, when it has said something new. Only what it says is a sign of life: one that hangs says nothing, and
    /// the host's limit ends it.
    pub(crate) fn tell_start(&mut self, host: &Host) {
        let (lines, last) = {
            let said = lock(&self.said);
            (said.lines, said.last.back().cloned().unwrap_or_default())
        };
        if lines != self.told {
            self.told = lines;
            let short: String = last.chars().take(80).collect();
            host.progress(0, 0, &format!("starting {}: {short}", self.name));
        }
    }

    /// Waits a while for its end; whether it came.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> bool {
        ends_within(&mut self.child, limit)
    }

    /// Ends it at once, with all that it has started.
    pub(crate) fn kill(&mut self) {
        if std::mem::replace(&mut self.killed, true) {
            return;
        }
        drop(self.guard.stdin.take());
        if !ends_within(&mut self.guard, GRACE) || !ends_within(&mut self.child, TICK) {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _ = self.child.wait();
        let _ = self.guard.wait();
    }
}

fn ends_within(process: &mut Child, limit: Duration) -> bool {
    let begin = Instant::now();
    loop {
        match process.try_wait() {
            Ok(None) if begin.elapsed() < limit => std::thread::sleep(TICK / 20),
            Ok(None) => return false,
            Ok(Some(_)) | Err(_) => return true,
        }
    }
}

/// The line that says best what was wrong: the last that names an error, else the last. What is indented below it belongs to it.
fn cause(lines: &[&String]) -> Option<String> {
    // Messages that only say that another process has said why.
    let is_pointer =
        |line: &str| line.contains("See root cause above") || line.contains("initialization failed. See");
    let last = |word: &str| lines.iter().rposition(|line| line.contains(word) && !is_pointer(line));
    let at = last("Error: ").or_else(|| last("error: ")).or_else(|| last("ERROR"));
    let at = at.or(lines.len().checked_sub(1))?;
    let below = lines[at + 1..].iter().take_while(|line| line.starts_with(' ')).take(1);
    let words: Vec<&str> = std::iter::once(lines[at].trim()).chain(below.map(|line| line.trim())).collect();
    Some(words.join(" ").chars().take(300).collect())
}

/// A value that no other program has.
fn mark() -> String {
    static STARTED: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-{}", std::process::id(), now.as_nanos(), STARTED.fetch_add(1, Ordering::Relaxed))
}

/// A process in the group of another that waits for the end of its input, which comes when this process ends, and then ends the group and all
/// processes with the mark: the signal that the kernel sends at a parent's end reaches children, but not theirs.
fn guard(of: &Child, mark: &str) -> std::io::Result<Child> {
    let script = "read -r _
        for file in $(grep -laF \"$1\" /proc/[0-9]*/environ); do
            process=${file%/environ}
            kill -KILL \"${process#/proc/}\"
        done
        kill -KILL 0";
    let mut command = Command::new("sh");
    command.args(["-c", script, "guard", &format!("{MARK}={mark}")]);
    command.process_group(of.id().cast_signed());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

impl Drop for Attended {
    fn drop(&mut self) {
        if !self.killed {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            self.ends_within(GRACE);
            self.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_the_last_error_with_what_is_below_it() {
        for (lines, expected) in [
            (vec!["INFO a", "ValueError: bad shape", "INFO bye"], Some("ValueError: bad shape")),
            (
                vec!["ValidationError: 1 error", "  Value error, no such method", "    more"],
                Some("ValidationError: 1 error Value error, no such method"),
            ),
            (
                vec![
                    "(pid=7) ValueError: To serve at least one request",
                    "RuntimeError: Engine core initialization failed. See root cause above.",
                ],
                Some("(pid=7) ValueError: To serve at least one request"),
            ),
            (vec!["INFO a", "Killed"], Some("Killed")),
            (vec![], None),
        ] {
            let lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
            assert_eq!(cause(&lines.iter().collect::<Vec<_>>()).as_deref(), expected);
        }
    }
}
