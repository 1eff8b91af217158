//! From a suite to results: facts, plan, content keys, store, executor.

mod agreement;
mod cells;
pub mod comparison;
pub mod estimate;
pub mod facts;
pub mod file;
pub(crate) mod format;
pub mod key;
pub mod leaderboard;
pub mod machine;
pub mod models;
mod overall;
mod pairs;
pub mod plan;
pub mod result;
pub mod run;
pub mod spec;
mod state;
pub mod store;

#[cfg(test)]
mod tests;

pub(crate) use cells::dense_of;
pub(crate) use overall::passed_over;
pub use result::{Cell, MetricRecord, RunResult, StageKind, StageResult, StageSummary, Status};
pub use run::{Event, SuiteError, run};
pub use spec::{Calibration, PluginUse, ProfileSpec, Suite};
