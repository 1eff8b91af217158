//! What a plan is made from: where models are, what plugins say of themselves, which data tasks use. Gathering it loads plugins (in workers) and
//! fetches data; planning itself then needs neither.

use std::collections::BTreeMap;
use std::path::PathBuf;

use llmcb_plugin_api::sdk::{Descriptor, LibraryStatus, PluginKind};
use serde_json::{Map, Value};

use super::format;
use super::key::FileHashes;
use super::result::{Inputs, PluginFile};
use super::spec::{PluginUse, Suite};
use crate::assets::{AssetError, Progress, ProgressFn, Store};
use crate::metrics::scoring::{Description, MetricOrder, resolve};
use crate::stage::{calibration_name, data_name, parse_task};
use crate::tasks;
use crate::worker::protocol::Request;
use crate::worker::{Answer, Interrupt, Supervisor, WorkerOptions};

/// A model that is at hand.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFact {
    /// Its directory or file.
    pub path: PathBuf,
    /// SHA-256 over its files.
    pub sha256: String,
    /// Whether it is here; else path and hash are not known yet.
    pub at_hand: bool,
}

/// A plugin that answers.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginFact {
    /// What it says of itself.
    pub descriptor: Descriptor,
    /// SHA-256 of the shared object.
    pub sha256: String,
    /// Complete options of each of its roles.
    pub options: BTreeMap<String, Map<String, Value>>,
    /// The library that its runner needs, where that is installed apart.
    pub library: Option<LibraryStatus>,
}

/// A task whose data are at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFact {
    /// The task's name without options.
    pub name: String,
    /// Hash of its version, options and data, for each seed of the suite.
    pub fingerprints: Vec<String>,
    /// SHA-256 of its data by name.
    pub data: BTreeMap<String, String>,
    /// Solved examples before each question.
    pub shots: usize,
    /// At most so many documents.
    pub limit: Option<usize>,
    /// Tokens of a window, of perplexity tasks.
    pub seqlen: Option<usize>,
    /// Version of the task's definition.
    pub version: String,
    /// About how many tokens pass through a model; 0 where its data are not here.
    pub tokens: u64,
    /// Whether its data are here; else hashes are not known yet.
    pub at_hand: bool,
}

/// A metric that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricFact {
    /// What it says of itself.
    pub description: Description,
    /// Which one it is.
    pub order: MetricOrder,
}

/// What becomes of models and data that a store does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// They cannot be used.
    Fails,
    /// They are taken for such as will be fetched: for planning without fetching.
    IsFetchedLater,
}

/// A text for calibration or for prompts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFact {
    /// Its name among a result's data.
    pub name: String,
    /// SHA-256 of the text.
    pub sha256: String,
}

/// All facts of a suite, in its order; an error says in one line why something cannot be used.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Of its models.
    pub models: Vec<Result<ModelFact, String>>,
    /// Of its methods.
    pub methods: Vec<Result<PluginFact, String>>,
    /// Of its backends.
    pub backends: Vec<Result<PluginFact, String>>,
    /// The plugin that opens models for methods; absent where none is needed.
    pub engine: Option<Result<(PluginUse, PluginFact), String>>,
    /// Of its tasks.
    pub tasks: Vec<Result<TaskFact, String>>,
    /// Of its metrics.
    pub metrics: Vec<Result<MetricFact, String>>,
    /// The text for calibration and prompts; absent where none is needed.
    pub text: Option<Result<TextFact, String>>,
    /// Threads of a worker.
    pub threads: usize,
    /// The machine in words, for keys of profile stages.
    pub machine: String,
    /// SHA-256 of the program; empty where it cannot be read.
    pub program: String,
}

impl Facts {
    /// The engine for a method, with the format of checkpoints set among its options.
    ///
    /// # Errors
    /// There is no engine, or the format that was asked for cannot be; in one line.
    pub fn engine_for(&self, suite: &Suite, method: usize) -> Result<(PluginUse, PluginFact), String> {
        let (one, mut engine) = match &self.engine {
            Some(engine) => engine.clone()?,
            None => return Err("no backend has an engine role, which methods need".to_owned()),
        };
        let method = self.methods[method].as_ref().map_err(Clone::clone)?;
        let none = Map::new();
        let options = engine.options.get("engine").unwrap_or(&none);
        let method_options = method.options.get("method").unwrap_or(&none);
        let asked = suite.format.as_deref();
        if let Some(chosen) =
            format::choose(asked, &engine.descriptor, options, &method.descriptor, method_options)?
        {
            let options = engine.options.entry("engine".to_owned()).or_default();
            options.insert(format::OPTION.to_owned(), chosen.into());
        }
        Ok((one, engine))
    }
}

impl Facts {
    /// What results are made from, by hash.
    pub(super) fn inputs(&self, suite: &Suite) -> Inputs {
        let mut out = Inputs { program: self.program.clone(), ..Inputs::default() };
        for (name, fact) in suite.models.iter().zip(&self.models) {
            if let Ok(fact) = fact {
                out.models.insert(name.clone(), fact.sha256.clone());
            }
        }
        let engine = self.engine.iter().flatten().map(|(_, fact)| fact);
        for fact in self.methods.iter().flatten().chain(self.backends.iter().flatten()).chain(engine) {
            let file = PluginFile { version: fact.descriptor.version.clone(), sha256: fact.sha256.clone() };
            out.plugins.insert(fact.descriptor.id.clone(), file);
        }
        for MetricFact { description, order } in self.metrics.iter().flatten() {
            if let MetricOrder::Component { sha256, .. } = order {
                out.metrics.insert(description.name.clone(), sha256.clone());
            }
        }
        out.data.extend(self.tasks.iter().flatten().flat_map(|task| task.data.clone()));
        out.data.extend(self.text.iter().flatten().map(|text| (text.name.clone(), text.sha256.clone())));
        out
    }
}

/// Gathers the facts of a suite. An interrupt ends it early, with what is missing given as errors.
pub fn gather(
    suite: &Suite,
    store: &Store,
    workers: &WorkerOptions,
    interrupt: &Interrupt,
    absent: Absent,
    progress: &ProgressFn<'_>,
) -> Facts {
    let hashes = FileHashes::new(Some(store.options().cache.join("hashes")));
    let unless_stopped = || if interrupt.stop() { Err("stopped by the user".to_owned()) } else { Ok(()) };
    let plugin = |one: &PluginUse, kind: PluginKind| {
        unless_stopped()?;
        progress(Progress::Message(format!("asking plugin {}", one.label)));
        plugin(one, kind, &hashes, workers, interrupt)
    };
    let methods: Vec<_> = suite.methods.iter().map(|one| plugin(one, PluginKind::Method)).collect();
    let backends: Vec<_> = suite.backends.iter().map(|one| plugin(one, PluginKind::Backend)).collect();
    let engine = (!suite.methods.is_empty()).then(|| match &suite.engine {
        Some(one) => {
            let fact = plugin(one, PluginKind::Backend)?;
            if !fact.options.contains_key("engine") {
                return Err(format!("backend {} has no engine role; name another engine", one.label));
            }
            Ok((one.clone(), fact))
        }
        None => suite
            .backends
            .iter()
            .zip(&backends)
            .find_map(|(one, fact)| {
                let fact = fact.as_ref().ok().filter(|f| f.options.contains_key("engine"))?;
                Some((one.clone(), fact.clone()))
            })
            .ok_or_else(|| {
                let broken: Vec<&str> = backends.iter().filter_map(|b| b.as_ref().err().map(String::as_str)).collect();
                match broken.as_slice() {
                    [] => "no backend of the suite has an engine role, which methods need; add one with --backend".to_owned(),
                    reasons => reasons.join("; "),
                }
            }),
    });
    let models = suite
        .models
        .iter()
        .map(|reference| {
            unless_stopped()?;
            let later = absent == Absent::IsFetchedLater && super::models::is_remote(reference, store);
            let path = match super::models::locate(reference, store, progress) {
                Ok(path) => path,
                Err(_) if later => {
                    let sha256 = format!("to be fetched: {reference}");
                    return Ok(ModelFact { path: PathBuf::new(), sha256, at_hand: false });
                }
                Err(error) => return Err(error),
            };
            progress(Progress::Message(format!("hashing {reference}")));
            let sha256 = hashes.model(&path).map_err(|e| format!("model {}: {e}", path.display()))?;
            Ok(ModelFact { path, sha256, at_hand: true })
        })
        .collect();
    let tasks = suite
        .tasks
        .iter()
        .map(|line| {
            unless_stopped()?;
            progress(Progress::Message(format!("preparing task {line}")));
            match task(line, suite, store, progress) {
                Err(tasks::TaskError::Asset(AssetError::NoSource { .. }))
                    if absent == Absent::IsFetchedLater =>
                {
                    task_to_fetch(line, suite).map_err(|e| e.to_string())
                }
                found => found.map_err(|e| e.to_string()),
            }
        })
        .collect();
    let mut metrics: Vec<Result<MetricFact, String>> = Vec::new();
    for metric in &suite.metrics {
        let fact = unless_stopped().and_then(|()| {
            progress(Progress::Message(format!("asking metric {metric}")));
            metric_fact(metric, &hashes, workers, interrupt)
        });
        let name = |fact: &MetricFact| fact.description.name.clone();
        let taken =
            fact.as_ref().ok().map(name).filter(|own| metrics.iter().flatten().any(|f| name(f) == *own));
        metrics.push(match taken {
            Some(name) => {
                Err(format!("metric {metric}: another metric of the suite is called `{name}`, too"))
            }
            None => fact,
        });
    }
    let calibrates = methods.iter().flatten().any(|m| m.descriptor.needs.calibration);
    let text = (calibrates || suite.profile).then(|| {
        unless_stopped()?;
        match tasks::calibration_text(Some(&suite.calibration.text), store, progress) {
            Ok(text) => Ok(TextFact { name: calibration_name(&text.name), sha256: text.sha256 }),
            Err(tasks::TaskError::Asset(AssetError::NoSource { .. })) if absent == Absent::IsFetchedLater => {
                let sha256 = format!("to be fetched: {}", suite.calibration.text);
                Ok(TextFact { name: suite.calibration.text.clone(), sha256 })
            }
            Err(error) => Err(error.to_string()),
        }
    });
    let machine = super::machine::describe();
    Facts {
        models,
        methods,
        backends,
        engine,
        tasks,
        metrics,
        text,
        threads: suite.thread_budget(),
        machine: format!("{} x{}", machine.cpu, machine.cores),
        program: std::env::current_exe().and_then(|file| hashes.file(&file)).unwrap_or_default(),
    }
}

fn task(
    line: &str,
    suite: &Suite,
    store: &Store,
    progress: &ProgressFn<'_>,
) -> Result<TaskFact, tasks::TaskError> {
    let first = suite.seeds.first().copied().unwrap_or_default();
    let parsed = parse_task(line, suite.limit, suite.shots, first)?;
    let prepared = parsed.task.prepare(store, &parsed.options, progress)?;
    Ok(TaskFact {
        name: prepared.name.clone(),
        fingerprints: suite.seeds.iter().map(|seed| prepared.fingerprint(*seed)).collect(),
        data: prepared.data.iter().map(|d| (data_name(d), d.sha256.clone())).collect(),
        shots: parsed.options.shots,
        limit: parsed.options.limit,
        seqlen: prepared.seqlen(),
        version: prepared.spec().version.to_owned(),
        tokens: prepared.about_tokens(),
        at_hand: true,
    })
}

/// A metric by the name or the file that the suite gives.
fn metric_fact(
    metric: &str,
    hashes: &FileHashes,
    workers: &WorkerOptions,
    interrupt: &Interrupt,
) -> Result<MetricFact, String> {
    let place = |e: &dyn std::fmt::Display| format!("metric {metric}: {e}");
    let order = resolve(metric, |file| hashes.file(file)).map_err(|e| place(&e))?;
    let mut worker = Supervisor::spawn(workers).map_err(|e| place(&e))?;
    let request = Request::DescribeMetric { metric: order.clone() };
    match worker.call(request, interrupt, &mut |_| ()).map_err(|e| place(&e))? {
        Answer::Metric(description) => Ok(MetricFact { description: *description, order }),
        other => Err(place(&other.unexpected())),
    }
}

/// A task whose data will be fetched.
fn task_to_fetch(line: &str, suite: &Suite) -> Result<TaskFact, tasks::TaskError> {
    let parsed = parse_task(line, suite.limit, suite.shots, 0)?;
    Ok(TaskFact {
        name: parsed.task.name(),
        fingerprints: suite.seeds.iter().map(|seed| format!("to be fetched: {line} {seed}")).collect(),
        data: BTreeMap::new(),
        shots: parsed.options.shots,
        limit: parsed.options.limit,
        seqlen: match parsed.task.spec().kind {
            tasks::TaskKind::Perplexity { seqlen } => Some(parsed.options.seqlen.unwrap_or(seqlen)),
            _ => None,
        },
        version: parsed.task.spec().version.to_owned(),
        tokens: 0,
        at_hand: false,
    })
}

fn plugin(
    one: &PluginUse,
    kind: PluginKind,
    hashes: &FileHashes,
    workers: &WorkerOptions,
    interrupt: &Interrupt,
) -> Result<PluginFact, String> {
    let place = |e: &dyn std::fmt::Display| format!("plugin {} ({}): {e}", one.label, one.path.display());
    // The loader names the file itself.
    let named = |e: &dyn std::fmt::Display| {
        let text = e.to_string();
        if text.contains(&*one.path.to_string_lossy()) { text } else { place(&text) }
    };
    let sha256 = hashes.file(&one.path).map_err(|e| place(&e))?;
    let mut worker = Supervisor::spawn(workers).map_err(|e| place(&e))?;
    let mut ask = |request| worker.call(request, interrupt, &mut |_| ()).map_err(|e| named(&e));
    let descriptor = match ask(Request::Describe { path: one.path.clone() })? {
        Answer::Described(descriptor) => *descriptor,
        other => return Err(place(&other.unexpected())),
    };
    if descriptor.kind != kind {
        let (is, wanted) = match kind {
            PluginKind::Method => ("a backend", "a method"),
            _ => ("a method", "a backend"),
        };
        return Err(place(&format!("it is {is}, but is used as {wanted}")));
    }
    let mut options = BTreeMap::new();
    for (role, given) in split_options(&descriptor, &one.options).map_err(|e| place(&e))? {
        let request =
            Request::Normalize { path: one.path.clone(), role: role.clone(), options: Value::Object(given) };
        match ask(request)? {
            Answer::Normalized(Value::Object(complete)) => options.insert(role, complete),
            _ => return Err(place(&format!("its {role} completes options to something that is no object"))),
        };
    }
    let library = match options.get("runner").filter(|_| descriptor.library.is_some()) {
        None => None,
        Some(options) => {
            let options = Value::Object(options.clone());
            match ask(Request::FindLibrary { path: one.path.clone(), options })? {
                Answer::Library(status) => status.map(|status| *status),
                other => return Err(place(&other.unexpected())),
            }
        }
    };
    Ok(PluginFact { descriptor, sha256, options, library })
}

/// Gives each role those of a plugin's options that it knows; what no role knows is an error.
pub fn split_options(
    descriptor: &Descriptor,
    given: &Map<String, Value>,
) -> Result<BTreeMap<String, Map<String, Value>>, String> {
    let knows = |schema: &Value, name: &str| schema.get("properties").and_then(|p| p.get(name)).is_some();
    for name in given.keys() {
        if !descriptor.roles.iter().any(|role| knows(&role.options, name)) {
            let known: Vec<&str> = descriptor
                .roles
                .iter()
                .filter_map(|role| role.options.get("properties")?.as_object())
                .flat_map(Map::keys)
                .map(String::as_str)
                .collect();
            let near = crate::assets::nearest(name, known.iter().copied());
            let hint = match (near.first(), known.is_empty()) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, false) => format!("it has {}", known.join(", ")),
                (None, true) => "it has none".to_owned(),
            };
            return Err(format!("no option is called `{name}`; {hint}"));
        }
    }
    Ok(descriptor
        .roles
        .iter()
        .map(|role| {
            let own = given.iter().filter(|(name, _)| knows(&role.options, name));
            (role.role.clone(), own.map(|(name, value)| (name.clone(), value.clone())).collect())
        })
        .collect())
}
