//! Tiny models with weights made from a formula, and the reference logits that go with them.
#![allow(dead_code)]

use std::sync::Arc;

use llmcb_transformer::{Block, LoadOptions, MemorySource, Model, Role};
use serde_json::Value;

/// Logits of the upstream implementations in double precision; the file says how weights are made.
pub fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/families.json")).unwrap()
}

/// Names of the reference cases: every family, and what differs within one.
pub const CASES: [&str; 10] = [
    "llama2",
    "llama3-gqa",
    "smollm2-tied",
    "qwen2-bias",
    "mistral",
    "phi3",
    "phi3-partial",
    "opt",
    "opt-350m-style",
    "chatglm3",
];

/// The linear of a block that holds a matrix.
pub fn linear(block: &Block, role: Role) -> &'static str {
    block.architecture().family.names.holder(role, block.architecture()).unwrap().0.name
}

/// Its weight's name.
pub fn weight_name(block: &Block, role: Role) -> String {
    format!("{}.weight", linear(block, role))
}

/// The weights formula of the reference file.
pub fn parameter(name: &str, elements: usize) -> Vec<f32> {
    let hash =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (0..elements as u64)
        .map(|i| {
            let mut x = hash.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            x ^= x >> 31;
            let u = (x >> 40) as f32 / 16_777_216.0 - 0.5;
            if name.contains("norm") && name.ends_with("weight") {
                1.0 + u / 2.0
            } else if name.ends_with("bias") {
                u / 4.0
            } else {
                u / 2.0
            }
        })
        .collect()
}

/// The tensors of a case.
pub fn source(case: &Value) -> MemorySource {
    let mut source = MemorySource::default();
    for entry in case["parameters"].as_array().unwrap() {
        let name = entry[0].as_str().unwrap();
        let shape: Vec<usize> =
            entry[1].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
        let values = parameter(name, shape.iter().product());
        source.insert(name, shape, values).unwrap();
    }
    source
}

/// The model of a case, on so many threads.
pub fn model(name: &str, threads: usize) -> Model {
    let case = &golden()["cases"][name];
    Model::from_source(
        Arc::new(source(case)),
        case["config"].clone(),
        name.to_owned(),
        &LoadOptions { threads, ..LoadOptions::default() },
    )
    .unwrap()
}

/// Tokens from a fixed sequence.
pub fn tokens(seed: u64, len: usize, vocabulary: u32) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32 % vocabulary
        })
        .collect()
}
