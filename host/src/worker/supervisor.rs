//! The host's side: starts a worker, speaks with it, watches it, and tells how it died.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use llmcb_plugin_api::sdk::{Descriptor, LIBRARIES_VARIABLE, LibraryStatus};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use serde_json::Value;

use super::child::PARENT_VARIABLE;
use super::death::{Death, Evidence, KilledBecause};
use super::interrupt::Interrupt;
use super::oom::OomKills;
use super::protocol::{Event, Failure, PROTOCOL_VERSION, Request, StageOutcome};
use super::tree::resident_bytes;
use crate::metrics::scoring::Description;
use crate::stage::check::Outcome as CheckOutcome;

/// A line longer than this is no event: descriptors and results are far smaller.
const LONGEST_LINE: u64 = 64 << 20;
/// How often limits are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long a worker may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(60);
/// How long a worker may take to end when it is no longer needed: a library's server is given ten seconds.
const FAREWELL: Duration = Duration::from_secs(15);
/// How much of a worker's standard error is kept in memory.
const TAIL_BYTES: usize = 16 << 10;

/// How workers are run.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The program; `None`: this very one.
    pub program: Option<PathBuf>,
    /// Arguments of the program; the hidden subcommand by default.
    pub arguments: Vec<String>,
    /// Threads that the worker may keep busy; 0: the machine's cores.
    pub threads: usize,
    /// A request during which no event came for so long is taken for hung; `None`: never.
    pub hang_limit: Option<Duration>,
    /// A worker whose resident memory, with that of all it has started, grows beyond this is killed.
    pub memory_limit_bytes: Option<u64>,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        WorkerOptions {
            program: None,
            arguments: vec![super::SUBCOMMAND.to_owned()],
            threads: 0,
            hang_limit: Some(Duration::from_secs(600)),
            memory_limit_bytes: None,
        }
    }
}

/// A request that was not answered as it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The worker could not be started.
    #[error("a worker could not be started ({program}): {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The worker died.
    #[error("the worker {0}")]
    Died(#[from] Death),
    /// The worker said that the request could not be done.
    #[error("{message}")]
    Failed {
        /// What sort of failure.
        kind: Failure,
        /// What was wrong, where, and what to do.
        message: String,
    },
    /// A plugin does not do what was asked.
    #[error("{0}")]
    Skipped(String),
    /// The user asked to stop.
    #[error("stopped by the user")]
    Cancelled,
}

/// The event that ended a request well.
#[derive(Debug)]
pub enum Answer {
    /// To `Describe`.
    Described(Box<Descriptor>),
    /// To `Normalize`.
    Normalized(Value),
    /// To `FindLibrary` and `SetUpLibrary`.
    Library(Option<Box<LibraryStatus>>),
    /// To `DescribeMetric`.
    Metric(Box<Description>),
    /// To `Check`.
    Checked(CheckOutcome),
    /// To `Stage`.
    Done(Box<StageOutcome>),
}

impl Answer {
    /// The error for an answer to another question.
    pub(crate) fn unexpected(self) -> WorkerError {
        WorkerError::Failed { kind: Failure::Failed, message: "the worker answered another question".into() }
    }
}

enum Message {
    Event(Box<Event>),
    Garbage(String),
    Closed,
}

/// Where a worker's standard error goes.
#[derive(Default)]
struct Chatter {
    tail: VecDeque<u8>,
    log: Option<File>,
}

impl Chatter {
    fn write(&mut self, bytes: &[u8]) {
        self.tail.extend(bytes);
        let excess = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..excess);
        // A log that cannot be written costs no result.
        if let Some(log) = &mut self.log
            && log.write_all(bytes).is_err()
        {
            self.log = None;
        }
    }

    fn tail(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A worker process. Dropping it ends the process, and all that it has started.
///
/// Start and drop it on a thread that lives as long: the kernel ends a worker with the thread that started it.
pub struct Supervisor {
    child: Child,
    stdin: Option<ChildStdin>,
    messages: Receiver<Message>,
    chatter: Arc<Mutex<Chatter>>,
    stderr_reader: Option<std::thread::JoinHandle<()>>,
    options: WorkerOptions,
    oom_before: OomKills,
    reaped: Option<ExitStatus>,
}

fn read_events(stdout: impl Read, messages: &SyncSender<Message>) {
    let mut reader = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        if !matches!(read, Ok(n) if n > 0) {
            break;
        }
        let message = match serde_json::from_slice::<Event>(&line) {
            Ok(event) => Message::Event(Box::new(event)),
            Err(_) => {
                line.truncate(1000);
                Message::Garbage(String::from_utf8_lossy(&line).trim_end().to_owned())
            }
        };
        let garbage = matches!(message, Message::Garbage(_));
        if messages.send(message).is_err() || garbage {
            break;
        }
    }
    let _ = messages.send(Message::Closed);
}

fn read_chatter(mut stderr: impl Read, chatter: &Mutex<Chatter>) {
    let mut buffer = [0u8; 8192];
    while let Ok(n) = stderr.read(&mut buffer) {
        if n == 0 {
            break;
        }
        chatter.lock().unwrap_or_else(PoisonError::into_inner).write(&buffer[..n]);
    }
}

/// The folder below which backends keep the libraries that they install: the user's, else one of the cache's.
fn libraries_folder() -> Option<PathBuf> {
    match std::env::var_os(LIBRARIES_VARIABLE) {
        // Programs below it are started in other folders.
        Some(folder) if !folder.is_empty() => std::path::absolute(folder).ok(),
        _ => std::path::absolute(crate::assets::cache_folder().ok()?.join("backends")).ok(),
    }
}

impl Supervisor {
    /// Starts a worker and waits until it has said which protocol it speaks.
    ///
    /// # Errors
    /// The program cannot be started, died at once, or is another version.
    pub fn spawn(options: &WorkerOptions) -> Result<Supervisor, WorkerError> {
        let program = match &options.program {
            Some(program) => program.clone(),
            // Not `current_exe` alone: the file may have been replaced, and then its path is that of a deleted one.
            None => PathBuf::from("/proc/self/exe"),
        };
        let failed = |source| WorkerError::Spawn { program: program.display().to_string(), source };
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            n => n,
        };
        let mut command = Command::new(&program);
        command.args(&options.arguments);
        for variable in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"] {
            command.env(variable, threads.to_string());
        }
        let mut child = command
            .envs(libraries_folder().map(|folder| (LIBRARIES_VARIABLE, folder)))
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .env("TOKENIZERS_PARALLELISM", if threads > 1 { "true" } else { "false" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own group: Ctrl-C at the terminal reaches the host alone, which then stops the worker as it should be.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let (sender, messages) = sync_channel(1024);
        let chatter = Arc::new(Mutex::new(Chatter::default()));
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let mut supervisor = Supervisor {
            child,
            stdin,
            messages,
            chatter: Arc::clone(&chatter),
            stderr_reader: None,
            options: options.clone(),
            oom_before: OomKills::now(),
            reaped: None,
        };
        if let Some(stdout) = stdout {
            std::thread::Builder::new()
                .name("worker events".into())
                .spawn(move || read_events(stdout, &sender))
                .map_err(failed)?;
        }
        if let Some(stderr) = stderr {
            let reader = std::thread::Builder::new()
                .name("worker stderr".into())
                .spawn(move || read_chatter(stderr, &chatter))
                .map_err(failed)?;
            supervisor.stderr_reader = Some(reader);
        }
        supervisor.greet()?;
        Ok(supervisor)
    }

    fn greet(&mut self) -> Result<(), WorkerError> {
        match self.messages.recv_timeout(HELLO_LIMIT) {
            Ok(Message::Event(event)) => match *event {
                Event::Hello { protocol: PROTOCOL_VERSION, .. } => Ok(()),
                Event::Hello { protocol, .. } => {
                    self.kill();
                    Err(Death::Version { theirs: protocol }.into())
                }
                other => Err(self.garbage(format!("{other:?} instead of a greeting")).into()),
            },
            Ok(Message::Garbage(line)) => Err(self.garbage(line).into()),
            Ok(Message::Closed) | Err(RecvTimeoutError::Disconnected) => {
                Err(self.bury(Evidence::default()).into())
            }
            Err(RecvTimeoutError::Timeout) => {
                let killed = KilledBecause::Hung { seconds: HELLO_LIMIT.as_secs() };
                Err(self.kill_because(killed).into())
            }
        }
    }

    /// Process id of the worker.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends what the worker writes to its standard error to a file from now on; `None`: nowhere.
    pub fn set_log(&mut self, log: Option<File>) {
        self.chatter.lock().unwrap_or_else(PoisonError::into_inner).log = log;
    }

    /// End of what the worker wrote to its standard error.
    pub fn tail(&self) -> String {
        self.chatter.lock().unwrap_or_else(PoisonError::into_inner).tail()
    }

    /// Whether the worker has died; it then answers no further request.
    pub fn is_dead(&self) -> bool {
        self.reaped.is_some()
    }

    /// Sends a request and waits for its end. `on_event` sees progress and log lines as they come. When the user interrupts, the worker is told
    /// to cancel; when he insists, it is killed.
    ///
    /// # Errors
    /// The worker died, or says that the request failed, is not supported or was cancelled.
    pub fn call(
        &mut self,
        request: Request,
        interrupt: &Interrupt,
        on_event: &mut dyn FnMut(&Event),
    ) -> Result<Answer, WorkerError> {
        if interrupt.stop() {
            return Err(WorkerError::Cancelled);
        }
        if self.send(&request).is_err() {
            return Err(self.bury(Evidence::default()).into());
        }
        let mut last_sign = Instant::now();
        let mut told_to_cancel = false;
        loop {
            match self.messages.recv_timeout(TICK) {
                Ok(Message::Event(event)) => {
                    last_sign = Instant::now();
                    match *event {
                        Event::Progress { .. } | Event::Log { .. } => on_event(&event),
                        Event::Described { descriptor } => return Ok(Answer::Described(descriptor)),
                        Event::Normalized { options } => return Ok(Answer::Normalized(options)),
                        Event::Library { status } => return Ok(Answer::Library(status)),
                        Event::Metric { description } => return Ok(Answer::Metric(description)),
                        Event::Checked { outcome } => return Ok(Answer::Checked(outcome)),
                        Event::Done { outcome } => return Ok(Answer::Done(outcome)),
                        Event::Failed { kind, message } => return Err(WorkerError::Failed { kind, message }),
                        Event::Skipped { reason } => return Err(WorkerError::Skipped(reason)),
                        Event::Cancelled => return Err(WorkerError::Cancelled),
                        Event::Hello { .. } => return Err(self.garbage("a second greeting".into()).into()),
                    }
                }
                Ok(Message::Garbage(line)) => return Err(self.garbage(line).into()),
                Ok(Message::Closed) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.bury(Evidence::default()).into());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(limit) = self.options.hang_limit
                && last_sign.elapsed() >= limit
            {
                return Err(self.kill_because(KilledBecause::Hung { seconds: limit.as_secs() }).into());
            }
            if let Some(limit) = self.options.memory_limit_bytes
                && let Some(resident) = resident_bytes(self.child.id())
                && resident > limit
            {
                return Err(self.kill_because(KilledBecause::MemoryLimit { resident, limit }).into());
            }
            if interrupt.kill() {
                return Err(self.kill_because(KilledBecause::User).into());
            }
            if interrupt.stop() && !told_to_cancel {
                told_to_cancel = true;
                let _ = self.send(&Request::Cancel);
            }
        }
    }

    fn send(&mut self, request: &Request) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let stdin = self.stdin.as_mut().ok_or(std::io::ErrorKind::BrokenPipe)?;
        stdin.write_all(&line)?;
        stdin.flush()
    }

    fn garbage(&mut self, line: String) -> Death {
        self.kill();
        self.bury(Evidence {
            garbage: Some(line),
            killed: Some(KilledBecause::Garbage),
            ..Evidence::default()
        })
    }

    fn kill_because(&mut self, killed: KilledBecause) -> Death {
        self.kill();
        self.bury(Evidence { killed: Some(killed), ..Evidence::default() })
    }

    /// Kills the worker's whole process group. Only while the worker is not reaped: until then its number cannot name another.
    fn kill(&mut self) {
        if self.reaped.is_none() {
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
    }

    /// Waits for the worker's end without reaping it; `None` after `limit`.
    fn wait_for_end(&self, limit: Duration) -> Option<()> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let start = Instant::now();
        loop {
            match rustix::process::waitid(WaitId::Pid(Pid::from_child(&self.child)), options) {
                Ok(None) => {}
                Ok(Some(_)) => return Some(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Some(()),
            }
            if start.elapsed() >= limit {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Reaps the worker, ends what it left behind, and works out how it died.
    fn bury(&mut self, mut evidence: Evidence) -> Death {
        if self.reaped.is_none() {
            // Its output is closed, so it is about to end; one that only closed its output is ended here.
            let closed_only = self.wait_for_end(Duration::from_secs(5)).is_none();
            if closed_only && evidence.killed.is_none() {
                evidence.killed = Some(KilledBecause::Garbage);
                evidence.garbage = Some("it closed its output".into());
            }
            self.kill();
            self.reaped = self.child.wait().ok();
        }
        // The rest of its standard error is in the pipe; whatever held it open beside the worker has just been killed.
        if let Some(reader) = self.stderr_reader.take() {
            let start = Instant::now();
            while !reader.is_finished() && start.elapsed() < Duration::from_secs(2) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        evidence.tail = self.tail();
        evidence.oom_kills_rose = OomKills::now().rose_since(self.oom_before);
        let status = self.reaped.unwrap_or_else(|| ExitStatus::from_raw(0));
        Death::classify(status, &evidence)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if self.reaped.is_none() {
            let _ = self.send(&Request::Exit);
            self.stdin = None;
            let _ = self.wait_for_end(FAREWELL);
            self.kill();
            self.reaped = self.child.wait().ok();
        }
    }
}
