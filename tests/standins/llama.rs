//! Stands in for llama.cpp behind its bridge: it reads tokens and forgets them as llama.cpp does, and gives logits that depend on all that a
//! sequence holds. `LLMCB_STAND_IN` makes it do one wrong thing.

#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "it is a C library: what its functions are given is what their sections on safety say"
)]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};

const VOCABULARY: usize = 4096;

#[derive(Default)]
struct Model {
    /// Most tokens of a sequence.
    room: usize,
    batch: usize,
    /// Tokens of each sequence.
    held: BTreeMap<i32, Vec<i32>>,
    /// Logits after tokens of the last run, by place.
    logits: BTreeMap<i32, Vec<f32>>,
}

fn does(what: &str) -> bool {
    std::env::var("LLMCB_STAND_IN").is_ok_and(|mode| mode == what)
}

fn logits(tokens: &[i32]) -> Vec<f32> {
    let mut state = 1_u64;
    for token in tokens {
        state = (state ^ *token as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }
    (0..VOCABULARY as u64)
        .map(|v| ((state ^ v).wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 48) as f32 / 8192.0)
        .collect()
}

#[unsafe(no_mangle)]
extern "C" fn llmcb_llama_interface() -> i32 {
    if does("other interface") { 99 } else { 2 }
}

#[unsafe(no_mangle)]
extern "C" fn llmcb_llama_version() -> *const c_char {
    c"stand-in 7".as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn llmcb_llama_features() -> *const c_char {
    c"none".as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn llmcb_llama_offloads() -> i32 {
    0
}

/// # Safety
/// `path` ends in a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn llmcb_llama_open(path: *const c_char, _: i32, _: i32) -> *mut Model {
    let path = unsafe { CStr::from_ptr(path) }.to_string_lossy().into_owned();
    let begins = std::fs::read(&path).unwrap_or_default();
    eprintln!("stand-in: loading {path}");
    if does("does not load") || !begins.starts_with(b"GGUF") {
        eprintln!("stand-in: unknown model architecture");
        return std::ptr::null_mut();
    }
    Box::into_raw(Box::default())
}

/// # Safety
/// `model` is from `llmcb_llama_open`.
#[unsafe(no_mangle)]
unsafe extern "C" fn llmcb_llama_close(model: *mut Model) {
    drop(unsafe { Box::from_raw(model) });
}

/// # Safety
/// As above.
#[unsafe(no_mangle)]
unsafe extern "C" fn llmcb_llama_hold(
    model: *mut Model,
    _: i32,
    tokens: i32,
    sequences: i32,
    batch: i32,
    _: i32,
) -> i32 {
    if does("has no room") {
        return 1;
    }
    let model = unsafe { &mut *model };
    *model = Model { room: (tokens / sequences) as usize, batch: batch as usize, ..Model::default() };
    0
}

#[unsafe(no_mangle)]
extern "C" fn llmcb_llama_vocabulary(_: *const Model) -> i32 {
    VOCABULARY as i32
}

#[unsafe(no_mangle)]
extern "C" fn llmcb_llama_trained_length(_: *const Model) -> i32 {
    1 << 20
}

/// # Safety
/// `text` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn llmcb_llama_describe(_: *const Model, text: *mut c_char, length: usize) {
    let name = b"a stand-in\0";
    unsafe { std::ptr::copy_nonoverlapping(name.as_ptr(), text.cast::<u8>(), name.len().min(length)) };
}

/// # Safety
/// All four lists have `count` entries.
#[unsafe(no_mangle)]
unsafe extern "C" fn llmcb_llama_run(
    model: *mut Model,
    count: i32,
    tokens: *const i32,
    positions: *const i32,
    sequences: *const i32,
    wanted: *const i8,
) -> i32 {
    if does("crashes") {
        std::process::abort();
    }
    let model = unsafe { &mut *model };
    if count as usize > model.batch || does("fails") {
        return -3;
    }
    model.logits.clear();
    for i in 0..count as usize {
        let (token, position, sequence) =
            unsafe { (*tokens.add(i), *positions.add(i) as usize, *sequences.add(i)) };
        let held = model.held.entry(sequence).or_default();
        if held.len() >= model.room {
            return 1;
        }
        // As llama.cpp: positions of a sequence follow each other.
        if position != held.len() {
            return -1;
        }
        held.push(token);
        if unsafe { *wanted.add(i) } != 0 {
            model.logits.insert(i as i32, logits(held));
        }
    }
    0
}

/// # Safety
/// `model` is from `llmcb_llama_open`.
#[unsafe(no_mangle)]
unsafe extern "C" fn llmcb_llama_logits(model: *mut Model, place: i32) -> *const f32 {
    unsafe { &*model }.logits.get(&place).map_or(std::ptr::null(), |logits| logits.as_ptr())
}

/// # Safety
/// As above.
#[unsafe(no_mangle)]
unsafe extern "C" fn llmcb_llama_forget(model: *mut Model, sequence: i32, from: i32) -> i32 {
    let model = unsafe { &mut *model };
    if from > 0 && does("cannot forget parts") {
        return 1;
    }
    for (own, held) in &mut model.held {
        if sequence < 0 || sequence == *own {
            held.truncate(from.max(0) as usize);
        }
    }
    0
}
