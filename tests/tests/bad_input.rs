//! Bad input: each case ends with a message that names the thing and the way out, with an exit code that is not 0, and with
//! nothing written half.

use std::path::Path;

use llmcb_tests::gguf::Gguf;
use llmcb_tests::model::set_config;
use llmcb_tests::results::{Results, assert_nothing_half_written};
use llmcb_tests::sandbox::{Finished, Sandbox};
use llmcb_tests::{artifacts, model};
use serde_json::{Value, json};

/// What the program said, wherever it said it: errors go to standard error, reasons of failed stages also stand in the table.
fn said(finished: &Finished) -> String {
    format!("{}\n{}", finished.stdout, finished.stderr)
}

/// What was found wrong in a table of cases: all of it, not only the first.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    /// The run must have ended with one of `codes`, said all of `parts`, not panicked, and left nothing half-written and no
    /// score.
    fn check(&mut self, name: &str, sandbox: &Sandbox, finished: &Finished, codes: &[i32], parts: &[&str]) {
        let text = said(finished);
        let mut faults = Vec::new();
        if !finished.code().is_some_and(|code| codes.contains(&code)) {
            faults.push(format!("ended with {:?}, not with one of {codes:?}", finished.status));
        }
        faults.extend(parts.iter().filter(|p| !text.contains(**p)).map(|p| format!("nothing says `{p}`")));
        if text.contains("panicked at") {
            faults.push("the program panicked".into());
        }
        if text.lines().count() >= 60 {
            faults.push("nobody reads that much".into());
        }
        assert_nothing_half_written(&sandbox.out());
        if sandbox.out().join("run.json").is_file() {
            for stage in Results::read(&sandbox.out()).stages() {
                if !matches!(stage.status.as_str(), "failed" | "skipped") || stage.reason.is_empty() {
                    faults.push(format!("{stage:?}"));
                }
            }
        }
        if !faults.is_empty() {
            self.0.push(format!("## {name}: {}\n{text}", faults.join("; ")));
        }
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{} cases\n{}", self.0.len(), self.0.join("\n"));
        }
    }
}

/// Nothing was run (2), or what was run failed (1).
const REFUSED: &[i32] = &[1, 2];

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("file of the tiny model");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("file of the tiny model");
}

/// Rewrites the JSON header of a safetensors file.
fn change_header(path: &Path, edit: impl FnOnce(&mut Value)) {
    change(path, |bytes| {
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("header");
        edit(&mut header);
        let header = serde_json::to_vec(&header).expect("JSON");
        let mut changed = (header.len() as u64).to_le_bytes().to_vec();
        changed.extend(header);
        changed.extend(&bytes[8 + length..]);
        *bytes = changed;
    });
}

/// How a model directory is spoiled, and what must be said.
type ModelCase = (&'static str, fn(&Path), &'static [&'static str]);

const MODELS: &[ModelCase] = &[
    ("no weights", |m| std::fs::remove_file(m.join("model.safetensors")).expect("remove"), &["no weights"]),
    ("no config", |m| std::fs::remove_file(m.join("config.json")).expect("remove"), &["config.json"]),
    (
        "config that is no JSON",
        |m| std::fs::write(m.join("config.json"), "{\"model_type\": ").expect("write"),
        &["config.json", "not valid JSON"],
    ),
    (
        "truncated weights",
        |m| change(&m.join("model.safetensors"), |b| b.truncate(b.len() / 2)),
        &["model.safetensors", "truncated or damaged"],
    ),
    (
        "empty weights",
        |m| change(&m.join("model.safetensors"), Vec::clear),
        &["model.safetensors", "too short"],
    ),
    (
        "absurd header length",
        |m| change(&m.join("model.safetensors"), |b| b[..8].copy_from_slice(&u64::MAX.to_le_bytes())),
        &["model.safetensors", "claims a header"],
    ),
    (
        "offsets outside the file",
        |m| {
            change_header(&m.join("model.safetensors"), |header| {
                header["lm_head.weight"]["data_offsets"] = json!([1_u64 << 40, (1_u64 << 40) + 76_800]);
            });
        },
        &["model.safetensors"],
    ),
    (
        "weights that are a git-lfs pointer",
        |m| {
            let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
            std::fs::write(m.join("model.safetensors"), pointer).expect("write");
        },
        &["Git LFS pointer", "git lfs pull"],
    ),
    (
        "a tensor that is not there",
        |m| {
            change_header(&m.join("model.safetensors"), |header| {
                let header = header.as_object_mut().expect("object");
                let tensor = header.remove("model.layers.1.mlp.up_proj.weight").expect("tensor");
                header.insert("model.layers.1.mlp.another.weight".into(), tensor);
            });
        },
        &["model.layers.1.mlp.up_proj.weight"],
    ),
    (
        "a config of a wider model",
        |m| set_config(m, "intermediate_size", json!(256)),
        &["mlp", "[128, 64]", "[256, 64]"],
    ),
    ("a config of a deeper model", |m| set_config(m, "num_hidden_layers", json!(9)), &["model.layers.3."]),
    (
        "a config with a larger vocabulary",
        |m| set_config(m, "vocab_size", json!(5000)),
        &["embed_tokens", "5000"],
    ),
    (
        "a config whose heads do not divide",
        |m| set_config(m, "num_key_value_heads", json!(3)),
        &["num_attention_heads", "num_key_value_heads"],
    ),
    ("a config without a width", |m| set_config(m, "hidden_size", Value::Null), &["hidden_size"]),
    ("a config with absurd sizes", |m| set_config(m, "vocab_size", json!(u64::MAX)), &["vocab_size"]),
    (
        "an unknown architecture",
        |m| {
            set_config(m, "model_type", json!("rwkv9"));
            set_config(m, "architectures", json!(["Rwkv9ForCausalLM"]));
        },
        &["rwkv9", "supported"],
    ),
    (
        "no tokenizer",
        |m| std::fs::remove_file(m.join("tokenizer.json")).expect("remove"),
        &["no tokenizer.json"],
    ),
    (
        "a damaged tokenizer",
        |m| change(&m.join("tokenizer.json"), |b| b.truncate(b.len() / 2)),
        &["tokenizer.json"],
    ),
    (
        "weights that are not numbers",
        |m| {
            change(&m.join("model.safetensors"), |b| {
                let at = b.len() - 64;
                b[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            });
        },
        &["model.norm.weight", "NaN"],
    ),
];

#[test]
fn models_that_cannot_be_opened() {
    let mut faults = Faults::default();
    let sandbox = Sandbox::new();
    for (name, spoil, parts) in MODELS {
        sandbox.refresh();
        spoil(&sandbox.model());
        let further = ["--method", "rtn:group_size=32", "--tasks", "arc_easy", "--limit", "2"];
        let finished = sandbox.run(&sandbox.run_arguments("out", &further));
        let model = sandbox.model();
        let mut all = parts.to_vec();
        all.push(model.to_str().expect("text"));
        faults.check(name, &sandbox, &finished, REFUSED, &all);
    }
}

fn gguf_cases() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with = |edit: fn(&mut Gguf)| {
        let mut gguf = Gguf::llama();
        edit(&mut gguf);
        gguf.bytes()
    };
    vec![
        ("empty", Vec::new(), "is not a GGUF file"),
        ("another file", b"PK\x03\x04 and so on".to_vec(), "is not a GGUF file"),
        ("nothing behind the magic", b"GGUF".to_vec(), "truncated or damaged"),
        ("version 7", with(|g| g.version = Some(7)), "GGUF version 7"),
        (
            "absurd number of tensors",
            with(|g| g.claimed_tensors = Some(u64::MAX)),
            "claims 18446744073709551615 tensors",
        ),
        ("absurd number of pairs", with(|g| g.claimed_pairs = Some(1 << 60)), "metadata pairs"),
        (
            "absurd array",
            Gguf::llama().empty_array("tokenizer.ggml.tokens", 1 << 62).bytes(),
            "tokenizer.ggml.tokens",
        ),
        (
            "offset far outside",
            Gguf::llama().tensor("token_embd.weight", &[64, 300], 1 << 40).bytes(),
            "token_embd.weight",
        ),
        (
            "offset and size that overflow",
            Gguf::llama().tensor("token_embd.weight", &[64, 300], u64::MAX - 31).bytes(),
            "token_embd.weight",
        ),
        (
            "extents whose product overflows",
            Gguf::llama().tensor("token_embd.weight", &[1 << 40, 1 << 40], 0).bytes(),
            "token_embd.weight",
        ),
        ("offset off the alignment", Gguf::llama().tensor("token_embd.weight", &[4], 7).bytes(), "alignment"),
        ("seven dimensions", Gguf::llama().tensor("token_embd.weight", &[1; 7], 0).bytes(), "7 dimensions"),
        ("an unknown architecture", Gguf::default().text("general.architecture", "rwkv9").bytes(), "rwkv9"),
    ]
}

#[test]
fn gguf_files_that_lie() {
    let mut faults = Faults::default();
    let sandbox = Sandbox::new();
    for (name, bytes, part) in gguf_cases() {
        sandbox.refresh();
        std::fs::write(sandbox.path("model.gguf"), bytes).expect("file");
        let mut arguments = sandbox.run_arguments("out", &["--tasks", "arc_easy", "--limit", "2"]);
        let file = sandbox.path("model.gguf").display().to_string();
        arguments[2].clone_from(&file);
        let finished = sandbox.run(&arguments);
        faults.check(name, &sandbox, &finished, REFUSED, &[part, &file]);
    }
}

#[test]
fn options_that_do_not_exist_or_are_out_of_range() {
    let mut faults = Faults::default();
    let sandbox = Sandbox::new();
    let cases: &[(&str, &[&str])] = &[
        ("gptq:bitz=4", &["gptq", "bitz", "bits"]),
        ("gptq:bits=5", &["gptq", "bits", "5", "2, 3, 4"]),
        ("rtn:bits=99", &["rtn", "bits", "99", "8"]),
        ("rtn:bits=four", &["rtn", "bits", "four"]),
        ("rtn:bits=4,bits=3", &["bits", "twice"]),
        ("wanda:ratio=1.5", &["wanda", "ratio", "1.5"]),
        ("wanda:pattern=much", &["wanda", "pattern", "much"]),
        ("gptq:damping=0", &["gptq", "damping"]),
        ("gptw", &["gptw", "gptq"]),
        ("candle", &["candle", "backend"]),
        ("gptq:", &["gptq"]),
    ];
    for (method, parts) in cases {
        let finished =
            sandbox.run(&sandbox.run_arguments("out", &["--method", method, "--tasks", "arc_easy"]));
        faults.check(method, &sandbox, &finished, &[2], parts);
        assert!(!sandbox.out().exists(), "{method}: {} was made", sandbox.out().display());
    }
}

#[test]
fn a_contradiction_that_only_the_method_sees_is_found_before_any_work() {
    let mut faults = Faults::default();
    let sandbox = Sandbox::new();
    for (method, parts) in
        [("wanda:pattern=4:2", &["pattern", "4:2"][..]), ("rtn:group_size=0", &["group_size", "0"])]
    {
        let finished = sandbox
            .run(&sandbox.run_arguments("out", &["--method", method, "--tasks", "arc_easy", "--no-dense"]));
        faults.check(method, &sandbox, &finished, REFUSED, parts);
    }
}

/// Arguments that replace or follow those of a sound run, the exit code, and what must be said.
type FlagCase = (&'static [&'static str], &'static [&'static str]);

const FLAGS: &[FlagCase] = &[
    (&["--tasks", "arc_esy"], &["arc_esy", "arc_easy"]),
    (&["--tasks", "arc_easy:depth=3"], &["depth"]),
    (&["--tasks", "arc_easy:limit=many"], &["limit"]),
    (&["--tasks", "text:nowhere.txt"], &["nowhere.txt", "no such file"]),
    (&["--tasks", "arc_easy", "--limit", "0"], &["--limit"]),
    (&["--tasks", "arc_easy", "--backend", "cndle"], &["cndle", "candle"]),
    (&["--tasks", "arc_easy", "--backend", "gptq"], &["gptq", "method"]),
    (&["--tasks", "arc_easy", "--backend", "candle:warp=9"], &["candle", "warp"]),
    (&["--tasks", "arc_easy", "--plugin", "nowhere.so"], &["nowhere.so"]),
    (&["--tasks", "arc_easy", "--plugin", "/etc/passwd"], &["/etc/passwd"]),
    (&["--tasks", "arc_easy", "--plugin-dir", "/nowhere"], &["/nowhere"]),
    (&["--tasks", "arc_easy", "--hang-limit", "soon"], &["--hang-limit", "soon"]),
    (&["--tasks", "arc_easy", "--memory-limit", "much"], &["--memory-limit", "much"]),
    (&["--tasks", "arc_easy", "--method", "rtn", "--method", "rtn"], &["rtn"]),
];

#[test]
fn flags_that_make_no_sense() {
    let mut faults = Faults::default();
    let sandbox = Sandbox::new();
    for (further, parts) in FLAGS {
        let finished = sandbox.run(&sandbox.run_arguments("out", further));
        faults.check(&further.join(" "), &sandbox, &finished, &[2], parts);
    }
}

#[test]
fn a_model_that_is_not_there() {
    let mut faults = Faults::default();
    let sandbox = Sandbox::new();
    let mut arguments = sandbox.run_arguments("out", &["--tasks", "arc_easy"]);
    let missing = sandbox.path("nowhere").display().to_string();
    arguments[2].clone_from(&missing);
    let finished = sandbox.run(&arguments);
    faults.check("missing model", &sandbox, &finished, REFUSED, &[&missing]);
}

#[test]
fn plugin_files_named_with_a_flag_that_cannot_be_used() {
    let mut faults = Faults::default();
    let sandbox = Sandbox::new();
    let text = sandbox.path("libtext.so");
    std::fs::write(&text, "not a library").expect("file");
    let cases = [
        (text, "not a shared object"),
        (artifacts::hostile("no_header"), "exports no"),
        (artifacts::hostile("wrong_magic"), "magic bytes"),
        (artifacts::hostile("wrong_major"), "build the plugin against llmcb-plugin-api of ABI 1"),
        (artifacts::hostile("wrong_layout"), "laid out differently"),
        (artifacts::hostile("descriptor_panics"), "no description today"),
        (artifacts::hostile("descriptor_aborts"), "SIGABRT"),
    ];
    for (file, says) in cases {
        let file = file.to_str().expect("text");
        let finished = sandbox.run(&sandbox.run_arguments("out", &["--plugin", file, "--tasks", "arc_easy"]));
        faults.check(file, &sandbox, &finished, &[2], &[file, says]);
        assert!(!sandbox.out().exists(), "{file}");
    }
}

/// How a data file is spoiled, which task reads it, and what must be said.
type DataCase = (&'static str, &'static str, fn(&Path), &'static [&'static str]);

fn replace_line(path: &Path, number: usize, line: &str) {
    let text = std::fs::read_to_string(path).expect("data");
    let mut lines: Vec<&str> = text.lines().collect();
    lines[number - 1] = line;
    std::fs::write(path, lines.join("\n")).expect("data");
}

const DATA: &[DataCase] = &[
    (
        "a line that is no JSON",
        "arc_easy",
        |d| replace_line(&d.join("arc_easy/ARC-Easy-test.jsonl"), 3, "{\"id\": "),
        &["ARC-Easy-test.jsonl, line 3", "is not JSON"],
    ),
    (
        "an answer that is no option",
        "arc_easy",
        |d| {
            let line = r#"{"id": "x", "question": "?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "E"}"#;
            replace_line(&d.join("arc_easy/ARC-Easy-test.jsonl"), 2, line);
        },
        &["ARC-Easy-test.jsonl, line 2", "`answerKey` is `E`"],
    ),
    (
        "a missing field",
        "hellaswag",
        |d| replace_line(&d.join("hellaswag/hellaswag_val.jsonl"), 4, r#"{"ind": 3}"#),
        &["hellaswag_val.jsonl, line 4", "`endings`"],
    ),
    (
        "bytes that are no text",
        "winogrande",
        |d| change(&d.join("winogrande/dev.jsonl"), |b| b[10] = 0xFF),
        &["dev.jsonl, line 1", "is not UTF-8"],
    ),
    (
        "no blank",
        "winogrande",
        |d| {
            let line = r#"{"sentence": "No blank.", "option1": "a", "option2": "b", "answer": "1"}"#;
            replace_line(&d.join("winogrande/dev.jsonl"), 1, line);
        },
        &["dev.jsonl, line 1", "no blank"],
    ),
    (
        "fewer labels than rows",
        "piqa",
        |d| std::fs::write(d.join("piqa/valid-labels.lst"), "0\n1\n").expect("data"),
        &["valid-labels.lst"],
    ),
    (
        "no labels",
        "piqa",
        |d| std::fs::remove_file(d.join("piqa/valid-labels.lst")).expect("data"),
        &["valid-labels.lst"],
    ),
    (
        "a row with a column too few",
        "mmlu",
        |d| replace_line(&d.join("mmlu/test/virology_test.csv"), 2, "question,a,b,c,A"),
        &["virology_test.csv, line 2", "6 columns"],
    ),
    (
        "a subject that is not there",
        "mmlu",
        |d| std::fs::remove_file(d.join("mmlu/test/virology_test.csv")).expect("data"),
        &["virology"],
    ),
    (
        "an empty file",
        "arc_easy",
        |d| std::fs::write(d.join("arc_easy/ARC-Easy-test.jsonl"), "").expect("data"),
        &["ARC-Easy-test.jsonl"],
    ),
    (
        "a text without words",
        "wikitext2:seqlen=64",
        |d| std::fs::write(d.join("wikitext2-raw/wiki.test.raw"), "\n\n").expect("data"),
        &["wiki.test.raw", "no text"],
    ),
    (
        "a text shorter than a window",
        "wikitext2:seqlen=256",
        |d| std::fs::write(d.join("wikitext2-raw/wiki.test.raw"), "Three words here .\n").expect("data"),
        &["256"],
    ),
];

#[test]
fn data_files_that_are_broken() {
    let mut faults = Faults::default();
    let sandbox = Sandbox::new();
    for (name, task, spoil, parts) in DATA {
        sandbox.refresh();
        spoil(&sandbox.data());
        let finished = sandbox.run(&sandbox.run_arguments("out", &["--tasks", task]));
        faults.check(name, &sandbox, &finished, REFUSED, parts);
    }
}

#[test]
fn broken_data_of_one_task_do_not_stop_the_others() {
    let sandbox = Sandbox::new();
    replace_line(&sandbox.data().join("arc_easy/ARC-Easy-test.jsonl"), 3, "{\"id\": ");
    let finished = sandbox.run(&sandbox.run_arguments("out", &["--tasks", "arc_easy,piqa"])).expect_code(1);
    assert!(said(&finished).contains("ARC-Easy-test.jsonl, line 3"), "{}", said(&finished));
    let results = Results::read(&sandbox.out());
    let of = |task: &str| results.stages().into_iter().find(|s| s.task == task).map(|s| s.status);
    assert_eq!(of("piqa").as_deref(), Some("done"));
    assert_ne!(of("arc_easy").as_deref(), Some("done"));
}

#[test]
fn too_little_calibration_text() {
    let mut faults = Faults::default();
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.data().join("wikitext2-raw/wiki.valid.raw"), " Too short .\n").expect("data");
    let further = ["--method", "gptq:group_size=32", "--tasks", "arc_easy", "--no-dense"];
    let finished = sandbox.run(&sandbox.run_arguments("out", &further));
    faults.check("short calibration", &sandbox, &finished, &[1], &["4 windows of 64 tokens"]);
}

#[test]
fn no_network() {
    let mut faults = Faults::default();
    let sandbox = Sandbox::new();
    // Nothing is in the data folder for this task.
    let finished = sandbox.run(&sandbox.run_arguments("out", &["--tasks", "squad_passages:seqlen=64"]));
    faults.check("data set", &sandbox, &finished, REFUSED, &["squad_passages", "--data"]);

    // The default model, and a model of the hub.
    for model in ["smollm2-135m-instruct", "some-org/some-model"] {
        let sandbox = Sandbox::new();
        let mut arguments = sandbox.run_arguments("out", &["--tasks", "arc_easy"]);
        arguments[2] = model.to_owned();
        let finished = sandbox.run(&arguments);
        faults.check(model, &sandbox, &finished, REFUSED, &[model]);
    }

    // A plugin's default benchmark, which needs the default model.
    for plugin in ["librtn.so", "rtn.so", "rtn"] {
        let finished = sandbox.run(&["--plugin", plugin]);
        assert!(finished.code().is_some_and(|code| REFUSED.contains(&code)), "{plugin}: {finished:?}");
        assert!(
            said(&finished).contains("cannot obtain smollm2-135m-instruct"),
            "{plugin}: {}",
            said(&finished)
        );
    }

    let finished = sandbox.run(&["assets", "pull", "piqa"]).expect_code(1);
    finished.expect_message(&["piqa"]);
    let finished = sandbox.run(&["assets", "list"]).expect_code(0);
    assert!(finished.stdout.contains("piqa"), "{}", finished.stdout);
}

#[test]
fn an_output_folder_that_cannot_be_written() {
    let mut faults = Faults::default();
    let sandbox = Sandbox::new();
    let file = sandbox.path("file");
    std::fs::write(&file, "in the way").expect("file");
    for out in [file.clone(), file.join("below"), "/proc/llmcb-results".into()] {
        let out = out.to_str().expect("text");
        let mut arguments = sandbox.run_arguments("out", &["--tasks", "arc_easy"]);
        let at = arguments.iter().position(|a| a == "--out").expect("the flag") + 1;
        arguments[at] = out.to_owned();
        let finished = sandbox.run(&arguments);
        faults.check(out, &sandbox, &finished, &[2], &[out]);
    }
    assert_eq!(std::fs::read_to_string(&file).expect("file"), "in the way");
}

#[test]
fn a_file_that_cannot_grow() {
    // A limit on the size of files, with its signal ignored, makes writes fail as a full disk does; small files still pass.
    let sandbox = Sandbox::new();
    model::write(&sandbox.model(), model::Shape { hidden: 128, ..model::Shape::default() });
    let further = ["--method", "rtn:group_size=32", "--tasks", "arc_easy"];
    let arguments = sandbox.run_arguments("out", &further);
    let mut command = std::process::Command::new("/bin/sh");
    command
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\"")
        .arg(artifacts::host())
        .args(&arguments);
    sandbox.surround(&mut command);
    let finished = sandbox.start(command).wait();
    assert_eq!(finished.code(), Some(1), "{}", said(&finished));
    let results = Results::read(&sandbox.out());
    let stage = results.compression("rtn-group_size=32");
    assert_eq!(stage.status, "failed");
    assert!(stage.reason.contains("too large") || stage.reason.contains("space"), "{}", stage.reason);
    assert!(stage.reason.contains(sandbox.out().to_str().expect("text")), "{}", stage.reason);
    assert_nothing_half_written(&sandbox.out());
    for stage in results.of("dense", "evaluate") {
        assert_eq!(stage.status, "done", "{}", stage.reason);
    }
    // With room again, the same command ends well.
    sandbox.run(&arguments).expect_code(0);
}

/// Runs the program with `disk` being a file system of so many KiB, and copies what it left there to `out`. An error says why there can be no such
/// file system here.
fn run_on_a_disk_of(sandbox: &Sandbox, kib: usize, arguments: &[String]) -> Result<Finished, String> {
    std::fs::create_dir_all(sandbox.path("disk")).expect("folder");
    // The mount ends with the shell.
    let script = format!(
        "mount -t tmpfs -o size={kib}k none disk || exit 77; \"$@\"; code=$?; cp -r disk/out out 2>/dev/null; exit $code"
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "/bin/sh", "-c", &script, "sh"]);
    command.arg(artifacts::host()).args(arguments);
    sandbox.surround(&mut command);
    let output = command.output().map_err(|e| format!("unshare: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let finished =
        Finished { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) };
    match finished.code() {
        Some(77) => Err(finished.stderr),
        _ if finished.stderr.starts_with("unshare:") => Err(finished.stderr),
        _ => Ok(finished),
    }
}

#[test]
fn a_disk_that_is_full_at_any_moment_is_named_with_the_file() {
    let sandbox = Sandbox::new();
    model::write(&sandbox.model(), model::Shape { hidden: 128, ..model::Shape::default() });
    let further = ["--method", "rtn:group_size=32", "--tasks", "arc_easy"];
    let arguments = sandbox.run_arguments("disk/out", &further);
    let (mut reasons, mut whole) = (Vec::new(), 0);
    for kib in [20, 60, 100, 300, 500, 700, 900, 1100, 1300, 1500, 2000, 2400, 2800, 3200, 8000] {
        let finished = match run_on_a_disk_of(&sandbox, kib, &arguments) {
            Ok(finished) => finished,
            Err(reason) => {
                eprintln!("NOT TESTED: a full disk, which `a_file_that_cannot_grow` stands in for: {reason}");
                return;
            }
        };
        let said = said(&finished);
        assert!(!said.contains("panicked at"), "{kib} KiB: {said}");
        assert_nothing_half_written(&sandbox.out());
        if finished.code() == Some(0) {
            whole += 1;
        } else {
            for part in ["No space left on device", "disk/out", "free some space"] {
                assert!(said.contains(part), "{kib} KiB: no `{part}` in\n{said}");
            }
            // The table breaks its lines; standard error does not.
            let lines = finished.stderr.lines().filter(|line| line.contains("No space left"));
            reasons.extend(lines.map(|line| format!("{kib} KiB: {line}")));
        }
        let _ = std::fs::remove_dir_all(sandbox.out());
    }
    assert!(whole >= 1 && !reasons.is_empty(), "{reasons:#?}");
    // Every line that speaks of the disk names a file on it.
    let nameless: Vec<&String> = reasons.iter().filter(|reason| !reason.contains("disk/out")).collect();
    assert!(nameless.is_empty(), "{nameless:#?}");
    for file in [".safetensors", "checkpoint"] {
        assert!(
            reasons.iter().any(|reason| reason.contains(file)),
            "no disk was full at {file}: {reasons:#?}"
        );
    }
}
