//! The cells of a run: what the stages of one model with one method on one backend found out.

use super::plan::{DENSE, Plan};
use super::result::{Cell, MetricRecord, StageKind};
use super::spec::Suite;
use super::state::State;

/// All cells of a suite, in the order of the table: models, methods (the dense model first), backends.
pub(super) fn cells(suite: &Suite, plan: &Plan, states: &[State]) -> Vec<Cell> {
    let backends: Vec<Option<usize>> = match suite.backends.len() {
        0 => vec![None],
        n => (0..n).map(Some).collect(),
    };
    let methods =
        suite.dense.then_some(None).into_iter().chain((0..suite.methods.len()).map(Some)).collect::<Vec<_>>();
    let mut cells = Vec::new();
    for model in 0..suite.models.len() {
        for method in &methods {
            for backend in &backends {
                let cell = cell(suite, plan, states, (model, *method, *backend));
                if !cell.stages.is_empty() {
                    cells.push(cell);
                }
            }
        }
    }
    cells
}

fn cell(
    suite: &Suite,
    plan: &Plan,
    states: &[State],
    (model, method, backend): (usize, Option<usize>, Option<usize>),
) -> Cell {
    let engine = || suite.engine.as_ref().map_or("", |e| e.label.as_str()).to_owned();
    let mut cell = Cell {
        model: suite.models[model].clone(),
        method: method.map_or(DENSE, |m| &suite.methods[m].label).to_owned(),
        backend: backend.map_or_else(engine, |b| suite.backends[b].label.clone()),
        stages: Vec::new(),
        metrics: Vec::new(),
        paired: Vec::new(),
        checkpoint: None,
        weight_bytes: 0,
        profile: None,
    };
    for (stage, state) in plan.stages.iter().zip(states) {
        let ours = stage.model == model && stage.method == method;
        if !ours || (stage.kind != StageKind::Compress && stage.backend != backend) {
            continue;
        }
        let mut summary = state.summary.clone();
        summary.task = stage.task.map(|t| suite.tasks[t].clone());
        let task = summary.task.clone().unwrap_or_else(|| stage.kind.name().to_owned());
        cell.stages.push(summary);
        let Some(result) = &state.result else { continue };
        cell.metrics.extend(
            result.metrics.iter().map(|m| MetricRecord { task: task.clone(), metric: m.metric.clone() }),
        );
        if let Some(checkpoint) = &result.checkpoint {
            cell.weight_bytes = checkpoint.info.weight_bytes;
            cell.checkpoint = Some(checkpoint.clone());
        } else if let Some(info) = &result.model.info
            && info.bytes_on_disk > 0
        {
            cell.weight_bytes = info.bytes_on_disk;
        }
        if let Some(profile) = &result.profile {
            cell.profile = Some(profile.clone());
        }
    }
    cell
}
