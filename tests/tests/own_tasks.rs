//! Tasks of the user's own: the worked example of the repository, with the real program.

use std::path::Path;

use llmcb_tests::artifacts;
use llmcb_tests::results::{Results, Stage, json, validate};
use llmcb_tests::sandbox::{Finished, Sandbox};
use serde_json::Value;

/// A sandbox with a copy of `host/examples/tasks`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let own = sandbox.path("own");
    std::fs::create_dir(&own).expect("folder");
    for file in std::fs::read_dir(artifacts::repository_file("host/examples/tasks")).expect("the example") {
        let file = file.expect("entry").path();
        std::fs::copy(&file, own.join(file.file_name().expect("name"))).expect("copy");
    }
    sandbox
}

fn eval(sandbox: &Sandbox, tasks: &str) -> Finished {
    let model = sandbox.model().display().to_string();
    sandbox.run(&["eval", "--model", &model, "--tasks", tasks, "--out", "out", "--threads", "1"])
}

fn stage(sandbox: &Sandbox) -> (Stage, Value) {
    let results = Results::read(&sandbox.out());
    validate("run-result", &results.run);
    let mut stages = results.of("dense", "evaluate");
    assert_eq!(stages.len(), 1);
    let stage = stages.remove(0);
    let result = json(&stage.folder.join("result.json"));
    validate("stage-result", &result);
    (stage, result)
}

fn change(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).expect("file");
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replacen(from, to, 1)).expect("file");
}

#[test]
fn the_worked_example_is_scored_reused_and_scored_anew_when_it_changes() {
    let sandbox = sandbox();
    let line = "own/capitals.toml:limit=2,shots=1";
    let finished = eval(&sandbox, line).expect_code(0);
    assert!(finished.stdout.contains("capitals"), "{}", finished.stdout);
    let (first, result) = stage(&sandbox);
    assert_eq!((first.status.as_str(), first.task.as_str()), ("done", line));
    // Two rows of each continent.
    let items = Results::items(&first);
    assert_eq!(items.len(), 4);
    assert_eq!((&items[0]["task"], &items[0]["subset"]), (&"capitals".into(), &"Europe".into()));
    let asked = &items[0]["asked"];
    let context = asked[0]["context"].as_str().expect("context");
    assert!(context.ends_with("\n\nQuestion: What is the capital of France?\nAnswer:"), "{context}");
    assert!(context.starts_with("Question: What is the capital of "), "{context}");
    assert_eq!((&asked[1]["continuation"], &items[0]["target"]), (&" Paris".into(), &1.into()));
    let data: Vec<&String> = result["data"].as_object().expect("data").keys().collect();
    assert_eq!(
        data,
        [
            "own/capitals-examples.jsonl (examples)",
            "own/capitals.jsonl (evaluation)",
            "own/capitals.toml (definition)"
        ]
    );
    let whole = |name: &str| {
        let all = result["metrics"].as_array().expect("metrics").iter();
        all.filter(|m| m["name"] == name && m["subset"].is_null()).count()
    };
    assert_eq!((whole("acc"), whole("acc_norm")), (1, 1));

    eval(&sandbox, line).expect_code(0);
    assert!(stage(&sandbox).0.reused);
    for (file, from, to) in [
        ("own/capitals.jsonl", "Lyon", "Lille"),
        ("own/capitals-examples.jsonl", "Seville", "Toledo"),
        ("own/capitals.toml", "Question:", "Q:"),
    ] {
        change(&sandbox.path(file), from, to);
        eval(&sandbox, line).expect_code(0);
        assert!(!stage(&sandbox).0.reused, "{file} was changed");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let sandbox = sandbox();
    let toml = sandbox.path("own/capitals.toml");
    eval(&sandbox, "own/capital.toml").expect_code(2).expect_message(&["own/capital.toml"]);
    change(&toml, "normalised", "normalized");
    eval(&sandbox, "own/capitals.toml").expect_code(2).expect_message(&[
        "own/capitals.toml, line 11",
        "unknown field `normalized`",
        "`normalised`",
    ]);
    change(&toml, "normalized", "normalised");
    change(&sandbox.path("own/capitals.jsonl"), "\"Lisbon\"}", "\"Lissabon\"}");
    let finished = eval(&sandbox, "own/capitals.toml").expect_code(1);
    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert!(said.contains("own/capitals.jsonl, line 2: `capital` is \"Lissabon\""), "{said}");
}
