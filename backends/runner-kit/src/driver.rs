//! A library that is asked over the standard input of a program: a line of JSON for each request, a line of JSON for each answer.
//!
//! An answer is `{"answer": ...}`, or `{"error": "in one line"}`, with `"unsupported": true` where the library does not do what was asked.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use llmcb_plugin_api::sdk::{Error, Host, Result};
use serde_json::Value;

use crate::attended::Attended;
use crate::process::read_lines;

/// How often it is looked whether the user asked to stop.
const TICK: Duration = Duration::from_millis(100);
/// How long a program may take to end that has no more requests to wait for, or that answers no more.
const ENDING: Duration = Duration::from_secs(10);

/// What is known of a driver before it is started.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The library, for messages.
    pub name: &'static str,
    /// How long the first answer may take.
    pub start_limit: Duration,
    /// How long any other may take.
    pub request_limit: Duration,
}

/// A program that answers. Dropping it ends its process, and all that it has started.
pub struct Driver {
    plan: Plan,
    program: Attended,
    /// Nothing once it is not to be asked any more.
    requests: Option<Sender<String>>,
    answers: Receiver<String>,
}

impl Driver {
    /// Starts a program, and asks it the first thing: to open a model. Gives it with its answer.
    ///
    /// # Errors
    /// It cannot be started, ends, does not answer in time, or says what is wrong; or the user asked to stop.
    pub fn start(plan: Plan, host: &Host, mut command: Command, first: &Value) -> Result<(Self, Value)> {
        let failed = |e: std::io::Error| Error::failed(format!("{} could not be started: {e}", plan.name));
        let mut program = Attended::start(plan.name, command.stdin(Stdio::piped()))?;
        let (requests, to_write) = channel::<String>();
        let (to_read, answers) = channel();
        if let (Some(mut stdin), Some(stdout)) = (program.stdin(), program.stdout()) {
            read_lines(stdout, move |line| to_read.send(line.to_owned()).is_ok()).map_err(failed)?;
            // One that does not read would keep whoever writes waiting.
            let write = move || {
                for line in to_write {
                    if writeln!(stdin, "{line}").and_then(|()| stdin.flush()).is_err() {
                        return;
                    }
                }
            };
            std::thread::Builder::new().name("requests".into()).spawn(write).map_err(failed)?;
        }
        let mut driver = Driver { plan, program, requests: Some(requests), answers };
        let answer = driver.exchange(host, first, plan.start_limit, true)?;
        Ok((driver, answer))
    }

    /// The library, for messages.
    pub fn name(&self) -> &'static str {
        self.program.name()
    }

    /// Asks something.
    ///
    /// # Errors
    /// No answer in time, an end of the program with its cause, an answer that is none, or what it says is wrong; or the user asked to stop.
    pub fn ask(&mut self, host: &Host, request: &Value) -> Result<Value> {
        self.exchange(host, request, self.plan.request_limit, false)
    }

    fn exchange(&mut self, host: &Host, request: &Value, limit: Duration, starting: bool) -> Result<Value> {
        let name = self.name();
        if let Some(requests) = &self.requests {
            // Where nobody reads any more, no answer comes either, and that is explained.
            let _ = requests.send(request.to_string());
        } else {
            return Err(Error::failed(format!("{name} was given up after an earlier request")));
        }
        let line = self.wait(host, limit, starting).inspect_err(|_| self.give_up())?;
        let mut read: Value = serde_json::from_str(&line).unwrap_or_default();
        if let Some(error) = read["error"].as_str() {
            let message = format!("{name}: {error}");
            return Err(match read["unsupported"] == true {
                true => Error::unsupported(message),
                false => Error::failed(message),
            });
        }
        if let Some(answer) = read.get_mut("answer") {
            return Ok(answer.take());
        }
        self.give_up();
        let short: String = line.chars().take(80).collect();
        Err(Error::failed(format!("{name} gave an answer that is none: `{short}`")))
    }

    /// The next line.
    fn wait(&mut self, host: &Host, limit: Duration, starting: bool) -> Result<String> {
        let name = self.name();
        let begin = Instant::now();
        loop {
            match self.answers.recv_timeout(TICK) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => {
                    self.program.ends_within(ENDING);
                    return Err(match self.program.end() {
                        Some(end) => end,
                        None => Error::failed(format!("{name} closed its output{}", self.program.cause())),
                    });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            host.check_cancelled()?;
            if begin.elapsed() > limit {
                let (what, option) = match starting {
                    true => ("was not ready", "start_limit"),
                    false => ("did not answer", "request_limit"),
                };
                return Err(Error::failed(format!(
                    "{name} {what} within {} s (option {option}){}",
                    limit.as_secs(),
                    self.program.cause()
                )));
            }
            if starting {
                self.program.tell_start(host);
            }
        }
    }

    /// Ends a program whose next answer could be one to an earlier request.
    fn give_up(&mut self) {
        self.requests = None;
        self.program.kill();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The end of its input lets it end what it has started itself, in its own way.
        if self.requests.take().is_some() {
            self.program.ends_within(ENDING);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use llmcb_plugin_api::sdk::{HostServices, LogLevel};
    use serde_json::json;

    use super::*;

    /// A host that only asks to stop, if it is told to.
    struct Quiet(bool);

    impl HostServices for Quiet {
        fn progress(&self, _: u64, _: u64, _: &str) {}
        fn cancelled(&self) -> bool {
            self.0
        }
        fn log(&self, _: LogLevel, _: &str) {}
        fn seed(&self) -> u64 {
            0
        }
        fn threads(&self) -> u32 {
            1
        }
        fn save_state(&self, _: &str, _: &[u8]) -> Result<()> {
            Ok(())
        }
        fn load_state(&self, _: &str) -> Result<Option<Vec<u8>>> {
            Ok(None)
        }
    }

    fn host(cancelled: bool) -> Host {
        let services: Arc<dyn HostServices> = Arc::new(Quiet(cancelled));
        Host::from(services)
    }

    fn started(script: &str, cancelled: bool) -> Result<(Driver, Value)> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let limit = Duration::from_secs(1);
        let plan = Plan { name: "Lib", start_limit: limit, request_limit: limit };
        Driver::start(plan, &host(cancelled), command, &json!({"do": "open"}))
    }

    const READY: &str = "read -r line; echo '{\"answer\": 1}';";

    #[test]
    fn answers_are_those_of_the_program() {
        let echo = r#"while read -r line; do echo "{\"answer\": $line}"; done"#;
        let (mut driver, first) = started(echo, false).unwrap();
        assert_eq!(first, json!({"do": "open"}));
        // More than a pipe holds.
        let large = json!({"ids": vec![7; 100_000]});
        assert_eq!(driver.ask(&host(false), &large).unwrap(), large);
    }

    #[test]
    fn what_goes_wrong_is_explained() {
        for (script, says) in [
            (
                "echo 'ValueError: bad shape' >&2; exit 3",
                "Lib ended with exit status: 3: ValueError: bad shape",
            ),
            ("sleep 600", "Lib was not ready within 1 s (option start_limit), and said nothing"),
            ("echo '<html>'; sleep 600", "Lib gave an answer that is none: `<html>`"),
            ("echo '{\"error\": \"no memory\"}'; sleep 600", "Lib: no memory"),
            ("nowhere", "ended with exit status: 127"),
        ] {
            let message = started(script, false).err().expect(script).to_string();
            assert!(message.contains(says), "{script}: {message}");
        }
        let unsupported =
            started("echo '{\"error\": \"no GPU\", \"unsupported\": true}'", false).err().unwrap();
        assert_eq!(unsupported.kind(), llmcb_plugin_api::sdk::ErrorKind::Unsupported);
        let cancelled = started("sleep 600", true).err().unwrap();
        assert_eq!(cancelled.kind(), llmcb_plugin_api::sdk::ErrorKind::Cancelled);
    }

    #[test]
    fn one_that_hangs_is_ended_and_not_asked_again() {
        let (mut driver, _) = started(&format!("{READY} sleep 600"), false).unwrap();
        let message = driver.ask(&host(false), &json!(1)).unwrap_err().to_string();
        assert!(message.contains("did not answer within 1 s (option request_limit)"), "{message}");
        let message = driver.ask(&host(false), &json!(1)).unwrap_err().to_string();
        assert!(message.contains("given up"), "{message}");
    }
}
