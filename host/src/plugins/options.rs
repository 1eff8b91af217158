//! Options of plugins as users write them: `gptq:bits=4,group_size=128,act_order=true`.

use serde_json::{Map, Value};

use super::schema::{self, plain, property};
use crate::assets::nearest;

/// A plugin and its options as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginSpec {
    /// Id of the plugin.
    pub plugin: String,
    /// Options in the order in which they were written; no value means `true`.
    pub options: Vec<(String, Option<String>)>,
}

/// Options that cannot be used; one line per fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .faults.join("\n"))]
pub struct OptionsError {
    /// Each names the plugin and the option.
    pub faults: Vec<String>,
}

impl OptionsError {
    fn one(fault: String) -> Self {
        OptionsError { faults: vec![fault] }
    }
}

impl PluginSpec {
    /// Reads `id` or `id:name=value,name=value`. Commas inside brackets, braces or double quotes belong to the value.
    ///
    /// # Errors
    /// What is wrong with the text, and how it should look.
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        let mut spec = Self::parse_raw(text)?;
        for (_, value) in &mut spec.options {
            *value = value.take().map(|value| unquoted(&value).to_owned());
        }
        Ok(spec)
    }

    /// As [`parse`](Self::parse), values in their quotes.
    fn parse_raw(text: &str) -> Result<Self, OptionsError> {
        let fault = |what: &str| {
            Err(OptionsError::one(format!(
                "`{text}`: {what}; write it as `gptq` or `gptq:bits=4,group_size=128`"
            )))
        };
        let (plugin, rest) = match text.split_once(':') {
            Some((plugin, rest)) => (plugin.trim(), Some(rest)),
            None => (text.trim(), None),
        };
        if plugin.is_empty() {
            return fault("no plugin is named");
        }
        if plugin.contains(['=', ',', '/', ' ']) {
            return fault(&format!("`{plugin}` cannot be the id of a plugin"));
        }
        let mut options: Vec<(String, Option<String>)> = Vec::new();
        let Some(pieces) = split(rest.unwrap_or("")) else {
            return fault("a bracket or quote is not closed");
        };
        for piece in pieces {
            let (name, value) = match piece.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().to_owned())),
                None => (piece.trim(), None),
            };
            if name.is_empty() {
                return fault("an option has no name");
            }
            if options.iter().any(|(other, _)| other == name) {
                return fault(&format!("option `{name}` is given twice"));
            }
            options.push((name.to_owned(), value));
        }
        if rest.is_some() && options.is_empty() {
            return fault("no option follows the colon");
        }
        Ok(PluginSpec { plugin: plugin.to_owned(), options })
    }

    /// Reads the same, where an option may have several values, `bits=3|4`: every combination, the last option varying fastest.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_grid(text: &str) -> Result<Vec<Self>, OptionsError> {
        let spec = PluginSpec::parse_raw(text)?;
        let mut all = vec![PluginSpec { options: Vec::new(), ..spec.clone() }];
        for (name, value) in &spec.options {
            let values: Vec<Option<String>> = match value {
                // A quoted value is one value, whatever it has in it.
                Some(value) if value.starts_with('"') => vec![Some(unquoted(value).to_owned())],
                Some(value) => value.split('|').map(|one| Some(unquoted(one.trim()).to_owned())).collect(),
                None => vec![None],
            };
            let with = |so_far: &PluginSpec| {
                let one = |value: &Option<String>| {
                    let mut spec = so_far.clone();
                    spec.options.push((name.clone(), value.clone()));
                    spec
                };
                values.iter().map(one).collect::<Vec<_>>()
            };
            all = all.iter().flat_map(with).collect();
        }
        Ok(all)
    }

    /// Turns the options into a JSON object by the schema's types and checks it with [`validate`].
    ///
    /// # Errors
    /// Every fault, not only the first.
    pub fn to_json(&self, schema: &Value) -> Result<Value, OptionsError> {
        let mut object = Map::new();
        let mut faults = Vec::new();
        for (name, text) in &self.options {
            let Some(node) = property(schema, name) else {
                faults.push(unknown(&self.plugin, name, schema));
                continue;
            };
            match coerce(&schema::accepts(schema, node), text.as_deref()) {
                Some(value) => {
                    object.insert(name.clone(), value);
                }
                None => faults.push(wrong_type(&self.plugin, name, text.as_deref().unwrap_or(""), schema)),
            }
        }
        let object = Value::Object(object);
        if let Err(error) = validate(&self.plugin, schema, &object) {
            faults.extend(error.faults);
        }
        if faults.is_empty() { Ok(object) } else { Err(OptionsError { faults }) }
    }
}

/// Splits at commas that are outside brackets, braces and quotes; `None` when one of those is not closed.
fn split(text: &str) -> Option<Vec<&str>> {
    let (mut pieces, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0_i32, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                pieces.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if quoted || depth != 0 {
        return None;
    }
    if !text[start..].trim().is_empty() || start > 0 {
        pieces.push(&text[start..]);
    }
    Some(pieces)
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text)
}

/// A value of one of the types the option admits; `None` when the text is none of them.
fn coerce(accepts: &schema::Accepts, text: Option<&str>) -> Option<Value> {
    let Some(text) = text else {
        return (accepts.boolean || accepts.anything()).then_some(Value::Bool(true));
    };
    // A value that is listed is meant, whatever its type.
    if let Some(choice) = accepts.choices.iter().find(|choice| plain(choice) == text) {
        return Some(choice.clone());
    }
    let lower = text.to_ascii_lowercase();
    if accepts.null && matches!(lower.as_str(), "none" | "null") {
        return Some(Value::Null);
    }
    if accepts.boolean {
        match lower.as_str() {
            "true" | "yes" | "on" => return Some(Value::Bool(true)),
            "false" | "no" | "off" => return Some(Value::Bool(false)),
            _ => {}
        }
    }
    if accepts.integer || accepts.number {
        if let Ok(n) = text.parse::<i64>() {
            return Some(n.into());
        }
        if let Ok(n) = text.parse::<u64>() {
            return Some(n.into());
        }
    }
    if accepts.number
        && let Some(n) = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64)
    {
        return Some(Value::Number(n));
    }
    if accepts.array || accepts.object {
        match serde_json::from_str(text) {
            Ok(value @ Value::Array(_)) if accepts.array => return Some(value),
            Ok(value @ Value::Object(_)) if accepts.object => return Some(value),
            _ => {}
        }
    }
    if accepts.string {
        return Some(Value::String(text.to_owned()));
    }
    if accepts.anything() {
        return Some(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())));
    }
    None
}

/// Checks an options object against the schema of a plugin's role.
///
/// # Errors
/// One line for each fault: unknown option, value out of range, wrong type.
pub fn validate(plugin: &str, schema: &Value, options: &Value) -> Result<(), OptionsError> {
    let Some(object) = options.as_object() else {
        return Err(OptionsError::one(format!("options of `{plugin}` must be a table of names and values")));
    };
    let mut faults: Vec<String> = object
        .keys()
        .filter(|name| property(schema, name).is_none())
        .map(|name| unknown(plugin, name, schema))
        .collect();
    let validator = jsonschema::validator_for(schema).map_err(|e| {
        OptionsError::one(format!("`{plugin}`: the plugin's schema of its options is not a JSON Schema: {e}"))
    })?;
    for error in validator.iter_errors(options) {
        let path = error.instance_path().to_string();
        let name = path.trim_start_matches('/').split('/').next().unwrap_or("").to_owned();
        let Some(value) = object.get(&name).filter(|_| property(schema, &name).is_some()) else {
            if error.kind().keyword() == "required" {
                faults.push(format!("`{plugin}`: {error}"));
            }
            // Anything else at the top are unknown options, reported above.
            continue;
        };
        let fault = match error.kind().keyword() {
            "type" => wrong_type(plugin, &name, &plain(value), schema),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => {
                not_allowed(plugin, &name, value, "is out of range", schema)
            }
            "enum" | "const" | "oneOf" | "anyOf" => {
                not_allowed(plugin, &name, value, "is not allowed", schema)
            }
            _ => format!("`{plugin}` option `{name}`: {error}"),
        };
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(OptionsError { faults }) }
}

fn unknown(plugin: &str, name: &str, schema: &Value) -> String {
    let known = schema::names(schema);
    if known.is_empty() {
        return format!("`{plugin}` has no option `{name}`; it has no options at all");
    }
    let hint = match nearest(name, known.iter().copied()).first() {
        Some(near) => format!("; did you mean `{near}`?"),
        None => String::new(),
    };
    let dot = if hint.is_empty() { "." } else { "" };
    format!("`{plugin}` has no option `{name}`{hint}{dot} Its options: {}", known.join(", "))
}

fn default_text(doc: &schema::OptionDoc) -> String {
    doc.default.as_ref().map(|d| format!(" (default {d})")).unwrap_or_default()
}

fn wrong_type(plugin: &str, name: &str, value: &str, schema: &Value) -> String {
    let Some(doc) = schema::option(schema, name) else {
        return unknown(plugin, name, schema);
    };
    let range = if doc.range.is_empty() { String::new() } else { format!(", {}", doc.range) };
    let got =
        if value.is_empty() { "a value is missing".to_owned() } else { format!("`{value}` does not fit") };
    format!("`{plugin}` option `{name}`: {got}; expected {}{range}{}", doc.kind, default_text(&doc))
}

fn not_allowed(plugin: &str, name: &str, value: &Value, what: &str, schema: &Value) -> String {
    let Some(doc) = schema::option(schema, name) else {
        return unknown(plugin, name, schema);
    };
    let allowed = if doc.range.is_empty() { doc.kind.clone() } else { doc.range.clone() };
    format!("`{plugin}` option `{name}`: {} {what}; allowed: {allowed}{}", plain(value), default_text(&doc))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "bits": {"type": "integer", "minimum": 2, "maximum": 8, "default": 4},
                "group_size": {"type": ["integer", "null"], "minimum": 1, "default": 128},
                "act_order": {"type": "boolean", "default": false},
                "damping": {"type": "number", "exclusiveMinimum": 0.0, "maximum": 1.0, "default": 0.01},
                "grid": {"$ref": "#/$defs/Grid", "default": "minmax"},
                "pattern": {"type": ["string", "null"], "default": null},
                "layers": {"type": "array", "items": {"type": "integer"}}
            },
            "$defs": {"Grid": {"type": "string", "enum": ["minmax", "mse"]}}
        })
    }

    fn read(text: &str) -> Result<Value, String> {
        PluginSpec::parse(text).and_then(|spec| spec.to_json(&schema())).map_err(|e| e.to_string())
    }

    #[test]
    fn text_becomes_the_types_the_schema_asks_for() {
        for (text, expected) in [
            ("gptq", json!({})),
            (
                "gptq:bits=4,group_size=128,act_order=true",
                json!({"bits": 4, "group_size": 128, "act_order": true}),
            ),
            ("gptq:act_order", json!({"act_order": true})),
            ("gptq:group_size=none, damping=1e-3", json!({"group_size": null, "damping": 0.001})),
            ("gptq:grid=mse,pattern=2:4", json!({"grid": "mse", "pattern": "2:4"})),
            ("gptq:pattern=\"a,b=c\",layers=[1,2]", json!({"pattern": "a,b=c", "layers": [1, 2]})),
            ("gptq:damping=1", json!({"damping": 1})),
        ] {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn faults_name_plugin_option_and_way_out() {
        let texts = [
            "gptq:bit=4",
            "gptq:zzz=4",
            "gptq:bits=9",
            "gptq:bits=four",
            "gptq:bits",
            "gptq:bits=4.5",
            "gptq:damping=0",
            "gptq:grid=median",
            "gptq:group_size=0,bits=99,layer=3",
            "gptq:",
            "gptq:bits=4,bits=3",
            "gptq:layers=[1,2",
            "gptq:=4",
            ":bits=4",
            "gptq,bits=4",
        ];
        let messages: Vec<String> =
            texts.iter().map(|t| format!("{t}\n  {}", read(t).expect_err(t).replace('\n', "\n  "))).collect();
        insta::assert_snapshot!(messages.join("\n"));
    }

    #[test]
    fn unknown_options_are_refused_even_when_the_schema_is_silent() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        let error = validate("x", &schema, &json!({"b": 1})).unwrap_err();
        assert_eq!(error.to_string(), "`x` has no option `b`; did you mean `a`? Its options: a");
        assert!(validate("x", &json!({"type": "nonsense"}), &json!({})).is_err());
        assert!(validate("x", &schema, &json!([1])).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z:=,\\[\\]{}\" 0-9.\u{e9}-]{0,40}") {
            let _ = read(&text);
            let _ = read(&format!("gptq:bits={text}"));
        }
    }
}
