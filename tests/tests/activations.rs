//! Methods that round activations: the checkpoint says so, and what is evaluated does it.

use std::path::Path;

use llmcb_tests::model::set_config;
use llmcb_tests::results::{Results, json};
use llmcb_tests::sandbox::Sandbox;
use serde_json::{Value, json};

const TASKS: [&str; 2] = ["--tasks", "wikitext2:seqlen=64"];

fn run(sandbox: &Sandbox, out: &str, method: &str, format: &str) -> Results {
    let further = ["--method", method, "--no-dense", "--format", format, TASKS[0], TASKS[1]];
    sandbox.run(&sandbox.run_arguments(out, &further)).expect_code(0);
    Results::read(&sandbox.path(out))
}

fn evaluate(sandbox: &Sandbox, model: &Path, out: &str) -> Results {
    let mut arguments = sandbox.run_arguments(out, &TASKS);
    let at = arguments.iter().position(|a| a == "--model").expect("the flag") + 1;
    arguments[at] = model.to_str().expect("text").to_owned();
    sandbox.run(&arguments).expect_code(0);
    Results::read(&sandbox.path(out))
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The checkpoint of the one compression of a run.
fn checkpoint(results: &Results) -> std::path::PathBuf {
    let stages = results.stages();
    let compression = stages.iter().find(|stage| stage.kind == "compress").expect("a compression");
    compression.folder.join("checkpoint")
}

/// A copy of a checkpoint, with a key of its configuration set, or removed.
fn changed(sandbox: &Sandbox, from: &Path, name: &str, key: &str, value: Value) -> std::path::PathBuf {
    let to = sandbox.path(name);
    std::fs::create_dir_all(&to).expect("folder");
    for entry in std::fs::read_dir(from).expect("checkpoint").flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copy");
    }
    set_config(&to, key, value);
    to
}

#[test]
fn smoothquant_rounds_activations_in_evaluation_and_its_checkpoint_says_so() {
    let sandbox = Sandbox::new();
    let coarse = "smoothquant:activation_bits=4";
    let packed = run(&sandbox, "packed", coarse, "compressed-tensors:int-quantized");
    let dense = run(&sandbox, "dense", coarse, "dense");
    // Whatever the weights are stored as, the same model is scored.
    assert!(largest_difference(&packed.log_likelihoods(), &dense.log_likelihoods()) <= 1e-3);

    let config = json(&checkpoint(&packed).join("config.json"));
    let inputs = &config["quantization_config"]["config_groups"]["group_0"]["input_activations"];
    assert_eq!(
        *inputs,
        json!({ "num_bits": 4, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true })
    );
    let blocks = config["llmcb_activations"].as_array().expect("a list");
    assert_eq!(json!(blocks.len()), config["num_hidden_layers"]);
    let rounded = json!({ "bits": 4, "symmetric": true });
    let sites = json!({ "attn_in": rounded, "attn_out": rounded, "mlp_in": rounded, "mlp_out": rounded });
    assert_eq!(blocks[0], sites);
    let result =
        packed.stages().iter().find(|s| s.kind == "compress").map(|s| json(&s.folder.join("result.json")));
    let notes = result.expect("a compression")["checkpoint"]["info"]["notes"].to_string();
    assert!(notes.contains("attn_in, attn_out, mlp_in, mlp_out to 4 bits, symmetric, per token"), "{notes}");

    // As a model for a further run it still rounds; without the key its activations stay as they are.
    let again = evaluate(&sandbox, &checkpoint(&dense), "again");
    assert_eq!(again.log_likelihoods(), dense.log_likelihoods());
    let plain = changed(&sandbox, &checkpoint(&dense), "plain", "llmcb_activations", Value::Null);
    let plain = evaluate(&sandbox, &plain, "out-plain");
    assert!(largest_difference(&plain.log_likelihoods(), &dense.log_likelihoods()) > 1e-2);

    // Others' checkpoints have only compressed-tensors' words for it; at 8 bits that library's rule differs by a hair.
    let fine = run(&sandbox, "fine", "smoothquant", "compressed-tensors:int-quantized");
    let others = changed(&sandbox, &checkpoint(&fine), "others", "llmcb_activations", Value::Null);
    let others = evaluate(&sandbox, &others, "out-others");
    let total = |results: &Results| results.log_likelihoods().iter().sum::<f64>();
    let difference = (total(&others) / total(&fine) - 1.0).abs();
    assert!(difference > 0.0 && difference < 2e-3, "{difference}");
}

#[test]
fn every_way_to_round_runs_and_differs() {
    let sandbox = Sandbox::new();
    let methods = [
        "smoothquant",
        "smoothquant:alpha=0.9",
        "smoothquant:weights=per_tensor",
        "smoothquant:activations=static",
        "smoothquant:quantize_attention=true",
        "smoothquant:smooth=false,activation_bits=3",
    ];
    let mut seen: Vec<Vec<f64>> = Vec::new();
    for (i, method) in methods.into_iter().enumerate() {
        let found = run(&sandbox, &format!("out{i}"), method, "dense").log_likelihoods();
        assert!(!seen.contains(&found), "{method} changes nothing");
        seen.push(found);
    }
}

#[test]
fn omniquant_moves_scales_without_harm_and_learns() {
    let sandbox = Sandbox::new();
    let further = ["--method", "magnitude:ratio=0", "--no-dense", "--format", "dense", TASKS[0], TASKS[1]];
    sandbox.run(&sandbox.run_arguments("dense", &further)).expect_code(0);
    let dense = Results::read(&sandbox.path("dense")).log_likelihoods();
    let off = |name: &str, method: &str| {
        let found = run(&sandbox, name, method, "dense").log_likelihoods();
        found.iter().zip(&dense).map(|(a, b)| (a - b).abs()).sum::<f64>() / dense.len() as f64
    };
    // Initial scales alone change nothing but roundings.
    let plain = off("plain", "omniquant:bits=8,lwc=false,epochs=0,let=off");
    let scaled = off("scaled", "omniquant:bits=8,lwc=false,epochs=0,let=on");
    assert!(scaled != plain && scaled < 4.0 * plain + 0.05, "{scaled} {plain}");
    // Training brings a block's outputs nearer to the dense model's, epoch by epoch.
    let method = "omniquant:bits=2,lwc_lr=0.1,epochs=4";
    let further = ["-vv", "--method", method, "--no-dense", "--format", "dense", TASKS[0], TASKS[1]];
    let told = sandbox.run(&sandbox.run_arguments("trained", &further)).expect_code(0).stderr;
    let errors: Vec<f64> = (1..=4)
        .map(|epoch| {
            let says = format!("block 0, epoch {epoch}: mean squared output error ");
            let (_, after) = told.split_once(&says).unwrap_or_else(|| panic!("no `{says}`: {told}"));
            after.split_whitespace().next().and_then(|x| x.parse().ok()).expect("a number")
        })
        .collect();
    assert!(errors[3] < 0.99 * errors[0], "{errors:?}");
}

#[test]
fn what_cannot_be_stored_or_read_is_refused() {
    let sandbox = Sandbox::new();
    let further = ["--method", "smoothquant", "--no-dense", "--format", "gguf:q8_0", TASKS[0], TASKS[1]];
    let outcome = sandbox.run(&sandbox.run_arguments("gguf", &further)).expect_code(1);
    assert!(outcome.stderr.contains("no place for rounded activations"), "{}", outcome.stderr);

    let results = run(&sandbox, "out", "smoothquant", "dense");
    let blocks = json(&checkpoint(&results).join("config.json"))["num_hidden_layers"].clone();
    let list = |one: Value| Value::from(vec![one; blocks.as_u64().expect("a number") as usize]);
    for (i, (value, says)) in [
        (json!([]), "0 objects are listed"),
        (json!("yes"), "llmcb_activations"),
        (list(json!({ "knees": { "bits": 8, "symmetric": true } })), "knees"),
        (list(json!({ "attn_in": { "bits": 77, "symmetric": true } })), "77 bits"),
    ]
    .into_iter()
    .enumerate()
    {
        let model = changed(&sandbox, &checkpoint(&results), &format!("bad{i}"), "llmcb_activations", value);
        let mut arguments = sandbox.run_arguments(&format!("out-bad{i}"), &TASKS);
        let at = arguments.iter().position(|a| a == "--model").expect("the flag") + 1;
        arguments[at] = model.to_str().expect("text").to_owned();
        let outcome = sandbox.run(&arguments);
        assert_ne!(outcome.code(), Some(0));
        assert!(outcome.stderr.contains(says), "{says}: {}", outcome.stderr);
    }
}
