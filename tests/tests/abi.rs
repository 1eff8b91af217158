//! Plugins that were built against older minors of the ABI work: they are rebuilt from kept copies of the sources of that time, loaded,
//! checked and run. `tests/abi/README.md` says what is kept.

use std::path::{Path, PathBuf};
use std::process::Command;

use llmcb_tests::results::{Results, json, validate};
use llmcb_tests::sandbox::Sandbox;
use llmcb_tests::{artifacts, cargo};
use serde_json::Value;

/// Kept minors, with the ids of their plugins: a method and a runner.
const KEPT: [(&str, [&str; 2]); 1] = [("1.0", ["abi-1-0-method", "abi-1-0-runner"])];

/// Builds the plugins of a minor with the versions that their own lock file names. Cargo asks no network for what it has already.
fn build(sandbox: &Sandbox, minor: &str) -> PathBuf {
    // Of each minor its own: cargo would take two crates of one name and version in one place for the same.
    let target = cargo::target_folder("abi").join(minor);
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--locked", "--manifest-path"]);
    command.arg(artifacts::repository_file("tests/abi").join(minor).join("Cargo.toml"));
    cargo::run(sandbox, command, &target).expect_code(0);
    target.join("release")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn plugins_of_older_minors_are_loaded_checked_and_run() {
    for (minor, ids) in KEPT {
        let sandbox = Sandbox::new();
        let folder = build(&sandbox, minor);
        let folder = text(&folder);

        let listed = sandbox.run(&["plugins", "list", "--json", "--plugin-dir", folder]).expect_code(0);
        assert!(listed.stderr.is_empty(), "{}", listed.stderr);
        let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
        for id in ids {
            let found = listed.as_array().expect("a list").iter().find(|plugin| plugin["id"] == id);
            let file = found.unwrap_or_else(|| panic!("{id} is not there: {listed:#}"))["file"].as_str();
            let info = sandbox.run(&["plugins", "info", id, "--plugin-dir", folder]).expect_code(0);
            assert!(info.stdout.contains(&format!("as plugins of ABI {minor} could")), "{}", info.stdout);
            check(&sandbox, minor, file.expect("a path"));
        }
        run(&sandbox, folder, ids);
    }
}

fn check(sandbox: &Sandbox, minor: &str, file: &str) {
    let checked = sandbox.run(&["plugins", "check", file, "--json", "--reproduce", "20"]).expect_code(0);
    let report: Value = serde_json::from_str(&checked.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("checks");
    let header = checks.iter().find(|check| check["name"] == "header").expect("the check of the header");
    assert_eq!(
        header["why"],
        format!("ABI {minor}"),
        "it is of another minor: the kept sources were changed"
    );
    for check in checks {
        assert!(check["verdict"] == "passed" || check["verdict"] == "skipped", "{file}: {check}");
    }
}

fn run(sandbox: &Sandbox, folder: &str, [method, runner]: [&str; 2]) {
    let specs = [format!("{method}:bits=3"), format!("candle,{runner}")];
    let further = [
        "--plugin-dir",
        folder,
        "--method",
        &specs[0],
        "--backend",
        &specs[1],
        "--tasks",
        "arc_easy,wikitext2:seqlen=64",
        "--profile",
    ];
    let finished = sandbox.run(&sandbox.run_arguments("out", &further)).expect_code(0);
    assert!(
        finished.stdout.contains(&format!("{method} 3-bit")),
        "the method has no row:\n{}",
        finished.stdout
    );
    let results = Results::read(&sandbox.out());
    validate("run-result", &results.run);
    let mut lacking = 0;
    for stage in results.stages() {
        if stage.kind == "diverge" && stage.status == "skipped" {
            // What runners of this minor did not have yet is answered for them.
            assert!(stage.reason.contains("gives no probabilities"), "{}", stage.reason);
            lacking += 1;
            continue;
        }
        assert_eq!(stage.status, "done", "{} {}: {}", stage.kind, stage.method, stage.reason);
        validate("stage-result", &json(&stage.folder.join("result.json")));
    }
    assert_eq!(lacking, 1, "the engine's own runner has probabilities, the old one has none");
    let label = format!("{method}-bits=3");
    let compressed = &results.of(&label, "compress")[0];
    let checkpoint = &json(&compressed.folder.join("result.json"))["checkpoint"]["info"];
    assert!(checkpoint["format"].as_str().is_some_and(|format| format.contains("3-bit")), "{checkpoint:#}");
    let of = |backend: &str| {
        let cells = results.run["cells"].as_array().expect("cells").iter();
        cells.filter(|cell| cell["backend"] == backend).count()
    };
    assert_eq!((of("candle"), of(runner)), (2, 2), "{:#}", results.run["cells"]);
}
