//! Per-item results: what was asked, what was answered, whether it was right.

use super::docs::{Body, Prepared};
use super::encode::Requests;
use super::{TaskError, TaskKind};
use crate::metrics::{Real, real, reals};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A backend's answer to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Sum of the log-likelihoods of the continuation's tokens, in nats.
    pub log_likelihood: f64,
    /// Whether each token of the continuation was the likeliest.
    pub greedy: bool,
    /// Log-likelihood of each token of the continuation; may be empty where a backend gives only the sum.
    pub token_log_likelihoods: Vec<f32>,
    /// Whether the beginning of the context was left out because the model could not take all of it.
    pub truncated: bool,
}

/// A request, for the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Asked {
    /// What was given; absent where it is the same as the first request's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// What was scored.
    pub continuation: String,
}

/// The answers to one document's requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answered {
    /// Log-likelihood of each choice, in nats.
    #[serde(with = "reals")]
    #[schemars(with = "Vec<Real>")]
    pub log_likelihoods: Vec<f64>,
    /// The likeliest choice; absent where no log-likelihood is a number.
    pub chosen: Option<usize>,
    /// The likeliest choice by log-likelihood per character; absent where the task does not use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen_norm: Option<usize>,
    /// 1 if `chosen` is right, else 0.
    pub acc: u8,
    /// 1 if `chosen_norm` is right, else 0; absent where the task does not use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_norm: Option<u8>,
    /// Share of the probability of all choices that the right ones have; 0 where no log-likelihood is a number; absent where the task does
    /// not use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mass: Option<f64>,
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// A question.
    Choice {
        /// Its requests, one per choice.
        asked: Vec<Asked>,
        /// The answers.
        answered: Answered,
        /// Index of the right choice.
        target: usize,
    },
    /// A window of a text.
    Window {
        /// Position of the window's first token in the text's tokens.
        first_token: usize,
        /// Sum of the negative log-likelihoods, in nats.
        #[serde(with = "real")]
        #[schemars(with = "Real")]
        nll: f64,
        /// Tokens that were predicted.
        tokens: usize,
        /// Bytes of text that these stand for, where the tokenizer can tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    },
    /// A window of a text, on which a compressed model was compared with the dense one.
    Divergence {
        /// Position of the window's first token in the text's tokens.
        first_token: usize,
        /// Sum over the predicted tokens of the Kullback-Leibler divergence of the compressed model's distribution from the dense one's, in
        /// nats.
        #[serde(with = "real")]
        #[schemars(with = "Real")]
        kl: f64,
        /// Tokens for which both have the same most likely one.
        agreed: usize,
        /// Tokens that were predicted.
        tokens: usize,
    },
}

/// The result of one item; one line of a result file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ItemResult {
    /// The task's name.
    pub task: String,
    /// The document's identifier in its data set, or the window's number.
    pub doc_id: String,
    /// The item's number, from 0 (in its subject, for MMLU).
    pub index: usize,
    /// Subject, where the task has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Whether the model could not take the whole context of some request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// Index of the greatest value, the first of equals; values that are not numbers never win.
fn argmax(values: impl Iterator<Item = f64>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, value) in values.enumerate() {
        if !value.is_nan() && best.is_none_or(|(_, b)| value > b) {
            best = Some((i, value));
        }
    }
    best.map(|(i, _)| i)
}

/// Share of the first `right` of all probabilities; 0 where it is no number.
fn mass(log_likelihoods: &[f64], right: usize) -> f64 {
    let largest = log_likelihoods.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = |values: &[f64]| values.iter().map(|ll| (ll - largest).exp()).sum::<f64>();
    let share = sum(&log_likelihoods[..right.min(log_likelihoods.len())]) / sum(log_likelihoods);
    if share.is_finite() { share } else { 0.0 }
}

impl Prepared {
    /// Per-item results from the scores of [`Prepared::requests`], in the same order.
    ///
    /// A choice whose log-likelihood is not a number never wins; a document without any is answered wrongly.
    ///
    /// # Errors
    /// Where there are not as many scores as requests.
    pub fn items(&self, requests: &Requests, scores: &[Score]) -> Result<Vec<ItemResult>, TaskError> {
        if requests.tokens.len() != scores.len() {
            return Err(TaskError::Scores {
                task: self.name.clone(),
                what: format!(
                    "{} requests were asked, but {} scores came back",
                    requests.tokens.len(),
                    scores.len()
                ),
            });
        }
        match &self.body {
            Body::Choice(docs) => {
                let asked: usize = docs.iter().map(|doc| doc.requests.len()).sum();
                if asked != scores.len() {
                    return Err(TaskError::Scores {
                        task: self.name.clone(),
                        what: format!(
                            "{asked} requests belong to its documents, but {} were scored",
                            scores.len()
                        ),
                    });
                }
                let mut scores = scores.iter();
                Ok(docs
                    .iter()
                    .map(|doc| self.choice(doc, scores.by_ref().take(doc.requests.len()).collect()))
                    .collect())
            }
            Body::Stream { seqlen, .. } => Ok(requests
                .tokens
                .iter()
                .zip(scores)
                .enumerate()
                .map(|(i, (request, score))| ItemResult {
                    task: self.name.clone(),
                    doc_id: i.to_string(),
                    index: i,
                    subset: None,
                    outcome: Outcome::Window {
                        first_token: i * seqlen,
                        nll: -score.log_likelihood,
                        tokens: request.continuation.len(),
                        bytes: requests.window_bytes.get(i).copied().flatten(),
                    },
                    truncated: score.truncated,
                })
                .collect()),
        }
    }

    fn choice(&self, doc: &super::Doc, scores: Vec<&Score>) -> ItemResult {
        let normalised = matches!(self.task.spec().kind, TaskKind::Choice { normalised: true, .. });
        let log_likelihoods: Vec<f64> = scores.iter().map(|s| s.log_likelihood).collect();
        let chosen = match (doc.right, &self.task.spec().kind) {
            // The best answer against the false ones alone, of which it must be likelier than each.
            (Some(right), TaskKind::Llmcbench { .. }) => {
                let best_false = argmax(log_likelihoods.iter().copied().skip(right)).map(|i| i + right);
                match (log_likelihoods.get(doc.target), best_false) {
                    (Some(best), Some(other)) if *best > log_likelihoods[other] => Some(doc.target),
                    (_, other) => other,
                }
            }
            _ => argmax(log_likelihoods.iter().copied()),
        };
        let chosen_norm = if normalised {
            argmax(log_likelihoods.iter().zip(&doc.lengths).map(|(ll, n)| ll / *n as f64))
        } else {
            None
        };
        let right = |chosen: Option<usize>| u8::from(chosen == Some(doc.target));
        let first = doc.requests.first().map(|r| &r.context);
        let asked = doc
            .requests
            .iter()
            .enumerate()
            .map(|(i, request)| Asked {
                context: (i == 0 || Some(&request.context) != first).then(|| request.context.to_string()),
                continuation: request.continuation.clone(),
            })
            .collect();
        ItemResult {
            task: self.name.clone(),
            doc_id: doc.id.clone(),
            index: doc.index,
            subset: doc.subset.clone(),
            outcome: Outcome::Choice {
                asked,
                answered: Answered {
                    mass: doc.right.map(|right| mass(&log_likelihoods, right)),
                    acc: right(chosen),
                    acc_norm: normalised.then(|| right(chosen_norm)),
                    log_likelihoods,
                    chosen,
                    chosen_norm,
                },
                target: doc.target,
            },
            truncated: scores.iter().any(|s| s.truncated),
        }
    }
}
