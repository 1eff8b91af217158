//! From flags to a suite: every name is looked up and every option checked before anything is run.

use std::path::{Path, PathBuf};

use llmcb_plugin_api::sdk::PluginKind;
use serde_json::Value;

use super::failure::Failure;
use super::flags::{CalibrationFlags, MeasureFlags, TaskFlags, WorkerFlags};
use crate::assets::registry::DEFAULT_MODEL;
use crate::plugins::{Catalog, Plugin, PluginSpec};
use crate::stage::parse_task;
use crate::suite::format;
use crate::suite::spec::{Calibration, PluginUse, Suite};
use crate::tasks;

/// The backend that comes with the program.
pub const DEFAULT_BACKEND: &str = "candle";

/// Texts that calibration may name without a file.
const TEXTS: [&str; 3] = ["boolq_passages", "wikitext2", "wikitext2:validation"];

/// The models, or the default one.
pub fn models(given: &[String]) -> Vec<String> {
    if given.is_empty() { vec![DEFAULT_MODEL.to_owned()] } else { given.to_vec() }
}

/// Methods as `--method` gives them.
///
/// # Errors
/// Unknown plugins and options, each with the way out.
pub fn methods(catalog: &Catalog, specs: &[String]) -> Result<Vec<PluginUse>, Failure> {
    specs.iter().map(|text| plugin_use(catalog, text, PluginKind::Method, &["method"])).collect()
}

/// Backends as `--backend` gives them, or the embedded one.
///
/// # Errors
/// As [`methods`].
pub fn backends(catalog: &Catalog, specs: &[String]) -> Result<Vec<PluginUse>, Failure> {
    let default = [DEFAULT_BACKEND.to_owned()];
    let specs = if specs.is_empty() { &default[..] } else { specs };
    specs.iter().map(|text| plugin_use(catalog, text, PluginKind::Backend, &["runner", "engine"])).collect()
}

/// The backend that opens models for methods.
///
/// # Errors
/// As [`methods`], and where it has no engine.
pub fn engine(catalog: &Catalog, spec: Option<&str>) -> Result<Option<PluginUse>, Failure> {
    spec.map(|text| plugin_use(catalog, text, PluginKind::Backend, &["engine"])).transpose()
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

fn plugin_use(catalog: &Catalog, text: &str, kind: PluginKind, roles: &[&str]) -> Result<PluginUse, Failure> {
    let spec = PluginSpec::parse(text).map_err(Failure::usage)?;
    let plugin = catalog.get(&spec.plugin, Some(kind)).map_err(Failure::usage)?;
    let role = roles.iter().find_map(|role| plugin.descriptor.options_of(role));
    let Some(schema) = role else {
        return Err(Failure::usage(format!("`{}` has no {} role", spec.plugin, roles.join(" or "))));
    };
    let options = match spec.to_json(schema).map_err(Failure::usage)? {
        Value::Object(options) => options,
        _ => serde_json::Map::new(),
    };
    Ok(PluginUse { label: label(&spec), options, ..PluginUse::new(spec.plugin.clone(), plugin.path.clone()) })
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
    label
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_=.+".contains(c) { c } else { '_' })
        .take(100)
        .collect()
}

/// Tasks as `--tasks` gives them: separated by commas, which may also separate a task's own options.
pub fn split_tasks(given: &[String]) -> Vec<String> {
    let mut tasks: Vec<String> = Vec::new();
    for piece in
        given.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|piece| !piece.is_empty())
    {
        // `mmlu:shots=5,limit=10`: what looks like an option continues the task before it.
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

/// Checked tasks, or the default ones.
///
/// # Errors
/// Unknown tasks and options, with names that resemble.
pub fn tasks(flags: &TaskFlags, seed: u64) -> Result<Vec<String>, Failure> {
    let given = split_tasks(&flags.tasks);
    if given.is_empty() {
        if !flags.tasks.is_empty() {
            return Err(Failure::usage("--tasks names no task"));
        }
        return Ok(tasks::default_suite().into_iter().map(str::to_owned).collect());
    }
    for task in &given {
        let line = parse_task(task, None, flags.shots, seed).map_err(Failure::usage)?;
        if let Some(path) = line.task.path.as_deref().filter(|path| !path.is_file()) {
            return Err(Failure::usage(format!("--tasks {task}: {}: no such file", path.display())));
        }
    }
    Ok(given)
}

/// The calibration, a file being named as tasks name it.
///
/// # Errors
/// Where there is neither a text nor a file of that name.
pub fn calibration(flags: &CalibrationFlags) -> Result<Calibration, Failure> {
    let given = flags.calibration.as_str();
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
        windows: flags.calibration_windows as usize,
        length: flags.calibration_length as usize,
    })
}

/// A suite of the dense models: what `run` and `eval` share.
///
/// # Errors
/// As [`backends`], [`tasks`] and [`base`].
pub fn measured(catalog: &Catalog, flags: &MeasureFlags) -> Result<Suite, Failure> {
    Ok(Suite {
        models: models(&flags.model),
        backends: backends(catalog, &flags.backend)?,
        tasks: tasks(&flags.tasks, flags.workers.seed)?,
        limit: flags.tasks.limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        shots: flags.tasks.shots,
        profile: flags.profile,
        ..base(&flags.workers, flags.out.clone())?
    })
}

/// A suite with the limits that flags give.
///
/// # Errors
/// Where `--data` names no folder.
pub fn base(workers: &WorkerFlags, out: PathBuf) -> Result<Suite, Failure> {
    if let Some(folder) = workers.data.as_deref().filter(|folder| !folder.is_dir()) {
        return Err(Failure::usage(format!("--data {}: no such folder", folder.display())));
    }
    Ok(Suite {
        seed: workers.seed,
        data_dir: workers.data.clone(),
        threads: workers.threads,
        memory_limit_bytes: workers.memory_limit,
        // Whole seconds: a limit that is not 0 must not become "never".
        hang_limit_seconds: workers.hang_limit.as_secs_f64().ceil() as u64,
        out,
        ..Suite::default()
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
        let split = |texts: &[&str]| split_tasks(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
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
