//! Metrics that are asked for, built in and as wasm components: numbers, tables, comparisons, and components that misbehave.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use llmcb_tests::artifacts::guest;
use llmcb_tests::results::{Results, json, validate};
use llmcb_tests::sandbox::{Finished, Sandbox};
use serde_json::Value;

/// Each built-in metric, the component that computes the same, what the component calls itself, and whether it has values per item.
const PAIRS: [(&str, &str, &str, bool); 4] = [
    ("brier_score", "brier_score.wasm", "brier_score_c", true),
    ("expected_calibration_error", "expected_calibration_error.wasm", "expected_calibration_error_c", false),
    ("token_f1", "token_f1.wasm", "token_f1_js", true),
    ("exact_match", "exact_match.wasm", "exact_match_py", true),
];

fn text(path: &Path) -> String {
    path.to_str().expect("a plain name").to_owned()
}

/// A run of the tiny model, dense and by RTN, on two tasks of questions and one text.
fn run(sandbox: &Sandbox, out: &str, metrics: &[String]) -> Finished {
    let tasks =
        ["--tasks", "arc_easy,winogrande,wikitext2:seqlen=64", "--method", "rtn:group_size=32,bits=3"];
    let mut further = tasks.map(str::to_owned).to_vec();
    for metric in metrics {
        further.extend(["--metric".to_owned(), metric.clone()]);
    }
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    patiently(sandbox, &sandbox.run_arguments(out, &further))
}

/// Runs the program where it may have to compile whole interpreters.
fn patiently(sandbox: &Sandbox, arguments: &[impl AsRef<str>]) -> Finished {
    sandbox.start(sandbox.command(arguments)).wait_for(Duration::from_secs(600))
}

fn metric<'a>(cell: &'a Value, task: &str, name: &str) -> &'a Value {
    let all = cell["metrics"].as_array().expect("metrics");
    let is_it = |m: &&Value| m["task"] == task && m["name"] == name;
    all.iter().find(is_it).unwrap_or_else(|| panic!("no {name} of {task}: {all:#?}"))
}

fn paired<'a>(cell: &'a Value, task: &str, name: &str) -> Option<&'a Value> {
    cell["paired"].as_array()?.iter().find(|p| p["task"] == task && p["metric"] == name)
}

#[test]
fn components_give_the_bits_of_the_built_in_metrics_and_stand_wherever_those_do() {
    let sandbox = Sandbox::new();
    let all: Vec<String> =
        PAIRS.iter().flat_map(|(name, file, ..)| [(*name).to_owned(), text(&guest(file))]).collect();
    // Without metrics first: asking for them later does not ask the models again.
    run(&sandbox, "out", &[]).expect_code(0);
    let finished = run(&sandbox, "out", &all).expect_code(0);
    let results = Results::read(&sandbox.out());
    validate("run-result", &results.run);
    assert_eq!(results.run["inputs"]["metrics"].as_object().map(serde_json::Map::len), Some(4));
    for stage in results.stages() {
        assert_eq!(stage.status, "done", "{stage:?}");
        assert_eq!(stage.reused, stage.kind != "score", "{stage:?}");
    }
    let cells = results.run["cells"].as_array().expect("cells");
    assert_eq!(cells.len(), 2);
    for cell in cells {
        for (name, _, component, per_item) in PAIRS {
            for task in ["arc_easy", "winogrande"] {
                let (ours, theirs) = (metric(cell, task, name), metric(cell, task, component));
                for field in ["value", "stderr", "n", "higher_is_better", "unit"] {
                    assert_eq!(ours[field], theirs[field], "{field} of {name} on {task}");
                }
                assert_eq!(ours["stderr"].is_number(), per_item, "{name}: {ours}");
                if cell["method"] != "dense" {
                    let (ours, theirs) = (paired(cell, task, name), paired(cell, task, component));
                    assert_eq!(ours.is_some(), per_item, "{name} on {task}");
                    let numbers =
                        |p: Option<&Value>| p.map(|p| [p["difference"].clone(), p["told_apart"].clone()]);
                    assert_eq!(numbers(ours), numbers(theirs), "{name} on {task}");
                }
            }
            // Windows of a text have no choices.
            let of_text = |m: &&Value| m["task"] == "wikitext2:seqlen=64" && m["name"] == name;
            assert!(!cell["metrics"].as_array().expect("metrics").iter().any(|m| of_text(&m)), "{name}");
        }
    }
    let table = finished.stdout.split_whitespace().collect::<String>();
    let csv = std::fs::read_to_string(sandbox.out().join("results.csv")).expect("results.csv");
    for (name, _, component, _) in PAIRS {
        assert!(csv.contains(name) && csv.contains(component), "{csv}");
        assert!(table.contains(name) && table.contains(component), "{}", finished.stdout);
    }
    // The fuel is in the results of components, and of them alone.
    for stage in results.stages().iter().filter(|stage| stage.kind == "score") {
        let result = json(&stage.folder.join("result.json"));
        validate("stage-result", &result);
        let is_component =
            result["settings"]["metric_source"].as_str().is_some_and(|s| s.starts_with("component"));
        assert_eq!(result["fuel"].as_u64().is_some_and(|fuel| fuel > 1000), is_component, "{result:#}");
    }
    let log = |stage: &llmcb_tests::results::Stage| std::fs::read_to_string(stage.folder.join("log.txt"));
    let logged = results
        .stages()
        .iter()
        .filter(|s| s.metric == "exact_match_py")
        .filter_map(|s| log(s).ok())
        .collect::<String>();
    assert!(logged.contains("6 answers were compared"), "{logged}");

    // Again, elsewhere: the same numbers and the same fuel.
    let again = run(&sandbox, "again", &all).expect_code(0);
    let other = Results::read(&sandbox.path("again"));
    assert_eq!(results.numbers(), other.numbers(), "{}", again.stderr);
    let fuel = |results: &Results| -> Vec<Value> {
        let scores = results.stages().into_iter().filter(|stage| stage.kind == "score");
        scores.map(|stage| json(&stage.folder.join("result.json"))["fuel"].clone()).collect()
    };
    assert_eq!(fuel(&results), fuel(&other));

    // Comparisons and leaderboards take them in.
    let (out, again) = (text(&sandbox.out()), text(&sandbox.path("again")));
    let compared = sandbox.run(&["compare", &out, &again, "--json"]).expect_code(0);
    let compared: Value = serde_json::from_str(&compared.stdout).expect("JSON");
    for (name, _, component, per_item) in PAIRS {
        for name in [name, component] {
            let of = |d: &&Value| d["metric"] == name;
            let found: Vec<&Value> =
                compared["differences"].as_array().expect("list").iter().filter(of).collect();
            assert_eq!(found.len(), 4, "{name}: {found:#?}");
            assert!(
                found.iter().all(|d| d["first"] == d["second"] && d["paired"].is_object() == per_item),
                "{found:#?}"
            );
        }
    }
    sandbox.run(&["leaderboard", &out, &again]).expect_code(0);
    // A number that its items do not give is found.
    let score = results.stages().into_iter().find(|stage| stage.metric == "brier_score_c").expect("a stage");
    let values = score.folder.join("values.jsonl");
    let was = std::fs::read_to_string(&values).expect("values");
    let (first, rest) = was.split_once('\n').expect("lines");
    let mut first: Value = serde_json::from_str(first).expect("JSON");
    first["value"] = Value::from(1.75);
    std::fs::write(&values, format!("{first}\n{rest}")).expect("values");
    let refused = sandbox.run(&["leaderboard", &out, &again]);
    assert_ne!(refused.code(), Some(0));
    refused.expect_message(&["brier_score_c", "its items give"]);
}

/// Ways in which a component misbehaves in a score, how its stages end, and what is said of them.
const SCORES: [(&str, &str, &str); 13] = [
    ("ok", "done", ""),
    ("trap", "failed", "it trapped: wasm `unreachable` instruction executed; it logged last: about to trap"),
    ("endless", "failed", "it spent its budget of 1012000000 units of fuel: an endless loop"),
    ("memory", "failed", "it asked for more than 512 MiB of memory"),
    ("recursion", "failed", "it trapped: call stack exhausted"),
    ("not_a_number", "failed", "its value is not a number (NaN)"),
    ("not_a_number_per_item", "failed", "its value of item 3 is not a number (NaN)"),
    ("too_few", "failed", "it gave 5 values per item for 6 items"),
    ("not_the_mean", "failed", "is not the mean of its values per item"),
    ("refuses", "failed", "it gave no value: the items are not to its taste"),
    ("order", "done", ""),
    ("chatter", "done", ""),
    ("forgets", "done", ""),
];

#[test]
fn every_misbehaviour_of_a_component_costs_its_own_stages_only() {
    let sandbox = Sandbox::new();
    let mut further = vec![
        "--tasks".to_owned(),
        "arc_easy,piqa".to_owned(),
        "--metric".to_owned(),
        "brier_score".to_owned(),
    ];
    for (mode, ..) in SCORES {
        further.extend(["--metric".to_owned(), text(&guest(&format!("does_{mode}.wasm")))]);
    }
    // Last, so that it shows that the run went on after all of them.
    further.extend(["--metric".to_owned(), "exact_match".to_owned()]);
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let finished = sandbox.run(&sandbox.run_arguments("out", &further)).expect_code(1);
    let results = Results::read(&sandbox.out());
    validate("run-result", &results.run);
    let of = |name: &str| -> Vec<_> { results.stages().into_iter().filter(|s| s.metric == name).collect() };
    for (mode, status, says) in SCORES {
        let stages = of(&format!("does_{mode}"));
        assert_eq!(stages.len(), 2, "{mode}");
        for stage in stages {
            assert_eq!(stage.status, status, "{mode}: {}", stage.reason);
            assert!(
                stage.reason.contains(says) && stage.reason.lines().count() <= 1,
                "{mode}: {}",
                stage.reason
            );
            let shown = finished
                .stdout
                .lines()
                .chain(finished.stderr.lines())
                .filter(|l| l.contains(&format!("does_{mode}")));
            assert!(status == "done" || shown.count() >= 1, "{mode} is not reported:\n{}", finished.stdout);
        }
    }
    for stage in of("exact_match").iter().chain(&of("brier_score")).chain(&results.of("dense", "evaluate")) {
        assert_eq!(stage.status, "done", "{stage:?}");
    }
    // What is counted in one call is not there in the next: the value is the mean, or it would have been refused.
    assert_eq!(of("does_forgets").len(), 2);
    let log = std::fs::read_to_string(of("does_chatter")[0].folder.join("log.txt")).expect("log");
    assert_eq!(log.matches("and another thing; over two lines").count(), 100, "{log}");
    assert!(!finished.stderr.contains("panicked at"), "{}", finished.stderr);
}

/// A component with some of its bytes replaced by as many others.
fn altered(sandbox: &Sandbox, name: &str, from: &str, to: &str) -> PathBuf {
    assert_eq!(from.len(), to.len());
    // It imports the log.
    let mut bytes = std::fs::read(guest("does_chatter.wasm")).expect("component");
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty(), "no {from}");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    let path = sandbox.path(name);
    std::fs::write(&path, bytes).expect("component");
    path
}

#[test]
fn what_is_no_metric_is_said_in_a_line_before_the_run_which_goes_on() {
    let sandbox = Sandbox::new();
    let write = |name: &str, bytes: &[u8]| {
        let path = sandbox.path(name);
        std::fs::write(&path, bytes).expect("file");
        path
    };
    let sound = std::fs::read(guest("does_ok.wasm")).expect("component");
    let files: [(PathBuf, &str); 14] = [
        (write("text.wasm", b"value = 1"), "it is not wasm"),
        (write("empty.wasm", b""), "it is not wasm"),
        (write("cut.wasm", &sound[..sound.len() / 2]), "it is no sound component"),
        (
            guest("does_clock.core.wasm"),
            "it is a core wasm module, not a component; make one of it with `llmcb-host metrics component",
        ),
        (
            altered(&sandbox, "version.wasm", "metric/scoring@1", "metric/scoring@2"),
            "made for version 2.0.0 of the world llmcb:metric; this host has 1.0.0",
        ),
        (
            altered(&sandbox, "import.wasm", "llmcb:metric/host@1.0.0", "wasi:clocks/clock@0.2.0"),
            "it imports `wasi:clocks/clock@0.2.0`, which a metric may not have",
        ),
        (
            altered(&sandbox, "foreign.wasm", "llmcb:metric/scoring@1", "llmcb:melody/scoring@1"),
            "it exports no `llmcb:metric/scoring`",
        ),
        (guest("does_trap_describe.wasm"), "it trapped: wasm `unreachable` instruction executed"),
        (guest("does_endless_describe.wasm"), "it spent its budget of 1000000000 units of fuel"),
        (
            guest("does_unknown_field.wasm"),
            "it reads the field `corect`, which items do not have; did you mean `correct`?",
        ),
        (guest("does_bad_name.wasm"), "its name \"Not a name\" is none"),
        (guest("does_taken_name.wasm"), "its name `acc` is that of a metric which tasks have of themselves"),
        (guest("does_two_lines.wasm"), "its summary must be one line"),
        (write("copy.wasm", &sound), ""),
    ];
    let mut further = vec![
        "--tasks".to_owned(),
        "arc_easy".to_owned(),
        "--metric".to_owned(),
        text(&guest("does_ok.wasm")),
    ];
    for (file, _) in &files {
        further.extend(["--metric".to_owned(), text(file)]);
    }
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let finished = sandbox.run(&sandbox.run_arguments("out", &further)).expect_code(1);
    let results = Results::read(&sandbox.out());
    assert!(results.stages().iter().all(|stage| stage.status == "done"), "{:?}", results.stages());
    assert_eq!(results.stages().len(), 2, "an evaluation and the one sound metric");
    let problems: Vec<&str> =
        results.run["problems"].as_array().expect("problems").iter().filter_map(Value::as_str).collect();
    assert_eq!(problems.len(), files.len(), "{problems:#?}");
    for (file, says) in &files {
        let says =
            if says.is_empty() { "another metric of the suite is called `does_ok`, too" } else { says };
        let line = problems.iter().find(|line| line.starts_with(&format!("metric {}: ", file.display())));
        let line = line.unwrap_or_else(|| panic!("{}: {problems:#?}", file.display()));
        assert!(line.contains(says) && line.lines().count() == 1, "{line}");
        let beginning: String = says.chars().take(14).collect();
        assert!(finished.stdout.contains(&beginning), "{says} is not under the table:\n{}", finished.stdout);
    }

    for (metric, says) in [
        ("brier", "no metric is called so (did you mean `brier_score`?)"),
        ("./nowhere.wasm", "No such file"),
    ] {
        let refused = sandbox.run(&sandbox.run_arguments("out", &["--metric", metric])).expect_code(2);
        refused.expect_message(&["--metric", metric, says]);
    }
    let lost = sandbox
        .run(&sandbox.run_arguments("lost", &["--tasks", "wikitext2:seqlen=64", "--metric", "token_f1"]));
    let lost = lost.expect_code(1);
    assert!(lost.stdout.contains("metric token_f1: it reads `prediction` of questions"), "{}", lost.stdout);
}

#[test]
fn compiled_code_is_kept_for_its_owner_alone() {
    let sandbox = Sandbox::new();
    let metric = text(&guest("does_ok.wasm"));
    let arguments = |out| sandbox.run_arguments(out, &["--tasks", "arc_easy", "--metric", &metric]);
    sandbox.run(&arguments("out")).expect_code(0);
    let folder = sandbox.path("cache/metrics");
    let mode = std::fs::metadata(&folder).expect("the cache").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let files = || walk(&folder);
    let kept = files();
    assert!(!kept.is_empty());
    // Code that was damaged is compiled anew.
    for file in &kept {
        std::fs::write(file, b"damaged").expect("file");
    }
    sandbox.run(&arguments("damaged")).expect_code(0);
    // A folder to which others can write is not used.
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).expect("mode");
    let finished = sandbox.run(&arguments("open")).expect_code(0);
    finished.expect_message(&["compiled metrics are not kept", "nobody else can write"]);
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("folder").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Verdicts of `metrics check`.
fn check(sandbox: &Sandbox, file: &Path, code: i32) -> Vec<[String; 3]> {
    let finished = patiently(sandbox, &["metrics", "check", &text(file), "--json"]).expect_code(code);
    let report: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().map(|c| [word(&c["name"]), word(&c["verdict"]), word(&c["why"])]).collect()
}

#[test]
fn sound_components_pass_every_check_those_of_metrics_new_and_of_the_guide_among_them() {
    let sandbox = Sandbox::bare();
    let new = [
        "new_in_c.wasm",
        "new_in_javascript.wasm",
        "new_in_python.wasm",
        "in_the_guide.wasm",
        "does_ok.wasm",
    ];
    for file in PAIRS.iter().map(|(_, file, ..)| *file).chain(new) {
        let checks = check(&sandbox, &guest(file), 0);
        assert!(checks.len() == 7 && checks.iter().all(|c| c[1] == "passed"), "{file}: {checks:#?}");
    }
}

#[test]
fn every_check_can_fail() {
    let sandbox = Sandbox::bare();
    for (mode, check_name, says) in [
        ("trap_describe", "description", "it trapped"),
        ("unknown_field", "description", "did you mean `correct`?"),
        ("trap", "score", "about to trap"),
        ("endless", "score", "units of fuel"),
        ("memory", "score", "512 MiB"),
        ("not_a_number", "score", "NaN"),
        ("too_few", "score", "199 values per item for 200 items"),
        ("not_the_mean", "score", "is not the mean"),
        ("needs_two", "one-item", "it trapped"),
        ("order", "order", "in another order"),
        ("needs_numbers", "wild-items", "it trapped"),
        ("quadratic", "many-items", "units of fuel"),
    ] {
        let checks = check(&sandbox, &guest(&format!("does_{mode}.wasm")), 1);
        let found = checks.iter().find(|c| c[0] == check_name).expect("the check");
        assert!(found[1] == "failed" && found[2].contains(says), "{mode}: {checks:#?}");
        // One cause, one line.
        assert_eq!(checks.iter().filter(|c| c[1] == "failed").count(), 1, "{mode}: {checks:#?}");
    }
    let nothing = sandbox.path("nothing.wasm");
    std::fs::write(&nothing, "nothing").expect("file");
    let checks = check(&sandbox, &nothing, 1);
    assert_eq!(checks[0][..2], ["component", "failed"]);
    assert!(checks[1..].iter().all(|c| c[1] == "skipped"), "{checks:#?}");
}

#[test]
fn metrics_are_listed_described_begun_and_made_of_modules() {
    let sandbox = Sandbox::bare();
    let list = sandbox.run(&["metrics", "list"]).expect_code(0);
    for name in
        ["perplexity", "acc_norm", "brier_score", "expected_calibration_error", "exact_match", "token_f1"]
    {
        assert!(list.stdout.contains(name), "{}", list.stdout);
    }
    let file = text(&guest("brier_score.wasm"));
    let info = sandbox.run(&["metrics", "info", &file]).expect_code(0);
    for part in ["brier_score_c", "less", "probabilities, target", "llmcb:metric@1.0.0"] {
        assert!(info.stdout.contains(part), "{}", info.stdout);
    }
    let fields = sandbox.run(&["metrics", "info"]).expect_code(0);
    assert!(fields.stdout.contains("log_likelihoods"), "{}", fields.stdout);
    for language in ["c", "javascript", "python", "rust"] {
        let new = sandbox
            .run(&["metrics", "new", "mine", "--language", language, "--path", language])
            .expect_code(0);
        for line in new.stdout.lines() {
            let written = std::fs::read(sandbox.path(line)).expect("a file that was named");
            let written = String::from_utf8_lossy(&written);
            assert!(!written.contains("@NAME@"), "{line}");
        }
        let again = sandbox
            .run(&["metrics", "new", "mine", "--language", language, "--path", language])
            .expect_code(2);
        again.expect_message(&["not empty", "--path"]);
    }
    sandbox
        .run(&["metrics", "new", "Not A Name", "--language", "c"])
        .expect_code(2)
        .expect_message(&["small letters"]);
    // A module that needs a clock is refused, and says what it wants.
    let module = text(&guest("does_clock.core.wasm"));
    let refused = sandbox.run(&["metrics", "component", &module, "--output", "clock.wasm"]).expect_code(2);
    refused.expect_message(&["does_clock.core.wasm", "wasi_snapshot_preview1"]);
    assert!(!sandbox.path("clock.wasm").exists());
    let refused = sandbox.run(&["metrics", "component", &file, "--output", "twice.wasm"]).expect_code(2);
    refused.expect_message(&["not wasm"]);
}
