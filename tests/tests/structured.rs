//! Methods that remove parts of a model: the checkpoint is a smaller model, which runs like any other.

use std::path::PathBuf;

use llmcb_tests::results::{Results, json};
use llmcb_tests::sandbox::Sandbox;
use serde_json::Value;

fn run(sandbox: &Sandbox, out: &str, method: &str) -> Results {
    let further = ["--method", method, "--no-dense", "--tasks", "wikitext2:seqlen=64"];
    sandbox.run(&sandbox.run_arguments(out, &further)).expect_code(0);
    Results::read(&sandbox.path(out))
}

fn compression(results: &Results) -> PathBuf {
    let stages = results.stages();
    stages.iter().find(|stage| stage.kind == "compress").expect("a compression").folder.clone()
}

fn config(results: &Results) -> Value {
    json(&compression(results).join("checkpoint/config.json"))
}

fn bytes(results: &Results) -> u64 {
    let info = json(&compression(results).join("result.json"))["checkpoint"]["info"].clone();
    info["weight_bytes"].as_u64().expect("bytes")
}

fn mean_log_likelihood(results: &Results) -> f64 {
    let all = results.log_likelihoods();
    all.iter().sum::<f64>() / all.len() as f64
}

#[test]
fn pruned_models_are_ordinary_where_all_blocks_are_alike_and_say_so_where_not() {
    let sandbox = Sandbox::new();
    let even = run(&sandbox, "even", "llm-pruner:ratio=0.5,keep_first=0,keep_last=0");
    let even_config = config(&even);
    for (key, value) in [
        ("num_attention_heads", 2),
        ("num_key_value_heads", 1),
        ("head_dim", 16),
        ("intermediate_size", 64),
        ("hidden_size", 64),
    ] {
        assert_eq!(even_config[key], value, "{key}");
    }
    assert!(even_config.get("llmcb_block_shapes").is_none());

    let uneven = run(&sandbox, "uneven", "llm-pruner:ratio=0.5,keep_first=1,keep_last=0");
    let shapes = config(&uneven)["llmcb_block_shapes"].clone();
    assert_eq!(shapes.as_array().map(Vec::len), Some(3), "{shapes}");
    assert_eq!(shapes[0]["intermediate_size"], 128);
    assert_eq!(shapes[1]["intermediate_size"], 64);

    let dense = run(&sandbox, "dense", "magnitude:ratio=0");
    assert!(bytes(&even) < bytes(&uneven) && bytes(&uneven) < bytes(&dense));

    let mut arguments = sandbox.run_arguments("refused", &[]);
    arguments[0] = "compress".into();
    let further = ["--method", "llm-pruner:ratio=0.5,keep_first=1", "--format", "gguf:f16"];
    arguments.extend(further.map(str::to_owned));
    sandbox.run(&arguments).expect_code(1).expect_message(&["blocks differ"]);
}

#[test]
fn the_residual_stream_is_narrowed_for_all_blocks_at_once() {
    let sandbox = Sandbox::new();
    let dense = run(&sandbox, "dense", "magnitude:ratio=0");
    for importance in ["param_first", "l2", "random"] {
        let method = format!("llm-pruner:granularity=channel_wise,ratio=0.25,importance={importance}");
        let narrow = run(&sandbox, importance, &method);
        let config = config(&narrow);
        for (key, value) in [("hidden_size", 48), ("head_dim", 16), ("num_attention_heads", 4)] {
            assert_eq!(config[key], value, "{importance} {key}");
        }
        assert!(bytes(&narrow) < bytes(&dense));
        assert!(mean_log_likelihood(&narrow).is_finite());
    }
    let further = ["--method", "llm-pruner:granularity=channel_wise,importance=param_mix"];
    let finished = sandbox.run(&sandbox.run_arguments("out", &further));
    let message = format!("{}{}", finished.stdout, finished.stderr);
    assert!(message.contains("first order"), "{message}");
}

#[test]
fn sparing_all_blocks_is_refused() {
    let sandbox = Sandbox::new();
    let further = ["--method", "llm-pruner:keep_first=2,keep_last=1", "--tasks", "wikitext2:seqlen=64"];
    let finished = sandbox.run(&sandbox.run_arguments("out", &further));
    let message = format!("{}{}", finished.stdout, finished.stderr);
    assert!(message.contains("spare all of the model's 3 blocks"), "{message}");
}

#[test]
fn recovery_makes_up_for_some_of_what_was_lost_and_repeats() {
    let sandbox = Sandbox::new();
    let pruned = "llm-pruner:ratio=0.5,keep_first=0,keep_last=0";
    let recovered = format!("{pruned},lora_epochs=8,lora_batch=2,lora_lr=0.01");
    let (lost, back, again) = (
        run(&sandbox, "lost", pruned),
        run(&sandbox, "back", &recovered),
        run(&sandbox, "again", &recovered),
    );
    let (before, after) = (mean_log_likelihood(&lost), mean_log_likelihood(&back));
    assert!(after > before + 0.01 * before.abs(), "{before} {after}");
    assert_eq!(after, mean_log_likelihood(&again));
    assert_eq!(bytes(&lost), bytes(&back));
}
