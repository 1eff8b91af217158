//! Repeating a workload.

use llmcb_plugin_api::sdk::{Host, Result, Timing, Workload};

/// Runs a workload as often as it says; the warm-up is not counted.
///
/// # Errors
/// What `run` says, or the user asked to stop.
pub fn repeated(
    host: &Host,
    workload: &Workload,
    mut run: impl FnMut(&Workload) -> Result<Timing>,
) -> Result<Vec<Timing>> {
    let runs = workload.warm_up + workload.repetitions;
    let mut timings = Vec::new();
    for at in 0..runs {
        host.check_cancelled()?;
        host.progress(u64::from(at), u64::from(runs), "timing");
        let timing = run(workload)?;
        if at >= workload.warm_up {
            timings.push(timing);
        }
    }
    Ok(timings)
}
