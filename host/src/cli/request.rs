//! From flags and suite files to a suite: every name is looked up and every option checked before anything is run.

use std::path::Path;

use llmcb_plugin_api::sdk::PluginKind;
use serde_json::{Map, Value};

use super::failure::Failure;
use super::flags::{CalibrationFlags, MeasureFlags, WorkerFlags};
use super::quantities;
use crate::assets::registry::DEFAULT_MODEL;
use crate::metrics::scoring::resolve as resolve_metric;
use crate::plugins::{Catalog, Plugin, PluginSpec, validate};
use crate::stage::parse_task;
use crate::suite::file::{CalibrationLines, PluginLine, SuiteFile};
use crate::suite::format;
use crate::suite::spec::{Calibration, PluginUse, Suite};
use crate::tasks;

/// The backend that comes with the program.
pub const DEFAULT_BACKEND: &str = "candle";

/// Texts that calibration may name without a file.
const TEXTS: [&str; 3] = ["boolq_passages", "wikitext2", "wikitext2:validation"];

/// A list as flags give it: nothing where the flag was not given.
fn given<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

/// Backends as flags give them: each in a flag of its own, or separated by commas.
pub fn backend_lines(specs: &[String]) -> Option<Vec<PluginLine>> {
    lines(&split_list(specs))
}

/// Plugins as flags give them.
pub fn lines(specs: &[String]) -> Option<Vec<PluginLine>> {
    given(specs).map(|specs| specs.into_iter().map(PluginLine::Text).collect())
}

/// What flags say of how workers are held.
pub fn workers(flags: &WorkerFlags) -> SuiteFile {
    SuiteFile {
        seeds: given(&flags.seed),
        data: flags.data.clone(),
        threads: flags.threads,
        // Whole seconds: a limit that is not 0 must not become "never".
        hang_limit: flags.hang_limit.map(|limit| format!("{}s", limit.as_secs_f64().ceil())),
        memory_limit: flags.memory_limit.map(|bytes| bytes.to_string()),
        ..SuiteFile::default()
    }
}

/// What flags say of what is measured.
///
/// # Errors
/// `--tasks` without a task.
pub fn measured(flags: &MeasureFlags) -> Result<SuiteFile, Failure> {
    let tasks = given(&split_list(&flags.tasks.tasks));
    if tasks.is_none() && !flags.tasks.tasks.is_empty() {
        return Err(Failure::usage("--tasks names no task"));
    }
    Ok(SuiteFile {
        models: given(&flags.model),
        backends: backend_lines(&flags.backend),
        tasks,
        metrics: given(&flags.tasks.metric),
        limit: flags.tasks.limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        shots: flags.tasks.shots,
        profile: (flags.profile || !flags.workload.is_empty()).then_some(true),
        workloads: given(&flags.workload.iter().map(ToString::to_string).collect::<Vec<_>>()),
        out: flags.out.clone(),
        ..workers(&flags.workers)
    })
}

/// What flags say of calibration.
pub fn calibration_lines(flags: &CalibrationFlags) -> CalibrationLines {
    CalibrationLines {
        text: flags.calibration.clone(),
        windows: flags.calibration_windows.map(|n| n as usize),
        length: flags.calibration_length.map(|n| n as usize),
    }
}

/// The suite that is meant: names are looked up, options checked, defaults filled in.
///
/// # Errors
/// What cannot be had or is wrong, each with the way out.
pub fn resolve(catalog: &Catalog, file: SuiteFile) -> Result<Suite, Failure> {
    let defaults = Suite::default();
    let usage = |what: &str| {
        let what = what.to_owned();
        move |e: String| Failure::usage(format!("{what}: {e}"))
    };
    if let Some(folder) = file.data.as_deref().filter(|folder| !folder.is_dir()) {
        return Err(Failure::usage(format!("--data {}: no such folder", folder.display())));
    }
    let workloads = match &file.workloads {
        None => defaults.workloads,
        Some(texts) => {
            texts.iter().map(|text| text.parse().map_err(usage("--workload"))).collect::<Result<_, _>>()?
        }
    };
    let shots = file.shots.unwrap_or(defaults.shots);
    let hang_limit_seconds = match &file.hang_limit {
        None => defaults.hang_limit_seconds,
        Some(text) => quantities::duration(text).map_err(usage("hang_limit"))?.as_secs_f64().ceil() as u64,
    };
    let memory_limit =
        file.memory_limit.as_deref().map(|text| quantities::bytes(text).map_err(usage("memory_limit")));
    let backends = match file.backends.as_deref() {
        Some([]) | None => backends(catalog, &[])?,
        Some(lines) => uses(catalog, lines, PluginKind::Backend, &["runner", "engine"])?,
    };
    Ok(Suite {
        models: file.models.unwrap_or_else(|| vec![DEFAULT_MODEL.to_owned()]),
        methods: uses(catalog, file.methods.as_deref().unwrap_or_default(), PluginKind::Method, &["method"])?,
        engine: match file.engine {
            Some(line) => Some(engine(catalog, &line)?),
            None => engine_beside(catalog, &backends),
        },
        backends,
        format: file.format,
        tasks: match file.tasks {
            None => tasks::default_suite().into_iter().map(str::to_owned).collect(),
            Some(tasks) => checked_tasks(tasks, shots)?,
        },
        metrics: checked_metrics(file.metrics.unwrap_or_default())?,
        limit: file.limit,
        shots,
        seeds: file.seeds.unwrap_or(defaults.seeds),
        dense: file.dense.unwrap_or(defaults.dense),
        calibration: calibration(&file.calibration)?,
        // Who names workloads wants them run.
        profile: file.profile.unwrap_or(file.workloads.is_some()),
        workloads,
        out: file.out.unwrap_or(defaults.out),
        data_dir: file.data,
        threads: file.threads.unwrap_or(defaults.threads),
        hang_limit_seconds,
        memory_limit_bytes: memory_limit.transpose()?,
    })
}

/// Backends as `--backend` gives them, or the embedded one.
///
/// # Errors
/// Unknown plugins and options, each with the way out.
pub fn backends(catalog: &Catalog, specs: &[String]) -> Result<Vec<PluginUse>, Failure> {
    let default = [DEFAULT_BACKEND.to_owned()];
    let specs = if specs.is_empty() { &default[..] } else { specs };
    uses(catalog, &backend_lines(specs).unwrap_or_default(), PluginKind::Backend, &["runner", "engine"])
}

/// The embedded backend, as the engine of methods where none of the backends can open models for them.
fn engine_beside(catalog: &Catalog, backends: &[PluginUse]) -> Option<PluginUse> {
    let find = |id: &str| {
        let plugin = catalog.get(id, Some(PluginKind::Backend)).ok()?;
        plugin.descriptor.options_of("engine").is_some().then_some(plugin)
    };
    if backends.iter().any(|one| find(&one.plugin).is_some()) {
        return None;
    }
    let plugin = find(DEFAULT_BACKEND)?;
    Some(PluginUse::new(DEFAULT_BACKEND, plugin.path.clone()))
}

/// The backend that opens models for methods.
fn engine(catalog: &Catalog, line: &PluginLine) -> Result<PluginUse, Failure> {
    let mut found = plugin_uses(catalog, line, PluginKind::Backend, &["engine"])?;
    match (found.pop(), found.is_empty()) {
        (Some(engine), true) => Ok(engine),
        _ => Err(Failure::usage("a run has one engine: its options cannot be a grid")),
    }
}

/// Checks that every method's result can be stored in the format that was asked for, as far as that is known before any work.
///
/// # Errors
/// The first that cannot.
pub fn check_formats(catalog: &Catalog, suite: &Suite) -> Result<(), Failure> {
    let get = |id: &str, kind| catalog.get(id, Some(kind)).map(|plugin| &plugin.descriptor);
    let engine = suite.engine.iter().chain(&suite.backends).find_map(|one| {
        let descriptor = get(&one.plugin, PluginKind::Backend).ok()?;
        descriptor.options_of("engine").is_some().then_some((one, descriptor))
    });
    // Without an engine nothing is compressed, which is said elsewhere.
    let Some((engine_use, engine)) = engine else { return Ok(()) };
    for one in &suite.methods {
        let method = get(&one.plugin, PluginKind::Method).map_err(Failure::usage)?;
        format::choose(suite.format.as_deref(), engine, &engine_use.options, method, &one.options)
            .map_err(Failure::usage)?;
    }
    Ok(())
}

fn uses(
    catalog: &Catalog,
    lines: &[PluginLine],
    kind: PluginKind,
    roles: &[&str],
) -> Result<Vec<PluginUse>, Failure> {
    let mut all = Vec::new();
    for line in lines {
        all.extend(plugin_uses(catalog, line, kind, roles)?);
    }
    Ok(all)
}

/// A plugin as written: one use for each combination of its grid.
fn plugin_uses(
    catalog: &Catalog,
    line: &PluginLine,
    kind: PluginKind,
    roles: &[&str],
) -> Result<Vec<PluginUse>, Failure> {
    let id = match line {
        PluginLine::Text(text) => PluginSpec::parse(text).map_err(Failure::usage)?.plugin,
        PluginLine::Table(table) => table.plugin.clone(),
    };
    let plugin = catalog.get(&id, Some(kind)).map_err(Failure::usage)?;
    let role = roles.iter().find_map(|role| plugin.descriptor.options_of(role));
    let Some(schema) = role else {
        return Err(Failure::usage(format!("`{id}` has no {} role", roles.join(" or "))));
    };
    let make = |label: String, options: Map<String, Value>| PluginUse {
        label,
        options,
        ..PluginUse::new(id.clone(), plugin.path.clone())
    };
    match line {
        PluginLine::Text(text) => {
            let one = |spec: PluginSpec| match spec.to_json(schema).map_err(Failure::usage)? {
                Value::Object(options) => Ok(make(label(&spec), options)),
                _ => Ok(make(label(&spec), Map::new())),
            };
            PluginSpec::parse_grid(text).map_err(Failure::usage)?.into_iter().map(one).collect()
        }
        PluginLine::Table(table) => {
            let one = |options: Map<String, Value>| {
                let value = Value::Object(options.clone());
                validate(&id, schema, &value).map_err(Failure::usage)?;
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let options_text =
                    options.iter().map(|(name, value)| (name.clone(), Some(text(value)))).collect();
                let own = table.label.clone().map(|label| fit(&label));
                Ok(make(
                    own.unwrap_or_else(|| label(&PluginSpec { plugin: id.clone(), options: options_text })),
                    options,
                ))
            };
            table.combinations().map_err(Failure::usage)?.into_iter().map(one).collect()
        }
    }
}

/// The plugin's id and its options as given, fit for tables and file names.
fn label(spec: &PluginSpec) -> String {
    let mut label = spec.plugin.clone();
    for (name, value) in &spec.options {
        label.push('-');
        label.push_str(name);
        if let Some(value) = value {
            label.push('=');
            label.push_str(value);
        }
    }
    fit(&label)
}

/// A label that may be part of a file name.
fn fit(label: &str) -> String {
    label
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_=.+".contains(c) { c } else { '_' })
        .take(100)
        .collect()
}

/// Tasks or backends as flags give them: separated by commas, which may also separate the options of one of them.
pub fn split_list(given: &[String]) -> Vec<String> {
    let mut tasks: Vec<String> = Vec::new();
    for piece in
        given.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|piece| !piece.is_empty())
    {
        // `mmlu:shots=5,limit=10`: what looks like an option continues what is before it.
        let option = piece.contains('=') && !piece.contains(':');
        match tasks.last_mut() {
            Some(task) if option && task.contains(':') => {
                task.push(',');
                task.push_str(piece);
            }
            _ => tasks.push(piece.to_owned()),
        }
    }
    tasks
}

/// Tasks, once each is known and its options are sound.
fn checked_tasks(tasks: Vec<String>, shots: usize) -> Result<Vec<String>, Failure> {
    for task in &tasks {
        let line = parse_task(task, None, shots, 0).map_err(Failure::usage)?;
        if let Some(path) = line.task.path.as_deref().filter(|path| !path.is_file()) {
            return Err(Failure::usage(format!("--tasks {task}: {}: no such file", path.display())));
        }
    }
    Ok(tasks)
}

/// Metrics, once each is a built-in one or a file that is there. What is in the file is looked at when the run begins.
fn checked_metrics(metrics: Vec<String>) -> Result<Vec<String>, Failure> {
    for metric in &metrics {
        resolve_metric(metric, |_| Ok(String::new()))
            .map_err(|e| Failure::usage(format!("--metric {metric}: {e}")))?;
    }
    Ok(metrics)
}

/// The calibration, a file being named as tasks name it.
fn calibration(lines: &CalibrationLines) -> Result<Calibration, Failure> {
    let defaults = Calibration::default();
    let given = lines.text.as_deref().unwrap_or(&defaults.text);
    let path = given.strip_prefix("text:").unwrap_or(given);
    let text = if TEXTS.contains(&given) {
        given.to_owned()
    } else if Path::new(path).is_file() {
        format!("text:{path}")
    } else {
        return Err(Failure::usage(format!(
            "--calibration {given}: neither a text nor a file of that name; texts are {}",
            TEXTS.join(", ")
        )));
    };
    Ok(Calibration {
        text,
        windows: lines.windows.unwrap_or(defaults.windows),
        length: lines.length.unwrap_or(defaults.length),
    })
}

/// Whether a plugin compresses.
pub fn is_method(plugin: &Plugin) -> bool {
    plugin.descriptor.kind == PluginKind::Method
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_separate_tasks_and_their_options() {
        let split = |texts: &[&str]| split_list(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        assert_eq!(split(&["arc_easy,piqa", "mmlu"]), ["arc_easy", "piqa", "mmlu"]);
        assert_eq!(split(&["mmlu:shots=5,limit=10,piqa"]), ["mmlu:shots=5,limit=10", "piqa"]);
        assert_eq!(split(&["wikitext2:seqlen=512, piqa:limit=3"]), ["wikitext2:seqlen=512", "piqa:limit=3"]);
        assert_eq!(split(&["piqa,limit=3"]), ["piqa", "limit=3"]);
        assert!(split(&[" , "]).is_empty());
    }

    #[test]
    fn labels_are_fit_for_file_names() {
        for (text, expected) in [
            ("gptq", "gptq"),
            ("gptq:bits=4,group_size=128,act_order", "gptq-bits=4-group_size=128-act_order"),
            ("wanda:pattern=2:4", "wanda-pattern=2_4"),
            ("x:path=../../etc", "x-path=.._.._etc"),
        ] {
            assert_eq!(label(&PluginSpec::parse(text).expect(text)), expected);
        }
    }
}
