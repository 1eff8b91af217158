//! QNLI, MNLI, AdvGLUE, TruthfulQA, and LLMCBench's own protocol: against what lm-evaluation-harness and LLMCBench's scripts make of the same
//! rows.

use super::tests::{Bytes, put, score, store};
use super::*;
use crate::assets::registry::MMLU_SUBJECTS;
use crate::assets::silent;
use serde_json::Value;
use std::path::Path;

/// See `tests/golden/README.md`.
const GOLDEN: &str = include_str!("../../tests/golden/glue_prompts.json");

fn golden() -> Value {
    serde_json::from_str(GOLDEN).unwrap()
}

fn csv(rows: &Value) -> String {
    let mut out = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    for row in rows.as_array().unwrap() {
        out.write_record(row.as_array().unwrap().iter().map(|cell| cell.as_str().unwrap())).unwrap();
    }
    String::from_utf8(out.into_inner().unwrap()).unwrap()
}

/// Writes the rows in their authors' layouts.
fn data(root: &Path) {
    let golden = golden();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let mut tsv = "index\tquestion\tsentence\tlabel\n".to_owned();
    for (i, row) in golden["qnli"]["rows"].as_array().unwrap().iter().enumerate() {
        let cells = ["question", "sentence", "label"].map(|name| text(row, name));
        tsv.push_str(&format!("{i}\t{}\n", cells.join("\t")));
    }
    put(root, "data/qnli/dev.tsv", &tsv);
    let mnli: String =
        golden["mnli"]["rows"].as_array().unwrap().iter().map(|row| format!("{row}\n")).collect();
    put(root, "data/mnli/mnli_dev_matched.jsonl", &mnli);
    put(root, "data/advglue/dev_ann.json", &golden["advglue"]["rows"].to_string());
    put(root, "data/truthfulqa/TruthfulQA.csv", golden["truthfulqa"]["csv"].as_str().unwrap());
    for (subject, _) in MMLU_SUBJECTS {
        let rows = &golden["mmlu"][*subject];
        let dummy = "q,a,b,c,d,A\n";
        let (test, dev) = match rows.is_null() {
            true => (dummy.to_owned(), dummy.repeat(5)),
            false => (csv(&rows["test"]), csv(&rows["dev"])),
        };
        put(root, &format!("data/mmlu/test/{subject}_test.csv"), &test);
        put(root, &format!("data/mmlu/dev/{subject}_dev.csv"), &dev);
    }
}

fn prepared(root: &Path, task: &str, shots: usize) -> Prepared {
    let options = TaskOptions { shots, ..TaskOptions::default() };
    lookup(task).unwrap().prepare(&store(root), &options, &silent).unwrap()
}

fn assert_letters(docs: &[&Doc], prompts: &Value, what: &str) {
    let prompts = prompts.as_array().unwrap();
    assert_eq!(docs.len(), prompts.len(), "{what}");
    for (doc, prompt) in docs.iter().zip(prompts) {
        assert_eq!(*doc.requests[0].context, *prompt.as_str().unwrap(), "{what} {}", doc.id);
        for (request, letter) in doc.requests.iter().zip(["A", "B", "C", "D"]) {
            assert_eq!((request.continuation.as_str(), &request.seam), (letter, &Seam::Apart));
            assert_eq!(request.context, doc.requests[0].context);
        }
    }
}

#[test]
fn glue_and_truthfulqa_ask_what_the_harness_asks() {
    let root = tempfile::tempdir().unwrap();
    data(root.path());
    let golden = golden();
    for name in ["qnli", "mnli", "truthfulqa_mc1", "truthfulqa_mc2"] {
        let prepared = prepared(root.path(), name, 0);
        let expected = golden["harness"][name].as_array().unwrap();
        assert_eq!(prepared.docs().len(), expected.len(), "{name}");
        for (doc, expected) in prepared.docs().iter().zip(expected) {
            let continuations: Vec<&str> = doc.requests.iter().map(|r| r.continuation.as_str()).collect();
            let wanted: Vec<&str> =
                expected["continuations"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
            assert_eq!(continuations, wanted, "{name} {}", doc.id);
            assert_eq!(*doc.requests[0].context, *expected["context"].as_str().unwrap(), "{name} {}", doc.id);
            assert_eq!(doc.target as u64, expected["target"].as_u64().unwrap_or(0), "{name} {}", doc.id);
        }
    }
    // Examples are drawn from the evaluated part where the training set cannot be had, and end with the right word.
    let shots = prepared(root.path(), "mnli", 2);
    let context = shots.docs()[0].requests[0].context.to_string();
    assert_eq!(context.matches("True, False or Neither?\nAnswer:").count(), 3);
    assert!(
        ["Answer: True\n\n", "Answer: Neither\n\n", "Answer: False\n\n"].iter().any(|w| context.contains(w))
    );
    for (task, shots) in
        [("truthfulqa_mc1", 1), ("qnli@llmcbench", 1), ("mmlu@llmcbench", 6), ("advglue@llmcbench", 99)]
    {
        let options = TaskOptions { shots, ..TaskOptions::default() };
        let error =
            lookup(task).unwrap().prepare(&store(root.path()), &options, &silent).unwrap_err().to_string();
        assert!(error.contains("leave shots at 0") || error.contains("examples asked for"), "{error}");
    }
}

#[test]
fn truthfulqas_numbers_are_the_harnesss() {
    let root = tempfile::tempdir().unwrap();
    data(root.path());
    for (name, metric) in [("truthfulqa_mc1", "mc1"), ("truthfulqa_mc2", "mc2")] {
        let prepared = prepared(root.path(), name, 0);
        let golden = golden();
        let expected = golden["harness"][name].as_array().unwrap();
        let scores: Vec<Score> = expected
            .iter()
            .flat_map(|item| item["scores"].as_array().unwrap())
            .map(|ll| score(ll.as_f64().unwrap()))
            .collect();
        let items = prepared.items(&prepared.requests(&Bytes).unwrap(), &scores).unwrap();
        let metrics = prepared.metrics(&items);
        let values: Vec<f64> = expected.iter().map(|item| item["value"].as_f64().unwrap()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert_eq!(metrics.len(), 1, "{metrics:?}");
        assert_eq!((metrics[0].name.as_str(), metrics[0].n), (metric, values.len()));
        assert!((metrics[0].value - mean).abs() < 1e-12, "{name} {} {mean}", metrics[0].value);
    }
}

#[test]
fn llmcbenchs_prompts_are_its_scripts_letter_by_letter() {
    let root = tempfile::tempdir().unwrap();
    data(root.path());
    let golden = golden();
    for shots in [0, 2] {
        let mmlu = prepared(root.path(), "mmlu@llmcbench", shots);
        for subject in ["abstract_algebra", "college_computer_science"] {
            let rows = &golden["mmlu"][subject];
            let docs: Vec<&Doc> =
                mmlu.docs().iter().filter(|doc| doc.subset.as_deref() == Some(subject)).collect();
            assert_letters(&docs, &rows["prompts"][shots.to_string()], subject);
            for (doc, label) in docs.iter().zip(rows["labels"].as_array().unwrap()) {
                assert_eq!(["A", "B", "C", "D"][doc.target], label.as_str().unwrap());
                // Ever fewer examples, for what is too long.
                assert_eq!(doc.shorter.len(), shots);
                assert!(doc.shorter.iter().all(|s| s.len() < doc.requests[0].context.len()));
            }
        }
    }
    for (task, name) in [("qnli@llmcbench", "qnli"), ("mnli@llmcbench", "mnli")] {
        let prepared = prepared(root.path(), task, 0);
        let docs: Vec<&Doc> = prepared.docs().iter().collect();
        assert_letters(&docs, &golden[name]["prompts"], task);
        let labels: &[&str] = if name == "qnli" {
            &["entailment", "not_entailment"]
        } else {
            &["entailment", "neutral", "contradiction"]
        };
        for (doc, label) in docs.iter().zip(golden[name]["labels"].as_array().unwrap()) {
            assert_eq!(labels[doc.target], label.as_str().unwrap());
        }
    }
    for original in [false, true] {
        let task = if original { "advglue_original@llmcbench" } else { "advglue@llmcbench" };
        for shots in [0, 2] {
            let prepared = prepared(root.path(), task, shots);
            for (part, expected) in golden["advglue"]["parts"].as_object().unwrap() {
                let docs: Vec<&Doc> =
                    prepared.docs().iter().filter(|doc| doc.subset.as_deref() == Some(part)).collect();
                let which = format!("{}-{shots}", if original { "original" } else { "adversarial" });
                assert_letters(&docs, &expected[which.as_str()], &format!("{part} {which}"));
                let letters = expected["letters"].as_array().unwrap().iter().skip(shots);
                for (doc, letter) in docs.iter().zip(letters) {
                    assert_eq!(doc.target as u64, letter.as_u64().unwrap(), "{part} {}", doc.id);
                }
            }
        }
    }
}

#[test]
fn llmcbenchs_truthfulqa_is_its_scripts() {
    let root = tempfile::tempdir().unwrap();
    data(root.path());
    let golden = golden();
    let expected = golden["truthfulqa"]["items"].as_array().unwrap();
    let prepared = prepared(root.path(), "truthfulqa@llmcbench", 0);
    assert_eq!(prepared.docs().len(), expected.len());
    let mut scores = Vec::new();
    for (doc, expected) in prepared.docs().iter().zip(expected) {
        assert_eq!(doc.right, expected["true"].as_u64().map(|n| n as usize));
        for (request, text) in doc.requests.iter().zip(expected["texts"].as_array().unwrap()) {
            assert_eq!(format!("{}{}", request.context, request.continuation), text.as_str().unwrap());
            assert_eq!(request.seam, Seam::After(expected["prompt"].as_str().unwrap().into()));
        }
        scores.extend(expected["scores"].as_array().unwrap().iter().map(|ll| score(ll.as_f64().unwrap())));
    }
    let requests = prepared.requests(&Bytes).unwrap();
    // The bytes after `\nA:`, of which the space belongs to the answer's first word.
    let first = &requests.tokens[0];
    let whole = Bytes.encode(&[expected[0]["texts"][0].as_str().unwrap()], false).unwrap().remove(0);
    let beginning = Bytes.encode(&[expected[0]["prompt"].as_str().unwrap()], false).unwrap().remove(0);
    assert_eq!(first.context, whole[..beginning.len() + 3]);
    assert_eq!(first.continuation, whole[beginning.len() + 3..]);

    let items = prepared.items(&requests, &scores).unwrap();
    for (item, expected) in items.iter().zip(expected) {
        let Outcome::Choice { answered, .. } = &item.outcome else { panic!() };
        assert_eq!(f64::from(answered.acc), expected["mc1"].as_f64().unwrap(), "{}", item.doc_id);
        assert!(
            (answered.mass.unwrap() - expected["mc2"].as_f64().unwrap()).abs() < 1e-12,
            "{}",
            item.doc_id
        );
    }
    let names: Vec<String> = prepared.metrics(&items).into_iter().map(|m| m.name).collect();
    assert_eq!(names, ["mc1", "mc2"]);
}

#[test]
fn truthfulqas_presets_are_its_authors() {
    let root = tempfile::tempdir().unwrap();
    data(root.path());
    let golden = golden();
    let presets = golden["truthfulqa"]["presets"].as_object().unwrap();
    assert_eq!(presets.len(), Preset::ALL.len());
    let mut prints = Vec::new();
    for (name, expected) in presets {
        let options = TaskOptions { preset: Preset::named(name).unwrap(), ..TaskOptions::default() };
        let prepared = lookup("truthfulqa@llmcbench").unwrap();
        let prepared = prepared.prepare(&store(root.path()), &options, &silent).unwrap();
        prints.push(prepared.fingerprint(0));
        let mut tokens = prepared.requests(&Bytes).unwrap().tokens.into_iter();
        for (doc, expected) in prepared.docs().iter().zip(expected.as_array().unwrap()) {
            let beginning = expected["prompt"].as_str().unwrap();
            let tokens: Vec<_> = tokens.by_ref().take(doc.requests.len()).collect();
            for (at, text) in
                expected["answers"].as_array().unwrap().iter().zip(expected["texts"].as_array().unwrap())
            {
                let (at, text) = (at.as_u64().unwrap() as usize, text.as_str().unwrap());
                let request = &doc.requests[at];
                assert_eq!(format!("{}{}", request.context, request.continuation), text, "{name}");
                assert_eq!(request.seam, Seam::After(beginning.into()), "{name}");
                // As many tokens as the beginning has, and three more, are given.
                let given = Bytes.encode(&[beginning], false).unwrap()[0].len() + 3;
                let whole = Bytes.encode(&[text], false).unwrap().remove(0);
                assert_eq!(tokens[at].context, whole[..given.min(whole.len())], "{name}");
                assert_eq!(tokens[at].continuation, whole[given.min(whole.len())..], "{name}");
            }
        }
    }
    prints.sort();
    prints.dedup();
    assert_eq!(prints.len(), Preset::ALL.len(), "a preset decides results");
    let csv = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\na,b,q,No,No; Never ever,Yes,s\n";
    put(root.path(), "data/truthfulqa/TruthfulQA.csv", csv);
    let options = TaskOptions { preset: Preset::Chat, ..TaskOptions::default() };
    let prepared = lookup("truthfulqa@llmcbench").unwrap();
    let prepared = prepared.prepare(&store(root.path()), &options, &silent).unwrap();
    let tokens = prepared.requests(&Bytes).unwrap().tokens;
    // ` No.` is three tokens and nothing is left; ` Never ever.` and ` Yes.` are longer.
    assert_eq!(tokens.iter().map(|t| t.continuation.len()).collect::<Vec<_>>(), [0, 7, 1]);
    let error =
        lookup("piqa").unwrap().prepare(&store(root.path()), &options, &silent).unwrap_err().to_string();
    assert!(error.contains("preset is an option of truthfulqa@llmcbench only"), "{error}");
}

#[test]
fn letters_are_encoded_by_themselves_and_examples_left_out_until_the_prompt_fits() {
    let root = tempfile::tempdir().unwrap();
    data(root.path());
    let long = "x".repeat(700);
    let dev = format!("{long},a,b,c,d,A\n").repeat(5);
    put(root.path(), "data/mmlu/dev/anatomy_dev.csv", &dev);
    let prepared = prepared(root.path(), "mmlu@llmcbench", 4);
    let requests = prepared.requests(&Bytes).unwrap();
    let mut at = 0;
    for doc in prepared.docs() {
        let tokens = &requests.tokens[at..at + doc.requests.len()];
        at += doc.requests.len();
        for (request, letter) in tokens.iter().zip(b"ABCD") {
            assert_eq!(request.continuation, [10 + u32::from(*letter)]);
            assert_eq!(request.context, tokens[0].context);
            // No special token stands in front.
            assert_eq!(request.context[0], 10 + u32::from(b'T'));
            assert!(request.context.len() <= 2048);
        }
        if doc.subset.as_deref() == Some("anatomy") {
            let with = |n: usize| {
                Bytes.encode(&[if n == 4 { &doc.requests[0].context } else { &doc.shorter[3 - n] }], false)
            };
            assert!(with(3).unwrap()[0].len() > 2048);
            assert_eq!(tokens[0].context, with(2).unwrap()[0]);
        }
    }
}

#[test]
fn rows_that_are_none_are_named() {
    let root = tempfile::tempdir().unwrap();
    for (file, text, task, says) in [
        ("qnli/dev.tsv", "index\tquestion\tsentence\tlabel\n0\ta\tb\n", "qnli", "3 columns, but 4 names"),
        (
            "qnli/dev.tsv",
            "question\tsentence\tlabel\na\tb\tmaybe\n",
            "qnli",
            "`label` must be one of entailment",
        ),
        (
            "mnli/mnli_dev_matched.jsonl",
            "{\"premise\":\"a\",\"label\":\"neutral\"}\n",
            "mnli",
            "`hypothesis` is missing",
        ),
        ("advglue/dev_ann.json", "[]", "advglue@llmcbench", "is not an object of lists"),
        ("advglue/dev_ann.json", "{\"cola\":[{\"label\":0}]}", "advglue@llmcbench", "no part `cola`"),
        (
            "truthfulqa/TruthfulQA.csv",
            "Question,Best Answer\nq,a\n",
            "truthfulqa_mc1",
            "no column `Correct Answers`",
        ),
    ] {
        put(root.path(), &format!("data/{file}"), text);
        let prepared = lookup(task).unwrap().prepare(&store(root.path()), &TaskOptions::default(), &silent);
        let error = prepared.unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(file), "{error}");
        std::fs::remove_file(root.path().join("data").join(file)).unwrap();
    }
    // Rows without a label are MultiNLI's own, and belong to no benchmark.
    let rows = "{\"sentence1\":\"a\",\"sentence2\":\"b\",\"gold_label\":\"-\"}\n{\"sentence1\":\"a\",\"sentence2\":\"b\",\"gold_label\":\"neutral\"}\n";
    put(root.path(), "data/mnli/multinli_1.0_dev_matched.jsonl", rows);
    let docs = prepared(root.path(), "mnli", 0);
    assert_eq!((docs.docs().len(), docs.docs()[0].target), (1, 1));
}
