//! The command line itself: help, completions, man page, scores of a table, and what goes to which stream.

use llmcb_tests::sandbox::Sandbox;

#[test]
fn help_is_there_for_every_command() {
    let sandbox = Sandbox::bare();
    for command in [
        &["--help"][..],
        &["run", "--help"],
        &["compress", "--help"],
        &["eval", "--help"],
        &["plugins", "--help"],
        &["plugins", "check", "--help"],
        &["score", "--help"],
        &["assets", "--help"],
        &["assets", "pull", "--help"],
    ] {
        let finished = sandbox.run(command).expect_code(0);
        assert!(
            finished.stdout.contains("Usage:") && finished.stderr.is_empty(),
            "{command:?}: {finished:?}"
        );
    }
    let version = sandbox.run(&["--version"]).expect_code(0);
    assert!(version.stdout.starts_with("llmcb-host "), "{version:?}");
}

#[test]
fn completions_and_a_man_page_are_generated() {
    let sandbox = Sandbox::bare();
    for shell in ["bash", "zsh", "fish"] {
        let finished = sandbox.run(&["completions", shell]).expect_code(0);
        assert!(finished.stdout.contains("llmcb-host") && finished.stdout.len() > 1000, "{shell}");
    }
    let man = sandbox.run(&["man"]).expect_code(0);
    assert!(man.stdout.contains(".TH") && man.stdout.contains("plugins"), "{}", man.stdout);
}

#[test]
fn nothing_to_do_is_said_so() {
    let sandbox = Sandbox::bare();
    let finished = sandbox.run(&[""; 0]).expect_code(2);
    finished.expect_message(&["nothing to do", "--plugin"]);
    assert!(finished.stdout.is_empty(), "{}", finished.stdout);
    for (arguments, part) in
        [(&["rum"][..], "rum"), (&["run", "--modle", "x"], "--modle"), (&["score"], "TABLE")]
    {
        let finished = sandbox.run(arguments).expect_code(2);
        finished.expect_message(&[part]);
        assert!(finished.stdout.is_empty(), "{}", finished.stdout);
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let sandbox = Sandbox::bare();
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "(\"$0\" plugins list; echo $? >&2) | true"]).arg(llmcb_tests::artifacts::host());
    sandbox.surround(&mut command);
    let output = command.output().expect("shell");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.trim_end().ends_with('0') && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_dry_run_does_nothing() {
    let sandbox = Sandbox::new();
    let further = ["--method", "rtn:group_size=32", "--tasks", "arc_easy,piqa", "--dry-run"];
    let finished = sandbox.run(&sandbox.run_arguments("out", &further)).expect_code(0);
    for part in ["rtn", "arc_easy", "piqa"] {
        assert!(finished.stdout.contains(part), "no {part}:\n{}", finished.stdout);
    }
    assert!(llmcb_tests::results::files_below(&sandbox.out()).is_empty());
}
