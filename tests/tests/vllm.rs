//! The backend of vLLM, with a program that stands in for its server.

use std::path::PathBuf;
use std::process::Command;

use llmcb_tests::artifacts::profile_folder;
use llmcb_tests::results::{Results, json};
use llmcb_tests::sandbox::{Finished, Sandbox, are_gone, process_ids};
use rustix::process::Signal;

fn stand_in() -> PathBuf {
    profile_folder().join("examples/vllm_stand_in")
}

/// A run of the tiny model on vLLM's stand-in, which does one wrong thing if told.
fn command(sandbox: &Sandbox, options: &str, further: &[&str], does: &str) -> Command {
    let backend = format!("vllm:executable={}{options}", stand_in().display());
    let mut arguments = sandbox.run_arguments("out", &["--backend", &backend, "--limit", "3"]);
    arguments.extend(further.iter().map(|argument| (*argument).to_owned()));
    let mut command = sandbox.command(&arguments);
    command.env("LLMCB_STAND_IN", does).env("LLMCB_STAND_IN_PID", sandbox.path("pids"));
    command
}

fn run(sandbox: &Sandbox, options: &str, further: &[&str], does: &str) -> Finished {
    sandbox.start(command(sandbox, options, further, does)).wait()
}

/// Whether the server and what it has started are gone, which may take a moment.
fn is_gone(sandbox: &Sandbox) -> bool {
    let pids = process_ids(&sandbox.path("pids"));
    assert_eq!(pids.len(), 2);
    are_gone(&pids)
}

#[test]
fn a_checkpoint_is_scored_and_timed_by_one_server_which_ends_with_the_run() {
    let sandbox = Sandbox::new();
    let further = [
        ["--method", "rtn:bits=4,group_size=32"],
        ["--tasks", "arc_easy,hellaswag"],
        ["--workload", "batch=2,prompt=16,new=4,warm_up=1,repetitions=2"],
    ];
    run(&sandbox, "", &further.concat(), "slow start").expect_code(0);
    let results = Results::read(&sandbox.out());
    let mut found = Vec::new();
    for stage in results.stages() {
        let result = json(&stage.folder.join("result.json"));
        assert_eq!(stage.status, "done", "{}", stage.reason);
        if let Some(compute) =
            result["model"]["info"]["library"].as_str().map(|_| &result["model"]["info"]["compute"])
        {
            found.push(compute.as_str().expect("how it computes").to_owned());
        }
        if result["profile"].is_object() {
            let profile = &result["profile"];
            let timings = profile["raw"]["timings"].as_array().expect("timings");
            assert_eq!(
                (timings.len(), timings[0]["decode_seconds"].as_array().expect("steps").len()),
                (2, 3)
            );
            assert!(profile["load_seconds"].as_f64().expect("a time") >= 1.6, "the start counts: {profile}");
        }
    }
    found.sort();
    found.dedup();
    // Inputs are rounded on processors that have instructions for it.
    assert!(
        found.len() == 2 && found[0] == "bfloat16" && found[1].starts_with("bfloat16, gptq"),
        "{found:?}"
    );
    assert!(is_gone(&sandbox));
    let left = std::fs::read_dir(sandbox.path("cache/backends/converted")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "what was written to be loaded is gone");
    // What it says is kept with the stage that started it.
    let logs = llmcb_tests::results::files_below(&sandbox.out())
        .into_iter()
        .filter(|file| file.ends_with("log.txt"));
    let said: String = logs.map(|log| std::fs::read_to_string(log).expect("log")).collect();
    assert!(said.contains("INFO starting to load model"), "{said}");
}

#[test]
fn memory_on_gpus_and_time_of_all_processes_are_those_of_the_server_too() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    // The driver's program, which tells the memory of the server and of a process that is none of ours.
    let script = "#!/bin/sh\necho '1, 9000'\nread -r server child < \"$LLMCB_STAND_IN_PID\"\n[ -z \"$server\" ] || echo \"$server, 1500\"\n";
    let tells = sandbox.path("bin/nvidia-smi");
    std::fs::create_dir_all(sandbox.path("bin")).expect("folder");
    std::fs::write(&tells, script).expect("script");
    std::fs::set_permissions(&tells, std::fs::Permissions::from_mode(0o755)).expect("script");
    let mut command = command(&sandbox, "", &["--tasks", "arc_easy"], "works hard");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", sandbox.path("bin").display()));
    let finished = sandbox.start(command).wait().expect_code(0);
    let table = finished.stdout.replace("\n  ", " ");
    assert!(table.contains("GPU memory") && table.contains("1.46 GiB"), "{table}");
    let stages = Results::read(&sandbox.out()).stages();
    let result = json(&stages[0].folder.join("result.json"));
    assert_eq!(result["gpu_peak_memory_bytes"], 1500 << 20);
    // The server computes for one and a half seconds before it is ready; the worker only waits.
    assert!(result["cpu_seconds"].as_f64().expect("a time") > 1.0, "{}", result["cpu_seconds"]);
}

#[test]
fn what_goes_wrong_in_the_server_costs_its_cells_and_is_explained() {
    for (does, options, says) in [
        ("crashes at load", "", "vLLM ended with exit status: 1: ValueError: The input size is not aligned"),
        ("port taken", "", "address already in use"),
        (
            "never ready",
            ",start_limit=1",
            "vLLM was not ready within 1 s (option start_limit): INFO starting to load",
        ),
        (
            "dies in a request",
            "",
            "vLLM ended with exit status: 1: RuntimeError: Engine core initialization failed",
        ),
        ("refuses", "", "400 Bad Request: This model's maximum context length is 8 tokens."),
        ("answers garbage", "", "no JSON"),
        ("gives partial output", "", "vLLM's prompt_logprobs are"),
    ] {
        let sandbox = Sandbox::new();
        let finished = run(&sandbox, options, &["--tasks", "arc_easy"], does).expect_code(1);
        let table = finished.stdout.replace("\n  ", " ");
        assert!(table.contains(says), "{does}: no `{says}` in\n{table}");
        assert!(is_gone(&sandbox), "{does}");
    }
}

#[test]
fn what_vllm_does_not_support_is_skipped_with_the_reason() {
    for (does, says) in [
        ("unsupported format", "Value error, Unknown quantization method: nf2"),
        ("other numbers", "torch.float32 is not supported for quantization method gptq"),
        ("asymmetric", "vLLM runs GPTQ weights on symmetric grids only: compress with symmetric=true"),
    ] {
        let sandbox = Sandbox::new();
        let finished = run(&sandbox, "", &["--tasks", "arc_easy"], does).expect_code(0);
        let table = finished.stdout.replace("\n  ", " ");
        assert!(table.contains("skipped") && table.contains(says), "{does}: no `{says}` in\n{table}");
    }
}

#[test]
fn a_stream_that_breaks_off_is_no_measurement() {
    let sandbox = Sandbox::new();
    let workload = ["--tasks", "arc_easy", "--workload", "batch=2,prompt=16,new=4,warm_up=0,repetitions=1"];
    let finished = run(&sandbox, "", &workload, "breaks a stream off").expect_code(1);
    let table = finished.stdout.replace("\n  ", " ");
    assert!(table.contains("profile: stream of /v1/completions"), "{table}");
}

#[test]
fn the_server_ends_however_the_run_ends() {
    for signal in [Signal::INT, Signal::KILL] {
        let sandbox = Sandbox::new();
        let mut running = sandbox.start(command(&sandbox, "", &["--tasks", "arc_easy"], "never ready"));
        running.wait_until("the server", || {
            std::fs::read_to_string(sandbox.path("pids")).is_ok_and(|ids| ids.contains(' '))
        });
        running.signal(signal);
        running.wait();
        assert!(is_gone(&sandbox), "{signal:?}");
    }
}
