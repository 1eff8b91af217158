//! What a person needs to know of an option, read from the JSON Schema of a role's options.

use serde_json::Value;

/// References followed before a schema is taken to be circular.
const MAX_DEPTH: usize = 16;

/// One option, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct OptionDoc {
    /// Name, as it is written on the command line.
    pub name: String,
    /// Type, in words.
    pub kind: String,
    /// Default, as it would be written on the command line.
    pub default: Option<String>,
    /// Values that are allowed; empty when the type says it all.
    pub range: String,
    /// What it does.
    pub meaning: String,
}

/// Which JSON types a value may have, and which values where they are listed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Accepts {
    pub null: bool,
    pub boolean: bool,
    pub integer: bool,
    pub number: bool,
    pub string: bool,
    pub array: bool,
    pub object: bool,
    pub choices: Vec<Value>,
    ranges: Vec<String>,
    /// Ends of the ranges: the first and last values within them.
    ends: Vec<Value>,
}

/// The schema of one option.
pub(crate) fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get("properties")?.get(name)
}

/// Names of all options, sorted.
pub fn names(schema: &Value) -> Vec<&str> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .map(|p| p.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

/// Values at the limits of what an option takes: the ends of its range, all values that are listed, both of a switch, and none where that
/// is one.
pub(crate) fn extremes(schema: &Value, name: &str) -> Vec<Value> {
    let Some(node) = property(schema, name) else { return Vec::new() };
    let accepts = accepts(schema, node);
    let mut values = accepts.choices.clone();
    values.extend(accepts.ends.iter().cloned());
    if accepts.boolean && accepts.choices.is_empty() {
        values.extend([false, true].map(Value::from));
    }
    if accepts.null {
        values.push(Value::Null);
    }
    let mut once: Vec<Value> = Vec::new();
    for value in values {
        if !once.contains(&value) {
            once.push(value);
        }
    }
    once
}

/// All options, sorted by name.
pub fn options(schema: &Value) -> Vec<OptionDoc> {
    names(schema).into_iter().filter_map(|name| option(schema, name)).collect()
}

/// One option.
pub fn option(schema: &Value, name: &str) -> Option<OptionDoc> {
    let node = property(schema, name)?;
    let accepts = accepts(schema, node);
    let text = |key: &str| node.get(key).and_then(Value::as_str).map(str::to_owned);
    let meaning = text("description")
        .or_else(|| resolve(schema, node).get("description").and_then(Value::as_str).map(str::to_owned))
        .unwrap_or_default();
    Some(OptionDoc {
        name: name.to_owned(),
        kind: accepts.kind(),
        default: node.get("default").map(plain),
        range: accepts.range(),
        meaning: meaning.split_whitespace().collect::<Vec<_>>().join(" "),
    })
}

/// A value as it would be written on the command line.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number_text(number),
        other => other.to_string(),
    }
}

/// A number without the digits that only the conversion from `f32` to `f64` made (0.009999999776482582 is 0.01).
fn number_text(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(x) if number.is_f64() => {
            let short = x as f32;
            if f64::from(short) == x { short.to_string() } else { x.to_string() }
        }
        _ => number.to_string(),
    }
}

fn resolve<'a>(root: &'a Value, mut node: &'a Value) -> &'a Value {
    for _ in 0..MAX_DEPTH {
        let Some(target) = node
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|r| r.strip_prefix('#'))
            .and_then(|pointer| root.pointer(pointer))
        else {
            return node;
        };
        node = target;
    }
    node
}

/// What an option's schema admits.
pub(super) fn accepts(root: &Value, node: &Value) -> Accepts {
    let mut accepts = Accepts::default();
    collect(root, node, MAX_DEPTH, &mut accepts);
    accepts
}

fn collect(root: &Value, node: &Value, depth: usize, into: &mut Accepts) {
    if depth == 0 {
        return;
    }
    let node = resolve(root, node);
    for key in ["anyOf", "oneOf", "allOf"] {
        for branch in node.get(key).and_then(Value::as_array).into_iter().flatten() {
            collect(root, branch, depth - 1, into);
        }
    }
    match node.get("type") {
        Some(Value::String(name)) => into.admit(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).for_each(|name| into.admit(name)),
        _ => {}
    }
    let choices = node.get("enum").and_then(Value::as_array).into_iter().flatten().chain(node.get("const"));
    for choice in choices {
        into.admit(match choice {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        });
        if !choice.is_null() && !into.choices.contains(choice) {
            into.choices.push(choice.clone());
        }
    }
    if let Some(range) = numeric_range(node)
        && !into.ranges.contains(&range)
    {
        into.ranges.push(range);
        into.ends.extend(ends(node));
    }
}

/// The first and the last number of a range. Of one that ends before a number, that which is a thousandth of it off.
fn ends(node: &Value) -> impl Iterator<Item = Value> {
    let whole = node.get("type").is_some_and(|kind| match kind {
        Value::Array(names) => names.iter().any(|name| name == "integer"),
        name => name == "integer",
    });
    let limit = |closed: &str, open: &str, inwards: f64| {
        let number = |key: &str| node.get(key).filter(|value| value.is_number());
        number(closed).cloned().or_else(|| {
            let end = number(open)?.as_f64()?;
            let step = if whole { 1.0 } else { end.abs().max(1.0) / 1000.0 };
            let within = end + inwards * step;
            Some(if whole { Value::from(within as i64) } else { Value::from(within) })
        })
    };
    [limit("minimum", "exclusiveMinimum", 1.0), limit("maximum", "exclusiveMaximum", -1.0)]
        .into_iter()
        .flatten()
}

fn numeric_range(node: &Value) -> Option<String> {
    let limit = |key: &str| node.get(key).filter(|v| v.is_number()).map(plain);
    let low = limit("minimum").map(|l| (l, false)).or_else(|| limit("exclusiveMinimum").map(|l| (l, true)));
    let high = limit("maximum").map(|l| (l, false)).or_else(|| limit("exclusiveMaximum").map(|l| (l, true)));
    let above = |(limit, strict): (String, bool)| {
        if strict { format!("above {limit}") } else { format!("at least {limit}") }
    };
    let below = |(limit, strict): (String, bool)| {
        if strict { format!("below {limit}") } else { format!("at most {limit}") }
    };
    match (low, high) {
        (Some((low, false)), Some((high, false))) => Some(format!("{low} to {high}")),
        (Some(low), Some(high)) => Some(format!("{}, {}", above(low), below(high))),
        (Some(low), None) => Some(above(low)),
        (None, Some(high)) => Some(below(high)),
        (None, None) => None,
    }
}

impl Accepts {
    fn admit(&mut self, name: &str) {
        match name {
            "null" => self.null = true,
            "boolean" => self.boolean = true,
            "integer" => self.integer = true,
            "number" => self.number = true,
            "string" => self.string = true,
            "array" => self.array = true,
            "object" => self.object = true,
            _ => {}
        }
    }

    /// Whether the schema says nothing of types.
    pub(super) fn anything(&self) -> bool {
        !(self.null
            || self.boolean
            || self.integer
            || self.number
            || self.string
            || self.array
            || self.object)
    }

    /// The type, in words.
    pub(super) fn kind(&self) -> String {
        if self.anything() {
            return "any value".into();
        }
        let mut words = Vec::new();
        if self.number {
            words.push("number");
        } else if self.integer {
            words.push("whole number");
        }
        for (admitted, word) in [
            (self.boolean, "true or false"),
            (self.string, "text"),
            (self.array, "list"),
            (self.object, "object"),
            (self.null, "none"),
        ] {
            if admitted {
                words.push(word);
            }
        }
        words.join(" or ")
    }

    /// The values that are allowed: a list of them, or a range.
    pub(super) fn range(&self) -> String {
        if !self.choices.is_empty() {
            return self.choices.iter().map(plain).collect::<Vec<_>>().join(", ");
        }
        self.ranges.join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_and_ranges_read_well() {
        let root = json!({"$defs": {"Mode": {"oneOf": [{"const": "fast"}, {"const": "exact"}]}, "Loop": {"$ref": "#/$defs/Loop"}}});
        for (schema, kind, range) in [
            (json!({"type": "integer", "minimum": 2, "maximum": 8}), "whole number", "2 to 8"),
            (
                json!({"type": "number", "exclusiveMinimum": 0.0, "maximum": 1.0}),
                "number",
                "above 0, at most 1",
            ),
            (json!({"type": ["integer", "null"], "minimum": 1}), "whole number or none", "at least 1"),
            (json!({"enum": [2, 3, 4, 8]}), "whole number", "2, 3, 4, 8"),
            (json!({"$ref": "#/$defs/Mode"}), "text", "fast, exact"),
            (json!({"anyOf": [{"$ref": "#/$defs/Mode"}, {"type": "null"}]}), "text or none", "fast, exact"),
            (json!({"$ref": "#/$defs/Loop"}), "any value", ""),
            (json!({"type": "boolean"}), "true or false", ""),
        ] {
            let accepts = accepts(&root, &schema);
            assert_eq!((accepts.kind().as_str(), accepts.range().as_str()), (kind, range), "{schema}");
        }
    }

    #[test]
    fn extremes_are_the_ends_of_ranges_and_all_values_of_lists() {
        let root = json!({"$defs": {"Mode": {"oneOf": [{"const": "fast"}, {"const": "exact"}]}}, "properties": {
            "bits": {"type": "integer", "minimum": 2, "maximum": 8},
            "one": {"type": "integer", "minimum": 1, "maximum": 1},
            "open": {"type": "integer", "exclusiveMinimum": 0},
            "ratio": {"type": "number", "exclusiveMinimum": 0.0, "exclusiveMaximum": 1.0},
            "width": {"enum": [2, 3]},
            "mode": {"anyOf": [{"$ref": "#/$defs/Mode"}, {"type": "null"}]},
            "on": {"type": "boolean"},
            "text": {"type": "string"},
        }});
        for (name, expected) in [
            ("bits", json!([2, 8])),
            ("one", json!([1])),
            ("open", json!([1])),
            ("ratio", json!([0.001, 0.999])),
            ("width", json!([2, 3])),
            ("mode", json!(["fast", "exact", null])),
            ("on", json!([false, true])),
            ("text", json!([])),
            ("absent", json!([])),
        ] {
            assert_eq!(json!(extremes(&root, name)), expected, "{name}");
        }
    }

    #[test]
    fn defaults_are_written_as_on_the_command_line() {
        for (value, text) in [
            (json!(null), "none"),
            (json!(true), "true"),
            (json!("minmax"), "minmax"),
            (json!(f64::from(0.01_f32)), "0.01"),
            (json!(0.1), "0.1"),
            (json!(4), "4"),
        ] {
            assert_eq!(plain(&value), text);
        }
    }
}
