//! How long metrics take: `time_metrics ITEMS BUILT_IN=COMPONENT.wasm...` scores made-up items with each built-in metric and with the component that
//! computes the same, and prints a JSON object for each pair. `cargo xtask bench metrics` shows the ratios.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use llmcb_host::metrics::check::made_up_questions;
use llmcb_host::metrics::component::Sandbox;
use llmcb_host::metrics::scoring::{Scores, built_in, columns};
use serde_json::json;

/// Each is timed so often; the median counts.
const REPETITIONS: usize = 15;

/// Median seconds of a call, and what it gave.
fn timed<T>(mut call: impl FnMut() -> Result<T, Box<dyn Error>>) -> Result<(f64, T), Box<dyn Error>> {
    let mut last = call()?;
    let mut seconds = Vec::new();
    for _ in 0..REPETITIONS {
        let begin = Instant::now();
        last = call()?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok((seconds[REPETITIONS / 2], last))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let items = arguments.next().ok_or("how many items?")?.parse()?;
    let items = made_up_questions(1, items);
    let cache = tempfile::tempdir()?;
    for pair in arguments {
        let (name, file) = pair.split_once('=').ok_or("BUILT_IN=COMPONENT.wasm")?;
        let native = built_in(name).ok_or("no such metric")?;
        let fields = native.describe().fields()?;
        let bytes = std::fs::read(Path::new(file))?;
        let begin = Instant::now();
        let component = Sandbox::new(Some(cache.path()))?.open(&bytes)?;
        let compile = begin.elapsed().as_secs_f64();
        drop(component);
        let begin = Instant::now();
        let sandbox = Sandbox::new(Some(cache.path()))?;
        let component = sandbox.open(&bytes)?;
        let open = begin.elapsed().as_secs_f64();
        let (describe, _) = timed(|| Ok(component.describe().answer?))?;
        let (ours, expected): (f64, Scores) = timed(|| Ok(native.score(&columns(&fields, &items)?)?))?;
        let (theirs, (scores, fuel)) = timed(|| {
            let called = component.score(columns(&fields, &items)?, items.len(), &Arc::default());
            Ok((called.answer?, called.fuel))
        })?;
        if scores != expected {
            return Err(
                format!("{file} gave {}, the built-in metric {}", scores.value, expected.value).into()
            );
        }
        println!(
            "{}",
            json!({"metric": name, "compile": compile, "open": open, "describe": describe, "built_in": ours, "component": theirs, "fuel": fuel})
        );
    }
    Ok(())
}
