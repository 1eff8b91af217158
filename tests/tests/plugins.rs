//! Finding, listing and describing plugins: good ones, broken ones, and two with one id.

use llmcb_tests::artifacts;
use llmcb_tests::sandbox::{Finished, Sandbox};
use serde_json::Value;

/// Files that cannot be used, and what is said of each.
const BROKEN: [(&str, &str); 9] = [
    ("wrong_magic", "does not begin with the magic bytes"),
    ("wrong_major", "built for plugin ABI 2.2, this host has 1.2"),
    ("newer_minor", "built for plugin ABI 1.99, this host has 1.2"),
    ("no_root", "root"),
    ("wrong_layout", "laid out differently"),
    ("older_layout", "laid out differently"),
    ("descriptor_panics", "panicked in descriptor: no description today"),
    ("descriptor_aborts", "crashed: SIGABRT"),
    ("bad_descriptor", "id `Not An Id`"),
];

fn list(sandbox: &Sandbox, arguments: &[&str]) -> (Finished, Vec<Value>) {
    let mut all = vec!["plugins", "list", "--json"];
    all.extend(arguments);
    let finished = sandbox.run(&all).expect_code(0);
    let plugins: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    let plugins = plugins.as_array().expect("a list").clone();
    (finished, plugins)
}

fn file<'a>(plugins: &'a [Value], id: &str) -> Option<&'a str> {
    plugins.iter().find(|p| p["id"] == id).and_then(|p| p["file"].as_str())
}

#[test]
fn broken_files_get_one_line_each_and_never_stop_the_others() {
    let sandbox = Sandbox::bare();
    let folder = sandbox.path("plugins");
    for (name, _) in BROKEN {
        sandbox.link(&artifacts::hostile(name), "plugins");
    }
    sandbox.link(&artifacts::hostile("misbehave"), "plugins");
    sandbox.link(&artifacts::hostile("no_header"), "plugins");
    std::fs::write(folder.join("libtext.so"), "not a library").expect("file");
    let sound = std::fs::read(artifacts::hostile("misbehave")).expect("plugin");
    std::fs::write(folder.join("libcut.so"), &sound[..sound.len() / 3]).expect("file");

    let (finished, plugins) = list(&sandbox, &["--plugin-dir", folder.to_str().expect("text")]);
    for id in artifacts::PRODUCT.into_iter().chain(["misbehave"]) {
        assert!(file(&plugins, id).is_some(), "{id} is missing:\n{}", finished.stderr);
    }
    for (name, says) in BROKEN {
        let lines: Vec<&str> =
            finished.stderr.lines().filter(|l| l.contains(&format!("lib{name}.so"))).collect();
        assert_eq!(lines.len(), 1, "{name}:\n{}", finished.stderr);
        assert!(lines[0].contains(says), "{name}: {}", lines[0]);
    }
    // Files that do not even claim to be plugins are nobody's concern; a folder may be full of them.
    assert!(
        !finished.stderr.contains("no_header") && !finished.stderr.contains("libtext"),
        "{}",
        finished.stderr
    );
    assert_eq!(finished.stderr.lines().filter(|l| !l.contains("/lib")).count(), 0, "{}", finished.stderr);

    // Again, with descriptors remembered: the same.
    let (again, plugins_again) = list(&sandbox, &["--plugin-dir", folder.to_str().expect("text")]);
    assert_eq!(plugins, plugins_again);
    assert_eq!(finished.stderr, again.stderr);
}

#[test]
fn of_two_plugins_with_one_id_the_first_is_used_and_the_other_named() {
    let sandbox = Sandbox::bare();
    let twin = sandbox.link(&artifacts::hostile("twin"), "plugins");
    let (twin, folder) =
        (twin.to_str().expect("text"), twin.parent().and_then(|p| p.to_str()).expect("text"));
    for arguments in [["--plugin-dir", folder], ["--plugin", twin]] {
        let (finished, plugins) = list(&sandbox, &arguments);
        assert!(file(&plugins, "rtn").is_some_and(|file| file.ends_with("libtwin.so")), "{plugins:?}");
        let line = finished.stderr.lines().find(|l| l.contains("two plugins have the id `rtn`"));
        let line = line.unwrap_or_else(|| panic!("nothing is said:\n{}", finished.stderr));
        assert!(line.contains("libtwin.so is used") && line.contains("librtn.so is ignored"), "{line}");
        assert_eq!(plugins.iter().filter(|p| p["id"] == "rtn").count(), 1);
    }
    let (_, plugins) = list(&sandbox, &[]);
    assert!(file(&plugins, "rtn").is_some_and(|file| file.ends_with("librtn.so")), "{plugins:?}");
}

#[test]
fn a_name_finds_its_file() {
    let sandbox = Sandbox::bare();
    sandbox.link(&artifacts::hostile("misbehave"), "plugins");
    let folder = sandbox.path("plugins");
    let folder = folder.to_str().expect("text");
    let path = format!("{folder}/libmisbehave.so");
    for name in ["misbehave", "misbehave.so", "libmisbehave.so", &path] {
        let info = sandbox
            .run(&["plugins", "info", "misbehave", "--plugin", name, "--plugin-dir", folder])
            .expect_code(0);
        assert!(info.stdout.contains("Does one wrong thing of your choice."), "{name}: {}", info.stdout);
    }
    let mut command = sandbox.command(&["plugins", "info", "misbehave"]);
    command.env("LLMCB_PLUGIN_PATH", format!("/nowhere:{folder}"));
    let info = sandbox.start(command).wait().expect_code(0);
    for option in ["mode", "block", "seconds", "factor", "0.9", "stubborn"] {
        assert!(info.stdout.contains(option), "no {option}:\n{}", info.stdout);
    }
}

#[test]
fn info_as_json_is_the_descriptor() {
    let sandbox = Sandbox::bare();
    for id in artifacts::PRODUCT {
        let info = sandbox.run(&["plugins", "info", id, "--json"]).expect_code(0);
        let descriptor: Value = serde_json::from_str(&info.stdout).expect("JSON");
        assert_eq!(descriptor["id"], id);
        for role in descriptor["roles"].as_array().expect("roles") {
            jsonschema::validator_for(&role["options"]).expect("a valid schema");
        }
    }
}

#[test]
fn settings_compared_with_published_code_can_be_run_and_are_within_their_limit() {
    let file = artifacts::repository_file("tests/golden/methods.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(file).expect("file")).expect("JSON");
    let number = |value: &Value| value.as_f64().expect("a number");
    let sandbox = Sandbox::new();
    let settings = golden["settings"].as_array().expect("settings");
    assert!(!settings.is_empty());
    for setting in settings {
        let method = setting["method"].as_str().expect("a method");
        let further = ["--dry-run", "--method", method, "--tasks", "wikitext2:seqlen=64"];
        sandbox.run(&sandbox.run_arguments("out", &further)).expect_code(0);
        let difference =
            (number(&setting["perplexity"]) / number(&setting["reference_perplexity"]) - 1.0).abs();
        // A setting whose outcome is a matter of luck has a limit of its own, and says so.
        let limit = setting.get("limit").unwrap_or(&golden["limit"]);
        assert!(difference <= number(limit), "{method} is {difference} off");
    }
}
