//! How far each stage of a run is.

use std::path::PathBuf;

use super::plan::PlannedStage;
use super::result::{StageResult, StageSummary, Status};
use super::store::Store;

/// How far a stage is.
pub(super) struct State {
    /// What the run says of it.
    pub(super) summary: StageSummary,
    /// Its result, once it is done.
    pub(super) result: Option<StageResult>,
}

impl State {
    /// A planned stage: done already where the store has its result.
    pub(super) fn new(stage: &PlannedStage, store: &Store) -> State {
        let mut summary = StageSummary {
            key: stage.key.clone(),
            kind: stage.kind,
            label: stage.label.clone(),
            task: None,
            metric: None,
            status: None,
            reason: None,
            reused: false,
            wall_seconds: 0.0,
            cpu_seconds: 0.0,
            peak_memory_bytes: 0,
            gpu_peak_memory_bytes: 0,
            directory: PathBuf::new(),
        };
        if let Some((status, reason)) = &stage.blocked {
            summary.status = Some(*status);
            summary.reason = Some(reason.clone());
            return State { summary, result: None };
        }
        summary.directory = Store::relative(&stage.directory);
        let result = store.find(&stage.directory, &stage.key);
        let mut state = State { summary, result: None };
        if let Some(result) = result {
            state.summary.reused = true;
            state.done(result);
        }
        state
    }

    /// It is done.
    pub(super) fn done(&mut self, result: StageResult) {
        self.summary.status = Some(Status::Done);
        self.summary.reason = None;
        self.summary.wall_seconds = result.wall_seconds;
        self.summary.cpu_seconds = result.cpu_seconds;
        self.summary.peak_memory_bytes = result.peak_memory_bytes;
        self.summary.gpu_peak_memory_bytes = result.gpu_peak_memory_bytes;
        self.result = Some(result);
    }

    /// It ended otherwise.
    pub(super) fn ended(&mut self, status: Status, reason: String) {
        self.summary.status = Some(status);
        self.summary.reason = Some(reason);
    }

    /// Whether a further run would go on with it.
    pub(super) fn unfinished(&self) -> bool {
        let summary = &self.summary;
        summary.status.is_none() || summary.status == Some(Status::Cancelled) || {
            // Facts that the interrupt kept from being gathered.
            summary.key.is_empty() && summary.status != Some(Status::Done)
        }
    }
}
