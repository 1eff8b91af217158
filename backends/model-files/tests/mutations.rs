//! Files damaged at random: anything may come of them but a panic, a hang, or bytes from outside the file.

mod support;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use llmcb_model_files::ModelFiles;
use proptest::prelude::*;
use support::{Gguf, write_hub_layout};
use tempfile::tempdir;

static GGUF: LazyLock<Vec<u8>> = LazyLock::new(|| Gguf::llama().to_bytes());
static HUB_FILES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let directory = tempdir().unwrap();
    write_hub_layout(directory.path());
    let names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    names.map(|name| (name.to_owned(), fs::read(directory.path().join(name)).unwrap())).into()
});

/// Damage to a file, with places as fractions of its length.
#[derive(Debug, Clone)]
enum Damage {
    Byte(f64, u8),
    Word(f64, u64),
    Cut(f64),
    Insert(f64, Vec<u8>),
    Remove(f64, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let word = prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), Just(1 << 63), Just(1 << 32), 0..64u64];
    prop_oneof![
        4 => (0.0..1.0, any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        4 => (0.0..1.0, word).prop_map(|(at, word)| Damage::Word(at, word)),
        1 => (0.0..1.0).prop_map(Damage::Cut),
        1 => (0.0..1.0, prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (0.0..1.0, 1..9usize).prop_map(|(at, count)| Damage::Remove(at, count)),
    ]
}

/// Applies damage within the first `reach` bytes.
fn apply(bytes: &mut Vec<u8>, reach: usize, damage: &Damage) {
    let place = |at: f64, length: usize| (at * length.min(reach) as f64) as usize;
    let length = bytes.len();
    match damage {
        Damage::Byte(at, byte) if length > 0 => bytes[place(*at, length)] = *byte,
        Damage::Word(at, word) if length >= 8 => {
            let at = place(*at, length - 7);
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        Damage::Cut(at) => bytes.truncate((at * length as f64) as usize),
        Damage::Insert(at, new) => {
            let at = place(*at, length);
            bytes.splice(at..at, new.iter().copied());
        }
        Damage::Remove(at, count) => {
            let at = place(*at, length);
            bytes.drain(at..(at + count).min(length));
        }
        Damage::Byte(..) | Damage::Word(..) => {}
    }
}

/// Uses all of a model that there is to use.
fn exercise(path: &Path) {
    let Ok(files) = ModelFiles::open(path) else { return };
    let names: Vec<String> = files.tensor_names().map(str::to_owned).collect();
    for name in &names {
        assert!(files.contains(name));
        if let Ok(tensor) = files.tensor(name) {
            let elements: usize = tensor.shape.iter().product();
            assert_eq!(tensor.encoding.byte_len(elements), Some(tensor.bytes.len()));
            // Touches the last byte, which must be inside the mapping.
            assert!(tensor.bytes.last().is_none_or(|byte| *byte as usize <= 255));
        }
    }
    assert!(files.provenance().bytes_on_disk > 0);
    if let Ok(tokenizer) = files.tokenizer()
        && let Ok(ids) = tokenizer.encode("ab 12 <eos> é", true)
    {
        let _ = tokenizer.decode(&ids, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damaged_gguf_never_panics(damages in prop::collection::vec(damage(), 1..4)) {
        let mut bytes = GGUF.clone();
        for damage in &damages {
            // The header is the part with structure: 4 KiB of it here.
            apply(&mut bytes, 4096, damage);
        }
        let directory = tempdir().unwrap();
        let path = directory.path().join("model.gguf");
        fs::write(&path, &bytes).unwrap();
        exercise(&path);
    }

    #[test]
    fn damaged_hub_layout_never_panics(victim in 0..4usize, damages in prop::collection::vec(damage(), 1..4)) {
        let directory = tempdir().unwrap();
        for (index, (name, bytes)) in HUB_FILES.iter().enumerate() {
            let mut bytes = bytes.clone();
            if index == victim {
                damages.iter().for_each(|damage| apply(&mut bytes, usize::MAX, damage));
            }
            fs::write(directory.path().join(name), &bytes).unwrap();
        }
        exercise(directory.path());
    }
}
