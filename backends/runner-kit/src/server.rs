//! A library that serves over HTTP: a process of its own on loopback, from its start to its end.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use llmcb_plugin_api::sdk::{Error, Host, Result};

use crate::attended::Attended;
use crate::http::Client;

/// How often a server that starts is asked whether it is ready.
const TICK: Duration = Duration::from_millis(200);
/// How long one that answers no more may take to end, before it counts as alive.
const DYING: Duration = Duration::from_secs(5);
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
    program: Attended,
    client: Client,
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
        let mut program = Attended::start(plan.name, command.stdin(Stdio::null()))?;
        if let Some(stdout) = program.stdout() {
            program.watch(stdout)?;
        }
        let client = Client::new(format!("http://127.0.0.1:{port}"), key, plan.request_limit);
        let mut server = Server { plan, program, client };
        server.wait(host)?;
        Ok(server)
    }

    fn wait(&mut self, host: &Host) -> Result<()> {
        let (name, limit) = (self.plan.name, self.plan.start_limit);
        let begin = Instant::now();
        loop {
            host.check_cancelled()?;
            if let Some(end) = self.program.end() {
                return Err(end);
            }
            if self.client.answers(self.plan.health) {
                return Ok(());
            }
            if begin.elapsed() > limit {
                return Err(Error::failed(format!(
                    "{name} was not ready within {} s (option start_limit){}",
                    limit.as_secs(),
                    self.program.cause()
                )));
            }
            self.program.tell_start(host);
            std::thread::sleep(TICK);
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
            match self.program.end() {
                Some(end) => return end,
                // One that dies closes its connections first: its end is a moment away.
                None if begin.elapsed() < DYING && !self.client.answers(self.plan.health) => {
                    std::thread::sleep(TICK / 4);
                }
                None => return error,
            }
        }
    }
}

fn is_taken(error: &Error) -> bool {
    error.message().to_ascii_lowercase().contains("address already in use")
}
