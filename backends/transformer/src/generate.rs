//! Greedy generation with kept keys and values, and its timing.

use std::ops::ControlFlow;
use std::time::Instant;

use crate::batch::{Batch, KeySpan, KeyValueCache};
use crate::{Error, Model, Result};

/// What is generated, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateOptions {
    /// Most new tokens for each prompt.
    pub max_new_tokens: usize,
    /// Tokens that end a sequence; they are not part of the answer.
    pub stop: Vec<u32>,
    /// Most tokens of prompts that run at once; bounds memory.
    pub batch_tokens: usize,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self { max_new_tokens: 128, stop: Vec::new(), batch_tokens: 4096 }
    }
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// It has as many new tokens as were asked for.
    Length,
    /// A stop token came.
    Stop,
    /// The model's context is full.
    ContextFull,
}

/// The answer to one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub reason: StopReason,
}

/// How long the parts of a generation took.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerateTiming {
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Seconds from the start until every prompt has its first new token.
    pub prefill_seconds: f64,
    /// Seconds of each step after that; a step gives one token to every sequence that still runs.
    pub step_seconds: Vec<f64>,
    /// Sequences that ran in each step.
    pub step_sequences: Vec<usize>,
}

impl GenerateTiming {
    /// Prompt tokens per second.
    pub fn prefill_tokens_per_second(&self) -> f64 {
        self.prompt_tokens as f64 / self.prefill_seconds
    }

    /// New tokens per second after the first, or 0 when there was no step.
    pub fn decode_tokens_per_second(&self) -> f64 {
        let seconds: f64 = self.step_seconds.iter().sum();
        if seconds > 0.0 { self.step_sequences.iter().sum::<usize>() as f64 / seconds } else { 0.0 }
    }
}

/// Continues each prompt with its most likely tokens.
///
/// # Errors
/// [`Error::Argument`] if a prompt is empty, fills the model's context, or has a token beyond the vocabulary; [`Error::Cancelled`] if `progress`, called
/// with the number of steps done, said so.
pub fn generate(
    model: &Model,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<(Vec<Generation>, GenerateTiming)> {
    let limit = model.architecture().max_position_embeddings;
    for (i, prompt) in prompts.iter().enumerate() {
        if prompt.is_empty() || prompt.len() > limit {
            return Err(Error::argument(
                format!("prompt {i}"),
                format!("it has {} tokens; give from 1 to {limit}", prompt.len()),
            ));
        }
        model.check_tokens(prompt, &format!("prompt {i}"))?;
    }
    model.load_all()?;
    let mut answers: Vec<Generation> =
        prompts.iter().map(|_| Generation { tokens: Vec::new(), reason: StopReason::Length }).collect();
    let mut timing =
        GenerateTiming { prompt_tokens: prompts.iter().map(Vec::len).sum(), ..GenerateTiming::default() };
    if options.max_new_tokens == 0 || prompts.is_empty() {
        return Ok((answers, timing));
    }
    let mut caches = vec![KeyValueCache::new(model.block_count()); prompts.len()];
    let mut running: Vec<usize> = Vec::new();
    let start = Instant::now();
    let mut first = 0;
    while first < prompts.len() {
        let mut last = first + 1;
        let mut tokens = prompts[first].len();
        while last < prompts.len() && tokens + prompts[last].len() <= options.batch_tokens {
            tokens += prompts[last].len();
            last += 1;
        }
        let mut batch = Batch::default();
        for prompt in &prompts[first..last] {
            batch.push(prompt, Vec::new());
        }
        let sequences: Vec<usize> = (first..last).collect();
        let next = step(model, &batch, &mut caches, &sequences)?;
        take(&sequences, &next, &caches, limit, options, &mut answers, &mut running);
        if progress(0).is_break() {
            return Err(Error::Cancelled);
        }
        first = last;
    }
    timing.prefill_seconds = start.elapsed().as_secs_f64();
    while !running.is_empty() {
        let start = Instant::now();
        let sequences = std::mem::take(&mut running);
        let mut batch = Batch::default();
        for &sequence in &sequences {
            // A running sequence has at least one new token.
            let token = answers[sequence].tokens.last().copied().unwrap_or_default();
            batch.push(&[token], vec![KeySpan::Cached { cache: sequence, len: caches[sequence].len }]);
        }
        let next = step(model, &batch, &mut caches, &sequences)?;
        take(&sequences, &next, &caches, limit, options, &mut answers, &mut running);
        timing.step_seconds.push(start.elapsed().as_secs_f64());
        timing.step_sequences.push(sequences.len());
        if progress(timing.step_seconds.len()).is_break() {
            return Err(Error::Cancelled);
        }
    }
    Ok((answers, timing))
}

/// Runs a batch with one segment for each sequence; the most likely token after each.
fn step(model: &Model, batch: &Batch, caches: &mut [KeyValueCache], sequences: &[usize]) -> Result<Vec<u32>> {
    let store: Vec<(usize, usize)> = sequences.iter().copied().enumerate().collect();
    let hidden = model.forward(batch, caches, &store)?;
    let width = model.architecture().hidden_size;
    let mut rows = Vec::with_capacity(sequences.len() * width);
    for segment in &batch.segments {
        rows.extend_from_slice(&hidden[(segment.first_row + segment.len - 1) * width..][..width]);
    }
    let head = model.head()?;
    let (distributions, _) = model.install(|| head.score(&rows, &[]));
    Ok(distributions.iter().map(|d| d.argmax).collect())
}

/// Gives each sequence its new token and finds those that go on.
fn take(
    sequences: &[usize],
    next: &[u32],
    caches: &[KeyValueCache],
    limit: usize,
    options: &GenerateOptions,
    answers: &mut [Generation],
    running: &mut Vec<usize>,
) {
    for (&sequence, &token) in sequences.iter().zip(next) {
        let answer = &mut answers[sequence];
        if options.stop.contains(&token) {
            answer.reason = StopReason::Stop;
            continue;
        }
        answer.tokens.push(token);
        if answer.tokens.len() >= options.max_new_tokens {
            answer.reason = StopReason::Length;
        } else if caches[sequence].len >= limit {
            answer.reason = StopReason::ContextFull;
        } else {
            running.push(sequence);
        }
    }
}
