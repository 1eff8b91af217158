//! A library that serves over HTTP: a process of its own on loopback, from its start to its end.

use std::collections::VecDeque;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use llmcb_plugin_api::sdk::{Error, Host, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::http::Client;
use crate::process::{ends_with_us, read_lines};

/// How often a server that starts is asked whether it is ready.
const TICK: Duration = Duration::from_millis(200);
/// How long a server may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);
/// How long one that answers no more may take to end, before it counts as alive.
const DYING: Duration = Duration::from_secs(5);
/// Lines of its output that are kept for messages.
const KEPT: usize = 300;

/// Ports that are tried: one that was free may be taken until the server listens on it.
const PORTS: usize = 3;

/// What is known of a server before it is started.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The library, for messages.
    pub name: &'static str,
    /// Path that answers once it is ready.
    pub health: &'static str,
    /// How long it may take until then.
    pub start_limit: Duration,
    /// How long a request may take.
    pub request_limit: Duration,
}

/// A server that is ready. Dropping it ends its process, and all that it has started.
pub struct Server {
    plan: Plan,
    child: Child,
    /// Ends the server's process group when this process ends, however it does.
    guard: Child,
    said: Arc<Mutex<Said>>,
    client: Client,
}

/// What a server wrote.
#[derive(Default)]
struct Said {
    last: VecDeque<String>,
    lines: u64,
}

fn lock(said: &Mutex<Said>) -> std::sync::MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes a server's output on to standard error, which goes beside the result, and keeps its end.
fn watch(from: impl Read + Send + 'static, said: &Arc<Mutex<Said>>) -> std::io::Result<()> {
    let said = Arc::clone(said);
    read_lines(from, move |line| {
        eprintln!("{line}");
        if !line.trim().is_empty() {
            let mut said = lock(&said);
            said.lines += 1;
            said.last.push_back(line.to_owned());
            if said.last.len() > KEPT {
                said.last.pop_front();
            }
        }
        true
    })
}

/// A port of the loopback interface that nobody listens on now.
fn free_port() -> Result<u16> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(free.map_err(|e| Error::failed(format!("no free port on 127.0.0.1: {e}")))?.port())
}

/// A key that nobody else knows, for servers that take one.
fn random_key() -> Result<String> {
    let mut bytes = [0u8; 24];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|e| Error::failed(format!("cannot read /dev/urandom: {e}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Server {
    /// Starts a server, whose command is told a free port of the loopback interface and a key that nobody else knows, and waits until it is
    /// ready.
    ///
    /// # Errors
    /// It cannot be started, ends, is not ready in time, or the user asked to stop. The message has the cause that it gave.
    pub fn start(plan: Plan, host: &Host, command: impl Fn(u16, &str) -> Command) -> Result<Self> {
        let mut tried = 0;
        loop {
            let (port, key) = (free_port()?, random_key()?);
            tried += 1;
            match Self::start_at(plan, &mut command(port, &key), port, &key, host) {
                Err(error) if tried < PORTS && is_taken(&error) => {}
                outcome => return outcome,
            }
        }
    }

    fn start_at(plan: Plan, command: &mut Command, port: u16, key: &str, host: &Host) -> Result<Self> {
        let name = plan.name;
        let failed = |e: std::io::Error| Error::failed(format!("{name} could not be started: {e}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = ends_with_us(command).spawn().map_err(failed)?;
        let guard = guard(&child).inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        });
        let guard = guard.map_err(failed)?;
        let said = Arc::new(Mutex::new(Said::default()));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let client = Client::new(format!("http://127.0.0.1:{port}"), key, plan.request_limit);
        let mut server = Server { plan, child, guard, said: Arc::clone(&said), client };
        if let Some(stdout) = stdout {
            watch(stdout, &said).map_err(failed)?;
        }
        if let Some(stderr) = stderr {
            watch(stderr, &said).map_err(failed)?;
        }
        server.wait(host)?;
        Ok(server)
    }

    fn wait(&mut self, host: &Host) -> Result<()> {
        let (name, limit) = (self.plan.name, self.plan.start_limit);
        let begin = Instant::now();
        let mut told = u64::MAX;
        loop {
            host.check_cancelled()?;
            if let Some(status) = self.child.try_wait().map_err(|e| Error::failed(e.to_string()))? {
                return Err(self.ended(status));
            }
            if self.client.answers(self.plan.health) {
                return Ok(());
            }
            if begin.elapsed() > limit {
                return Err(Error::failed(format!(
                    "{name} was not ready within {} s (option start_limit){}",
                    limit.as_secs(),
                    self.cause()
                )));
            }
            // Only what it says is a sign of life: one that hangs says nothing, and the host's limit ends it.
            let (lines, last) = {
                let said = lock(&self.said);
                (said.lines, said.last.back().cloned().unwrap_or_default())
            };
            if lines != told {
                told = lines;
                let short: String = last.chars().take(80).collect();
                host.progress(0, 0, &format!("starting {name}: {short}"));
            }
            std::thread::sleep(TICK);
        }
    }

    fn ended(&self, status: ExitStatus) -> Error {
        // What it said last may still be on its way.
        std::thread::sleep(TICK);
        Error::failed(format!("{} ended with {status}{}", self.plan.name, self.cause()))
    }

    /// What it said, after a colon.
    fn cause(&self) -> String {
        let said = lock(&self.said);
        match cause(&Vec::from_iter(&said.last)) {
            Some(cause) => format!(": {cause} (all of it is in the stage's log)"),
            None => ", and said nothing".to_owned(),
        }
    }

    /// The library, for messages.
    pub fn name(&self) -> &'static str {
        self.plan.name
    }

    /// Sends requests to it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// An error of a request, with the cause where the server has ended.
    pub fn explain(&mut self, error: Error) -> Error {
        let begin = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return self.ended(status),
                // One that dies closes its connections first: its end is a moment away.
                Ok(None) if begin.elapsed() < DYING && !self.client.answers(self.plan.health) => {
                    std::thread::sleep(TICK / 4);
                }
                _ => return error,
            }
        }
    }
}

fn is_taken(error: &Error) -> bool {
    error.message().to_ascii_lowercase().contains("address already in use")
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

/// A process in the group of another that waits for the end of its input, which comes when this process ends, and then ends the group: the signal
/// that the kernel sends at a parent's end reaches children, but not theirs.
fn guard(of: &Child) -> std::io::Result<Child> {
    let mut command = Command::new("sh");
    command.args(["-c", "read -r _; kill -KILL 0"]).process_group(of.id().cast_signed());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

impl Drop for Server {
    fn drop(&mut self) {
        let server = Pid::from_child(&self.child);
        let _ = kill_process(server, Signal::TERM);
        let begin = Instant::now();
        while begin.elapsed() < GRACE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(TICK / 4);
        }
        // The guard is in the group until now, so its number stands for no other one.
        let _ = kill_process_group(server, Signal::KILL);
        let _ = self.child.wait();
        let _ = self.guard.wait();
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
