//! Programs that are run for a plugin: they end with it, can be stopped, and what they say is kept.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use llmcb_plugin_api::sdk::{Error, Host, Result};
use rustix::process::{Pid, Signal, kill_process_group};

/// How often a program that says nothing is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Lines of a program's output that a failure shows.
const SHOWN: usize = 4;

/// Makes the kernel end a program with the thread that starts it, however that ends.
pub fn ends_with_us(command: &mut Command) -> &mut Command {
    let parent = rustix::process::getpid();
    #[allow(unsafe_code)]
    // SAFETY: between fork and exec only system calls are made, without allocation and locks.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // It may have died before that took hold.
            match rustix::process::getppid() == Some(parent) {
                true => Ok(()),
                false => Err(std::io::ErrorKind::BrokenPipe.into()),
            }
        })
    }
}

/// A program in a group of its own; dropping this ends the group.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// Reads lines in a thread of its own and shows each to `visit`, until that says that it wants no more. What is no text is shown as well as
/// can be.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn read_lines(
    from: impl Read + Send + 'static,
    mut visit: impl FnMut(&str) -> bool + Send + 'static,
) -> std::io::Result<()> {
    let read = move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if !visit(String::from_utf8_lossy(&line).trim_end()) {
                return;
            }
            line.clear();
        }
    };
    std::thread::Builder::new().name("output".into()).spawn(read).map(|_| ())
}

/// Runs a program to its end. Its output goes to the end of the file `log`, if there is one; `told` sees each line of it.
///
/// # Errors
/// It cannot be started, fails (with the end of what it said), or the user asked to stop, and then it is ended with all that it started.
pub fn run(
    host: &Host,
    what: &str,
    command: &mut Command,
    log: Option<&Path>,
    told: impl Fn(&str),
) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |e: std::io::Error| Error::failed(format!("{what}: {program} could not be started: {e}"));
    let mut log_file = log.map(open_log).transpose()?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut running = Group(ends_with_us(command).spawn().map_err(failed)?);
    let (sender, lines) = channel();
    // Bars of progress are drawn over and over on one line.
    let send_to = |sender: Sender<String>| {
        move |line: &str| sender.send(line.rsplit('\r').next().unwrap_or_default().to_owned()).is_ok()
    };
    if let Some(stdout) = running.0.stdout.take() {
        read_lines(stdout, send_to(sender.clone())).map_err(failed)?;
    }
    if let Some(stderr) = running.0.stderr.take() {
        read_lines(stderr, send_to(sender)).map_err(failed)?;
    }
    let mut last: VecDeque<String> = VecDeque::new();
    loop {
        match lines.recv_timeout(TICK) {
            Ok(line) => {
                // A log that cannot be written costs nothing else.
                let _ = log_file.as_mut().map(|file| writeln!(file, "{line}"));
                if !line.trim().is_empty() {
                    told(&line);
                    last.push_back(line);
                    if last.len() > SHOWN {
                        last.pop_front();
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        host.check_cancelled()?;
    }
    // Its output has ended; it may take a moment longer itself.
    let status = loop {
        if let Some(status) = running.0.try_wait().map_err(failed)? {
            break status;
        }
        host.check_cancelled()?;
        std::thread::sleep(TICK / 10);
    };
    ended(what, &program, status, &Vec::from(last), log)
}

/// The cores that this process may run on.
pub fn cores() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("0");
    let mut all = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            all.extend(first..=last);
        }
    }
    all
}

fn ended(what: &str, program: &str, status: ExitStatus, last: &[String], log: Option<&Path>) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let said = if last.is_empty() { "it said nothing".to_owned() } else { last.join("; ") };
    let whole =
        log.map_or_else(|| "is in the stage's log".to_owned(), |log| format!("is in {}", log.display()));
    Err(Error::failed(format!("{what}: {program} ended with {status}: {said} (all of it {whole})")))
}

fn open_log(log: &Path) -> Result<File> {
    let failed = |e: std::io::Error| Error::failed(format!("cannot write {}: {e}", log.display()));
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    OpenOptions::new().create(true).append(true).open(log).map_err(failed)
}
