//! Checks of a plugin's options: what it says of them, and what it makes of those that it should take, and of those that it should not.

use std::time::Duration;

use llmcb_plugin_api::sdk::{ErrorKind, PluginKind};
use serde_json::{Value, json};

use super::method::{refusal, survives_panics};
use super::subject::{Subject, Terms};
use super::{Checked, Given, Steps, fail, open};
use crate::plugins::{schema, validate};

/// The options of every role are described.
pub(super) fn described(given: &Given) -> Checked {
    let mut seen = Vec::new();
    for role in &open(&given.path)?.descriptor().roles {
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

/// No options at all are complete ones.
pub(super) fn defaults(given: &Given) -> Checked {
    let plugin = open(&given.path)?;
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

/// An option that does not exist is refused.
pub(super) fn unknown(given: &Given) -> Checked {
    let plugin = open(&given.path)?;
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
fn strange() -> Vec<Value> {
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
pub(super) fn odd(given: &Given) -> Checked {
    let plugin = open(&given.path)?;
    let descriptor = plugin.descriptor();
    let terms = Terms::new(given);
    let mut tried = 0;
    for role in &descriptor.roles {
        for name in schema::names(&role.options) {
            let property = schema::property(&role.options, name).unwrap_or(&Value::Null);
            for value in outside(property) {
                if validate(&descriptor.id, &role.options, &json!({ name: value })).is_ok() {
                    return Err(fail(format!(
                        "option `{name}` of the {}: its own schema lets {value} pass",
                        role.role
                    )));
                }
            }
            for value in outside(property).into_iter().chain(strange()) {
                tried += 1;
                let mut result = plugin.normalize_options(&role.role, &json!({ name: value }));
                if let Ok(complete) = &result
                    && role.role == "method"
                {
                    let host = terms.host();
                    result = plugin.new_method(complete, host).map(|_| Value::Null);
                }
                if let Err(error) = &result
                    && error.kind() == ErrorKind::Panicked
                {
                    return Err(fail(format!(
                        "option `{name}` of the {} set to {value}: {error}",
                        role.role
                    )));
                }
            }
        }
    }
    Ok(format!("{tried} odd values"))
}

/// So long may a run take before it is told to stop: the largest number of steps is too many to wait for.
const PATIENCE: Duration = Duration::from_millis(250);

/// Every option at the ends of its range, and with each of its values: the work is done, stopped when it takes long, or refused.
pub(super) fn limits(given: &Given) -> Checked {
    let subject = Subject::open(given)?;
    let (mut done, mut stopped, mut refused) = (0, 0, Vec::new());
    for role in &subject.plugin.descriptor().roles {
        for name in schema::names(&role.options) {
            for value in schema::extremes(&role.options, name) {
                let what = format!("option `{name}` of the {} set to {value}", role.role);
                let options = json!({ name: value });
                // The range of a type may be wider than the values that are listed.
                if validate(&subject.plugin.descriptor().id, &role.options, &options).is_err() {
                    continue;
                }
                let steps = Steps::stop_after(PATIENCE);
                let terms =
                    Terms { options: Some((role.role.clone(), options)), ..Terms::with_steps(given, &steps) };
                match subject.run(&terms) {
                    Ok(_) => done += 1,
                    Err(error) if error.kind() == ErrorKind::Cancelled && steps.stopped() => stopped += 1,
                    Err(error) => {
                        refusal(&error).map_err(|fault| fail(format!("{what}: {fault}")))?;
                        refused.push(format!("{what}: {error}"));
                    }
                }
            }
        }
    }
    let seen = format!("{done} values taken, {stopped} stopped for time, {} refused", refused.len());
    Ok(match refused.first() {
        Some(first) => format!("{seen}: {first}"),
        None => seen,
    })
}

/// What is not options at all comes back as an error, and so does a panic.
pub(super) fn panics(given: &Given) -> Checked {
    let plugin = open(&given.path)?;
    for role in &plugin.descriptor().roles {
        for nonsense in [json!(null), json!(true), json!("text")] {
            if plugin.normalize_options(&role.role, &nonsense).is_ok() {
                return Err(fail(format!("the {} takes {nonsense} for options", role.role)));
            }
        }
    }
    match plugin.descriptor().kind {
        PluginKind::Method => survives_panics(given, &plugin),
        _ => Ok(String::new()),
    }
}
