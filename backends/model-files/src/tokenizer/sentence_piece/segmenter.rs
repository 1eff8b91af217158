//! Text to ids as SentencePiece does it, where the library's own steps come out differently: with rules of
//! replacement, extra spaces removed, user-defined tokens, or a unigram model.

use tokenizers::{Model as _, NormalizerWrapper, OffsetReferential, OffsetType, Tokenizer};

use super::charsmap::Charsmap;
use super::model::{Algorithm, Model};
use super::normalizer::Normalizer;
use super::trie::Trie;
use super::unigram::Unigram;
use crate::tokenizer::vocabulary::token_type;

/// A SentencePiece model, ready for text.
pub(in crate::tokenizer) struct Segmenter {
    normalizer: Normalizer,
    /// `None` for a model that merges pairs, which the library does exactly.
    unigram: Option<Unigram>,
}

impl Segmenter {
    /// `None` for a model that the library's steps alone reproduce.
    pub(super) fn for_model(model: &Model<'_>) -> Result<Option<Self>, String> {
        let settings = &model.normalizer;
        let has_user_defined = model.vocabulary.of_type(token_type::USER_DEFINED).next().is_some();
        let is_plain =
            settings.charsmap.is_empty() && settings.escape_whitespaces && !settings.remove_extra_whitespaces;
        if model.algorithm == Algorithm::BytePairs && is_plain && !has_user_defined {
            return Ok(None);
        }
        let user_defined = model.vocabulary.of_type(token_type::USER_DEFINED);
        let charsmap = Some(settings.charsmap).filter(|charsmap| !charsmap.is_empty());
        Ok(Some(Segmenter {
            normalizer: Normalizer {
                charsmap: charsmap.map(Charsmap::parse).transpose()?,
                user_defined: Trie::new(user_defined.map(|(id, token)| (token, id as u32))),
                add_dummy_prefix: settings.add_dummy_prefix,
                remove_extra_whitespaces: settings.remove_extra_whitespaces,
                escape_whitespaces: settings.escape_whitespaces,
            },
            unigram: (model.algorithm == Algorithm::Unigram).then(|| Unigram::new(model)),
        }))
    }

    /// Ids of `text`, in which the special tokens of `tokenizer`, made of the same model, are found first.
    pub(in crate::tokenizer) fn encode(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
    ) -> tokenizers::Result<Vec<u32>> {
        let mut ids = Vec::new();
        let parts = tokenizer.get_added_vocabulary().extract_and_normalize(None::<&NormalizerWrapper>, text);
        for (part, _, special) in parts.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            match special {
                Some(tokens) => ids.extend(tokens.iter().map(|token| token.id)),
                None => self.segment(tokenizer, &self.normalizer.normalize(part), &mut ids)?,
            }
        }
        Ok(ids)
    }

    fn segment(&self, tokenizer: &Tokenizer, text: &str, ids: &mut Vec<u32>) -> tokenizers::Result<()> {
        if let Some(unigram) = &self.unigram {
            ids.extend(unigram.encode(text));
            return Ok(());
        }
        // Pairs are not merged across a user-defined token.
        let mut merge = |text: &str, then: Option<u32>| -> tokenizers::Result<()> {
            ids.extend(tokenizer.get_model().tokenize(text)?.iter().map(|token| token.id));
            ids.extend(then);
            Ok(())
        };
        let (mut start, mut at) = (0, 0);
        while let Some(character) = text[at..].chars().next() {
            match self.normalizer.user_defined.longest(&text.as_bytes()[at..]) {
                Some((length, token)) => {
                    merge(&text[start..at], Some(token))?;
                    at += length;
                    start = at;
                }
                None => at += character.len_utf8(),
            }
        }
        merge(&text[start..], None)
    }
}
