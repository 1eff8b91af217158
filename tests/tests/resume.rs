//! Runs that are killed or stopped at any moment go on where they were, and end with the numbers of an undisturbed run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use llmcb_tests::results::{Results, assert_nothing_half_written, files_below, json, validate};
use llmcb_tests::sandbox::{Running, Sandbox, alive};
use llmcb_tests::{artifacts, data, model};
use rustix::process::Signal;

/// The first file below a folder whose name fits.
fn find(folder: &Path, fits: impl Fn(&str) -> bool) -> Option<PathBuf> {
    files_below(folder).into_iter().find(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(&fits))
}

/// Whether a compression below a folder has finished its block number `index` and is not done.
fn block_is_saved(folder: &Path, index: usize) -> bool {
    find(folder, |name| name == format!("{index:04}.safetensors")).is_some()
}

fn spec(plugin: &str) -> String {
    artifacts::hostile(plugin).to_str().expect("text").to_owned()
}

/// The run in `out` must be what the one in `undisturbed` is.
#[track_caller]
fn assert_same(sandbox: &Sandbox, out: &str, undisturbed: &str, methods: &[&str]) {
    let (found, expected) = (Results::read(&sandbox.path(out)), Results::read(&sandbox.path(undisturbed)));
    assert_eq!(found.run["complete"], true);
    assert_eq!(found.numbers(), expected.numbers());
    for method in methods {
        let (found, expected) = (found.checkpoint(method), expected.checkpoint(method));
        let names =
            |files: &std::collections::BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "{method}");
        for (name, bytes) in found {
            assert!(bytes == expected[&name], "{method}: {name} differs");
        }
    }
    for (found, expected) in found.stages().iter().zip(expected.stages()) {
        assert_eq!(found.status, "done", "{} {}: {}", found.method, found.kind, found.reason);
        if found.kind == "evaluate" {
            let read = |folder: &Path| std::fs::read(folder.join("items.jsonl")).expect("items");
            assert!(read(&found.folder) == read(&expected.folder), "items of {} differ", found.task);
        }
    }
}

fn resumed(sandbox: &Sandbox, out: &str, method: &str) -> u64 {
    let stage = Results::read(&sandbox.path(out)).compression(method);
    json(&stage.folder.join("result.json"))["resumed"].as_u64().expect("number of interruptions")
}

#[test]
fn kill_9_in_a_compression_continues_at_the_block() {
    let sandbox = Sandbox::new();
    let plugin = spec("misbehave");
    let method = "misbehave:mode=slow,block=0,seconds=0.7";
    let label = "misbehave-mode=slow-block=0-seconds=0.7";
    let further = ["--plugin", &plugin, "--method", method, "--tasks", "arc_easy,wikitext2:seqlen=64"];
    sandbox.run(&sandbox.run_arguments("undisturbed", &further)).expect_code(0);

    let arguments = sandbox.run_arguments("out", &further);
    for index in [0, 1] {
        let mut running = sandbox.start(sandbox.command(&arguments));
        running.wait_until("a finished block", || block_is_saved(&sandbox.out(), index));
        running.kill_all();
        assert_nothing_half_written(&sandbox.out());
    }
    sandbox.run(&arguments).expect_code(0);
    assert_same(&sandbox, "out", "undisturbed", &[label]);
    assert_eq!(resumed(&sandbox, "out", label), 2);
    // Three blocks of 0.7 s: had the last attempt begun anew, its own part would be longer than 2 s.
    assert_eq!(find(&sandbox.out(), |name| name == "0000.safetensors"), None, "blocks are left behind");
}

/// Kills a compression by a method of several blocks in its middle: the run that goes on ends with the same bytes.
#[track_caller]
fn kill_9_in_the_middle_of(method: &str) {
    let sandbox = Sandbox::new();
    let shape = model::Shape { blocks: 6, hidden: 192, intermediate: 384, ..model::Shape::default() };
    model::write(&sandbox.model(), shape);
    let label = method.replace([':', ','], "-");
    let further = ["--method", method, "--tasks", "arc_easy,wikitext2:seqlen=64"];
    sandbox.run(&sandbox.run_arguments("undisturbed", &further)).expect_code(0);

    // A kill in the middle is a matter of luck: the run may be done before. Each attempt has a folder of its own.
    for attempt in 0..8 {
        let out = format!("out{attempt}");
        let arguments = sandbox.run_arguments(&out, &further);
        let mut running = sandbox.start(sandbox.command(&arguments));
        running.wait_until("a finished block", || block_is_saved(&sandbox.path(&out), attempt % 3));
        running.kill_all();
        let in_the_middle = find(&sandbox.path(&out), |name| name == "0000.safetensors").is_some();
        sandbox.run(&arguments).expect_code(0);
        assert_same(&sandbox, &out, "undisturbed", &[&label]);
        if in_the_middle {
            assert_eq!(resumed(&sandbox, &out, &label), 1);
            return;
        }
    }
    panic!("no attempt of 8 was killed in the middle");
}

#[test]
fn kill_9_in_gptq_changes_no_byte() {
    kill_9_in_the_middle_of("gptq:bits=3,group_size=32,true_sequential=true,act_order=true");
}

#[test]
fn kill_9_in_sparsegpt_changes_no_byte() {
    kill_9_in_the_middle_of("sparsegpt:ratio=0.5");
}

#[test]
fn kill_9_in_awq_changes_no_byte() {
    kill_9_in_the_middle_of("awq:group_size=32");
}

#[test]
fn kill_9_in_smoothquant_changes_no_byte() {
    kill_9_in_the_middle_of("smoothquant:activations=static,quantize_attention=true");
}

#[test]
fn kill_9_in_omniquant_changes_no_byte() {
    kill_9_in_the_middle_of("omniquant:activation_bits=8,epochs=1");
}

#[test]
fn kill_9_in_llm_pruner_changes_no_byte() {
    kill_9_in_the_middle_of("llm-pruner:ratio=0.5,importance=param_mix,lora_epochs=1,lora_batch=2");
}

#[test]
fn kill_9_in_an_evaluation_continues_at_the_piece() {
    let sandbox = Sandbox::new();
    let plugin = spec("fake_runner");
    // About 1200 windows, which are scored in pieces of 64.
    std::fs::write(sandbox.path("long.txt"), data::text(7, 20_000)).expect("text");
    let tasks = "text:long.txt:seqlen=16";
    let further = ["--plugin", &plugin, "--backend", "fake-runner:mode=slow,seconds=0.15", "--tasks", tasks];
    sandbox.run(&sandbox.run_arguments("undisturbed", &further)).expect_code(0);

    let arguments = sandbox.run_arguments("out", &further);
    let scores = || {
        files_below(&sandbox.out())
            .into_iter()
            .filter(|path| path.ends_with("scores.jsonl"))
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .map(|text| text.lines().count())
            .max()
            .unwrap_or(0)
    };
    let mut before = 0;
    for _ in 0..3 {
        let mut running = sandbox.start(sandbox.command(&arguments));
        running.wait_until("further scores", || scores() > before);
        running.kill_all();
        before = scores();
        assert_nothing_half_written(&sandbox.out());
    }
    sandbox.run(&arguments).expect_code(0);
    assert_same(&sandbox, "out", "undisturbed", &[]);
    let results = Results::read(&sandbox.out());
    let resumed: u64 = results
        .stages()
        .iter()
        .map(|stage| json(&stage.folder.join("result.json"))["resumed"].as_u64().unwrap_or(0))
        .sum();
    assert!(resumed >= 1, "no evaluation was continued");
}

#[test]
fn kill_9_at_many_moments_of_a_run_changes_no_number() {
    let sandbox = Sandbox::new();
    let further =
        ["--method", "wanda", "--method", "rtn:group_size=32", "--tasks", "hellaswag,wikitext2:seqlen=64"];
    let begun = Instant::now();
    sandbox.run(&sandbox.run_arguments("undisturbed", &further)).expect_code(0);
    let whole = begun.elapsed();
    let arguments = sandbox.run_arguments("out", &further);
    for part in 1..=6 {
        let running = sandbox.start(sandbox.command(&arguments));
        std::thread::sleep(whole * part / 12);
        running.kill_all();
        assert_nothing_half_written(&sandbox.out());
    }
    sandbox.run(&arguments).expect_code(0);
    assert_same(&sandbox, "out", "undisturbed", &["wanda", "rtn-group_size=32"]);
}

#[test]
fn a_killed_host_takes_its_workers_with_it() {
    let sandbox = Sandbox::new();
    let plugin = spec("misbehave");
    let method = "misbehave:mode=stubborn,seconds=100";
    let further = ["--plugin", &plugin, "--method", method, "--tasks", "arc_easy"];
    let mut running = sandbox.start(sandbox.command(&sandbox.run_arguments("out", &further)));
    running.wait_until("a finished block", || block_is_saved(&sandbox.out(), 0));
    let workers = running.workers();
    assert!(!workers.is_empty(), "the stage runs in the host itself");
    running.signal(Signal::KILL);
    running.wait();
    let until = Instant::now() + Duration::from_secs(20);
    while workers.iter().any(|worker| alive(*worker)) {
        assert!(Instant::now() < until, "a worker outlives its host");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_killed_worker_is_reported_and_its_stage_done_by_the_next_run() {
    let sandbox = Sandbox::new();
    let plugin = spec("misbehave");
    let method = "misbehave:mode=slow,seconds=0.5";
    let label = "misbehave-mode=slow-seconds=0.5";
    let further =
        ["--plugin", &plugin, "--method", method, "--method", "rtn:group_size=32", "--tasks", "arc_easy"];
    sandbox.run(&sandbox.run_arguments("undisturbed", &further)).expect_code(0);
    let arguments = sandbox.run_arguments("out", &further);
    let mut running = sandbox.start(sandbox.command(&arguments));
    running.wait_until("a finished block", || block_is_saved(&sandbox.out(), 0));
    for worker in running.workers() {
        let _ = rustix::process::kill_process(worker, Signal::KILL);
    }
    running.wait().expect_code(1);
    let results = Results::read(&sandbox.out());
    let stage = results.compression(label);
    assert_eq!(stage.status, "failed");
    assert!(stage.reason.contains("killed from outside (SIGKILL)"), "{}", stage.reason);
    assert_eq!(results.compression("rtn-group_size=32").status, "done");
    sandbox.run(&arguments).expect_code(0);
    assert_same(&sandbox, "out", "undisturbed", &[label]);
}

fn start_slow(sandbox: &Sandbox, mode: &str, seconds: &str) -> (Running, Vec<String>, String) {
    let plugin = spec("misbehave");
    let method = format!("misbehave:mode={mode},seconds={seconds}");
    let label = format!("misbehave-mode={mode}-seconds={seconds}");
    let further = ["--plugin", &plugin, "--method", &method, "--tasks", "arc_easy"];
    let arguments = sandbox.run_arguments("out", &further);
    let mut running = sandbox.start(sandbox.command(&arguments));
    running.wait_until("a finished block", || block_is_saved(&sandbox.out(), 0));
    (running, arguments, label)
}

#[test]
fn ctrl_c_once_stops_cleanly_and_the_next_run_continues() {
    for signal in [Signal::INT, Signal::TERM] {
        let sandbox = Sandbox::new();
        let (running, arguments, label) = start_slow(&sandbox, "slow", "1.5");
        running.signal(signal);
        let finished = running.wait().expect_code(130);
        finished.expect_message(&["stopping", "goes on from here"]);
        let run = json(&sandbox.out().join("run.json"));
        validate("run-result", &run);
        assert_eq!((&run["interrupted"], &run["complete"]), (&true.into(), &false.into()));
        let stage = Results::read(&sandbox.out()).compression(&label);
        assert_eq!(stage.status, "cancelled", "{}", stage.reason);
        assert!(block_is_saved(&sandbox.out(), 0), "what was done is lost");

        sandbox.run(&arguments).expect_code(0);
        assert_eq!(resumed(&sandbox, "out", &label), 1);
        let fresh: Vec<String> = arguments
            .iter()
            .map(|a| if Path::new(a) == sandbox.out() { "fresh".to_owned() } else { a.clone() })
            .collect();
        sandbox.run(&fresh).expect_code(0);
        assert_same(&sandbox, "out", "fresh", &[&label]);
    }
}

#[test]
fn ctrl_c_twice_kills() {
    let sandbox = Sandbox::new();
    let (mut running, _, _) = start_slow(&sandbox, "stubborn", "100");
    let workers = running.workers();
    running.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(500));
    assert!(!running.ended(), "once should wait for the method, which does not listen");
    running.signal(Signal::INT);
    running.wait().expect_code(130);
    assert!(!workers.iter().any(|worker| alive(*worker)), "a worker was left");
    assert!(block_is_saved(&sandbox.out(), 0), "what was done is lost");
    assert_nothing_half_written(&sandbox.out());
}

#[test]
fn two_runs_into_one_folder_do_not_mix() {
    let sandbox = Sandbox::new();
    let (running, arguments, label) = start_slow(&sandbox, "slow", "1.0");
    // The second either waits for the first or says that the folder is in use; the numbers are right in any case.
    let second = sandbox.run(&arguments);
    let first = running.wait();
    assert!([Some(0), Some(1), Some(2)].contains(&second.code()), "{second:?}");
    assert_eq!(first.code(), Some(0), "{first:?}");
    if second.code() != Some(0) {
        second.expect_message(&[sandbox.out().to_str().expect("text")]);
    }
    sandbox.run(&arguments).expect_code(0);
    let fresh: Vec<String> = arguments
        .iter()
        .map(|a| if Path::new(a) == sandbox.out() { "fresh".to_owned() } else { a.clone() })
        .collect();
    sandbox.run(&fresh).expect_code(0);
    assert_same(&sandbox, "out", "fresh", &[&label]);
}
