//! `tokenizer.model`: what SentencePiece's `ModelProto` says (Kudo & Richardson 2018, arXiv:1808.06226).

use super::protobuf::{Fields, Value};
use crate::tokenizer::merges::MAX_PIECE;
use crate::tokenizer::vocabulary::{Vocabulary, token_type};

/// The algorithm that cuts text into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Unigram,
    BytePairs,
}

/// A SentencePiece model.
pub(super) struct Model<'a> {
    pub(super) vocabulary: Vocabulary<'a>,
    pub(super) scores: Vec<f32>,
    pub(super) algorithm: Algorithm,
    pub(super) byte_fallback: bool,
    pub(super) normalizer: Settings<'a>,
    pub(super) unknown: usize,
    pub(super) bos: Option<usize>,
    pub(super) eos: Option<usize>,
    pub(super) padding: Option<usize>,
}

/// What happens to text before it is cut.
pub(super) struct Settings<'a> {
    /// Rules of replacement, compiled by SentencePiece; empty for none.
    pub(super) charsmap: &'a [u8],
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
    pub(super) escape_whitespaces: bool,
}

/// Settings of the trainer that the finished model depends on.
struct Trainer<'a> {
    kind: u64,
    byte_fallback: bool,
    whitespace_as_suffix: bool,
    bos: &'a str,
    eos: &'a str,
    padding: &'a str,
}

impl<'a> Model<'a> {
    pub(super) fn parse(file: &'a [u8]) -> Result<Self, String> {
        let (mut tokens, mut types, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        let mut trainer = Trainer {
            kind: 1,
            byte_fallback: false,
            whitespace_as_suffix: false,
            bos: "<s>",
            eos: "</s>",
            padding: "<pad>",
        };
        let mut normalizer = Settings {
            charsmap: &[],
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        };
        for field in Fields::new(file) {
            let (number, value) = field?;
            match number {
                1 => {
                    let (token, score, kind) =
                        piece(value).map_err(|problem| format!("piece {}: {problem}", tokens.len()))?;
                    tokens.push(token);
                    scores.push(score);
                    types.push(kind);
                }
                2 => trainer.read(value).map_err(|problem| format!("trainer_spec: {problem}"))?,
                3 => normalizer.read(value).map_err(|problem| format!("normalizer_spec: {problem}"))?,
                _ => {}
            }
        }
        let algorithm = match trainer.kind {
            1 => Algorithm::Unigram,
            2 => Algorithm::BytePairs,
            3 => return Err("is a word model; BPE and unigram models can be read".to_owned()),
            4 => return Err("is a character model; BPE and unigram models can be read".to_owned()),
            other => return Err(format!("is a model of unknown kind {other}")),
        };
        if trainer.whitespace_as_suffix {
            return Err("puts the mark of a space behind words, which cannot be done".to_owned());
        }
        let vocabulary = Vocabulary::new(tokens, types)?;
        let unknown: Vec<usize> = vocabulary.of_type(token_type::UNKNOWN).map(|(id, _)| id).collect();
        let &[unknown] = unknown.as_slice() else {
            return Err(format!(
                "has {} unknown tokens among its {} pieces; a model has one",
                unknown.len(),
                scores.len()
            ));
        };
        if trainer.byte_fallback {
            for byte in 0..=u8::MAX {
                let piece = format!("<0x{byte:02X}>");
                if !vocabulary.ids.contains_key(piece.as_str()) {
                    return Err(format!("falls back to bytes, but has no piece {piece}"));
                }
            }
        }
        // SentencePiece takes the name for a token only if the piece is one of control.
        let control = |name: &str| {
            let id = vocabulary.ids.get(name).copied();
            id.filter(|&id| vocabulary.types[id] == token_type::CONTROL)
        };
        let (bos, eos, padding) = (control(trainer.bos), control(trainer.eos), control(trainer.padding));
        Ok(Model {
            scores,
            algorithm,
            byte_fallback: trainer.byte_fallback,
            normalizer,
            unknown,
            bos,
            eos,
            padding,
            vocabulary,
        })
    }
}

/// Spelling, score and type of a piece.
fn piece(message: Value<'_>) -> Result<(&str, f32, i32), String> {
    let (mut token, mut score, mut kind) = ("", 0.0, token_type::NORMAL);
    for field in Fields::new(message.bytes()?) {
        let (number, value) = field?;
        match number {
            1 => token = value.text().map_err(|problem| format!("its spelling {problem}"))?,
            2 => score = value.float().map_err(|problem| format!("its score {problem}"))?,
            3 => {
                let number = value.number().map_err(|problem| format!("its type {problem}"))?;
                kind = match i32::try_from(number) {
                    Ok(kind @ token_type::NORMAL..=token_type::BYTE) => kind,
                    _ => return Err(format!("its type is {number}, which is not known")),
                };
            }
            _ => {}
        }
    }
    if token.is_empty() {
        return Err("has no spelling".to_owned());
    }
    if token.len() > MAX_PIECE {
        return Err(format!("is {} bytes long; pieces are at most {MAX_PIECE}", token.len()));
    }
    if !score.is_finite() {
        return Err(format!("({token:?}) has the score {score}"));
    }
    Ok((token, score, kind))
}

impl<'a> Trainer<'a> {
    fn read(&mut self, message: Value<'a>) -> Result<(), String> {
        for field in Fields::new(message.bytes()?) {
            let (number, value) = field?;
            let named = |name: &'static str| move |problem: String| format!("`{name}` {problem}");
            match number {
                3 => self.kind = value.number().map_err(named("model_type"))?,
                24 => {
                    self.whitespace_as_suffix = value.flag().map_err(named("treat_whitespace_as_suffix"))?
                }
                35 => self.byte_fallback = value.flag().map_err(named("byte_fallback"))?,
                46 => self.bos = value.text().map_err(named("bos_piece"))?,
                47 => self.eos = value.text().map_err(named("eos_piece"))?,
                48 => self.padding = value.text().map_err(named("pad_piece"))?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> Settings<'a> {
    fn read(&mut self, message: Value<'a>) -> Result<(), String> {
        for field in Fields::new(message.bytes()?) {
            let (number, value) = field?;
            let named = |name: &'static str| move |problem: String| format!("`{name}` {problem}");
            match number {
                2 => self.charsmap = value.bytes().map_err(named("precompiled_charsmap"))?,
                3 => self.add_dummy_prefix = value.flag().map_err(named("add_dummy_prefix"))?,
                4 => {
                    self.remove_extra_whitespaces = value.flag().map_err(named("remove_extra_whitespaces"))?
                }
                5 => self.escape_whitespaces = value.flag().map_err(named("escape_whitespaces"))?,
                _ => {}
            }
        }
        Ok(())
    }
}
