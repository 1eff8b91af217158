//! Profiling: a runner is timed on prompts of real text.

use std::collections::BTreeMap;

use llmcb_plugin_api::loader::RunnerHandle;
use llmcb_plugin_api::sdk::{Error, Profile, Result, Workload};

use super::text;
use crate::metrics::MetricValue;
use crate::suite::result::ProfileRecord;
use crate::suite::spec::ProfileSpec;
use crate::worker::Services;
use crate::worker::protocol::{StageOrder, StageOutcome};

const PERCENTILES: &[(&str, f64)] =
    &[("p5", 0.05), ("p25", 0.25), ("p50", 0.5), ("p75", 0.75), ("p95", 0.95), ("p99", 0.99)];

const RATE: &str = "tokens/s";
const SECONDS: &str = "s";

pub(super) fn run(
    order: &StageOrder,
    runner: &mut RunnerHandle,
    services: &Services,
    spec: &ProfileSpec,
    text_name: &str,
) -> Result<StageOutcome> {
    let mut outcome = StageOutcome::default();
    let text = text::obtain(order, services, text_name, &mut outcome.data)?;
    let wanted = spec.batch.saturating_mul(spec.prompt_tokens);
    let tokens = text::first_tokens(&text.text, wanted, |texts| runner.encode(texts, true))?;
    let prompts =
        crate::tasks::windows(&tokens, spec.prompt_tokens, spec.batch, crate::tasks::Windows::First)
            .map_err(|e| Error::invalid(format!("prompts for profiling: {e}")))?;
    services.check_cancelled()?;
    services.stage_progress(0, 1, "timing");
    let workload = Workload {
        prompts,
        new_tokens: u32::try_from(spec.new_tokens).unwrap_or(u32::MAX),
        warm_up: spec.warm_up,
        repetitions: spec.repetitions,
    };
    let profile = runner.profile(&workload)?;
    let record = reduce(spec, profile)?;
    outcome.metrics = metrics(&record);
    outcome.profile = Some(record);
    services.stage_progress(1, 1, "timing");
    Ok(outcome)
}

/// Value at a fraction of sorted values, linear between neighbours.
fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let at = fraction * (sorted.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

fn percentiles(mut values: Vec<f64>) -> BTreeMap<String, f64> {
    values.sort_by(f64::total_cmp);
    if values.is_empty() {
        return BTreeMap::new();
    }
    PERCENTILES.iter().map(|(name, fraction)| ((*name).to_owned(), quantile(&values, *fraction))).collect()
}

fn reduce(spec: &ProfileSpec, profile: Profile) -> Result<ProfileRecord> {
    let prefill: Vec<f64> = profile.timings.iter().map(|t| t.prefill_seconds).collect();
    let decode: Vec<f64> = profile.timings.iter().flat_map(|t| t.decode_seconds.iter().copied()).collect();
    if prefill.is_empty() {
        return Err(Error::failed("the runner returned no timing"));
    }
    if let Some(bad) = prefill.iter().chain(&decode).find(|s| !s.is_finite() || **s < 0.0) {
        return Err(Error::failed(format!("the runner returned a time of {bad} s")));
    }
    let rate = |tokens: usize, seconds: Option<&f64>| match seconds {
        Some(seconds) if *seconds > 0.0 => tokens as f64 / seconds,
        _ => 0.0,
    };
    let prefill = percentiles(prefill);
    let decode = percentiles(decode);
    Ok(ProfileRecord {
        batch: spec.batch,
        prompt_tokens: spec.prompt_tokens,
        new_tokens: spec.new_tokens,
        prefill_tokens_per_second: rate(spec.batch * spec.prompt_tokens, prefill.get("p50")),
        decode_tokens_per_second: rate(spec.batch, decode.get("p50")),
        prefill_seconds: prefill,
        decode_step_seconds: decode,
        load_seconds: 0.0,
        preparation_seconds: 0.0,
        raw: profile,
    })
}

fn metrics(record: &ProfileRecord) -> Vec<MetricValue> {
    let metric = |name: &str, value: f64, n: usize, unit: &str| MetricValue {
        name: name.to_owned(),
        subset: None,
        value,
        stderr: None,
        n,
        higher_is_better: unit != SECONDS,
        unit: unit.to_owned(),
    };
    let median = |times: &BTreeMap<String, f64>| times.get("p50").copied().unwrap_or(f64::NAN);
    let timings = &record.raw.timings;
    let steps = timings.iter().map(|t| t.decode_seconds.len()).sum();
    let mut out = vec![
        metric("prefill_rate", record.prefill_tokens_per_second, timings.len(), RATE),
        metric("time_to_first_token", median(&record.prefill_seconds), timings.len(), SECONDS),
    ];
    if steps > 0 {
        out.push(metric("decode_rate", record.decode_tokens_per_second, steps, RATE));
        out.push(metric("time_per_output_token", median(&record.decode_step_seconds), steps, SECONDS));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmcb_plugin_api::sdk::Timing;

    fn profile(timings: &[(f64, &[f64])]) -> Profile {
        Profile {
            timings: timings
                .iter()
                .map(|(p, d)| Timing { prefill_seconds: *p, decode_seconds: d.to_vec() })
                .collect(),
            how: String::new(),
        }
    }

    #[test]
    fn rates_are_those_of_the_median() {
        let spec = ProfileSpec { batch: 2, prompt_tokens: 100, ..ProfileSpec::default() };
        let record = reduce(&spec, profile(&[(1.0, &[0.1, 0.2]), (9.0, &[0.3]), (2.0, &[])])).unwrap();
        assert_eq!(record.prefill_tokens_per_second, 100.0);
        assert_eq!(record.decode_tokens_per_second, 10.0);
        assert_eq!(record.prefill_seconds["p75"], 5.5);
        let found: Vec<_> = metrics(&record).into_iter().map(|m| (m.name, m.value, m.n)).collect();
        let expected = [
            ("prefill_rate", 100.0, 3),
            ("time_to_first_token", 2.0, 3),
            ("decode_rate", 10.0, 3),
            ("time_per_output_token", 0.2, 3),
        ];
        assert_eq!(found, expected.map(|(name, value, n)| (name.to_owned(), value, n)));
    }

    #[test]
    fn absurd_times_are_refused() {
        let spec = ProfileSpec::default();
        assert!(reduce(&spec, profile(&[])).is_err());
        assert!(reduce(&spec, profile(&[(f64::NAN, &[])])).is_err());
        assert!(reduce(&spec, profile(&[(1.0, &[-1.0])])).is_err());
    }

    #[test]
    fn a_workload_without_decoding_has_no_decode_rate() {
        let record = reduce(&ProfileSpec::default(), profile(&[(0.5, &[])])).unwrap();
        assert_eq!(metrics(&record).len(), 2);
    }
}
