//! Conformance checks of plugins. Each runs in a worker of its own, so that a crash costs one check.

use std::path::Path;
use std::sync::Arc;

use llmcb_plugin_api::abi::{ABI_MAJOR, ABI_MINOR};
use llmcb_plugin_api::loader::{EngineHandle, LoadedPlugin};
use llmcb_plugin_api::sdk::{ErrorKind, Parameter, PluginKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::synthetic::{BLOCKS, Mood, Synthetic, SyntheticOptions};
use crate::plugins::check_steps;
use crate::worker::Services;

/// Names of all checks, in the order in which they make sense, with what each demands.
pub const CHECKS: &[(&str, &str)] = &[
    ("header", "the file exports the frozen header of this ABI"),
    ("layout", "the types of its root module are laid out as the host's"),
    ("descriptor", "its descriptor is complete"),
    ("options-schema", "the options of every role are described by a valid JSON Schema"),
    ("options-defaults", "no options at all are complete ones, and fit the schema"),
    ("options-unknown", "an option that does not exist is refused"),
    ("options-odd", "values out of range are refused by the schema, and odd ones never make it panic"),
    ("no-model", "a backend given no model, or a broken file, says so"),
    ("compress", "a tiny model is compressed: every weight a number, of the shape that the block has"),
    ("determinism", "the same seed gives the same weights, bit by bit"),
    ("engine-errors", "an engine's error comes back as an error"),
    ("wrong-names", "linears that the engine does not know come back as an error"),
    ("cancelled", "told to stop, it stops with that error"),
    ("panic-safety", "a panic under a call comes back as an error, and the plugin still answers"),
];

/// How a check came out. That a plugin crashed under it is for the parent of the worker to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Outcome {
    /// All is as it should be.
    Passed {
        /// What was seen, or empty.
        note: String,
    },
    /// Something is not.
    Failed {
        /// What, in one line.
        why: String,
    },
    /// The check does not apply.
    Skipped {
        /// Why.
        why: String,
    },
}

type Checked = Result<String, Outcome>;

fn fail(why: impl std::fmt::Display) -> Outcome {
    Outcome::Failed { why: why.to_string() }
}

fn skip(why: impl std::fmt::Display) -> Outcome {
    Outcome::Skipped { why: why.to_string() }
}

/// Runs a check on a file.
pub fn run(path: &Path, name: &str) -> Outcome {
    let result = match name {
        "header" => header(path),
        "layout" => open(path).map(|_| String::new()),
        "descriptor" => open(path).and_then(|p| descriptor(&p)),
        "options-schema" => open(path).and_then(|p| schema(&p)),
        "options-defaults" => open(path).and_then(|p| defaults(&p)),
        "options-unknown" => open(path).and_then(|p| unknown_option(&p)),
        "options-odd" => open(path).and_then(|p| check_steps::odd_options(&p).map_err(fail)),
        "no-model" => open(path).and_then(|p| {
            backend_only(&p).and_then(|()| check_steps::models_that_are_none(&p).map_err(fail))
        }),
        "wrong-names" => open(path).and_then(|p| with_engine(&p, check_steps::wrong_names)),
        "cancelled" => open(path).and_then(|p| with_engine(&p, check_steps::cancelled_host)),
        "compress" => open(path).and_then(|p| compress(&p)),
        "determinism" => open(path).and_then(|p| determinism(&p)),
        "engine-errors" => open(path).and_then(|p| engine_errors(&p)),
        "panic-safety" => open(path).and_then(|p| panic_safety(&p)),
        other => {
            let known: Vec<_> = CHECKS.iter().map(|(name, _)| *name).collect();
            Err(fail(format!("no check is called `{other}`; there are {}", known.join(", "))))
        }
    };
    result.map_or_else(|outcome| outcome, |note| Outcome::Passed { note })
}

fn open(path: &Path) -> Result<LoadedPlugin, Outcome> {
    LoadedPlugin::open(path).map_err(|error| {
        if let Some(details) = error.details() {
            eprintln!("{details}");
        }
        fail(error)
    })
}

fn header(path: &Path) -> Checked {
    let header = LoadedPlugin::header(path).map_err(fail)?;
    let theirs = format!("ABI {}.{}", header.abi_major, header.abi_minor);
    if header.abi_major != ABI_MAJOR || header.abi_minor > ABI_MINOR {
        return Err(fail(format!("{theirs}; this host has ABI {ABI_MAJOR}.{ABI_MINOR}")));
    }
    Ok(theirs)
}

fn descriptor(plugin: &LoadedPlugin) -> Checked {
    let descriptor = plugin.descriptor();
    let mut faults = descriptor.faults();
    let expected: &[&str] = match descriptor.kind {
        PluginKind::Method => &["method"],
        _ => &["engine", "runner"],
    };
    for role in &descriptor.roles {
        if !expected.contains(&role.role.as_str()) {
            faults.push(format!("a {:?} has no role `{}`", descriptor.kind, role.role));
        }
    }
    if descriptor.needs.devices.is_empty() {
        faults.push("it names no device it works on".into());
    }
    if descriptor.licence.trim().is_empty() {
        faults.push("it names no licence".into());
    }
    if faults.is_empty() {
        return Ok(format!("{} {}", descriptor.id, descriptor.version));
    }
    Err(fail(faults.join("; ")))
}

fn schema(plugin: &LoadedPlugin) -> Checked {
    let mut seen = Vec::new();
    for role in &plugin.descriptor().roles {
        let schema = &role.options;
        jsonschema::validator_for(schema)
            .map_err(|e| fail(format!("options of the {}: not a valid schema: {e}", role.role)))?;
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, property) in properties.into_iter().flatten() {
            if property.get("description").and_then(Value::as_str).is_none_or(str::is_empty) {
                return Err(fail(format!("option `{name}` of the {} has no description", role.role)));
            }
        }
        seen.push(format!("{} of the {}", properties.map_or(0, serde_json::Map::len), role.role));
    }
    Ok(format!("options: {}", seen.join(", ")))
}

fn defaults(plugin: &LoadedPlugin) -> Checked {
    for role in &plugin.descriptor().roles {
        let complete = plugin
            .normalize_options(&role.role, &json!({}))
            .map_err(|e| fail(format!("the {} refuses to take its defaults: {e}", role.role)))?;
        let validator = jsonschema::validator_for(&role.options).map_err(fail)?;
        if let Some(error) = validator.iter_errors(&complete).next() {
            return Err(fail(format!("defaults of the {} do not fit its own schema: {error}", role.role)));
        }
        let again = plugin
            .normalize_options(&role.role, &complete)
            .map_err(|e| fail(format!("the {} refuses its own complete options: {e}", role.role)))?;
        if again != complete {
            return Err(fail(format!("options of the {} change when completed twice", role.role)));
        }
    }
    Ok(String::new())
}

fn unknown_option(plugin: &LoadedPlugin) -> Checked {
    for role in &plugin.descriptor().roles {
        if plugin.normalize_options(&role.role, &json!({ "no-such-option": 1 })).is_ok() {
            return Err(fail(format!(
                "the {} accepts `no-such-option`; add #[serde(deny_unknown_fields)] to its option type",
                role.role
            )));
        }
    }
    Ok(String::new())
}

fn method_only(plugin: &LoadedPlugin) -> Result<Value, Outcome> {
    if plugin.descriptor().kind != PluginKind::Method {
        return Err(skip("only for methods"));
    }
    plugin.normalize_options("method", &json!({})).map_err(fail)
}

fn backend_only(plugin: &LoadedPlugin) -> Result<(), Outcome> {
    if plugin.descriptor().kind == PluginKind::Backend { Ok(()) } else { Err(skip("only for backends")) }
}

/// A check of a method that needs an engine in working order.
fn with_engine(
    plugin: &LoadedPlugin,
    check: impl Fn(&LoadedPlugin, &mut EngineHandle) -> check_steps::Seen,
) -> Checked {
    method_only(plugin)?;
    let mut engine = EngineHandle::in_process(Synthetic::new(SyntheticOptions { seed: 1, mood: Mood::Well }));
    engine.calibrate(&[vec![0; 4]], &plugin.descriptor().needs.plan).map_err(fail)?;
    check(plugin, &mut engine).map_err(fail)
}

/// Weights of all blocks after the method, as bits.
type Bits = Vec<(String, Vec<u32>)>;

/// Compresses the synthetic model; the weights, and how much the output of the last block was changed.
fn run_method(plugin: &LoadedPlugin, mood: Mood, seed: u64) -> llmcb_plugin_api::sdk::Result<(Bits, f64)> {
    let options = plugin.normalize_options("method", &json!({}))?;
    let mut method = plugin.new_method(&options, Arc::new(Services::quiet(seed, 2)))?;
    let mut engine = EngineHandle::in_process(Synthetic::new(SyntheticOptions { seed: 1, mood }));
    engine.calibrate(&[vec![0; 4]], &plugin.descriptor().needs.plan)?;
    method.prepare(&mut engine, BLOCKS)?;
    let mut bits = Vec::new();
    let mut error = 0.0;
    for index in 0..BLOCKS {
        let info = engine.open_block(index)?;
        method.compress_block(&mut engine, &info)?;
        let info = engine.block_info()?;
        error = engine.block(info).output_error(Vec::new())?;
        engine.close_block()?;
    }
    method.finish(&mut engine, BLOCKS)?;
    let model = engine.whole(BLOCKS);
    for index in 0..BLOCKS {
        for linear in &model.block(index)?.linears {
            let weight = model.weight(&Parameter::of_block(index, &linear.name))?;
            if weight.shape() != linear.shape() {
                return Err(llmcb_plugin_api::sdk::Error::failed(format!(
                    "{} of block {index} has the shape {:?} afterwards, the block says {:?}",
                    linear.name,
                    weight.shape(),
                    linear.shape()
                )));
            }
            let values = weight.to_f32()?;
            if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
                return Err(llmcb_plugin_api::sdk::Error::failed(format!(
                    "{} of block {index} has a weight of {bad} afterwards",
                    linear.name
                )));
            }
            bits.push((format!("{index}.{}", linear.name), values.iter().map(|v| v.to_bits()).collect()));
        }
    }
    Ok((bits, error))
}

fn compress(plugin: &LoadedPlugin) -> Checked {
    method_only(plugin)?;
    match run_method(plugin, Mood::Well, 0) {
        Ok((_, error)) => Ok(format!("mean squared error of the last block's output {error:.3e}")),
        Err(error) if error.kind() == ErrorKind::Unsupported => Err(skip(error)),
        Err(error) => Err(fail(error)),
    }
}

fn determinism(plugin: &LoadedPlugin) -> Checked {
    method_only(plugin)?;
    let (first, _) = run_method(plugin, Mood::Well, 7).map_err(skip)?;
    let (second, _) = run_method(plugin, Mood::Well, 7).map_err(fail)?;
    for ((name, a), (_, b)) in first.iter().zip(&second) {
        let different = a.iter().zip(b).filter(|(a, b)| a != b).count();
        if different > 0 {
            return Err(fail(format!(
                "{different} of {} weights of {name} differ between two runs",
                a.len()
            )));
        }
    }
    Ok(String::new())
}

fn engine_errors(plugin: &LoadedPlugin) -> Checked {
    method_only(plugin)?;
    match run_method(plugin, Mood::Fails, 0) {
        Ok(_) => Err(skip("the method asks nothing of the engine")),
        Err(error) if error.kind() == ErrorKind::Panicked => Err(fail(error)),
        Err(error) if error.message().contains("on purpose") => Ok(String::new()),
        Err(error) => Err(fail(format!("the engine's message is lost: {error}"))),
    }
}

fn panic_safety(plugin: &LoadedPlugin) -> Checked {
    // Any role: what is not JSON, and not options, must come back as an error.
    for role in &plugin.descriptor().roles {
        for nonsense in [json!(null), json!(true), json!("text")] {
            if plugin.normalize_options(&role.role, &nonsense).is_ok() {
                return Err(fail(format!("the {} takes {nonsense} for options", role.role)));
            }
        }
    }
    if plugin.descriptor().kind == PluginKind::Method {
        if run_method(plugin, Mood::Panics, 0).is_ok() {
            return Ok("the method asks nothing of the engine".into());
        }
        // The plugin as a whole must have survived.
        run_method(plugin, Mood::Well, 0)
            .map_err(|e| fail(format!("after a panic it no longer works: {e}")))?;
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_plugin_fails_every_check_with_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.so");
        std::fs::write(&file, b"not a library").unwrap();
        for (name, _) in CHECKS {
            let Outcome::Failed { why } = run(&file, name) else { panic!("{name} must fail") };
            assert!(why.contains("x.so") && !why.contains('\n'), "{name}: {why}");
        }
        assert!(
            matches!(run(&file, "nonsense"), Outcome::Failed { why } if why.contains("no check is called"))
        );
    }
}
