//! Checks of backends, on a tiny random LLaMA that is written for them.

use std::path::Path;

use llmcb_plugin_api::loader::{EngineHandle, LoadedPlugin, RunnerHandle};
use llmcb_plugin_api::sdk::{
    CalibrationPlan, ErrorKind, PluginKind, Result, Score, ScoreRequest, StatisticsRequest,
};
use llmcb_tiny_model::Shape;
use serde_json::json;
use tempfile::TempDir;

use super::method::refusal;
use super::subject::{Bits, Terms, bits_of};
use super::{Checked, Given, Outcome, fail, open, skip};
use crate::stage::synthetic::Random;

/// What runners are asked to read.
const TEXTS: [&str; 4] = [
    "The garden lies behind the house, and the water runs down to the river.",
    "and",
    "It was the best of times; 1 + 1 = 2.",
    "Übermut tut selten gut — 漢字 🙂",
];

/// Log-likelihoods of one request may differ by so much with what else is in the batch: sums are taken in another order.
const ROUNDING: f64 = 1e-3;

const ENGINE: &str = "engine";
const RUNNER: &str = "runner";

fn folder() -> Result<TempDir, Outcome> {
    tempfile::tempdir().map_err(|e| fail(format!("no temporary folder: {e}")))
}

fn has(plugin: &LoadedPlugin, role: &str) -> bool {
    plugin.descriptor().roles.iter().any(|r| r.role == role)
}

/// The model that a backend is given; the library it needs must be there.
pub(super) fn model(plugin: &LoadedPlugin, seed: u64) -> Result<TempDir, Outcome> {
    if plugin.descriptor().library.is_some() && has(plugin, RUNNER) {
        let options = plugin.normalize_options(RUNNER, &json!({})).map_err(fail)?;
        let status = plugin.find_library(&options).map_err(skip)?;
        if let Some(missing) = status.and_then(|status| status.missing) {
            return Err(skip(missing));
        }
    }
    let folder = folder()?;
    llmcb_tiny_model::write(folder.path(), Shape::default(), &format!("{seed} "))
        .map_err(|e| fail(format!("the tiny model cannot be written: {e}")))?;
    Ok(folder)
}

fn opened_runner(plugin: &LoadedPlugin, model: &Path, terms: &Terms) -> Result<RunnerHandle> {
    let options = terms.options(plugin, RUNNER)?;
    let host = terms.host();
    terms.steps.obeyed("open", plugin.open_runner(model, &options, host))
}

fn opened_engine(plugin: &LoadedPlugin, model: &Path, terms: &Terms) -> Result<EngineHandle> {
    let options = terms.options(plugin, ENGINE)?;
    let host = terms.host();
    terms.steps.obeyed("open", plugin.open_engine(model, &options, host))
}

/// All that the host asks of a backend's roles, once.
pub(super) fn run(plugin: &LoadedPlugin, model: &Path, terms: &Terms) -> Result<Bits> {
    let takes_part = |role: &str| has(plugin, role) && terms.includes(role);
    let runner = takes_part(RUNNER).then(|| opened_runner(plugin, model, terms));
    let engine = takes_part(ENGINE).then(|| opened_engine(plugin, model, terms));
    terms.meet();
    let mut bits = Vec::new();
    if let Some(runner) = runner {
        read(&mut runner?, terms, &mut bits)?;
    }
    if let Some(engine) = engine {
        walk(&mut engine?, terms, &mut bits)?;
    }
    Ok(bits)
}

/// The texts as requests: each cut in two in one place, and the first in every other.
fn requests(runner: &RunnerHandle) -> Result<Vec<ScoreRequest>> {
    let texts = TEXTS.map(str::to_owned);
    let mut requests = Vec::new();
    for tokens in runner.encode(&texts, false)? {
        let cuts: Vec<usize> = match requests.is_empty() {
            true => (1..tokens.len()).step_by(7).collect(),
            false => vec![tokens.len() / 2],
        };
        for cut in cuts.into_iter().filter(|cut| *cut > 0) {
            let (context, continuation) = tokens.split_at(cut);
            requests.push(ScoreRequest { context: context.to_vec(), continuation: continuation.to_vec() });
        }
    }
    Ok(requests)
}

/// What a runner says of the texts.
fn read(runner: &mut RunnerHandle, terms: &Terms, bits: &mut Bits) -> Result<()> {
    let steps = &terms.steps;
    let requests = requests(runner)?;
    let scores = steps.obeyed("score", runner.score(&requests))?;
    for (at, score) in scores.iter().enumerate() {
        bits.push((format!("score {at}"), bits_of(&score.token_log_likelihoods)));
    }
    let prompts: Vec<Vec<u32>> = requests.iter().take(3).map(|r| r.context.clone()).collect();
    match steps.obeyed("generate", runner.generate(&prompts, 4, &[])) {
        Ok(texts) => {
            let texts = texts.into_iter().enumerate();
            bits.extend(texts.map(|(at, tokens)| (format!("continuation {at}"), tokens)));
        }
        Err(error) if error.kind() == ErrorKind::Unsupported => {}
        Err(error) => return Err(error),
    }
    let Some(first) = prompts.first() else { return Ok(()) };
    match steps.obeyed("log_probabilities", runner.log_probabilities(first)) {
        Ok(all) => bits.push(("probabilities".into(), bits_of(&all.to_f32()?))),
        Err(error) if error.kind() == ErrorKind::Unsupported => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// What an engine shows of the model, block by block, with a weight changed on the way.
fn walk(engine: &mut EngineHandle, terms: &Terms, bits: &mut Bits) -> Result<()> {
    let steps = &terms.steps;
    let words = u64::from(engine.model()?.vocab_size.max(1));
    let mut random = Random(terms.seed);
    let windows: Vec<Vec<u32>> =
        (0..2).map(|_| (0..12).map(|_| (random.next() % words) as u32).collect()).collect();
    steps.obeyed("calibrate", engine.calibrate(&windows, &CalibrationPlan::default()))?;
    for index in 0..engine.model()?.blocks {
        let info = steps.obeyed("open_block", engine.open_block(index))?;
        let linears = info.linears.clone();
        let mut block = engine.block(info);
        let request = StatisticsRequest::of(linears.iter().map(|l| l.name.as_str())).sum_squares();
        for statistics in steps.obeyed("input_statistics", block.input_statistics(&request))? {
            if let Some(squares) = statistics.sum_squares {
                bits.push((
                    format!("inputs of {} of block {index}", statistics.linear),
                    bits_of(&squares.to_f32()?),
                ));
            }
        }
        for linear in &linears {
            let weight = steps.obeyed("weight", block.weight(&linear.name))?;
            bits.push((format!("{} of block {index}", linear.name), bits_of(&weight.to_f32()?)));
            if linear.name == linears[0].name {
                steps.obeyed("set_weight", block.set_weight(&linear.name, weight))?;
            }
        }
        let output = steps.obeyed("forward", block.forward(Vec::new()))?;
        bits.push((format!("outputs of block {index}"), bits_of(&output.to_f32()?)));
        drop(block);
        steps.obeyed("close_block", engine.close_block())?;
    }
    Ok(())
}

/// The plugin with a model, if it is a backend that has the role.
fn backend(given: &Given, role: &str) -> Result<(LoadedPlugin, TempDir), Outcome> {
    let plugin = open(&given.path)?;
    if plugin.descriptor().kind != PluginKind::Backend {
        return Err(skip("only for backends"));
    }
    if !has(&plugin, role) {
        return Err(skip(format!("the backend has no {role}")));
    }
    let model = model(&plugin, given.seed)?;
    Ok((plugin, model))
}

/// A runner with the tiny model; the folder must live as long.
fn runner(given: &Given) -> Result<(RunnerHandle, TempDir), Outcome> {
    let (plugin, model) = backend(given, RUNNER)?;
    match opened_runner(&plugin, model.path(), &Terms::new(given)) {
        Ok(runner) => Ok((runner, model)),
        Err(error) if error.kind() == ErrorKind::Unsupported => Err(skip(error)),
        Err(error) => Err(fail(error)),
    }
}

/// What is wrong with a score.
fn fault(request: &ScoreRequest, score: &Score) -> Option<String> {
    let Score { log_likelihood, token_log_likelihoods: tokens, .. } = score;
    let sum: f64 = tokens.iter().map(|t| f64::from(*t)).sum();
    if tokens.len() != request.continuation.len() {
        return Some(format!("{} tokens were scored of {}", tokens.len(), request.continuation.len()));
    }
    if let Some(bad) = tokens.iter().find(|t| !t.is_finite() || **t > ROUNDING as f32) {
        return Some(format!("a token's log-likelihood is {bad}"));
    }
    if !near(*log_likelihood, sum) {
        return Some(format!("a log-likelihood of {log_likelihood}, but its tokens' sum is {sum}"));
    }
    None
}

/// Scores are log-likelihoods, of every token asked for, and requests at the limits are scored or refused.
pub(super) fn scores(given: &Given) -> Checked {
    let (mut runner, _model) = runner(given)?;
    let requests = requests(&runner).map_err(fail)?;
    let scores = runner.score(&requests).map_err(fail)?;
    for (request, score) in requests.iter().zip(&scores) {
        if let Some(fault) = fault(request, score) {
            return Err(fail(fault));
        }
    }
    let info = runner.model().map_err(fail)?;
    let token = requests.first().and_then(|r| r.context.first().copied()).unwrap_or_default();
    let long = vec![token; info.max_position_embeddings.clamp(1, 4096) as usize + 8];
    let mut refused = Vec::new();
    let cases: [(&str, Vec<u32>, Vec<u32>); 6] = [
        ("one token after one", vec![token], vec![token]),
        ("no token after one", vec![token], Vec::new()),
        ("one token after none", Vec::new(), vec![token]),
        ("a context longer than the model's", long.clone(), vec![token]),
        ("a continuation longer than the model's context", vec![token], long),
        ("a token beyond the vocabulary", vec![u32::MAX], vec![token]),
    ];
    for (what, context, continuation) in cases {
        let request = ScoreRequest { context, continuation };
        match runner.score(std::slice::from_ref(&request)) {
            Ok(scores) => {
                if let Some(fault) = scores.first().and_then(|score| fault(&request, score)) {
                    return Err(fail(format!("{what}: {fault}")));
                }
            }
            Err(error) => {
                refusal(&error).map_err(|fault| fail(format!("{what}: {fault}")))?;
                refused.push(what);
            }
        }
    }
    if let Err(error) = runner.score(&[]) {
        refusal(&error).map_err(|fault| fail(format!("no request: {fault}")))?;
        refused.push("no request");
    }
    let again =
        runner.score(&requests).map_err(|e| fail(format!("after such requests it no longer scores: {e}")))?;
    if again.len() != scores.len() || again.iter().zip(&scores).any(|(a, b)| !alike(a, b)) {
        return Err(fail("the same requests are scored otherwise after others"));
    }
    Ok(match refused.is_empty() {
        true => String::new(),
        false => format!("refused: {}", refused.join(", ")),
    })
}

/// Whether two sums of log-likelihoods differ by rounding alone; what is not a number does not.
fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= ROUNDING * (1.0 + b.abs())
}

fn alike(a: &Score, b: &Score) -> bool {
    near(a.log_likelihood, b.log_likelihood)
}

/// A score is the same whatever else is in the batch.
pub(super) fn batches(given: &Given) -> Checked {
    let (mut runner, _model) = runner(given)?;
    let requests = requests(&runner).map_err(fail)?;
    let together = runner.score(&requests).map_err(fail)?;
    let backwards: Vec<ScoreRequest> = requests.iter().rev().cloned().collect();
    let backwards = runner.score(&backwards).map_err(fail)?;
    for (at, request) in requests.iter().enumerate() {
        let alone = runner.score(std::slice::from_ref(request)).map_err(fail)?;
        for (what, other) in
            [("alone", alone.first()), ("in a batch in another order", backwards.iter().rev().nth(at))]
        {
            if !other.is_some_and(|other| alike(other, &together[at])) {
                return Err(fail(format!(
                    "request {at} has a log-likelihood of {} in a batch of {}, {} {what}",
                    together[at].log_likelihood,
                    requests.len(),
                    other.map_or(f64::NAN, |other| other.log_likelihood)
                )));
            }
        }
    }
    Ok(format!("{} requests", requests.len()))
}

/// Continuations are as long as asked for, of the vocabulary, and the same alone and together.
pub(super) fn continuations(given: &Given) -> Checked {
    let (mut runner, _model) = runner(given)?;
    let prompts: Vec<Vec<u32>> =
        requests(&runner).map_err(fail)?.into_iter().map(|request| request.context).take(4).collect();
    let together = match runner.generate(&prompts, 5, &[]) {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Err(skip(error)),
        result => result.map_err(fail)?,
    };
    let words = runner.model().map_err(fail)?.vocab_size;
    if together.len() != prompts.len() {
        return Err(fail(format!("{} continuations of {} prompts", together.len(), prompts.len())));
    }
    for (prompt, tokens) in prompts.iter().zip(&together) {
        if tokens.len() > 5 {
            return Err(fail(format!("{} new tokens where 5 are the most", tokens.len())));
        }
        if let Some(token) = tokens.iter().find(|token| **token >= words) {
            return Err(fail(format!("token {token} of a vocabulary of {words}")));
        }
        let alone = runner.generate(std::slice::from_ref(prompt), 5, &[]).map_err(fail)?;
        if alone.first() != Some(tokens) {
            return Err(fail(format!(
                "a prompt is continued by {tokens:?} in a batch, and by {alone:?} alone"
            )));
        }
        runner.decode(tokens).map_err(|e| fail(format!("what it generated cannot be decoded: {e}")))?;
    }
    let mut refused = Vec::new();
    for (what, prompts, new) in [
        ("no new token", prompts.as_slice(), 0),
        ("no prompt", &[], 5),
        ("an empty prompt", &[Vec::new()], 1),
    ] {
        match runner.generate(prompts, new, &[]) {
            Ok(texts) if texts.len() != prompts.len() || texts.iter().any(|t| t.len() > new as usize) => {
                return Err(fail(format!(
                    "{what}: {} continuations of {} prompts, or too long ones",
                    texts.len(),
                    prompts.len()
                )));
            }
            Ok(_) => {}
            Err(error) => {
                refusal(&error).map_err(|fault| fail(format!("{what}: {fault}")))?;
                refused.push(what);
            }
        }
    }
    Ok(match refused.is_empty() {
        true => String::new(),
        false => format!("refused: {}", refused.join(", ")),
    })
}

/// An engine shows what it says that it has, and what nobody changed makes no error.
pub(super) fn engine(given: &Given) -> Checked {
    let (plugin, model) = backend(given, ENGINE)?;
    let mut engine = opened_engine(&plugin, model.path(), &Terms::new(given)).map_err(fail)?;
    let windows = [vec![1, 2, 3, 4, 5, 6, 7, 8], vec![9, 10, 11, 12, 13, 14, 15, 16]];
    engine.calibrate(&windows, &CalibrationPlan::default()).map_err(fail)?;
    let blocks = engine.model().map_err(fail)?.blocks;
    if blocks == 0 {
        return Err(fail("it finds no blocks in the model"));
    }
    for index in 0..blocks {
        let info = engine.open_block(index).map_err(fail)?;
        let linears = info.linears.clone();
        if info.index != index || info.of != blocks {
            return Err(fail(format!(
                "block {index} of {blocks} says that it is {} of {}",
                info.index, info.of
            )));
        }
        let mut block = engine.block(info);
        for linear in &linears {
            let weight = block.weight(&linear.name).map_err(fail)?;
            if weight.shape() != linear.shape() {
                let (shape, said) = (weight.shape(), linear.shape());
                return Err(fail(format!(
                    "{} of block {index} is {shape:?}, the block says {said:?}",
                    linear.name
                )));
            }
            if weight.to_f32().map_err(fail)?.iter().any(|v| !v.is_finite()) {
                return Err(fail(format!(
                    "{} of block {index} has weights that are no numbers",
                    linear.name
                )));
            }
        }
        let error = block.output_error(Vec::new()).map_err(fail)?;
        if error != 0.0 {
            return Err(fail(format!(
                "block {index} is unchanged, but its outputs are said to be {error} off"
            )));
        }
        match block.weight("no.such.linear") {
            Ok(_) => return Err(fail("it has a weight of `no.such.linear`")),
            Err(error) => {
                refusal(&error).map_err(|fault| fail(format!("a linear that does not exist: {fault}")))?
            }
        }
        drop(block);
        engine.close_block().map_err(fail)?;
    }
    let checkpoint = folder()?;
    engine.save_checkpoint(checkpoint.path()).map_err(|e| fail(format!("the checkpoint: {e}")))?;
    opened_engine(&plugin, checkpoint.path(), &Terms::new(given))
        .map_err(|e| fail(format!("it cannot open the checkpoint that it wrote: {e}")))?;
    Ok(format!("{blocks} blocks"))
}

/// A backend that is given no model, or a file that is none, says so.
pub(super) fn no_model(given: &Given) -> Checked {
    let plugin = open(&given.path)?;
    let descriptor = plugin.descriptor();
    if descriptor.kind != PluginKind::Backend {
        return Err(skip("only for backends"));
    }
    let folder = folder()?;
    let garbage = folder.path().join("model.gguf");
    std::fs::write(&garbage, b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f").map_err(fail)?;
    let terms = Terms::new(given);
    for model in [folder.path().join("absent"), garbage, folder.path().to_owned()] {
        for role in &descriptor.roles {
            let opened = match role.role.as_str() {
                ENGINE => opened_engine(&plugin, &model, &terms).map(|_| ()),
                _ => opened_runner(&plugin, &model, &terms).map(|_| ()),
            };
            match opened {
                Ok(()) => {
                    return Err(fail(format!(
                        "the {} opened {}, which is no model",
                        role.role,
                        model.display()
                    )));
                }
                Err(error) if error.kind() == ErrorKind::Panicked => return Err(fail(error)),
                Err(_) => {}
            }
        }
    }
    Ok("no such file, a broken file, an empty folder".into())
}
