//! The backend of llama.cpp, with a library that stands in for it: what is scored, what is timed, and what is said where something is wrong.

use std::path::Path;
use std::process::Command;

use llmcb_tests::artifacts;
use llmcb_tests::results::{Results, json};
use llmcb_tests::sandbox::{Finished, Sandbox, are_gone, process_ids};
use rustix::process::Signal;
use serde_json::Value;

/// A run of the tiny model on llama.cpp's stand-in, which does one wrong thing if told.
fn command(sandbox: &Sandbox, options: &str, further: &[&str], does: &str) -> Command {
    let library = artifacts::hostile("llama_stand_in");
    let backend = format!("llama-cpp:library={}{options}", library.display());
    let mut arguments = sandbox.run_arguments("out", &["--backend", &backend, "--limit", "3"]);
    arguments.extend(further.iter().map(|argument| (*argument).to_owned()));
    let mut command = sandbox.command(&arguments);
    command.env("LLMCB_STAND_IN", does);
    command
}

fn run(sandbox: &Sandbox, options: &str, further: &[&str], does: &str) -> Finished {
    sandbox.start(command(sandbox, options, further, does)).wait()
}

/// All answers of a run, in the order of their files.
fn answers(out: &Path) -> Vec<Value> {
    let results = Results::read(out);
    let stages = results.stages().into_iter().filter(|stage| stage.folder.join("items.jsonl").is_file());
    let lines = stages.flat_map(|stage| {
        let text = std::fs::read_to_string(stage.folder.join("items.jsonl")).expect("items");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    lines.map(|line| serde_json::from_str::<Value>(&line).expect("an item")["answered"].clone()).collect()
}

#[test]
fn scores_do_not_depend_on_pieces_nor_on_what_can_be_forgotten() {
    let tasks = ["--tasks", "arc_easy,hellaswag,wikitext2:seqlen=40"];
    let mut first: Option<Vec<Value>> = None;
    for (options, does) in [("", ""), (",batch_tokens=3", ""), ("", "cannot forget parts")] {
        let sandbox = Sandbox::new();
        run(&sandbox, options, &tasks, does).expect_code(0);
        let found = answers(&sandbox.out());
        assert!(found.len() > 6);
        match &first {
            None => first = Some(found),
            Some(first) => assert_eq!(&found, first, "{options} {does}"),
        }
    }
}

#[test]
fn checkpoints_are_run_as_what_they_are_and_results_say_how() {
    let sandbox = Sandbox::new();
    let methods = [
        "--method",
        "rtn:bits=4,group_size=32",
        "--method",
        "rtn:bits=8,group_size=32,symmetric=true",
        "--tasks",
        "arc_easy",
    ];
    run(&sandbox, "", &methods, "").expect_code(0);
    let results = Results::read(&sandbox.out());
    let mut seen = Vec::new();
    for stage in results.stages().into_iter().filter(|stage| stage.folder.join("items.jsonl").is_file()) {
        let info = &json(&stage.folder.join("result.json"))["model"]["info"];
        assert_eq!(info["library"], "llama.cpp stand-in 7");
        seen.push(info["compute"].as_str().expect("how it computes").to_owned());
    }
    seen.sort();
    assert_eq!(seen, ["f32, cache f16", "q4_1 rounded, cache f16", "q8_0, cache f16"]);
    // What was written to be loaded is gone.
    let left = std::fs::read_dir(sandbox.path("cache/backends/converted")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
}

#[test]
fn how_far_backends_agree_stands_under_the_table() {
    let sandbox = Sandbox::new();
    let further = ["--backend", "candle", "--tasks", "arc_easy", "--method", "rtn:bits=4,group_size=32"];
    let finished = run(&sandbox, ",cache=f32", &further, "").expect_code(0);
    let table = finished.stdout.replace("\n  ", " ");
    // The stand-in is given first, so candle is compared with it.
    assert!(table.contains("log-likelihoods of candle and llama-cpp-library="), "{table}");
    assert!(table.contains("on arc_easy differ on average by: dense "), "{table}");
    let run = json(&sandbox.out().join("run.json"));
    let cells = run["cells"].as_array().expect("cells");
    let agreements = cells.iter().filter(|cell| cell["agreement"].is_array());
    let counts: Vec<_> = agreements.map(|cell| cell["agreement"][0]["log_likelihoods"].clone()).collect();
    assert_eq!(counts, [12, 12]);
}

#[test]
fn speed_is_measured_with_the_time_that_loading_took() {
    let sandbox = Sandbox::new();
    let workload = ["--tasks", "arc_easy", "--workload", "batch=2,prompt=16,new=4,warm_up=1,repetitions=2"];
    let finished = run(&sandbox, "", &workload, "").expect_code(0);
    assert!(
        finished.stdout.contains("llama-cpp") || finished.stdout.contains("prefill"),
        "{}",
        finished.stdout
    );
    let results = Results::read(&sandbox.out());
    let profile = results.stages().into_iter().find_map(|stage| {
        let result = json(&stage.folder.join("result.json"));
        result["profile"].is_object().then(|| result["profile"].clone())
    });
    let profile = profile.expect("a profile");
    assert_eq!(profile["raw"]["timings"].as_array().expect("timings").len(), 2);
    assert_eq!(profile["raw"]["timings"][0]["decode_seconds"].as_array().expect("steps").len(), 3);
    assert!(profile["load_seconds"].as_f64().expect("a time") > 0.0);
}

#[test]
fn what_goes_wrong_in_the_library_costs_its_cells_and_is_explained() {
    for (does, says) in [
        ("does not load", "llama.cpp cannot load it (it says why in the stage's log)"),
        ("has no room", "llama.cpp has no room for 1 sequences"),
        ("fails", "llama.cpp could not run"),
        ("crashes", "SIGABRT"),
    ] {
        let sandbox = Sandbox::new();
        let finished = run(&sandbox, "", &["--tasks", "arc_easy"], does).expect_code(1);
        let table = finished.stdout.replace("\n  ", " ");
        assert!(table.contains(says), "{does}: no `{says}` in\n{table}");
    }
    let sandbox = Sandbox::new();
    let finished = run(&sandbox, "", &["--tasks", "arc_easy"], "other interface").expect_code(1);
    finished.expect_message(&["it has interface 99, this plugin needs 2", "backends setup llama-cpp"]);
}

#[test]
fn a_library_that_is_not_installed_is_a_skipped_cell_with_the_way_out() {
    let sandbox = Sandbox::new();
    let arguments = sandbox
        .run_arguments("out", &["--backend", "candle,llama-cpp", "--tasks", "arc_easy", "--limit", "2"]);
    let finished = sandbox.run(&arguments).expect_code(0);
    let table = finished.stdout.replace("\n  ", " ");
    for part in ["skipped", "llama.cpp is not installed: run `llmcb-host backends setup llama-cpp`", "candle"]
    {
        assert!(table.contains(part), "no `{part}` in\n{table}");
    }
    let list = sandbox.run(&["backends", "list"]).expect_code(0).stdout;
    for part in ["candle", "built in", "ready", "llama.cpp is not installed"] {
        assert!(list.contains(part), "no `{part}` in\n{list}");
    }
}

/// An interpreter that makes environments in which pip does as it is told.
fn python(sandbox: &Sandbox, pip: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let file = sandbox.path("python");
    let make = |path: &Path, text: String| {
        std::fs::write(path, text).expect("script");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("script");
    };
    make(&sandbox.path("pip"), format!("#!/bin/sh\n{pip}\n"));
    let copy = format!("mkdir -p \"$3/bin\" && cp {} \"$3/bin/pip\"", sandbox.path("pip").display());
    make(&file, format!("#!/bin/sh\n{copy}\n"));
    file.display().to_string()
}

#[test]
fn a_set_up_that_fails_says_at_which_step_and_installs_nothing() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["backends", "setup", "llama-cpp"]);
    command.env("LLMCB_PYTHON", python(&sandbox, "echo no route to the registry >&2; exit 7"));
    let finished = sandbox.start(command).wait().expect_code(1);
    finished.expect_message(&[
        "setting up llama.cpp in",
        "downloads",
        "fetching cmake and ninja",
        "no route to the registry",
        "setup.log",
    ]);
    assert!(sandbox.run(&["backends", "list"]).stdout.contains("llama.cpp is not installed"));
}

#[test]
fn ctrl_c_ends_a_set_up_with_all_that_it_started() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["backends", "setup", "llama-cpp"]);
    let pids = sandbox.path("pids");
    let script = format!("sleep 600 & echo $$ $! > {0}.new; mv {0}.new {0}; wait", pids.display());
    command.env("LLMCB_PYTHON", python(&sandbox, &script));
    let mut running = sandbox.start(command);
    running.wait_until("pip", || pids.is_file());
    running.signal(Signal::INT);
    running.wait().expect_code(130);
    assert!(are_gone(&process_ids(&pids)), "pip was left");
    assert!(!sandbox.path("cache/backends/llama-cpp/installed.json").exists());
}
