//! The host, as a plugin sees it, and as the host implements it.

use std::sync::Arc;

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RArc, ROption, RSlice, RStr, RVec};

use super::error::{Error, Result, from_abi, to_abi};
use crate::abi::error::AbiResult;
use crate::abi::host::{AbiHost, AbiHost_TO, AbiHostArc};
use crate::export::catch;

/// How important a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something looks wrong.
    Warning,
    /// What happens, for everybody.
    Info,
    /// What happens, in detail.
    Debug,
    /// Everything.
    Trace,
}

/// What the host provides. The host implements it; plugins meet it as [`Host`].
pub trait HostServices: Send + Sync + 'static {
    /// `done` of `total` steps are done; `what` is being done.
    fn progress(&self, done: u64, total: u64, what: &str);
    /// Whether the user asked to stop.
    fn cancelled(&self) -> bool;
    /// Writes a line to the log.
    fn log(&self, level: LogLevel, message: &str);
    /// Seed of the run.
    fn seed(&self) -> u64;
    /// Threads the plugin may keep busy.
    fn threads(&self) -> u32;
    /// Keeps bytes under a key for a later run of the same stage.
    fn save_state(&self, key: &str, bytes: &[u8]) -> Result<()>;
    /// What was kept under a key.
    fn load_state(&self, key: &str) -> Result<Option<Vec<u8>>>;
}

/// Handle on the host's services; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Host(Arc<AbiHostArc>);

impl Host {
    pub(crate) fn from_abi(host: AbiHostArc) -> Self {
        Host(Arc::new(host))
    }

    /// Reports progress: `done` of `total` steps, and what is being done.
    pub fn progress(&self, done: u64, total: u64, what: &str) {
        self.0.progress(done, total, RStr::from(what));
    }

    /// Whether the user asked to stop.
    pub fn cancelled(&self) -> bool {
        self.0.cancelled()
    }

    /// An error of kind `Cancelled` when the user asked to stop; call it in every long loop.
    pub fn check_cancelled(&self) -> Result<()> {
        if self.cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Writes a line to the log.
    pub fn log(&self, level: LogLevel, message: impl AsRef<str>) {
        let level = match level {
            LogLevel::Error => 1,
            LogLevel::Warning => 2,
            LogLevel::Info => 3,
            LogLevel::Debug => 4,
            LogLevel::Trace => 5,
        };
        self.0.log(level, RStr::from(message.as_ref()));
    }

    /// Seed of the run.
    pub fn seed(&self) -> u64 {
        self.0.seed()
    }

    /// Threads the plugin may keep busy.
    pub fn threads(&self) -> usize {
        self.0.threads().max(1) as usize
    }

    /// Keeps bytes under a key so that a killed stage can go on.
    pub fn save_state(&self, key: &str, bytes: &[u8]) -> Result<()> {
        from_abi(self.0.save_state(RStr::from(key), RSlice::from(bytes)))
    }

    /// What was kept under a key by an earlier, killed run of this stage.
    pub fn load_state(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(from_abi(self.0.load_state(RStr::from(key)))?.into_option().map(RVec::into_vec))
    }
}

struct Adapter(Arc<dyn HostServices>);

impl AbiHost for Adapter {
    fn progress(&self, done: u64, total: u64, what: RStr<'_>) {
        let _ = catch("progress", || {
            self.0.progress(done, total, what.as_str());
            Ok(())
        });
    }

    fn cancelled(&self) -> bool {
        catch("cancelled", || Ok(self.0.cancelled())).unwrap_or(true)
    }

    fn log(&self, level: u32, message: RStr<'_>) {
        let level = match level {
            0 | 1 => LogLevel::Error,
            2 => LogLevel::Warning,
            3 => LogLevel::Info,
            4 => LogLevel::Debug,
            _ => LogLevel::Trace,
        };
        let _ = catch("log", || {
            self.0.log(level, message.as_str());
            Ok(())
        });
    }

    fn seed(&self) -> u64 {
        self.0.seed()
    }

    fn threads(&self) -> u32 {
        self.0.threads()
    }

    fn save_state(&self, key: RStr<'_>, bytes: RSlice<'_, u8>) -> AbiResult<()> {
        to_abi(catch("save_state", || self.0.save_state(key.as_str(), bytes.as_slice())))
    }

    fn load_state(&self, key: RStr<'_>) -> AbiResult<ROption<RVec<u8>>> {
        to_abi(catch("load_state", || Ok(ROption::from(self.0.load_state(key.as_str())?.map(RVec::from)))))
    }
}

/// Wraps the host's own services for plugins.
pub(crate) fn services_to_abi(services: Arc<dyn HostServices>) -> AbiHostArc {
    AbiHost_TO::from_ptr(RArc::new(Adapter(services)), TD_Opaque)
}

impl From<Arc<dyn HostServices>> for Host {
    fn from(services: Arc<dyn HostServices>) -> Self {
        Host::from_abi(services_to_abi(services))
    }
}
