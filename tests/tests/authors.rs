//! An author's first minutes: a release, made as it is shipped; in a fresh folder a crate of `plugins new`; cargo; a check; a table with the
//! new plugin's row. Only what the release has is used, and cargo's copies of crates.

use std::path::{Path, PathBuf};
use std::process::Command;

use llmcb_tests::results::{Results, json, validate};
use llmcb_tests::sandbox::{Finished, Sandbox};
use llmcb_tests::{artifacts, cargo};

/// A release of what was built before, always in the same place: cargo keeps what it builds of a crate by where it lies.
fn release(sandbox: &Sandbox) -> PathBuf {
    let mut command = Command::new(artifacts::xtask());
    let out = cargo::target_folder("authors").join("dist");
    command.args(["dist", "--built", "--no-archive", "--out"]).arg(out);
    // Where it finds what was built.
    let target = cargo::target_folder("");
    let made = cargo::run(sandbox, command, &target).expect_code(0);
    PathBuf::from(made.stdout.trim())
}

/// A line of a shell, as an author types it in a fresh folder, with the release's program and cargo.
fn shell(sandbox: &Sandbox, folder: &Path, line: &str) -> Finished {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]);
    let target = cargo::target_folder("authors");
    cargo::surround(sandbox, &mut command, &target);
    command.env("CARGO_NET_OFFLINE", "true").current_dir(folder);
    sandbox.start(command).wait_for(std::time::Duration::from_secs(900))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn a_new_author_gets_to_a_table_with_what_a_release_has() {
    let sandbox = Sandbox::new();
    let release = release(&sandbox);
    what_the_release_has(&sandbox, &release);
    let host = release.join("bin/llmcb-host");
    let folder = sandbox.path("fresh");
    std::fs::create_dir(&folder).expect("folder");
    for (name, kind, further) in [
        ("my-method", "", "--method my-method:bits=3 --backend candle --tasks arc_easy,wikitext2:seqlen=64"),
        (
            "my-backend",
            " --backend",
            "--backend candle,my-backend --method rtn:group_size=32 --tasks arc_easy,wikitext2:seqlen=64 --profile",
        ),
    ] {
        let new =
            shell(&sandbox, &folder, &format!("{} plugins new {name}{kind}", text(&host))).expect_code(0);
        let sdk = release.join("sdk/llmcb-plugin-api");
        new.expect_message(&["the crate of a", &format!("SDK: {}", sdk.display())]);
        let lines: Vec<&str> = new.stdout.lines().collect();
        let [build, check, benchmark] = lines[..] else { panic!("three commands:\n{}", new.stdout) };

        // The commands as they were printed; all after the first are given in the crate's folder.
        shell(&sandbox, &folder, build).expect_code(0);
        let crate_folder = folder.join(name);
        let tested = shell(&sandbox, &crate_folder, "cargo test --release").expect_code(0);
        assert!(tested.stdout.contains("2 passed"), "{}", tested.stdout);
        // The same shapes in every run of this test.
        let checked = shell(&sandbox, &crate_folder, &format!("{check} --reproduce 20")).expect_code(0);
        for bad in ["failed", "crashed"] {
            assert!(!checked.stdout.contains(bad), "{}", checked.stdout);
        }
        let (program, plugin) = benchmark.split_once(" run --plugin ").expect("a run of the plugin");
        let plugin = plugin.split(' ').next().expect("its file");
        let listed = format!("{program} plugins list --plugin-dir $(dirname {plugin})");
        let listed = shell(&sandbox, &crate_folder, &listed).expect_code(0);
        assert!(listed.stdout.contains(name), "{}", listed.stdout);

        // As printed, but of the tiny model and data: the default ones are fetched.
        let surroundings = sandbox.run_arguments("first", &[])[1..].join(" ");
        let first = shell(&sandbox, &crate_folder, &format!("{benchmark} {surroundings}")).expect_code(0);
        let row = |line: &str| line.contains(name) || (line.contains("dense") && kind.contains("backend"));
        assert!(first.stdout.lines().any(row), "{name} has no row:\n{}", first.stdout);
        std::fs::remove_dir_all(sandbox.path("first")).expect("results");

        let arguments = sandbox.run_arguments(&format!("out-{name}"), &[]).join(" ");
        let run = format!("{program} {arguments} --plugin {plugin} {further}");
        let run = shell(&sandbox, &crate_folder, &run).expect_code(0);
        assert!(run.stdout.lines().any(|line| line.contains(name)), "{name} has no row:\n{}", run.stdout);
        its_numbers_are_there(&sandbox.path(&format!("out-{name}")), name);

        // Nothing that is there is ever overwritten.
        let again = shell(&sandbox, &folder, &format!("{} plugins new {name}", text(&host))).expect_code(2);
        again.expect_message(&[name, "not empty", "--path"]);
    }
}

fn what_the_release_has(sandbox: &Sandbox, release: &Path) {
    let name = release.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(name.starts_with("llmcb-host-") && name.ends_with("-linux-gnu"), "{name}");
    for file in [
        "README.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "guide/1-five-minutes.md",
        "sdk/llmcb-plugin-api/src/lib.rs",
        "sdk/llmcb-plugin-api/LICENSE-MIT",
        "bin/plugins/libcandle.so",
        "bin/plugins/libgptq.so",
    ] {
        assert!(release.join(file).is_file(), "the release has no {file}");
    }
    let manifest =
        std::fs::read_to_string(release.join("sdk/llmcb-plugin-api/Cargo.toml")).expect("manifest");
    assert!(!manifest.contains("workspace = true"), "the SDK needs a workspace:\n{manifest}");
    shell(sandbox, release, "sha256sum --check --strict --quiet SHA256SUMS").expect_code(0);
    let summed = std::fs::read_to_string(release.join("SHA256SUMS")).expect("sums").lines().count();
    let files = shell(sandbox, release, "find . -type f | wc -l").expect_code(0);
    assert_eq!(files.stdout.trim(), (summed + 1).to_string(), "every file but the sums themselves has a sum");
}

fn its_numbers_are_there(out: &Path, name: &str) {
    let results = Results::read(out);
    validate("run-result", &results.run);
    let mut ran = 0;
    for stage in results.stages() {
        assert_eq!(stage.status, "done", "{} {}: {}", stage.kind, stage.method, stage.reason);
        let result = json(&stage.folder.join("result.json"));
        ran += usize::from(result["method"]["id"] == name || result["backend"]["id"] == name);
    }
    assert!(ran >= 3, "{name} took part in {ran} stages");
}

#[test]
fn names_and_folders_that_will_not_do_are_refused() {
    let sandbox = Sandbox::bare();
    for (name, says) in [
        ("My Method", "try `my-method`"),
        ("self", "Rust has a use for that word"),
        ("4bit", "a letter first"),
        ("../x", "lower-case letters"),
    ] {
        let finished = sandbox.run(&["plugins", "new", name]).expect_code(2);
        finished.expect_message(&[name, says]);
        assert!(finished.stdout.is_empty());
    }
    std::fs::write(sandbox.path("taken"), "a file").expect("file");
    sandbox.run(&["plugins", "new", "taken"]).expect_code(2).expect_message(&["taken", "--path"]);
    sandbox
        .run(&["plugins", "new", "x", "--path", "taken/x"])
        .expect_code(1)
        .expect_message(&["taken/x", "cannot be written"]);
    let deep = sandbox.run(&["plugins", "new", "x", "--path", "a b/c"]).expect_code(0);
    assert!(deep.stdout.starts_with("cd 'a b/c' && cargo build --release\n"), "{}", deep.stdout);
    assert!(sandbox.path("a b/c/src/lib.rs").is_file());
}
