//! Conformance checks that meet a plugin with what it should refuse. They run inside a worker, on a loaded plugin.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use llmcb_plugin_api::loader::{EngineHandle, LoadedPlugin};
use llmcb_plugin_api::sdk::{Error, ErrorKind, HostServices, PluginKind};
use serde_json::{Value, json};

use super::{options, schema};
use crate::worker::Services;

/// What a check saw (`Ok`), or what is wrong (`Err`), in one line.
pub type Seen = Result<String, String>;

/// A host that talks to nobody, and may have been told to stop.
fn host(stopped: bool) -> Arc<dyn HostServices> {
    Arc::new(Services::silent(Arc::new(AtomicBool::new(stopped)), 0, 1))
}

/// Values outside the range that a property's schema gives.
fn outside(property: &Value) -> Vec<Value> {
    let limit = |key: &str| property.get(key).and_then(Value::as_f64);
    let mut values = Vec::new();
    if let Some(low) = limit("minimum").or(limit("exclusiveMinimum")) {
        values.push(low - 1.0);
    }
    if let Some(high) = limit("maximum").or(limit("exclusiveMaximum")) {
        values.push(high + 1.0);
    }
    values
        .into_iter()
        .map(|v| if v.fract() == 0.0 && v.abs() < 9e15 { json!(v as i64) } else { json!(v) })
        .collect()
}

/// Values that fit hardly any option.
fn odd() -> Vec<Value> {
    vec![
        json!(-1),
        json!(0),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e308),
        json!(-1e-308),
        json!(""),
        json!("no such value"),
        json!([]),
        json!({}),
        json!(null),
    ]
}

/// Values out of range are refused by the schema, and neither those nor values of odd types or sizes make the plugin panic.
pub fn odd_options(plugin: &LoadedPlugin) -> Seen {
    let descriptor = plugin.descriptor();
    let mut tried = 0;
    for role in &descriptor.roles {
        for name in schema::names(&role.options) {
            let property = schema::property(&role.options, name).unwrap_or(&Value::Null);
            for value in outside(property) {
                let given = json!({ name: value.clone() });
                if options::validate(&descriptor.id, &role.options, &given).is_ok() {
                    return Err(format!(
                        "option `{name}` of the {}: its own schema lets {value} pass",
                        role.role
                    ));
                }
            }
            for value in outside(property).into_iter().chain(odd()) {
                tried += 1;
                let given = json!({ name: value.clone() });
                let mut result = plugin.normalize_options(&role.role, &given);
                if let Ok(complete) = &result
                    && role.role == "method"
                {
                    result = plugin.new_method(complete, host(false)).map(|_| Value::Null);
                }
                if let Err(error) = &result
                    && error.kind() == ErrorKind::Panicked
                {
                    return Err(format!("option `{name}` of the {} set to {value}: {error}", role.role));
                }
            }
        }
    }
    Ok(format!("{tried} odd values"))
}

/// A method that is told to stop does so with an error of kind `Cancelled`, or was done before it looked.
pub fn cancelled_host(plugin: &LoadedPlugin, engine: &mut EngineHandle) -> Seen {
    let text = |e: Error| e.to_string();
    let options = plugin.normalize_options("method", &json!({})).map_err(text)?;
    let mut method = match plugin.new_method(&options, host(true)) {
        Err(error) if error.kind() == ErrorKind::Cancelled => return Ok("stopped at once".into()),
        result => result.map_err(text)?,
    };
    let info = engine.open_block(0).map_err(text)?;
    match method.compress_block(engine, &info) {
        Ok(()) => Ok("a tiny block was done before it looked".into()),
        Err(error) if error.kind() == ErrorKind::Cancelled => Ok("stopped".into()),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok("does not do this model".into()),
        Err(error) => Err(format!("told to stop, it ended with another error: {error}")),
    }
}

/// A block whose linears the engine does not know is an error, not a panic.
pub fn wrong_names(plugin: &LoadedPlugin, engine: &mut EngineHandle) -> Seen {
    let text = |e: Error| e.to_string();
    let options = plugin.normalize_options("method", &json!({})).map_err(text)?;
    let mut method = plugin.new_method(&options, host(false)).map_err(text)?;
    let mut info = engine.open_block(0).map_err(text)?;
    for linear in &mut info.linears {
        linear.name = format!("no.such.{}", linear.name);
    }
    match method.compress_block(engine, &info) {
        Ok(()) => Err("linears that do not exist were compressed without an error".into()),
        Err(error) if error.kind() == ErrorKind::Panicked => Err(error.to_string()),
        Err(_) => Ok(String::new()),
    }
}

/// A backend that is given no model, or a file that is none, says so.
pub fn models_that_are_none(plugin: &LoadedPlugin) -> Seen {
    let descriptor = plugin.descriptor();
    if descriptor.kind != PluginKind::Backend {
        return Ok("a method opens no models".into());
    }
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let garbage = folder.path().join("model.gguf");
    std::fs::write(&garbage, b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f").map_err(|e| e.to_string())?;
    for model in [folder.path().join("absent"), garbage, folder.path().to_owned()] {
        for role in &descriptor.roles {
            let result = match role.role.as_str() {
                "engine" => plugin.open_engine(&model, &json!({}), host(false)).map(|_| ()),
                _ => plugin.open_runner(&model, &json!({}), host(false)).map(|_| ()),
            };
            match result {
                Ok(()) => {
                    return Err(format!("the {} opened {}, which is no model", role.role, model.display()));
                }
                Err(error) if error.kind() == ErrorKind::Panicked => return Err(error.to_string()),
                Err(_) => {}
            }
        }
    }
    Ok("no such file, a broken file, an empty folder".into())
}
