//! Reports of runs that ended, go on or were killed; leaderboards; runs again from their results.

use std::path::Path;

use llmcb_tests::artifacts;
use llmcb_tests::results::{Results, files_below, json};
use llmcb_tests::sandbox::Sandbox;
use serde_json::Value;

const FURTHER: [&str; 6] =
    ["--method", "rtn:group_size=32", "--tasks", "arc_easy,wikitext2:seqlen=64", "--limit", "4"];

fn finished_run() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.run(&sandbox.run_arguments("out", &FURTHER)).expect_code(0);
    sandbox
}

#[test]
fn a_run_is_reported_in_every_format() {
    let sandbox = finished_run();
    let table = std::fs::read_to_string(sandbox.path("out/table.txt")).expect("table");
    let report = |format: &str| sandbox.run(&["report", "out", "--format", format]).expect_code(0).stdout;
    assert_eq!(report("table"), table);
    assert_eq!(report("csv"), std::fs::read_to_string(sandbox.path("out/results.csv")).expect("CSV"));
    let run: Value = serde_json::from_str(&report("json")).expect("JSON");
    assert_eq!(run, json(&sandbox.path("out/run.json")));
    let markdown = report("markdown");
    assert!(markdown.starts_with("| method |") && markdown.contains("| rtn g32 |"), "{markdown}");
    let latex = report("latex");
    assert!(latex.contains("\\begin{tabular}{lr") && latex.contains("rtn g32 &"), "{latex}");
    let formulas = sandbox.run(&["report", "out", "--formulas"]).expect_code(0).stdout;
    assert!(formulas.contains("OM_perf = sqrt(mean of OM_ka^2, OM_ia^2)"), "{formulas}");

    sandbox.run(&["report", "out", "--format", "html", "--output", "page.html"]).expect_code(0);
    let page = std::fs::read_to_string(sandbox.path("page.html")).expect("page");
    let start = page.find("id=\"data\">").expect("data") + "id=\"data\">".len();
    let data = &page[start..start + page[start..].find("</script>").expect("the end of the data")];
    let data: Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(data["runs"][0], run);

    sandbox.run(&["report", "nowhere"]).expect_code(2).expect_message(&["nowhere", "run.json"]);
    sandbox
        .run(&["report", "out", "--output", "no/such/folder/file"])
        .expect_code(1)
        .expect_message(&["no/such/folder/file"]);
}

#[test]
fn a_run_that_was_killed_can_be_reported_and_says_so() {
    let sandbox = Sandbox::new();
    let plugin = artifacts::hostile("misbehave");
    let mut arguments =
        sandbox.run_arguments("out", &["--tasks", "arc_easy", "--method", "misbehave:mode=slow,seconds=2"]);
    arguments.extend(["--plugin".into(), plugin.display().to_string()]);
    let mut running = sandbox.start(sandbox.command(&arguments));
    let out = sandbox.out();
    running
        .wait_until("a finished block", || files_below(&out).iter().any(|f| f.ends_with("0000.safetensors")));
    running.kill_all();
    let report = sandbox.run(&["report", "out"]).expect_code(0).stdout;
    assert!(report.contains("has not come to its end") && report.contains("dense"), "{report}");
    let run = Results::read(&sandbox.out()).run;
    assert_eq!(run["complete"], false);
    let dense = &run["cells"][0]["metrics"];
    assert!(dense.as_array().is_some_and(|metrics| !metrics.is_empty()), "what was done is there: {run:#}");
}

#[test]
fn a_result_is_run_again_from_itself() {
    let sandbox = finished_run();
    let again = sandbox.run(&["reproduce", "out"]).expect_code(0);
    again.expect_message(&["reproduced:", "0 otherwise"]);
    let (first, second) = (Results::read(&sandbox.out()), Results::read(&sandbox.path("out-again")));
    assert_eq!(first.numbers(), second.numbers());
    assert!(second.stages().iter().all(|stage| !stage.reused), "nothing was taken over");

    // A number that does not come out again is told.
    let mut run = json(&sandbox.path("out/run.json"));
    let metric = &mut run["cells"][1]["metrics"][0];
    metric["value"] = (metric["value"].as_f64().expect("a number") + 0.25).into();
    let text = serde_json::to_vec(&run).expect("JSON");
    std::fs::write(sandbox.path("out/run.json"), text).expect("file");
    sandbox.run(&["reproduce", "out", "--out", "third"]).expect_code(1).expect_message(&["not reproduced"]);
    sandbox.run(&["reproduce", "out", "--out", "out"]).expect_code(2).expect_message(&["another folder"]);
    sandbox.run(&["reproduce", "nowhere"]).expect_code(2).expect_message(&["nowhere"]);
}

fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = json(file);
    change(&mut value);
    std::fs::write(file, serde_json::to_vec(&value).expect("JSON")).expect("file");
}

#[test]
fn a_leaderboard_merges_what_can_be_compared_and_refuses_the_rest() {
    let sandbox = finished_run();
    let other =
        ["--method", "magnitude:ratio=0.5", "--tasks", "arc_easy,wikitext2:seqlen=64", "--limit", "4"];
    sandbox.run(&sandbox.run_arguments("theirs", &other)).expect_code(0);
    let board = sandbox.run(&["leaderboard", "out", "theirs"]).expect_code(0).stdout;
    for part in ["result", "out", "theirs", "rtn g32", "magnitude 0.5", "dense"] {
        assert!(board.contains(part), "{part}: {board}");
    }
    assert!(
        !board.contains("OM_train ↑"),
        "what is relative to a run's own methods is not put beside others: {board}"
    );
    sandbox.run(&["leaderboard", "out", "theirs", "--format", "html", "--output", "b.html"]).expect_code(0);
    let csv = sandbox.run(&["leaderboard", "out", "theirs", "--format", "csv"]).expect_code(0).stdout;
    assert!(csv.starts_with("result,model,method") && csv.contains("\ntheirs,"), "{csv}");

    // Another machine: times are left out, and it is said.
    edit(&sandbox.path("theirs/run.json"), |run| run["machine"]["cpu"] = "Abacus".into());
    let board = sandbox.run(&["leaderboard", "out", "theirs"]).expect_code(0).stdout;
    assert!(board.contains("Abacus") && !board.contains("compress\n"), "{board}");

    // The same column from another task line: the overall metric is over other questions.
    let line =
        ["--method", "rtn:group_size=32", "--tasks", "arc_easy:limit=3,wikitext2:seqlen=64", "--limit", "4"];
    sandbox.run(&sandbox.run_arguments("line", &line)).expect_code(0);
    let board = sandbox.run(&["leaderboard", "out", "line"]).expect_code(0).stdout;
    assert!(board.contains("OM_perf is left out") && !board.contains("OM_perf ↑"), "{board}");

    // Other questions.
    let fewer = ["--tasks", "arc_easy,wikitext2:seqlen=64", "--limit", "3"];
    sandbox.run(&sandbox.run_arguments("fewer", &fewer)).expect_code(0);
    sandbox
        .run(&["leaderboard", "out", "fewer"])
        .expect_code(2)
        .expect_message(&["task arc_easy", "limit 4 there, 3 here"]);

    // Numbers that do not follow from their items, in the run alone and in both.
    edit(&sandbox.path("theirs/run.json"), |run| run["cells"][0]["metrics"][0]["value"] = 0.99.into());
    sandbox
        .run(&["leaderboard", "theirs"])
        .expect_code(2)
        .expect_message(&["theirs", "is not what its stages say"]);
    let results = Results::read(&sandbox.out());
    let stage = results.of("dense", "evaluate").remove(0);
    edit(&stage.folder.join("result.json"), |stage| stage["metrics"][0]["value"] = 0.99.into());
    sandbox
        .run(&["leaderboard", "out"])
        .expect_code(2)
        .expect_message(&["is stated as 0.99", "its items give"]);
    edit(&sandbox.path("fewer/run.json"), |run| run["schema_version"] = 99.into());
    sandbox.run(&["leaderboard", "fewer"]).expect_code(2).expect_message(&["version 99"]);
}
