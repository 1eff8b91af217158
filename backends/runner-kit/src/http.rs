//! Requests to a server on loopback, with JSON both ways.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use llmcb_plugin_api::sdk::{Error, Result};
use serde_json::Value;
use ureq::Agent;

/// Longest answer: prompts of a piece of a task, with likelihoods of all their tokens.
const LARGEST: u64 = 1 << 30;

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    address: String,
    key: String,
}

impl Client {
    /// For a server at an address, which wants a key; a request takes so long at most.
    pub fn new(address: String, key: &str, limit: Duration) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // Loopback: a proxy of the user's would only be in the way.
            .proxy(None)
            .timeout_global(Some(limit))
            .build();
        Client { agent: agent.into(), address, key: key.to_owned() }
    }

    /// Whether a path is answered well.
    pub fn answers(&self, path: &str) -> bool {
        let request = self.agent.get(format!("{}{path}", self.address));
        let request = request.header("Authorization", format!("Bearer {}", self.key));
        let request = request.config().timeout_global(Some(Duration::from_secs(5))).build();
        request.call().is_ok_and(|answer| answer.status().is_success())
    }

    fn send(&self, path: &str, body: &Value) -> Result<ureq::http::Response<ureq::Body>> {
        let request = self.agent.post(format!("{}{path}", self.address));
        let request = request.header("Authorization", format!("Bearer {}", self.key));
        let failed = |e: &dyn std::fmt::Display| Error::failed(format!("request to {path}: {e}"));
        let mut answer = request.send_json(body).map_err(|e| match e {
            ureq::Error::Timeout(_) => failed(&"no answer in time (option request_limit)"),
            other => failed(&other),
        })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        Err(failed(&format!("{status}: {}", reason(&text))))
    }

    /// Sends JSON, and gives the JSON that comes back.
    ///
    /// # Errors
    /// No answer in time, a refusal with its reason, or an answer that is no JSON.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let mut answer = self.send(path, body)?;
        let text = answer.body_mut().with_config().limit(LARGEST).read_to_string();
        let text = text.map_err(|e| Error::failed(format!("answer of {path}: {e}")))?;
        serde_json::from_str(&text).map_err(|e| Error::failed(format!("answer of {path}: no JSON: {e}")))
    }

    /// Sends JSON, and shows each event of the stream that comes back (lines `data: JSON`, until `data: [DONE]`) at once.
    ///
    /// # Errors
    /// As [`post`](Self::post), a stream that breaks off, or what `visit` says.
    pub fn stream(
        &self,
        path: &str,
        body: &Value,
        mut visit: impl FnMut(&Value) -> Result<()>,
    ) -> Result<()> {
        let mut answer = self.send(path, body)?;
        let broken = |e: &dyn std::fmt::Display| Error::failed(format!("stream of {path}: {e}"));
        let mut lines = BufReader::new(answer.body_mut().with_config().limit(LARGEST).reader());
        let mut line = String::new();
        loop {
            line.clear();
            if lines.read_line(&mut line).map_err(|e| broken(&e))? == 0 {
                return Err(broken(&"it ended before its end was said"));
            }
            match line.trim().strip_prefix("data:").map(str::trim) {
                None => {}
                Some("[DONE]") => return Ok(()),
                Some(event) => {
                    let event: Value = serde_json::from_str(event).map_err(|e| broken(&e))?;
                    if let Some(error) = event.get("error") {
                        return Err(broken(&reason(&error.to_string())));
                    }
                    visit(&event)?;
                }
            }
        }
    }
}

/// The reason in an answer, as OpenAI's servers give it, or its beginning.
fn reason(text: &str) -> String {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let message = json["error"]["message"].as_str().or(json["message"].as_str()).or(json["detail"].as_str());
    let message = message.unwrap_or(text);
    message.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_wherever_a_server_puts_it() {
        for (text, expected) in [
            (r#"{"error": {"message": "too\n long"}}"#, "too long"),
            (r#"{"message": "unknown model"}"#, "unknown model"),
            (r#"{"detail": "Not Found"}"#, "Not Found"),
            ("<html> busy", "<html> busy"),
        ] {
            assert_eq!(reason(text), expected);
        }
    }
}
