//! How a fetch is left in the middle.

use super::error::AssetError;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often a fetch that waits asks whether to stop.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Says whether the user asked to stop; a fetch asks several times a second and then leaves nothing half-written. Never by default.
#[derive(Clone, Default)]
pub struct Stop(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Stop {
    /// Stops once `asked` says so.
    pub fn when(asked: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Stop(Some(Arc::new(asked)))
    }

    /// [`AssetError::Stopped`] when the user asked to stop.
    pub(crate) fn check(&self) -> Result<(), AssetError> {
        match &self.0 {
            Some(asked) if asked() => Err(AssetError::Stopped),
            _ => Ok(()),
        }
    }

    /// Receives what another thread sends. `Ok(None)` when nothing came for `limit`, or the other side is gone.
    pub(crate) fn receive<T>(&self, from: &Receiver<T>, limit: Duration) -> Result<Option<T>, AssetError> {
        let start = Instant::now();
        loop {
            self.check()?;
            let left = limit.saturating_sub(start.elapsed());
            match from.recv_timeout(left.min(TICK)) {
                Ok(value) => return Ok(Some(value)),
                Err(RecvTimeoutError::Timeout) if left > TICK => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stop({})", if self.check().is_err() { "now" } else { "not yet" })
    }
}
