//! `score`: overall metrics of a table of raw numbers.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::failure::Failure;
use super::output;
use crate::report::text_table::TextTable;
use crate::tracks::{Om, ScoreTableOptions, TableScore, score_table};

const EXAMPLES: &str = "\
The table is CSV with the columns method, setting (may be left out), model and the track's columns, or JSON: a list of \
{\"method\": ..., \"setting\": ..., \"models\": {MODEL: {COLUMN: NUMBER}}}. One row per model must be the dense model's.

  method,setting,model,MMLU,ARC-c,WikiText2
  Dense,,LLaMA2-7B,45.9,46.3,5.47
  GPTQ,W4,LLaMA2-7B,44.1,45.0,5.83

Examples:
  llmcb-host score table.csv
  llmcb-host score table.json --track 1 --dense 'Full Prec.' --json

Exit codes: 0 scored, 2 the table cannot be scored";

/// Compute LLMCBench's overall metrics (OM) of a table of raw numbers
///
/// OM = 100 * sqrt(mean of ratio^2) over every task and model, a ratio of 1 being the dense model; 100 is as good as dense.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ScoreCommand {
    /// The table, CSV or JSON
    table: PathBuf,
    /// The track: 1 (performance), 2 (generalisation), 4 (inference cost), 5 (hardware) or 6 (trust); found from the columns if left out
    #[arg(long, value_name = "N")]
    track: Option<u8>,
    /// Name of the dense row; if left out: Dense, Full Prec., Full-Precision or FP16
    #[arg(long, value_name = "NAME")]
    dense: Option<String>,
    /// Print how each overall metric comes about, too
    #[arg(long)]
    formulas: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(command: &ScoreCommand) -> Result<ExitCode, Failure> {
    let options = ScoreTableOptions { track: command.track, dense: command.dense.clone() };
    let scores = score_table(&command.table, &options).map_err(Failure::usage)?;
    if command.json {
        output::json(&scores)?;
    } else {
        output::data(&render(&scores, output::width()))?;
        if command.formulas {
            output::data(&formulas(scores.iter().flat_map(|score| &score.oms)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The formulas of overall metrics, each once.
pub(super) fn formulas<'a>(oms: impl Iterator<Item = &'a Om>) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for om in oms {
        if !om.formula.is_empty() && !lines.contains(&om.formula.as_str()) {
            lines.push(&om.formula);
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn render(scores: &[TableScore], width: usize) -> String {
    let mut text = String::new();
    let mut gaps: Vec<String> = Vec::new();
    let mut tracks: Vec<u8> = scores.iter().map(|s| s.track).collect();
    tracks.dedup();
    for track in tracks {
        let rows: Vec<&TableScore> = scores.iter().filter(|s| s.track == track).collect();
        let names: Vec<&str> =
            rows.first().map(|s| s.oms.iter().map(|om| om.name.as_str()).collect()).unwrap_or_default();
        let published = |name: &str| rows.iter().any(|row| row.published.contains_key(name));
        let mut header = vec![format!("track {track}\nmethod"), "\nsetting".to_owned()];
        for name in &names {
            header.push(format!("\n{name} ↑"));
            if published(name) {
                header.push(format!("{name}\nas stated"));
            }
        }
        let mut lines = Vec::new();
        for row in &rows {
            let mut line = vec![row.method.clone(), row.setting.clone()];
            for name in &names {
                let om = row.oms.iter().find(|om| om.name == *name);
                let mark = if om.is_some_and(|om| !om.not_measured.is_empty()) { " *" } else { "" };
                line.push(match om.and_then(|om| om.value) {
                    Some(value) => format!("{value:.2}{mark}"),
                    None => "-".into(),
                });
                if published(name) {
                    line.push(
                        row.published.get(*name).map_or_else(|| "-".into(), |value| format!("{value:.2}")),
                    );
                }
            }
            lines.push(line);
            for gap in row.oms.iter().flat_map(|om| &om.not_measured) {
                if !gaps.contains(gap) {
                    gaps.push(gap.clone());
                }
            }
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&TextTable { header, rows: lines, keys: 2 }.render(width));
    }
    if !gaps.is_empty() {
        text.push_str(&format!("* over a part of the track; not in the table: {}\n", gaps.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracks::score_csv;

    #[test]
    fn a_table_is_scored() {
        let csv = "method,setting,model,MMLU,ARC-c,WikiText2\nDense,,a,50,40,5\nGPTQ,W4,a,45,40,6\nGPTQ,W2,a,,10,1000\n";
        let scores = score_csv(csv, "t.csv", &ScoreTableOptions::default()).expect("scores");
        insta::assert_snapshot!(render(&scores, 100));
    }
}
