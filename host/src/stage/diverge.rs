//! Divergence: how far a compressed model's distributions over the next token have moved from the dense one's, window by window of a text.
//! Both models are open at once, so what the stage costs says nothing of either.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use llmcb_plugin_api::loader::RunnerHandle;
use llmcb_plugin_api::sdk::{Error, Result};
use serde_json::Value;

use super::lines::{resume, write_line};
use super::load;
use super::task::{self, Asked, Ready};
use crate::metrics::{Divergence, divergences};
use crate::tasks::{ItemResult, Outcome, Prepared, TokenRequest};
use crate::worker::protocol::{StageOrder, StageOutcome, Work};
use crate::worker::{Services, Usage};

/// Windows so far, one JSON object a line.
const WINDOWS: &str = "windows.jsonl";
/// How far the probabilities of a row, each rounded to 32 bits, may be from adding up to 1.
const SLACK: f64 = 1e-2;

pub(super) fn run(
    order: &StageOrder,
    runner: &mut RunnerHandle,
    services: &Arc<Services>,
    usage: &Usage,
) -> Result<StageOutcome> {
    let Work::Diverge { task, limit, .. } = &order.work else {
        return Err(Error::failed("not a diverge stage"));
    };
    // A runner that does not do this says so before any work.
    runner.log_probabilities(&[runner.model()?.prefix_token.unwrap_or(0)])?;
    let asked = Asked { task, limit: *limit, shots: 0 };
    let Ready { prepared, requests, outcome } = task::begin(order, runner, services, usage, &asked)?;
    if !prepared.is_perplexity() {
        return Err(Error::invalid(format!("{task}: distributions are compared on perplexity tasks only")));
    }
    usage.phase("comparing");
    let items = compare(order, runner, services, usage, &prepared, &requests.tokens)?;
    usage.phase("metrics");
    task::end(order, &prepared, &items, WINDOWS, outcome)
}

fn compare(
    order: &StageOrder,
    runner: &mut RunnerHandle,
    services: &Arc<Services>,
    usage: &Usage,
    prepared: &Prepared,
    windows: &[TokenRequest],
) -> Result<Vec<ItemResult>> {
    let file = order.directory.join(WINDOWS);
    let pieces: Vec<_> = (0..windows.len()).map(|i| i..i + 1).collect();
    let (mut items, done): (Vec<ItemResult>, usize) = resume(&file, &pieces)?;
    let cannot_write = |e: std::io::Error| Error::failed(format!("cannot write {}: {e}", file.display()));
    let mut out = File::options().append(true).open(&file).map_err(cannot_write)?;
    let total = windows.len() as u64;
    services.stage_progress(items.len() as u64, total, "windows");
    let mut dense: Option<RunnerHandle> = None;
    let mut first_token = windows[..done].iter().map(length).sum();
    for window in &windows[done..] {
        services.check_cancelled()?;
        // The last token is only predicted.
        let mut given = [window.context.as_slice(), &window.continuation].concat();
        given.pop();
        let compressed = runner.log_probabilities(&given)?;
        let dense = match &mut dense {
            Some(dense) => dense,
            none => none.insert(open_dense(order, runner, services)?),
        };
        services.check_cancelled()?;
        services.stage_progress(items.len() as u64, total, "windows");
        let reference = dense.log_probabilities(&given)?;
        services.stage_progress(items.len() as u64, total, "windows");
        let vocabulary = reference.shape()[1];
        if compressed.shape()[1] != vocabulary {
            return Err(different(vocabulary, compressed.shape()[1]));
        }
        let (p, q) = (reference.as_slice::<f32>()?, compressed.as_slice::<f32>()?);
        let found = divergences(p, q, vocabulary, order.threads);
        let wrong = |d: &Divergence| d.sums.iter().any(|sum| (sum - 1.0).abs() > SLACK);
        if found.len() != given.len() || found.iter().any(wrong) {
            return Err(Error::failed(format!(
                "the runner's rows over {vocabulary} tokens are no logarithms of probabilities: they must add up to 1"
            )));
        }
        let item = ItemResult {
            task: prepared.name.clone(),
            doc_id: items.len().to_string(),
            index: items.len(),
            subset: None,
            outcome: Outcome::Divergence {
                first_token,
                kl: found.iter().map(|d| d.kl).sum(),
                agreed: found.iter().filter(|d| d.agrees).count(),
                tokens: found.len(),
            },
            truncated: false,
        };
        let mut bytes = Vec::new();
        write_line(&mut bytes, &item)?;
        out.write_all(&bytes).and_then(|()| out.sync_data()).map_err(cannot_write)?;
        items.push(item);
        first_token += length(window);
        usage.keep();
        services.stage_progress(items.len() as u64, total, "windows");
    }
    Ok(items)
}

fn length(window: &TokenRequest) -> usize {
    window.context.len() + window.continuation.len()
}

fn different(dense: usize, compressed: usize) -> Error {
    Error::unsupported(format!(
        "the dense model has {dense} tokens in its vocabulary and the compressed one {compressed}; their distributions cannot be compared"
    ))
}

/// Opens the dense model with the plugin that runs the compressed one.
fn open_dense(
    order: &StageOrder,
    compressed: &RunnerHandle,
    services: &Arc<Services>,
) -> Result<RunnerHandle> {
    let Work::Diverge { dense, runner, .. } = &order.work else {
        return Err(Error::failed("not a diverge stage"));
    };
    services.stage_progress(0, 0, "loading the dense model");
    let options = Value::Object(runner.options.clone());
    let opened = load(&runner.path)?.open_runner(dense, &options, Arc::<Services>::clone(services))?;
    let (expected, found) = (opened.model()?.vocab_size, compressed.model()?.vocab_size);
    if expected != found {
        return Err(different(expected as usize, found as usize));
    }
    Ok(opened)
}
