//! The commands beside `run`: `compress`, `eval`, `score`.

use std::collections::BTreeMap;
use std::path::Path;

use llmcb_tests::artifacts;
use llmcb_tests::results::{Results, files_below, json, validate};
use llmcb_tests::sandbox::Sandbox;
use rustix::process::Signal;
use serde_json::Value;

/// Files of a folder with their bytes, without the record that `compress` adds.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    files_below(folder)
        .into_iter()
        .filter(|path| !path.ends_with("llmcb-result.json"))
        .map(|path| {
            let name = path.strip_prefix(folder).expect("below").display().to_string();
            (name, std::fs::read(&path).expect("file"))
        })
        .collect()
}

fn compress_arguments(sandbox: &Sandbox, method: &str, out: &str) -> Vec<String> {
    let mut arguments = sandbox.run_arguments(out, &["--method", method]);
    arguments[0] = "compress".into();
    arguments
}

#[test]
fn compress_makes_the_checkpoint_that_a_run_makes() {
    let sandbox = Sandbox::new();
    let method = "gptq:group_size=32";
    sandbox.run(&sandbox.run_arguments("out", &["--method", method, "--tasks", "arc_easy"])).expect_code(0);
    let finished = sandbox.run(&compress_arguments(&sandbox, method, "checkpoint")).expect_code(0);
    assert!(finished.stdout.contains("checkpoint"), "{}", finished.stdout);
    let folder = sandbox.path("checkpoint");
    validate("stage-result", &json(&folder.join("llmcb-result.json")));
    assert!(contents(&folder) == Results::read(&sandbox.out()).checkpoint("gptq-group_size=32"));
    let left: Vec<String> = std::fs::read_dir(sandbox.path("."))
        .expect("folder")
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|name| name.contains("compressing"))
        .collect();
    assert!(left.is_empty(), "{left:?}");

    // What is there is not overwritten.
    let before = contents(&folder);
    sandbox
        .run(&compress_arguments(&sandbox, method, "checkpoint"))
        .expect_code(2)
        .expect_message(&["checkpoint", "not empty"]);
    assert!(before == contents(&folder));
}

#[test]
fn compress_that_fails_leaves_no_checkpoint() {
    let sandbox = Sandbox::new();
    let plugin = artifacts::hostile("misbehave");
    let plugin = plugin.to_str().expect("text");
    for (method, code, part) in [
        ("misbehave:mode=segfault", 1, "crashed: SIGSEGV"),
        ("misbehave:mode=fail", 1, "the stars are wrong"),
        ("misbehave:mode=unsupported", 1, "not for models with blocks"),
        ("misbehave:mode=nonsense", 2, "mode"),
        ("rtn:bits=99", 2, "bits"),
    ] {
        let mut arguments = compress_arguments(&sandbox, method, "checkpoint");
        arguments.extend(["--plugin".into(), plugin.into()]);
        let finished = sandbox.run(&arguments).expect_code(code);
        finished.expect_message(&[part]);
        assert!(finished.stdout.is_empty(), "{}", finished.stdout);
        assert!(!sandbox.path("checkpoint").exists(), "{method}");
    }
}

#[test]
fn compress_that_is_stopped_goes_on() {
    let sandbox = Sandbox::new();
    let plugin = artifacts::hostile("misbehave");
    let method = "misbehave:mode=slow,seconds=1";
    let arguments = |out: &str| {
        let mut arguments = compress_arguments(&sandbox, method, out);
        arguments.extend(["--plugin".into(), plugin.display().to_string()]);
        arguments
    };
    sandbox.run(&arguments("undisturbed")).expect_code(0);
    let work = sandbox.path(".checkpoint.compressing");
    let mut running = sandbox.start(sandbox.command(&arguments("checkpoint")));
    running.wait_until("a finished block", || {
        files_below(&work).iter().any(|f| f.ends_with("0000.safetensors"))
    });
    running.signal(Signal::INT);
    running.wait().expect_code(130);
    assert!(!sandbox.path("checkpoint").exists());
    sandbox.run(&arguments("checkpoint")).expect_code(0);
    assert!(contents(&sandbox.path("checkpoint")) == contents(&sandbox.path("undisturbed")));
    let record = json(&sandbox.path("checkpoint/llmcb-result.json"));
    assert_eq!(record["resumed"], 1, "{record:#}");
}

#[test]
fn score_computes_overall_metrics_of_a_table() {
    let sandbox = Sandbox::bare();
    let table = "method,setting,model,MMLU,ARC-c,WikiText2\nDense,,M,50,40,5\nHalf,W4,M,40,40,10\n";
    std::fs::write(sandbox.path("table.csv"), table).expect("table");
    let finished = sandbox.run(&["score", "table.csv", "--json"]).expect_code(0);
    let scores: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    let om = |method: &str, name: &str| {
        let row = scores.as_array().expect("rows").iter().find(|r| r["method"] == method).expect("a row");
        let oms = row["oms"].as_array().expect("metrics");
        oms.iter().find(|o| o["name"] == name).and_then(|o| o["value"].as_f64()).expect("a number")
    };
    // Ratios 40/50 and 40/40; then 5/10, as lower perplexities are better.
    let knowledge = 100.0 * ((0.8_f64.powi(2) + 1.0) / 2.0).sqrt();
    assert!((om("Half", "OM_ka") - knowledge).abs() < 1e-9);
    assert!((om("Half", "OM_ia") - 50.0).abs() < 1e-9);
    assert!((om("Dense", "OM_perf") - 100.0).abs() < 1e-9);
    let table = sandbox.run(&["score", "table.csv"]).expect_code(0);
    assert!(table.stdout.contains("90.55") && table.stdout.contains("Half"), "{}", table.stdout);
}

#[test]
fn score_names_what_is_wrong_with_a_table() {
    let sandbox = Sandbox::bare();
    let head = "method,setting,model,MMLU,ARC-c,WikiText2\n";
    for (name, text, parts) in [
        ("word.csv", format!("{head}Dense,,M,50,forty,5\n"), &["word.csv, line 2", "ARC-c", "forty"][..]),
        ("nodense.csv", format!("{head}GPTQ,W4,M,50,40,5\n"), &["Dense"]),
        ("zero.csv", format!("{head}Dense,,M,0,40,5\nGPTQ,W4,M,50,40,5\n"), &["MMLU"]),
        ("columns.csv", "a,b\n1,2\n".to_owned(), &["columns.csv", "method"]),
        ("short.csv", format!("{head}Dense,,M,50\n"), &["short.csv"]),
        ("empty.csv", String::new(), &["empty.csv"]),
        ("broken.json", "[{\"method\":".to_owned(), &["broken.json"]),
    ] {
        std::fs::write(sandbox.path(name), text).expect("table");
        let finished = sandbox.run(&["score", name]).expect_code(2);
        finished.expect_message(parts);
        assert!(finished.stdout.is_empty(), "{name}: {}", finished.stdout);
    }
    sandbox.run(&["score", "nowhere.csv"]).expect_code(2).expect_message(&["nowhere.csv"]);
}

#[test]
fn two_runs_are_compared_in_settings_and_item_by_item() {
    let sandbox = Sandbox::new();
    let run = |out: &str, further: &[&str]| {
        let mut all = vec!["--method", "magnitude:ratio=0.5", "--tasks", "arc_easy,wikitext2:seqlen=64"];
        all.extend(further);
        sandbox.run(&sandbox.run_arguments(out, &all)).expect_code(0);
        sandbox.path(out).to_str().expect("text").to_owned()
    };
    let (first, second) =
        (run("first", &[]), run("second", &["--seed", "7", "--method", "rtn:bits=4,group_size=32"]));
    let compared = sandbox.run(&["compare", &first, &second]).expect_code(0);
    for part in ["suite.seed", "1234", "only in the second", "rtn-bits=4", "arc_easy", "perplexity", "same"] {
        assert!(compared.stdout.contains(part), "{part}:\n{}", compared.stdout);
    }
    let json = sandbox.run(&["compare", &first, &second, "--json"]).expect_code(0);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    let differences = json["differences"].as_array().expect("a list");
    // The dense model and one method, accuracy and its normalised form, perplexity and bits per byte; and two of the method against the
    // dense model.
    assert_eq!(differences.len(), 2 * 4 + 2, "{json:#}");
    let as_a_whole = ["bits_per_byte", "kl_divergence", "top1_agreement"];
    for one in differences {
        assert_eq!(one["first"], one["second"], "{one}");
        if !as_a_whole.contains(&one["metric"].as_str().expect("a name")) {
            assert_eq!(one["paired"]["told_apart"], false, "{one}");
        }
    }
    let itself = sandbox.run(&["compare", &first, &first]).expect_code(0);
    assert!(itself.stdout.starts_with("settings: all the same"), "{}", itself.stdout);
    sandbox.run(&["compare", &first, "nowhere"]).expect_code(2).expect_message(&["nowhere", "run.json"]);
}
