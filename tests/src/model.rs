//! The tiny model, as tests write and change it.

use std::path::Path;

pub use llmcb_tiny_model::{Shape, config, parameter, parameters, uniform, vocabulary};
use serde_json::Value;

/// Writes the model into a folder, which is made.
///
/// # Panics
/// When the folder cannot be written.
pub fn write(folder: &Path, shape: Shape) {
    llmcb_tiny_model::write(folder, shape, "").expect("folder of the tiny model");
}

pub(crate) fn write_json(path: &Path, value: &Value) {
    llmcb_tiny_model::write_json(path, value).expect("file of the tiny model");
}

/// Writes the tokenizer of all tiny models.
pub(crate) fn write_tokenizer(folder: &Path) {
    llmcb_tiny_model::write_tokenizer(folder).expect("tokenizer of the tiny model");
}

/// Writes tensors in single precision: name, shape and bytes.
pub(crate) fn write_weights(folder: &Path, values: &[(String, Vec<usize>, Vec<u8>)]) {
    llmcb_tiny_model::write_weights(folder, values).expect("weights of the tiny model");
}

/// Changes one key of the model's `config.json`; null takes it out.
///
/// # Panics
/// When the file cannot be changed.
pub fn set_config(folder: &Path, key: &str, value: Value) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("config")).expect("JSON");
    let object = config.as_object_mut().expect("config is an object");
    match value {
        Value::Null => {
            object.remove(key);
        }
        value => {
            object.insert(key.to_owned(), value);
        }
    }
    write_json(&path, &config);
}
