//! Every method on the tiny model of every family: compressed, written, read again and evaluated by the real program.

use std::collections::BTreeSet;

use llmcb_tests::artifacts;
use llmcb_tests::families;
use llmcb_tests::results::{Results, Stage, files_below};
use llmcb_tests::sandbox::Sandbox;

/// Settings that change little, so that a method that does harm on some family is seen.
const METHODS: [&str; 11] = [
    "rtn:bits=8,group_size=16",
    "gptq:bits=8,group_size=16",
    "awq:bits=8,group_size=16",
    "smoothquant:alpha=0.5",
    "omniquant:bits=8,activation_bits=8,epochs=1",
    "magnitude:ratio=0.05",
    "wanda:ratio=0.05",
    "sparsegpt:ratio=0.05",
    "sparsegpt:pattern=2:4",
    "llm-pruner:ratio=0.25,keep_first=0,keep_last=0",
    "llm-pruner:granularity=channel_wise,ratio=0.125",
];
/// Methods of these names may change a model a lot.
const COARSE: [&str; 2] = ["llm-pruner", "pattern"];

/// Mean log-likelihood of a token.
fn score(stage: &Stage) -> f64 {
    let items = Results::items(stage);
    let nll: f64 = items.iter().map(|item| item["nll"].as_f64().expect("a score")).sum();
    -nll / items.len() as f64
}

/// Compresses a family's model by all methods in one run.
fn compress_by_all(name: &str) {
    let sandbox = Sandbox::new();
    families::write(&sandbox.model(), name);
    let mut arguments = sandbox.run_arguments("out", &[]);
    // The models read 64 tokens at once.
    let length = arguments.iter().position(|a| a == "--calibration-length").expect("the option");
    arguments[length + 1] = "48".to_owned();
    arguments.extend(METHODS.iter().flat_map(|method| ["--method", method]).map(str::to_owned));
    arguments.extend(["--tasks", "wikitext2:seqlen=32"].map(str::to_owned));
    sandbox.run(&arguments).expect_code(0);
    let results = Results::read(&sandbox.path("out"));
    let evaluations: Vec<Stage> = results.stages().into_iter().filter(|s| s.kind == "evaluate").collect();
    let dense = evaluations.iter().find(|stage| stage.method == "dense").expect("the dense model");
    let dense = score(dense);
    assert_eq!(evaluations.len(), 1 + METHODS.len(), "{name}");
    for stage in evaluations.iter().filter(|stage| stage.method != "dense") {
        let own = score(stage);
        let change = (own - dense).abs() / dense.abs();
        println!("{name}, {}: {own:.4}, dense {dense:.4}", stage.method);
        let coarse = COARSE.iter().any(|coarse| stage.method.contains(coarse));
        assert!(
            own.is_finite() && (coarse || change < 0.05),
            "{name}, {}: {own}, dense {dense}",
            stage.method
        );
        assert!(change > 0.0, "{name}, {}: nothing changed", stage.method);
    }
}

/// One test for each reference model, so that they run side by side.
macro_rules! families {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            compress_by_all($name);
        })*

        #[test]
        fn no_reference_model_is_left_out() {
            assert_eq!(BTreeSet::from([$($name.to_owned()),*]), BTreeSet::from_iter(families::names()));
        }
    };
}

families! {
    every_method_compresses_llama2: "llama2",
    every_method_compresses_llama3: "llama3-gqa",
    every_method_compresses_smollm2: "smollm2-tied",
    every_method_compresses_qwen2: "qwen2-bias",
    every_method_compresses_mistral: "mistral",
    every_method_compresses_phi3: "phi3",
    every_method_compresses_phi3_partly_rotated: "phi3-partial",
    every_method_compresses_opt: "opt",
    every_method_compresses_opt_350m: "opt-350m-style",
    every_method_compresses_chatglm: "chatglm3",
}

/// Methods see what blocks are made of, never whose they are.
#[test]
fn no_methods_code_names_a_family_or_its_tensors() {
    let words = [
        "llama",
        "opt-",
        "\"opt\"",
        "chatglm",
        "vicuna",
        "mistral",
        "phi3",
        "qwen",
        "q_proj",
        "o_proj",
        "gate_proj",
        "fc1",
        "query_key_value",
        "dense_h_to_4h",
        "self_attn",
        "layernorm",
    ];
    let sources = artifacts::repository_file("plugins");
    let mut seen = 0;
    for file in files_below(&sources).into_iter().filter(|f| f.extension().is_some_and(|e| e == "rs")) {
        // Tests and examples may name what they like.
        if file.components().any(|c| matches!(c.as_os_str().to_str(), Some("tests" | "examples"))) {
            continue;
        }
        seen += 1;
        let text = std::fs::read_to_string(&file).expect("source");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let line = line.trim();
            // Descriptions tell users of the paper's settings for models.
            if line.starts_with("//") || line.ends_with('\\') || line.ends_with(".\",") {
                continue;
            }
            let line = line.to_lowercase();
            let named = words.iter().find(|word| line.contains(**word));
            assert_eq!(named, None, "{}:{}: {line}", file.display(), number + 1);
        }
    }
    assert!(seen > 20, "{seen}");
}
