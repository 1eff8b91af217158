//! Scoring: a metric is applied to the results per item of an evaluation.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use llmcb_plugin_api::sdk::{Error, Result};

use super::lines::{read_all, write_all};
use crate::assets::sha256_hex;
use crate::metrics::component::{Component, ComponentError, Sandbox, read};
use crate::metrics::scoring::{Description, ItemValue, MetricOrder, Scores, built_in, columns};
use crate::tasks::ItemResult;
use crate::worker::EventSink;
use crate::worker::protocol::{Event, Level, StageOrder, StageOutcome};

/// The metric's value of each item, one JSON object a line; not there where the metric is the mean of nothing.
pub(crate) const VALUES: &str = "values.jsonl";

/// The metrics of a worker: components are compiled once.
#[derive(Default)]
pub(crate) struct Metrics {
    sandbox: Option<Sandbox>,
    /// By SHA-256.
    components: HashMap<String, (Component, Description)>,
}

fn of_component(error: ComponentError) -> Error {
    match error {
        ComponentError::Cancelled => Error::cancelled(),
        error => Error::failed(error.to_string()),
    }
}

/// Reads a component's file, which must be the one that was planned with.
fn read_planned(path: &Path, sha256: &str) -> Result<Vec<u8>> {
    let bytes = read(path).map_err(of_component)?;
    let found = sha256_hex(&bytes);
    if found != sha256 {
        return Err(Error::failed(format!(
            "{} was changed while the run went on (SHA-256 {found}, planned with {sha256}); start the run again",
            path.display()
        )));
    }
    Ok(bytes)
}

/// Passes on what a component logged.
fn tell(log: Vec<String>, events: &EventSink) {
    for message in log {
        events.send(&Event::Log { level: Level::Info, message });
    }
}

impl Metrics {
    /// What a metric says of itself, once that is sound.
    pub(crate) fn describe(&mut self, metric: &MetricOrder, events: &EventSink) -> Result<Description> {
        match metric {
            MetricOrder::BuiltIn { name } => built_in(name)
                .map(|metric| metric.describe())
                .ok_or_else(|| Error::invalid(format!("no metric is called `{name}`"))),
            MetricOrder::Component { path, sha256 } => {
                self.component(path, sha256, events).map(|(_, description)| description.clone())
            }
        }
    }

    fn component(
        &mut self,
        path: &Path,
        sha256: &str,
        events: &EventSink,
    ) -> Result<&(Component, Description)> {
        if !self.components.contains_key(sha256) {
            let bytes = read_planned(path, sha256)?;
            let sandbox = match &mut self.sandbox {
                Some(sandbox) => sandbox,
                none => {
                    let sandbox = Sandbox::of_user().map_err(of_component)?;
                    if let Some(message) = sandbox.uncached.clone() {
                        events.send(&Event::Log { level: Level::Warning, message });
                    }
                    none.insert(sandbox)
                }
            };
            let what = format!("compiling {}", path.file_name().unwrap_or_default().to_string_lossy());
            events.send(&Event::Progress { done: 0, total: 0, what });
            let component = sandbox.open(&bytes).map_err(of_component)?;
            let called = component.describe();
            tell(called.log, events);
            let description = called.answer.map_err(of_component)?;
            description.fields().map_err(Error::failed)?;
            self.components.insert(sha256.to_owned(), (component, description));
        }
        Ok(&self.components[sha256])
    }

    /// Applies a metric to the items of an evaluation.
    pub(super) fn run(
        &mut self,
        order: &StageOrder,
        items: &Path,
        metric: &MetricOrder,
        events: &EventSink,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<StageOutcome> {
        let items: Vec<ItemResult> = read_all(items).map_err(Error::failed)?;
        if items.is_empty() {
            return Err(Error::failed("the evaluation has no items"));
        }
        let description = self.describe(metric, events)?;
        let fields = description.fields().map_err(Error::failed)?;
        let columns = columns(&fields, &items).map_err(Error::unsupported)?;
        let (scores, fuel) = match metric {
            MetricOrder::BuiltIn { name } => {
                let metric = built_in(name).ok_or_else(|| Error::invalid("no such metric"))?;
                (metric.score(&columns).map_err(Error::failed)?, None)
            }
            MetricOrder::Component { path, sha256 } => {
                let (component, _) = self.component(path, sha256, events)?;
                let called = component.score(columns, items.len(), cancelled);
                tell(called.log, events);
                (called.answer.map_err(of_component)?, Some(called.fuel))
            }
        };
        let value = scores.metric(&description, items.len()).map_err(Error::failed)?;
        keep(&order.directory.join(VALUES), &items, &scores)?;
        Ok(StageOutcome { items: items.len() as u64, metrics: vec![value], fuel, ..StageOutcome::default() })
    }
}

/// Writes the values per item, if there are any.
fn keep(file: &Path, items: &[ItemResult], scores: &Scores) -> Result<()> {
    let Some(values) = &scores.per_item else { return Ok(()) };
    let one = |(item, value): (&ItemResult, &f64)| ItemValue {
        doc_id: item.doc_id.clone(),
        index: item.index,
        subset: item.subset.clone(),
        value: *value,
    };
    write_all(file, &items.iter().zip(values).map(one).collect::<Vec<_>>())
}
