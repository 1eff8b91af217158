//! `compare`: two runs against each other.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::failure::Failure;
use super::output;
use crate::report::numbers::score;
use crate::report::text_table::TextTable;
use crate::suite::comparison::{Comparison, Difference, compare};

const EXAMPLES: &str = "\
Examples:
  llmcb-host compare results-monday results-tuesday
  llmcb-host compare results-a results-b --json

Exit codes: 0 compared, 2 a directory holds no run";

/// Compare two runs: settings that differ, and results on the same items
///
/// Where both runs have the items of a task, each metric is compared item by item: a difference that the items do not tell from chance is
/// marked with ~ (McNemar's exact test at 5 %; where items are not right or wrong, 2 standard errors of the difference).
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct CompareCommand {
    /// The first run's result directory
    first: PathBuf,
    /// The second run's
    second: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(command: &CompareCommand) -> Result<ExitCode, Failure> {
    let comparison = compare(&command.first, &command.second).map_err(Failure::usage)?;
    if command.json {
        output::json(&comparison)?;
    } else {
        output::data(&render(&comparison, output::width()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn row(difference: &Difference) -> Vec<String> {
    let change = difference.second - difference.first;
    let better = (change > 0.0) == difference.higher_is_better;
    let word = match &difference.paired {
        _ if change == 0.0 => "same",
        Some(paired) if !paired.told_apart => "~",
        Some(_) if better => "better",
        Some(_) => "worse",
        None => "?",
    };
    let paired = difference.paired.as_ref();
    let flips = paired.and_then(|p| Some(format!("{} / {}", p.right_to_wrong?, p.wrong_to_right?)));
    let p_value =
        paired.and_then(|p| p.p_value).map(|p| if p < 0.001 { "<0.001".into() } else { format!("{p:.3}") });
    let [model, method, backend] = &difference.cell;
    vec![
        format!("{model} / {method} / {backend}"),
        difference.task.clone(),
        difference.metric.clone(),
        score(difference.first),
        score(difference.second),
        format!("{}{}", if change >= 0.0 { "+" } else { "" }, score(change)),
        paired.map_or_else(|| "-".into(), |p| p.n.to_string()),
        flips.unwrap_or_else(|| "-".into()),
        p_value.unwrap_or_else(|| "-".into()),
        word.into(),
    ]
}

/// A comparison as text.
pub(super) fn render(comparison: &Comparison, width: usize) -> String {
    let mut text = String::new();
    let titles = |titles: &[&str]| titles.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    if comparison.settings.is_empty() {
        text.push_str("settings: all the same\n");
    } else {
        let rows = comparison.settings.iter();
        let rows =
            rows.map(|s| vec![s.name.clone(), shown(s.first.as_ref()), shown(s.second.as_ref())]).collect();
        text.push_str(
            &TextTable { header: titles(&["setting", "first", "second"]), rows, keys: 1 }.render(width),
        );
    }
    if !comparison.differences.is_empty() {
        let header = titles(&[
            "cell",
            "task",
            "metric",
            "first",
            "second",
            "second\nless first",
            "items",
            "right to wrong /\nwrong to right",
            "p",
            "second is",
        ]);
        let rows = comparison.differences.iter().map(row).collect();
        text.push('\n');
        text.push_str(&TextTable { header, rows, keys: 3 }.render(width));
        text.push_str("~ not told apart on the same items\n");
    }
    for note in &comparison.notes {
        text.push_str(&format!("{note}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Paired;
    use crate::suite::comparison::Setting;

    #[test]
    fn what_differs_is_said_and_noise_is_marked() {
        let paired = |metric: &str, p: Option<f64>, told_apart: bool| Paired {
            metric: metric.into(),
            n: 200,
            difference: -0.05,
            stderr: Some(0.01),
            right_to_wrong: p.map(|_| 14),
            wrong_to_right: p.map(|_| 4),
            p_value: p,
            told_apart,
        };
        let difference = |task: &str, metric: &str, values: [f64; 2], paired: Option<Paired>| Difference {
            cell: ["smollm2".into(), "gptq-bits=4".into(), "candle".into()],
            task: task.into(),
            metric: metric.into(),
            first: values[0],
            second: values[1],
            higher_is_better: metric != "perplexity",
            paired,
        };
        let comparison = Comparison {
            settings: vec![
                Setting { name: "suite.seed".into(), first: Some(1234.into()), second: Some(7.into()) },
                Setting { name: "suite.limit".into(), first: None, second: Some(Value::from("all")) },
            ],
            differences: vec![
                difference("arc_easy", "acc", [0.5, 0.45], Some(paired("acc", Some(0.0309), true))),
                difference("piqa", "acc", [0.61, 0.6], Some(paired("acc", Some(0.4), false))),
                difference("wikitext2", "perplexity", [20.25, 19.5], Some(paired("perplexity", None, true))),
                difference("mmlu", "acc", [0.25, 0.25], None),
                difference("qnli", "acc", [0.25, 0.26], None),
            ],
            notes: vec!["only in the second: smollm2 / awq / candle".into()],
        };
        insta::assert_snapshot!(render(&comparison, 150));
        let same = Comparison { settings: Vec::new(), differences: Vec::new(), notes: Vec::new() };
        assert_eq!(render(&same, 80), "settings: all the same\n");
    }
}
