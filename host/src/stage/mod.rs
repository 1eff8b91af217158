//! What runs inside a worker: the work of a stage, and conformance checks.

pub mod check;
mod compress;
mod diverge;
mod evaluate;
mod lines;
mod profile;
mod score;
mod synthetic;
mod task;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use llmcb_plugin_api::loader::{LoadedPlugin, RunnerHandle};
use llmcb_plugin_api::sdk::{Error, Result};
use serde_json::Value;

pub(crate) use evaluate::ITEMS;
pub use evaluate::{TaskLine, parse_built_in, parse_task};
pub(crate) use lines::read_all;
pub(crate) use score::VALUES;
pub(crate) use text::calibration_name;
pub use text::data_name;

use crate::assets;
use crate::worker::protocol::{Event, Level, PluginOrder, StageOrder, StageOutcome, Work};
use crate::worker::{EventSink, Services, Usage};

/// What a worker keeps from one stage to the next: the model that is loaded, the metrics that are compiled.
#[derive(Default)]
pub(crate) struct Cache {
    loaded: Option<Loaded>,
    pub(crate) metrics: score::Metrics,
}

struct Loaded {
    plugin: PluginOrder,
    model: PathBuf,
    seed: u64,
    threads: usize,
    services: Arc<Services>,
    runner: RunnerHandle,
    /// Seconds from the start until the model could be run, what its library reads first being made included.
    load_seconds: f64,
}

/// Runs a stage. Its files are in the order's directory when this returns well.
///
/// # Errors
/// Of kind `Cancelled` after a request to stop, `Unsupported` where a plugin does not do this, else a failure.
pub(crate) fn run(
    order: &StageOrder,
    events: &EventSink,
    cancelled: &Arc<AtomicBool>,
    cache: &mut Cache,
) -> Result<StageOutcome> {
    let usage = Usage::start(&order.directory);
    // Kept at once: an attempt that is killed early is an attempt, too.
    usage.keep();
    usage.phase("loading");
    let services =
        || Arc::new(Services::new(events.clone(), Arc::clone(cancelled), order.seed, order.threads));
    let mut outcome = match &order.work {
        Work::Compress { .. } => {
            // A runner's copy of the model would count in the peak of memory.
            cache.loaded = None;
            compress::run(order, &services(), &usage)?
        }
        Work::Score { items, metric } => {
            usage.phase("scoring");
            cache.metrics.run(order, items, metric, events, cancelled)?
        }
        Work::Evaluate { model, runner, .. }
        | Work::Profile { model, runner, .. }
        | Work::Diverge { model, runner, .. } => {
            let loaded = cache.runner(order, model, runner, services)?;
            let model = loaded.runner.model()?;
            let services = Arc::clone(&loaded.services);
            let mut outcome = match &order.work {
                Work::Profile { workload, text, .. } => {
                    usage.phase("timing");
                    let mut outcome = profile::run(order, &mut loaded.runner, &services, workload, text)?;
                    if let Some(profile) = &mut outcome.profile {
                        profile.preparation_seconds = model.preparation_seconds;
                        profile.load_seconds = (loaded.load_seconds - model.preparation_seconds).max(0.0);
                    }
                    outcome
                }
                Work::Diverge { .. } => diverge::run(order, &mut loaded.runner, &services, &usage)?,
                _ => evaluate::run(order, &mut loaded.runner, &services, &usage)?,
            };
            outcome.model = Some(model);
            outcome
        }
    };
    check_data(order, &outcome)?;
    for warning in &outcome.warnings {
        events.send(&Event::Log { level: Level::Warning, message: warning.clone() });
    }
    usage.finish(&mut outcome);
    Ok(outcome)
}

impl Cache {
    fn runner(
        &mut self,
        order: &StageOrder,
        model: &Path,
        plugin: &PluginOrder,
        services: impl FnOnce() -> Arc<Services>,
    ) -> Result<&mut Loaded> {
        let same = self.loaded.as_ref().is_some_and(|l| {
            l.plugin == *plugin && l.model == model && l.seed == order.seed && l.threads == order.threads
        });
        if !same {
            self.loaded = None;
            let services = services();
            services.stage_progress(0, 0, "loading the model");
            let begin = Instant::now();
            let runner = load(&plugin.path)?.open_runner(
                model,
                &Value::Object(plugin.options.clone()),
                Arc::<Services>::clone(&services),
            )?;
            self.loaded = Some(Loaded {
                plugin: plugin.clone(),
                model: model.to_owned(),
                seed: order.seed,
                threads: order.threads,
                services,
                runner,
                load_seconds: begin.elapsed().as_secs_f64(),
            });
        }
        self.loaded.as_mut().ok_or_else(|| Error::failed("no model is loaded"))
    }
}

/// A key promises a result for certain data. Others, because a file was changed after the plan was made, would break the promise.
fn check_data(order: &StageOrder, outcome: &StageOutcome) -> Result<()> {
    for (name, sha256) in &outcome.data {
        if let Some(expected) = order.expected_data.get(name)
            && expected != sha256
        {
            return Err(Error::failed(format!(
                "{name} was changed while the run went on (SHA-256 {sha256}, planned with {expected}); start the run again"
            )));
        }
    }
    Ok(())
}

/// Loads a plugin.
pub(crate) fn load(path: &Path) -> Result<LoadedPlugin> {
    LoadedPlugin::open(path).map_err(|error| {
        if let Some(details) = error.details() {
            eprintln!("{details}");
        }
        Error::invalid(error.to_string())
    })
}

/// The store of data sets, as the order's environment gives it.
fn store(order: &StageOrder, services: &Services) -> Result<assets::Store> {
    let options = assets::StoreOptions::from_env(order.data.folders.clone())
        .map_err(|e| Error::invalid(e.to_string()))?;
    Ok(assets::Store::new(options).stopped_by(services.for_fetches()))
}

/// What went wrong with data, unless it is that the user asked to stop.
fn of_data(services: &Services, error: &dyn std::fmt::Display) -> Error {
    match services.check_cancelled() {
        Err(cancelled) => cancelled,
        Ok(()) => Error::invalid(error.to_string()),
    }
}

/// Passes on what a fetch reports.
fn fetch_progress(services: &Services) -> impl Fn(assets::Progress) + '_ {
    use llmcb_plugin_api::sdk::HostServices;
    move |progress| match progress {
        assets::Progress::Message(message) => services.progress(0, 0, &message),
        assets::Progress::Bytes { what, done, total } => services.progress(done, total.unwrap_or(0), &what),
    }
}
