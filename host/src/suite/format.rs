//! In which format a method's checkpoint is stored: what `--format` says, else what the method is known for.

use llmcb_plugin_api::sdk::Descriptor;
use serde_json::{Map, Value};

/// What a method that makes integer codes names among its formats: any format of integer codes can hold its result.
const INTEGERS: &str = "grouped-integer";
/// The format of numbers, which holds everything.
const DENSE: &str = "dense";
/// Formats that hold any result, integer codes or not.
const UNIVERSAL: [&str; 2] = [DENSE, "gguf"];
/// What the names of formats for numbers without their zeros have after the family.
const SPARSE: &str = ":sparse-";
/// Bits that a format of integer codes can hold, where not all.
const BITS: [(&str, &[u64]); 2] = [("gptq", &[2, 3, 4, 8]), ("awq", &[4])];
/// The engine's option that names the format.
pub const OPTION: &str = "format";

fn schema(engine: &Descriptor) -> Option<&Value> {
    engine.options_of("engine")?.get("properties")?.get(OPTION)
}

/// The value of the engine's option `format` for a method: `FORMAT` where one was asked for, else `auto:FORMAT` with the method's
/// own, which the engine leaves for another when it cannot hold the result. `None` where the engine has no such option, or where it was set
/// to something of its own.
///
/// # Errors
/// The format is none of the engine's, or cannot hold what the method makes as far as its descriptor and options tell.
pub fn choose(
    asked: Option<&str>,
    engine: &Descriptor,
    engine_options: &Map<String, Value>,
    method: &Descriptor,
    method_options: &Map<String, Value>,
) -> Result<Option<String>, String> {
    let Some(schema) = schema(engine) else {
        return match asked {
            Some(format) => Err(format!(
                "--format {format}: backend {} has no choice of formats; leave --format out, or name another --engine",
                engine.id
            )),
            None => Ok(None),
        };
    };
    let known: Vec<&str> = match schema.get("enum").and_then(Value::as_array) {
        Some(list) => list.iter().filter_map(Value::as_str).filter(|name| *name != "auto").collect(),
        None => Vec::new(),
    };
    let Some(format) = asked else {
        if engine_options.get(OPTION).and_then(Value::as_str).is_some_and(|set| set != "auto") {
            return Ok(None);
        }
        let own = method.formats.iter().find(|name| known.contains(&name.as_str()) && *name != DENSE);
        let makes_integers = method.formats.iter().any(|name| name == INTEGERS);
        return Ok(Some(match (own, makes_integers) {
            (Some(own), _) => format!("auto:{own}"),
            (None, true) => "auto".to_owned(),
            (None, false) => format!("auto:{DENSE}"),
        }));
    };
    if !known.is_empty() && !known.contains(&format) {
        return Err(format!("--format {format}: backend {} knows {}", engine.id, known.join(", ")));
    }
    let family = format.split(':').next().unwrap_or(format);
    let holds = |name: &String| name == format || name == family || name == INTEGERS;
    if format.contains(SPARSE) {
        return Ok(Some(format.to_owned()));
    }
    if !UNIVERSAL.contains(&family) && !method.formats.iter().any(holds) {
        return Err(format!(
            "--format {format}: method {} makes no integer codes; choose {}, or {}",
            method.id,
            UNIVERSAL.join(", "),
            "compressed-tensors:sparse-bitmask where there are many zeros"
        ));
    }
    let bits = method_options.get("bits").and_then(Value::as_u64);
    if let (Some(bits), Some((_, allowed))) = (bits, BITS.iter().find(|(name, _)| *name == family))
        && !allowed.contains(&bits)
    {
        let list: Vec<String> = allowed.iter().map(u64::to_string).collect();
        return Err(format!(
            "--format {format}: it holds {} bits, but method {} is to make {bits}; choose another format, such as compressed-tensors",
            list.join(", "),
            method.id
        ));
    }
    Ok(Some(format.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmcb_plugin_api::sdk::RoleDescriptor;
    use serde_json::json;

    fn engine(schema: Value) -> Descriptor {
        let mut engine = Descriptor::backend("candle", "candle", "1");
        engine.roles =
            vec![RoleDescriptor { role: "engine".into(), options: json!({ "properties": schema }) }];
        engine
    }

    #[test]
    fn the_format_follows_the_method_unless_one_is_asked_for() {
        let sparse = "compressed-tensors:sparse-bitmask";
        let names = ["auto", "dense", "gptq", "awq", "compressed-tensors", sparse, "gguf:q4_0"];
        let candle = engine(json!({ "format": { "enum": names } }));
        let method = |formats: &[&str]| Descriptor::method("m", "M", "1").formats(formats);
        let integers = method(&["gptq", "grouped-integer", "dense"]);
        let options = |value: Value| value.as_object().cloned().unwrap_or_default();
        let auto = options(json!({ "format": "auto" }));
        for (asked, formats, bits, expected) in [
            (None, &["gptq", "grouped-integer", "dense"][..], 4, Ok(Some("auto:gptq"))),
            (None, &["dense", "grouped-integer"], 4, Ok(Some("auto"))),
            (None, &["dense"], 4, Ok(Some("auto:dense"))),
            (None, &["somebodys"], 4, Ok(Some("auto:dense"))),
            (Some("awq"), &["dense", "grouped-integer"], 4, Ok(Some("awq"))),
            (Some("dense"), &["gptq"], 4, Ok(Some("dense"))),
            (Some("gguf:q4_0"), &["dense"], 4, Ok(Some("gguf:q4_0"))),
            (Some("compressed-tensors"), &["grouped-integer"], 5, Ok(Some("compressed-tensors"))),
            (Some(sparse), &["dense"], 4, Ok(Some(sparse))),
            (Some("gptq"), &["dense"], 4, Err("makes no integer codes")),
            (Some("awq"), &["grouped-integer"], 3, Err("holds 4 bits")),
            (Some("gptq"), &["grouped-integer"], 5, Err("holds 2, 3, 4, 8 bits")),
            (Some("zip"), &["dense"], 4, Err("knows dense, gptq")),
        ] {
            let got = choose(asked, &candle, &auto, &method(formats), &options(json!({ "bits": bits })));
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got.as_deref(), expected),
                (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
                (got, expected) => panic!("{got:?} is not {expected:?}"),
            }
        }
        let set = options(json!({ "format": "awq" }));
        assert_eq!(choose(None, &candle, &set, &integers, &Map::new()), Ok(None));
        let plain = engine(json!({}));
        assert_eq!(choose(None, &plain, &Map::new(), &integers, &Map::new()), Ok(None));
        assert!(choose(Some("gptq"), &plain, &Map::new(), &integers, &Map::new()).is_err());
    }
}
