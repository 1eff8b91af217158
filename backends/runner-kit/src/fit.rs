//! Cutting requests to what a model can read at once.

use llmcb_plugin_api::sdk::{Error, Result, ScoreRequest};

/// A request as a model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitted {
    /// Tokens to read: the context and all of the continuation but its last token, which is only predicted.
    pub input: Vec<u32>,
    /// How many of them are context. The token after the last of these is the first that is scored.
    pub context: usize,
    /// Whether tokens were cut from the left.
    pub truncated: bool,
}

/// Cuts a request from the left so that a model that reads `limit` tokens at once can score it, as lm-evaluation-harness does.
///
/// # Errors
/// The context is empty, or the continuation alone is too long; the message begins with `name`.
pub fn fit(request: &ScoreRequest, limit: usize, name: &str) -> Result<Fitted> {
    let scored = request.continuation.len();
    if request.context.is_empty() {
        return Err(Error::invalid(format!(
            "{name}: the context is empty; begin it with the tokenizer's first token, or its end-of-text token"
        )));
    }
    if scored > limit {
        return Err(Error::invalid(format!(
            "{name}: the continuation has {scored} tokens, more than the {limit} the model reads at once"
        )));
    }
    let all = request.context.iter().chain(&request.continuation);
    let cut = (request.context.len() + scored).saturating_sub(limit + 1);
    let mut input: Vec<u32> = all.skip(cut).copied().collect();
    input.pop();
    Ok(Fitted { input, context: request.context.len() - cut, truncated: cut > 0 && scored > 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(context: usize, continuation: usize) -> ScoreRequest {
        let tokens: Vec<u32> = (0..(context + continuation) as u32).collect();
        ScoreRequest { context: tokens[..context].to_vec(), continuation: tokens[context..].to_vec() }
    }

    proptest! {
        #[test]
        fn the_last_tokens_stay_and_all_of_the_continuation_is_scored(context in 1usize..50, continuation in 1usize..30, limit in 30usize..60) {
            let request = request(context, continuation);
            let fitted = fit(&request, limit, "request").unwrap();
            prop_assert!(fitted.input.len() <= limit && fitted.context >= 1);
            prop_assert_eq!(fitted.truncated, context + continuation > limit + 1);
            let mut whole = fitted.input.clone();
            whole.push((context + continuation - 1) as u32);
            prop_assert_eq!(&whole[fitted.context..], &request.continuation[..]);
            prop_assert_eq!(&request.context[context - fitted.context..], &whole[..fitted.context]);
        }
    }

    #[test]
    fn what_cannot_be_scored_is_named() {
        for (request, says) in [
            (request(0, 3), "request 7: the context is empty"),
            (request(1, 9), "request 7: the continuation has 9 tokens, more than the 8"),
        ] {
            let message = fit(&request, 8, "request 7").unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
