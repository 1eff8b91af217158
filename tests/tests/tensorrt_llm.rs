//! The backend of TensorRT-LLM, with a Python package that stands in for it: the driver is the real one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use llmcb_tests::artifacts::repository_file;
use llmcb_tests::python::environment;
use llmcb_tests::results::{Results, files_below, json};
use llmcb_tests::sandbox::{Finished, Sandbox, are_gone, process_ids};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The interpreter of an environment in which the stand-in is installed as TensorRT-LLM of a version.
fn installed(sandbox: &Sandbox, version: &str) -> PathBuf {
    environment(sandbox, "tensorrt_llm", &[("tensorrt_llm", version), ("torch", "2.9.0")]).python
}

/// A run of the tiny model on a stand-in, which does one wrong thing if told.
fn command(sandbox: &Sandbox, python: &Path, options: &str, further: &[&str], does: &str) -> Command {
    let backend = format!("tensorrt-llm:python={}{options}", python.display());
    let mut arguments = sandbox.run_arguments("out", &["--backend", &backend, "--limit", "3"]);
    arguments.extend(further.iter().map(|argument| (*argument).to_owned()));
    let mut command = sandbox.command(&arguments);
    command.env("LLMCB_STAND_IN", does).env("LLMCB_STAND_IN_PID", sandbox.path("pids"));
    command.env("LLMCB_STAND_IN_OPENED", sandbox.path("opened"));
    command
}

fn run(sandbox: &Sandbox, options: &str, further: &[&str], does: &str) -> Finished {
    let python = installed(sandbox, "1.3.0");
    sandbox.start(command(sandbox, &python, options, further, does)).wait()
}

/// Whether the driver and what it has started are gone, which may take a moment.
fn is_gone(sandbox: &Sandbox) -> bool {
    let pids = process_ids(&sandbox.path("pids"));
    assert_eq!(pids.len(), 2);
    are_gone(&pids)
}

/// The table of a run with every cell on one line.
fn table(finished: &Finished) -> String {
    finished.stdout.replace("\n  ", " ")
}

const TIMED: [&str; 2] = ["--workload", "batch=2,prompt=16,new=4,warm_up=1,repetitions=2"];

#[test]
fn checkpoints_are_scored_and_timed_by_one_process_each_which_ends_with_the_run() {
    let sandbox = Sandbox::new();
    let further = [
        &["--method", "rtn:bits=4,group_size=64,symmetric=true"][..],
        &["--tasks", "arc_easy,hellaswag"],
        &TIMED,
    ];
    run(&sandbox, "", &further.concat(), "slow start").expect_code(0);
    let results = Results::read(&sandbox.out());
    let mut computes = Vec::new();
    let mut profiles = 0;
    for stage in results.stages() {
        let result = json(&stage.folder.join("result.json"));
        assert_eq!(stage.status, "done", "{}", stage.reason);
        let info = &result["model"]["info"];
        if info["library"].is_string() {
            assert_eq!((&info["library"], &info["device"]), (&json!("TensorRT-LLM 1.3.0"), &json!("cuda")));
            computes.push(info["compute"].as_str().expect("how it computes").to_owned());
        }
        if result["profile"].is_object() {
            profiles += 1;
            let profile = &result["profile"];
            let timings = profile["raw"]["timings"].as_array().expect("timings");
            assert_eq!(
                (timings.len(), timings[0]["decode_seconds"].as_array().expect("steps").len()),
                (2, 3)
            );
            assert!(profile["load_seconds"].as_f64().expect("a time") >= 1.6, "the start counts: {profile}");
            let how = profile["raw"]["how"].as_str().expect("how it was timed");
            assert!(how.contains("on NVIDIA Stand-in 0, 5.0 GiB of its memory"), "{how}");
        }
    }
    computes.sort();
    computes.dedup();
    assert_eq!((computes, profiles), (vec!["bfloat16".to_owned(), "float16, W4A16_AWQ".to_owned()], 2));
    // The stand-in checks names, types and extents of all tensors as it opens a checkpoint.
    let opened = std::fs::read_to_string(sandbox.path("opened")).expect("what was opened");
    let opened: Vec<&str> = opened.lines().collect();
    assert_eq!((opened.len(), opened.contains(&"float16 W4A16_AWQ")), (2, true), "{opened:?}");
    assert!(opened.contains(&"bfloat16 none"), "{opened:?}");
    assert!(is_gone(&sandbox));
    let left = std::fs::read_dir(sandbox.path("cache/backends/converted")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "what was written to be loaded is gone");
    // What it says is kept with the stage that started it.
    let logs = files_below(&sandbox.out()).into_iter().filter(|file| file.ends_with("log.txt"));
    let said: String = logs.map(|log| std::fs::read_to_string(log).expect("log")).collect();
    assert!(said.contains("Loading safetensors weights") && said.contains("warming up 3"), "{said}");
}

#[test]
fn weights_of_four_bits_are_run_in_the_type_that_is_asked_for() {
    let sandbox = Sandbox::new();
    let methods = [
        "--method",
        "rtn:bits=4,group_size=64,symmetric=true",
        "--format",
        "compressed-tensors",
        "--tasks",
        "arc_easy",
    ];
    run(&sandbox, ",dtype=bfloat16", &methods, "").expect_code(0);
    let opened = std::fs::read_to_string(sandbox.path("opened")).expect("what was opened");
    assert!(opened.contains("bfloat16 W4A16_AWQ") && !opened.contains("float32"), "{opened}");
}

#[test]
fn what_goes_wrong_in_the_driver_costs_its_cells_and_is_explained() {
    for (does, options, says) in [
        ("crashes at load", "", "TensorRT-LLM: ValueError: The size of tensor a (64) must match"),
        (
            "out of memory",
            "",
            "CUDA out of memory. Tried to allocate 2.00 GiB.; options free_gpu_memory_fraction",
        ),
        ("is killed at load", "", "TensorRT-LLM ended with signal: 9"),
        ("never ready", ",start_limit=1", "TensorRT-LLM was not ready within 1 s (option start_limit)"),
        (
            "dies in a request",
            "",
            "TensorRT-LLM ended with exit status: 1: RuntimeError: CUDA error: an illegal",
        ),
        ("hangs", ",request_limit=1", "TensorRT-LLM did not answer within 1 s (option request_limit)"),
        ("answers garbage", "", "TensorRT-LLM: ValueError: it gave a likelihood that is no number"),
        ("gives partial output", "", "TensorRT-LLM's prompt_logprobs lack token"),
        ("", ",arguments=--backend", "option arguments: `--backend` is no name=value"),
        ("", ",arguments=backends=x", "TorchLlmArgs backends Extra inputs are not permitted"),
    ] {
        let sandbox = Sandbox::new();
        let finished = run(&sandbox, options, &["--tasks", "arc_easy"], does).expect_code(1);
        let table = table(&finished);
        assert!(table.contains(says), "{does}: no `{says}` in\n{table}");
        assert!(!sandbox.path("pids").exists() || is_gone(&sandbox), "{does}");
    }
}

#[test]
fn what_tensorrt_llm_does_not_run_is_skipped_with_the_reason() {
    for (does, further, says) in [
        ("no GPU", &[][..], "TensorRT-LLM: PyTorch finds no NVIDIA GPU"),
        ("unknown architecture", &[], "Unknown architecture for AutoModelForCausalLM: LlamaForCausalLM"),
        (
            "",
            &["--method", "rtn:bits=4,group_size=32,symmetric=true"],
            "groups of 32; compress with group_size=64",
        ),
        ("", &["--method", "rtn:bits=4,group_size=64"], "compress with symmetric=true"),
        ("", &["--method", "smoothquant"], "for FP8 without a word"),
    ] {
        let sandbox = Sandbox::new();
        let further = [further, &["--tasks", "arc_easy"]].concat();
        let finished = run(&sandbox, "", &further, does).expect_code(0);
        let table = table(&finished);
        assert!(table.contains("skipped") && table.contains(says), "{does}: no `{says}` in\n{table}");
    }
}

#[test]
fn versions_whose_likelihoods_lack_tokens_are_timed_alone() {
    let sandbox = Sandbox::new();
    let python = installed(&sandbox, "1.3.0rc10");
    let further = [&["--tasks", "arc_easy"][..], &TIMED].concat();
    let finished = sandbox.start(command(&sandbox, &python, "", &further, "")).wait().expect_code(0);
    let table = table(&finished);
    assert!(table.contains("before TensorRT-LLM 1.3.0rc11, and this is 1.3.0rc10"), "{table}");
    let results = Results::read(&sandbox.out());
    let stages = results.stages();
    let done: Vec<&str> =
        stages.iter().filter(|stage| stage.status == "done").map(|stage| stage.kind.as_str()).collect();
    assert_eq!(done, ["profile"]);
}

#[test]
fn where_it_is_not_installed_cells_say_what_to_install() {
    let sandbox = Sandbox::new();
    let python = environment(&sandbox, "tensorrt_llm", &[("torch", "2.9.0")]).python;
    let finished = sandbox.start(command(&sandbox, &python, "", &["--tasks", "arc_easy"], "")).wait();
    let finished = finished.expect_code(0);
    let table = table(&finished);
    assert!(
        table.contains("skipped") && table.contains("needs an NVIDIA GPU, and is installed by hand"),
        "{table}"
    );
}

#[test]
fn a_stream_that_breaks_off_is_no_measurement() {
    let sandbox = Sandbox::new();
    let further = [&["--tasks", "arc_easy"][..], &TIMED].concat();
    let finished = run(&sandbox, "", &further, "breaks a stream off").expect_code(1);
    let table = table(&finished);
    assert!(table.contains("TensorRT-LLM gave 2 of 4 tokens"), "{table}");
}

#[test]
fn the_driver_ends_however_the_run_ends() {
    for signal in [Signal::INT, Signal::KILL] {
        let sandbox = Sandbox::new();
        let python = installed(&sandbox, "1.3.0");
        let mut running =
            sandbox.start(command(&sandbox, &python, "", &["--tasks", "arc_easy"], "never ready"));
        running.wait_until("the driver", || {
            std::fs::read_to_string(sandbox.path("pids")).is_ok_and(|ids| ids.contains(' '))
        });
        running.signal(signal);
        running.wait();
        assert!(is_gone(&sandbox), "{signal:?}");
    }
}

/// What the driver answers to requests.
fn asked(sandbox: &Sandbox, requests: &[Value]) -> Vec<Value> {
    let mut command = Command::new(installed(sandbox, "1.3.0"));
    command
        .arg(repository_file("backends/tensorrt-llm/driver.py"))
        .env("TLLM_WORKER_USE_SINGLE_PROCESS", "1");
    let mut driver =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("driver");
    let mut stdin = driver.stdin.take().expect("its input");
    for request in requests {
        writeln!(stdin, "{request}").expect("a request");
    }
    drop(stdin);
    let output = driver.wait_with_output().expect("its output");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("nothing but answers")).collect()
}

#[test]
fn answers_end_at_tokens_that_stop_and_continuations_are_what_is_generated() {
    let sandbox = Sandbox::new();
    let mut config = json(&sandbox.model().join("config.json"));
    config["torch_dtype"] = json!("bfloat16");
    std::fs::write(sandbox.model().join("config.json"), config.to_string()).expect("configuration");
    let open = json!({"do": "open", "gpus": 1, "arguments": {
        "model": sandbox.model(), "skip_tokenizer_init": true, "dtype": "bfloat16", "max_seq_len": 64,
        "kv_cache_config": {"enable_block_reuse": false},
    }});
    let generate = |most: u32, stop: Vec<u64>| json!({"do": "generate", "prompt": [5, 6, 7], "most": most, "stop": stop});
    let long = asked(&sandbox, &[open.clone(), generate(6, vec![])]);
    assert_eq!(long[0]["answer"]["version"], "1.3.0");
    let tokens: Vec<u64> = serde_json::from_value(long[1]["answer"].clone()).expect("token ids");
    assert_eq!(tokens.len(), 6);
    std::fs::remove_dir_all(sandbox.path("env")).expect("removal");
    let too_long = json!({"do": "score", "prompts": [vec![1; 64]], "first": [1]});
    let whole = json!({"do": "score", "prompts": [[5, 6, 7], [7, 6]], "first": [1, 1]});
    let found = asked(&sandbox, &[open, generate(6, vec![tokens[3]]), too_long, whole]);
    let ended: Vec<u64> = serde_json::from_value(found[1]["answer"].clone()).expect("token ids");
    let end = tokens.iter().position(|token| *token == tokens[3]).expect("it is there");
    assert_eq!(ended, tokens[..end]);
    // What a request does wrong is said, and the next is answered.
    assert!(found[2]["error"].as_str().expect("an error").starts_with("ValueError: `default_max_tokens`"));
    let scores = found[3]["answer"].as_array().expect("likelihoods");
    let lengths: Vec<usize> = scores.iter().map(|tokens| tokens.as_array().map_or(0, Vec::len)).collect();
    assert_eq!(lengths, [2, 1]);
    assert!(scores.iter().flat_map(|tokens| tokens.as_array()).flatten().all(|token| token[0].is_f64()));
}
