//! The table in which a run ends, for a terminal.

use super::facts::Facts;
use super::grid::Grid;
use super::text_table::TextTable;
use crate::suite::result::RunResult;

/// The run as a table of at most `width` columns of text where that is possible, with notes below.
pub fn render(run: &RunResult, facts: &Facts, width: usize) -> String {
    render_grid(Grid::of(run, facts), width)
}

/// A grid as such a table.
pub fn render_grid(grid: Grid, width: usize) -> String {
    let Grid { header, rows, keys, notes } = grid;
    let mut text = TextTable { header, rows, keys }.render(width);
    for line in notes {
        text.push_str(&wrapped(&line, width));
    }
    text
}

/// Lines of at most `width` characters; what is continued is indented.
fn wrapped(line: &str, width: usize) -> String {
    let width = width.max(20);
    let mut text = String::new();
    let mut used = 0;
    for word in line.split(' ') {
        let n = word.chars().count();
        if used > 0 && used + 1 + n > width {
            text.push_str("\n  ");
            used = 2;
        } else if used > 0 {
            text.push(' ');
            used += 1;
        }
        text.push_str(word);
        used += n;
    }
    text.push('\n');
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use llmcb_plugin_api::sdk::ModelInfo;
    use serde_json::{Value, json};

    use super::*;
    use crate::suite::result::RunResult;

    fn score(task: &str, name: &str, value: f64, stderr: f64, n: usize) -> Value {
        json!({"task": task, "name": name, "value": value, "stderr": stderr, "n": n,
            "higher_is_better": name != "perplexity", "unit": ""})
    }

    fn stage(kind: &str, method: &str, task: Option<&str>, status: &str, reason: Option<&str>) -> Value {
        json!({"key": format!("{kind}{method}{}", task.unwrap_or("")), "kind": kind, "status": status, "reason": reason,
            "label": format!("{method} / candle / {}", task.unwrap_or(kind)), "task": task,
            "wall_seconds": 62.4, "peak_memory_bytes": 812_000_000})
    }

    fn cell(method: &str, stages: Vec<Value>, metrics: Vec<Value>, bytes: u64) -> Value {
        json!({"model": "smollm2-135m-instruct", "method": method, "backend": "candle", "stages": stages,
            "metrics": metrics, "weight_bytes": bytes})
    }

    /// A run with a dense model, a method that did well, one whose evaluation crashed, and one that does not do this.
    pub(crate) fn sample() -> RunResult {
        let (ppl, arc) = ("squad_passages", "arc_easy");
        let run = json!({
            "schema_version": 1, "host_version": "0.1.0", "abi_version": "1.0", "machine": {}, "started_unix": 0.0,
            "wall_seconds": 300.0, "complete": true,
            "suite": {"models": ["smollm2-135m-instruct"], "tasks": [ppl, arc], "seed": 7, "limit": 100,
                "calibration": {"text": "boolq_passages", "windows": 16, "length": 512}},
            "cells": [
                cell("dense",
                    vec![stage("evaluate", "dense", Some(ppl), "done", None), stage("evaluate", "dense", Some(arc), "done", None)],
                    vec![score(ppl, "perplexity", 17.046, 0.42, 20), score(arc, "acc", 0.51, 0.05, 100),
                        score(arc, "acc_norm", 0.46, 0.0498, 100)], 97_345_792),
                cell("gptq",
                    vec![stage("compress", "gptq", None, "done", None), stage("evaluate", "gptq", Some(ppl), "done", None),
                        stage("evaluate", "gptq", Some(arc), "done", None)],
                    vec![score(ppl, "perplexity", 21.5, 0.5, 20), score(arc, "acc_norm", 0.44, 0.049, 100)], 81_000_000),
                cell("wanda",
                    vec![stage("compress", "wanda", None, "done", None), stage("evaluate", "wanda", Some(ppl), "done", None),
                        stage("evaluate", "wanda", Some(arc), "failed", Some("the worker was killed by signal 9 (SIGKILL)"))],
                    vec![score(ppl, "perplexity", 19.0, 0.4, 20)], 97_345_792),
                cell("omni",
                    vec![stage("compress", "omni", None, "skipped", Some("needs gradients, which candle does not give")),
                        stage("evaluate", "omni", Some(ppl), "skipped", Some("its checkpoint was not made"))], vec![], 0),
            ],
            "overall": [{"track": 1, "method": "gptq", "backend": "candle", "name": "OM_ka", "value": 95.65, "cells": 1,
                "not_measured": ["MMLU", "ARC-c"]}],
        });
        serde_json::from_value(run).expect("a run")
    }

    fn facts() -> Facts {
        let info = ModelInfo {
            architecture: "LlamaForCausalLM".into(),
            parameters: 134_515_008,
            source_precision: "Q4_1".into(),
            source_format: "gguf".into(),
            ..ModelInfo::default()
        };
        Facts { models: [("smollm2-135m-instruct".to_owned(), info)].into(), ..Facts::default() }
    }

    #[test]
    fn what_a_user_reads() {
        insta::assert_snapshot!("wide", render(&sample(), &facts(), 160));
        insta::assert_snapshot!("narrow", render(&sample(), &facts(), 80));
    }

    #[test]
    fn other_arithmetic_than_single_precision_is_told() {
        for (compute, told) in [("", false), ("f32", false), ("bf16", true)] {
            let mut facts = facts();
            let arithmetic = facts.arithmetic.entry("candle".into()).or_default();
            arithmetic.precisions.insert(compute.into(), vec!["dense".into(), "gptq".into()]);
            let text = render(&sample(), &facts, 160);
            assert_eq!(text.contains("candle computed in bf16\n"), told, "{text}");
        }
        let mut facts = facts();
        let library = facts.arithmetic.entry("llama-cpp".into()).or_default();
        library.library = "llama.cpp b7".into();
        library.precisions.insert("f32".into(), vec!["dense".into()]);
        assert!(render(&sample(), &facts, 160).contains("llama-cpp ran llama.cpp b7: f32\n"));
        let library = facts.arithmetic.entry("llama-cpp".into()).or_default();
        library.precisions.insert("q4_1".into(), vec!["gptq".into(), "awq".into()]);
        let text = render(&sample(), &facts, 160);
        assert!(text.contains("llama-cpp ran llama.cpp b7: f32 (dense); q4_1 (gptq, awq)\n"), "{text}");
    }

    #[test]
    fn a_run_that_goes_on_shows_what_is_not_there_yet() {
        let mut run = sample();
        run.complete = false;
        run.interrupted = true;
        run.problems = vec!["model nowhere: no such file".into()];
        run.cells.truncate(2);
        run.cells[1].metrics.pop();
        run.cells[1].stages[2].status = None;
        run.overall.clear();
        insta::assert_snapshot!(render(&run, &Facts::default(), 100));
    }

    #[test]
    fn a_run_without_cells_has_no_table_and_no_panic() {
        let mut run = sample();
        run.cells.clear();
        run.suite.tasks.clear();
        let text = render(&run, &Facts::default(), 80);
        assert!(text.contains("seed 7"), "{text}");
    }
}
