//! The conformance suite, `plugins check`: good plugins pass all of it, every check can fail, and no way to die takes the suite along.

use std::path::Path;
use std::time::Duration;

use llmcb_tests::artifacts;
use llmcb_tests::results::validate;
use llmcb_tests::sandbox::{Finished, Sandbox};
use serde_json::Value;

/// What becomes of chance in these tests.
const SEED: &str = "20";

/// Longer than the suite takes for the slowest plugin on a busy machine.
const PATIENCE: Duration = Duration::from_secs(400);

/// One check of a report.
#[derive(Debug)]
struct Line {
    name: String,
    verdict: String,
    why: String,
}

/// Checks a plugin that finds `mode` in its environment.
fn check(sandbox: &Sandbox, file: &Path, mode: &str, further: &[&str]) -> Finished {
    let mut arguments = vec!["plugins", "check", file.to_str().expect("text"), "--reproduce", SEED];
    arguments.extend(further);
    let mut command = sandbox.command(&arguments);
    command.env("LLMCB_HOSTILE", mode);
    sandbox.start(command).wait_for(PATIENCE)
}

/// As [`check`], with the report.
fn report(sandbox: &Sandbox, file: &Path, mode: &str, further: &[&str], code: i32) -> Vec<Line> {
    let further: Vec<&str> = further.iter().copied().chain(["--json"]).collect();
    let finished = check(sandbox, file, mode, &further).expect_code(code);
    let report: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    validate("check-result", &report);
    assert_eq!(report["seed"].to_string(), SEED);
    assert_eq!(report["file"], file.to_str().expect("text"));
    assert!(report["abi"].as_str().is_some_and(|abi| abi.contains('.')), "{report}");
    let lines = report["checks"].as_array().expect("checks").iter();
    lines
        .map(|line| {
            assert!(line["seconds"].as_f64().is_some_and(|s| s >= 0.0), "{line}");
            assert!(!text(&line["demands"]).is_empty(), "{line}");
            let bad = ["failed", "crashed"].contains(&text(&line["verdict"]).as_str());
            let again = format!("--only {} --reproduce {SEED}", text(&line["name"]));
            assert_eq!(line["again"], if bad { again.into() } else { Value::Null }, "{line}");
            Line { name: text(&line["name"]), verdict: text(&line["verdict"]), why: text(&line["why"]) }
        })
        .collect()
}

fn passes_everything(name: &str) {
    let sandbox = Sandbox::bare();
    let file = match name {
        "shrink" | "careless" => artifacts::hostile(name),
        _ => artifacts::plugin(name),
    };
    let lines = report(&sandbox, &file, "ok", &[], 0);
    for Line { name: check, verdict, why } in &lines {
        assert!(["passed", "skipped"].contains(&verdict.as_str()), "{name}: {check} {verdict}: {why}");
        assert!(verdict != "skipped" || !why.is_empty(), "{name}: {check} is skipped without a reason");
    }
    let skipped = lines.iter().filter(|line| line.verdict == "skipped");
    for Line { name: check, why, .. } in skipped {
        assert!(why.starts_with("only for"), "{name}: {check} does not apply: {why}");
    }
    assert!(lines.len() >= 25, "{lines:?}");
}

/// A test for each, so that they run beside each other.
macro_rules! good_plugins {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                passes_everything($name);
            }
        )*

        #[test]
        fn every_plugin_of_the_product_is_checked() {
            for name in artifacts::PRODUCT {
                assert!([$($name),*].contains(&name), "{name}");
            }
        }
    };
}

good_plugins! {
    rtn_passes: "rtn",
    magnitude_passes: "magnitude",
    wanda_passes: "wanda",
    gptq_passes: "gptq",
    sparsegpt_passes: "sparsegpt",
    awq_passes: "awq",
    smoothquant_passes: "smoothquant",
    omniquant_passes: "omniquant",
    llm_pruner_passes: "llm-pruner",
    candle_passes: "candle",
    the_example_passes: "shrink",
    a_plugin_that_is_not_careless_passes: "careless",
}

/// Files that are no plugins of this ABI, or whose descriptor is none: which check fails, how, and what it says. Those after it are
/// not tried.
const NO_PLUGINS: [(&str, &str, &str, &str); 11] = [
    ("no_header", "header", "failed", "exports no `llmcb_plugin_header`"),
    ("wrong_magic", "header", "failed", "magic bytes"),
    ("wrong_major", "header", "failed", "ABI 2.2"),
    ("newer_minor", "header", "failed", "ABI 1.99"),
    ("wrong_layout", "layout", "failed", "laid out differently"),
    ("older_layout", "layout", "failed", "laid out differently"),
    ("no_root", "layout", "failed", "root"),
    ("descriptor_panics", "layout", "failed", "panicked in descriptor"),
    ("descriptor_aborts", "layout", "crashed", "SIGABRT"),
    ("bad_descriptor", "layout", "failed", "Not An Id"),
    ("twin", "descriptor", "failed", "licence"),
];

#[test]
fn what_is_no_plugin_fails_at_its_foundation_and_nothing_else_is_tried() {
    let sandbox = Sandbox::bare();
    for (plugin, check, verdict, says) in NO_PLUGINS {
        let lines = report(&sandbox, &artifacts::hostile(plugin), "", &[], 1);
        let at = lines.iter().position(|line| line.name == check).expect("the check");
        let found = &lines[at];
        assert_eq!(found.verdict, verdict, "{plugin}: {found:?}");
        assert!(found.why.contains(says) && found.why.lines().count() == 1, "{plugin}: {found:?}");
        assert!(lines[..at].iter().all(|line| line.verdict == "passed"), "{plugin}: {lines:?}");
        for line in &lines[at + 1..] {
            assert!(line.verdict == "skipped" && line.why.contains(check), "{plugin}: {line:?}");
        }
    }
}

/// Ways to die, and lies: the plugin, its mode, the check it is caught by, how, and what is said.
const DEATHS: [(&str, &str, &str, &str, &str); 12] = [
    ("misbehave", "segfault", "compress", "crashed", "the process crashed: SIGSEGV"),
    ("misbehave", "abort", "compress", "crashed", "the process crashed: SIGABRT"),
    ("misbehave", "panic", "compress", "failed", "panicked in compress_block: asked to panic"),
    (
        "misbehave",
        "panic_new",
        "compress",
        "failed",
        "panicked in new_method: asked to panic while being made",
    ),
    ("misbehave", "exit0", "compress", "crashed", "the process exited with code 0 before it had finished"),
    ("misbehave", "killed", "compress", "crashed", "the process was killed from outside (SIGKILL)"),
    (
        "misbehave",
        "hang",
        "compress",
        "crashed",
        "the process hung: no sign of progress for 3 s (--hang-limit)",
    ),
    ("misbehave", "memory", "compress", "crashed", "beyond --memory-limit (700 MiB)"),
    (
        "misbehave",
        "huge_allocation",
        "compress",
        "crashed",
        "the process ran out of memory: memory allocation of",
    ),
    ("misbehave", "nan", "compress", "failed", "mlp.gate_proj of block 1 has a weight of NaN afterwards"),
    ("misbehave", "shape", "compress", "failed", "mlp.gate_proj has shape [2, 3], [256, 128] expected"),
    ("misbehave", "chatter", "stdout", "failed", "`hello from a plugin that never read the manual`"),
];

#[test]
fn every_way_to_die_costs_its_own_check_only() {
    let sandbox = Sandbox::bare();
    for (plugin, mode, check, verdict, says) in DEATHS {
        let only = format!("descriptor,{check},options-unknown");
        let further = ["--only", &only, "--hang-limit", "3s", "--memory-limit", "700M"];
        let lines = report(&sandbox, &artifacts::hostile(plugin), mode, &further, 1);
        let found = lines.iter().find(|line| line.name == check).expect("the check");
        assert_eq!(found.verdict, verdict, "{mode}: {found:?}");
        assert!(found.why.contains(says) && found.why.lines().count() == 1, "{mode}: {found:?}");
        assert_eq!(lines.len(), 3);
        for line in lines.iter().filter(|line| line.name != check) {
            assert_eq!(line.verdict, "passed", "{mode}: {line:?}");
        }
    }
}

#[test]
fn a_plugin_that_crashes_gets_a_line_for_every_check() {
    let sandbox = Sandbox::bare();
    let finished = check(&sandbox, &artifacts::hostile("misbehave"), "segfault", &[]).expect_code(1);
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert!(lines.len() >= 25, "{}", finished.stdout);
    let crashed = |check: &str| lines.iter().any(|l| l.starts_with("crashed") && l.contains(check));
    for check in
        ["compress", "shape-one", "determinism", "threads", "two-at-once", "memory", "cancellation", "stdout"]
    {
        assert!(crashed(check), "{check}:\n{}", finished.stdout);
    }
    for check in ["header", "options-defaults", "wrong-names"] {
        let line = lines.iter().find(|line| line.contains(check)).expect("a line");
        assert!(line.starts_with("passed"), "{line}");
    }
    let says = "(again: --only two-at-once --reproduce 20)";
    assert!(lines.iter().any(|line| line.ends_with(says)), "{}", finished.stdout);
    finished.expect_message(&["crashed", "seed 20"]);
}

/// Carelessness: the plugin, its mode, the check that is there to find it, and what it says.
const CARELESS: [(&str, &str, &str, &str); 32] = [
    ("careless", "no_description", "options-schema", "option `factor` of the method has no description"),
    ("careless", "default_out_of_range", "options-defaults", "do not fit its own schema"),
    ("careless", "any_option", "options-unknown", "accepts `no-such-option`"),
    (
        "careless",
        "divides_by_option",
        "options-odd",
        "option `level` of the method set to 0: panicked in new_method",
    ),
    (
        "careless",
        "largest_level",
        "options-limits",
        "option `level` of the method set to 8: panicked in compress_block",
    ),
    ("fake_runner", "ok", "no-model", "which is no model"),
    ("misbehave", "nan", "compress", "has a weight of NaN afterwards"),
    ("careless", "first_linear", "shape-zero", "blocks without linears: panicked in compress_block"),
    (
        "careless",
        "divides_by_tokens",
        "shape-zero",
        "calibration 0 x 8 tokens: mlp.gate_proj of block 0 has a weight of NaN",
    ),
    ("careless", "variance", "shape-one", "panicked in compress_block: attempt to divide by zero"),
    ("careless", "whole_groups", "shape-uneven", "columns are left over"),
    ("careless", "ignores_strides", "shape-strided", "laid out column after column give other weights"),
    ("careless", "short_index", "shape-large", "a position fits in 16 bits"),
    (
        "careless",
        "compares",
        "not-a-number",
        "a weight of NaN: panicked in compress_block: numbers can be compared",
    ),
    ("fake_engine", "", "engine", "linear of block 0 is [3, 4], the block says [4, 3]"),
    ("fake_runner", "nan", "scores", "a log-likelihood of NaN"),
    ("fake_runner", "panic", "scores", "panicked in score: asked to panic"),
    ("fake_runner", "short", "scores", "requests"),
    ("fake_runner", "batch", "batches", "alone"),
    ("fake_runner", "long", "continuations", "6 new tokens where 5 are the most"),
    ("careless", "clock", "determinism", "two runs with one seed"),
    ("careless", "thread_count", "threads", "with 1 threads: weights"),
    ("careless", "shared_state", "two-at-once", "with another beside it than alone"),
    ("careless", "leaks", "memory", "KiB of memory"),
    ("careless", "leaks_files", "memory", "open files"),
    ("careless", "leaks_threads", "memory", "threads"),
    ("careless", "goes_on", "cancellation", "reports success although the engine had answered"),
    ("careless", "own_words", "cancellation", "it did not end as stopped: it did not work"),
    ("careless", "remembers", "cancellation", "a run after others were stopped ends otherwise than before"),
    ("careless", "own_words", "engine-errors", "the engine's message is lost: it did not work"),
    ("careless", "goes_on", "wrong-names", "linears that do not exist were compressed without an error"),
    ("careless", "works_no_more", "panic-safety", "after a panic it no longer works"),
];

#[test]
fn every_check_finds_the_carelessness_that_is_its_own() {
    let sandbox = Sandbox::bare();
    for (plugin, mode, check, says) in CARELESS {
        let lines = report(&sandbox, &artifacts::hostile(plugin), mode, &["--only", check], 1);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].verdict, "failed", "{plugin} {mode}: {lines:?}");
        assert!(lines[0].why.contains(says), "{plugin} {mode}: {lines:?}");
        assert_eq!(lines[0].why.lines().count(), 1, "{plugin} {mode}: {lines:?}");
    }
}

#[test]
fn every_check_has_been_seen_to_fail() {
    let sandbox = Sandbox::bare();
    let failing =
        NO_PLUGINS.map(|(_, check, ..)| check).into_iter().chain(DEATHS.map(|(_, _, check, ..)| check));
    let failing: Vec<&str> = failing.chain(CARELESS.map(|(_, _, check, _)| check)).collect();
    for line in report(&sandbox, &artifacts::hostile("no_header"), "", &[], 1) {
        assert!(failing.contains(&line.name.as_str()), "nothing fails {}", line.name);
    }
}

#[test]
fn the_seed_decides_what_is_drawn() {
    let sandbox = Sandbox::bare();
    let file = artifacts::plugin("rtn");
    let file = file.to_str().expect("text");
    let seen = |further: &[&str]| {
        let mut arguments = vec!["plugins", "check", file, "--only", "compress"];
        arguments.extend(further);
        let finished = sandbox.run(&arguments).expect_code(0);
        let seed = finished.stderr.trim().rsplit(' ').next().map(str::to_owned);
        (finished.stdout, seed.expect("a seed"))
    };
    let (first, seed) = seen(&[]);
    assert_eq!(seen(&["--reproduce", &seed]), (first.clone(), seed));
    assert_ne!(seen(&["--reproduce", "1"]).0, seen(&["--reproduce", "2"]).0);
}

#[test]
fn a_check_of_something_else_says_what_it_is() {
    let sandbox = Sandbox::bare();
    let text = sandbox.path("libtext.so");
    std::fs::write(&text, "not a library").expect("file");
    let lines = report(&sandbox, &text, "", &[], 1);
    assert!(
        lines[0].verdict == "failed" && lines[0].why.contains("not a loadable shared object"),
        "{lines:?}"
    );
    let missing = sandbox.run(&["plugins", "check", "./nowhere.so"]).expect_code(2);
    missing.expect_message(&["./nowhere.so", "no such file"]);
    let unknown = sandbox.run(&["plugins", "check", "rtn", "--only", "compres"]).expect_code(2);
    unknown.expect_message(&["compres", "'compress'"]);
}
