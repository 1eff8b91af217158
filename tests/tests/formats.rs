//! Formats of checkpoints: sizes fall with the bits, scores are those of the numbers that the codes stand for, and what a format cannot
//! hold is refused with one clear message.

use std::path::Path;

use llmcb_tests::model::set_config;
use llmcb_tests::results::{Results, json};
use llmcb_tests::sandbox::Sandbox;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};

const TASKS: [&str; 2] = ["--tasks", "arc_easy,wikitext2:seqlen=64"];

/// Runs a method in a format and gives the results.
fn run(sandbox: &Sandbox, out: &str, method: &str, format: Option<&str>) -> Results {
    let mut further = vec!["--method", method, "--no-dense"];
    further.extend(TASKS);
    if let Some(format) = format {
        further.extend(["--format", format]);
    }
    sandbox.run(&sandbox.run_arguments(out, &further)).expect_code(0);
    Results::read(&sandbox.path(out))
}

fn label(method: &str) -> String {
    method.replace([':', ','], "-")
}

/// What the engine said of the checkpoint.
fn info(results: &Results, method: &str) -> Value {
    let stage = results.compression(&label(method));
    json(&stage.folder.join("result.json"))["checkpoint"]["info"].clone()
}

#[track_caller]
fn assert_alike(found: &Results, expected: &Results, tolerance: f64) {
    let (found, expected) = (found.log_likelihoods(), expected.log_likelihoods());
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() <= tolerance, "{a} is not {b}");
    }
}

/// Reads the integer weights of a GPTQ checkpoint as its format is published, and writes a dense model: nothing of the program's own is used.
fn dense_of_gptq(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(from.join(name), to.join(name)).expect("copy");
    }
    let quantisation = json(&from.join("config.json"))["quantization_config"].clone();
    set_config(to, "quantization_config", Value::Null);
    let bits = quantisation["bits"].as_u64().expect("bits") as usize;
    let v1 = quantisation["checkpoint_format"] == "gptq";
    let bytes = std::fs::read(from.join("model.safetensors")).expect("weights");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let words = |name: &str| -> Vec<u32> {
        let data = tensors.tensor(name).expect(name).data();
        data.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
    };
    let code = |words: &[u32], stride: usize, lane: usize, at: usize| -> u32 {
        let bit = at * bits;
        let word = |i: usize| u64::from(words.get((bit / 32 + i) * stride + lane).copied().unwrap_or(0));
        ((word(0) | word(1) << 32) >> (bit % 32)) as u32 & ((1 << bits) - 1)
    };
    let mut out: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, view) in tensors.tensors() {
        let Some(linear) = name.strip_suffix(".qweight") else {
            if ![".qzeros", ".scales", ".g_idx"].iter().any(|end| name.ends_with(end)) {
                assert_eq!(view.dtype(), Dtype::F32, "{name}");
                out.push((name.clone(), view.shape().to_vec(), view.data().to_vec()));
            }
            continue;
        };
        let rows = view.shape()[1];
        let columns = view.shape()[0] * 32 / bits;
        let (qweight, qzeros) = (words(&name), words(&format!("{linear}.qzeros")));
        let group: Vec<u32> = words(&format!("{linear}.g_idx"));
        let scales = tensors.tensor(&format!("{linear}.scales")).expect("scales");
        assert_eq!(scales.dtype(), Dtype::F16);
        let scale = |g: usize, row: usize| {
            let at = (g * rows + row) * 2;
            half::f16::from_le_bytes([scales.data()[at], scales.data()[at + 1]]).to_f32()
        };
        let zero_words = rows * bits / 32;
        let mut values = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            for (column, group) in group.iter().enumerate() {
                let g = *group as usize;
                let zeros = &qzeros[g * zero_words..(g + 1) * zero_words];
                let zero = (code(zeros, 1, 0, row) + u32::from(v1)) & ((1 << bits) - 1);
                let code = code(&qweight, rows, row, column);
                values.push(scale(g, row) * (code as f32 - zero as f32));
            }
        }
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        out.push((format!("{linear}.weight"), vec![rows, columns], bytes));
    }
    let views = out.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("tensor"))
    });
    safetensors::serialize_to_file(views, None, &to.join("model.safetensors")).expect("weights");
}

/// The table's words, wherever its lines were broken.
fn table(sandbox: &Sandbox) -> String {
    let text = std::fs::read_to_string(sandbox.path("out/table.txt")).expect("table");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn evaluate(sandbox: &Sandbox, model: &Path, out: &str) -> Results {
    let mut arguments = sandbox.run_arguments(out, &TASKS);
    let at = arguments.iter().position(|a| a == "--model").expect("the flag") + 1;
    arguments[at] = model.to_str().expect("text").to_owned();
    sandbox.run(&arguments).expect_code(0);
    Results::read(&sandbox.path(out))
}

#[test]
fn a_gptq_checkpoint_scores_like_the_numbers_it_stands_for() {
    let sandbox = Sandbox::new();
    for (at, method) in [
        "gptq:bits=4,group_size=32",
        "gptq:bits=4,group_size=32,act_order=true,symmetric=true",
        "gptq:bits=3,group_size=48",
        "gptq:bits=2,group_size=-1",
        "rtn:bits=8,group_size=64",
    ]
    .into_iter()
    .enumerate()
    {
        let packed = run(&sandbox, &format!("packed{at}"), method, None);
        let info = info(&packed, method);
        assert!(info["format"].as_str().is_some_and(|f| f.starts_with("gptq ")), "{info:#}");
        assert_eq!(info["notes"], json!([]));
        let folder = packed.checkpoint_folder(&label(method));
        let dense = sandbox.path(&format!("dense{at}"));
        dense_of_gptq(&folder, &dense);
        assert_alike(&packed, &evaluate(&sandbox, &dense, &format!("again{at}")), 1e-3);
        let size =
            |folder: &Path| std::fs::metadata(folder.join("model.safetensors")).expect("weights").len();
        assert!(size(&folder) < size(&dense), "{method}: {} and {} bytes", size(&folder), size(&dense));
        assert_eq!(info["weight_bytes"].as_u64(), Some(size(&folder)), "measured, not promised");
    }
}

#[test]
fn every_format_scores_alike_and_is_smaller_than_dense() {
    let sandbox = Sandbox::new();
    let method = "rtn:bits=4,group_size=32,symmetric=true";
    let dense = run(&sandbox, "dense", method, Some("dense"));
    let note = info(&dense, method)["notes"][0].to_string();
    assert!(note.contains("stored as the numbers"), "{note}");
    let bytes = |results: &Results| info(results, method)["weight_bytes"].as_u64().expect("bytes");
    let gptq = run(&sandbox, "gptq", method, Some("gptq"));
    // Scales in single precision: the very same weights. Those in half precision are other weights, alike among themselves.
    for (format, like, tolerance) in [
        ("compressed-tensors", &dense, 1e-6),
        ("compressed-tensors:int-quantized", &dense, 1e-6),
        ("awq", &gptq, 1e-6),
        ("gguf:q4_0", &gptq, 1e-3),
        ("gguf:q4_1", &gptq, 1e-3),
        ("gguf:q8_0", &gptq, 1e-3),
    ] {
        let out = format.replace(':', "-");
        let results = run(&sandbox, &out, method, Some(format));
        assert_alike(&results, like, tolerance);
        assert!(bytes(&results) < bytes(&dense), "{format}");
        let info = info(&results, method);
        assert_eq!(info["notes"], json!([]), "{format}");
        let family = format.split(':').next().expect("a name");
        assert!(info["format"].as_str().is_some_and(|f| f.starts_with(family)), "{info:#}");
    }
    assert!(bytes(&gptq) < bytes(&dense));
    // Half precision is coarse beside the noise of 4 bits, but no more than that.
    assert_alike(&gptq, &dense, 0.05);
}

#[test]
fn what_is_rounded_once_more_is_said() {
    let sandbox = Sandbox::new();
    let method = "rtn:bits=4,group_size=32";
    let results = run(&sandbox, "out", method, Some("gguf:q4_0"));
    let note = info(&results, method)["notes"][0].to_string();
    assert!(note.contains("requantised to q4_0") && note.contains("beyond the range"), "{note}");
    let table = table(&sandbox);
    assert!(table.contains("requantised to q4_0"), "{table}");
}

#[test]
fn zeros_are_stored_like_other_numbers_and_the_report_says_so() {
    let sandbox = Sandbox::new();
    run(&sandbox, "out", "magnitude:ratio=0.5", None);
    let table = table(&sandbox);
    assert!(table.contains("dense float32") && table.contains("50 % zeros, stored dense"), "{table}");
}

#[test]
fn sparse_formats_leave_the_zeros_out_and_score_the_same() {
    let sandbox = Sandbox::new();
    for (method, format, most) in [
        ("magnitude:pattern=2:4", "compressed-tensors:sparse-24-bitmask", 0.75),
        ("magnitude:pattern=2:4", "compressed-tensors:sparse-bitmask", 0.75),
        ("magnitude:ratio=0.8", "compressed-tensors:sparse-bitmask", 0.5),
    ] {
        let label = method.replace([':', ',', '='], "-");
        let dense = run(&sandbox, &format!("dense-{label}"), method, None);
        let sparse = run(&sandbox, &format.replace(':', "-"), method, Some(format));
        assert_alike(&sparse, &dense, 0.0);
        let info = |results: &Results| {
            let stage = results.stages().into_iter().find(|s| s.kind == "compress").expect("a compression");
            json(&stage.folder.join("result.json"))["checkpoint"]["info"].clone()
        };
        let (dense, sparse) = (info(&dense), info(&sparse));
        let bytes = |info: &Value| info["weight_bytes"].as_f64().expect("bytes");
        // Embedding, head and norms are as large as before.
        assert!(bytes(&sparse) < most * bytes(&dense), "{method}: {} of {}", bytes(&sparse), bytes(&dense));
        let name = format.rsplit(':').next().expect("a name");
        assert_eq!(sparse["format"], format!("compressed-tensors {name} float32"));
        assert_eq!(sparse["notes"], json!([]));
        std::fs::remove_dir_all(sandbox.path(&format.replace(':', "-"))).expect("to be run again");
    }
}

#[test]
fn a_preferred_format_gives_way_and_an_asked_for_one_does_not() {
    let sandbox = Sandbox::new();
    // 5 bits are none of GPTQ's.
    let method = "rtn:bits=5,group_size=32";
    let results = run(&sandbox, "out", method, None);
    let info = info(&results, method);
    assert!(info["format"].as_str().is_some_and(|f| f.starts_with("compressed-tensors")), "{info:#}");
    let note = info["notes"][0].as_str().expect("a note");
    assert!(note.contains("gptq cannot hold it") && note.contains("5 bits"), "{note}");
    for (method, format, code, parts) in [
        (method, "gptq", 2, &["--format gptq", "2, 3, 4, 8 bits"][..]),
        ("rtn:bits=3", "awq", 2, &["--format awq", "holds 4 bits"]),
        ("wanda:ratio=0.5", "gptq", 2, &["--format gptq", "wanda makes no integer codes"]),
        ("rtn:bits=4", "zip", 2, &["--format zip", "dense, gptq, awq"]),
        (
            "wanda:ratio=0.5",
            "compressed-tensors:sparse-24-bitmask",
            1,
            &["format `compressed-tensors:sparse-24-bitmask`", "self_attn.q_proj", "more than two of four"],
        ),
        (
            "rtn:bits=4,group_size=32",
            "compressed-tensors:sparse-bitmask",
            1,
            &["format `compressed-tensors:sparse-bitmask`", "integer codes"],
        ),
        ("rtn:bits=4,group_size=48", "awq", 1, &["format `awq`", "self_attn.q_proj", "group size 48"]),
        (
            "gptq:bits=4,group_size=32,act_order=true",
            "compressed-tensors",
            1,
            &["format `compressed-tensors`", "activation order"],
        ),
    ] {
        let mut arguments = sandbox.run_arguments("refused", &["--method", method, "--format", format]);
        arguments[0] = "compress".into();
        let finished = sandbox.run(&arguments).expect_code(code);
        finished.expect_message(parts);
        assert!(!sandbox.path("refused").exists(), "{method} {format}");
    }
}

#[test]
fn broken_integer_weights_are_named() {
    let sandbox = Sandbox::new();
    let method = "rtn:bits=4,group_size=32";
    let results = run(&sandbox, "out", method, Some("gptq"));
    let folder = results.checkpoint_folder(&label(method));
    let bytes = std::fs::read(folder.join("model.safetensors")).expect("weights");
    let linear = "model.layers.1.mlp.up_proj";
    // Each case: a change of the settings or of one tensor, and what the message names.
    type Change = fn(&str, Dtype, &[usize], &[u8]) -> Option<(Dtype, Vec<usize>, Vec<u8>)>;
    let unchanged: Change = |_, dtype, shape, data| Some((dtype, shape.to_vec(), data.to_vec()));
    let cases: [(&str, Value, Change, &[&str]); 8] = [
        (
            "quant_method",
            json!("exotic"),
            unchanged,
            &["`exotic`", "gptq, awq, compressed-tensors and modelopt"],
        ),
        ("bits", json!(7), unchanged, &["`bits` of the quantisation is 7"]),
        ("bits", json!(8), unchanged, &["q_proj"]),
        ("group_size", json!(16), unchanged, &["q_proj", "scales"]),
        ("checkpoint_format", json!("marlin"), unchanged, &["format `marlin`"]),
        (
            "bits",
            json!(4),
            |name, dtype, shape, data| {
                let half = name.ends_with("1.mlp.up_proj.qweight");
                let shape = if half { vec![shape[0] / 2, shape[1]] } else { shape.to_vec() };
                Some((dtype, shape, data[..if half { data.len() / 2 } else { data.len() }].to_vec()))
            },
            &["1.mlp.up_proj", "32"],
        ),
        (
            "bits",
            json!(4),
            |name, dtype, shape, data| {
                (!name.ends_with("1.mlp.up_proj.scales")).then(|| (dtype, shape.to_vec(), data.to_vec()))
            },
            &["1.mlp.up_proj", "no tensor `scales`"],
        ),
        (
            "bits",
            json!(4),
            |name, dtype, shape, data| {
                let mut data = data.to_vec();
                if name.ends_with("1.mlp.up_proj.g_idx") {
                    data[4] = 77;
                }
                Some((dtype, shape.to_vec(), data))
            },
            &["1.mlp.up_proj", "group 77"],
        ),
    ];
    for (at, (key, value, change, parts)) in cases.into_iter().enumerate() {
        let broken = sandbox.path(&format!("broken{at}"));
        std::fs::create_dir(&broken).expect("folder");
        for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(folder.join(name), broken.join(name)).expect("copy");
        }
        let mut quantisation = json(&folder.join("config.json"))["quantization_config"].clone();
        quantisation[key] = value;
        set_config(&broken, "quantization_config", quantisation);
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let changed: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = tensors
            .tensors()
            .into_iter()
            .filter_map(|(name, view)| {
                let (dtype, shape, data) = change(&name, view.dtype(), view.shape(), view.data())?;
                Some((name, dtype, shape, data))
            })
            .collect();
        let views = changed.iter().map(|(name, dtype, shape, data)| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), data).expect("tensor"))
        });
        safetensors::serialize_to_file(views, None, &broken.join("model.safetensors")).expect("weights");
        let mut arguments = sandbox.run_arguments(&format!("bad{at}"), &["--tasks", "arc_easy"]);
        let model = arguments.iter().position(|a| a == "--model").expect("the flag") + 1;
        arguments[model] = broken.to_str().expect("text").to_owned();
        let finished = sandbox.run(&arguments).expect_code(1);
        let said = format!("{}\n{}", finished.stdout, finished.stderr);
        for part in parts {
            assert!(said.contains(part), "case {at} ({linear}): nothing says `{part}`:\n{said}");
        }
        assert!(!said.contains("panicked at"), "{said}");
    }
}
