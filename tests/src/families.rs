//! Tiny models of every family, from the reference file that the forward passes are held to.

use std::path::Path;

use serde_json::{Value, json};

use crate::model;

/// Configurations, names and shapes of the reference models; weights follow from names.
const REFERENCES: &str = include_str!("../../backends/transformer/tests/golden/families.json");

fn references() -> Value {
    serde_json::from_str(REFERENCES).expect("the reference file is JSON")
}

/// Names of the reference models.
pub fn names() -> Vec<String> {
    references()["cases"].as_object().expect("cases").keys().cloned().collect()
}

/// Writes the reference model of this name into a folder, which is made: with the vocabulary of the tiny model's tokenizer, and
/// otherwise as the file says.
///
/// # Panics
/// When there is no such model, or the folder cannot be written.
pub fn write(folder: &Path, name: &str) {
    let references = references();
    let case = &references["cases"][name];
    let words = model::vocabulary().len();
    let mut config = case["config"].clone();
    // ChatGLM's has both.
    for key in ["vocab_size", "padded_vocab_size"] {
        if config.get(key).is_some() {
            config[key] = json!(words);
        }
    }
    for (key, id) in [("bos_token_id", 0), ("eos_token_id", 1)] {
        config[key] = json!(id);
    }
    std::fs::create_dir_all(folder).expect("folder of the tiny model");
    model::write_json(&folder.join("config.json"), &config);
    model::write_tokenizer(folder);
    let mut values: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for entry in case["parameters"].as_array().expect("parameters") {
        let name = entry[0].as_str().expect("a name");
        let extents = entry[1].as_array().expect("a shape").iter();
        let mut extents: Vec<usize> = extents.map(|n| n.as_u64().expect("an extent") as usize).collect();
        // A row for each word of the embedding and the head.
        if let (96, 2) = (extents[0], extents.len()) {
            extents[0] = words;
        }
        let bytes = model::parameter(name, &extents).into_iter().flat_map(f32::to_le_bytes).collect();
        values.push((name.to_owned(), extents, bytes));
    }
    model::write_weights(folder, &values);
}
