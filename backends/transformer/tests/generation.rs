//! Generation with kept keys and values gives what running everything anew gives.

mod support;

use std::ops::ControlFlow;

use llmcb_transformer::generate::{GenerateOptions, StopReason, generate};
use support::{CASES, model, tokens};

fn keep_going(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn kept_keys_change_nothing() {
    for name in CASES {
        let model = model(name, 2);
        let prompts = vec![tokens(1, 5, 96), tokens(2, 17, 96), tokens(3, 1, 96)];
        let options = GenerateOptions { max_new_tokens: 8, batch_tokens: 20, ..GenerateOptions::default() };
        let (answers, timing) = generate(&model, &prompts, &options, &mut keep_going).unwrap();
        assert_eq!(timing.prompt_tokens, 23);
        assert_eq!(timing.step_sequences, [3; 7]);
        for (prompt, answer) in prompts.iter().zip(&answers) {
            let mut all = prompt.clone();
            for &token in &answer.tokens {
                let logits = model.logits(&all).unwrap();
                let last = &logits[logits.len() - 96..];
                let max = last.iter().copied().fold(f32::MIN, f32::max);
                assert_eq!(last.iter().position(|&v| v == max), Some(token as usize), "{name}");
                all.push(token);
            }
            assert_eq!((answer.tokens.len(), answer.reason), (8, StopReason::Length));
        }
    }
}

#[test]
fn sequences_end_at_stop_tokens_and_at_the_context() {
    let model = model("llama2", 1);
    let prompt = tokens(1, 60, 96);
    let options = GenerateOptions { max_new_tokens: 100, ..GenerateOptions::default() };
    let (answers, _) = generate(&model, std::slice::from_ref(&prompt), &options, &mut keep_going).unwrap();
    assert_eq!(answers[0].reason, StopReason::ContextFull);
    assert_eq!(answers[0].tokens.len(), 5);
    let stop = answers[0].tokens[2];
    let options = GenerateOptions { stop: vec![stop], ..options };
    let (answers, _) = generate(&model, &[prompt], &options, &mut keep_going).unwrap();
    assert_eq!(answers[0].reason, StopReason::Stop);
    assert!(!answers[0].tokens.contains(&stop) && answers[0].tokens.len() <= 2);
}

#[test]
fn bad_prompts_are_named() {
    let model = model("llama2", 1);
    for prompt in [vec![], vec![1; 65], vec![96]] {
        let message =
            generate(&model, &[vec![1], prompt], &GenerateOptions::default(), &mut keep_going).unwrap_err();
        assert!(message.to_string().contains("prompt 1"), "{message}");
    }
}
