use super::super::tests::{Bytes, arc_rows, golden_data, put, store};
use super::super::{TaskOptions, lookup};
use super::OwnTask;
use crate::assets::silent;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

/// A task file that is right, with one row.
const GOOD: &str = r#"name = "mine"
data = "rows.jsonl"
prompt = "Q: {q}\nA:"
choices = "{options}"
answer = "{label}"
"#;

fn folder(definition: &str, rows: &[Value]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    put(folder.path(), "mine.toml", definition);
    put(folder.path(), "rows.jsonl", &lines);
    folder
}

fn row() -> Value {
    json!({"q": "One {q}?", "options": ["one", "two"], "label": 1, "part": "x"})
}

/// Contexts and continuations of all documents, or the error.
fn asked(root: &Path, options: &TaskOptions) -> Result<Vec<(String, Vec<String>, usize)>, String> {
    let task = lookup(&root.join("mine.toml").display().to_string()).map_err(|e| e.to_string())?;
    let prepared = task.prepare(&store(root), options, &silent).map_err(|e| e.to_string())?;
    Ok(prepared
        .docs()
        .iter()
        .map(|doc| {
            let continuations = doc.requests.iter().map(|r| r.continuation.clone()).collect();
            (doc.requests[0].context.to_string(), continuations, doc.target)
        })
        .collect())
}

#[test]
fn arc_easy_written_as_a_task_file_asks_what_the_built_in_task_asks() {
    let root = tempfile::tempdir().unwrap();
    golden_data(root.path());
    put(root.path(), "test.jsonl", &arc_rows("evaluated"));
    put(root.path(), "train.jsonl", &arc_rows("pool"));
    let definition = r#"
        name = "my_arc"
        data = "test.jsonl"
        examples = "train.jsonl"
        prompt = "Question: {question}\nAnswer:"
        choices = "{choices.text}"
        answer = "{answerKey}"
        normalised = true
    "#;
    put(root.path(), "mine.toml", definition);
    let store = store(root.path());
    for options in [
        TaskOptions::default(),
        TaskOptions { shots: 3, limit: Some(7), ..TaskOptions::default() },
        TaskOptions { shots: 5, seed: 7, ..TaskOptions::default() },
    ] {
        let built_in = lookup("arc_easy").unwrap().prepare(&store, &options, &silent).unwrap();
        let own = lookup(&root.path().join("mine.toml").display().to_string()).unwrap();
        assert_eq!(own.spec().headline, built_in.spec().headline);
        let own = own.prepare(&store, &options, &silent).unwrap();
        assert_eq!(own.docs().len(), built_in.docs().len());
        for (a, b) in own.docs().iter().zip(built_in.docs()) {
            assert_eq!((&a.requests, &a.lengths, a.target), (&b.requests, &b.lengths, b.target));
        }
        assert_eq!(own.requests(&Bytes).unwrap(), built_in.requests(&Bytes).unwrap());
    }
}

#[test]
fn letters_words_and_subsets() {
    let rows = [
        json!({"q": "a", "options": ["no", "yes"], "label": "B", "part": {"name": "x"}}),
        json!({"q": "b", "options": ["no", "yes"], "label": "no", "part": {"name": "y"}}),
        json!({"q": 3, "options": ["no", "yes"], "label": "0", "part": {"name": "x"}}),
    ];
    let letters = r#"
        name = "mine"
        data = "rows.jsonl"
        description = "On {part.name}. "
        prompt = "{q}: {A}, {B}? {{}}"
        choices = "{options}"
        letters = true
        answer = "{label}"
        subset = "{part.name}"
    "#;
    let root = folder(letters, &rows);
    let expected =
        |context: &str, target| (context.to_owned(), vec![" A".to_owned(), " B".to_owned()], target);
    assert_eq!(
        asked(root.path(), &TaskOptions::default()).unwrap(),
        [
            expected("On x. a: no, yes? {}", 1),
            expected("On y. b: no, yes? {}", 0),
            expected("On x. 3: no, yes? {}", 0)
        ]
    );
    // Examples are of the same part, and never the question itself.
    let one = |limit| TaskOptions { shots: 1, limit, ..TaskOptions::default() };
    let error = asked(root.path(), &one(None)).unwrap_err();
    assert!(error.contains("1 solved examples asked for, but only 0 are there"), "{error}");
    let root = folder(letters, &[rows[0].clone(), rows[2].clone()]);
    assert_eq!(
        asked(root.path(), &one(None)).unwrap(),
        [
            expected("On x. 3: no, yes? {} A\n\na: no, yes? {}", 1),
            expected("On x. a: no, yes? {} B\n\n3: no, yes? {}", 0)
        ]
    );
    let words = GOOD.replace(r#""{options}""#, r#"["good", "bad"]"#);
    let root = folder(&words, &[json!({"q": true, "label": "bad"})]);
    assert_eq!(
        asked(root.path(), &TaskOptions::default()).unwrap(),
        [("Q: true\nA:".to_owned(), vec![" good".to_owned(), " bad".to_owned()], 1)]
    );
}

#[test]
fn a_wrong_task_file_is_told_by_its_line_and_the_way_out() {
    for (from, to, says) in [
        ("\"mine\"", "\"My task\"", "mine.toml, line 1: `name`: must be of small letters"),
        ("\"mine\"", "\"arc_easy\"", "line 1: `name`: `arc_easy` is a built-in task"),
        ("\"mine\"", "7", "mine.toml, line 1: invalid type: integer `7`, expected a string"),
        ("prompt =", "promt =", "line 3: unknown field `promt`, expected one of `name`"),
        ("prompt = \"Q: {q}\\nA:\"", "", "missing field `prompt`"),
        ("rows.jsonl", "no.jsonl", "line 2: `data`: "),
        ("rows.jsonl", "no.jsonl", "no.jsonl: no such file; give a JSON Lines file"),
        ("{q}", "{q", "line 3: `prompt`: a `{` stands alone"),
        ("\"{options}\"", "\"options\"", "line 4: `choices`: must name one field in braces"),
        ("\"{options}\"", "7", "line 4: must be \"{field}\" or a list of strings"),
        ("\"{options}\"", "[\"a\"]", "line 4: `choices`: needs two or more choices, found 1"),
        ("\"{label}\"", "\"{label}{label}\"", "line 5: `answer`: must name one field"),
        ("answer =", "metric = \"f1\"\nanswer =", "line 5: `metric`: there is no metric `f1`"),
        ("answer =", "metric = \"acc_norm\"\nanswer =", "line 5: `metric`: `acc_norm` is given only with"),
        ("answer =", "letters = true\nnormalised = true\nanswer =", "line 6: `normalised`: letters are all"),
        ("answer =", "answer", "mine.toml, line 5: "),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let root = folder(&GOOD.replacen(from, to, 1), &[row()]);
        let error = asked(root.path(), &TaskOptions::default()).unwrap_err();
        assert!(error.contains(says), "{to}: {error}");
        assert!(error.lines().count() == 1, "{error}");
    }
    let root = folder(GOOD, &[row()]);
    std::fs::write(root.path().join("mine.toml"), b"name = \"a\"\n# \xff\n").unwrap();
    let error = asked(root.path(), &TaskOptions::default()).unwrap_err();
    assert!(error.contains("mine.toml, line 2: is not UTF-8"), "{error}");
    let error = lookup("no/such/file.toml").unwrap_err().to_string();
    assert!(error.contains("cannot read no/such/file.toml"), "{error}");
}

#[test]
fn a_wrong_row_is_told_by_its_line_and_its_field() {
    for (field, value, says) in [
        ("q", Value::Null, "`q` must be a string or a number, found null"),
        ("q", json!(["a"]), "`q` must be a string or a number, found a list"),
        ("options", json!("a"), "`options` must be a list of strings, found a string"),
        ("options", json!(["a", 1]), "`options` must be a list of strings, found a number in it"),
        ("options", json!(["a"]), "`options` needs two or more choices, found 1"),
        ("options", json!(["a", " "]), "`options` choice number 1 (from 0) is empty"),
        ("label", json!(2), "`label` is 2, but choices have the whole numbers 0 to 1"),
        ("label", json!(-1), "`label` is -1, but choices"),
        ("label", json!(0.5), "`label` is 0.5, but choices"),
        ("label", json!("three"), "`label` is \"three\", which is no choice's text, letter"),
        ("label", json!("C"), "`label` is \"C\", which is no choice's text, letter"),
        ("label", json!([0]), "`label` must be a choice's number, letter or text, found a list"),
    ] {
        let mut wrong = row();
        wrong[field] = value;
        let root = folder(GOOD, &[row(), wrong]);
        let error = asked(root.path(), &TaskOptions::default()).unwrap_err();
        assert!(error.contains(&format!("rows.jsonl, line 2: {says}")), "{error}");
    }
    // A label that means two things.
    let twofold = json!({"q": "a", "options": ["1", "0"], "label": "1"});
    let error = asked(folder(GOOD, &[twofold]).path(), &TaskOptions::default()).unwrap_err();
    assert!(error.contains("the text of one choice and the letter or number of another"), "{error}");
    let error = asked(folder(GOOD, &[json!({"p": 1})]).path(), &TaskOptions::default()).unwrap_err();
    assert!(error.contains("line 1: has no field `options`, which `choices` of "), "{error}");
    assert!(error.contains("its fields are p"), "{error}");
    let error = asked(folder(GOOD, &[json!([1])]).path(), &TaskOptions::default()).unwrap_err();
    assert!(error.contains("line 1: a row must be an object"), "{error}");
    let error = asked(folder(GOOD, &[]).path(), &TaskOptions::default()).unwrap_err();
    assert!(error.contains("hold no document"), "{error}");
    let root = folder(GOOD, &[]);
    put(root.path(), "rows.jsonl", "{\"q\": 1");
    let error = asked(root.path(), &TaskOptions::default()).unwrap_err();
    assert!(error.contains("rows.jsonl, line 1: is not JSON"), "{error}");
}

#[test]
fn content_and_not_place_makes_the_fingerprint() {
    let print = |root: &Path| {
        let task = lookup(&root.join("mine.toml").display().to_string()).unwrap();
        task.prepare(&store(root), &TaskOptions::default(), &silent).unwrap().fingerprint(0)
    };
    let (one, same) = (folder(GOOD, &[row()]), folder(GOOD, &[row()]));
    assert_eq!(print(one.path()), print(same.path()));
    assert_ne!(print(one.path()), print(folder(GOOD, &[row(), row()]).path()));
    let other = GOOD.replace("Q: ", "Question: ");
    assert_ne!(print(one.path()), print(folder(&other, &[row()]).path()));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[A-C0-2 é{}]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("q|options|label|part|a\\.b", inner, 0..5)
                .prop_map(|map| Value::from(serde_json::Map::from_iter(map))),
        ]
    })
}

proptest! {
    #[test]
    fn no_row_makes_it_panic(value in any_json(), letters: bool, key in "q|options|label|part") {
        let extra = if letters { "letters = true\nsubset = \"{part}\"\n" } else { "normalised = true\n" };
        let definition = format!("{extra}{}", GOOD.replace("{q}", "{q}{A}"));
        let root = folder(&definition, &[]);
        let task = OwnTask::load(&root.path().join("mine.toml")).unwrap();
        let mut nearly = row();
        nearly["A"] = json!("a");
        nearly[key] = value.clone();
        for row in [value, nearly] {
            if let Ok(record) = task.record(&row) {
                prop_assert!(record.choices.len() >= 2 && record.right < record.choices.len());
            }
        }
    }

    #[test]
    fn no_file_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..150) {
        let root = folder(GOOD, &[]);
        let mut text = GOOD.as_bytes().to_vec();
        let at = at.min(text.len());
        text.splice(at..at, bytes.iter().copied().take(3));
        for text in [&bytes, &text] {
            std::fs::write(root.path().join("mine.toml"), text).unwrap();
            let _ = OwnTask::load(&root.path().join("mine.toml"));
            put(root.path(), "mine.toml", GOOD);
            std::fs::write(root.path().join("rows.jsonl"), text).unwrap();
            let _ = asked(root.path(), &TaskOptions::default());
        }
    }
}
