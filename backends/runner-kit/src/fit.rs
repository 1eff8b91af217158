//! Cutting requests to what a model can read at once.

use llmcb_plugin_api::sdk::{Error, Result, ScoreRequest};

pub use llmcb_transformer::Fitted;

/// As [`llmcb_transformer::fit`], of a request as the host asks it.
///
/// # Errors
/// The context is empty, or the continuation alone is too long; the message begins with `name`.
pub fn fit(request: &ScoreRequest, limit: usize, name: &str) -> Result<Fitted> {
    llmcb_transformer::fit(&request.context, &request.continuation, limit, name)
        .map_err(|e| Error::invalid(e.to_string()))
}

/// Requests whose continuations are read as part of prompts, by their places among all: each prompt whole, and how it was cut. The inputs have
/// `limit` tokens at most.
///
/// # Errors
/// As [`fit`].
pub fn whole_prompts(
    requests: &[ScoreRequest],
    places: &[usize],
    limit: usize,
) -> Result<(Vec<Vec<u32>>, Vec<Fitted>)> {
    let mut prompts = Vec::new();
    let mut fitted = Vec::new();
    for i in places.iter().copied() {
        let one = fit(&requests[i], limit, &format!("request {i}"))?;
        let mut prompt = one.input.clone();
        prompt.extend(requests[i].continuation.last());
        prompts.push(prompt);
        fitted.push(one);
    }
    Ok((prompts, fitted))
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
