//! Texts for calibration and timing, as tokens.

use std::collections::BTreeMap;

use llmcb_plugin_api::sdk::{Error, Result};

use super::{fetch_progress, of_data, store};
use crate::tasks::{self, CalibrationText, DataUse};
use crate::worker::Services;
use crate::worker::protocol::StageOrder;

/// Bytes of text that surely hold a token; texts hold about 4 for each.
const BYTES_PER_TOKEN: usize = 12;

/// Name of a piece of data in results.
pub fn data_name(data: &DataUse) -> String {
    match (data.part.as_str(), data.role.as_str()) {
        ("", role) => format!("{} ({role})", data.asset),
        (part, role) => format!("{}:{part} ({role})", data.asset),
    }
}

/// Name of a calibration text in results.
pub(crate) fn calibration_name(text: &str) -> String {
    format!("{text} (calibration)")
}

/// The text of an order, noted among the data.
pub(super) fn obtain(
    order: &StageOrder,
    services: &Services,
    name: &str,
    data: &mut BTreeMap<String, String>,
) -> Result<CalibrationText> {
    let text = tasks::calibration_text(Some(name), &store(order, services)?, &fetch_progress(services))
        .map_err(|e| of_data(services, &e))?;
    data.insert(calibration_name(&text.name), text.sha256.clone());
    Ok(text)
}

/// At least `count` tokens from the beginning of a text, or all it has. Only so much of the text is encoded as is surely enough: the tokens are
/// those of the whole text, because the cut is at the end of a line far behind the last token that is used.
pub(super) fn first_tokens(
    text: &str,
    count: usize,
    encode: impl Fn(&[String]) -> Result<Vec<Vec<u32>>>,
) -> Result<Vec<u32>> {
    let enough = count.saturating_mul(BYTES_PER_TOKEN).saturating_add(4096);
    let cut = match text.as_bytes().get(enough..) {
        Some(rest) => rest.iter().position(|b| *b == b'\n').map_or(text.len(), |at| enough + at + 1),
        None => text.len(),
    };
    for piece in [text.get(..cut).unwrap_or(text), text] {
        let mut encoded = encode(&[piece.to_owned()])?;
        if encoded.len() != 1 {
            return Err(Error::failed(format!("the tokenizer gave {} answers to 1 text", encoded.len())));
        }
        let tokens = encoded.pop().unwrap_or_default();
        if tokens.len() >= count || piece.len() == text.len() {
            return Ok(tokens);
        }
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(texts: &[String]) -> Result<Vec<Vec<u32>>> {
        Ok(texts.iter().map(|t| t.bytes().map(u32::from).collect()).collect())
    }

    /// A tokenizer with very long tokens, of which the shortened text has too few.
    fn rare(texts: &[String]) -> Result<Vec<Vec<u32>>> {
        Ok(texts.iter().map(|t| t.bytes().step_by(50).map(u32::from).collect()).collect())
    }

    #[test]
    fn long_texts_are_cut_behind_a_line_and_give_the_same_tokens() {
        let text: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
        let tokens = first_tokens(&text, 1000, bytes).unwrap();
        assert!(tokens.len() >= 1000 && tokens.len() < text.len() / 2);
        assert!(text.as_bytes()[..tokens.len()].ends_with(b"\n"));
        assert_eq!(tokens[..1000], bytes(std::slice::from_ref(&text)).unwrap()[0][..1000]);
        assert_eq!(first_tokens(&text, 3000, rare).unwrap(), rare(std::slice::from_ref(&text)).unwrap()[0]);
    }

    #[test]
    fn short_texts_give_all_they_have() {
        assert_eq!(first_tokens("abc", 10, bytes).unwrap().len(), 3);
        assert_eq!(first_tokens("", 10, bytes).unwrap().len(), 0);
    }

    #[test]
    fn the_cut_never_splits_a_character() {
        let text = "é\n".repeat(10_000);
        assert!(first_tokens(&text, 7, bytes).unwrap().len() >= 7);
    }
}
