//! Merge rules of byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909).

use std::collections::HashMap;

use serde_json::Value;

/// A piece longer than this is no word piece; trying all its splits would take time quadratic in it.
pub(super) const MAX_PIECE: usize = 1024;

/// Checks that every merge of a BPE model in `tokenizer.json` joins two known tokens into a known one.
pub(super) fn check(model: &Value) -> Result<(), String> {
    let (Some(vocab), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array()) else {
        return Ok(()); // Not BPE, or refused by the library itself.
    };
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    for (index, merge) in merges.iter().enumerate() {
        let parts = match merge {
            Value::String(line) if line.starts_with("#version") => continue,
            Value::String(line) => line.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
                _ => None,
            },
            _ => None,
        };
        let Some((left, right)) = parts else {
            return Err(format!("merge {index} is no pair of tokens: {merge}"));
        };
        let Some(tail) = right.strip_prefix(prefix) else {
            return Err(format!(
                "merge {index}: `{right}` does not begin with the subword prefix `{prefix}`"
            ));
        };
        for token in [left, right, &format!("{left}{tail}")] {
            if !vocab.contains_key(token) {
                return Err(format!(
                    "merge {index} (`{left}` `{right}`) needs token `{token}`, which is not in the vocabulary"
                ));
            }
        }
    }
    Ok(())
}

/// A piece of a SentencePiece vocabulary that takes part in merging.
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    pub(super) score: f32,
}

/// Merge rules that do what SentencePiece's scores say: of all adjacent pairs, join the one whose union scores
/// highest (Kudo & Richardson 2018, arXiv:1808.06226). Among the splits of one piece, longer left parts come first.
///
/// `pieces` are in the order of their ids and no longer than [`MAX_PIECE`].
pub(super) fn from_scores<'a>(pieces: &[Piece<'a>]) -> Vec<(&'a str, &'a str)> {
    struct Rule<'a> {
        score: f32,
        left_chars: usize,
        right_chars: usize,
        halves: (&'a str, &'a str),
    }
    let rank: HashMap<&str, usize> = pieces.iter().enumerate().map(|(i, piece)| (piece.text, i)).collect();
    let mut rules = Vec::new();
    for piece in pieces {
        let chars = piece.text.chars().count();
        let first = rules.len();
        for (nth, (at, _)) in piece.text.char_indices().enumerate().skip(1) {
            let halves = piece.text.split_at(at);
            if rank.contains_key(halves.0) && rank.contains_key(halves.1) {
                rules.push(Rule { score: piece.score, left_chars: nth, right_chars: chars - nth, halves });
            }
        }
        rules[first..].sort_by_key(|rule| (rank[rule.halves.0], rank[rule.halves.1]));
    }
    rules.sort_by(|a, b| {
        let by_score = b.score.total_cmp(&a.score);
        by_score.then(b.left_chars.cmp(&a.left_chars)).then(b.right_chars.cmp(&a.right_chars))
    });
    rules.into_iter().map(|rule| rule.halves).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_follow_scores() {
        let piece = |text, score| Piece { text, score };
        let pieces = [
            piece("a", 0.0),
            piece("b", 0.0),
            piece("ab", -2.0),
            piece("ba", -1.0),
            piece("aba", -3.0),
            piece("é", 0.0),
        ];
        let expected = [("b", "a"), ("a", "b"), ("ab", "a"), ("a", "ba")];
        assert_eq!(from_scores(&pieces), expected);
    }

    #[test]
    fn broken_merges_are_named() {
        let model = |merges: Value| json!({ "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": merges });
        assert_eq!(check(&model(json!(["a b"]))), Ok(()));
        assert_eq!(check(&model(json!([["a", "b"]]))), Ok(()));
        for bad in [
            json!(["a"]),
            json!([["a"]]),
            json!([3]),
            json!(["b a"]),
            json!(["a c"]),
            json!([["a", ""], ["", "b"]]),
        ] {
            assert!(check(&model(bad.clone())).is_err(), "{bad}");
        }
    }
}
