//! Tiny data sets in the files in which the real ones are published; their contents are made up.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

/// How many documents each set has (MMLU: in each of its subjects).
pub const DOCUMENTS: usize = 6;
/// How many documents MMLU has in each subject.
pub const MMLU_DOCUMENTS: usize = 2;

/// MMLU publishes one file for each of these.
pub const MMLU_SUBJECTS: [&str; 57] = [
    "abstract_algebra",
    "anatomy",
    "astronomy",
    "business_ethics",
    "clinical_knowledge",
    "college_biology",
    "college_chemistry",
    "college_computer_science",
    "college_mathematics",
    "college_medicine",
    "college_physics",
    "computer_security",
    "conceptual_physics",
    "econometrics",
    "electrical_engineering",
    "elementary_mathematics",
    "formal_logic",
    "global_facts",
    "high_school_biology",
    "high_school_chemistry",
    "high_school_computer_science",
    "high_school_european_history",
    "high_school_geography",
    "high_school_government_and_politics",
    "high_school_macroeconomics",
    "high_school_mathematics",
    "high_school_microeconomics",
    "high_school_physics",
    "high_school_psychology",
    "high_school_statistics",
    "high_school_us_history",
    "high_school_world_history",
    "human_aging",
    "human_sexuality",
    "international_law",
    "jurisprudence",
    "logical_fallacies",
    "machine_learning",
    "management",
    "marketing",
    "medical_genetics",
    "miscellaneous",
    "moral_disputes",
    "moral_scenarios",
    "nutrition",
    "philosophy",
    "prehistory",
    "professional_accounting",
    "professional_law",
    "professional_medicine",
    "professional_psychology",
    "public_relations",
    "security_studies",
    "sociology",
    "us_foreign_policy",
    "virology",
    "world_religions",
];

/// (animal, what it does, where, what people use)
const FACTS: [(&str, &str, &str, &str); DOCUMENTS] = [
    ("heron", "waits for fish", "in the shallow river", "a wooden boat"),
    ("badger", "digs at night", "under the old oak", "a lantern"),
    ("swallow", "builds with mud", "below the barn roof", "a long ladder"),
    ("otter", "cracks shells", "on the flat stones", "a pair of boots"),
    ("beetle", "rolls its food", "across the dry sand", "a small shovel"),
    ("goat", "climbs for leaves", "up the steep cliff", "a coil of rope"),
];

fn fact(i: usize) -> (&'static str, &'static str, &'static str, &'static str) {
    FACTS[i % FACTS.len()]
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("folder of the tiny data");
    std::fs::write(path, text).expect("file of the tiny data");
}

fn lines(values: impl Iterator<Item = serde_json::Value>) -> String {
    values.fold(String::new(), |mut text, value| {
        let _ = writeln!(text, "{value}");
        text
    })
}

fn arc(name: &str, from: usize) -> String {
    lines((0..DOCUMENTS).map(|i| {
        let (animal, _, place, _) = fact(i + from);
        let choices: Vec<String> = (0..4).map(|k| format!("It {}", fact(i + from + k).1)).collect();
        json!({
            "id": format!("{name}_{i}"),
            "question": format!("A {animal} lives {place}. What does the {animal} do?"),
            "choices": {"text": choices, "label": ["A", "B", "C", "D"]},
            "answerKey": (["A", "B", "C", "D"][i % 4]),
        })
    }))
}

fn hellaswag() -> String {
    lines((0..DOCUMENTS).map(|i| {
        let (animal, habit, place, tool) = fact(i);
        let endings: Vec<String> =
            (0..4).map(|k| format!("takes {} and walks {}.", fact(i + k).3, fact(i + k).2)).collect();
        json!({
            "ind": i,
            "activity_label": format!("Watching a {animal}"),
            "ctx_a": format!("A man sees that a {animal} {habit} {place}."),
            "ctx_b": format!("the man with {tool}"),
            "ctx": format!("A man sees that a {animal} {habit} {place}. the man with {tool}"),
            "endings": endings,
            "source_id": format!("invented~{i}"),
            "split": "val",
            "split_type": "indomain",
            "label": "0",
        })
    }))
}

fn piqa() -> (String, String) {
    let rows = lines((0..DOCUMENTS).map(|i| {
        let (animal, _, place, tool) = fact(i);
        json!({
            "goal": format!("How do you watch a {animal} {place}?"),
            "sol1": format!("Take {tool} and stay very still."),
            "sol2": format!("Take {} and run in circles.", fact(i + 1).3),
        })
    }));
    let labels = (0..DOCUMENTS).map(|i| format!("{}\n", i % 2)).collect();
    (rows, labels)
}

fn winogrande() -> String {
    lines((0..DOCUMENTS).map(|i| {
        let (first, habit, place, _) = fact(i);
        let second = fact(i + 1).0;
        json!({
            "sentence": format!("The {first} met the {second} {place} because the _ {habit} there."),
            "option1": first,
            "option2": second,
            "answer": (i % 2 + 1).to_string(),
        })
    }))
}

fn mmlu(subject: usize, count: usize) -> String {
    (0..count).fold(String::new(), |mut text, i| {
        let k = subject + i;
        let (animal, ..) = fact(k);
        let choices: Vec<&str> = (0..4).map(|j| fact(k + j).2).collect();
        let _ = writeln!(
            text,
            "\"Where, say books on {}, is the {animal}?\",{},{}",
            MMLU_SUBJECTS[subject].replace('_', " "),
            choices.join(","),
            ["A", "B", "C", "D"][k % 4],
        );
        text
    })
}

/// Running text of about `bytes` bytes in WikiText's layout; other seeds give other texts.
pub fn text(seed: usize, bytes: usize) -> String {
    let mut text = String::new();
    let mut turn = seed;
    while text.len() < bytes {
        let (animal, ..) = fact(turn);
        let _ = write!(text, " \n = The {animal} of valley {turn} = \n \n ");
        for k in 0..5 {
            // Steps that share no factor with the number of facts, so that sentences do not repeat at once.
            let (a, b, c) = (turn * 5 + k, turn * 7 + k * 5 + 1, turn * 11 + k * 7 + 2);
            let _ = write!(
                text,
                "The {} {} {} , while the {} {} . Those who saw it {} carried {} . ",
                fact(a).0,
                fact(a).1,
                fact(b).2,
                fact(b).0,
                fact(c).1,
                fact(c + 1).2,
                fact(c).3,
            );
        }
        text.push('\n');
        turn += 1;
    }
    text
}

/// Writes every set into a folder, each in its published layout.
///
/// # Panics
/// When the folder cannot be written.
pub fn write_all(folder: &Path) {
    for (asset, name) in [("arc_easy", "ARC-Easy"), ("arc_challenge", "ARC-Challenge")] {
        write(&folder.join(asset).join(format!("{name}-test.jsonl")), &arc(name, 0));
        write(&folder.join(asset).join(format!("{name}-validation.jsonl")), &arc(name, 3));
        write(&folder.join(asset).join(format!("{name}-train.jsonl")), &arc(name, 1));
    }
    write(&folder.join("hellaswag/hellaswag_val.jsonl"), &hellaswag());
    let (rows, labels) = piqa();
    write(&folder.join("piqa/valid.jsonl"), &rows);
    write(&folder.join("piqa/valid-labels.lst"), &labels);
    write(&folder.join("winogrande/dev.jsonl"), &winogrande());
    for (i, subject) in MMLU_SUBJECTS.iter().enumerate() {
        write(&folder.join(format!("mmlu/test/{subject}_test.csv")), &mmlu(i, MMLU_DOCUMENTS));
        write(&folder.join(format!("mmlu/dev/{subject}_dev.csv")), &mmlu(i, 1));
    }
    write(&folder.join("wikitext2-raw/wiki.test.raw"), &text(1, 4000));
    write(&folder.join("wikitext2-raw/wiki.valid.raw"), &text(100, 6000));
    write(&folder.join("wikitext2-raw/wiki.train.raw"), &text(200, 6000));
}
