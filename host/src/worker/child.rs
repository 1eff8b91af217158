//! The worker's own side: reads requests, does them, sends events.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

use llmcb_plugin_api::loader::LoadedPlugin;
use llmcb_plugin_api::sdk::{Error, ErrorKind};

use super::protocol::{Event, Failure, PROTOCOL_VERSION, Request};
use super::services::{EventSink, Services};
use crate::stage;

/// Environment variable by which the host tells a worker its own process id.
pub(crate) const PARENT_VARIABLE: &str = "LLMCB_WORKER_PARENT";

/// The worker's `main`: serves requests from standard input until it is told to exit or the input ends.
///
/// Standard output is moved to a private descriptor for the protocol, and descriptor 1 then points at standard error; standard input
/// likewise, and descriptor 0 then reads nothing. So what a plugin prints or reads cannot disturb the protocol.
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the worker could not start: {error}");
            ExitCode::from(2)
        }
    }
}

fn serve() -> std::io::Result<()> {
    // The kernel ends the worker with its host, however the host ends. The host may have died before that took hold.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if let Some(expected) = std::env::var(PARENT_VARIABLE).ok().and_then(|v| v.parse::<i32>().ok()) {
        let parent = rustix::process::getppid().map(|p| p.as_raw_nonzero().get());
        if parent != Some(expected) {
            return Err(std::io::Error::other("the host has ended already"));
        }
    }
    let out = rustix::io::fcntl_dupfd_cloexec(std::io::stdout().as_fd(), 3)?;
    let input = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3)?;
    rustix::stdio::dup2_stdout(std::io::stderr().as_fd())?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;

    let events = EventSink::new(std::fs::File::from(out));
    events.send(&Event::Hello {
        protocol: PROTOCOL_VERSION,
        host_version: env!("CARGO_PKG_VERSION").to_owned(),
    });
    let cancelled = Arc::new(AtomicBool::new(false));
    let (sender, requests) = channel();
    let flag = Arc::clone(&cancelled);
    let sink = events.clone();
    std::thread::Builder::new()
        .name("requests".into())
        .spawn(move || read_requests(std::fs::File::from(input), &sender, &flag, &sink))?;

    let mut cache = stage::Cache::default();
    for request in requests {
        let event = match request {
            Request::Exit => break,
            Request::Cancel => continue,
            request => answer(request, &events, &cancelled, &mut cache),
        };
        cancelled.store(false, Ordering::SeqCst);
        events.send(&event);
    }
    // Servers of libraries end as they should, and what was written only to be loaded goes.
    drop(cache);
    // Not by returning: threads of plugins may still run, and their libraries' destructors are none of the run's concern.
    std::process::exit(0)
}

fn read_requests(
    input: std::fs::File,
    requests: &Sender<Request>,
    cancelled: &AtomicBool,
    events: &EventSink,
) {
    for line in BufReader::new(input).lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(Request::Cancel) => cancelled.store(true, Ordering::SeqCst),
            Ok(request) => {
                if requests.send(request).is_err() {
                    return;
                }
            }
            Err(error) => events.send(&Event::Failed {
                kind: Failure::Failed,
                message: format!("a request could not be understood: {error}"),
            }),
        }
    }
    // No host, no work.
    cancelled.store(true, Ordering::SeqCst);
    let _ = requests.send(Request::Exit);
}

fn failed(error: &Error) -> Event {
    let kind = match error.kind() {
        ErrorKind::Cancelled => return Event::Cancelled,
        ErrorKind::Unsupported => return Event::Skipped { reason: error.message().to_owned() },
        ErrorKind::Invalid => Failure::Invalid,
        ErrorKind::Panicked => Failure::Panicked,
        _ => Failure::Failed,
    };
    Event::Failed { kind, message: one_line(error.message()) }
}

/// A message on one line, however the plugin wrote it.
fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

fn load(path: &std::path::Path) -> Result<LoadedPlugin, Error> {
    LoadedPlugin::open(path).map_err(|error| {
        if let Some(details) = error.details() {
            eprintln!("{details}");
        }
        Error::invalid(error.to_string())
    })
}

fn answer(
    request: Request,
    events: &EventSink,
    cancelled: &Arc<AtomicBool>,
    cache: &mut stage::Cache,
) -> Event {
    let result = match request {
        Request::Describe { path } => {
            load(&path).map(|plugin| Event::Described { descriptor: Box::new(plugin.descriptor().clone()) })
        }
        Request::Normalize { path, role, options } => load(&path)
            .and_then(|plugin| plugin.normalize_options(&role, &options))
            .map(|options| Event::Normalized { options }),
        Request::FindLibrary { path, options } => load(&path)
            .and_then(|plugin| plugin.find_library(&options))
            .map(|status| Event::Library { status: status.map(Box::new) }),
        Request::SetUpLibrary { path, options, threads } => {
            let services = Services::new(events.clone(), Arc::clone(cancelled), 0, threads);
            load(&path)
                .and_then(|plugin| plugin.set_up_library(&options, Arc::new(services)))
                .map(|status| Event::Library { status: Some(Box::new(status)) })
        }
        Request::DescribeMetric { metric } => cache
            .metrics
            .describe(&metric, events)
            .map(|description| Event::Metric { description: Box::new(description) }),
        Request::Check { name, given } => {
            let given = stage::check::Given { events: events.clone(), ..given };
            Ok(Event::Checked { outcome: stage::check::run(&name, &given) })
        }
        Request::Stage(order) => stage::run(&order, events, cancelled, cache)
            .map(|outcome| Event::Done { outcome: Box::new(outcome) }),
        Request::Cancel | Request::Exit => Err(Error::failed("not a request that has an answer")),
    };
    result.unwrap_or_else(|error| failed(&error))
}
