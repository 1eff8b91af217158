//! The pieces of a text whose scores, logarithms of probabilities, have the greatest sum (Kudo 2018, arXiv:1804.10959),
//! found by dynamic programming (Viterbi 1967, doi:10.1109/TIT.1967.1054010).

use super::model::Model;
use super::trie::Trie;
use crate::tokenizer::vocabulary::token_type;

/// How far an unknown character scores below the worst piece.
const UNKNOWN_PENALTY: f32 = 10.0;

/// A unigram model.
pub(super) struct Unigram {
    pieces: Trie,
    scores: Vec<f32>,
    is_user_defined: Vec<bool>,
    best_score: f32,
    unknown: u32,
    unknown_score: f32,
    /// Ids of the 256 bytes, which stand for unknown characters.
    bytes: Option<Vec<u32>>,
}

/// The best way found to the end of a piece.
#[derive(Clone, Copy)]
struct Step {
    piece: u32,
    start: usize,
    score: f32,
}

impl Unigram {
    pub(super) fn new(model: &Model<'_>) -> Self {
        let vocabulary = &model.vocabulary;
        let normal = || vocabulary.of_type(token_type::NORMAL).map(|(id, _)| model.scores[id]);
        let usable =
            vocabulary.of_type(token_type::NORMAL).chain(vocabulary.of_type(token_type::USER_DEFINED));
        let byte = |byte: u8| vocabulary.ids.get(format!("<0x{byte:02X}>").as_str()).map(|&id| id as u32);
        Unigram {
            pieces: Trie::new(usable.map(|(id, piece)| (piece, id as u32))),
            scores: model.scores.clone(),
            is_user_defined: vocabulary.types.iter().map(|kind| *kind == token_type::USER_DEFINED).collect(),
            best_score: normal().fold(f32::MIN_POSITIVE, f32::max),
            unknown: model.unknown as u32,
            unknown_score: normal().fold(f32::MAX, f32::min) - UNKNOWN_PENALTY,
            bytes: if model.byte_fallback { (0..=u8::MAX).map(byte).collect() } else { None },
        }
    }

    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let bytes = text.as_bytes();
        let mut best: Vec<Option<Step>> = vec![None; bytes.len() + 1];
        for (start, character) in text.char_indices() {
            let before = best[start].map_or(0.0, |step| step.score);
            // Sums are of 32 bits as SentencePiece's are: where paths are equally good, their rounding decides.
            let mut reach = |end: usize, piece: u32, score: f32| {
                let score = score + before;
                if best[end].is_none_or(|step| score > step.score) {
                    best[end] = Some(Step { piece, start, score });
                }
            };
            let mut stands_alone = false;
            for (length, piece) in self.pieces.prefixes(&bytes[start..]) {
                let score = if self.is_user_defined[piece as usize] {
                    length as f32 * self.best_score - 0.1
                } else {
                    self.scores[piece as usize]
                };
                reach(start + length, piece, score);
                stands_alone |= length == character.len_utf8();
            }
            if !stands_alone {
                reach(start + character.len_utf8(), self.unknown, self.unknown_score);
            }
        }
        self.trace_back(bytes, &best)
    }

    fn trace_back(&self, text: &[u8], best: &[Option<Step>]) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut end = text.len();
        while let Some(step) = best[end] {
            match &self.bytes {
                Some(bytes) if step.piece == self.unknown => {
                    ids.extend(text[step.start..end].iter().rev().map(|byte| bytes[usize::from(*byte)]));
                }
                // Unknown characters in a row are one token.
                None if step.piece == self.unknown && ids.last() == Some(&self.unknown) => {}
                _ => ids.push(step.piece),
            }
            end = step.start;
        }
        ids.reverse();
        ids
    }
}
