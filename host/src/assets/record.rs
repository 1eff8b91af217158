//! The one form into which every source's rows are brought.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A question with options (ARC, MMLU).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The data set's own identifier, or empty where it gives none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Subject (MMLU), or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// The question.
    pub question: String,
    /// The options, without labels.
    pub choices: Vec<String>,
    /// Index of the right option.
    pub gold: usize,
}

/// A beginning with four endings (HellaSwag).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endings {
    /// Row number in the data set.
    pub ind: i64,
    /// What is being done.
    pub activity_label: String,
    /// First, complete sentence of the context.
    pub ctx_a: String,
    /// Beginning of the sentence to be ended.
    pub ctx_b: String,
    /// The endings.
    pub endings: Vec<String>,
    /// Index of the right ending.
    pub label: usize,
}

/// A goal with two solutions (PIQA).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goal {
    /// The goal.
    pub goal: String,
    /// First solution.
    pub sol1: String,
    /// Second solution.
    pub sol2: String,
    /// 0 or 1: the solution that works.
    pub label: usize,
}

/// A sentence with a blank and two fillers (WinoGrande).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blank {
    /// The sentence, its blank written `_`.
    pub sentence: String,
    /// First filler.
    pub option1: String,
    /// Second filler.
    pub option2: String,
    /// 0 or 1: the filler that fits.
    pub answer: usize,
}

/// Texts with a label (QNLI, MNLI, AdvGLUE).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labelled {
    /// Part of the data set (AdvGLUE has six), or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subset: String,
    /// The texts, by the data set's own names.
    pub texts: BTreeMap<String, String>,
    /// Index of the right label, in the data set's own order.
    pub label: usize,
}

/// A question with true and false answers (TruthfulQA).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// The question.
    pub question: String,
    /// The best of the true answers.
    pub best: String,
    /// All true answers.
    pub correct: Vec<String>,
    /// All false answers.
    pub incorrect: Vec<String>,
}

/// A row of running text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The row.
    pub text: String,
}

/// A question of the user's own data, its texts filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Part of the data set, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subset: String,
    /// What stands before everything else.
    pub description: String,
    /// The question.
    pub prompt: String,
    /// The choices' texts.
    pub choices: Vec<String>,
    /// Index of the right choice.
    pub right: usize,
}

/// One row of a data set, as the cache keeps it: one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Record {
    /// ARC and MMLU.
    Question(Question),
    /// HellaSwag.
    Endings(Endings),
    /// PIQA.
    Goal(Goal),
    /// WinoGrande.
    Blank(Blank),
    /// QNLI, MNLI and AdvGLUE.
    Labelled(Labelled),
    /// TruthfulQA.
    Answers(Answers),
    /// Texts.
    Text(Text),
    /// The user's own.
    Own(Own),
}

/// Which fields a source's rows have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// `id`, `question`, `choices {text, label}`, `answerKey`, or AI2's own nested layout of the same.
    Arc,
    /// `question`, `subject`, `choices`, `answer`.
    Mmlu,
    /// `ind`, `activity_label`, `ctx_a`, `ctx_b`, `endings`, `label`.
    HellaSwag,
    /// `goal`, `sol1`, `sol2`, `label`.
    Piqa,
    /// `sentence`, `option1`, `option2`, `answer`.
    WinoGrande,
    /// `question`, `sentence`, `label`.
    Qnli,
    /// `premise`, `hypothesis`, `label`, or MultiNLI's own `sentence1`, `sentence2`, `gold_label`.
    Mnli,
    /// A row of one of AdvGLUE's six parts: texts, some with an `original_` one, and `label`.
    AdvGlue,
    /// `question`, `mc1_targets` and `mc2_targets` with `choices` and `labels`; or of TruthfulQA's own CSV.
    TruthfulQa,
    /// `text`.
    Text,
    /// `passage`: rows of a reading set, of which each passage is kept once, in order of appearance.
    Passage,
    /// Not rows: a file kept byte for byte (models).
    File,
}

fn string(row: &Value, name: &str) -> Result<String, String> {
    match row.get(name) {
        Some(Value::String(s)) => Ok(s.clone()),
        Some(other) => Err(format!("`{name}` must be a string, found {}", kind(other))),
        None => Err(format!("`{name}` is missing")),
    }
}

fn strings(value: Option<&Value>, name: &str) -> Result<Vec<String>, String> {
    let Some(Value::Array(items)) = value else {
        return Err(format!("`{name}` must be a list of strings"));
    };
    items
        .iter()
        .map(|item| match item {
            Value::String(s) => Ok(s.clone()),
            other => Err(format!("`{name}` must hold strings, found {}", kind(other))),
        })
        .collect()
}

/// An index written as a number or as digits.
fn index(row: &Value, name: &str) -> Result<usize, String> {
    let number = match row.get(name) {
        Some(Value::Number(n)) => n.as_u64(),
        Some(Value::String(s)) => s.trim().parse().ok(),
        Some(_) => None,
        None => return Err(format!("`{name}` is missing")),
    };
    number
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| format!("`{name}` must be a non-negative whole number"))
}

/// A label as one of `names`, written as its number or its name.
fn label(row: &Value, name: &str, names: &[&str]) -> Result<usize, String> {
    if let Some(Value::String(text)) = row.get(name)
        && let Some(place) = names.iter().position(|known| known == text)
    {
        return Ok(place);
    }
    match index(row, name) {
        Ok(number) if number < names.len() => Ok(number),
        Ok(number) => Err(format!("`{name}` is {number}, but the labels are {}", names.join(", "))),
        Err(_) => Err(format!("`{name}` must be one of {} or its number", names.join(", "))),
    }
}

/// The first of these fields that a row has.
fn either(row: &Value, names: [&str; 2]) -> Result<String, String> {
    string(row, names[0]).or_else(|error| string(row, names[1]).map_err(|_| error))
}

fn labelled(subset: &str, texts: Vec<(&str, String)>, label: usize) -> Record {
    let texts = texts.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
    Record::Labelled(Labelled { subset: subset.to_owned(), texts, label })
}

/// Choices of one of TruthfulQA's targets: those labelled 1, and those labelled 0.
fn targets(row: &Value, name: &str) -> Result<[Vec<String>; 2], String> {
    let found = row.get(name).ok_or_else(|| format!("`{name}` is missing"))?;
    let choices = strings(found.get("choices"), &format!("{name}.choices"))?;
    let Some(Value::Array(labels)) = found.get("labels") else {
        return Err(format!("`{name}.labels` must be a list"));
    };
    if labels.len() != choices.len() {
        return Err(format!("`{name}` has {} choices and {} labels", choices.len(), labels.len()));
    }
    let (right, wrong): (Vec<_>, Vec<_>) =
        choices.into_iter().zip(labels).partition(|(_, label)| label.as_i64() == Some(1));
    let texts = |pairs: Vec<(String, &Value)>| pairs.into_iter().map(|(text, _)| text).collect();
    Ok([texts(right), texts(wrong)])
}

fn truthful(row: &Value) -> Result<Record, String> {
    let [best, _] = targets(row, "mc1_targets")?;
    let [correct, incorrect] = targets(row, "mc2_targets")?;
    let best = best.into_iter().next().ok_or("`mc1_targets` has no right answer")?;
    answers(string(row, "question")?, best, correct, incorrect)
}

/// Answers, of which there must be some of either kind.
pub(crate) fn answers(
    question: String,
    best: String,
    correct: Vec<String>,
    incorrect: Vec<String>,
) -> Result<Record, String> {
    if correct.is_empty() || incorrect.is_empty() {
        return Err(format!("needs true and false answers, found {} and {}", correct.len(), incorrect.len()));
    }
    Ok(Record::Answers(Answers { question, best, correct, incorrect }))
}

/// AdvGLUE's parts: their texts, and the number of their labels.
pub(crate) const ADV_GLUE: [(&str, [&str; 2], usize); 6] = [
    ("sst2", ["sentence", ""], 2),
    ("qqp", ["question1", "question2"], 2),
    ("mnli", ["premise", "hypothesis"], 3),
    ("qnli", ["question", "sentence"], 2),
    ("mnli-mm", ["premise", "hypothesis"], 3),
    ("rte", ["sentence1", "sentence2"], 2),
];

/// A row of a part of AdvGLUE, with the part's name in `subset`.
fn adv_glue(row: &Value) -> Result<Record, String> {
    let subset = string(row, "subset")?;
    let (_, names, labels) = ADV_GLUE
        .iter()
        .find(|(name, ..)| *name == subset)
        .ok_or_else(|| format!("there is no part `{subset}`"))?;
    let mut texts = Vec::new();
    for name in names.iter().filter(|name| !name.is_empty()) {
        texts.push(((*name).to_owned(), string(row, name)?));
        let original = format!("original_{name}");
        if row.get(&original).is_some_and(|v| !v.is_null()) {
            let text = string(row, &original)?;
            texts.push((original, text));
        }
    }
    let texts = texts.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    Ok(labelled(&subset, texts, below(index(row, "label")?, *labels, "label")?))
}

/// What a value is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn below(value: usize, count: usize, name: &str) -> Result<usize, String> {
    if value < count { Ok(value) } else { Err(format!("`{name}` is {value}, but there are {count} options")) }
}

fn arc(row: &Value) -> Result<Record, String> {
    let (question, texts, labels) = match row.get("question") {
        // AI2's own files nest the options under the question.
        Some(Value::Object(_)) => {
            let nested = &row["question"];
            let Some(Value::Array(options)) = nested.get("choices") else {
                return Err("`question.choices` must be a list".to_owned());
            };
            let mut texts = Vec::new();
            let mut labels = Vec::new();
            for option in options {
                texts.push(string(option, "text")?);
                labels.push(string(option, "label")?);
            }
            (string(nested, "stem")?, texts, labels)
        }
        _ => {
            let choices = row.get("choices").ok_or("`choices` is missing")?;
            (
                string(row, "question")?,
                strings(choices.get("text"), "choices.text")?,
                strings(choices.get("label"), "choices.label")?,
            )
        }
    };
    if texts.len() != labels.len() || texts.len() < 2 {
        return Err(format!(
            "needs two or more options with a label each, found {} options and {} labels",
            texts.len(),
            labels.len()
        ));
    }
    let key = string(row, "answerKey")?;
    let gold = labels.iter().position(|label| *label == key).ok_or_else(|| {
        format!("`answerKey` is `{key}`, which is none of the labels {}", labels.join(", "))
    })?;
    Ok(Record::Question(Question {
        id: string(row, "id").unwrap_or_default(),
        subject: String::new(),
        question,
        choices: texts,
        gold,
    }))
}

impl Record {
    /// Brings one row of a source into the common form.
    ///
    /// # Errors
    /// Says which field is missing or wrong.
    pub fn from_row(schema: Schema, row: &Value) -> Result<Self, String> {
        if !row.is_object() {
            return Err(format!("a row must be an object, found {}", kind(row)));
        }
        Ok(match schema {
            Schema::Arc => arc(row)?,
            Schema::Mmlu => {
                let choices = strings(row.get("choices"), "choices")?;
                if choices.len() != 4 {
                    return Err(format!("needs four choices, found {}", choices.len()));
                }
                Self::Question(Question {
                    id: String::new(),
                    subject: string(row, "subject")?,
                    question: string(row, "question")?,
                    gold: below(index(row, "answer")?, 4, "answer")?,
                    choices,
                })
            }
            Schema::HellaSwag => {
                let endings = strings(row.get("endings"), "endings")?;
                if endings.len() < 2 {
                    return Err(format!("needs two or more endings, found {}", endings.len()));
                }
                Self::Endings(Endings {
                    ind: row.get("ind").and_then(Value::as_i64).unwrap_or_default(),
                    activity_label: string(row, "activity_label")?,
                    ctx_a: string(row, "ctx_a")?,
                    ctx_b: string(row, "ctx_b")?,
                    label: below(index(row, "label")?, endings.len(), "label")?,
                    endings,
                })
            }
            Schema::Piqa => Self::Goal(Goal {
                goal: string(row, "goal")?,
                sol1: string(row, "sol1")?,
                sol2: string(row, "sol2")?,
                label: below(index(row, "label")?, 2, "label")?,
            }),
            Schema::WinoGrande => {
                let sentence = string(row, "sentence")?;
                if !sentence.contains('_') {
                    return Err("`sentence` has no blank `_`".to_owned());
                }
                let answer = index(row, "answer")?;
                if !(1..=2).contains(&answer) {
                    return Err(format!("`answer` is {answer}, but must be 1 or 2"));
                }
                Self::Blank(Blank {
                    sentence,
                    option1: string(row, "option1")?,
                    option2: string(row, "option2")?,
                    answer: answer - 1,
                })
            }
            Schema::Qnli => labelled(
                "",
                vec![("question", string(row, "question")?), ("sentence", string(row, "sentence")?)],
                label(row, "label", &["entailment", "not_entailment"])?,
            ),
            Schema::Mnli => {
                let name = if row.get("gold_label").is_some() { "gold_label" } else { "label" };
                labelled(
                    "",
                    vec![
                        ("premise", either(row, ["premise", "sentence1"])?),
                        ("hypothesis", either(row, ["hypothesis", "sentence2"])?),
                    ],
                    label(row, name, &["entailment", "neutral", "contradiction"])?,
                )
            }
            Schema::AdvGlue => adv_glue(row)?,
            Schema::TruthfulQa => truthful(row)?,
            Schema::Text => Self::Text(Text { text: string(row, "text")? }),
            Schema::Passage => Self::Text(Text { text: string(row, "passage")? }),
            Schema::File => return Err("this asset is a file and has no rows".to_owned()),
        })
    }
}

/// Whether a row belongs to the data set: MultiNLI keeps those on whose label its annotators did not agree, GLUE leaves them out.
pub(crate) fn counts(schema: Schema, row: &Value) -> bool {
    schema != Schema::Mnli || row.get("gold_label").and_then(Value::as_str) != Some("-")
}

/// Keeps each passage of a reading set once, in order of appearance; other rows stay as they are.
pub(crate) fn distinct(schema: Schema, records: Vec<Record>) -> Vec<Record> {
    if schema != Schema::Passage {
        return records;
    }
    let mut seen = std::collections::HashSet::new();
    records
        .into_iter()
        .filter(|record| match record {
            Record::Text(t) => seen.insert(t.text.clone()),
            _ => true,
        })
        .collect()
}
