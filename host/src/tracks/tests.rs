use super::*;
use std::collections::BTreeMap;

const TABLES: &str = include_str!("../../tests/golden/llmcbench_tables.json");

fn all() -> Vec<TableScore> {
    score_json(TABLES, "llmcbench_tables.json", &ScoreTableOptions::default()).unwrap()
}

fn value(score: &TableScore, name: &str) -> f64 {
    score.oms.iter().find(|om| om.name == name).and_then(|om| om.value).unwrap()
}

/// Rows of a track whose computed values leave the tolerance of what is published.
fn misses(number: u8, tolerance: impl Fn(f64) -> f64) -> (usize, Vec<String>) {
    let mut compared = 0;
    let mut misses = Vec::new();
    for score in all().iter().filter(|s| s.track == number) {
        assert!(!score.published.is_empty(), "{} states nothing", score.method);
        for (name, published) in &score.published {
            let own = value(score, name);
            compared += 1;
            if (own - published).abs() > tolerance(*published) {
                misses
                    .push(format!("{} {} {name}: {own:.2} against {published}", score.method, score.setting));
            }
        }
        assert!(score.oms.iter().all(|om| om.not_measured.is_empty()));
    }
    (compared, misses)
}

#[test]
fn track_1_comes_out_as_published_within_a_hundredth() {
    // 11 rows of three values: two dense rows, and the 27 of the compressed ones.
    assert_eq!(misses(1, |_| 0.0101), (33, vec![]));
}

#[test]
fn track_2_comes_out_as_published_but_for_omniquant() {
    let (compared, misses) = misses(2, |_| 0.0101);
    assert_eq!(compared, 8);
    assert_eq!(misses.len(), 1, "{misses:?}");
    assert!(misses[0].starts_with("OmniQuant"));
}

#[test]
fn the_paper_disagrees_with_itself_on_omniquants_om_gen_published_48_51_its_own_column_gives_43_97() {
    let all = all();
    let score = all.iter().find(|s| s.track == 2 && s.method == "OmniQuant").unwrap();
    assert_eq!(score.published["OM_gen"], 48.51);
    assert!((value(score, "OM_gen") - 43.97).abs() < 0.005, "{}", value(score, "OM_gen"));
}

#[test]
fn track_4_comes_out_as_published_within_seven_thousandths_because_macs_are_rounded() {
    assert_eq!(misses(4, |published| 0.007 * published), (11, vec![]));
}

#[test]
fn every_dense_row_scores_exactly_100() {
    for score in all().iter().filter(|s| s.method == "Dense" || s.method.starts_with("Full")) {
        for om in &score.oms {
            assert!((om.value.unwrap() - 100.0).abs() < 1e-9, "{score:?}");
        }
    }
}

const CSV: &str = "method,setting,model,MMLU,ARC-c,arc_easy,HellaSwag,PIQA,WinoGrande,QNLI,MNLI,WikiText2
Dense,0,LLaMA2-7B,40.52,46.33,74.58,75.98,79.11,69.06,50.53,44.31,5.12
Dense,0,LLaMA3-8B,61.38,53.5,77.74,79.12,80.69,73.24,50.86,63.48,5.54
Wanda,50%,LLaMA2-7B,29.67,42.75,69.07,70.78,76.66,68.9,50.67,35.28,6.46
Wanda,50%,LLaMA3-8B,40.59,44.97,68.18,68.23,76.01,70.17,50.6,54.57,8.61
";

#[test]
fn csv_gives_the_same_numbers_as_json() {
    let rows = score_csv(CSV, "t.csv", &ScoreTableOptions::default()).unwrap();
    let json = all();
    let same = json.iter().find(|s| s.track == 1 && s.method == "Wanda" && s.setting == "50%").unwrap();
    assert_eq!(rows[1].oms, same.oms);
}

#[test]
fn tracks_are_found_from_columns() {
    for (text, number) in [
        ("method,model,wikitext2\nDense,a,5\nX,a,6\n", 2),
        ("method,model,ppl\nDense,a,5\nX,a,6\n", 2),
        ("method,model,MMLU,ppl\nDense,a,50,5\nX,a,40,6\n", 1),
        ("method,model,macs_t\nFP16,a,5\nX,a,6\n", 4),
    ] {
        let scores = score_csv(text, "t", &ScoreTableOptions::default()).unwrap();
        assert!(scores.iter().all(|s| s.track == number), "{text}");
    }
}

#[test]
fn what_was_not_measured_is_listed() {
    let text = "method,model,MMLU,HellaSwag,WikiText2\nDense,a,50,60,5\nDense,b,50,60,5\nX,a,40,-,6\n";
    let scores = score_csv(text, "t", &ScoreTableOptions::default()).unwrap();
    let x: BTreeMap<&str, &Om> = scores[1].oms.iter().map(|om| (om.name.as_str(), om)).collect();
    assert_eq!(x["OM_ka"].not_measured, ["MMLU on b", "ARC-c", "ARC-e"]);
    assert_eq!(x["OM_ka"].value, Some(80.0));
    assert_eq!(
        x["OM_ia"].not_measured,
        ["HellaSwag on a", "HellaSwag on b", "PIQA", "WinoGrande", "QNLI", "MNLI", "WikiText2 on b"]
    );
    assert_eq!(x["OM_perf"].not_measured.len(), 10);
    assert_eq!(x["OM_perf"].cells, 2);
}

#[test]
fn a_combination_is_given_only_where_every_part_is() {
    let cells = [Cell {
        column: "MMLU".to_owned(),
        model: "m".to_owned(),
        dense: Some(40.0),
        compressed: Some(20.0),
        resamples: Arc::default(),
    }];
    let oms = overall(&TRACKS[0], &cells).unwrap();
    assert_eq!(oms[0].value, Some(50.0));
    assert_eq!((oms[1].value, oms[1].cells), (None, 0));
    assert_eq!(oms[2].value, None);
}

#[test]
fn an_infinite_perplexity_counts_as_the_worst() {
    let text = "method,model,ppl\nDense,a,5\nX,a,inf\n";
    let scores = score_csv(text, "t", &ScoreTableOptions::default()).unwrap();
    assert_eq!(scores[1].oms[0].value, Some(0.0));
}

#[test]
fn bad_tables_are_refused_with_the_cause() {
    let default = ScoreTableOptions::default();
    let dense = ScoreTableOptions { dense: Some("base".to_owned()), ..default.clone() };
    for (text, options, says) in [
        ("", &default, "no column `method`"),
        ("a,b\n1,2\n", &default, "no column `method`"),
        ("method,MMLU\nDense,1\n", &default, "no column `model`"),
        ("method,model,MMLU\n", &default, "no rows"),
        ("method,model,MMLU\nX,a,1\n", &default, "no dense row"),
        ("method,model,MMLU\nDense,a,1\n", &dense, "no row is called `base`"),
        ("method,model,MMLU,HelaSwag\nDense,a,1,2\n", &default, "did you mean HellaSwag"),
        ("method,model,colour\nDense,a,1\n", &default, "is no column of a track"),
        ("method,model,MMLU\nDense,a,red\n", &default, "line 2, MMLU: `red` is not a number"),
        ("method,model,MMLU\nDense,a,0\nX,a,1\n", &default, "the dense model's number must be positive"),
        ("method,model,MMLU\nDense,a,1\nX,a,-3\n", &default, "must be a number from 0 on"),
        ("method,model,ppl\nDense,a,1\nX,a,0\n", &default, "must be positive, found 0"),
        ("method,model,MMLU\nDense,a,1\nX,a,1\nX,a,2\n", &default, "given twice"),
        ("method,model,MMLU\nDense,a,1,7\n", &default, "line 2"),
        ("method,model\nDense,a\n", &default, "holds no numbers"),
    ] {
        let error = score_csv(text, "t.csv", options).unwrap_err().to_string();
        assert!(error.contains(says), "{text:?}: {error}");
        assert!(error.starts_with("t.csv"), "{error}");
    }
    for (text, says) in [
        ("{", "is not JSON"),
        ("3", "expected a list"),
        ("{}", "expected a list of rows"),
        (r#"[{"setting":1}]"#, "row 1: `method` must be a string"),
        (r#"[{"method":"Dense","models":3}]"#, "`models` must be"),
        (r#"[{"method":"Dense","models":{"a":{"MMLU":[]}}}]"#, "row 1, a, MMLU: must be a number"),
        (r#"{"track2":{"models":{"a":3}}}"#, "t.json, track2, a: must be an object of methods"),
    ] {
        let error = score_json(text, "t.json", &default).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
    let other = ScoreTableOptions { track: Some(3), ..default };
    assert!(score_csv(CSV, "t", &other).unwrap_err().to_string().contains("track 3"));
}

#[test]
fn the_dense_row_can_be_named() {
    let options = ScoreTableOptions { dense: Some("Wanda 50%".to_owned()), ..ScoreTableOptions::default() };
    let rows = score_csv(CSV, "t", &options).unwrap();
    assert!((value(&rows[1], "OM_perf") - 100.0).abs() < 1e-9);
    assert!(value(&rows[0], "OM_perf") > 100.0);
}

#[test]
fn columns_name_tasks_and_metrics_that_there_are() {
    for column in TRACKS.iter().flat_map(|track| track.columns) {
        for (task, metric) in column.tasks {
            let task = crate::tasks::lookup(task).unwrap();
            let spec = task.spec();
            let kinds = ["acc", "acc_norm", "mass", "perplexity"];
            assert!(
                kinds.iter().any(|kind| spec.metric_name(kind) == Some(*metric)),
                "{} has no {metric}",
                spec.id
            );
        }
    }
}

#[test]
fn an_interval_holds_the_value_and_costs_have_none() {
    let cell = |column: &str, dense: f64, compressed: f64, spread: f64| Cell {
        column: column.to_owned(),
        model: "m".to_owned(),
        dense: Some(dense),
        compressed: Some(compressed),
        resamples: (0..1000).map(|i| [dense, compressed + spread * (f64::from(i) / 999.0 - 0.5)]).collect(),
    };
    let all = ["MMLU", "ARC-c", "ARC-e", "HellaSwag", "PIQA", "WinoGrande", "QNLI", "MNLI"];
    let mut cells: Vec<Cell> = all.iter().map(|column| cell(column, 0.5, 0.4, 0.1)).collect();
    cells.push(cell("WikiText2", 10.0, 12.5, 0.0));
    let oms = overall(&TRACKS[0], &cells).unwrap();
    assert_eq!(oms.len(), 3);
    for om in &oms {
        let interval = om.interval.unwrap();
        assert!(
            (om.value.unwrap() - 80.0).abs() < 1e-9 && interval.low < 80.0 && interval.high > 80.0,
            "{om:?}"
        );
        assert!(om.not_measured.is_empty());
    }
    // 95 % of a spread of 0.1 around 0.4, as a ratio to 0.5.
    let ka = oms[0].interval.unwrap();
    assert!((ka.high - ka.low - 0.95 * 100.0 * 0.1 / 0.5).abs() < 0.1, "{ka:?}");
    let mut costs = cell("macs_t", 2.0, 1.0, 0.0);
    costs.resamples = Arc::default();
    assert_eq!(overall(track(4).unwrap(), &[costs]).unwrap()[0].interval, None);
}

#[test]
fn formulas_are_said() {
    let text: Vec<String> = TRACKS
        .iter()
        .chain([&TRAINING])
        .flat_map(|track| track.oms.iter().chain(&track.combined).map(|om| track.formula(om)))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn one_unusable_number_of_a_run_is_named_and_the_others_count() {
    let cell = |column: &str, dense: f64, compressed: f64| Cell {
        column: column.to_owned(),
        model: "m".to_owned(),
        dense: Some(dense),
        compressed: Some(compressed),
        resamples: Arc::default(),
    };
    let cells = [cell("MMLU", 0.5, 0.4), cell("ARC-e", 0.0, 0.4), cell("WikiText2", 10.0, f64::NAN)];
    assert!(overall(&TRACKS[0], &cells).is_err());
    let oms = overall_of_run(&TRACKS[0], &cells);
    assert!((oms[0].value.unwrap() - 80.0).abs() < 1e-9, "{:?}", oms[0]);
    let gaps = oms[0].not_measured.join("; ");
    assert!(
        gaps.contains("ARC-c") && gaps.contains("ARC-e on m: the dense model's number must be positive"),
        "{gaps}"
    );
    assert_eq!(oms[1].value, None);
    assert!(oms[2].not_measured.iter().any(|gap| gap.starts_with("WikiText2 on m: ")), "{:?}", oms[2]);
}
