//! Compressed models against the dense one, distribution by distribution.

use std::path::PathBuf;

use llmcb_tests::results::{Results, Stage, files_below, json, validate};
use llmcb_tests::sandbox::Sandbox;
use llmcb_tests::{artifacts, data};

const TASKS: &str = "arc_easy,wikitext2:seqlen=64";
const LABELS: [&str; 2] = ["rtn-bits=8-group_size=32", "rtn-bits=2-group_size=32"];

fn compared(results: &Results, method: &str) -> Stage {
    let mut stages = results.of(method, "diverge");
    assert_eq!(stages.len(), 1, "{method}: {:#}", results.run);
    stages.remove(0)
}

#[test]
fn fewer_bits_diverge_more_and_what_is_done_is_done() {
    let sandbox = Sandbox::new();
    let further =
        ["--method", "rtn:bits=8,group_size=32", "--method", "rtn:bits=2,group_size=32", "--tasks", TASKS];
    let arguments = sandbox.run_arguments("out", &further);
    sandbox.run(&arguments).expect_code(0);
    let results = Results::read(&sandbox.out());
    validate("run-result", &results.run);
    assert!(results.of("dense", "diverge").is_empty());
    let mut divergences = Vec::new();
    for method in LABELS {
        let stage = compared(&results, method);
        assert_eq!(
            (stage.status.as_str(), stage.task.as_str()),
            ("done", "wikitext2:seqlen=64"),
            "{stage:?}"
        );
        let result = json(&stage.folder.join("result.json"));
        validate("stage-result", &result);
        let items = Results::items(&stage);
        assert!(items.len() > 2, "{items:?}");
        let mut sum = 0.0;
        for (i, item) in items.iter().enumerate() {
            assert_eq!(
                (&item["kind"], &item["first_token"], &item["tokens"]),
                (&"divergence".into(), &(64 * i).into(), &63.into())
            );
            assert!(item["agreed"].as_u64().expect("count") <= 63);
            let kl = item["kl"].as_f64().expect("number");
            assert!(kl > 0.0, "{item}");
            sum += kl / 63.0;
        }
        let metric = |name: &str| {
            let all = result["metrics"].as_array().expect("metrics");
            let found = all.iter().find(|m| m["name"] == name).expect("metric");
            assert_eq!(found["task"], "wikitext2:seqlen=64");
            assert!(found["stderr"].as_f64().expect("error") >= 0.0);
            found["value"].as_f64().expect("number")
        };
        assert!((metric("kl_divergence") - sum / items.len() as f64).abs() < 1e-9);
        assert!((0.0..=1.0).contains(&metric("top1_agreement")));
        divergences.push(metric("kl_divergence"));
        // Perplexity and divergence stand in the same cell under the same task.
        let cells = results.run["cells"].as_array().expect("cells");
        let cell = cells.iter().find(|c| c["method"] == method).expect("a cell");
        let names: Vec<&str> =
            cell["metrics"].as_array().expect("metrics").iter().filter_map(|m| m["name"].as_str()).collect();
        assert!(
            ["perplexity", "kl_divergence", "top1_agreement"].iter().all(|n| names.contains(n)),
            "{names:?}"
        );
    }
    assert!(divergences[1] > 10.0 * divergences[0], "{divergences:?}");

    sandbox.run(&arguments).expect_code(0);
    let again = Results::read(&sandbox.out());
    assert!(LABELS.iter().all(|method| compared(&again, method).reused));

    // Without the dense model there is nothing to compare with.
    let only = [&further[2..], &["--no-dense"]].concat();
    sandbox.run(&sandbox.run_arguments("only", &only)).expect_code(0);
    assert!(Results::read(&sandbox.path("only")).of(LABELS[1], "diverge").is_empty());
}

#[test]
fn a_runner_without_distributions_is_passed_over() {
    let sandbox = Sandbox::new();
    let plugin = artifacts::hostile("fake_runner");
    let further = [
        "--plugin",
        plugin.to_str().expect("text"),
        "--method",
        "rtn:bits=8,group_size=32",
        "--engine",
        "candle",
        "--backend",
        "fake-runner",
        "--tasks",
        "wikitext2:seqlen=64",
    ];
    sandbox.run(&sandbox.run_arguments("out", &further)).expect_code(0);
    let stage = compared(&Results::read(&sandbox.out()), LABELS[0]);
    assert_eq!(stage.status, "skipped");
    assert!(stage.reason.contains("gives no probabilities of whole vocabularies"), "{stage:?}");
}

#[test]
fn kill_9_between_windows_changes_no_byte() {
    let sandbox = Sandbox::new();
    let text = sandbox.data().join("wikitext2-raw/wiki.test.raw");
    std::fs::write(text, data::text(1, 60_000)).expect("text");
    let further = ["--method", "rtn:bits=8,group_size=32", "--tasks", "wikitext2:seqlen=64"];
    sandbox.run(&sandbox.run_arguments("undisturbed", &further)).expect_code(0);
    let items = |out: &str| {
        let stage = compared(&Results::read(&sandbox.path(out)), LABELS[0]);
        (
            std::fs::read(stage.folder.join("items.jsonl")).expect("items"),
            json(&stage.folder.join("result.json")),
        )
    };
    let undisturbed = items("undisturbed").0;
    // A kill in the middle is a matter of luck: the stage may be done before. Each attempt has a folder of its own.
    for attempt in 0..8 {
        let out = format!("out{attempt}");
        let arguments = sandbox.run_arguments(&out, &further);
        let windows = || -> Option<PathBuf> {
            let mut files = files_below(&sandbox.path(&out)).into_iter();
            files.find(|f| f.ends_with("windows.jsonl") && f.metadata().is_ok_and(|m| m.len() > 0))
        };
        let mut running = sandbox.start(sandbox.command(&arguments));
        running.wait_until("a compared window", || windows().is_some());
        running.kill_all();
        let in_the_middle = windows().is_some();
        sandbox.run(&arguments).expect_code(0);
        let (found, result) = items(&out);
        assert!(found == undisturbed);
        if in_the_middle {
            assert_eq!(result["resumed"], 1);
            return;
        }
    }
    panic!("no attempt of 8 was killed in the middle");
}
