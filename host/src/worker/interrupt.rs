//! Ctrl-C: once stops cleanly, twice kills.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How often the user asked to stop. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// An interrupt that only [`Interrupt::trigger`] raises.
    pub fn never() -> Self {
        Self::default()
    }

    /// Counts SIGINT, SIGTERM and SIGHUP from now on, which then no longer end the process.
    ///
    /// # Errors
    /// The operating system refuses to hand over the signals.
    pub fn install() -> std::io::Result<Self> {
        let interrupt = Self::default();
        let counter = interrupt.clone();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for _ in signals.forever() {
                counter.trigger();
            }
        })?;
        Ok(interrupt)
    }

    /// Asks to stop, once more.
    pub fn trigger(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether to stop at the next opportunity.
    pub fn stop(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }

    /// Whether to stop at once.
    pub fn kill(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 1
    }
}
