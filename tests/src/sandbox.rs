//! The real program, run where it can see and change nothing but a temporary folder.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::{artifacts, data, model};

/// Longer than any run of these tests takes, so that a hang fails its test instead of stopping all.
const PATIENCE: Duration = Duration::from_secs(120);

/// A port on which nobody listens.
const NOWHERE: &str = "http://127.0.0.1:9";

/// A temporary folder with the tiny model, the tiny data, a cache, a home, and room for results.
pub struct Sandbox {
    folder: TempDir,
}

/// What a finished run of the program was.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Finished {
    /// The exit code, if it was not a signal that ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Fails the test unless the exit code is `code`.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            Some(code),
            "exit status (signal {:?})\n--- stdout\n{}\n--- stderr\n{}",
            self.status.signal(),
            self.stdout,
            self.stderr
        );
        self
    }

    /// Fails the test unless standard error holds every one of `parts`, a panic of the program's own is not in it, and it
    /// stays short enough to be read.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn expect_message(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.stderr.contains(part), "no `{part}` in standard error:\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked at"), "the program panicked:\n{}", self.stderr);
        assert!(self.stderr.lines().count() < 60, "nobody reads that much:\n{}", self.stderr);
    }
}

/// A run of the program that has not ended yet, in a process group of its own.
pub struct Running {
    child: Child,
    stdout: std::thread::JoinHandle<String>,
    stderr: std::thread::JoinHandle<String>,
}

fn drain(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Parent and state of a process, as the operating system tells them; nothing when it is gone.
fn parent_and_state(pid: i32) -> Option<(u32, char)> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; what follows it does not.
    let mut fields = line.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// Whether a process is alive.
pub fn alive(pid: Pid) -> bool {
    parent_and_state(pid.as_raw_nonzero().get()).is_some_and(|(_, state)| state != 'Z')
}

/// Process ids that a script wrote into a file, between spaces.
///
/// # Panics
/// When there is no such file, or it holds something else.
pub fn process_ids(file: &Path) -> Vec<Pid> {
    let text = std::fs::read_to_string(file).expect("process ids");
    text.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().expect("a number"))).collect()
}

/// Whether processes that were killed are gone: on a busy machine that may take them a moment.
pub fn are_gone(pids: &[Pid]) -> bool {
    (0..200).any(|_| {
        let gone = !pids.iter().any(|pid| alive(*pid));
        if !gone {
            std::thread::sleep(Duration::from_millis(50));
        }
        gone
    })
}

impl Running {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal to the program alone.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the program is still there");
    }

    /// Process ids of the workers that are alive.
    pub fn workers(&self) -> Vec<Pid> {
        let host = self.child.id();
        std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                parent_and_state(*pid).is_some_and(|(parent, state)| parent == host && state != 'Z')
            })
            .filter_map(Pid::from_raw)
            .collect()
    }

    /// Kills the program and all its workers at once, as a machine that loses power would.
    ///
    /// # Panics
    /// When the operating system does not say how it ended.
    pub fn kill_all(mut self) -> Finished {
        let workers = self.workers();
        let _ = kill_process_group(self.pid(), Signal::KILL);
        for worker in workers {
            let _ = kill_process(worker, Signal::KILL);
        }
        let status = self.child.wait().expect("status of the program");
        self.finished(status)
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// When the operating system does not say.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().expect("status of the program").is_some()
    }

    /// Waits until `what` holds.
    ///
    /// # Panics
    /// When the program ends before, or it takes too long.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds() {
            if self.ended() {
                assert!(holds(), "the program ended before {what}");
                return;
            }
            if Instant::now() > until {
                let _ = kill_process_group(self.pid(), Signal::KILL);
                panic!("{what} did not happen within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it takes too long.
    pub fn wait(self) -> Finished {
        self.wait_for(PATIENCE)
    }

    /// As [`wait`](Self::wait), for work that takes longer than that of most tests.
    ///
    /// # Panics
    /// When it takes longer than `patience`.
    pub fn wait_for(mut self, patience: Duration) -> Finished {
        let until = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("status of the program") {
                break status;
            }
            if Instant::now() > until {
                let _ = kill_process_group(self.pid(), Signal::KILL);
                let _ = self.child.wait();
                let finished = self.finished(ExitStatus::from_raw(9));
                panic!("no end within {patience:?}\n{}\n{}", finished.stdout, finished.stderr);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.finished(status)
    }

    fn finished(self, status: ExitStatus) -> Finished {
        let join = |handle: std::thread::JoinHandle<String>| handle.join().unwrap_or_default();
        Finished { status, stdout: join(self.stdout), stderr: join(self.stderr) }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// A sandbox with a model and data.
    ///
    /// # Panics
    /// When the temporary folder cannot be written.
    pub fn new() -> Self {
        let sandbox = Self::bare();
        model::write(&sandbox.model(), model::Shape::default());
        data::write_all(&sandbox.data());
        sandbox
    }

    /// A sandbox without a model and data.
    ///
    /// # Panics
    /// When the temporary folder cannot be made.
    pub fn bare() -> Self {
        let folder = tempfile::Builder::new().prefix("llmcb-test-").tempdir().expect("temporary folder");
        Sandbox { folder }
    }

    /// Model and data as they were, and no results; the cache stays.
    ///
    /// # Panics
    /// When the temporary folder cannot be written.
    pub fn refresh(&self) {
        for folder in [self.model(), self.data(), self.out()] {
            if folder.exists() {
                std::fs::remove_dir_all(&folder).expect("folder of the sandbox");
            }
        }
        model::write(&self.model(), model::Shape::default());
        data::write_all(&self.data());
    }

    /// A path in the sandbox.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The tiny model.
    pub fn model(&self) -> PathBuf {
        self.path("model")
    }

    /// The tiny data.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Where runs write their results, unless told otherwise.
    pub fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// The program with arguments and with surroundings of its own.
    pub fn command(&self, arguments: &[impl AsRef<str>]) -> Command {
        let mut command = Command::new(artifacts::host());
        command.args(arguments.iter().map(AsRef::as_ref));
        self.surround(&mut command);
        command
    }

    /// Gives a command the sandbox's surroundings: nothing of the user's, and no way to any network.
    pub fn surround(&self, command: &mut Command) {
        command.env_clear();
        for name in ["PATH", "LD_LIBRARY_PATH", "TMPDIR", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", self.path("home"))
            .env("LLMCB_CACHE", self.path("cache"))
            .env("HF_HOME", self.path("hf"))
            .env("HF_ENDPOINT", NOWHERE)
            .env("HF_HUB_OFFLINE", "1")
            .env("PIP_INDEX_URL", format!("{NOWHERE}/simple"))
            .env("PIP_EXTRA_INDEX_URL", "")
            .env("PIP_CONFIG_FILE", "/dev/null")
            .env("PIP_RETRIES", "0")
            .env("PIP_TIMEOUT", "2")
            .env("NO_COLOR", "1")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
    }

    /// Starts a command in a process group of its own.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&self, mut command: Command) -> Running {
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start of the program");
        let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
        Running { child, stdout, stderr }
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[impl AsRef<str>]) -> Finished {
        self.start(self.command(arguments)).wait()
    }

    /// Arguments of a run of the tiny model on the tiny data, with results in `out`; further ones follow.
    pub fn run_arguments(&self, out: &str, further: &[&str]) -> Vec<String> {
        let text = |path: PathBuf| path.to_str().expect("temporary folders have plain names").to_owned();
        let (model, data, out) = (text(self.model()), text(self.data()), text(self.path(out)));
        let first = [
            ["run", "--model", &model],
            ["--data", &data, "--out"],
            [&out, "--calibration", "wikitext2:validation"],
            ["--calibration-windows", "4", "--calibration-length"],
            ["64", "--threads", "1"],
        ];
        first.iter().flatten().chain(further).map(|a| (*a).to_owned()).collect()
    }

    /// A link to a file under a name in a folder of the sandbox, which is made.
    ///
    /// # Panics
    /// When the link cannot be made.
    pub fn link(&self, file: &Path, folder: &str) -> PathBuf {
        let folder = self.path(folder);
        std::fs::create_dir_all(&folder).expect("folder");
        let link = folder.join(file.file_name().expect("name of a file"));
        std::os::unix::fs::symlink(file, &link).expect("link");
        link
    }
}
