//! The host's services as a plugin in a worker meets them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use llmcb_plugin_api::sdk::{Error, HostServices, LogLevel, Result};

use super::protocol::{Event, Level};
use crate::assets::Stop;

/// Progress is passed on at most this often: enough for eyes and for the watch on hanging.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Writes events to the host; by default, to nobody. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub(crate) struct EventSink(Arc<Mutex<Box<dyn Write + Send>>>);

impl Default for EventSink {
    fn default() -> Self {
        EventSink::new(std::io::sink())
    }
}

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventSink")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EventSink {
    pub(crate) fn new(out: impl Write + Send + 'static) -> Self {
        EventSink(Arc::new(Mutex::new(Box::new(out))))
    }

    /// Sends one event. A host that no longer listens is a host that has died: the worker ends, too.
    pub(crate) fn send(&self, event: &Event) {
        let mut line = match serde_json::to_vec(event) {
            Ok(line) => line,
            Err(error) => {
                eprintln!("an event could not be written as JSON: {error}");
                return;
            }
        };
        line.push(b'\n');
        let mut out = lock(&self.0);
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            std::process::exit(3);
        }
    }
}

/// Where the stage stands, for progress that a plugin reports of its own.
#[derive(Clone, Default)]
struct Position {
    done: u64,
    total: u64,
    what: String,
    sent: Option<Instant>,
}

/// What a plugin keeps for a resumed stage. A value becomes durable with [`Services::commit_state`], together with the block it belongs to:
/// a method that is killed within a block finds, when that block is done again, what it had kept before it.
#[derive(Default)]
struct State {
    directory: Option<PathBuf>,
    values: BTreeMap<String, Vec<u8>>,
}

/// [`HostServices`] that speak to the host through the worker's protocol.
pub(crate) struct Services {
    events: EventSink,
    cancelled: Arc<AtomicBool>,
    seed: u64,
    threads: u32,
    position: Mutex<Position>,
    state: Mutex<State>,
}

impl Services {
    pub(crate) fn new(events: EventSink, cancelled: Arc<AtomicBool>, seed: u64, threads: usize) -> Self {
        Services {
            events,
            cancelled,
            seed,
            threads: u32::try_from(threads).unwrap_or(u32::MAX).max(1),
            position: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// Says where the stage itself stands.
    pub(crate) fn stage_progress(&self, done: u64, total: u64, what: &str) {
        *lock(&self.position) = Position { done, total, what: what.to_owned(), sent: Some(Instant::now()) };
        self.events.send(&Event::Progress { done, total, what: what.to_owned() });
    }

    /// An error of kind `Cancelled` when the user asked to stop.
    pub(crate) fn check_cancelled(&self) -> Result<()> {
        if self.cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// For fetches, which then end early when the user asks to stop.
    pub(crate) fn for_fetches(&self) -> Stop {
        let cancelled = Arc::clone(&self.cancelled);
        Stop::when(move || cancelled.load(Ordering::SeqCst))
    }

    /// Opens the place for state and loads what was committed with block number `blocks - 1`; nothing for 0.
    pub(crate) fn open_state(&self, directory: &Path, blocks: usize) -> Result<()> {
        let mut state = lock(&self.state);
        state.directory = Some(directory.to_owned());
        state.values = match blocks {
            0 => BTreeMap::new(),
            n => {
                let file = state_file(directory, n - 1);
                let bytes = std::fs::read(&file)
                    .map_err(|e| Error::failed(format!("cannot read {}: {e}", file.display())))?;
                decode(&bytes).ok_or_else(|| {
                    Error::failed(format!("{} is damaged; remove the stage's folder", file.display()))
                })?
            }
        };
        Ok(())
    }

    /// Makes the present state durable, as that after block `block`.
    pub(crate) fn commit_state(&self, block: usize) -> Result<()> {
        let state = lock(&self.state);
        let Some(directory) = &state.directory else {
            return Ok(());
        };
        let file = state_file(directory, block);
        crate::suite::store::write_atomically(&file, &encode(&state.values))
            .map_err(|e| Error::failed(e.to_string()))
    }
}

/// File of the state after a block.
pub(crate) fn state_file(directory: &Path, block: usize) -> PathBuf {
    directory.join(format!("{block:04}.state"))
}

/// Pairs of key and value, each preceded by its length as 8 little-endian bytes.
fn encode(values: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in values {
        for part in [key.as_bytes(), value] {
            out.extend((part.len() as u64).to_le_bytes());
            out.extend(part);
        }
    }
    out
}

fn decode(mut bytes: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut part = || -> Option<Option<Vec<u8>>> {
        if bytes.is_empty() {
            return Some(None);
        }
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let value = rest.get(..length)?.to_vec();
        bytes = &rest[length..];
        Some(Some(value))
    };
    let mut values = BTreeMap::new();
    while let Some(key) = part()? {
        values.insert(String::from_utf8(key).ok()?, part()??);
    }
    Some(values)
}

impl HostServices for Services {
    fn progress(&self, done: u64, total: u64, what: &str) {
        let mut position = lock(&self.position);
        if position.sent.is_some_and(|sent| sent.elapsed() < PROGRESS_INTERVAL) {
            return;
        }
        position.sent = Some(Instant::now());
        let event = if position.total == 0 {
            Event::Progress { done, total, what: what.to_owned() }
        } else {
            let inner = if total > 1 { format!("{what} {done}/{total}") } else { what.to_owned() };
            // The plugin's own words say more than what the stage counts.
            let what = if inner.is_empty() { position.what.clone() } else { inner };
            Event::Progress { done: position.done, total: position.total, what }
        };
        drop(position);
        self.events.send(&event);
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    fn log(&self, level: LogLevel, message: &str) {
        let level = match level {
            LogLevel::Error => Level::Error,
            LogLevel::Warning => Level::Warning,
            LogLevel::Info => Level::Info,
            LogLevel::Debug => Level::Debug,
            LogLevel::Trace => Level::Trace,
        };
        self.events.send(&Event::Log { level, message: message.to_owned() });
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn threads(&self) -> u32 {
        self.threads
    }

    fn save_state(&self, key: &str, bytes: &[u8]) -> Result<()> {
        lock(&self.state).values.insert(key.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn load_state(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(lock(&self.state).values.get(key).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn state_comes_back_and_every_cut_is_noticed(values: BTreeMap<String, Vec<u8>>, cut in 1usize..40) {
            let bytes = encode(&values);
            prop_assert_eq!(decode(&bytes), Some(values.clone()));
            if cut < bytes.len() {
                prop_assert_ne!(decode(&bytes[..bytes.len() - cut]), Some(values));
            }
        }

        #[test]
        fn damaged_state_is_refused_without_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn state_is_that_of_the_last_finished_block() {
        let folder = tempfile::tempdir().unwrap();
        let services = Services::new(EventSink::default(), Arc::default(), 0, 1);
        services.open_state(folder.path(), 0).unwrap();
        services.save_state("a", b"after block 0").unwrap();
        services.commit_state(0).unwrap();
        services.save_state("a", b"within block 1").unwrap();
        assert_eq!(services.load_state("a").unwrap().unwrap(), b"within block 1");

        let resumed = Services::new(EventSink::default(), Arc::default(), 0, 1);
        resumed.open_state(folder.path(), 1).unwrap();
        assert_eq!(resumed.load_state("a").unwrap().unwrap(), b"after block 0");
        assert_eq!(resumed.load_state("b").unwrap(), None);
    }
}
