//! Metrics: components against the built-in metrics that compute the same, on 10,000 items.

use std::process::Command;

use serde::Deserialize;

use super::Bench;
use crate::guests;
use crate::process::{Result, output, release_folder};

const ITEMS: &str = "10000";

/// Built-in metric, component, language.
const PAIRS: [(&str, &str); 4] = [
    ("brier_score", "C"),
    ("expected_calibration_error", "C"),
    ("token_f1", "JavaScript"),
    ("exact_match", "Python"),
];

/// Seconds.
#[derive(Deserialize)]
struct Timed {
    metric: String,
    /// The first time on a machine.
    compile: f64,
    /// From what was compiled: once in a run.
    open: f64,
    /// A new instance that says what it is: what every score pays for its own.
    describe: f64,
    built_in: f64,
    component: f64,
    fuel: u64,
}

/// Times both and prints the ratios.
pub fn compare(_: &Bench) -> Result {
    guests::build()?;
    let pair = |(name, _): &(&str, &str)| {
        format!("{name}={}", guests::folder().join(format!("{name}.wasm")).display())
    };
    let lines = output(
        Command::new(release_folder().join("examples/time_metrics")).arg(ITEMS).args(PAIRS.iter().map(pair)),
    )?;
    println!("metrics, {ITEMS} items; a component gives the bits of the built-in metric");
    for (line, (_, language)) in lines.lines().zip(PAIRS) {
        let t: Timed = serde_json::from_str(line).map_err(|e| format!("time_metrics: {e}"))?;
        println!(
            "  {} in {language} / built in: {:.2}x ({:.2} ms / {:.2} ms, {:.1} million units of fuel)\n    once on a machine: compiling {:.2} s; once in a run: {:.0} ms; for each task: an instance and its description {:.2} ms",
            t.metric,
            t.component / t.built_in,
            1e3 * t.component,
            1e3 * t.built_in,
            t.fuel as f64 / 1e6,
            t.compile,
            1e3 * t.open,
            1e3 * t.describe
        );
    }
    Ok(())
}
