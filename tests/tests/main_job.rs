//! The main job, end to end: several methods and the dense model on every task, results on disk, and a second run that does
//! nothing twice.

use std::collections::BTreeSet;

use llmcb_tests::data::{DOCUMENTS, MMLU_SUBJECTS};
use llmcb_tests::results::{self, Results, json, validate};
use llmcb_tests::sandbox::Sandbox;

/// Methods with the labels that tables give them.
const METHODS: [(&str, &str); 7] = [
    ("rtn:bits=4,group_size=32", "rtn-bits=4-group_size=32"),
    ("magnitude:ratio=0.5", "magnitude-ratio=0.5"),
    ("wanda:pattern=2:4", "wanda-pattern=2_4"),
    ("gptq:bits=3,group_size=32,act_order=true", "gptq-bits=3-group_size=32-act_order=true"),
    ("gptq:static_groups=true,mse=true,group_size=32", "gptq-static_groups=true-mse=true-group_size=32"),
    ("wanda:variant=true", "wanda-variant=true"),
    ("sparsegpt:ratio=0.6,block_size=32", "sparsegpt-ratio=0.6-block_size=32"),
];

/// Tasks, what each measures, and of how many items.
const TASKS: [(&str, &[&str], usize); 7] = [
    ("arc_easy", &["acc", "acc_norm"], DOCUMENTS),
    ("arc_challenge", &["acc", "acc_norm"], DOCUMENTS),
    ("hellaswag", &["acc", "acc_norm"], DOCUMENTS),
    ("piqa", &["acc", "acc_norm"], DOCUMENTS),
    ("winogrande", &["acc"], DOCUMENTS),
    ("mmlu:limit=2", &["acc"], 2 * MMLU_SUBJECTS.len()),
    ("wikitext2:seqlen=64", &["perplexity"], 0),
];

fn everything() -> Vec<String> {
    let mut arguments: Vec<String> =
        METHODS.iter().flat_map(|(m, _)| ["--method".into(), (*m).into()]).collect();
    let tasks: Vec<&str> = TASKS.iter().map(|(task, ..)| *task).collect();
    arguments.extend(["--tasks".into(), tasks.join(",")]);
    arguments
}

/// Each number against the dense model's on the same items: differences are those of the numbers themselves.
fn compressed_models_are_compared_item_by_item(results: &Results) {
    let cells = results.run["cells"].as_array().expect("cells");
    let value = |cell: &serde_json::Value, task: &str, metric: &str| {
        let all = cell["metrics"].as_array().expect("metrics");
        let found =
            all.iter().find(|m| m["task"] == task && m["name"] == metric && m.get("subset").is_none());
        found.expect("the metric")["value"].as_f64().expect("a number")
    };
    for cell in &cells[1..] {
        for (task, metrics, _) in TASKS {
            for metric in metrics {
                let all = cell["paired"].as_array().expect("comparisons");
                let paired = all.iter().find(|p| p["task"] == task && p["metric"] == *metric);
                let paired = paired.unwrap_or_else(|| panic!("{task} {metric} is not compared: {cell:#}"));
                let (before, after) = (value(&cells[0], task, metric), value(cell, task, metric));
                let difference = paired["difference"].as_f64().expect("a number");
                let expected =
                    if *metric == "perplexity" { after.ln() - before.ln() } else { after - before };
                assert!((difference - expected).abs() < 1e-9, "{task} {metric}: {difference} {expected}");
                if *metric != "perplexity" {
                    let count = |name: &str| paired[name].as_f64().expect("a count");
                    let n = paired["n"].as_f64().expect("a count");
                    let flips = (count("wrong_to_right") - count("right_to_wrong")) / n;
                    assert!((flips - difference).abs() < 1e-9, "{paired}");
                }
            }
        }
    }
    assert!(cells[0].get("paired").is_none(), "the dense model is not compared with itself");
}

#[test]
fn four_methods_and_the_dense_model_on_every_task() {
    let sandbox = Sandbox::new();
    let further = everything();
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let arguments = sandbox.run_arguments("out", &further);
    let first = sandbox.run(&arguments).expect_code(0);
    let results = Results::read(&sandbox.out());

    the_table_names_everything(&first.stdout);
    validate("run-result", &results.run);
    assert_eq!(results.run["complete"], true);
    every_stage_is_recorded(&results);
    every_number_says_of_how_many_items(&results);
    compressed_models_are_compared_item_by_item(&results);
    the_checkpoints_have_the_usual_files(&results);
    the_csv_has_the_same_numbers(&sandbox, &results);
    the_methods_did_what_they_say(&results);

    // Again: nothing is done twice, and nothing changes.
    let second = sandbox.run(&arguments).expect_code(0);
    let again = Results::read(&sandbox.out());
    for stage in again.stages() {
        assert!(stage.reused, "{} {} {} was done again", stage.method, stage.kind, stage.task);
    }
    assert_eq!(results.numbers(), again.numbers());
    assert_eq!(first.stdout, second.stdout, "the second table is not the first");
    validate("run-result", &again.run);

    // In another folder, from the beginning: the same numbers and the same bytes.
    let elsewhere = sandbox.run_arguments("elsewhere", &further);
    sandbox.run(&elsewhere).expect_code(0);
    let elsewhere = Results::read(&sandbox.path("elsewhere"));
    assert!(elsewhere.stages().iter().all(|stage| !stage.reused));
    assert_eq!(results.numbers(), elsewhere.numbers());
    for (_, label) in METHODS {
        assert!(results.checkpoint(label) == elsewhere.checkpoint(label), "checkpoints of {label} differ");
    }
}

fn the_table_names_everything(stdout: &str) {
    for name in METHODS.iter().map(|(method, _)| method.split(':').next().expect("a name")).chain(["dense"]) {
        let named = stdout.lines().any(|line| line.to_lowercase().contains(name));
        assert!(named, "no line of the table names {name}:\n{stdout}");
    }
    for (task, ..) in TASKS {
        let task = task.split(':').next().expect("a name");
        assert!(stdout.contains(task), "the table does not name {task}:\n{stdout}");
    }
}

fn every_stage_is_recorded(results: &Results) {
    let stages = results.stages();
    // Each method compresses, is scored, and is compared with the dense model on the one text.
    assert_eq!(stages.len(), METHODS.len() * (1 + TASKS.len() + 1) + TASKS.len());
    for stage in &stages {
        let name = format!("{} {} {}", stage.method, stage.kind, stage.task);
        assert_eq!(stage.status, "done", "{name}: {}", stage.reason);
        let result = json(&stage.folder.join("result.json"));
        validate("stage-result", &result);
        assert_eq!(result["status"], "done", "{name}");
        assert_eq!(result["key"].as_str().map(str::len), Some(64), "{name}");
        assert!(result["peak_memory_bytes"].as_u64().is_some_and(|n| n > 1 << 20), "{name}: {result:#}");
        assert!(result["wall_seconds"].as_f64().is_some_and(|s| s > 0.0), "{name}");
        let phases = result["phases"].as_object().expect("an object");
        let in_phases: f64 = phases.values().filter_map(serde_json::Value::as_f64).sum();
        let wall = result["wall_seconds"].as_f64().expect("a number");
        // Phases are parts of the whole, and nearly all of it; on a busy machine a process may wait between them.
        assert!(in_phases < 0.01 + wall, "{name}: {wall} s, in phases {phases:?}");
        assert!(wall - in_phases < 1.0 + 0.1 * wall, "{name}: {wall} s, in phases {phases:?}");
        let work = match stage.kind.as_str() {
            "evaluate" => "scoring",
            "diverge" => "comparing",
            _ => "blocks",
        };
        assert!(phases.contains_key(work), "{name}: {phases:?}");
        assert_eq!(result["abi_version"], "1.2", "{name}");
        assert_eq!(result["model"]["sha256"].as_str().map(str::len), Some(64), "{name}");
        for file in result["files"].as_array().into_iter().flatten() {
            let file = stage.folder.join(file.as_str().expect("a name"));
            assert!(file.exists(), "{name} lists {} which is not there", file.display());
        }
        if stage.kind == "evaluate" {
            let items = Results::items(stage);
            assert_eq!(Some(items.len() as u64), result["items"].as_u64(), "{name}");
            let (_, _, expected) =
                TASKS.iter().find(|(task, ..)| *task == stage.task).expect("a task of the run");
            if *expected > 0 {
                assert_eq!(items.len(), *expected, "{name}");
                for item in &items {
                    let asked = item["asked"].as_array().expect("what was asked");
                    let answered = item["answered"]["log_likelihoods"].as_array().expect("what was answered");
                    assert!(asked.len() >= 2 && asked.len() == answered.len(), "{name}: {item}");
                    assert!(answered.iter().all(|l| l.as_f64().is_some_and(|l| l < 0.0)), "{name}: {item}");
                }
            } else {
                assert!(items.len() > 10, "{name}: {} windows", items.len());
            }
        }
    }
}

fn every_number_says_of_how_many_items(results: &Results) {
    for cell in results.run["cells"].as_array().expect("cells") {
        let metrics = cell["metrics"].as_array().expect("metrics");
        for (task, names, n) in TASKS {
            for name in names {
                let found = metrics.iter().find(|m| m["task"] == task && m["name"] == *name);
                let metric = found.unwrap_or_else(|| panic!("no {name} of {task} in {cell:#}"));
                assert!(metric["value"].as_f64().is_some_and(f64::is_finite), "{metric}");
                if n > 0 {
                    assert_eq!(metric["n"].as_u64(), Some(n as u64), "{metric}");
                    assert!(metric["stderr"].as_f64().is_some_and(|s| (0.0..1.0).contains(&s)), "{metric}");
                }
            }
        }
    }
}

fn the_checkpoints_have_the_usual_files(results: &Results) {
    for (_, label) in METHODS {
        let files: BTreeSet<String> = results.checkpoint(label).into_keys().collect();
        for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            assert!(files.contains(name), "{label}: no {name} among {files:?}");
        }
        let folder = results.checkpoint_folder(label);
        let config = json(&folder.join("config.json"));
        assert_eq!(config["architectures"][0], "LlamaForCausalLM");
        assert_eq!(config["hidden_size"], 64);
        let bytes = std::fs::read(folder.join("model.safetensors")).expect("weights");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let quantises = label.starts_with("rtn") || label.starts_with("gptq");
        let tensor = if quantises { "qweight" } else { "weight" };
        assert!(tensors.tensor(&format!("model.layers.2.mlp.down_proj.{tensor}")).is_ok(), "{label}");
        let unfinished =
            results::files_below(&folder).into_iter().find(|f| f.to_string_lossy().contains("partial"));
        assert_eq!(unfinished, None);
    }
}

fn the_csv_has_the_same_numbers(sandbox: &Sandbox, results: &Results) {
    let text = std::fs::read_to_string(sandbox.out().join("results.csv")).expect("results.csv");
    let metrics =
        results.run["cells"].as_array().expect("cells").iter().flat_map(|c| c["metrics"].as_array());
    for metric in metrics.flatten() {
        let value = metric["value"].to_string();
        assert!(text.contains(&value), "{value} ({metric}) is not in results.csv:\n{text}");
    }
}

fn the_methods_did_what_they_say(results: &Results) {
    for (label, zeros) in [(METHODS[1].1, 0.5), (METHODS[2].1, 0.5), (METHODS[0].1, 0.0)] {
        let stage = results.compression(label);
        let result = json(&stage.folder.join("result.json"));
        let found = result["checkpoint"]["info"]["zero_fraction"].as_f64().expect("share of zeros");
        // Rounding to 4 bits makes zeros, too, but nowhere near half.
        assert!((found - zeros).abs() < if zeros > 0.0 { 0.01 } else { 0.3 }, "{label}: {found}");
    }
    let perplexity = |method: &str| {
        let cells = results.run["cells"].as_array().expect("cells");
        let cell = cells.iter().find(|c| c["method"] == method).expect("a cell");
        let metrics = cell["metrics"].as_array().expect("metrics");
        metrics
            .iter()
            .find(|m| m["name"] == "perplexity")
            .and_then(|m| m["value"].as_f64())
            .expect("perplexity")
    };
    let dense = perplexity("dense");
    for (_, label) in METHODS {
        assert_ne!(dense.to_bits(), perplexity(label).to_bits(), "{label} changed nothing");
    }
}

#[test]
fn flags_pass_through_to_what_is_run() {
    let sandbox = Sandbox::new();
    let with = |further: &[&str]| {
        let mut all = vec!["--tasks", "arc_easy,piqa", "--json"];
        all.extend(further);
        let finished = sandbox.run(&sandbox.run_arguments("out", &all)).expect_code(0);
        let run: serde_json::Value =
            serde_json::from_str(&finished.stdout).expect("--json prints JSON alone");
        validate("run-result", &run);
        Results { folder: sandbox.out(), run }
    };
    let items = |results: &Results| -> Vec<usize> {
        results.stages().iter().map(|s| Results::items(s).len()).collect()
    };

    let plain = with(&[]);
    assert_eq!(items(&plain), [DOCUMENTS, DOCUMENTS]);
    let limited = with(&["--limit", "2"]);
    assert_eq!(items(&limited), [2, 2]);
    assert!(limited.stages().iter().all(|s| !s.reused), "another limit is another stage");
    let shots = with(&["--shots", "1"]);
    let asked =
        |results: &Results| Results::items(&results.stages()[0])[0]["asked"][0]["context"].to_string();
    assert!(asked(&shots).len() > asked(&plain).len(), "{}", asked(&shots));
    assert_ne!(plain.numbers(), shots.numbers());
    assert!(with(&[]).stages().iter().all(|s| s.reused), "nothing changed since the first run");
}

#[test]
fn results_do_not_depend_on_threads() {
    let sandbox = Sandbox::new();
    let further = ["--method", "gptq:group_size=32", "--tasks", "hellaswag,wikitext2:seqlen=64"];
    let mut numbers = Vec::new();
    for (out, threads) in [("one", "1"), ("two", "2")] {
        let mut arguments = sandbox.run_arguments(out, &further);
        let at = arguments.iter().position(|a| a == "--threads").expect("the flag") + 1;
        arguments[at] = threads.to_owned();
        sandbox.run(&arguments).expect_code(0);
        numbers.push(Results::read(&sandbox.path(out)));
    }
    let label = "gptq-group_size=32";
    assert!(numbers[0].checkpoint(label) == numbers[1].checkpoint(label), "checkpoints differ");
    assert_eq!(numbers[0].numbers(), numbers[1].numbers());
}

#[test]
fn a_checkpoint_is_a_model_for_a_further_run() {
    let sandbox = Sandbox::new();
    let further = ["--method", "rtn:group_size=32", "--tasks", "arc_easy"];
    sandbox.run(&sandbox.run_arguments("out", &further)).expect_code(0);
    let results = Results::read(&sandbox.out());
    let folder = results.checkpoint_folder("rtn-group_size=32");
    let folder = folder.to_str().expect("text");
    let data = sandbox.data();
    let data = data.to_str().expect("text");
    sandbox
        .run(&[
            "eval",
            "--model",
            folder,
            "--data",
            data,
            "--tasks",
            "arc_easy",
            "--out",
            "eval",
            "--threads",
            "1",
        ])
        .expect_code(0);
    let evaluated = Results::read(&sandbox.path("eval"));
    let of = |results: &Results, method: &str| {
        Results::items(&results.of(method, "evaluate")[0])
            .iter()
            .map(|item| item["answered"].to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&results, "rtn-group_size=32"), of(&evaluated, "dense"));
}

#[test]
fn speed_is_measured_and_shown() {
    let sandbox = Sandbox::new();
    let further = ["--method", "rtn:group_size=32", "--tasks", "arc_easy", "--limit", "2", "--profile"];
    let arguments = sandbox.run_arguments("out", &further);
    let first = sandbox.run(&arguments).expect_code(0);
    let results = Results::read(&sandbox.out());
    validate("run-result", &results.run);
    for method in ["dense", "rtn-group_size=32"] {
        let [stage] = &results.of(method, "profile")[..] else { panic!("one profile stage of {method}") };
        assert_eq!((stage.status.as_str(), stage.reused), ("done", false), "{method}: {}", stage.reason);
        let result = json(&stage.folder.join("result.json"));
        validate("stage-result", &result);
        let profile = &result["profile"];
        let (prompt, new) = (&profile["prompt_tokens"], &profile["new_tokens"]);
        assert_eq!((prompt, new), (&128.into(), &32.into()), "{profile}");
        let timings = profile["raw"]["timings"].as_array().expect("timings");
        assert_eq!(timings.len(), 5, "{profile}");
        for timing in timings {
            assert!(timing["prefill_seconds"].as_f64().is_some_and(|s| s > 0.0), "{timing}");
            let steps = timing["decode_seconds"].as_array().expect("steps");
            // The first new token comes from the prompt's own pass.
            assert!((31..=32).contains(&steps.len()), "{timing}");
        }
        // The rates are those of the recorded times.
        let median = profile["prefill_seconds"]["p50"].as_f64().expect("a median");
        let rate = profile["prefill_tokens_per_second"].as_f64().expect("a rate");
        assert!((rate * median / 128.0 - 1.0).abs() < 1e-9, "{profile}");
        for name in ["prefill_rate", "decode_rate"] {
            let metrics = result["metrics"].as_array().expect("metrics");
            let metric = metrics.iter().find(|m| m["name"] == name).expect(name);
            assert!(
                metric["value"].as_f64().is_some_and(|v| v > 0.0) && metric["unit"] == "tokens/s",
                "{metric}"
            );
        }
    }
    for part in ["prefill", "decode", "tokens/s ↑", "speed: "] {
        assert!(first.stdout.contains(part), "no `{part}` in\n{}", first.stdout);
    }
    // Times are not measured again as long as nothing changed.
    sandbox.run(&arguments).expect_code(0);
    assert!(Results::read(&sandbox.out()).stages().iter().all(|stage| stage.reused));
}
