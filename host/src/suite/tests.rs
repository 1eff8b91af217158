//! Plans, keys, stores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use llmcb_plugin_api::sdk::{CheckpointInfo, Descriptor, RoleDescriptor};
use serde_json::{Map, Value, json};

use super::facts::{Facts, ModelFact, PluginFact, TaskFact, TextFact, split_options};
use super::key::{CalibrationPart, FileHashes, Inputs, PluginPart, canonical};
use super::plan::{Plan, plan};
use super::result::*;
use super::spec::*;
use super::store::{Store, StoreError, read_run};

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn role(name: &str, properties: Value) -> RoleDescriptor {
    RoleDescriptor { role: name.into(), options: json!({ "type": "object", "properties": properties }) }
}

fn method(id: &str, calibrates: bool) -> PluginFact {
    let mut descriptor = Descriptor::method(id, id, "1").summary("s");
    descriptor.needs.calibration = calibrates;
    descriptor.roles = vec![role("method", json!({ "bits": {} }))];
    PluginFact {
        descriptor,
        sha256: format!("sha of {id}"),
        options: BTreeMap::from([("method".into(), object(json!({ "bits": 4 })))]),
        library: None,
    }
}

fn backend(id: &str, roles: &[&str]) -> PluginFact {
    let mut descriptor = Descriptor::backend(id, id, "1").summary("s");
    descriptor.roles = roles.iter().map(|r| role(r, json!({}))).collect();
    PluginFact {
        descriptor,
        sha256: format!("sha of {id}"),
        options: roles.iter().map(|r| ((*r).into(), object(json!({ "device": "cpu" })))).collect(),
        library: None,
    }
}

fn suite() -> Suite {
    Suite {
        models: vec!["tiny".into()],
        methods: vec![PluginUse::new("rtn", "/p/librtn.so"), PluginUse::new("gptq", "/p/libgptq.so")],
        backends: vec![PluginUse::new("candle", "/p/libcandle.so")],
        tasks: vec!["arc_easy".into(), "text:/data/My Text.txt:seqlen=16".into()],
        profile: true,
        ..Suite::default()
    }
}

fn facts() -> Facts {
    let candle = backend("candle", &["engine", "runner"]);
    let task = |name: &str| TaskFact {
        name: name.into(),
        fingerprints: vec![format!("fingerprint of {name}")],
        data: BTreeMap::new(),
        shots: 0,
        limit: None,
        seqlen: None,
        version: "1".into(),
        tokens: 100,
        at_hand: true,
    };
    Facts {
        models: vec![Ok(ModelFact {
            path: "/m/tiny.gguf".into(),
            sha256: "sha of tiny".into(),
            at_hand: true,
        })],
        methods: vec![Ok(method("rtn", false)), Ok(method("gptq", true))],
        backends: vec![Ok(candle.clone())],
        engine: Some(Ok((PluginUse::new("candle", "/p/libcandle.so"), candle))),
        tasks: vec![Ok(task("arc_easy")), Ok(task("text"))],
        metrics: Vec::new(),
        text: Some(Ok(TextFact { name: "t".into(), sha256: "sha of text".into() })),
        threads: 2,
        machine: "machine".into(),
        program: "program".into(),
    }
}

fn outline(plan: &Plan) -> Vec<String> {
    let line = |(i, s): (usize, &super::plan::PlannedStage)| {
        let needs = s.needs.map_or(String::new(), |n| format!(" <- {n}"));
        let blocked =
            s.blocked.as_ref().map_or(String::new(), |(st, why)| format!(" [{}: {why}]", st.name()));
        format!("{i} {}{needs}{blocked}", s.label)
    };
    plan.stages.iter().enumerate().map(line).collect()
}

#[test]
fn stages_come_in_the_order_in_which_they_need_each_other() {
    let plan = plan(&suite(), &facts());
    assert_eq!(
        outline(&plan),
        [
            "0 dense / arc_easy",
            "1 dense / text:/data/My Text.txt:seqlen=16",
            "2 dense / profile",
            "3 rtn / compress",
            "4 rtn / arc_easy <- 3",
            "5 rtn / text:/data/My Text.txt:seqlen=16 <- 3",
            "6 rtn / profile <- 3",
            "7 gptq / compress",
            "8 gptq / arc_easy <- 7",
            "9 gptq / text:/data/My Text.txt:seqlen=16 <- 7",
            "10 gptq / profile <- 7",
        ]
    );
    assert!(plan.problems.is_empty());
    let mut keys: Vec<&str> = plan.stages.iter().map(|s| s.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 11, "every stage has a key of its own");
    for stage in &plan.stages {
        let fine = stage
            .directory
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
        assert!(fine && stage.directory.ends_with(&stage.key[..12]), "{}", stage.directory);
    }
}

#[test]
fn compressed_models_are_compared_with_the_dense_one_on_every_text() {
    let mut facts = facts();
    facts.tasks[1].as_mut().unwrap().seqlen = Some(16);
    let mut suite = Suite { profile: false, methods: vec![suite().methods.remove(0)], ..suite() };
    let compared = |suite: &Suite, facts: &Facts| -> Vec<super::plan::PlannedStage> {
        let stages = plan(suite, facts).stages;
        stages.into_iter().filter(|stage| stage.kind == StageKind::Diverge).collect()
    };
    let before = compared(&suite, &facts);
    assert_eq!(before.len(), 1);
    assert_eq!(before[0].label, "rtn / text:/data/My Text.txt:seqlen=16 against dense");
    assert_eq!((before[0].needs, before[0].method, before[0].task), (Some(2), Some(0), Some(1)));
    let print = |facts: &mut Facts, text: &str| {
        facts.tasks[1].as_mut().unwrap().fingerprints = vec![text.into()];
        compared(&suite, facts)[0].key.clone()
    };
    let text = print(&mut facts, "another text");
    facts.models[0].as_mut().unwrap().sha256 = "another model".into();
    let keys = [&before[0].key, &text, &compared(&suite, &facts)[0].key.clone()];
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2], "{keys:?}");
    suite.dense = false;
    assert!(compared(&suite, &facts).is_empty());
}

#[test]
fn what_cannot_be_had_blocks_its_own_stages_only() {
    let mut facts = facts();
    facts.methods[0] = Err("plugin rtn: no".into());
    facts.tasks[1] = Err("task: no data".into());
    let suite = Suite { profile: false, ..suite() };
    let plan = plan(&suite, &facts);
    assert_eq!(
        outline(&plan),
        [
            "0 dense / arc_easy",
            "1 dense / text:/data/My Text.txt:seqlen=16 [failed: task: no data]",
            "2 rtn / compress [failed: plugin rtn: no]",
            "3 rtn / arc_easy <- 2 [skipped: there is no checkpoint: plugin rtn: no]",
            "4 rtn / text:/data/My Text.txt:seqlen=16 <- 2 [skipped: there is no checkpoint: plugin rtn: no]",
            "5 gptq / compress",
            "6 gptq / arc_easy <- 5",
            "7 gptq / text:/data/My Text.txt:seqlen=16 <- 5 [failed: task: no data]",
        ]
    );
    assert_eq!(plan.problems, ["plugin rtn: no", "task: no data"]);
}

#[test]
fn a_backend_without_a_runner_is_skipped() {
    let mut facts = facts();
    facts.backends[0] = Ok(backend("candle", &["engine"]));
    let plan = plan(&Suite { methods: Vec::new(), profile: false, ..suite() }, &facts);
    assert!(
        plan.stages
            .iter()
            .all(|s| matches!(&s.blocked, Some((Status::Skipped, why)) if why.contains("no runner")))
    );
}

/// Keys of all stages of a suite.
fn keys(suite: &Suite, facts: &Facts) -> Vec<String> {
    plan(suite, facts).stages.into_iter().map(|s| s.key).collect()
}

fn changed(suite: &Suite, facts: &Facts) -> Vec<usize> {
    let (before, after) = (keys(&self::suite(), &self::facts()), keys(suite, facts));
    (0..before.len()).filter(|i| before[*i] != after[*i]).collect()
}

#[test]
fn a_key_changes_with_what_decides_the_result_and_with_nothing_else() {
    let all: Vec<usize> = (0..11).collect();
    let fact = |f: &mut Result<PluginFact, String>, change: fn(&mut PluginFact)| {
        if let Ok(f) = f {
            change(f);
        }
    };
    let cases: Vec<(&str, Box<dyn Fn(&mut Suite, &mut Facts)>, Vec<usize>)> = vec![
        ("nothing", Box::new(|_, _| ()), vec![]),
        ("seed", Box::new(|s, _| s.seeds = vec![5]), (0..=10).collect()),
        ("model", Box::new(|_, f| f.models[0].as_mut().unwrap().sha256 = "x".into()), all.clone()),
        ("model's path", Box::new(|_, f| f.models[0].as_mut().unwrap().path = "/x".into()), vec![]),
        (
            "method's file",
            Box::new(move |_, f| fact(&mut f.methods[0], |m| m.sha256 = "x".into())),
            vec![3, 4, 5, 6],
        ),
        (
            "method's options",
            Box::new(move |_, f| fact(&mut f.methods[1], |m| m.options = BTreeMap::new())),
            vec![7, 8, 9, 10],
        ),
        (
            "runner's options",
            Box::new(move |_, f| {
                fact(&mut f.backends[0], |b| drop(b.options.insert("runner".into(), Map::new())))
            }),
            vec![0, 1, 2, 4, 5, 6, 8, 9, 10],
        ),
        (
            "engine's file",
            Box::new(|_, f| f.engine.as_mut().unwrap().as_mut().unwrap().1.sha256 = "x".into()),
            vec![3, 4, 5, 6, 7, 8, 9, 10],
        ),
        ("task", Box::new(|_, f| f.tasks[0].as_mut().unwrap().fingerprints[0] = "x".into()), vec![0, 4, 8]),
        (
            "text",
            Box::new(|_, f| f.text.as_mut().unwrap().as_mut().unwrap().sha256 = "x".into()),
            vec![2, 6, 7, 8, 9, 10],
        ),
        ("windows", Box::new(|s, _| s.calibration.windows = 3), vec![7, 8, 9, 10]),
        ("length", Box::new(|s, _| s.calibration.length = 3), vec![7, 8, 9, 10]),
        ("workload", Box::new(|s, _| s.workloads[0].batch = 3), vec![2, 6, 10]),
        ("threads", Box::new(|_, f| f.threads = 1), vec![2, 6, 10]),
        ("machine", Box::new(|_, f| f.machine = "other".into()), vec![2, 6, 10]),
        ("labels", Box::new(|s, _| s.methods[0].label = "other".into()), vec![]),
        ("output", Box::new(|s, _| s.out = "/elsewhere".into()), vec![]),
        ("limits", Box::new(|s, _| (s.hang_limit_seconds, s.memory_limit_bytes) = (1, Some(2))), vec![]),
    ];
    for (what, change, expected) in cases {
        let (mut suite, mut facts) = (suite(), facts());
        change(&mut suite, &mut facts);
        assert_eq!(changed(&suite, &facts), expected, "{what}");
    }
}

#[test]
fn a_key_is_the_same_on_every_machine_and_day() {
    let part = |name: &str| PluginPart {
        sha256: name.into(),
        options: object(json!({ "b": 1, "a": 0.1 })),
        library: None,
    };
    let inputs = Inputs::Compress {
        model: "m".into(),
        engine: part("e"),
        method: part("x"),
        calibration: Some(CalibrationPart { sha256: "t".into(), windows: 1, length: 2 }),
        seed: 3,
    };
    assert_eq!(
        canonical(&json!({ "z": [1, { "y": null, "x": "é\"" }], "a": 0.1 })),
        "{\"a\":0.1,\"z\":[1,{\"x\":\"é\\\"\",\"y\":null}]}"
    );
    assert_eq!(inputs.key(), inputs.clone().key());
    assert_eq!(inputs.key().len(), 64);
}

#[test]
fn options_go_to_the_role_that_knows_them() {
    let mut descriptor = Descriptor::backend("b", "B", "1");
    descriptor.roles = vec![
        role("engine", json!({ "device": {}, "dtype": {} })),
        role("runner", json!({ "device": {}, "batch": {} })),
    ];
    let split = split_options(&descriptor, &object(json!({ "device": "cpu", "batch": 3 }))).unwrap();
    assert_eq!(split["engine"], object(json!({ "device": "cpu" })));
    assert_eq!(split["runner"], object(json!({ "device": "cpu", "batch": 3 })));
    let error = split_options(&descriptor, &object(json!({ "devise": 1 }))).unwrap_err();
    assert_eq!(error, "no option is called `devise`; did you mean `device`?");
}

#[test]
fn contradictory_suites_are_refused_in_words() {
    let faults = |change: fn(&mut Suite)| {
        let mut suite = suite();
        change(&mut suite);
        suite.faults().join("\n")
    };
    assert_eq!(faults(|_| ()), "");
    let cases: [(fn(&mut Suite), &str); 7] = [
        (|s| s.models.clear(), "no model"),
        (|s| (s.methods.clear(), s.dense = false).1, "neither a method nor the dense model"),
        (|s| s.backends.clear(), "no backend"),
        (|s| s.limit = Some(0), "--limit 0"),
        (|s| s.calibration.windows = 0, "calibration"),
        (|s| s.methods[1].label = "rtn".into(), "two methods are labelled `rtn`"),
        (|s| s.methods[1].label = "dense".into(), "names the uncompressed model"),
    ];
    for (change, says) in cases {
        assert!(faults(change).contains(says), "{says}");
    }
}

#[test]
fn suites_are_read_with_defaults() {
    let suite: Suite = serde_json::from_value(json!({ "models": ["m"], "out": "o" })).unwrap();
    assert!(suite.dense && suite.seeds == [1234] && suite.hang_limit_seconds == 600);
    assert_eq!((suite.calibration.windows, suite.calibration.length), (16, 512));
}

fn result(key: &str) -> StageResult {
    serde_json::from_value(json!({
        "schema_version": SCHEMA_VERSION, "key": key, "kind": "evaluate", "status": "done", "label": "l",
        "metrics": [{ "task": "t", "name": "acc", "value": 0.25, "n": 4, "higher_is_better": true, "unit": "fraction" },
                    { "task": "t", "name": "perplexity", "value": "inf", "n": 4, "higher_is_better": false, "unit": "" }],
    }))
    .unwrap()
}

/// Takes a stage through its life, stopping after `steps` steps as a kill would.
fn live(store: &Store, key: &str, steps: usize) {
    let name = "evaluate-x";
    if steps < 1 {
        return;
    }
    let (partial, _) = store.begin(name, key).unwrap();
    if steps < 2 {
        return;
    }
    std::fs::write(partial.join("items.jsonl"), "{}\n").unwrap();
    if steps < 3 {
        return;
    }
    // A kill within the commit: the result is there under its temporary name, then under its own, in the unfinished directory.
    std::fs::write(partial.join(".new-abc"), "{\"schema_ver").unwrap();
    if steps < 4 {
        return;
    }
    let mut finished = result(key);
    finished.files = vec!["items.jsonl".into()];
    std::fs::write(partial.join("result.json"), serde_json::to_vec(&finished).unwrap()).unwrap();
    if steps < 5 {
        return;
    }
    store.commit(name, &mut finished).unwrap();
}

#[test]
fn killed_at_any_moment_a_stage_is_whole_or_not_there() {
    for steps in 0..=5 {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        live(&store, "k1", steps);
        let found = store.find("evaluate-x", "k1");
        assert_eq!(found.is_some(), steps == 5, "after {steps} steps");
        // The next run goes on and ends well, whatever was left.
        live(&store, "k1", 5);
        let found = store.find("evaluate-x", "k1").unwrap();
        assert!(found.files.contains(&"items.jsonl".to_owned()));
        assert!(!store.partial("evaluate-x").exists());
    }
}

#[test]
fn what_an_interrupted_attempt_left_is_kept_for_the_same_key_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (partial, resumed) = store.begin("s", "k1").unwrap();
    assert!(!resumed);
    std::fs::write(partial.join("blocks"), "x").unwrap();
    assert!(store.begin("s", "k1").unwrap().1);
    assert!(partial.join("blocks").exists());
    assert!(!store.begin("s", "k2").unwrap().1);
    assert!(!partial.join("blocks").exists());
}

#[test]
fn damaged_results_count_as_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("torn", |d| std::fs::write(d.join("result.json"), "{\"schema_version\": 1, \"key").unwrap()),
        ("gone", |d| std::fs::remove_file(d.join("result.json")).unwrap()),
        ("file gone", |d| std::fs::remove_file(d.join("items.jsonl")).unwrap()),
        ("other version", |d| {
            let text = std::fs::read_to_string(d.join("result.json")).unwrap();
            std::fs::write(
                d.join("result.json"),
                text.replace("\"schema_version\": 1", "\"schema_version\": 99"),
            )
            .unwrap();
        }),
        ("failed", |d| {
            let text = std::fs::read_to_string(d.join("result.json")).unwrap();
            std::fs::write(d.join("result.json"), text.replace("\"done\"", "\"failed\"")).unwrap();
        }),
    ];
    for (what, damage) in damages {
        live(&store, "k", 5);
        let directory = store.directory("evaluate-x");
        assert!(store.find("evaluate-x", "k").is_some());
        assert!(store.find("evaluate-x", "other").is_none());
        damage(&directory);
        assert!(store.find("evaluate-x", "k").is_none(), "{what}");
    }
    live(&store, "k", 5);
    assert!(store.find("evaluate-x", "k").is_some());
}

#[test]
fn a_checkpoint_of_which_a_file_is_missing_or_cut_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (partial, _) = store.begin("c", "k").unwrap();
    std::fs::create_dir(partial.join("checkpoint")).unwrap();
    std::fs::write(partial.join("checkpoint/w"), [0; 10]).unwrap();
    let mut done = result("k");
    let info = CheckpointInfo { files: vec![("w".into(), 10)], ..CheckpointInfo::default() };
    done.checkpoint = Some(CheckpointRecord { path: "checkpoint".into(), info });
    store.commit("c", &mut done).unwrap();
    assert!(store.find("c", "k").is_some());
    std::fs::write(store.directory("c").join("checkpoint/w"), [0; 9]).unwrap();
    assert!(store.find("c", "k").is_none());
}

#[test]
fn two_runs_cannot_share_a_result_directory() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }));
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(first);
    assert!(Store::open(folder.path()).is_ok());
}

#[test]
fn an_output_folder_that_cannot_be_made_is_named_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Store::open(&file.join("out")).unwrap_err().to_string();
    assert!(error.contains("file") && error.contains("--out"), "{error}");
    let error = Store::open(Path::new("/proc/no/such/place")).unwrap_err().to_string();
    assert!(error.contains("/proc/no/such/place"), "{error}");
}

#[test]
fn a_full_disk_has_a_way_out() {
    let error = StoreError::Io {
        action: "write",
        path: "/out/run.json".into(),
        source: std::io::Error::from_raw_os_error(28),
    };
    let text = error.to_string();
    assert!(text.contains("/out/run.json") && text.contains("free some space"), "{text}");
}

#[test]
fn a_write_that_fails_leaves_what_was_there_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.json");
    super::store::write_atomically(&file, b"old").unwrap();
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    // The last step fails: a directory has the name.
    assert!(super::store::write_atomically(&folder.path().join("taken"), b"new").is_err());
    assert!(super::store::write_atomically(&folder.path().join("missing/run.json"), b"new").is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing half-written is left");
}

#[test]
fn results_come_back_as_they_were() {
    let one = result("k");
    assert!(one.metrics[1].metric.value.is_infinite());
    let back: StageResult = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
    assert_eq!(back, one);
}

#[test]
fn results_fit_the_schema_that_is_generated_from_them() {
    let faults = |schema: serde_json::Value, value: &serde_json::Value| -> Vec<String> {
        let validator = jsonschema::validator_for(&schema).unwrap();
        validator.iter_errors(value).map(|e| e.to_string()).collect()
    };
    let stage = serde_json::to_value(result("k")).unwrap();
    assert_eq!(faults(json_schema::<StageResult>("s"), &stage), [""; 0]);
    let run = RunResult {
        schema_version: SCHEMA_VERSION,
        host_version: "0".into(),
        abi_version: "1.0".into(),
        suite: suite(),
        inputs: super::result::Inputs::default(),
        machine: super::machine::describe(),
        started_unix: 0.0,
        wall_seconds: 1.0,
        complete: true,
        interrupted: false,
        cells: Vec::new(),
        overall: Vec::new(),
        problems: Vec::new(),
    };
    let value = serde_json::to_value(&run).unwrap();
    assert_eq!(faults(json_schema::<RunResult>("r"), &value), [""; 0]);
    assert_ne!(faults(json_schema::<RunResult>("r"), &json!({ "schema_version": 1 })), [""; 0]);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.write_run(&run).unwrap();
    assert_eq!(read_run(folder.path()).unwrap(), run);
    std::fs::write(folder.path().join("run.json"), "{").unwrap();
    assert!(read_run(folder.path()).unwrap_err().to_string().contains("run.json"));
}

#[test]
fn with_several_seeds_methods_are_run_with_each_and_the_dense_model_where_seeds_decide() {
    let mut suite = suite();
    suite.methods.truncate(1);
    suite.tasks.truncate(1);
    suite.profile = false;
    suite.seeds = vec![1, 2];
    let mut facts = facts();
    facts.tasks.iter_mut().flatten().for_each(|task| task.fingerprints.push(format!("2 {}", task.name)));
    let one_dense = [
        "0 dense / arc_easy",
        "1 rtn / seed 1 / compress",
        "2 rtn / seed 1 / arc_easy <- 1",
        "3 rtn / seed 2 / compress",
        "4 rtn / seed 2 / arc_easy <- 3",
    ];
    assert_eq!(outline(&plan(&suite, &facts)), one_dense);
    suite.shots = 2;
    assert_eq!(
        outline(&plan(&suite, &facts))[..2],
        ["0 dense / seed 1 / arc_easy", "1 dense / seed 2 / arc_easy"]
    );
}

#[test]
fn exit_codes() {
    let summary = |status| StageSummary {
        key: String::new(),
        kind: StageKind::Evaluate,
        label: String::new(),
        task: None,
        metric: None,
        status: Some(status),
        reason: None,
        reused: false,
        wall_seconds: 0.0,
        cpu_seconds: 0.0,
        peak_memory_bytes: 0,
        gpu_peak_memory_bytes: 0,
        directory: PathBuf::new(),
    };
    let code = |status, interrupted, problems: &[&str]| {
        let cell = Cell {
            paired: Vec::new(),
            agreement: Vec::new(),
            model: String::new(),
            method: String::new(),
            backend: String::new(),
            stages: vec![summary(Status::Done), summary(status)],
            metrics: Vec::new(),
            checkpoint: None,
            weight_bytes: 0,
            macs: None,
            profiles: Vec::new(),
            seed: 0,
        };
        RunResult {
            schema_version: SCHEMA_VERSION,
            host_version: String::new(),
            abi_version: String::new(),
            suite: suite(),
            inputs: super::result::Inputs::default(),
            machine: Machine::default(),
            started_unix: 0.0,
            wall_seconds: 0.0,
            complete: true,
            interrupted,
            cells: vec![cell],
            overall: Vec::new(),
            problems: problems.iter().map(|p| (*p).to_owned()).collect(),
        }
        .exit_code()
    };
    assert_eq!(code(Status::Done, false, &[]), 0);
    assert_eq!(code(Status::Skipped, false, &[]), 0);
    assert_eq!(code(Status::Failed, false, &[]), 1);
    assert_eq!(code(Status::Done, false, &["x"]), 1);
    assert_eq!(code(Status::Failed, true, &[]), 130);
}

#[test]
fn hashes_follow_the_contents() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("hashes");
    let hashes = FileHashes::new(Some(cache.clone()));
    let file = folder.path().join("f");
    std::fs::write(&file, "abc").unwrap();
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(hashes.file(&file).unwrap(), abc);
    // Remembered once it is old enough that a change would show.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
    assert_eq!(hashes.file(&file).unwrap(), abc);
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1);
    assert_eq!(hashes.file(&file).unwrap(), abc);
    std::fs::write(&file, "abd").unwrap();
    assert_ne!(hashes.file(&file).unwrap(), abc);

    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    assert!(hashes.model(&model).is_err());
    std::fs::write(model.join("a"), "1").unwrap();
    let first = hashes.model(&model).unwrap();
    std::fs::rename(model.join("a"), model.join("b")).unwrap();
    assert_ne!(hashes.model(&model).unwrap(), first);
}
