//! What SentencePiece does with a text before it cuts it: rules of replacement, and spaces.

use super::charsmap::Charsmap;
use super::trie::Trie;

/// What stands for a space in pieces.
pub(super) const SPACE: &str = "\u{2581}";

/// SentencePiece's normalisation.
pub(super) struct Normalizer {
    pub(super) charsmap: Option<Charsmap>,
    /// Tokens that rules leave alone.
    pub(super) user_defined: Trie,
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) escape_whitespaces: bool,
}

impl Normalizer {
    pub(super) fn normalize(&self, text: &str) -> String {
        let space = if self.escape_whitespaces { SPACE } else { " " };
        let mut rest = text;
        if self.remove_extra_whitespaces {
            while let (length, " ") = self.first(rest) {
                rest = &rest[length..];
            }
        }
        let mut out = String::with_capacity(text.len() + text.len() / 2);
        if self.add_dummy_prefix && !rest.is_empty() {
            out.push_str(space);
        }
        let mut after_space = self.remove_extra_whitespaces;
        while !rest.is_empty() {
            let (length, mut part) = self.first(rest);
            rest = &rest[length..];
            if after_space {
                part = part.trim_start_matches(' ');
            }
            for (nth, word) in part.split(' ').enumerate() {
                if nth > 0 {
                    out.push_str(space);
                }
                out.push_str(word);
            }
            if !part.is_empty() {
                after_space = self.remove_extra_whitespaces && part.ends_with(' ');
            }
        }
        if self.remove_extra_whitespaces {
            out.truncate(out.trim_end_matches(space).len());
        }
        out
    }

    /// How much of `text` is taken at once, and what stands for it.
    fn first<'a>(&'a self, text: &'a str) -> (usize, &'a str) {
        if let Some((length, _)) = self.user_defined.longest(text.as_bytes()) {
            return (length, &text[..length]);
        }
        if let Some(replaced) = self.charsmap.as_ref().and_then(|charsmap| charsmap.longest(text)) {
            return replaced;
        }
        let length = text.chars().next().map_or(0, char::len_utf8);
        (length, &text[..length])
    }
}
