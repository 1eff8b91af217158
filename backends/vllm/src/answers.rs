//! What vLLM's completions say.

use llmcb_plugin_api::sdk::{Error, Result, Score};
use llmcb_runner_kit::fit::Fitted;
use serde_json::Value;

/// The score of a continuation from the `prompt_logprobs` of its whole prompt: for each token an object by token id, with its logarithm of the
/// probability and its rank among all tokens, 1 the most likely.
///
/// # Errors
/// A token is missing, or has no likelihood.
pub(crate) fn score(choice: &Value, continuation: &[u32], fitted: &Fitted) -> Result<Score> {
    let wrong = |what: &str| Error::failed(format!("vLLM's prompt_logprobs {what}"));
    let all = choice["prompt_logprobs"].as_array().ok_or_else(|| wrong("are missing"))?;
    if all.len() != fitted.context + continuation.len() {
        return Err(wrong(&format!("are {} of {}", all.len(), fitted.context + continuation.len())));
    }
    let mut score = Score { greedy: true, truncated: fitted.truncated, ..Score::default() };
    for (token, entry) in continuation.iter().zip(&all[fitted.context..]) {
        let own = &entry[token.to_string()];
        let likelihood = own["logprob"].as_f64().ok_or_else(|| wrong(&format!("lack token {token}")))?;
        score.log_likelihood += likelihood;
        score.greedy &= own["rank"].as_u64() == Some(1);
        score.token_log_likelihoods.push(likelihood as f32);
    }
    Ok(score)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answered() -> Value {
        let token = |id: &str, logprob: f64, rank: u32| json!({id: {"logprob": logprob, "rank": rank}, "9": {"logprob": -0.1, "rank": 1}});
        json!({"prompt_logprobs": [null, token("7", -1.0, 3), token("8", -2.0, 1), token("6", -0.5, 1)]})
    }

    #[test]
    fn the_continuation_alone_is_scored() {
        let fitted = Fitted { input: vec![1, 7, 8], context: 2, truncated: true };
        let found = score(&answered(), &[8, 6], &fitted).unwrap();
        assert_eq!((found.log_likelihood, found.greedy, found.truncated), (-2.5, true, true));
        assert_eq!(found.token_log_likelihoods, [-2.0, -0.5]);
        let fitted = Fitted { context: 1, ..fitted };
        assert!(!score(&answered(), &[7, 8, 6], &fitted).unwrap().greedy);
    }

    #[test]
    fn answers_that_lack_something_are_refused() {
        let fitted = Fitted { input: vec![1, 7, 8], context: 2, truncated: false };
        let none = json!({"prompt_logprobs": null});
        for (choice, continuation, says) in [
            (answered(), &[8, 5][..], "lack token 5"),
            (answered(), &[8][..], "are 4 of 3"),
            (none, &[8, 6], "are missing"),
        ] {
            let message = score(&choice, continuation, &fitted).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
