//! What the driver answers.

use llmcb_plugin_api::sdk::{Error, Result, Score, Timing, Workload};
use llmcb_runner_kit::fit::Fitted;
use llmcb_runner_kit::timing::slowest;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What was opened.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Opened {
    /// TensorRT-LLM's version.
    pub version: String,
    /// Names of the GPUs that there are.
    pub gpus: Vec<String>,
    /// Bytes of their memory that are in use.
    pub memory: u64,
}

/// Reads an answer, of which `what` says what it is to be.
///
/// # Errors
/// It is something else.
pub(crate) fn read<T: DeserializeOwned>(answer: Value, what: &str) -> Result<T> {
    serde_json::from_value(answer)
        .map_err(|e| Error::failed(format!("TensorRT-LLM's driver answered something else than {what}: {e}")))
}

/// `ln p` and rank of a token, 1 the most likely; nothing for one that the library left out.
pub(crate) type Token = Option<(f64, Option<u64>)>;

/// The score of a continuation from what was answered for its tokens.
///
/// # Errors
/// There are not as many, or one has no likelihood.
pub(crate) fn score(tokens: &[Token], continuation: &[u32], fitted: &Fitted) -> Result<Score> {
    let wrong = |what: &str| Error::failed(format!("TensorRT-LLM's prompt_logprobs {what}"));
    if tokens.len() != continuation.len() {
        return Err(wrong(&format!("are {} of {}", tokens.len(), continuation.len())));
    }
    let mut score = Score { greedy: true, truncated: fitted.truncated, ..Score::default() };
    for (id, token) in continuation.iter().zip(tokens) {
        let (likelihood, rank) = token.ok_or_else(|| wrong(&format!("lack token {id}")))?;
        score.log_likelihood += likelihood;
        score.greedy &= rank == Some(1);
        score.token_log_likelihoods.push(likelihood as f32);
    }
    Ok(score)
}

/// The times of a run from when each new token of each prompt arrived.
///
/// # Errors
/// There are other prompts or tokens than asked for.
pub(crate) fn timing(arrivals: &[Vec<f64>], workload: &Workload) -> Result<Timing> {
    let new_tokens = workload.new_tokens.max(1) as usize;
    if arrivals.len() != workload.prompts.len() {
        let (got, asked) = (arrivals.len(), workload.prompts.len());
        return Err(Error::failed(format!("TensorRT-LLM answered {got} of {asked} prompts")));
    }
    if let Some(other) = arrivals.iter().find(|times| times.len() != new_tokens) {
        let got = other.len();
        return Err(Error::failed(format!("TensorRT-LLM gave {got} of {new_tokens} tokens")));
    }
    Ok(slowest(new_tokens, arrivals.iter().flat_map(|times| times.iter().copied().enumerate())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_continuation_is_scored_token_by_token() {
        let fitted = Fitted { input: vec![1, 7, 8], context: 2, truncated: true };
        let tokens: Vec<Token> = read(json!([[-2.0, 1], [-0.5, 1]]), "likelihoods").unwrap();
        let found = score(&tokens, &[8, 6], &fitted).unwrap();
        assert_eq!((found.log_likelihood, found.greedy, found.truncated), (-2.5, true, true));
        assert_eq!(found.token_log_likelihoods, [-2.0, -0.5]);
        let tokens: Vec<Token> = read(json!([[-2.0, 3], [-0.5, null]]), "likelihoods").unwrap();
        assert!(!score(&tokens, &[8, 6], &fitted).unwrap().greedy);
    }

    #[test]
    fn answers_that_lack_something_are_refused() {
        let fitted = Fitted { input: vec![1, 7], context: 1, truncated: false };
        for (answer, says) in [(json!([[-2.0, 1]]), "are 1 of 2"), (json!([[-2.0, 1], null]), "lack token 5")]
        {
            let tokens: Vec<Token> = read(answer, "likelihoods").unwrap();
            let message = score(&tokens, &[8, 5], &fitted).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
        let message = read::<Vec<Token>>(json!({"a": 1}), "likelihoods").unwrap_err().to_string();
        assert!(message.contains("something else than likelihoods"), "{message}");
    }

    #[test]
    fn a_run_lacks_no_token() {
        let workload =
            Workload { prompts: vec![vec![1], vec![2]], new_tokens: 2, warm_up: 0, repetitions: 1 };
        let found = timing(&[vec![0.5, 1.0], vec![0.75, 0.875]], &workload).unwrap();
        assert_eq!((found.prefill_seconds, found.decode_seconds), (0.75, vec![0.25]));
        for (arrivals, says) in
            [(vec![vec![0.5, 1.0]], "1 of 2 prompts"), (vec![vec![0.5, 1.0], vec![0.75]], "1 of 2 tokens")]
        {
            let message = timing(&arrivals, &workload).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
