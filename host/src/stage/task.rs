//! How stages begin and end that work on a task.

use llmcb_plugin_api::loader::RunnerHandle;
use llmcb_plugin_api::sdk::{Error, Result};

use super::evaluate::{ITEMS, RunnerEncoder};
use super::lines::write_all;
use super::{data_name, fetch_progress, of_data, parse_task, store};
use crate::tasks::{ItemResult, Prepared, Requests, TaskError};
use crate::worker::protocol::{StageOrder, StageOutcome};
use crate::worker::{Services, Usage};

/// A task made ready: its data are there and recorded in the outcome, its requests are tokens.
pub(super) struct Ready {
    pub(super) prepared: Prepared,
    pub(super) requests: Requests,
    pub(super) outcome: StageOutcome,
}

/// What a stage asks: a task's line with what the suite says of all tasks.
pub(super) struct Asked<'a> {
    pub(super) task: &'a str,
    pub(super) limit: Option<usize>,
    pub(super) shots: usize,
}

pub(super) fn begin(
    order: &StageOrder,
    runner: &RunnerHandle,
    services: &Services,
    usage: &Usage,
    asked: &Asked<'_>,
) -> Result<Ready> {
    let invalid = |error: TaskError| Error::invalid(error.to_string());
    usage.phase("preparing");
    services.stage_progress(0, 0, "preparing the task");
    let line = parse_task(asked.task, asked.limit, asked.shots, order.seed).map_err(invalid)?;
    let prepared = line
        .task
        .prepare(&store(order, services)?, &line.options, &fetch_progress(services))
        .map_err(|e| of_data(services, &e))?;
    let mut outcome = StageOutcome::default();
    for data in &prepared.data {
        outcome.data.insert(data_name(data), data.sha256.clone());
        outcome.warnings.extend(data.note.clone());
    }
    services.check_cancelled()?;
    usage.phase("tokenising");
    services.stage_progress(0, 0, "tokenising");
    let requests = prepared.requests(&RunnerEncoder::new(runner)?).map_err(invalid)?;
    Ok(Ready { prepared, requests, outcome })
}

/// Writes the items, and removes the file in which they were kept until all were there.
pub(super) fn end(
    order: &StageOrder,
    prepared: &Prepared,
    items: &[ItemResult],
    kept: &str,
    mut outcome: StageOutcome,
) -> Result<StageOutcome> {
    write_all(&order.directory.join(ITEMS), items)?;
    outcome.items = items.len() as u64;
    outcome.metrics = prepared.metrics(items);
    let _ = std::fs::remove_file(order.directory.join(kept));
    Ok(outcome)
}
