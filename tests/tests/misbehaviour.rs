//! Plugins that crash, hang, lie and chatter: each costs its own stage, is reported as what it was, and the run goes on.

use llmcb_tests::artifacts;
use llmcb_tests::cgroup::SmallMemory;
use llmcb_tests::results::{Results, assert_nothing_half_written, validate};
use llmcb_tests::sandbox::Sandbox;

/// What the method does, how its compress stage ends, and what the reason says.
const METHOD_MODES: [(&str, &str, &[&str]); 15] = [
    ("ok", "done", &[]),
    ("panic", "failed", &["panicked in compress_block: asked to panic", "block 2/3"]),
    ("panic_new", "failed", &["panicked in new_method: asked to panic while being made"]),
    ("segfault", "failed", &["crashed: SIGSEGV"]),
    ("abort", "failed", &["crashed: SIGABRT"]),
    ("exit0", "failed", &["exited with code 0 before it had finished"]),
    ("exit3", "failed", &["exited with code 3 before it had finished"]),
    ("killed", "failed", &["killed from outside (SIGKILL)"]),
    ("memory", "failed", &["out of memory", "--memory-limit"]),
    ("huge_allocation", "failed", &["out of memory", "memory allocation of 72057594037927936 bytes failed"]),
    ("nan", "failed", &["block 2/3", "self_attn.q_proj"]),
    ("shape", "failed", &["block 2/3", "self_attn.q_proj", "[2, 3]"]),
    ("unknown_linear", "failed", &["block 2/3", "no_such.linear"]),
    ("fail", "failed", &["block 2/3", "the stars are wrong"]),
    ("unsupported", "skipped", &["not for models with blocks"]),
];

#[test]
fn every_misbehaviour_of_a_method_costs_its_own_stage_only() {
    let sandbox = Sandbox::new();
    let plugin = artifacts::hostile("misbehave");
    let plugin = plugin.to_str().expect("text");
    let specs: Vec<String> = METHOD_MODES.iter().map(|(mode, ..)| format!("misbehave:mode={mode}")).collect();
    let mut further = vec!["--plugin", plugin, "--tasks", "arc_easy", "--limit", "2"];
    further.extend(["--memory-limit", "700M"]);
    for spec in &specs {
        further.extend(["--method", spec]);
    }
    // Last, so that it shows that the run went on after all of them.
    further.extend(["--method", "rtn:group_size=32"]);
    let finished = sandbox.run(&sandbox.run_arguments("out", &further)).expect_code(1);
    let results = Results::read(&sandbox.out());
    validate("run-result", &results.run);
    assert_nothing_half_written(&sandbox.out());

    for (mode, status, parts) in METHOD_MODES {
        let label = format!("misbehave-mode={mode}");
        let stage = results.compression(&label);
        assert_eq!(stage.status, status, "{mode}: {}", stage.reason);
        for part in parts {
            assert!(stage.reason.contains(part), "{mode}: `{}` does not say `{part}`", stage.reason);
        }
        assert_eq!(stage.reason.lines().count(), usize::from(!parts.is_empty()), "{mode}: {}", stage.reason);
        let evaluated = &results.of(&label, "evaluate")[0];
        if status == "done" {
            assert_eq!(evaluated.status, "done", "{mode}");
        } else {
            assert_eq!(evaluated.status, "skipped", "{mode}: what was not made cannot be scored");
            assert!(!evaluated.reason.is_empty(), "{mode}");
            // The report for people has one line with the stage and its reason.
            let said = finished.stdout.lines().chain(finished.stderr.lines());
            let shown = format!("misbehave mode={mode}");
            let lines = said.filter(|line| line.contains(&shown) && line.contains(parts[0])).count();
            assert!(lines >= 1, "{mode} is not reported:\n{}\n{}", finished.stdout, finished.stderr);
        }
    }
    for method in ["dense", "rtn-group_size=32"] {
        for stage in results.stages().iter().filter(|s| s.method == method) {
            assert_eq!(stage.status, "done", "{method} {}: {}", stage.kind, stage.reason);
        }
    }
    assert!(!finished.stderr.contains("panicked at"), "the host panicked:\n{}", finished.stderr);

    // A second run tries again what failed, and only that.
    sandbox.run(&sandbox.run_arguments("out", &further)).expect_code(1);
    let again = Results::read(&sandbox.out());
    for (before, after) in results.stages().iter().zip(again.stages()) {
        assert_eq!(after.reused, before.status == "done", "{} {}", after.method, after.kind);
        assert_eq!(after.status, before.status, "{} {}", after.method, after.kind);
    }
}

#[test]
fn files_that_are_no_plugins_cost_a_line_each_and_no_run() {
    let sandbox = Sandbox::new();
    for name in ["no_header", "wrong_magic", "wrong_major"] {
        sandbox.link(&artifacts::hostile(name), "plugins");
    }
    let folder = sandbox.path("plugins");
    let folder = folder.to_str().expect("text");
    let further =
        ["--plugin-dir", folder, "--method", "rtn:group_size=32", "--tasks", "arc_easy", "--limit", "2"];
    let finished = sandbox.run(&sandbox.run_arguments("out", &further)).expect_code(0);
    for (file, says) in [
        ("libwrong_magic.so", "its header does not begin with the magic bytes"),
        ("libwrong_major.so", "built for plugin ABI 2.2, this host has"),
    ] {
        let lines = finished.stderr.lines().filter(|line| line.contains(file) && line.contains(says));
        assert_eq!(lines.count(), 1, "{file}:\n{}", finished.stderr);
    }
    // A folder may be full of libraries that never claimed to be plugins; one that the user names is another matter.
    assert!(!finished.stderr.contains("libno_header.so"), "{}", finished.stderr);
    let named = format!("{folder}/libno_header.so");
    let finished = sandbox.run(&sandbox.run_arguments("out", &["--plugin", &named])).expect_code(2);
    finished.expect_message(&["libno_header.so", "not an llmcb plugin: it exports no plugin header"]);
}

#[test]
fn a_method_that_hangs_is_killed_at_the_limit() {
    let sandbox = Sandbox::new();
    let plugin = artifacts::hostile("misbehave");
    let plugin = plugin.to_str().expect("text");
    let mut further = vec!["--plugin", plugin, "--tasks", "arc_easy", "--hang-limit", "5s"];
    further.extend(["--method", "misbehave:mode=hang", "--method", "rtn:group_size=32"]);
    sandbox.run(&sandbox.run_arguments("out", &further)).expect_code(1);
    let results = Results::read(&sandbox.out());
    let hung = results.compression("misbehave-mode=hang");
    assert_eq!(hung.status, "failed");
    assert!(hung.reason.contains("hung: no sign of progress for 5 s (--hang-limit)"), "{}", hung.reason);
    assert_eq!(results.compression("rtn-group_size=32").status, "done");
}

#[test]
fn chatter_on_standard_output_disturbs_neither_protocol_nor_data() {
    let sandbox = Sandbox::new();
    let plugin = artifacts::hostile("misbehave");
    let further = [
        "--plugin",
        plugin.to_str().expect("text"),
        "--method",
        "misbehave:mode=chatter",
        "--method",
        "misbehave",
        "--tasks",
        "arc_easy,wikitext2:seqlen=64",
        "--json",
    ];
    let finished = sandbox.run(&sandbox.run_arguments("out", &further)).expect_code(0);
    let run: serde_json::Value =
        serde_json::from_str(&finished.stdout).expect("standard output is JSON alone");
    validate("run-result", &run);
    let results = Results::read(&sandbox.out());
    assert!(results.checkpoint("misbehave-mode=chatter") == results.checkpoint("misbehave"));
}

/// What the runner does when it is asked to score, how the evaluate stages end, and what the reason says.
const RUNNER_MODES: [(&str, &str, &[&str]); 6] = [
    ("ok", "done", &[]),
    ("panic", "failed", &["panicked in score: asked to panic"]),
    ("abort", "failed", &["crashed: SIGABRT"]),
    ("short", "failed", &["answered 23 of 24 requests"]),
    ("unsupported", "skipped", &["no scores here"]),
    ("closed", "failed", &["closed on Mondays"]),
];

#[test]
fn every_misbehaviour_of_a_runner_costs_its_own_stages_only() {
    let sandbox = Sandbox::new();
    let plugin = artifacts::hostile("fake_runner");
    let plugin = plugin.to_str().expect("text");
    let specs: Vec<String> =
        RUNNER_MODES.iter().map(|(mode, ..)| format!("fake-runner:mode={mode}")).collect();
    let mut further = vec!["--plugin", plugin, "--tasks", "arc_easy,arc_challenge"];
    for spec in &specs {
        further.extend(["--backend", spec]);
    }
    further.extend(["--backend", "candle"]);
    sandbox.run(&sandbox.run_arguments("out", &further)).expect_code(1);
    let results = Results::read(&sandbox.out());
    validate("run-result", &results.run);
    let cells = results.run["cells"].as_array().expect("cells");
    for (mode, status, parts) in RUNNER_MODES.iter().copied().chain([("candle", "done", &[] as &[&str])]) {
        let label = if mode == "candle" { mode.to_owned() } else { format!("fake-runner-mode={mode}") };
        let cell = cells.iter().find(|c| c["backend"] == *label).expect("a cell");
        for stage in cell["stages"].as_array().expect("stages") {
            assert_eq!(stage["status"], status, "{mode}: {stage:#}");
            let reason = stage["reason"].as_str().unwrap_or_default();
            for part in parts {
                assert!(reason.contains(part), "{mode}: `{reason}` does not say `{part}`");
            }
        }
    }
}

#[test]
fn scores_that_are_not_numbers_never_look_like_good_ones() {
    let sandbox = Sandbox::new();
    let plugin = artifacts::hostile("fake_runner");
    let further = [
        "--plugin",
        plugin.to_str().expect("text"),
        "--backend",
        "fake-runner:mode=nan",
        "--tasks",
        "arc_easy,text:data/wikitext2-raw/wiki.test.raw:seqlen=64",
    ];
    let finished = sandbox.run(&sandbox.run_arguments("out", &further));
    let results = Results::read(&sandbox.out());
    validate("run-result", &results.run);
    for cell in results.run["cells"].as_array().expect("cells") {
        for metric in cell["metrics"].as_array().expect("metrics") {
            let value = metric["value"].as_f64();
            assert!(value.is_none_or(|v| v == 0.0), "{metric}\n{}", finished.stdout);
        }
    }
}

/// The compress stage of a method that takes memory until there is none, in a run that was started by `script` (its `"$@"`).
fn compression_of_a_hoarder(sandbox: &Sandbox, script: &str) -> llmcb_tests::results::Stage {
    let plugin = artifacts::hostile("misbehave");
    let further = [
        "--plugin",
        plugin.to_str().expect("text"),
        "--method",
        "misbehave:mode=memory",
        "--method",
        "rtn:group_size=32",
        "--tasks",
        "arc_easy",
    ];
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).arg(artifacts::host()).args(sandbox.run_arguments("out", &further));
    sandbox.surround(&mut command);
    sandbox.start(command).wait().expect_code(1);
    let results = Results::read(&sandbox.out());
    assert_eq!(results.compression("rtn-group_size=32").status, "done", "the run went on");
    let stage = results.compression("misbehave-mode=memory");
    assert_eq!(stage.status, "failed", "{}", stage.reason);
    stage
}

#[test]
fn an_allocation_that_the_system_refuses_is_called_lack_of_memory() {
    let sandbox = Sandbox::new();
    // A limit of the address space, in KiB: the allocator gives up and aborts.
    let stage = compression_of_a_hoarder(&sandbox, "ulimit -v 2000000; exec \"$@\"");
    assert!(stage.reason.contains("ran out of memory: memory allocation of"), "{}", stage.reason);
}

#[test]
fn a_worker_that_the_kernel_kills_for_memory_is_told_from_other_kills() {
    let group = match SmallMemory::new(400 << 20) {
        Ok(group) => group,
        Err(reason) => {
            // Needs rights that not every machine gives; which kill it was is then covered by the parts alone (`worker/oom.rs`, `worker/death.rs`).
            eprintln!(
                "NOT TESTED: the kernel's own kill for lack of memory, for want of a control group: {reason}"
            );
            return;
        }
    };
    let sandbox = Sandbox::new();
    let script = format!("echo $$ > {} || exit 9; exec \"$@\"", group.door().display());
    let stage = compression_of_a_hoarder(&sandbox, &script);
    assert!(
        stage.reason.contains("ran out of memory: the kernel killed it to free memory"),
        "{}",
        stage.reason
    );
}
