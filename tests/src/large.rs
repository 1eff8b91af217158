//! Models of any size in half precision, written without ever being in memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::slice::HalfFloatSliceExt;
use serde_json::{Map, Value, json};

use crate::model::{self, Shape};

/// Numbers that are written at once.
const PIECE: usize = 1 << 16;

/// Writes a LLaMA-shaped model in half precision into a folder, which is made. Returns its number of parameters.
///
/// # Panics
/// When the folder cannot be written.
pub fn write(folder: &Path, shape: Shape) -> u64 {
    std::fs::create_dir_all(folder).expect("folder of the model");
    let words = model::vocabulary().len();
    let mut config = model::config(shape, words);
    config["torch_dtype"] = json!("float16");
    model::write_json(&folder.join("config.json"), &config);
    model::write_tokenizer(folder);
    let parameters = model::parameters(shape, words);
    let mut header = Map::new();
    let mut end = 0u64;
    for (name, extents) in &parameters {
        let bytes = 2 * extents.iter().product::<usize>() as u64;
        let place = json!({ "dtype": "F16", "shape": extents, "data_offsets": [end, end + bytes] });
        header.insert(name.clone(), place);
        end += bytes;
    }
    let mut header = serde_json::to_vec(&Value::Object(header)).expect("JSON");
    header.resize(header.len().next_multiple_of(8), b' ');
    let file = File::create(folder.join("model.safetensors")).expect("file of weights");
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("header");
    file.write_all(&header).expect("header");
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let (mut numbers, mut halves, mut bytes) = (Vec::new(), Vec::new(), Vec::with_capacity(2 * PIECE));
    for (name, extents) in &parameters {
        // Wider layers have smaller weights, so that activations keep their size.
        let scale = 2.0 / (extents[extents.len() - 1] as f32).sqrt();
        let (middle, scale) = if name.contains("norm") { (1.0, 0.5) } else { (0.0, scale) };
        let mut left = extents.iter().product::<usize>();
        while left > 0 {
            bytes.clear();
            numbers.clear();
            for _ in 0..left.min(PIECE) {
                // Xorshift (Marsaglia 2003): fast, and good enough to be compressed.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let uniform = (state >> 40) as f32 / 16_777_216.0 - 0.5;
                numbers.push(middle + uniform * scale);
            }
            halves.resize(numbers.len(), half::f16::ZERO);
            halves.convert_from_f32_slice(&numbers);
            bytes.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
            file.write_all(&bytes).expect("weights");
            left -= left.min(PIECE);
        }
    }
    file.flush().expect("weights");
    end / 2
}
