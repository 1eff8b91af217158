//! The plugin under a check, and one run of it from beginning to end: a method compresses the synthetic model, a backend works on a tiny
//! model that is written for it.

use std::sync::{Arc, Barrier};

use llmcb_plugin_api::loader::LoadedPlugin;
use llmcb_plugin_api::sdk::{ErrorKind, HostServices, PluginKind, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{Given, Outcome, Steps, backend, fail, method, open, skip};
use crate::stage::synthetic::{Shape, SyntheticOptions};
use crate::worker::EventSink;
use crate::worker::protocol::Event;

/// All numbers that a run ends in, as bits.
pub(super) type Bits = Vec<(String, Vec<u32>)>;

/// Numbers as bits.
pub(super) fn bits_of(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The first difference between what two runs end in, for people.
pub(super) fn difference(first: &Bits, second: &Bits) -> Option<String> {
    if first.len() != second.len() {
        return Some(format!("{} results instead of {}", second.len(), first.len()));
    }
    first.iter().zip(second).find_map(|((name, a), (_, b))| {
        let different = a.iter().zip(b).filter(|(a, b)| a != b).count() + a.len().abs_diff(b.len());
        (different > 0).then(|| format!("{different} of {} numbers of {name} differ", a.len().max(b.len())))
    })
}

/// A short name of what a run ends in.
pub(super) fn digest(bits: &Bits) -> String {
    let mut hash = Sha256::new();
    for (name, values) in bits {
        hash.update(name.as_bytes());
        values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// How a run is made.
#[derive(Clone)]
pub(super) struct Terms {
    /// Seed that the plugin is given.
    pub(super) seed: u64,
    /// Threads that it is given.
    pub(super) threads: usize,
    /// Where the check shows that a run begins.
    pub(super) events: EventSink,
    /// Who counts its calls.
    pub(super) steps: Arc<Steps>,
    /// One role, and options of it that are not the defaults; all roles otherwise.
    pub(super) options: Option<(String, Value)>,
    /// Where instances that run at once wait for each other, once each is made.
    pub(super) meet: Option<Arc<Barrier>>,
}

impl Terms {
    pub(super) fn new(given: &Given) -> Self {
        let Given { seed, threads, events, .. } = given;
        let (seed, threads, events) = (*seed, *threads, events.clone());
        Terms { seed, threads, events, steps: Arc::default(), options: None, meet: None }
    }

    pub(super) fn with_steps(given: &Given, steps: &Arc<Steps>) -> Self {
        Terms { steps: Arc::clone(steps), ..Terms::new(given) }
    }

    /// The host as the plugin meets it. That a run begins is a sign of life.
    pub(super) fn host(&self) -> Arc<dyn HostServices> {
        self.events.send(&Event::Progress { done: 0, total: 0, what: String::new() });
        self.steps.services(self.seed, self.threads)
    }

    /// Complete options of a role.
    pub(super) fn options(&self, plugin: &LoadedPlugin, role: &str) -> Result<Value> {
        match &self.options {
            Some((of, options)) if of == role => plugin.normalize_options(role, options),
            _ => plugin.normalize_options(role, &json!({})),
        }
    }

    /// Whether a role takes part.
    pub(super) fn includes(&self, role: &str) -> bool {
        self.options.as_ref().is_none_or(|(of, _)| of == role)
    }

    pub(super) fn meet(&self) {
        if let Some(meet) = &self.meet {
            meet.wait();
        }
    }
}

/// A plugin with something to work on.
pub(super) struct Subject {
    pub(super) plugin: LoadedPlugin,
    work: Work,
}

enum Work {
    Method(SyntheticOptions),
    Backend(TempDir),
}

impl Subject {
    /// Loads the plugin.
    pub(super) fn open(given: &Given) -> Result<Self, Outcome> {
        Self::with(open(&given.path)?, given.seed)
    }

    /// The same plugin with another model.
    pub(super) fn other(&self, given: &Given) -> Result<Self, Outcome> {
        Self::with(self.plugin.clone(), given.seed.wrapping_add(1))
    }

    fn with(plugin: LoadedPlugin, seed: u64) -> Result<Self, Outcome> {
        let work = match plugin.descriptor().kind {
            PluginKind::Method => {
                Work::Method(SyntheticOptions { seed, shape: Shape::quick(), ..SyntheticOptions::default() })
            }
            _ => Work::Backend(backend::model(&plugin, seed)?),
        };
        Ok(Subject { plugin, work })
    }

    /// What one run gives its numbers to, for people.
    pub(super) fn numbers(&self) -> &'static str {
        match self.work {
            Work::Method(_) => "weights",
            Work::Backend(_) => "results",
        }
    }

    /// One run.
    pub(super) fn run(&self, terms: &Terms) -> Result<Bits> {
        match &self.work {
            Work::Method(model) => Ok(method::compress(&self.plugin, model, terms)?.bits()),
            Work::Backend(model) => backend::run(&self.plugin, model.path(), terms),
        }
    }

    /// One run that must succeed, or the check does not apply.
    pub(super) fn first_run(&self, terms: &Terms) -> Result<Bits, Outcome> {
        self.run(terms).map_err(|error| match error.kind() {
            ErrorKind::Unsupported => skip(error),
            _ => fail(error),
        })
    }
}
