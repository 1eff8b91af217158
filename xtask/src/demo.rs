//! `cargo xtask demo`: the main job, end to end, on a real model.

use crate::process::{self, Result, cargo, host, output, root};

/// Four methods on a model of 135 million parameters, with the dense model beside them. Sizes are chosen so that
/// two cores need at most six minutes.
pub fn run(arguments: &[String]) -> Result {
    process::run(cargo().args(["build", "--release"]))?;
    let mut command = std::process::Command::new(host());
    command.current_dir(root()).args([
        "run",
        "--model",
        "smollm2-135m-instruct",
        "--method",
        "rtn:bits=4,group_size=128",
        "--method",
        "magnitude:ratio=0.5",
        "--method",
        "wanda:ratio=0.5",
        "--method",
        "gptq:bits=4,group_size=128,act_order=true",
        "--tasks",
        "squad_passages:seqlen=1024,limit=4,arc_easy,arc_challenge,hellaswag,piqa,winogrande",
        "--limit",
        "20",
        "--calibration-windows",
        "16",
        "--calibration-length",
        "512",
        "--out",
        "demo-results",
    ]);
    process::run(command.args(arguments))
}

/// Writes the JSON Schemas that the host derives from its result types.
pub fn write_schemas() -> Result {
    process::run(cargo().args(["build", "--release", "--package", "llmcb-host"]))?;
    for name in ["stage", "run", "check"] {
        let text = output(std::process::Command::new(host()).args(["__schema", name]))?;
        let file = root().join("host/schema").join(format!("{name}-result.json"));
        std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}
