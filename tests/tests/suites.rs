//! Suite files, grids, seeds, and plans.

use llmcb_tests::artifacts;
use llmcb_tests::results::Results;
use llmcb_tests::sandbox::Sandbox;
use serde_json::Value;

/// Flags with everything that a suite can say.
const FURTHER: [&str; 16] = [
    "--method",
    "rtn:bits=3|4,group_size=32",
    "--method",
    "magnitude:ratio=0.5",
    "--tasks",
    "arc_easy,wikitext2:seqlen=64",
    "--limit",
    "4",
    "--seed",
    "3,5",
    "--workload",
    "batch=2,prompt=16,new=4,warm_up=0,repetitions=2",
    "--memory-limit",
    "8G",
    "--hang-limit",
    "5m",
];

#[test]
fn flags_and_the_suite_file_printed_from_them_mean_the_same() {
    let sandbox = Sandbox::new();
    let mut arguments = sandbox.run_arguments("out", &FURTHER);
    arguments.push("--print-suite".into());
    let printed = sandbox.run(&arguments).expect_code(0).stdout;
    assert!(!sandbox.out().exists(), "printing a suite runs nothing");
    std::fs::write(sandbox.path("suite.toml"), &printed).expect("suite file");
    let again = sandbox.run(&["run", "suite.toml", "--print-suite"]).expect_code(0).stdout;
    assert_eq!(printed, again);

    // The keys of all stages are the same, too; a flag goes before the file.
    let plan = |arguments: &[String]| -> Value {
        let finished = sandbox.run(arguments).expect_code(0);
        serde_json::from_str(&finished.stdout).expect("JSON")
    };
    let text = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let mut flags = sandbox.run_arguments("out", &FURTHER);
    flags[0] = "plan".into();
    flags.push("--json".into());
    let by_flags = plan(&flags);
    assert_eq!(by_flags["stages"], plan(&text(&["plan", "suite.toml", "--json"]))["stages"]);
    let keys = |plan: &Value| -> Vec<String> {
        plan["stages"].as_array().expect("stages").iter().map(|s| s["key"].to_string()).collect()
    };
    let limited = plan(&text(&["plan", "suite.toml", "--limit", "5", "--json"]));
    assert_ne!(keys(&by_flags), keys(&limited));
    assert_eq!(limited["suite"]["limit"], 5);
}

#[test]
fn every_seed_is_run_and_the_plan_knows_what_is_done() {
    let sandbox = Sandbox::new();
    let further: Vec<&str> = FURTHER[..12].to_vec();
    let arguments = sandbox.run_arguments("out", &further);
    let mut plan = arguments.clone();
    plan[0] = "plan".into();
    let before = sandbox.run(&plan).expect_code(0).stdout;
    assert!(before.contains("33 stages: 33 to do") && before.contains("~ rough"), "{before}");
    assert!(!sandbox.out().exists(), "a plan writes nothing");

    let table = sandbox.run(&arguments).expect_code(0).stdout;
    assert!(table.contains("seeds 3, 5") && table.contains("means over 2 seeds"), "{table}");
    let results = Results::read(&sandbox.out());
    let cells = results.run["cells"].as_array().expect("cells");
    let names: Vec<(String, u64)> = cells
        .iter()
        .map(|c| (c["method"].as_str().expect("text").to_owned(), c["seed"].as_u64().expect("a number")))
        .collect();
    let three = "rtn-bits=3-group_size=32";
    let four = "rtn-bits=4-group_size=32";
    let half = "magnitude-ratio=0.5";
    let expected = [("dense", 3), (three, 3), (three, 5), (four, 3), (four, 5), (half, 3), (half, 5)];
    assert_eq!(names, expected.map(|(name, seed)| (name.to_owned(), seed)));
    for cell in cells {
        assert_eq!(cell["profiles"].as_array().map(Vec::len), Some(1), "{cell:#}");
        assert!(cell["macs"]["raw"].as_f64().is_some_and(|raw| raw > 0.0), "{cell:#}");
    }
    assert!(cells[1]["macs"]["counted"].as_f64() < cells[0]["macs"]["counted"].as_f64());

    let after = sandbox.run(&plan).expect_code(0).stdout;
    assert!(after.contains("33 stages: 33 done"), "{after}");
}

#[test]
fn times_of_finished_stages_tell_those_of_later_ones() {
    let sandbox = Sandbox::new();
    let arguments = |limit: &str| {
        sandbox
            .run_arguments("out", &["--method", "rtn:group_size=32", "--tasks", "arc_easy", "--limit", limit])
    };
    sandbox.run(&arguments("4")).expect_code(0);
    let mut plan = arguments("5");
    plan[0] = "plan".into();
    plan.push("--json".into());
    let plan: Value = serde_json::from_str(&sandbox.run(&plan).expect_code(0).stdout).expect("JSON");
    let stages = plan["stages"].as_array().expect("stages");
    let facts = |at: usize| (stages[at]["done"].as_bool(), stages[at]["measured"].as_bool());
    assert_eq!(facts(0), (Some(false), Some(true)));
    assert_eq!(facts(1), (Some(true), Some(true)), "the checkpoint is made already");
    assert!(
        stages[0]["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0 && seconds < 60.0),
        "{:#}",
        stages[0]
    );
}

#[test]
fn the_papers_grid_can_be_planned_without_any_of_its_models() {
    let sandbox = Sandbox::new();
    let suite = artifacts::repository_file("suites/llmcbench.toml");
    let suite = suite.to_str().expect("text");
    let data = sandbox.data();
    let finished = sandbox.run(&["plan", suite, "--data", data.to_str().expect("text")]);
    // 18 models, dense and after 9 methods, on 11 tasks and 3 workloads; of each 9 compressions, and as many comparisons on the one text.
    assert!(
        finished.stdout.contains(&format!("{} stages", 18 * (10 * (11 + 3) + 2 * 9))),
        "{}",
        finished.stdout
    );
    for part in ["llama-65b / gptq 8-bit g128", "to fetch: 18 models", "opt-30b / dense", "of memory at most"]
    {
        assert!(finished.stdout.contains(part), "{part}: {}", finished.stdout);
    }
    // Models stream, but their checkpoints lie on disk all at once.
    finished.expect_code(1).expect_message(&["does not fit: checkpoints need about", "of disk"]);
    let little = ["plan", suite, "--data", data.to_str().expect("text"), "--memory-limit", "2G"];
    let finished = sandbox.run(&little).expect_code(1);
    finished.expect_message(&["does not fit: llama-65b: ", "of memory", "a worker may take 2.00 GiB"]);
    assert!(!sandbox.path("llmcb-results").exists());
}

#[test]
fn suite_files_that_are_wrong_are_refused_with_the_place() {
    let sandbox = Sandbox::new();
    for (text, parts) in [
        ("methods = [\"rtn:bits=4\"]\nlimits = 3\n", &["suite.toml, line 2", "unknown field `limits`"][..]),
        ("methods = [\"gptqq\"]\n", &["gptqq", "gptq"]),
        ("[[methods]]\nplugin = \"rtn\"\ngrid = { bits = 4 }\n", &["rtn", "grid.bits must be a list"]),
        ("methods = [\"rtn:bits=4|5|99\"]\n", &["rtn", "bits", "99"]),
        ("tasks = [\"arc_esy\"]\n", &["arc_esy", "arc_easy"]),
        ("hang_limit = \"soon\"\n", &["hang_limit", "10m"]),
        ("workloads = [\"batch=0\"]\n", &["batch=0"]),
        ("seeds = []\n", &["no seed"]),
        ("methods = [\"rtn:bits=4\", \"rtn:bits=4\"]\n", &["two methods are labelled"]),
    ] {
        std::fs::write(sandbox.path("suite.toml"), text).expect("suite file");
        let model = sandbox.model();
        let data = sandbox.data();
        let arguments = [
            "run",
            "suite.toml",
            "--model",
            model.to_str().expect("text"),
            "--data",
            data.to_str().expect("text"),
        ];
        sandbox.run(&arguments).expect_code(2).expect_message(parts);
    }
    sandbox.run(&["run", "nowhere.toml"]).expect_code(2).expect_message(&["nowhere.toml"]);
}
