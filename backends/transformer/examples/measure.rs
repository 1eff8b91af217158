//! Perplexity and speed of a model from the command line.
//!
//! ```text
//! measure perplexity MODEL TEXT_FILE [WINDOWS] [LENGTH]
//! measure scoring MODEL [ITEMS]          four endings of 25 tokens after a context of 60
//! measure requests MODEL FILE            lines of {"context": [ids], "continuation": [ids]}
//! measure generate MODEL [PROMPT] [NEW]
//! measure calibrate MODEL [WINDOWS] [LENGTH]
//! measure checkpoint MODEL DIRECTORY
//! measure logits MODEL OUT ID...           little-endian f32, [tokens, vocabulary]
//! measure weights MODEL OUT TENSOR...      the same of tensors, one after the other
//! ```

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use llmcb_transformer::generate::{GenerateOptions, generate};
use llmcb_transformer::{
    CalibrationOptions, Calibrator, CheckpointOptions, CheckpointWriter, LoadOptions, Model, ScoreOptions,
    ScoreRequest, Scorer, StatisticKind, StatisticRequest, kernels,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, model, rest @ ..] = arguments.as_slice() else {
        return Err("give what to measure and a model; see the head of this example's source".into());
    };
    let threads = std::env::var("THREADS").ok().and_then(|t| t.parse().ok()).unwrap_or(0);
    let start = Instant::now();
    let model = Arc::new(Model::open(Path::new(model), &LoadOptions { threads, ..LoadOptions::default() })?);
    model.load_all()?;
    eprintln!(
        "opened in {:.2} s; {} threads, {}",
        start.elapsed().as_secs_f64(),
        model.threads(),
        kernels::instruction_set_name()
    );
    let number = |i: usize, default: usize| rest.get(i).and_then(|v| v.parse().ok()).unwrap_or(default);
    let text = |i: usize| rest.get(i).map(String::as_str).ok_or("an argument is missing");
    match what.as_str() {
        "perplexity" => perplexity(&model, text(0)?, number(1, 10), number(2, 2048)),
        "scoring" => scoring(&model, &synthetic(&model, number(0, 64))),
        "requests" => scoring(&model, &read_requests(text(0)?)?),
        "generate" => generation(&model, number(0, 128), number(1, 32)),
        "calibrate" => calibrate(&model, number(0, 2), number(1, 2048)),
        "checkpoint" => {
            let start = Instant::now();
            CheckpointWriter::create(Path::new(text(0)?), &model, CheckpointOptions::default())?.finish()?;
            println!("written in {:.2} s", start.elapsed().as_secs_f64());
            Ok(())
        }
        "logits" => {
            let ids = rest[1..].iter().map(|id| id.parse()).collect::<Result<Vec<u32>, _>>()?;
            write_numbers(text(0)?, &model.logits(&ids)?)
        }
        "weights" => {
            let mut values = Vec::new();
            for name in &rest[1..] {
                values.extend(model.source().load(name)?);
            }
            write_numbers(text(0)?, &values)
        }
        other => Err(format!(
            "`{other}` is none of perplexity, scoring, requests, generate, calibrate, checkpoint, logits, weights"
        )
        .into()),
    }
}

fn write_numbers(path: &str, values: &[f32]) -> Result<(), Box<dyn Error>> {
    Ok(std::fs::write(path, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?)
}

fn perplexity(model: &Model, file: &str, windows: usize, length: usize) -> Result<(), Box<dyn Error>> {
    let content = std::fs::read_to_string(file)?;
    let rows: Vec<&str> =
        content.split_inclusive('\n').map(|l| if l.trim().is_empty() { "" } else { l }).collect();
    let tokenizer = model.files().ok_or("the model has no files")?.tokenizer()?;
    let ids = tokenizer.encode(&rows.join("\n\n"), false)?;
    println!("{} tokens, beginning {:?}", ids.len(), &ids[..8.min(ids.len())]);
    let requests: Vec<ScoreRequest> = ids
        .chunks_exact(length)
        .take(windows)
        .map(|w| ScoreRequest { context: w[..1].to_vec(), continuation: w[1..].to_vec() })
        .collect();
    let start = Instant::now();
    let results = Scorer::new(model)?.score(&requests)?;
    let mean =
        results.iter().map(|r| -r.log_likelihood / (length - 1) as f64).sum::<f64>() / results.len() as f64;
    let seconds = start.elapsed().as_secs_f64();
    let tokens = requests.len() * length;
    println!(
        "perplexity {:.4}; {tokens} tokens in {seconds:.2} s, {:.0} tokens/s",
        mean.exp(),
        tokens as f64 / seconds
    );
    Ok(())
}

fn synthetic(model: &Model, items: usize) -> Vec<ScoreRequest> {
    let vocabulary = model.architecture().vocab_size as u64;
    let mut state = 1u64;
    let mut token = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocabulary) as u32
    };
    let mut requests = Vec::new();
    for _ in 0..items {
        let context: Vec<u32> = (0..60).map(|_| token()).collect();
        for _ in 0..4 {
            requests.push(ScoreRequest {
                context: context.clone(),
                continuation: (0..25).map(|_| token()).collect(),
            });
        }
    }
    requests
}

fn read_requests(file: &str) -> Result<Vec<ScoreRequest>, Box<dyn Error>> {
    let ids = |v: &serde_json::Value| -> Option<Vec<u32>> {
        v.as_array()?.iter().map(|t| u32::try_from(t.as_u64()?).ok()).collect()
    };
    let mut requests = Vec::new();
    for (i, line) in std::fs::read_to_string(file)?.lines().enumerate() {
        let value: serde_json::Value = serde_json::from_str(line)?;
        match (ids(&value["context"]), ids(&value["continuation"])) {
            (Some(context), Some(continuation)) => requests.push(ScoreRequest { context, continuation }),
            _ => return Err(format!("{file}:{}: no context and continuation of token ids", i + 1).into()),
        }
    }
    Ok(requests)
}

fn scoring(model: &Model, requests: &[ScoreRequest]) -> Result<(), Box<dyn Error>> {
    let read: usize = requests.iter().map(|r| r.context.len() + r.continuation.len() - 1).sum();
    let scored: usize = requests.iter().map(|r| r.continuation.len()).sum();
    let budgets = std::env::var("BATCH").unwrap_or_else(|_| "4096".to_owned());
    for batch_tokens in budgets.split(',').filter_map(|b| b.parse().ok()) {
        let scorer = Scorer::with_options(model, ScoreOptions { batch_tokens, ..ScoreOptions::default() })?;
        let start = Instant::now();
        let mut run = 0;
        let results = scorer.score_with(requests, &mut |progress| {
            run = progress.total;
            ControlFlow::Continue(())
        })?;
        let seconds = start.elapsed().as_secs_f64();
        if let Ok(path) = std::env::var("DUMP") {
            std::fs::write(
                path,
                results.iter().map(|r| format!("{:?}\n", r.log_likelihood)).collect::<String>(),
            )?;
        }
        let c = model.architecture();
        let linears: usize = model.block_info().linears.iter().map(|l| l.out_features * l.in_features).sum();
        let flops =
            2.0 * (run * linears * c.num_hidden_layers + scored * c.vocab_size * c.hidden_size) as f64;
        println!(
            "batches of {batch_tokens}: {} requests, {read} tokens ({run} run, {scored} scored) in {seconds:.3} s: {:.0} tokens/s, {:.1} requests/s, {:.0} GFLOP/s; sum {:.4}",
            requests.len(),
            read as f64 / seconds,
            requests.len() as f64 / seconds,
            flops / seconds / 1e9,
            results.iter().map(|r| r.log_likelihood).sum::<f64>(),
        );
    }
    Ok(())
}

fn generation(model: &Model, prompt: usize, new: usize) -> Result<(), Box<dyn Error>> {
    for count in [1, 8] {
        let prompts: Vec<Vec<u32>> =
            (0..count).map(|p| (0..prompt).map(|i| ((i * 31 + p * 7) % 1000) as u32).collect()).collect();
        let options = GenerateOptions { max_new_tokens: new, ..GenerateOptions::default() };
        let (_, timing) = generate(model, &prompts, &options, &mut |_| ControlFlow::Continue(()))?;
        println!(
            "{count} sequences: prefill {:.0} tokens/s, decode {:.1} tokens/s",
            timing.prefill_tokens_per_second(),
            timing.decode_tokens_per_second()
        );
    }
    Ok(())
}

fn calibrate(model: &Arc<Model>, windows: usize, length: usize) -> Result<(), Box<dyn Error>> {
    let vocabulary = model.architecture().vocab_size;
    let windows: Vec<Vec<u32>> = (0..windows)
        .map(|w| (0..length).map(|i| ((i * 7919 + w * 31) % vocabulary) as u32).collect())
        .collect();
    let mut calibrator = Calibrator::new(Arc::clone(model), windows, CalibrationOptions::default())?;
    for index in 0..2.min(model.block_count()) {
        calibrator.open_block(index)?;
        for kind in [StatisticKind::Gram, StatisticKind::SquaredSums] {
            let start = Instant::now();
            let requests: Vec<StatisticRequest> = (model.block_info().linears.iter())
                .map(|l| StatisticRequest { linear: l.name.clone(), kind })
                .collect();
            calibrator.input_statistics(&requests)?;
            println!("block {index}: {kind:?} of all linears in {:.3} s", start.elapsed().as_secs_f64());
        }
        let start = Instant::now();
        calibrator.close_block()?;
        println!(
            "block {index}: outputs of {} tokens in {:.3} s",
            calibrator.tokens(),
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}
