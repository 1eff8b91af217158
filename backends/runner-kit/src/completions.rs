//! Completions of a server with OpenAI's interface, from token ids to token ids.

use std::sync::mpsc::channel;
use std::time::Instant;

use llmcb_plugin_api::sdk::{Error, Host, Result, ScoreRequest, Timing, Workload};
use serde_json::Value;

use crate::server::Server;
use crate::timing::slowest;

/// Where they are asked for.
pub const COMPLETIONS: &str = "/v1/completions";
/// Tokens of the prompts that are sent at once: an answer is a sign of life.
const TOGETHER: usize = 4096;

/// How timings of [`time`] were taken.
pub const HOW: &str = "wall clock of a client that streams all prompts at once from the server on loopback, greedy, stop tokens ignored, no \
                       prefix caching, first token counted with the prompt";

/// Asks for a completion.
///
/// # Errors
/// What the server says, or why it ended.
pub fn complete(server: &mut Server, body: &Value) -> Result<Value> {
    let answer = server.client().post(COMPLETIONS, body);
    answer.map_err(|error| server.explain(error))
}

/// The choices of an answer, in the order of the prompts.
///
/// # Errors
/// There are not as many as prompts.
pub fn choices<'a>(name: &str, answer: &'a Value, prompts: usize) -> Result<Vec<&'a Value>> {
    let mut choices: Vec<&Value> = answer["choices"].as_array().into_iter().flatten().collect();
    choices.sort_by_key(|choice| choice["index"].as_u64());
    if choices.len() != prompts {
        return Err(Error::failed(format!("{name} answered {} of {prompts} prompts", choices.len())));
    }
    Ok(choices)
}

/// Token ids of a choice or of an event of a stream.
///
/// # Errors
/// There are none.
pub fn token_ids(name: &str, choice: &Value) -> Result<Vec<u32>> {
    let ids = choice["token_ids"].as_array();
    let ids =
        ids.ok_or_else(|| Error::failed(format!("{name} gave no token ids; it is too old a version")))?;
    let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    let read: Option<Vec<u32>> = ids.iter().map(id).collect();
    read.ok_or_else(|| Error::failed(format!("{name} gave token ids that are no numbers")))
}

/// Requests, by their places, in portions of about 4,096 tokens; those with nothing to score are left out.
pub fn portions(requests: &[ScoreRequest]) -> Vec<Vec<usize>> {
    let mut portions: Vec<Vec<usize>> = Vec::new();
    let mut tokens = usize::MAX;
    for (i, request) in requests.iter().enumerate().filter(|(_, request)| !request.continuation.is_empty()) {
        let own = request.context.len() + request.continuation.len();
        if tokens.saturating_add(own) > TOGETHER {
            portions.push(Vec::new());
            tokens = 0;
        }
        tokens += own;
        if let Some(portion) = portions.last_mut() {
            portion.push(i);
        }
    }
    portions
}

/// Prompts to go on from, and how far.
pub struct Prompts<'a> {
    /// Token ids of each.
    pub prompts: &'a [Vec<u32>],
    /// Most tokens that each may get.
    pub max_new_tokens: u32,
    /// Tokens before which an answer ends.
    pub stop: &'a [u32],
    /// Tokens that the longest prompt may have.
    pub limit: usize,
}

/// Goes on from prompts one after another. `body` makes the request for a prompt and the most tokens that it may get.
///
/// # Errors
/// A prompt is empty or too long, or the server says so.
pub fn generate(
    server: &mut Server,
    host: &Host,
    asked: &Prompts<'_>,
    body: impl Fn(&[u32], usize) -> Value,
) -> Result<Vec<Vec<u32>>> {
    let mut answers = Vec::new();
    for (i, prompt) in asked.prompts.iter().enumerate() {
        host.check_cancelled()?;
        if prompt.is_empty() || prompt.len() > asked.limit {
            let (length, limit) = (prompt.len(), asked.limit);
            return Err(Error::invalid(format!(
                "prompt {i} has {length} tokens, the model takes 1 to {limit}"
            )));
        }
        let most = (asked.max_new_tokens as usize).min(asked.limit + 1 - prompt.len());
        if most == 0 {
            answers.push(Vec::new());
            continue;
        }
        let answer = complete(server, &body(prompt, most))?;
        let name = server.name();
        let mut tokens = token_ids(name, choices(name, &answer, 1)?[0])?;
        if let Some(end) = tokens.iter().position(|token| asked.stop.contains(token)) {
            tokens.truncate(end);
        }
        answers.push(tokens);
    }
    Ok(answers)
}

/// Runs a workload once: a stream for each prompt, all at the same time. `body` makes the request of a prompt for so many new tokens, and
/// `count` says how many tokens an event of its stream brings.
///
/// # Errors
/// A stream breaks off, or brings another number of tokens.
pub fn time(
    server: &mut Server,
    workload: &Workload,
    body: impl Fn(&[u32], usize) -> Value + Sync,
    count: impl Fn(&Value) -> Result<usize> + Sync,
) -> Result<Timing> {
    let (sender, arrivals) = channel();
    let begin = Instant::now();
    let new_tokens = workload.new_tokens.max(1) as usize;
    let (client, name) = (server.client(), server.name());
    let outcome: Result<()> = std::thread::scope(|scope| {
        let (body, count) = (&body, &count);
        let stream = |prompt: &'_ [u32]| {
            let (client, sender, body) = (client.clone(), sender.clone(), body(prompt, new_tokens));
            scope.spawn(move || {
                let mut there = 0;
                client.stream(COMPLETIONS, &body, |event| {
                    let now = begin.elapsed().as_secs_f64();
                    for _ in 0..count(event)? {
                        let _ = sender.send((there, now));
                        there += 1;
                    }
                    Ok(())
                })?;
                match there == new_tokens {
                    true => Ok(()),
                    false => Err(Error::failed(format!("{name} gave {there} of {new_tokens} tokens"))),
                }
            })
        };
        let streams: Vec<_> = workload.prompts.iter().map(|prompt| stream(prompt)).collect();
        streams.into_iter().try_for_each(|stream| match stream.join() {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::failed("a stream was left")),
        })
    });
    drop(sender);
    outcome.map_err(|error| server.explain(error))?;
    Ok(slowest(new_tokens, arrivals))
}

/// The tokens that an event of a stream brings, where it names them.
///
/// # Errors
/// It does not.
pub fn count_token_ids(name: &str, event: &Value) -> Result<usize> {
    let choices = event["choices"].as_array().into_iter().flatten();
    choices.map(|choice| token_ids(name, choice).map(|ids| ids.len())).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn choices_come_in_the_order_of_prompts_with_their_tokens() {
        let answer = json!({"choices": [{"index": 1, "token_ids": [4, 5]}, {"index": 0}]});
        let all = choices("vLLM", &answer, 2).unwrap();
        assert_eq!(token_ids("vLLM", all[1]).unwrap(), [4, 5]);
        assert!(token_ids("vLLM", all[0]).unwrap_err().message().contains("vLLM gave no token ids"));
        assert!(token_ids("vLLM", &json!({"token_ids": ["5"]})).is_err());
        assert!(choices("vLLM", &answer, 3).unwrap_err().message().contains("2 of 3 prompts"));
        assert_eq!(count_token_ids("vLLM", &json!({"choices": [{"token_ids": [1, 2]}]})).unwrap(), 2);
        assert_eq!(count_token_ids("vLLM", &json!({"choices": []})).unwrap(), 0, "the usage at the end");
    }

    #[test]
    fn portions_hold_all_that_is_scored_and_stay_small() {
        let request = |context: usize, continuation: usize| ScoreRequest {
            context: vec![1; context],
            continuation: vec![1; continuation],
        };
        let requests = [request(4000, 90), request(10, 10), request(5, 0), request(9000, 1), request(1, 1)];
        assert_eq!(portions(&requests), [vec![0], vec![1], vec![3], vec![4]]);
        assert!(portions(&[]).is_empty());
    }
}
