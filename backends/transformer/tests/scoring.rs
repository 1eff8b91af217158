//! Scores do not depend on batching, order, shared prefixes or threads.

mod support;

use std::ops::ControlFlow;

use llmcb_transformer::{Error, Model, ScoreOptions, ScoreRequest, ScoreResult, Scorer};
use proptest::prelude::*;
use support::{CASES, model, tokens};

/// One request after the other, from all logits of the whole sequence.
fn naive(model: &Model, request: &ScoreRequest) -> ScoreResult {
    let vocabulary = model.architecture().vocab_size;
    let limit = model.architecture().max_position_embeddings;
    let full = [&request.context[..], &request.continuation[..]].concat();
    let cut = full.len().saturating_sub(limit + 1);
    let input = &full[cut..full.len() - 1];
    let logits = model.logits(input).unwrap();
    let mut result = ScoreResult { greedy: true, truncated: cut > 0, ..ScoreResult::default() };
    let first = input.len() - request.continuation.len();
    for (i, &token) in request.continuation.iter().enumerate() {
        let row = &logits[(first + i) * vocabulary..][..vocabulary];
        let max = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = row.iter().map(|&v| f64::from(v - max).exp()).sum();
        let log_likelihood = f64::from(row[token as usize]) - f64::from(max) - sum.ln();
        result.log_likelihood += log_likelihood;
        result.token_log_likelihoods.push(log_likelihood as f32);
        result.greedy &= row.iter().position(|&v| v == max) == Some(token as usize);
    }
    result
}

/// Requests with shared few-shot prompts, shared questions, equal requests, and lengths around and beyond the context of 64.
fn mixed_requests() -> Vec<ScoreRequest> {
    let shot = tokens(1, 20, 96);
    let mut requests = Vec::new();
    for question in 0..6 {
        let mut context = shot.clone();
        context.extend(tokens(100 + question, 3 + 3 * question as usize, 96));
        for ending in 0..4 {
            let continuation = tokens(1000 + 10 * question + ending, 1 + (ending as usize * 3) % 7, 96);
            requests.push(ScoreRequest { context: context.clone(), continuation });
        }
    }
    requests.push(requests[3].clone());
    requests.push(ScoreRequest { context: vec![5], continuation: tokens(7, 63, 96) });
    requests.push(ScoreRequest { context: tokens(8, 60, 96), continuation: tokens(9, 30, 96) });
    requests.push(ScoreRequest { context: tokens(8, 1, 96), continuation: tokens(9, 64, 96) });
    requests.push(ScoreRequest { context: shot[..4].to_vec(), continuation: shot[4..9].to_vec() });
    // Different contexts before one continuation.
    for option in 0..2 {
        let context = [shot[..7].to_vec(), vec![option], tokens(55, 4, 96)].concat();
        requests.push(ScoreRequest { context, continuation: tokens(56, 6, 96) });
    }
    requests
}

#[test]
fn log_probabilities_are_distributions_and_agree_with_scores() {
    for name in CASES {
        let model = model(name, 1);
        let vocabulary = model.architecture().vocab_size;
        let sequence = tokens(3, 30, 96);
        let rows = model.log_probabilities(&sequence).unwrap();
        assert_eq!(rows.len(), sequence.len() * vocabulary);
        for row in rows.chunks(vocabulary) {
            let sum: f64 = row.iter().map(|l| f64::from(*l).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{name}: {sum}");
        }
        let request = ScoreRequest { context: sequence[..1].to_vec(), continuation: sequence[1..].to_vec() };
        let score = Scorer::new(&model).unwrap().score(&[request]).unwrap().remove(0);
        for (i, expected) in score.token_log_likelihoods.iter().enumerate() {
            let found = rows[i * vocabulary + sequence[i + 1] as usize];
            assert!((found - expected).abs() < 1e-5, "{name}, position {i}: {found} and {expected}");
        }
        assert!(model.log_probabilities(&[]).unwrap().is_empty());
        let long = tokens(4, 65, 96);
        let error = model.log_probabilities(&long).unwrap_err().to_string();
        assert!(error.contains("65") && error.contains("64"), "{error}");
        assert!(model.log_probabilities(&[u32::MAX]).is_err());
    }
}

#[test]
fn scores_agree_with_one_request_at_a_time() {
    for name in CASES {
        let model = model(name, 2);
        let requests = mixed_requests();
        let results = Scorer::new(&model).unwrap().score(&requests).unwrap();
        for (request, result) in requests.iter().zip(&results) {
            let want = naive(&model, request);
            assert!(
                (result.log_likelihood - want.log_likelihood).abs() < 1e-5,
                "{name}: {result:?} {want:?}"
            );
            assert_eq!((result.greedy, result.truncated), (want.greedy, want.truncated));
            for (a, b) in result.token_log_likelihoods.iter().zip(&want.token_log_likelihoods) {
                assert!((a - b).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn scores_are_the_same_bits_whatever_the_batch_order_and_threads() {
    let requests = mixed_requests();
    let reference = Scorer::new(&model("llama3-gqa", 1)).unwrap().score(&requests).unwrap();
    for threads in [1, 2, 3] {
        let model = model("llama3-gqa", threads);
        for batch_tokens in [1, 7, 30, 100, 100_000] {
            let scorer =
                Scorer::with_options(&model, ScoreOptions { batch_tokens, ..ScoreOptions::default() })
                    .unwrap();
            assert_eq!(scorer.score(&requests).unwrap(), reference, "batches of {batch_tokens} tokens");
        }
        let scorer = Scorer::new(&model).unwrap();
        let mut reversed = requests.clone();
        reversed.reverse();
        let mut results = scorer.score(&reversed).unwrap();
        results.reverse();
        assert_eq!(results, reference);
        for (request, want) in requests.iter().zip(&reference) {
            assert_eq!(&scorer.score(std::slice::from_ref(request)).unwrap()[0], want);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_requests_agree_with_one_request_at_a_time(
        shapes in prop::collection::vec((0u64..3, 1usize..30, 0u64..4, 1usize..12), 1..12),
        batch_tokens in 1usize..80,
    ) {
        let model = model("smollm2-tied", 2);
        let requests: Vec<ScoreRequest> = shapes
            .iter()
            .map(|&(c, n, e, m)| ScoreRequest { context: tokens(c, n, 96), continuation: tokens(50 + e, m, 96) })
            .collect();
        let scorer = Scorer::with_options(&model, ScoreOptions { batch_tokens, ..ScoreOptions::default() }).unwrap();
        for (request, result) in requests.iter().zip(scorer.score(&requests).unwrap()) {
            let want = naive(&model, request);
            prop_assert!((result.log_likelihood - want.log_likelihood).abs() < 1e-5);
            prop_assert_eq!(result.greedy, want.greedy);
        }
    }
}

#[test]
fn an_empty_continuation_is_certain() {
    let model = model("llama2", 1);
    let request = ScoreRequest { context: vec![1, 2], continuation: vec![] };
    let results = Scorer::new(&model).unwrap().score(&[request]).unwrap();
    assert_eq!(results[0], ScoreResult { greedy: true, ..ScoreResult::default() });
    assert!(Scorer::new(&model).unwrap().score(&[]).unwrap().is_empty());
}

#[test]
fn bad_requests_are_named() {
    let model = model("llama2", 1);
    let scorer = Scorer::new(&model).unwrap();
    let good = ScoreRequest { context: vec![1], continuation: vec![2] };
    for (context, continuation, expected) in [
        (vec![], vec![1], "context is empty"),
        (vec![1], vec![96], "token 96"),
        (vec![u32::MAX], vec![1], "vocabulary"),
        (vec![1], vec![1; 65], "65 tokens"),
    ] {
        let message =
            scorer.score(&[good.clone(), ScoreRequest { context, continuation }]).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("request 1"), "{message}");
    }
}

#[test]
fn scoring_stops_on_request() {
    let model = model("llama2", 1);
    let scorer =
        Scorer::with_options(&model, ScoreOptions { batch_tokens: 10, ..ScoreOptions::default() }).unwrap();
    let mut calls = 0;
    let result = scorer.score_with(&mixed_requests(), &mut |progress| {
        calls += 1;
        assert!(progress.done <= progress.total);
        if calls == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(calls, 2);
}
