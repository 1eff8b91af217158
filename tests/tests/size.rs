//! Models that are larger than the memory: compressed block by block, and evaluated block by block.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use llmcb_tests::cgroup::SmallMemory;
use llmcb_tests::model::Shape;
use llmcb_tests::results::{Results, files_below, json};
use llmcb_tests::sandbox::{Finished, Sandbox};
use llmcb_tests::{artifacts, large, model};

/// What a library of products sets aside without using it: twice the third-level cache, which is large on some machines. It counts as data,
/// though not as memory.
fn set_aside() -> u64 {
    let size = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index3/size").unwrap_or_default();
    let kibibytes: u64 = size.trim().trim_end_matches('K').parse().unwrap_or_default();
    2 * 1024 * kibibytes
}

/// Runs the program with so little memory, in bytes: in a control group, where this machine lets us make one, else with a limit of the
/// data of each process. What is mapped from files does not count: the system lets go of it.
fn run_within(sandbox: &Sandbox, limit: u64, arguments: &[String], patience: Duration) -> Finished {
    let group = SmallMemory::new(limit);
    let script = match &group {
        Ok(group) => format!("echo $$ > {} || exit 9; exec \"$@\"", group.door().display()),
        Err(reason) => {
            println!("held by a limit of data, for want of a control group ({reason})");
            format!("ulimit -d {} && exec \"$@\"", (limit + set_aside()) / 1024)
        }
    };
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script, "sh"]).arg(artifacts::host()).args(arguments);
    sandbox.surround(&mut command);
    sandbox.start(command).wait_for(patience)
}

/// Arguments of `compress` with the sandbox's model.
fn compress(sandbox: &Sandbox, method: &str, out: &str, engine: &str) -> Vec<String> {
    let mut arguments = sandbox.run_arguments(out, &["--method", method, "--engine", engine]);
    arguments[0] = "compress".into();
    arguments
}

fn bytes_of(folder: &Path, ending: &str) -> u64 {
    let files = files_below(folder).into_iter().filter(|file| file.to_string_lossy().ends_with(ending));
    files.map(|file| file.metadata().expect("a file").len()).sum()
}

/// Compresses a model of this shape by three methods within `limit` bytes, of which the model alone would take `times` as many. Checkpoints are sharded
/// where they are larger than a shard.
fn compress_within(shape: Shape, limit: u64, times: f64, patience: Duration) {
    let sandbox = Sandbox::new();
    std::fs::remove_dir_all(sandbox.model()).expect("the tiny model");
    let parameters = large::write(&sandbox.model(), shape);
    let model = bytes_of(&sandbox.model(), ".safetensors");
    assert!(model as f64 > times * limit as f64, "{model} bytes are no {times} times {limit}");
    println!("{parameters} parameters, {model} bytes in f16; {limit} bytes of data allowed");
    // A little activation memory, so that calibration spills as well.
    for (method, ending) in
        [("rtn:group_size=64", "dense"), ("wanda", "dense"), ("gptq:group_size=64", "codes")]
    {
        let out = method.split(':').next().expect("a name");
        let arguments = compress(&sandbox, method, out, "candle:activation_memory=1,storage=f16");
        let finished = run_within(&sandbox, limit, &arguments, patience).expect_code(0);
        let folder = sandbox.path(out);
        let result = json(&folder.join("llmcb-result.json"));
        let weights = bytes_of(&folder, ".safetensors");
        let shards =
            files_below(&folder).iter().filter(|f| f.extension().is_some_and(|e| e == "safetensors")).count();
        println!(
            "{method} ({ending}): {:.0} s, peak resident memory {} (file pages counted), {weights} bytes of weights in {shards} files",
            result["wall_seconds"].as_f64().unwrap_or_default(),
            result["peak_memory_bytes"],
        );
        assert!(weights > 0, "{}", finished.stderr);
        std::fs::remove_dir_all(&folder).expect("the checkpoint");
    }
}

/// 24 blocks, 77 million parameters.
const SMALL: Shape =
    Shape { blocks: 24, hidden: 512, intermediate: 1408, heads: 8, key_value_heads: 8, positions: 512 };

#[test]
fn a_model_larger_than_the_memory_is_compressed() {
    compress_within(SMALL, 110 << 20, 1.3, Duration::from_secs(300));
}

/// `cargo test --release -p llmcb-tests --test size -- --ignored --nocapture`: takes minutes and 20 GB of disk.
#[test]
#[ignore = "takes minutes and 20 GB of disk"]
fn a_model_of_nearly_two_billion_parameters_is_compressed_within_less_than_half_its_size() {
    let shape = Shape {
        blocks: 34,
        hidden: 2048,
        intermediate: 5632,
        heads: 16,
        key_value_heads: 16,
        positions: 512,
    };
    compress_within(shape, 1300 << 20, 2.5, Duration::from_secs(3600));
}

#[test]
fn a_model_larger_than_the_memory_is_evaluated() {
    let sandbox = Sandbox::new();
    std::fs::remove_dir_all(sandbox.model()).expect("the tiny model");
    large::write(&sandbox.model(), SMALL);
    let scores = |out: &str, backend: &str, limit: Option<u64>| {
        let further = ["--backend", backend, "--tasks", "wikitext2:seqlen=128"];
        let arguments = sandbox.run_arguments(out, &further);
        let patience = Duration::from_secs(120);
        let finished = match limit {
            Some(limit) => run_within(&sandbox, limit, &arguments, patience),
            None => sandbox.start(sandbox.command(&arguments)).wait_for(patience),
        };
        finished.expect_code(0);
        Results::read(&sandbox.path(out)).log_likelihoods()
    };
    let limit = 110 << 20;
    let streamed = scores("streamed", "candle:residency=stream,batch_tokens=512", Some(limit));
    assert_eq!(streamed, scores("kept", "candle:residency=memory", None));
    // Kept in memory it would not fit: single precision takes twice what the file has.
    assert!(bytes_of(&sandbox.model(), ".safetensors") > limit);
    assert_eq!(model::vocabulary().len(), 300);
}
