//! The cells of a run: what the stages of one model with one method on one backend found out.

use super::facts::Facts;
use super::plan::{DENSE, Plan};
use super::result::{Cell, MetricRecord, StageKind, StageResult};
use super::spec::{ProfileSpec, Suite};
use super::state::State;
use crate::tracks::{PREFILL_TOKENS, macs};

/// All cells of a suite, in the order of the table: models, methods (the dense model first), seeds, backends.
pub(super) fn cells(suite: &Suite, facts: &Facts, plan: &Plan, states: &[State]) -> Vec<Cell> {
    let names: Vec<Option<String>> =
        facts.metrics.iter().map(|fact| fact.as_ref().ok().map(|f| f.description.name.clone())).collect();
    let backends: Vec<Option<usize>> = match suite.backends.len() {
        0 => vec![None],
        n => (0..n).map(Some).collect(),
    };
    let of_methods =
        (0..suite.methods.len()).flat_map(|m| suite.seeds.iter().map(move |seed| (Some(m), *seed)));
    let rows: Vec<(Option<usize>, u64)> =
        suite.dense_seeds().iter().map(|seed| (None, *seed)).chain(of_methods).collect();
    let mut cells = Vec::new();
    for model in 0..suite.models.len() {
        for (method, seed) in &rows {
            for backend in &backends {
                let place = Place { model, method: *method, backend: *backend, seed: *seed };
                let cell = cell(suite, &names, plan, states, place);
                if !cell.stages.is_empty() {
                    cells.push(cell);
                }
            }
        }
    }
    cells
}

/// The dense cell that a cell is compared with: of the same seed where the dense model was run with several.
pub(crate) fn dense_of<'a>(cells: &'a [Cell], cell: &Cell) -> Option<&'a Cell> {
    let mut same =
        cells.iter().filter(|c| c.method == DENSE && c.model == cell.model && c.backend == cell.backend);
    let first = same.clone().next();
    same.find(|c| c.seed == cell.seed).or(first)
}

/// Which cell.
#[derive(Clone, Copy)]
struct Place {
    model: usize,
    method: Option<usize>,
    backend: Option<usize>,
    seed: u64,
}

/// A cell; `names` are those of the suite's metrics.
fn cell(suite: &Suite, names: &[Option<String>], plan: &Plan, states: &[State], place: Place) -> Cell {
    let Place { model, method, backend, seed } = place;
    let engine = || suite.engine.as_ref().map_or("", |e| e.label.as_str()).to_owned();
    let mut cell = Cell {
        model: suite.models[model].clone(),
        method: method.map_or(DENSE, |m| &suite.methods[m].label).to_owned(),
        backend: backend.map_or_else(engine, |b| suite.backends[b].label.clone()),
        seed,
        stages: Vec::new(),
        metrics: Vec::new(),
        paired: Vec::new(),
        agreement: Vec::new(),
        checkpoint: None,
        weight_bytes: 0,
        macs: None,
        profiles: Vec::new(),
    };
    for (stage, state) in plan.stages.iter().zip(states) {
        let ours = stage.model == model && stage.method == method && stage.seed == seed;
        if !ours || (stage.kind != StageKind::Compress && stage.backend != backend) {
            continue;
        }
        let mut summary = state.summary.clone();
        summary.task = stage.task.map(|t| suite.tasks[t].clone());
        summary.metric = stage.metric.and_then(|m| names.get(m).cloned().flatten());
        let task = summary.task.clone();
        cell.stages.push(summary);
        if let Some(result) = &state.result {
            cell.absorb(suite, task.as_deref(), result);
        }
    }
    cell
}

impl Cell {
    /// Takes in what a finished stage found out; `task` is its task as the suite names it.
    pub(super) fn absorb(&mut self, suite: &Suite, task: Option<&str>, result: &StageResult) {
        let kind = result.kind.name();
        let workload = result.settings.get("workload").filter(|_| suite.workloads.len() > 1);
        let workload = workload.and_then(|w| serde_json::from_value::<ProfileSpec>(w.clone()).ok());
        let task = match (task, workload) {
            (Some(task), _) => task.to_owned(),
            (None, Some(workload)) => format!("{kind}:{workload}"),
            (None, None) => kind.to_owned(),
        };
        self.metrics.extend(
            result.metrics.iter().map(|m| MetricRecord { task: task.clone(), metric: m.metric.clone() }),
        );
        if let Some(checkpoint) = &result.checkpoint {
            self.weight_bytes = checkpoint.info.weight_bytes;
            self.checkpoint = Some(checkpoint.clone());
        } else if let Some(info) = &result.model.info
            && info.bytes_on_disk > 0
        {
            self.weight_bytes = info.bytes_on_disk;
        }
        self.profiles.extend(result.profile.clone());
        if result.kind != StageKind::Compress {
            let info = result.model.info.as_ref();
            self.macs = self.macs.or(info.and_then(|info| macs(info, PREFILL_TOKENS)));
        }
    }
}
