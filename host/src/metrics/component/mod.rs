//! Metrics as wasm components, in a sandbox that gives the same bits on every machine.
//!
//! A component of the world in `plugin-api/wit` may import a log and nothing else: no files, network, clocks, randomness or environment. Every call gets
//! an instance of its own, so that nothing is left over from the one before; a budget of fuel, counted in instructions, ends what does not end by
//! itself at the same instruction everywhere; NaNs are made canonical. Time limits it, too, but only as a last resort: what ran out of time has no
//! value, so that no value depends on time.

mod build;
mod cache;
mod error;
mod limits;
mod world;

pub use build::{bindings_for_c, component_of};
pub use error::ComponentError;
pub use limits::{DESCRIBE_FUEL, LARGEST_FILE, LARGEST_INPUT, MEMORY, fuel_for};
pub use world::WIT;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Engine, Store, UpdateDeadline};

use super::scoring::{Column, Description, Scores};
use crate::assets::cache_folder;
use error::Stopped;
use limits::{Guest, STACK, TICK, TIME_LIMIT};
use world::exports::llmcb::metric::scoring as wit;

/// Compiles components and runs them.
pub struct Sandbox {
    engine: Engine,
    linker: Linker<Guest>,
    /// Why compiled code is not kept, if it is not.
    pub uncached: Option<String>,
}

/// A component that is one of this world.
pub struct Component {
    engine: Engine,
    pre: world::MetricPre<Guest>,
    version: String,
}

/// What became of a call.
pub struct Called<T> {
    /// What it gave.
    pub answer: Result<T, ComponentError>,
    /// Fuel that it used: the same for the same component and input on every machine.
    pub fuel: u64,
    /// Lines that it logged.
    pub log: Vec<String>,
}

/// Reads a component's file, or that of a module of which one is made.
///
/// # Errors
/// It cannot be read, or is too large.
pub fn read(file: &Path) -> Result<Vec<u8>, ComponentError> {
    let open = File::open(file).map_err(ComponentError::Unreadable)?;
    let size = open.metadata().map_err(ComponentError::Unreadable)?.len();
    if size > LARGEST_FILE {
        return Err(ComponentError::TooLarge(size));
    }
    let mut bytes = Vec::new();
    open.take(LARGEST_FILE).read_to_end(&mut bytes).map_err(ComponentError::Unreadable)?;
    Ok(bytes)
}

impl Sandbox {
    /// A sandbox that keeps compiled code in the user's cache folder.
    ///
    /// # Errors
    /// As [`Sandbox::new`].
    pub fn of_user() -> Result<Sandbox, ComponentError> {
        Self::new(cache_folder().ok().map(|folder| folder.join("metrics")).as_deref())
    }

    /// A sandbox that keeps compiled code below a folder, if one is given and nobody else can write to it.
    ///
    /// # Errors
    /// The machine cannot run compiled wasm.
    pub fn new(folder: Option<&Path>) -> Result<Sandbox, ComponentError> {
        let mut config = Config::new();
        config
            .consume_fuel(true)
            .epoch_interruption(true)
            .cranelift_nan_canonicalization(true)
            .relaxed_simd_deterministic(true)
            .wasm_memory64(false)
            .max_wasm_stack(STACK);
        let (cache, uncached) = match folder.map(cache::open) {
            Some(Ok(cache)) => (Some(cache), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        config.cache(cache);
        let engine = Engine::new(&config).map_err(ComponentError::sandbox)?;
        let weak = engine.weak();
        let ticks = move || {
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        };
        std::thread::Builder::new()
            .name("metric-clock".into())
            .spawn(ticks)
            .map_err(ComponentError::sandbox)?;
        let mut linker = Linker::new(&engine);
        world::llmcb::metric::host::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)
            .map_err(ComponentError::sandbox)?;
        Ok(Sandbox { engine, linker, uncached })
    }

    /// Compiles a component, or takes what an earlier process of this program compiled of the same bytes, and checks that it is of this world.
    ///
    /// # Errors
    /// What it is instead.
    pub fn open(&self, bytes: &[u8]) -> Result<Component, ComponentError> {
        world::check_layer(bytes)?;
        let component = wasmtime::component::Component::new(&self.engine, bytes)
            .map_err(|e| ComponentError::Broken(error::first_line(&e)))?;
        let version = world::check_interfaces(&component, &self.engine)?;
        let pre = self.linker.instantiate_pre(&component).and_then(world::MetricPre::new);
        let pre = pre.map_err(|e| ComponentError::Interface(error::first_line(&e)))?;
        Ok(Component { engine: self.engine.clone(), pre, version })
    }
}

impl Component {
    /// Version of the world that it was made for.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What it says of itself. The fields that it names may not exist.
    pub fn describe(&self) -> Called<Description> {
        self.call(DESCRIBE_FUEL, &Arc::default(), |metric, store| {
            let said = metric.llmcb_metric_scoring().call_describe(store)?;
            let wit::Description { name, summary, unit, higher_is_better, fields } = said;
            Ok(Ok(Description { name, summary, unit, higher_is_better, fields }))
        })
    }

    /// The metric over columns of as many items. Ends early when `cancelled` is set.
    pub fn score(&self, columns: Vec<Column>, items: usize, cancelled: &Arc<AtomicBool>) -> Called<Scores> {
        let bytes: usize = columns.iter().map(Column::bytes).sum();
        if bytes > LARGEST_INPUT {
            let answer = Err(ComponentError::Input { bytes });
            return Called { answer, fuel: 0, log: Vec::new() };
        }
        let columns: Vec<wit::Column> = columns.into_iter().map(world::column).collect();
        self.call(fuel_for(items), cancelled, |metric, store| {
            let given = metric.llmcb_metric_scoring().call_score(store, &columns)?;
            Ok(given.map(|scores| Scores { value: scores.value, per_item: scores.per_item }))
        })
    }

    /// Calls a new instance.
    fn call<T>(
        &self,
        budget: u64,
        cancelled: &Arc<AtomicBool>,
        call: impl FnOnce(&world::Metric, &mut Store<Guest>) -> wasmtime::Result<Result<T, String>>,
    ) -> Called<T> {
        let mut store = Store::new(&self.engine, Guest::default());
        store.limiter(|guest| guest);
        store.set_epoch_deadline(1);
        let (begun, cancelled) = (Instant::now(), Arc::clone(cancelled));
        store.epoch_deadline_callback(move |mut store| {
            let stopped = if cancelled.load(Ordering::SeqCst) {
                Some(Stopped::ByUser)
            } else {
                (begun.elapsed() > TIME_LIMIT).then_some(Stopped::ByTime)
            };
            store.data_mut().stopped = stopped;
            Ok(if stopped.is_some() { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
        });
        let given = store
            .set_fuel(budget)
            .and_then(|()| self.pre.instantiate(&mut store))
            .and_then(|metric| call(&metric, &mut store));
        let fuel = budget - store.get_fuel().unwrap_or_default();
        let guest = store.into_data();
        let answer = match given {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(said)) => Err(ComponentError::Refused(error::one_line(&said))),
            Err(error) => Err(ComponentError::of_call(&error, &guest, budget)),
        };
        Called { answer, fuel, log: guest.log }
    }
}
