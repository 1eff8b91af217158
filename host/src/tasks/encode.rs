//! From texts to tokens: pairs of context and continuation, and windows of a stream.

use super::docs::{Body, Doc, Prepared, Seam};
use super::prompt::is_space;
use super::{TaskError, TaskKind};
use std::collections::HashMap;
use std::sync::Arc;

/// Most tokens of a prompt in LLMCBench's scripts, which leave out examples until it fits.
const LLMCBENCH_SEQLEN: usize = 2048;

/// What a tokenizer may answer with instead of tokens.
pub type EncodeError = Box<dyn std::error::Error + Send + Sync>;

/// A tokenizer, as tasks need it.
pub trait Encode {
    /// Tokens of each text, in order. With `add_special`, special tokens are added as the model's own tokenizer does by default (LLaMA: a
    /// beginning-of-text token in front; SmolLM2: none); without, never.
    ///
    /// # Errors
    /// Whatever the tokenizer says.
    fn encode(&self, texts: &[&str], add_special: bool) -> Result<Vec<Vec<u32>>, EncodeError>;

    /// The token that stands for an empty context: the beginning-of-text token, or the end-of-text token where there is none.
    fn prefix_token(&self) -> Option<u32>;

    /// UTF-8 bytes of the text that these tokens stand for, where the tokenizer can tell; bits per byte need it.
    fn byte_length(&self, _tokens: &[u32]) -> Option<u64> {
        None
    }
}

/// A request to a model: the log-likelihood of `continuation` after `context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// Tokens that are given; never empty. The choices of a document mostly share them, so a backend does well to run equal contexts once.
    pub context: Vec<u32>,
    /// Tokens that are scored. Empty only where a script leaves nothing of an answer: that counts as certain, and no model need be asked.
    pub continuation: Vec<u32>,
}

/// The requests of a prepared task, in the order in which their scores are expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    /// The requests: for each document its choices in order; or one per window.
    pub tokens: Vec<TokenRequest>,
    /// Bytes of the text of each window's scored tokens, where known; empty for choices.
    pub(crate) window_bytes: Vec<Option<u64>>,
    /// Tokens of the whole text, of which windows are cut; 0 for choices.
    pub stream_tokens: usize,
}

/// Moves white space at the end of the context to the beginning of the continuation, where tokenizers keep it.
fn split_pair<'a>(context: &'a str, continuation: &str) -> (&'a str, String) {
    let trimmed = context.trim_end_matches(is_space);
    (trimmed, format!("{}{continuation}", &context[trimmed.len()..]))
}

impl Prepared {
    /// Tokens of every request.
    ///
    /// A pair is encoded as lm-evaluation-harness does: context and continuation as one text, whose first tokens, as many as the context has
    /// alone, are the context.
    ///
    /// # Errors
    /// Where the tokenizer fails, a continuation has no token of its own, or a text is shorter than one window.
    pub fn requests(&self, encoder: &dyn Encode) -> Result<Requests, TaskError> {
        self.check_conversation(encoder)?;
        match &self.body {
            Body::Choice(docs) => {
                let seam = docs.iter().flat_map(|doc| &doc.requests).next().map(|request| &request.seam);
                let tokens = match seam {
                    Some(Seam::Apart) => self.encode_apart(docs, encoder)?,
                    Some(Seam::After(_)) => self.encode_after(docs, encoder)?,
                    _ => self.encode_joined(docs, encoder)?,
                };
                Ok(Requests { tokens, window_bytes: Vec::new(), stream_tokens: 0 })
            }
            Body::Stream { text, seqlen } => self.encode_windows(text, *seqlen, encoder),
        }
    }

    fn encode_joined(&self, docs: &[Doc], encoder: &dyn Encode) -> Result<Vec<TokenRequest>, TaskError> {
        let pairs: Vec<(&Arc<str>, &str)> = docs
            .iter()
            .flat_map(|doc| &doc.requests)
            .map(|request| (&request.context, request.continuation.as_str()))
            .collect();
        self.encode_pairs(&pairs, encoder)
    }

    /// Contexts by themselves, with as many examples as fit; of continuations the last token.
    fn encode_apart(&self, docs: &[Doc], encoder: &dyn Encode) -> Result<Vec<TokenRequest>, TaskError> {
        let mut last: HashMap<&str, u32> = HashMap::new();
        for request in docs.iter().flat_map(|doc| &doc.requests) {
            let word = request.continuation.as_str();
            if !last.contains_key(word) {
                let tokens =
                    self.encode(encoder, &[word], false)?.pop().and_then(|tokens| tokens.last().copied());
                last.insert(word, tokens.ok_or_else(|| self.no_token(word))?);
            }
        }
        let contexts: Vec<&str> =
            docs.iter().map(|doc| doc.requests.first().map_or("", |r| &*r.context)).collect();
        let contexts = self.encode(encoder, &contexts, false)?;
        let mut out = Vec::new();
        for (doc, mut context) in docs.iter().zip(contexts) {
            for shorter in &doc.shorter {
                if context.len() <= LLMCBENCH_SEQLEN {
                    break;
                }
                context = self.encode(encoder, &[shorter], false)?.pop().unwrap_or_default();
            }
            if context.is_empty() {
                return Err(self.no_token(doc.requests.first().map_or("", |r| &r.context)));
            }
            for request in &doc.requests {
                let continuation = vec![last[request.continuation.as_str()]];
                out.push(TokenRequest { context: context.clone(), continuation });
            }
        }
        Ok(out)
    }

    /// Whole texts, of which a beginning is cut off that was encoded by itself.
    fn encode_after(&self, docs: &[Doc], encoder: &dyn Encode) -> Result<Vec<TokenRequest>, TaskError> {
        let requests: Vec<_> = docs.iter().flat_map(|doc| &doc.requests).collect();
        let wholes: Vec<String> =
            requests.iter().map(|r| format!("{}{}", r.context, r.continuation)).collect();
        let wholes: Vec<&str> = wholes.iter().map(String::as_str).collect();
        let wholes = self.encode(encoder, &wholes, false)?;
        let mut length: HashMap<&str, usize> = HashMap::new();
        let mut out = Vec::with_capacity(requests.len());
        for (request, whole) in requests.into_iter().zip(wholes) {
            let Seam::After(beginning) = &request.seam else { continue };
            let beginning = match length.get(&**beginning) {
                Some(known) => *known,
                None => {
                    let tokens = self.encode(encoder, &[beginning], false)?.pop().unwrap_or_default();
                    *length.entry(beginning).or_insert(tokens.len())
                }
            };
            let cut = (beginning + 3).min(whole.len());
            if cut == 0 {
                return Err(self.no_token(&request.context));
            }
            out.push(TokenRequest { context: whole[..cut].to_vec(), continuation: whole[cut..].to_vec() });
        }
        Ok(out)
    }

    fn no_token(&self, text: &str) -> TaskError {
        TaskError::Scores { task: self.name.clone(), what: format!("{text:?} has no token of its own") }
    }

    fn encode(
        &self,
        encoder: &dyn Encode,
        texts: &[&str],
        add_special: bool,
    ) -> Result<Vec<Vec<u32>>, TaskError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |source| TaskError::Encode { task: self.name.clone(), source };
        let encoded = encoder.encode(texts, add_special).map_err(failed)?;
        if encoded.len() != texts.len() {
            return Err(failed(format!("it gave {} answers to {} texts", encoded.len(), texts.len()).into()));
        }
        Ok(encoded)
    }

    fn encode_pairs(
        &self,
        pairs: &[(&Arc<str>, &str)],
        encoder: &dyn Encode,
    ) -> Result<Vec<TokenRequest>, TaskError> {
        // A document's choices share their context: it is encoded once.
        let mut contexts: Vec<&str> = Vec::new();
        let mut number: HashMap<&str, usize> = HashMap::new();
        let mut split = Vec::with_capacity(pairs.len());
        for (context, continuation) in pairs {
            let (context, continuation) = split_pair(context, continuation);
            split.push((context, continuation));
            if !context.is_empty() {
                number.entry(context).or_insert_with(|| {
                    contexts.push(context);
                    contexts.len() - 1
                });
            }
        }
        let wholes: Vec<String> = split
            .iter()
            .filter(|(context, _)| !context.is_empty())
            .map(|(context, continuation)| format!("{context}{continuation}"))
            .collect();
        let whole_refs: Vec<&str> = wholes.iter().map(String::as_str).collect();
        let alone: Vec<&str> =
            split.iter().filter(|(context, _)| context.is_empty()).map(|(_, c)| c.as_str()).collect();
        let contexts = self.encode(encoder, &contexts, true)?;
        let mut wholes = self.encode(encoder, &whole_refs, true)?.into_iter();
        let mut alone = self.encode(encoder, &alone, false)?.into_iter();
        let mut out = Vec::with_capacity(pairs.len());
        for (context, continuation) in &split {
            let (context, continuation_tokens) = if context.is_empty() {
                let continuation = alone.next().unwrap_or_default();
                let prefix = encoder.prefix_token().ok_or_else(|| TaskError::Scores {
                    task: self.name.clone(),
                    what: "a prompt is empty, and the tokenizer has no beginning- or end-of-text token to stand for it".to_owned(),
                })?;
                if continuation.first() == Some(&prefix) {
                    (vec![prefix], continuation[1..].to_vec())
                } else {
                    (vec![prefix], continuation)
                }
            } else {
                let context = &contexts[number[context]];
                let whole = wholes.next().unwrap_or_default();
                let cut = context.len().min(whole.len());
                // The whole's own tokens: at the seam they may differ from the context's.
                (whole[..cut].to_vec(), whole[cut..].to_vec())
            };
            if continuation_tokens.is_empty() || context.is_empty() {
                return Err(TaskError::Scores {
                    task: self.name.clone(),
                    what: format!(
                        "the continuation {continuation:?} has no token of its own after its context"
                    ),
                });
            }
            out.push(TokenRequest { context, continuation: continuation_tokens });
        }
        Ok(out)
    }

    fn encode_windows(&self, text: &str, seqlen: usize, encoder: &dyn Encode) -> Result<Requests, TaskError> {
        let stream = self.encode(encoder, &[text], true)?.pop().unwrap_or_default();
        let count = stream.len() / seqlen;
        if count == 0 {
            return Err(TaskError::Option {
                task: self.name.clone(),
                what: format!(
                    "the text has {} tokens, fewer than one window of {seqlen}; choose a smaller seqlen or a longer text",
                    stream.len()
                ),
            });
        }
        let windows = stream.chunks_exact(seqlen).take(self.options.limit.unwrap_or(usize::MAX));
        let mut tokens = Vec::new();
        let mut window_bytes = Vec::new();
        for window in windows {
            window_bytes.push(encoder.byte_length(&window[1..]));
            tokens.push(TokenRequest { context: window[..1].to_vec(), continuation: window[1..].to_vec() });
        }
        Ok(Requests { tokens, window_bytes, stream_tokens: stream.len() })
    }

    /// Whether this is perplexity over windows.
    #[must_use]
    pub fn is_perplexity(&self) -> bool {
        matches!(self.task.spec().kind, TaskKind::Perplexity { .. })
    }
}
