//! Log-likelihoods of continuations: the hot path of every benchmark.
//!
//! All requests of a call are put into one prefix tree, so that tokens that requests share, be they few-shot prompts or the question
//! before four endings, run once. The tree is run in batches of a bounded number of tokens; where a prefix is shared by more requests than
//! fit one batch, its keys and values are kept for all of them.

use std::ops::ControlFlow;

use crate::batch::{Batch, KeySpan, KeyValueCache};
use crate::fit::fit;
use crate::head::Target;
use crate::trie::{Step, Trie};
use crate::{Error, Model, Result};

/// One question to the model: how likely is `continuation` after `context`?
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ScoreRequest {
    /// Tokens that are given: at least one.
    pub context: Vec<u32>,
    /// Tokens that are scored.
    pub continuation: Vec<u32>,
}

/// The answer to a [`ScoreRequest`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScoreResult {
    /// Natural logarithm of the probability of the whole continuation.
    pub log_likelihood: f64,
    /// Whether every token of the continuation is the most likely one in its place.
    pub greedy: bool,
    /// Natural logarithm of the probability of each token.
    pub token_log_likelihoods: Vec<f32>,
    /// Whether tokens were cut from the left because the request is longer than the model's context.
    pub truncated: bool,
}

/// How far a scoring call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreProgress {
    /// Tokens run so far.
    pub done: usize,
    /// Tokens to run in all, shared prefixes counted once.
    pub total: usize,
}

/// How requests are batched. Results do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreOptions {
    /// Most tokens in one batch; bounds memory.
    pub batch_tokens: usize,
    /// The longest sequence that is run; 0 means the model's `max_position_embeddings`.
    pub max_length: usize,
}

impl Default for ScoreOptions {
    fn default() -> Self {
        Self { batch_tokens: 4096, max_length: 0 }
    }
}

/// Scores requests with a model.
#[derive(Debug)]
pub struct Scorer<'a> {
    model: &'a Model,
    options: ScoreOptions,
}

/// A continuation token to be looked up.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// Offset in the node of the position that predicts the token.
    offset: usize,
    token: u32,
    request: usize,
    /// Index in the continuation.
    index: usize,
}

impl<'a> Scorer<'a> {
    /// A scorer with default batching. Decodes all weights.
    ///
    /// # Errors
    /// If a tensor cannot be decoded.
    pub fn new(model: &'a Model) -> Result<Self> {
        Self::with_options(model, ScoreOptions::default())
    }

    /// A scorer with other batching. Decodes all weights.
    ///
    /// # Errors
    /// If a tensor cannot be decoded.
    pub fn with_options(model: &'a Model, options: ScoreOptions) -> Result<Self> {
        model.load_all()?;
        Ok(Self { model, options })
    }

    /// Scores all requests; results are in their order and do not depend on it.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the request if one has no context, a continuation longer than the model's context, or a token beyond the
    /// vocabulary.
    pub fn score(&self, requests: &[ScoreRequest]) -> Result<Vec<ScoreResult>> {
        self.score_with(requests, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`score`](Self::score); `progress` is called after each batch and may stop the work.
    ///
    /// # Errors
    /// As [`score`](Self::score), and [`Error::Cancelled`] if `progress` said so.
    pub fn score_with(
        &self,
        requests: &[ScoreRequest],
        progress: &mut dyn FnMut(ScoreProgress) -> ControlFlow<()>,
    ) -> Result<Vec<ScoreResult>> {
        let limit = match self.options.max_length {
            0 => self.model.architecture().max_position_embeddings,
            n => n.min(self.model.architecture().max_position_embeddings),
        };
        let mut results = Vec::with_capacity(requests.len());
        let mut inputs: Vec<Vec<u32>> = Vec::with_capacity(requests.len());
        for (i, request) in requests.iter().enumerate() {
            let scored = request.continuation.len();
            let name = format!("request {i}");
            let fitted = fit(&request.context, &request.continuation, limit, &name)?;
            self.model.check_tokens(&request.context, &name)?;
            self.model.check_tokens(&request.continuation, &name)?;
            inputs.push(fitted.input);
            results.push(ScoreResult {
                log_likelihood: 0.0,
                greedy: true,
                token_log_likelihoods: vec![0.0; scored],
                truncated: fitted.truncated,
            });
        }
        let sequences: Vec<&[u32]> = inputs.iter().map(Vec::as_slice).collect();
        let trie = Trie::new(&sequences);
        let wanted = self.wanted(&trie, requests, &sequences);
        let mut exact: Vec<Vec<f64>> = requests.iter().map(|r| vec![0.0; r.continuation.len()]).collect();

        let total = trie.nodes.iter().map(|n| n.end - n.start).sum();
        let mut done = 0;
        let mut caches: Vec<KeyValueCache> = Vec::new();
        for step in trie.plan(self.options.batch_tokens.max(1)) {
            let mut nodes = Vec::new();
            let mut batch = Batch::default();
            let mut store = Vec::new();
            let kept: Vec<KeySpan> =
                caches.iter().enumerate().map(|(cache, c)| KeySpan::Cached { cache, len: c.len }).collect();
            match step {
                Step::Leave => {
                    caches.pop();
                    continue;
                }
                Step::Enter(node) => {
                    let tokens = tokens_of(&trie, &sequences, node);
                    nodes.push((node, batch.push(tokens, kept)));
                    store.push((0, caches.len()));
                    caches.push(KeyValueCache::new(self.model.block_count()));
                }
                Step::Subtrees(roots) => {
                    let mut pending: Vec<(usize, Vec<KeySpan>)> =
                        roots.iter().rev().map(|&n| (n, kept.clone())).collect();
                    while let Some((node, mut reach)) = pending.pop() {
                        let tokens = tokens_of(&trie, &sequences, node);
                        let first_row = batch.push(tokens, reach.clone());
                        nodes.push((node, first_row));
                        reach.push(KeySpan::Batch { first_row, len: tokens.len() });
                        pending.extend(trie.nodes[node].children.iter().rev().map(|&c| (c, reach.clone())));
                    }
                }
            }
            let hidden = self.model.forward(&batch, &mut caches, &store)?;
            self.look_up(&hidden, &nodes, &wanted, &mut exact, &mut results)?;
            done += batch.rows();
            if progress(ScoreProgress { done, total }).is_break() {
                return Err(Error::Cancelled);
            }
        }
        for (result, exact) in results.iter_mut().zip(&exact) {
            result.log_likelihood = exact.iter().sum();
            result.token_log_likelihoods = exact.iter().map(|&l| l as f32).collect();
        }
        Ok(results)
    }

    /// For each node, the tokens that its positions are asked about, in order of position.
    fn wanted(&self, trie: &Trie, requests: &[ScoreRequest], sequences: &[&[u32]]) -> Vec<Vec<Wanted>> {
        let mut wanted: Vec<Vec<Wanted>> = vec![Vec::new(); trie.nodes.len()];
        for (request, r) in requests.iter().enumerate() {
            let Some(mut node) = trie.leaf[request] else { continue };
            let first = sequences[request].len() - r.continuation.len();
            for index in (0..r.continuation.len()).rev() {
                // Token `index` of the continuation stands at `first + index + 1` and is predicted one before.
                let position = first + index;
                while trie.nodes[node].start > position {
                    match trie.nodes[node].parent {
                        Some(parent) => node = parent,
                        None => break,
                    }
                }
                let offset = position - trie.nodes[node].start;
                wanted[node].push(Wanted { offset, token: r.continuation[index], request, index });
            }
        }
        for list in &mut wanted {
            list.sort_by_key(|w| w.offset);
        }
        wanted
    }

    /// Reads what is wanted of some nodes from the hidden states of their batch.
    fn look_up(
        &self,
        hidden: &[f32],
        nodes: &[(usize, usize)],
        wanted: &[Vec<Wanted>],
        exact: &mut [Vec<f64>],
        results: &mut [ScoreResult],
    ) -> Result<()> {
        let width = self.model.architecture().hidden_size;
        let mut rows: Vec<f32> = Vec::new();
        let mut targets: Vec<Target> = Vec::new();
        let mut asked: Vec<Wanted> = Vec::new();
        for &(node, first_row) in nodes {
            let mut last = None;
            for &w in &wanted[node] {
                if last != Some(w.offset) {
                    rows.extend_from_slice(&hidden[(first_row + w.offset) * width..][..width]);
                    last = Some(w.offset);
                }
                targets.push(Target { row: rows.len() / width - 1, token: w.token });
                asked.push(w);
            }
        }
        let head = self.model.head()?;
        let (distributions, logits) = self.model.install(|| head.score(&rows, &targets));
        for ((w, target), logit) in asked.iter().zip(&targets).zip(logits) {
            let d = &distributions[target.row];
            exact[w.request][w.index] = f64::from(logit) - d.log_sum_exp;
            results[w.request].greedy &= d.argmax == w.token;
        }
        Ok(())
    }
}

fn tokens_of<'s>(trie: &Trie, sequences: &[&'s [u32]], node: usize) -> &'s [u32] {
    let node = &trie.nodes[node];
    &sequences[node.sequence][node.start..node.end]
}
