use super::*;
use crate::assets::{Store, StoreOptions, silent};
use crate::metrics::MetricValue;
use proptest::prelude::*;
use serde_json::Value;
use std::path::Path;

/// What lm-evaluation-harness makes of rows of each data set; see `tests/golden/README.md`.
const HARNESS: &str = include_str!("../../tests/golden/harness_prompts.json");

fn harness() -> Value {
    serde_json::from_str(HARNESS).unwrap()
}

pub(super) fn put(root: &Path, name: &str, contents: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, contents).unwrap();
}

pub(super) fn store(root: &Path) -> Store {
    Store::new(StoreOptions {
        data: vec![root.join("data")],
        cache: root.join("cache"),
        hub: None,
        python: None,
    })
}

fn lines(rows: &Value) -> String {
    rows.as_array().unwrap().iter().map(|row| format!("{row}\n")).collect()
}

/// Rows of ARC-Easy, `evaluated` or `pool`.
pub(super) fn arc_rows(part: &str) -> String {
    lines(&harness()["tasks"]["arc_easy"][part])
}

fn mmlu_lines(rows: &Value) -> String {
    let mut out = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    for row in rows.as_array().unwrap() {
        let mut cells = vec![row["question"].as_str().unwrap().to_owned()];
        cells.extend(row["choices"].as_array().unwrap().iter().map(|c| c.as_str().unwrap().to_owned()));
        cells.push(char::from(b'A' + row["answer"].as_u64().unwrap() as u8).to_string());
        out.write_record(cells).unwrap();
    }
    String::from_utf8(out.into_inner().unwrap()).unwrap()
}

/// Writes the golden rows in their authors' layouts.
pub(super) fn golden_data(root: &Path) {
    let tasks = &harness()["tasks"];
    for (task, evaluated, pool) in [
        (
            "arc_challenge",
            "arc_challenge/ARC-Challenge-test.jsonl",
            "arc_challenge/ARC-Challenge-train.jsonl",
        ),
        ("arc_easy", "arc_easy/ARC-Easy-test.jsonl", "arc_easy/ARC-Easy-train.jsonl"),
        ("hellaswag", "hellaswag/hellaswag_val.jsonl", "hellaswag/hellaswag_train.jsonl"),
        ("piqa", "piqa/valid.jsonl", "piqa/train.jsonl"),
        ("winogrande", "winogrande/dev.jsonl", "winogrande/train_xl.jsonl"),
    ] {
        put(root, &format!("data/{evaluated}"), &lines(&tasks[task]["evaluated"]));
        put(root, &format!("data/{pool}"), &lines(&tasks[task]["pool"]));
    }
    for (subject, _) in MMLU_SUBJECTS {
        let golden = &tasks[format!("mmlu_{subject}")];
        let dummy = || "q,a,b,c,d,A\n".to_owned();
        let (test, dev) = if golden.is_null() {
            (dummy(), dummy().repeat(5))
        } else {
            (mmlu_lines(&golden["evaluated"]), mmlu_lines(&golden["pool"]))
        };
        put(root, &format!("data/mmlu/test/{subject}_test.csv"), &test);
        put(root, &format!("data/mmlu/dev/{subject}_dev.csv"), &dev);
    }
}

const CHOICE_TASKS: [&str; 8] = [
    "arc_challenge",
    "arc_easy",
    "hellaswag",
    "piqa",
    "winogrande",
    "mmlu_abstract_algebra",
    "mmlu_high_school_us_history",
    "mmlu_professional_law",
];

fn close(a: f64, b: &Value) -> bool {
    (a - b.as_f64().unwrap()).abs() < 1e-12
}

pub(super) fn score(log_likelihood: f64) -> Score {
    Score { log_likelihood, greedy: false, token_log_likelihoods: Vec::new(), truncated: false }
}

#[test]
fn prompts_and_continuations_are_the_harnesss_string_by_string() {
    let root = tempfile::tempdir().unwrap();
    golden_data(root.path());
    let store = store(root.path());
    let golden = harness();
    let mut compared = 0;
    for name in CHOICE_TASKS {
        for (shots, limit) in [("0", None), ("3", Some(6))] {
            let options = TaskOptions { shots: shots.parse().unwrap(), limit, ..TaskOptions::default() };
            let prepared = lookup(name).unwrap().prepare(&store, &options, &silent).unwrap();
            let expected = golden["tasks"][name][shots].as_array().unwrap();
            assert_eq!(prepared.docs().len(), expected.len(), "{name} {shots}");
            for (doc, expected) in prepared.docs().iter().zip(expected) {
                let contexts = expected["contexts"].as_array().unwrap();
                for (i, request) in doc.requests.iter().enumerate() {
                    let context = &contexts[i.min(contexts.len() - 1)];
                    assert_eq!(
                        &*request.context,
                        context.as_str().unwrap(),
                        "{name}, {shots} shots, {}",
                        doc.id
                    );
                    assert_eq!(
                        request.continuation,
                        expected["continuations"][i].as_str().unwrap(),
                        "{name}"
                    );
                    compared += 1;
                }
                assert_eq!(doc.requests.len(), expected["continuations"].as_array().unwrap().len());
            }
        }
    }
    assert!(compared > 500, "{compared}");
}

#[test]
fn accuracies_and_their_errors_are_the_harnesss() {
    let root = tempfile::tempdir().unwrap();
    golden_data(root.path());
    let store = store(root.path());
    let golden = harness();
    for name in CHOICE_TASKS {
        let expected = &golden["tasks"][name];
        let prepared = lookup(name).unwrap().prepare(&store, &TaskOptions::default(), &silent).unwrap();
        let requests = prepared.requests(&Bytes).unwrap();
        let scores: Vec<Score> = expected["0"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|doc| doc["log_likelihoods"].as_array().unwrap())
            .map(|ll| score(ll.as_f64().unwrap()))
            .collect();
        let items = prepared.items(&requests, &scores).unwrap();
        for (item, doc) in items.iter().zip(expected["0"].as_array().unwrap()) {
            let Outcome::Choice { answered, .. } = &item.outcome else { panic!() };
            assert!(close(f64::from(answered.acc), &doc["acc"]), "{name} {}", item.doc_id);
            assert_eq!(answered.acc_norm.map(f64::from), doc["acc_norm"].as_f64(), "{name} {}", item.doc_id);
        }
        let metrics = prepared.metrics(&items);
        for metric in &metrics {
            assert!(close(metric.value, &expected[&metric.name]["mean"]), "{name} {metric:?}");
            assert!(close(metric.stderr.unwrap(), &expected[&metric.name]["stderr"]), "{name} {metric:?}");
        }
        let given = ["acc", "acc_norm"].iter().filter(|m| !expected[**m].is_null()).count();
        assert_eq!(metrics.len(), given, "{name}");
    }
}

#[test]
fn mmlu_as_a_whole_is_weighted_by_size_as_in_the_harness() {
    let root = tempfile::tempdir().unwrap();
    golden_data(root.path());
    let store = store(root.path());
    let golden = harness();
    let mut items = Vec::new();
    for name in CHOICE_TASKS.iter().filter(|n| n.starts_with("mmlu")) {
        let prepared = lookup(name).unwrap().prepare(&store, &TaskOptions::default(), &silent).unwrap();
        let scores: Vec<Score> = golden["tasks"][name]["0"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|doc| doc["log_likelihoods"].as_array().unwrap())
            .map(|ll| score(ll.as_f64().unwrap()))
            .collect();
        items.extend(prepared.items(&prepared.requests(&Bytes).unwrap(), &scores).unwrap());
    }
    let whole: MetricValue = crate::metrics::of_items(&items, mmlu_category).remove(0);
    assert_eq!((whole.subset.as_deref(), whole.n), (None, 21));
    assert!(close(whole.value, &golden["mmlu"]["mean"]));
    assert!(close(whole.stderr.unwrap(), &golden["mmlu"]["stderr"]));
}

#[test]
fn limits_count_per_subject() {
    let root = tempfile::tempdir().unwrap();
    golden_data(root.path());
    let store = store(root.path());
    let options = TaskOptions { limit: Some(2), ..TaskOptions::default() };
    let prepared = lookup("mmlu").unwrap().prepare(&store, &options, &silent).unwrap();
    // 54 subjects of one row each, three of seven.
    assert_eq!(prepared.docs().len(), 54 + 3 * 2);
    let prepared = lookup("piqa").unwrap().prepare(&store, &options, &silent).unwrap();
    assert_eq!(prepared.docs().len(), 2);
}

#[test]
fn without_a_training_set_examples_come_from_elsewhere_and_never_are_the_question() {
    let root = tempfile::tempdir().unwrap();
    golden_data(root.path());
    for train in ["piqa/train.jsonl", "arc_easy/ARC-Easy-train.jsonl"] {
        std::fs::remove_file(root.path().join("data").join(train)).unwrap();
    }
    let store = store(root.path());
    let options = TaskOptions { shots: 19, ..TaskOptions::default() };
    let prepared = lookup("piqa").unwrap().prepare(&store, &options, &silent).unwrap();
    let used = &prepared.data[1];
    assert_eq!((used.role.as_str(), used.part.as_str()), ("examples", "validation"));
    assert_eq!(used.note.as_deref(), Some("train could not be had"));
    for doc in prepared.docs() {
        let context = &doc.requests[0].context;
        let question = context.rsplit("\n\n").next().unwrap();
        assert_eq!(context.matches("\nAnswer:").count(), 20);
        assert_eq!(context.matches(question).count(), 1, "the question is among its own examples");
    }
    // ARC has a validation set to draw from; without it, too, the error lists the sources.
    let easy = lookup("arc_easy").unwrap();
    let error = easy.prepare(&store, &options, &silent).unwrap_err().to_string();
    assert!(error.contains("cannot obtain arc_easy (validation)"), "{error}");
    put(
        root.path(),
        "data/arc_easy/ARC-Easy-validation.jsonl",
        &lines(&harness()["tasks"]["arc_easy"]["pool"]),
    );
    let prepared = easy.prepare(&store, &options, &silent).unwrap();
    assert_eq!(prepared.data[1].part, "validation");
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let root = tempfile::tempdir().unwrap();
    golden_data(root.path());
    put(root.path(), "t.txt", "some text");
    let store = store(root.path());
    let text = format!("text:{}", root.path().join("t.txt").display());
    let with = |f: fn(&mut TaskOptions)| {
        let mut options = TaskOptions::default();
        f(&mut options);
        options
    };
    for (task, options, says) in [
        ("piqa", with(|o| o.limit = Some(0)), "limit of 0"),
        ("piqa", with(|o| o.seqlen = Some(8)), "seqlen is an option of perplexity"),
        (&text, with(|o| o.seqlen = Some(1)), "seqlen must be 2 or more"),
        (&text, with(|o| o.shots = 1), "leave shots at 0"),
        ("mmlu_anatomy", with(|o| o.shots = 6), "6 solved examples asked for, but only 5"),
        ("piqa", with(|o| o.shots = 31), "31 solved examples asked for, but only 29"),
    ] {
        let error = lookup(task).unwrap().prepare(&store, &options, &silent).unwrap_err().to_string();
        assert!(error.contains(says) && error.starts_with("task "), "{error}");
    }
    let error =
        lookup("text:/no/such/file").unwrap().prepare(&store, &TaskOptions::default(), &silent).unwrap_err();
    assert!(error.to_string().contains("cannot read /no/such/file"), "{error}");
    std::fs::write(root.path().join("b.txt"), b"a\nb\xff").unwrap();
    let task = lookup(&format!("text:{}", root.path().join("b.txt").display())).unwrap();
    let error = task.prepare(&store, &TaskOptions::default(), &silent).unwrap_err().to_string();
    assert!(error.contains("b.txt, line 2: is not UTF-8"), "{error}");
}

#[test]
fn tasks_are_found_by_name_and_near_names_are_offered() {
    for name in default_suite().into_iter().chain(["wikitext2", "mmlu_anatomy"]) {
        assert_eq!(lookup(name).unwrap().name(), name);
    }
    assert_eq!(lookup("text:a/b.txt").unwrap().name(), "text:a/b.txt");
    for (name, says) in [
        ("arc-easy", "did you mean arc_easy"),
        ("hellaswagg", "did you mean hellaswag"),
        ("mmlu_anatomi", "mmlu_anatomy"),
        ("zzz", "tasks are wikitext2"),
        ("zzz", "text:FILE and FILE.toml"),
        ("text:", "names no file"),
    ] {
        let error = lookup(name).unwrap_err().to_string();
        assert!(error.contains(says), "{name}: {error}");
    }
    for spec in TASKS {
        let asset = crate::assets::registry::ASSETS.iter().find(|a| a.id == spec.data.0).unwrap();
        assert_eq!(asset.parts[0].name, spec.data.1, "{}: the first part is the evaluated one", spec.id);
        if let TaskKind::Choice { pools, .. } = spec.kind {
            for pool in pools {
                if let Pool::Drawn(part) | Pool::DrawnWithSpare(part) | Pool::First(part) = pool {
                    assert!(asset.parts.iter().any(|p| p.name == *part), "{} {part}", spec.id);
                }
            }
        }
    }
}

// ---- tokens -------------------------------------------------------------------------------------------------------------------

/// One token per byte; a word's space belongs to the word, so that `" b"` after `"a"` is not the tokens of `"a "` and `"b"`. With special
/// tokens, 1 stands in front.
pub(super) struct Bytes;

impl Encode for Bytes {
    fn encode(&self, texts: &[&str], add_special: bool) -> Result<Vec<Vec<u32>>, EncodeError> {
        Ok(texts
            .iter()
            .map(|text| {
                let mut out = if add_special { vec![1] } else { Vec::new() };
                let mut bytes = text.bytes().peekable();
                while let Some(b) = bytes.next() {
                    match bytes.peek() {
                        Some(next) if b == b' ' && *next != b' ' => {
                            out.push(1000 + u32::from(*next));
                            bytes.next();
                        }
                        _ => out.push(10 + u32::from(b)),
                    }
                }
                out
            })
            .collect())
    }

    fn prefix_token(&self) -> Option<u32> {
        Some(1)
    }

    fn byte_length(&self, tokens: &[u32]) -> Option<u64> {
        Some(tokens.iter().map(|t| if *t >= 1000 { 2 } else { 1 }).sum())
    }
}

fn pair(context: &str, continuation: &str) -> Result<TokenRequest, String> {
    let prepared = Prepared {
        task: lookup("piqa").unwrap(),
        name: "piqa".to_owned(),
        options: TaskOptions::default(),
        data: Vec::new(),
        body: docs::Body::Choice(vec![Doc {
            id: String::new(),
            index: 0,
            subset: None,
            requests: vec![Request {
                context: context.into(),
                continuation: continuation.to_owned(),
                seam: Seam::Joined,
            }],
            lengths: vec![1],
            target: 0,
            ..Doc::default()
        }]),
    };
    prepared.requests(&Bytes).map(|mut r| r.tokens.remove(0)).map_err(|e| e.to_string())
}

#[test]
fn pairs_are_encoded_as_the_harness_does() {
    let request = |context: &[u32], continuation: &[u32]| {
        Ok(TokenRequest { context: context.to_vec(), continuation: continuation.to_vec() })
    };
    let byte = |c: char| 10 + c as u32;
    let spaced = |c: char| 1000 + c as u32;
    assert_eq!(pair("a", " b"), request(&[1, byte('a')], &[spaced('b')]));
    // A space at the end of the context moves over.
    assert_eq!(pair("a ", "b"), request(&[1, byte('a')], &[spaced('b')]));
    assert_eq!(pair("a  ", "b"), request(&[1, byte('a')], &[byte(' '), spaced('b')]));
    // An empty context is the prefix token; a continuation that brings its own keeps it.
    assert_eq!(pair("", "b"), request(&[1], &[byte('b')]));
    assert_eq!(pair(" ", "b"), request(&[1], &[spaced('b')]));
    let error = pair("a", "").unwrap_err();
    assert!(error.contains("has no token of its own"), "{error}");
}

#[test]
fn scores_must_fit_their_requests() {
    let root = tempfile::tempdir().unwrap();
    golden_data(root.path());
    let prepared =
        lookup("piqa").unwrap().prepare(&store(root.path()), &TaskOptions::default(), &silent).unwrap();
    let requests = prepared.requests(&Bytes).unwrap();
    let error = prepared.items(&requests, &[score(0.0)]).unwrap_err().to_string();
    assert!(error.contains("40 requests were asked, but 1 scores came back"), "{error}");
}

#[test]
fn answers_that_are_no_numbers_never_win() {
    let root = tempfile::tempdir().unwrap();
    golden_data(root.path());
    let options = TaskOptions { limit: Some(1), ..TaskOptions::default() };
    let prepared = lookup("piqa").unwrap().prepare(&store(root.path()), &options, &silent).unwrap();
    let requests = prepared.requests(&Bytes).unwrap();
    for (lls, chosen) in [
        ([f64::NAN, -3.0], Some(1)),
        ([f64::NAN, f64::NAN], None),
        ([f64::NEG_INFINITY, f64::NAN], Some(0)),
        ([-2.0, -2.0], Some(0)),
    ] {
        let items = prepared.items(&requests, &[score(lls[0]), score(lls[1])]).unwrap();
        let Outcome::Choice { answered, target, .. } = &items[0].outcome else { panic!() };
        assert_eq!(answered.chosen, chosen);
        assert_eq!(answered.acc, u8::from(chosen == Some(*target)));
        let text = serde_json::to_string(&items[0]).unwrap();
        let back: ItemResult = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text, "an item survives its file");
        assert!(text.contains("\"kind\":\"choice\"") && !text.contains('\n'));
    }
}

fn windowed(text: &str, seqlen: usize, limit: Option<usize>) -> (Prepared, Result<Requests, String>) {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "t.txt", text);
    let options = TaskOptions { seqlen: Some(seqlen), limit, ..TaskOptions::default() };
    let task = lookup(&format!("text:{}", root.path().join("t.txt").display())).unwrap();
    let prepared = task.prepare(&store(root.path()), &options, &silent).unwrap();
    let requests = prepared.requests(&Bytes).map_err(|e| e.to_string());
    (prepared, requests)
}

#[test]
fn windows_do_not_overlap_and_the_rest_is_left_out() {
    let (prepared, requests) = windowed("abcdefg", 3, None);
    let requests = requests.unwrap();
    // [1 a b] [c d e] and f g left out.
    let byte = |c: char| 10 + c as u32;
    assert_eq!(requests.stream_tokens, 8);
    assert_eq!(requests.tokens[0].context, [1]);
    assert_eq!(requests.tokens[0].continuation, [byte('a'), byte('b')]);
    assert_eq!(requests.tokens[1].context, [byte('c')]);
    assert_eq!(requests.tokens[1].continuation, [byte('d'), byte('e')]);
    assert_eq!(requests.tokens.len(), 2);
    let items = prepared.items(&requests, &[score(-2.0), score(-6.0)]).unwrap();
    let metrics = prepared.metrics(&items);
    // Mean of the windows' means 1 and 3; the two windows' spread is sqrt(2), over sqrt(2) windows.
    assert!((metrics[0].value - 2.0_f64.exp()).abs() < 1e-12);
    assert!((metrics[0].stderr.unwrap() - 2.0_f64.exp()).abs() < 1e-12);
    assert_eq!(
        (metrics[0].name.as_str(), metrics[0].n, metrics[0].higher_is_better),
        ("perplexity", 2, false)
    );
    assert!((metrics[1].value - 8.0 / std::f64::consts::LN_2 / 4.0).abs() < 1e-12, "{metrics:?}");
    assert_eq!(windowed("abcdefg", 3, Some(1)).1.unwrap().tokens.len(), 1);
    let error = windowed("ab", 4, None).1.unwrap_err();
    assert!(error.contains("has 3 tokens, fewer than one window of 4"), "{error}");
}

#[test]
fn rows_are_joined_by_empty_lines() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "data/wikitext2-raw/wiki.test.raw", " \n = A = \n \n b \n");
    let prepared =
        lookup("wikitext2").unwrap().prepare(&store(root.path()), &TaskOptions::default(), &silent).unwrap();
    assert_eq!(prepared.text(), Some("\n\n = A = \n\n\n\n\n b \n"));
    assert_eq!(prepared.seqlen(), Some(2048));
    assert!(prepared.is_perplexity());
}

#[test]
fn fingerprints_change_with_what_decides_results_and_with_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    golden_data(root.path());
    let store = store(root.path());
    let print = |name: &str, f: fn(&mut TaskOptions)| {
        let mut options = TaskOptions::default();
        f(&mut options);
        lookup(name).unwrap().prepare(&store, &options, &silent).unwrap().fingerprint(options.seed)
    };
    let base = print("piqa", |_| {});
    assert_eq!(base, print("piqa", |_| {}));
    assert_eq!(base, print("piqa", |o| o.seed = 5), "the seed decides nothing without examples");
    let mut all = vec![
        base.clone(),
        print("piqa", |o| o.limit = Some(3)),
        print("piqa", |o| o.shots = 1),
        print("piqa", |o| (o.shots, o.seed) = (1, 5)),
        print("hellaswag", |_| {}),
        print("mmlu", |_| {}),
        print("mmlu_anatomy", |_| {}),
    ];
    let text = std::fs::read_to_string(root.path().join("data/piqa/valid.jsonl")).unwrap();
    put(root.path(), "data/piqa/valid.jsonl", &text.replacen("\"label\":0", "\"label\":1", 1));
    all.push(print("piqa", |_| {}));
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn calibration_texts_are_found_by_name() {
    let root = tempfile::tempdir().unwrap();
    put(
        root.path(),
        "data/boolq/dev.jsonl",
        "{\"passage\":\"p\"}\n{\"passage\":\"q\"}\n{\"passage\":\"p\"}\n",
    );
    put(root.path(), "data/wikitext2-raw/wiki.valid.raw", "a\n\nb\n");
    put(root.path(), "c.txt", "c");
    let store = store(root.path());
    let file = format!("text:{}", root.path().join("c.txt").display());
    for (name, text) in
        [(None, "p\n\nq"), (Some("wikitext2:validation"), "a\n\n\n\n\nb\n"), (Some(file.as_str()), "c")]
    {
        assert_eq!(calibration_text(name, &store, &silent).unwrap().text, text, "{name:?}");
    }
    for (name, says) in [
        ("c4", "no calibration text is called `c4`"),
        ("text:", "no calibration text"),
        ("wikitext2", "cannot obtain wikitext2 (train)"),
    ] {
        let error = calibration_text(Some(name), &store, &silent).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn too_short_calibration_texts_are_refused() {
    let tokens: Vec<u32> = (0..10).collect();
    assert_eq!(windows(&tokens, 4, 2, Windows::First).unwrap(), [vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
    for (seqlen, count, how, says) in [
        (4, 3, Windows::First, "has 10 tokens (2 windows)"),
        (11, 1, Windows::Random { seed: 0 }, "has only 10"),
        (0, 1, Windows::First, "must be 1 or more"),
    ] {
        let error = windows(&tokens, seqlen, count, how).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

proptest! {
    #[test]
    fn random_windows_are_pieces_of_the_text_and_repeat_with_their_seed(len in 1_usize..200, seqlen in 1_usize..50, count in 1_usize..8, seed: u64) {
        let tokens: Vec<u32> = (0..len as u32).collect();
        let drawn = windows(&tokens, seqlen, count, Windows::Random { seed });
        prop_assert_eq!(drawn.is_ok(), seqlen <= len);
        if let Ok(drawn) = drawn {
            for window in &drawn {
                prop_assert_eq!(window.len(), seqlen);
                prop_assert!(window.windows(2).all(|w| w[1] == w[0] + 1));
            }
            prop_assert_eq!(drawn, windows(&tokens, seqlen, count, Windows::Random { seed }).unwrap());
        }
    }

    #[test]
    fn context_and_continuation_are_the_whole_text(context in "[a-c ]{1,12}", continuation in "[a-c]{1,6}") {
        let request = pair(&context, &continuation).unwrap();
        let whole = Bytes.encode(&[&format!("{context}{continuation}")], true).unwrap().remove(0);
        let mut joined = request.context;
        joined.extend(request.continuation);
        prop_assert_eq!(joined, whole);
    }
}
