//! Counting what a plugin asks of the host and of its engine, so that it can be told to stop at any of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use llmcb_plugin_api::sdk::{Error, HostServices, LogLevel, Result};

use crate::worker::{EventSink, Services};

/// Every call that an instance makes: into the engine, and into the host.
#[derive(Default)]
pub(crate) struct Steps {
    taken: AtomicU64,
    stop_at: Option<u64>,
    until: Option<Instant>,
    stopped: Arc<AtomicBool>,
    refused: AtomicBool,
    aside: AtomicBool,
    asked: AtomicU64,
    /// The call under which it was told to stop.
    at: Mutex<String>,
}

impl Steps {
    /// Tells the plugin to stop under call number `step`, from 1; before all for 0.
    pub(super) fn stop_at(step: u64) -> Arc<Self> {
        let stopped = Arc::new(AtomicBool::new(step == 0));
        Arc::new(Steps { stop_at: Some(step), stopped, ..Steps::default() })
    }

    /// Tells the plugin to stop with the first call after a time.
    pub(super) fn stop_after(time: Duration) -> Arc<Self> {
        Arc::new(Steps { until: Some(Instant::now() + time), ..Steps::default() })
    }

    fn take(&self, call: &str) {
        if self.aside.load(Ordering::SeqCst) {
            return;
        }
        let step = self.taken.fetch_add(1, Ordering::SeqCst) + 1;
        let due = self.stop_at == Some(step) || self.until.is_some_and(|until| Instant::now() >= until);
        if due && !self.stopped.swap(true, Ordering::SeqCst) {
            call.clone_into(&mut self.at.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// A call into the engine. Once the user has asked to stop, an engine answers no other way.
    pub(crate) fn of_engine(&self, call: &str) -> Result<()> {
        self.take(call);
        if self.stopped() && !self.aside.load(Ordering::SeqCst) {
            self.refused.store(true, Ordering::SeqCst);
            return Err(Error::cancelled());
        }
        Ok(())
    }

    /// Whether calls are the host's own, between those of the plugin.
    pub(crate) fn is_aside(&self) -> bool {
        self.aside.load(Ordering::SeqCst)
    }

    /// Calls the engine on the host's own account: nothing is counted or refused.
    pub(super) fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        self.aside.store(true, Ordering::SeqCst);
        let result = work();
        self.aside.store(false, Ordering::SeqCst);
        result
    }

    /// What becomes of a plugin's answer: success after the engine has refused to go on is none, and once the user has asked to stop the
    /// host does.
    pub(super) fn obeyed<T>(&self, call: &str, answer: Result<T>) -> Result<T> {
        let answer = answer?;
        if self.refused.load(Ordering::SeqCst) {
            return Err(Error::failed(format!(
                "{call} reports success although the engine had answered that the user asked to stop"
            )));
        }
        if self.stopped() { Err(Error::cancelled()) } else { Ok(answer) }
    }

    /// Calls so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }

    /// How often it was asked whether the user wants to stop.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Whether the plugin was told to stop.
    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// The call under which it was told to.
    pub(super) fn at(&self) -> String {
        self.at.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Services that count. What a plugin reports goes nowhere: one that reports for ever must be found to hang.
    pub(super) fn services(self: &Arc<Self>, seed: u64, threads: usize) -> Arc<dyn HostServices> {
        let services = Services::new(EventSink::default(), Arc::clone(&self.stopped), seed, threads);
        Arc::new(Counted { services, steps: Arc::clone(self) })
    }
}

struct Counted {
    services: Services,
    steps: Arc<Steps>,
}

impl HostServices for Counted {
    fn progress(&self, done: u64, total: u64, what: &str) {
        self.steps.take("progress");
        self.services.progress(done, total, what);
    }

    fn cancelled(&self) -> bool {
        self.steps.take("cancelled");
        self.steps.asked.fetch_add(1, Ordering::SeqCst);
        self.services.cancelled()
    }

    fn log(&self, level: LogLevel, message: &str) {
        self.steps.take("log");
        self.services.log(level, message);
    }

    fn seed(&self) -> u64 {
        self.steps.take("seed");
        self.services.seed()
    }

    fn threads(&self) -> u32 {
        self.steps.take("threads");
        self.services.threads()
    }

    fn save_state(&self, key: &str, bytes: &[u8]) -> Result<()> {
        self.steps.take("save_state");
        self.services.save_state(key, bytes)
    }

    fn load_state(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.steps.take("load_state");
        self.services.load_state(key)
    }
}
