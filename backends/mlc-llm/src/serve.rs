//! MLC-LLM's server, `mlc_llm serve`.

use std::process::Command;
use std::time::{Duration, Instant};

use llmcb_plugin_api::sdk::{Error, Host, Result, Timing, Workload};
use llmcb_runner_kit::completions::COMPLETIONS;
use llmcb_runner_kit::server::{Plan, Server};
use serde_json::{Value, json};

use crate::library::Installation;
use crate::prepare::{Prepared, mlc_llm};
use crate::runner::RunnerOptions;

/// How timings of [`time`] were taken.
pub(crate) const HOW: &str = "wall clock of a client that streams all prompts at once from the server on loopback, greedy, stop tokens ignored, no \
                              prefix caching, first token counted with the prompt; the server puts tokens together in its stream, so each \
                              repetition's steps are their mean";

/// The command that serves what was prepared.
fn command(
    options: &RunnerOptions,
    installation: &Installation,
    prepared: &Prepared,
    length: usize,
    threads: usize,
    place: (u16, &str),
) -> Command {
    let (port, key) = place;
    let mut command = mlc_llm(&installation.python, "serve");
    command.arg(&prepared.directory).arg("--model-lib").arg(&prepared.library);
    command.args(["--device", options.device.name(), "--mode", "server", "--host", "127.0.0.1"]);
    command.args(["--port", &port.to_string(), "--api-key", key]);
    // A prompt that was read before would seem to be read in no time. Stop tokens are ignored by requests that debug.
    command.args(["--prefix-cache-mode", "disable", "--enable-debug"]);
    let overrides = [
        ("max_num_sequence", options.max_batch_size),
        ("context_window_size", length),
        ("prefill_chunk_size", options.prefill_chunk_size.min(length)),
        ("tensor_parallel_shards", options.tensor_parallel_shards),
    ];
    let overrides: Vec<String> = overrides.iter().map(|(name, value)| format!("{name}={value}")).collect();
    command.args(["--overrides", &overrides.join(";")]);
    command.env("TVM_NUM_THREADS", threads.to_string());
    command
}

/// Starts the server.
///
/// # Errors
/// It ends, or is not ready in time.
pub(crate) fn start(
    options: &RunnerOptions,
    installation: &Installation,
    prepared: &Prepared,
    length: usize,
    host: &Host,
) -> Result<Server> {
    let plan = Plan {
        name: "MLC-LLM",
        health: "/v1/models",
        start_limit: Duration::from_secs(options.start_limit),
        request_limit: Duration::from_secs(options.request_limit),
    };
    Server::start(plan, host, |port, key| {
        command(options, installation, prepared, length, host.threads(), (port, key))
    })
}

/// When the first and the last tokens of a stream came, in seconds since the start.
struct Arrivals {
    first: f64,
    last: f64,
}

/// Reads a stream to its end, which says how many tokens it had.
fn follow(
    begin: Instant,
    new_tokens: usize,
    stream: impl FnOnce(&mut dyn FnMut(&Value) -> Result<()>) -> Result<()>,
) -> Result<Arrivals> {
    let mut arrivals: Option<Arrivals> = None;
    let mut told = None;
    stream(&mut |event| {
        let now = begin.elapsed().as_secs_f64();
        if event["choices"].as_array().is_some_and(|choices| !choices.is_empty()) {
            arrivals.get_or_insert(Arrivals { first: now, last: now }).last = now;
        }
        told = event["usage"]["completion_tokens"].as_u64().or(told);
        Ok(())
    })?;
    match (arrivals, told) {
        (Some(arrivals), Some(told)) if told == new_tokens as u64 => Ok(arrivals),
        (_, Some(told)) => Err(Error::failed(format!("MLC-LLM gave {told} of {new_tokens} tokens"))),
        (_, None) => Err(Error::failed("MLC-LLM did not say how many tokens it gave")),
    }
}

/// Runs a workload once: a stream for each prompt, all at the same time.
///
/// # Errors
/// A stream breaks off, or has another number of tokens.
pub(crate) fn time(server: &mut Server, workload: &Workload) -> Result<Timing> {
    let new_tokens = workload.new_tokens.max(1) as usize;
    let begin = Instant::now();
    let client = server.client();
    let outcome: Result<Vec<Arrivals>> = std::thread::scope(|scope| {
        let streams: Vec<_> = workload
            .prompts
            .iter()
            .map(|prompt| {
                let client = client.clone();
                let body = json!({
                    "prompt": prompt, "max_tokens": new_tokens, "temperature": 0, "stream": true,
                    "stream_options": {"include_usage": true}, "debug_config": {"ignore_eos": true},
                });
                scope.spawn(move || {
                    follow(begin, new_tokens, |visit| client.stream(COMPLETIONS, &body, visit))
                })
            })
            .collect();
        let joined = streams.into_iter().map(|stream| stream.join());
        joined.map(|outcome| outcome.unwrap_or_else(|_| Err(Error::failed("a stream was left")))).collect()
    });
    let all = outcome.map_err(|error| server.explain(error))?;
    let slowest = |of: fn(&Arrivals) -> f64| all.iter().map(of).fold(0.0_f64, f64::max);
    let (first, last) = (slowest(|a| a.first), slowest(|a| a.last));
    let steps = new_tokens - 1;
    let mean = (last - first).max(0.0) / steps.max(1) as f64;
    Ok(Timing { prefill_seconds: first, decode_seconds: vec![mean; steps] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(events: &[Value], new_tokens: usize) -> Result<Arrivals> {
        follow(Instant::now(), new_tokens, |visit| events.iter().try_for_each(visit))
    }

    #[test]
    fn a_stream_says_itself_how_many_tokens_it_had() {
        let token = || json!({"choices": [{"text": "a", "index": 0}], "usage": null});
        let usage = |n: u32| json!({"choices": [], "usage": {"completion_tokens": n}});
        let arrivals = followed(&[token(), token(), usage(3)], 3).ok().unwrap();
        assert!(arrivals.first <= arrivals.last);
        for (events, says) in [
            (vec![token(), usage(2)], "2 of 3"),
            (vec![token(), token()], "did not say"),
            (vec![usage(3)], "3 of 3"),
        ] {
            let message = followed(&events, 3).err().unwrap().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
