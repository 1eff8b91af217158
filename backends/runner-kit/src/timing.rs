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

/// The times of a run from the arrivals of new tokens, `(place among a prompt's new tokens, seconds since the start)`, of all prompts: a step is
/// over when the slowest prompt has its token.
pub fn slowest(new_tokens: usize, arrivals: impl IntoIterator<Item = (usize, f64)>) -> Timing {
    let mut there = vec![0.0_f64; new_tokens];
    for (place, at) in arrivals {
        if let Some(there) = there.get_mut(place) {
            *there = there.max(at);
        }
    }
    let decode_seconds = there.windows(2).map(|pair| (pair[1] - pair[0]).max(0.0)).collect();
    Timing { prefill_seconds: there.first().copied().unwrap_or_default(), decode_seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_over_when_the_slowest_prompt_has_its_token() {
        let arrivals = [(0, 1.0), (1, 1.5), (0, 2.0), (1, 2.25), (7, 9.0)];
        let timing = slowest(2, arrivals);
        assert_eq!((timing.prefill_seconds, timing.decode_seconds.as_slice()), (2.0, &[0.25][..]));
    }
}
