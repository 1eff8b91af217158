//! Text of prompts: templates, and HellaSwag's cleaning of its rows.

use super::table::Choices;
use crate::assets::Record;
use std::borrow::Cow;

/// White space as Python's `str.strip` sees it: Unicode's, and the four ASCII separators.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str.strip()`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Python's `str.capitalize()`: the first character in title case, the rest in lower case.
fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let Some(first) = chars.next() else {
        return String::new();
    };
    let mut upper = first.to_uppercase();
    // Title case differs from upper case where one letter becomes several: only the first of them is a capital.
    let mut out: String = upper.next().into_iter().collect();
    out.extend(upper.flat_map(char::to_lowercase));
    // Lowered together with the first character, because a final sigma depends on what precedes it.
    let lower = text.to_lowercase();
    let skip: usize = first.to_lowercase().map(char::len_utf8).sum();
    out.push_str(lower.get(skip..).unwrap_or_default());
    out
}

/// Removes every `[...]` that lies within a line, taking the shortest each time.
fn without_brackets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        let inside = &rest[open + 1..];
        match inside.find([']', '\n']) {
            Some(end) if inside.as_bytes()[end] == b']' => {
                out.push_str(&rest[..open]);
                rest = &inside[end + 1..];
            }
            _ => {
                out.push_str(&rest[..=open]);
                rest = inside;
            }
        }
    }
    out.push_str(rest);
    out
}

/// HellaSwag's cleaning: WikiHow's markup goes, a title's mark becomes the end of a sentence.
fn clean(text: &str) -> String {
    without_brackets(&strip(text).replace(" [title]", ". ")).replace("  ", " ")
}

/// Replaces each `{name}` of a template in one pass; a value's own braces stay.
pub(crate) fn fill<'a>(template: &str, field: impl Fn(&str) -> Option<Cow<'a, str>>) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        let inside = &rest[open + 1..];
        let Some(close) = inside.find('}') else {
            rest = &rest[open..];
            break;
        };
        match field(&inside[..close]) {
            Some(value) => out.push_str(&value),
            None => out.push_str(&rest[open..=open + 1 + close]),
        }
        rest = &inside[close + 1..];
    }
    out.push_str(rest);
    out
}

/// A field of a document as prompts use it.
pub(crate) fn field<'a>(record: &'a Record, name: &str) -> Option<Cow<'a, str>> {
    match record {
        Record::Question(q) => match name {
            "question" => Some(Cow::Borrowed(&q.question)),
            "stripped_question" => Some(Cow::Borrowed(strip(&q.question))),
            "subject" => Some(Cow::Owned(q.subject.replace('_', " "))),
            "A" | "B" | "C" | "D" => {
                let i = usize::from(name.as_bytes()[0] - b'A');
                q.choices.get(i).map(|choice| Cow::Borrowed(choice.as_str()))
            }
            _ => None,
        },
        Record::Endings(e) if name == "query" => {
            Some(Cow::Owned(clean(&format!("{}: {} {}", e.activity_label, e.ctx_a, capitalize(&e.ctx_b)))))
        }
        Record::Goal(g) if name == "goal" => Some(Cow::Borrowed(&g.goal)),
        Record::Labelled(l) => match name.strip_prefix("sentence_") {
            // Ended by a full stop, whatever it ended with.
            Some(name) => l.texts.get(name).map(|text| {
                let text = strip(text);
                Cow::Owned(if text.ends_with('.') { text.to_owned() } else { format!("{text}.") })
            }),
            None => l.texts.get(name).map(|text| Cow::Borrowed(text.as_str())),
        },
        Record::Answers(a) if name == "question" => Some(Cow::Borrowed(&a.question)),
        Record::Own(o) => match name {
            "description" => Some(Cow::Borrowed(&o.description)),
            "prompt" => Some(Cow::Borrowed(&o.prompt)),
            _ => None,
        },
        _ => None,
    }
}

/// The options' texts, as they are scored.
pub(crate) fn options(record: &Record, choices: Choices) -> Vec<String> {
    match record {
        Record::Labelled(_) => match choices {
            Choices::Words(words) => words.iter().map(|word| (*word).to_owned()).collect(),
            _ => Vec::new(),
        },
        Record::Answers(a) => {
            let right =
                if choices == Choices::BestAndFalse { std::slice::from_ref(&a.best) } else { &a.correct };
            right.iter().chain(&a.incorrect).cloned().collect()
        }
        Record::Question(q) => q.choices.clone(),
        Record::Endings(e) => e.endings.iter().map(|ending| clean(ending)).collect(),
        Record::Goal(g) => vec![g.sol1.clone(), g.sol2.clone()],
        Record::Blank(b) => {
            let before = b.sentence.split('_').next().unwrap_or_default();
            vec![format!("{before}{}", b.option1), format!("{before}{}", b.option2)]
        }
        Record::Own(o) => o.choices.clone(),
        Record::Text(_) => Vec::new(),
    }
}

/// What follows the blank.
pub(crate) fn after_blank(record: &Record) -> &str {
    match record {
        Record::Blank(b) => strip(b.sentence.split_once('_').map_or("", |(_, after)| after)),
        _ => "",
    }
}

/// Index of the right option.
pub(crate) fn target(record: &Record) -> usize {
    match record {
        Record::Question(q) => q.gold,
        Record::Endings(e) => e.label,
        Record::Goal(g) => g.label,
        Record::Blank(b) => b.answer,
        Record::Labelled(l) => l.label,
        Record::Own(o) => o.right,
        Record::Answers(_) | Record::Text(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellaswag_is_cleaned_as_the_harness_does() {
        for (text, cleaned) in [
            ("  a [title] b  c ", "a.  b c".replace("  ", " ").as_str()),
            ("How to [header] x [substeps] y", "How to x y"),
            ("open [ only", "open [ only"),
            ("a [b\nc] d", "a [b\nc] d"),
            ("[[x]] y", "] y"),
            ("a    b", "a  b"),
            ("", ""),
        ] {
            assert_eq!(clean(text), cleaned, "{text:?}");
        }
    }

    #[test]
    fn capitalize_is_pythons() {
        for (text, capital) in [
            ("he", "He"),
            ("HE SAID", "He said"),
            ("", ""),
            ("ßa", "Ssa"),
            ("éA", "Éa"),
            ("ΟΔΟΣ", "Οδος"),
            ("1A", "1a"),
        ] {
            assert_eq!(capitalize(text), capital, "{text:?}");
        }
    }

    #[test]
    fn templates_are_filled_in_one_pass() {
        let filled = fill("{a}-{b}-{c", |name| match name {
            "a" => Some(Cow::Borrowed("{b}")),
            _ => None,
        });
        assert_eq!(filled, "{b}-{b}-{c");
    }
}
