//! Cutting what is to be scored to what a model reads at once.

use crate::{Error, Result};

/// A context and its continuation as a model reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fitted {
    /// Tokens to read: the context and all of the continuation but its last token, which is only predicted. Nothing where nothing is scored.
    pub input: Vec<u32>,
    /// How many of them are context. The token after the last of these is the first that is scored.
    pub context: usize,
    /// Whether tokens were cut from the left.
    pub truncated: bool,
}

/// Cuts from the left what a model that reads `limit` tokens at once cannot take, as lm-evaluation-harness does.
///
/// # Errors
/// [`Error::Argument`] of `name` if the context is empty, or the continuation alone is too long.
pub fn fit(context: &[u32], continuation: &[u32], limit: usize, name: &str) -> Result<Fitted> {
    let scored = continuation.len();
    if context.is_empty() {
        return Err(Error::argument(
            name.to_owned(),
            "the context is empty; begin it with the tokenizer's first token, or its end-of-text token",
        ));
    }
    let Some(read) = scored.checked_sub(1) else { return Ok(Fitted::default()) };
    if scored > limit {
        return Err(Error::argument(
            name.to_owned(),
            format!("the continuation has {scored} tokens, more than the {limit} the model reads at once"),
        ));
    }
    let cut = (context.len() + scored).saturating_sub(limit + 1);
    let input = context.iter().skip(cut).chain(&continuation[..read]).copied().collect();
    Ok(Fitted { input, context: context.len() - cut, truncated: cut > 0 })
}
