//! LLMCBench's own evaluation scripts (NeurIPS 2024 Datasets and Benchmarks), prompt by prompt and decision by decision.
//!
//! They differ from lm-evaluation-harness in more than words: letters are scored as the last token of the letter by itself, no special tokens
//! are added, and solved examples are left out until a prompt has at most 2048 tokens. What they do questionably is kept, since their
//! numbers come of it:
//!
//! * MMLU's subject stands after two spaces, and an option that reads `None` becomes `nan` (pandas takes it for a missing value).
//! * QNLI's file is read with quotation marks as delimiters, so a few rows swallow the rows after them.
//! * MNLI's script reads the *mismatched* set; here it asks the matched one, as the paper says.
//! * AdvGLUE's labels of RTE are taken the other way round (`A. yes` for `not_entailment`), and examples of QQP and SST-2 are given the wrong
//!   answers. Of the original texts, those of MNLI's hypothesis and of every second text are never asked.
//! * TruthfulQA's MC1 compares the best answer with false ones only. With the presets whose prompts end in the words before the answer, three
//!   tokens of the answer itself are left out; an answer of no more tokens counts as certain.

use super::docs::{Doc, Request, Seam, subject};
use super::table::Script;
use super::{Preset, TaskOptions};
use crate::assets::Record;
use crate::assets::record::Labelled;
use std::sync::Arc;

/// What pandas takes for a missing value, and prints as `nan`.
const MISSING: [&str; 18] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "n/a", "null",
];

const ENTAILS: &str = "Please identify whether the premise entails the hypothesis. The answer should be exactly 'A. yes', 'B. maybe' or 'C. no'\n";

/// The documents of a script. `examples` are rows to take solved ones from, where they are not the first of `rows` itself.
///
/// # Errors
/// Where there are not as many examples as asked for, in a clause.
pub(super) fn docs(
    script: Script,
    rows: &[Record],
    examples: Option<&[Record]>,
    options: &TaskOptions,
) -> Result<Vec<Doc>, String> {
    let limit = options.limit.unwrap_or(usize::MAX);
    let reread = if script == Script::Qnli { Some(read_as_pandas_does(rows)) } else { None };
    let rows = reread.as_deref().unwrap_or(rows);
    let mut docs = Vec::new();
    let mut done: Vec<&str> = Vec::new();
    for row in rows {
        let part = subject(row);
        if done.contains(&part) {
            continue;
        }
        done.push(part);
        let mut own = rows.iter().filter(|r| subject(r) == part);
        let shots: Vec<&Record> = match (options.shots, examples) {
            (0, _) => Vec::new(),
            (shots, Some(pool)) => pool.iter().filter(|r| subject(r) == part).take(shots).collect(),
            (shots, None) => own.by_ref().take(shots).collect(),
        };
        if shots.len() < options.shots {
            return Err(format!(
                "{} solved examples asked for, but only {} are there",
                options.shots,
                shots.len()
            ));
        }
        for (index, row) in own.take(limit).enumerate() {
            docs.push(doc(script, row, index, &shots, options.preset));
        }
    }
    Ok(docs)
}

fn doc(script: Script, row: &Record, index: usize, shots: &[&Record], preset: Preset) -> Doc {
    let id = match row {
        Record::Labelled(Labelled { texts, .. }) if texts.contains_key("index") => texts["index"].clone(),
        Record::Question(q) if !q.id.is_empty() => q.id.clone(),
        _ => index.to_string(),
    };
    let part = subject(row);
    let mut doc = Doc { id, index, subset: (!part.is_empty()).then(|| part.to_owned()), ..Doc::default() };
    if let (Script::TruthfulQa, Record::Answers(answers)) = (script, row) {
        let (context, asked) = preset.ask(&answers.question);
        let (context, asked): (Arc<str>, Arc<str>) = (context.into(), asked.into());
        let all = answers.correct.iter().chain(&answers.incorrect);
        let texts: Vec<String> = all.map(|answer| closed(answer)).collect();
        let best = closed(&answers.best);
        doc.target = texts.iter().position(|text| *text == best).unwrap_or(texts.len());
        doc.right = Some(answers.correct.len());
        doc.requests = texts
            .into_iter()
            .map(|text| Request {
                context: Arc::clone(&context),
                continuation: format!(" {text}"),
                seam: Seam::After(Arc::clone(&asked)),
            })
            .collect();
        return doc;
    }
    let with = |count: usize| -> Arc<str> {
        let examples: String = shots[..count].iter().map(|shot| solved(script, shot)).collect();
        format!("{}{examples}{}", head(script, row), prompt(script, row)).into()
    };
    let context = with(shots.len());
    doc.shorter = (0..shots.len()).rev().map(with).collect();
    let letters = match row {
        Record::Question(q) => q.choices.len(),
        _ => words(script, row).len(),
    };
    doc.target = target(script, row);
    doc.requests = ["A", "B", "C", "D"][..letters.min(4)]
        .iter()
        .map(|letter| Request {
            context: Arc::clone(&context),
            continuation: (*letter).to_owned(),
            seam: Seam::Apart,
        })
        .collect();
    doc
}

/// Ended by a full stop.
fn closed(answer: &str) -> String {
    let answer = answer.trim();
    if answer.ends_with('.') { answer.to_owned() } else { format!("{answer}.") }
}

/// What stands before all examples.
fn head(script: Script, row: &Record) -> String {
    match script {
        Script::Mmlu => {
            let subject: String = subject(row).split('_').map(|word| format!(" {word}")).collect();
            format!("The following are multiple choice questions (with answers) about {subject}.\n\n")
        }
        Script::Qnli => {
            "Please identify whether the sentence answers the question. The answer should be exactly 'A. yes' or 'B. no'.\n\n"
                .to_owned()
        }
        Script::Mnli => format!("{ENTAILS}\n"),
        Script::AdvGlue { .. } | Script::TruthfulQa => String::new(),
    }
}

/// A row as a question.
fn prompt(script: Script, row: &Record) -> String {
    match (script, row) {
        (Script::Mmlu, Record::Question(q)) => {
            let cell = |text: &str| if MISSING.contains(&text) { "nan".to_owned() } else { text.to_owned() };
            let options = ["A", "B", "C", "D"].iter().zip(&q.choices);
            let options: String =
                options.map(|(letter, text)| format!("\n{letter}. {}", cell(text))).collect();
            format!("{}{options}\nAnswer:", q.question)
        }
        (Script::Qnli, Record::Labelled(l)) => {
            format!("Question:{}\nSentence:{}\nAnswer:", text(l, "question"), text(l, "sentence"))
        }
        (Script::Mnli, Record::Labelled(l)) => {
            format!("premise:{}\nhypothesis:{}\nAnswer:", text(l, "premise"), text(l, "hypothesis"))
        }
        (Script::AdvGlue { original }, Record::Labelled(l)) => adversarial(l, original),
        _ => String::new(),
    }
}

fn text<'a>(row: &'a Labelled, name: &str) -> &'a str {
    row.texts.get(name).map_or("", String::as_str)
}

fn adversarial(row: &Labelled, original: bool) -> String {
    // The one text of each part of which the original is asked.
    let changed = |name: &str| {
        let before = row.texts.get(&format!("original_{name}")).filter(|_| original);
        before.map_or_else(|| text(row, name), String::as_str).to_owned()
    };
    let same = |name: &str| text(row, name).to_owned();
    let yes_or_no = |what: &str| {
        format!("Please identify whether {what}. The answer should be exactly 'A. yes' or 'B. no'\n")
    };
    let (task, lines) = match row.subset.as_str() {
        "mnli" => (ENTAILS.to_owned(), vec![("Premise", changed("premise")), ("Hypothesis", same("hypothesis"))]),
        "mnli-mm" => (ENTAILS.to_owned(), vec![("Premise", same("premise")), ("Hypothesis", changed("hypothesis"))]),
        "qnli" => (
            yes_or_no("the sentence answers the question"),
            vec![("Question", changed("question")), ("Sentence", same("sentence"))],
        ),
        "rte" => (
            yes_or_no("the sentence1 entails the sentence2"),
            vec![("Sentence 1", changed("sentence1")), ("Sentence 2", same("sentence2"))],
        ),
        "qqp" => (
            yes_or_no("Question 1 has the same meaning as Question 2"),
            vec![("Question 1", changed("question1")), ("Question 2", same("question2"))],
        ),
        _ => (
            "For each snippet of text, label the sentiment of the text as positive or negative. The answer should be exactly 'A. positive' or 'B. negative'\n"
                .to_owned(),
            vec![("Sentence", changed("sentence"))],
        ),
    };
    let lines: Vec<String> = lines.into_iter().map(|(name, text)| format!("{name}: {text}")).collect();
    format!("{task}{}\nAnswer: ", lines.join("\n"))
}

/// The words of the labels, in the order of the letters.
fn words(script: Script, row: &Record) -> &'static [&'static str] {
    match (script, subject(row)) {
        (Script::Mnli, _) | (Script::AdvGlue { .. }, "mnli" | "mnli-mm") => &["A. yes", "B. maybe", "C. no"],
        (Script::AdvGlue { .. }, "sst2") => &["A. positive", "B. negative"],
        _ => &["A. yes", "B. no"],
    }
}

/// A row as a solved example.
fn solved(script: Script, row: &Record) -> String {
    let answer = match row {
        Record::Question(q) => ["A", "B", "C", "D"].get(q.gold).copied().unwrap_or_default(),
        Record::Labelled(l) => {
            let words = words(script, row);
            words[l.label.min(words.len() - 1)]
        }
        _ => "",
    };
    format!("{} {answer}\n\n", prompt(script, row))
}

/// The letter that counts as right.
fn target(script: Script, row: &Record) -> usize {
    match row {
        Record::Question(q) => q.gold,
        Record::Labelled(l) => match (script, l.subset.as_str()) {
            (Script::AdvGlue { .. }, "qqp" | "sst2" | "rte") => 1 - l.label.min(1),
            _ => l.label,
        },
        _ => 0,
    }
}

/// QNLI's rows as `pandas.read_csv(sep="\t", on_bad_lines="skip")` gives them: a quotation mark at the start of a cell opens a text that ends
/// at the next one, wherever that is; what then has too many cells is left out.
fn read_as_pandas_does(rows: &[Record]) -> Vec<Record> {
    let mut file = String::from("index\tquestion\tsentence\tlabel\n");
    const LABELS: [&str; 2] = ["entailment", "not_entailment"];
    for (index, row) in rows.iter().enumerate() {
        if let Record::Labelled(l) = row {
            let label = LABELS[l.label.min(1)];
            file.push_str(&format!("{index}\t{}\t{}\t{label}\n", text(l, "question"), text(l, "sentence")));
        }
    }
    let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').flexible(true).from_reader(file.as_bytes());
    let mut out = Vec::new();
    for row in reader.records().flatten().filter(|row| row.len() <= 4) {
        let cell = |at: usize| row.get(at).unwrap_or("nan").to_owned();
        // A label that is none, because rows ran together, is never right.
        let label = LABELS.iter().position(|known| Some(*known) == row.get(3)).unwrap_or(LABELS.len());
        let texts = [("index", cell(0)), ("question", cell(1)), ("sentence", cell(2))];
        let texts = texts.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        out.push(Record::Labelled(Labelled { subset: String::new(), texts, label }));
    }
    out
}
