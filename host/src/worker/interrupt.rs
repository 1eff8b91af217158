//! Ctrl-C: once stops cleanly, twice kills.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::assets::Stop;

/// How long the program may take to end after the second Ctrl-C.
const GRACE: Duration = Duration::from_secs(5);

/// How often the user asked to stop. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// An interrupt that only [`Interrupt::trigger`] raises.
    pub fn never() -> Self {
        Self::default()
    }

    /// Counts SIGINT, SIGTERM and SIGHUP from now on, which then no longer end the process: the first asks to stop, the second ends the process
    /// within seconds, the third at once. Workers end with it, and results on disk are whole at any moment.
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
                match counter.0.load(Ordering::SeqCst) {
                    1 => {}
                    // Whoever watches a worker kills it and ends in good order; what else may keep the program busy gets no say.
                    2 => drop(std::thread::Builder::new().spawn(|| {
                        std::thread::sleep(GRACE);
                        std::process::exit(130)
                    })),
                    _ => std::process::exit(130),
                }
            }
        })?;
        Ok(interrupt)
    }

    /// For fetches, which then end early.
    pub fn for_fetches(&self) -> Stop {
        let interrupt = self.clone();
        Stop::when(move || interrupt.stop())
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
