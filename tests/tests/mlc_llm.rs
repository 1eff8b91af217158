//! The backend of MLC-LLM. Its command line, its server and TVM are stood in for; one test, which is run by name, has the real TVM.

use std::path::Path;
use std::process::Command;

use llmcb_tests::python::{Environment, environment};
use llmcb_tests::results::{Results, json};
use llmcb_tests::sandbox::{Finished, Sandbox, are_gone, process_ids};
use rustix::process::Signal;

const SERVED: &str = ",engine=serve";
const TIMED: [&str; 4] =
    ["--tasks", "arc_easy", "--workload", "batch=2,prompt=16,new=4,warm_up=1,repetitions=2"];

fn installed(sandbox: &Sandbox) -> Environment {
    environment(sandbox, "mlc_llm", &[("mlc_llm_nightly_cpu", "0.20.dev1"), ("apache_tvm_ffi", "0.1.13")])
}

/// A run of the tiny model, in which the stand-in does one wrong thing if told.
fn command(sandbox: &Sandbox, options: &str, further: &[&str], does: &str) -> Command {
    let backend = format!("mlc-llm:python={}{options}", sandbox.path("env/bin/python3").display());
    let mut arguments = sandbox.run_arguments("out", &["--backend", &backend, "--limit", "3"]);
    arguments.extend(further.iter().map(|argument| (*argument).to_owned()));
    let mut command = sandbox.command(&arguments);
    command.env("LLMCB_STAND_IN", does).env("LLMCB_STAND_IN_PID", sandbox.path("pids"));
    command
}

fn run(sandbox: &Sandbox, options: &str, further: &[&str], does: &str) -> Finished {
    sandbox.start(command(sandbox, options, further, does)).wait()
}

/// As [`installed`], with a TVM that stands in for the real one.
fn installed_with_tvm(sandbox: &Sandbox) {
    let packages = installed(sandbox).packages;
    let stand_in = llmcb_tests::artifacts::hostile("tvm_stand_in");
    for file in ["tvm_ffi/lib/libtvm_ffi.so", "tvm/lib/libtvm_runtime.so"] {
        let file = packages.join(file);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("folder");
        std::os::unix::fs::symlink(&stand_in, file).expect("link");
    }
}

/// Whether the server and what it has started are gone, which may take a moment.
fn is_gone(sandbox: &Sandbox) -> bool {
    let pids = process_ids(&sandbox.path("pids"));
    assert_eq!(pids.len(), 2);
    are_gone(&pids)
}

fn count(folder: &Path, end: &str) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(end)).count()
}

#[test]
fn the_server_is_timed_on_what_was_compiled_once_and_says_what_went_in() {
    let sandbox = Sandbox::new();
    installed(&sandbox);
    let further = [&["--method", "rtn:bits=4,group_size=32"][..], &TIMED].concat();
    let finished = run(&sandbox, SERVED, &further, "slow start").expect_code(0);
    assert!(!sandbox.path("model/model.safetensors.index.json").exists(), "the model is left as it was");
    // It gives no likelihoods, so nothing is evaluated with it.
    let table = finished.stdout.replace("\n  ", " ");
    assert!(table.contains("use engine=ffi"), "{table}");
    let mut computes = Vec::new();
    let stages = Results::read(&sandbox.out()).stages();
    for stage in stages.iter().filter(|stage| stage.status == "done") {
        let result = json(&stage.folder.join("result.json"));
        let profile = &result["profile"];
        if !profile.is_object() {
            continue;
        }
        let info = &result["model"]["info"];
        assert_eq!(info["library"], "MLC-LLM 0.20.dev1");
        computes.push(info["compute"].as_str().expect("how it computes").to_owned());
        let timings = profile["raw"]["timings"].as_array().expect("timings");
        assert_eq!((timings.len(), timings[0]["decode_seconds"].as_array().expect("steps").len()), (2, 3));
        assert!(profile["load_seconds"].as_f64().expect("a time") >= 1.5, "the start counts: {profile}");
    }
    computes.sort();
    assert_eq!(computes, ["q0f32", "q0f32, weights of INT4 dequantised"]);
    assert!(is_gone(&sandbox));
    assert_eq!(
        count(&sandbox.path("cache/backends/converted"), ""),
        0,
        "what was written to be loaded is gone"
    );
    assert_eq!(count(&sandbox.path("cache/backends/mlc-libraries"), ".so"), 1, "one library serves both");
}

#[test]
fn what_goes_wrong_costs_its_cells_and_is_explained() {
    for (does, options, says) in [
        (
            "crashes at conversion",
            "",
            "ValueError: The following parameters do not exist in the weight files",
        ),
        ("writes no library", "", "mlc_llm compile wrote no library"),
        (
            "crashes at load",
            "",
            "MLC-LLM ended with exit status: 1: RuntimeError: Insufficient GPU memory error",
        ),
        ("port taken", "", "address already in use"),
        ("never ready", ",start_limit=1", "MLC-LLM was not ready within 1 s (option start_limit)"),
        (
            "dies in a request",
            "",
            "MLC-LLM ended with exit status: 1: InternalError: Check failed: CUDA: out of memory",
        ),
        ("refuses", "", "400 Bad Request: Request prompt has 9 tokens"),
        ("answers garbage", "", "stream of /v1/completions"),
        ("breaks a stream off", "", "stream of /v1/completions"),
        ("gives partial output", "", "MLC-LLM gave 3 of 4 tokens"),
    ] {
        let sandbox = Sandbox::new();
        installed(&sandbox);
        let finished = run(&sandbox, &format!("{SERVED}{options}"), &TIMED, does).expect_code(1);
        let table = finished.stdout.replace("\n  ", " ");
        assert!(table.contains(says), "{does}: no `{says}` in\n{table}");
        assert!(!table.contains("log.txt"), "a file that is gone by now is named: {table}");
        assert!(!sandbox.path("pids").exists() || is_gone(&sandbox), "{does}");
    }
}

#[test]
fn what_is_not_there_or_not_supported_is_skipped_with_the_way_out() {
    let sandbox = Sandbox::new();
    let environment = installed(&sandbox);
    for (options, does, says) in [
        ("", "", "libtvm_ffi.so"),
        (",engine=serve,quantization=q4f16_autoawq", "", "--method awq:group_size=128"),
        (SERVED, "unknown model", "Unknown model type: llama"),
    ] {
        let finished = run(&sandbox, options, &["--tasks", "arc_easy"], does).expect_code(0);
        let table = finished.stdout.replace("\n  ", " ");
        assert!(table.contains("skipped") && table.contains(says), "no `{says}` in\n{table}");
    }
    std::fs::remove_dir(environment.packages.join("apache_tvm_ffi-0.1.13.dist-info")).ok();
    std::fs::remove_dir_all(environment.packages.join("mlc_llm_nightly_cpu-0.20.dev1.dist-info"))
        .expect("remove");
    let finished = run(&sandbox, "", &["--tasks", "arc_easy"], "").expect_code(0);
    let table = finished.stdout.replace("\n  ", " ");
    assert!(table.contains("MLC-LLM is not installed in the environment"), "{table}");
}

#[test]
fn scores_do_not_depend_on_pieces_nor_on_the_length_of_what_came_before() {
    let mut first: Option<Vec<serde_json::Value>> = None;
    for options in ["", ",prefill_chunk_size=3", ",max_batch_size=2,prefill_chunk_size=40"] {
        let sandbox = Sandbox::new();
        installed_with_tvm(&sandbox);
        let further = [
            "--tasks",
            "arc_easy,hellaswag,wikitext2:seqlen=40",
            "--workload",
            "batch=2,prompt=16,new=4,warm_up=1,repetitions=2",
        ];
        run(&sandbox, options, &further, "").expect_code(0);
        let mut found = Vec::new();
        for stage in Results::read(&sandbox.out()).stages() {
            let result = json(&stage.folder.join("result.json"));
            if stage.kind == "profile" {
                assert!(result["profile"]["raw"]["how"].as_str().expect("how").contains(", 1 threads,"));
            }
            found.extend(
                result["metrics"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|_| stage.kind == "evaluate")
                    .cloned(),
            );
        }
        assert!(found.len() >= 3, "{found:?}");
        match &first {
            None => first = Some(found),
            Some(first) => assert_eq!(&found, first, "{options}"),
        }
    }
}

#[test]
fn what_goes_wrong_in_tvm_costs_its_cells_and_is_explained() {
    for (does, options, code, says) in [
        (
            "fails",
            "",
            1,
            "TVM could not run prefill: InternalError: Check failed: (err == cudaSuccess) is false: CUDA: out of memory",
        ),
        ("lacks a function", "", 0, "the model library has no function batch_verify"),
        ("other interface", "", 0, "TVM's interface is 0.2.13, this plugin knows 0.1"),
        (
            "",
            ",max_batch_size=1",
            1,
            "the workload has 2 prompts at once, more than the option max_batch_size = 1",
        ),
        ("", ",max_model_len=18", 1, "the workload's sequences have 19 tokens, the model takes 18"),
    ] {
        let sandbox = Sandbox::new();
        installed_with_tvm(&sandbox);
        let finished = run(&sandbox, options, &TIMED, does).expect_code(code);
        let table = finished.stdout.replace("\n  ", " ");
        assert!(table.contains(says), "{does}{options}: no `{says}` in\n{table}");
    }
}

#[test]
fn the_server_ends_however_the_run_ends() {
    for signal in [Signal::INT, Signal::KILL] {
        let sandbox = Sandbox::new();
        installed(&sandbox);
        let mut running = sandbox.start(command(&sandbox, SERVED, &TIMED, "never ready"));
        running.wait_until("the server", || {
            std::fs::read_to_string(sandbox.path("pids")).is_ok_and(|ids| ids.contains(' '))
        });
        running.signal(signal);
        running.wait();
        assert!(is_gone(&sandbox), "{signal:?}");
    }
}

/// A library that TVM compiles, loaded and run from here: its likelihoods are those of candle, whatever the pieces.
#[test]
#[ignore = "needs TVM: `cargo xtask tvm` installs it and runs this"]
fn a_library_compiled_by_tvm_agrees_with_candle() {
    let python =
        std::env::var("LLMCB_TVM_PYTHON").expect("LLMCB_TVM_PYTHON names an interpreter with apache-tvm");
    let sandbox = Sandbox::new();
    let environment = environment(&sandbox, "mlc_llm", &[("mlc_llm", "0.20")]);
    let folder = Path::new(&python).parent().and_then(Path::parent).expect("an environment").join("lib");
    let with_tvm = std::fs::read_dir(folder).expect("lib").flatten().next().expect("a Python").path();
    for entry in std::fs::read_dir(with_tvm.join("site-packages")).expect("packages").flatten() {
        let _ = std::os::unix::fs::symlink(entry.path(), environment.packages.join(entry.file_name()));
    }
    for options in ["", ",prefill_chunk_size=7,max_batch_size=3"] {
        let out = if options.is_empty() { "whole" } else { "pieces" };
        let backend = format!("candle,mlc-llm:python={}{options}", environment.python.display());
        let further = [
            "--backend",
            &backend,
            "--limit",
            "3",
            "--method",
            "rtn:bits=4,group_size=32",
            "--tasks",
            "arc_easy,hellaswag,wikitext2:seqlen=40",
            "--workload",
            "batch=3,prompt=16,new=4,warm_up=1,repetitions=2",
        ];
        sandbox.run(&sandbox.run_arguments(out, &further)).expect_code(0);
        let run = json(&sandbox.path(out).join("run.json"));
        let cells = run["cells"].as_array().expect("cells");
        let compared = cells.iter().flat_map(|cell| cell["agreement"].as_array().into_iter().flatten());
        let mut tasks = Vec::new();
        for agreement in compared {
            let most = agreement["largest_difference"].as_f64().expect("a difference");
            assert!(most < 1e-3, "{options}: {agreement}");
            tasks.push(agreement["task"].as_str().expect("a task").to_owned());
        }
        tasks.sort();
        let (arc, hellaswag, wikitext) = ("arc_easy", "hellaswag", "wikitext2:seqlen=40");
        assert_eq!(tasks, [arc, arc, hellaswag, hellaswag, wikitext, wikitext], "dense and compressed");
        let stages = Results::read(&sandbox.path(out)).stages();
        assert_eq!(stages.iter().filter(|stage| stage.status != "done").count(), 0);
    }
}
