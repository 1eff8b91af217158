//! Draws of items with replacement, from which confidence intervals come.

use std::sync::Arc;

use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

/// Draws for one interval.
pub const DRAWS: usize = 1000;
/// The same draws in every run.
const SEED: u128 = 0x6c6c_6d63_6200;

/// A generator of random numbers for a stream.
fn generator(stream: &str) -> Pcg64 {
    // FNV-1a: the same on every machine and in every version.
    let hash = stream
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    Pcg64::new(SEED, u128::from(hash))
}

/// A metric of two models over items drawn with replacement, the same items for both (the paired bootstrap; Efron and Tibshirani 1993).
///
/// Draws of one `stream` (a task's name) are the same for all models; those of another are others, since items of two tasks have nothing to do
/// with each other.
///
/// `pairs` has for each item the value of one and of the other; the metric is their mean, or with `exponential` the exponential of it, as
/// perplexity is. Empty for no items.
#[must_use]
pub fn draws(pairs: &[(f64, f64)], exponential: bool, stream: &str) -> Arc<[[f64; 2]]> {
    let n = pairs.len();
    if n == 0 {
        return Arc::default();
    }
    let mut random = generator(stream);
    let metric = |sum: f64| {
        let mean = sum / n as f64;
        if exponential { mean.exp() } else { mean }
    };
    let one = |_| {
        let (mut first, mut second) = (0.0, 0.0);
        for _ in 0..n {
            // The high half of the product of 32 random bits and n: as even as 32 bits allow.
            let at = ((u64::from(random.next_u32()) * n as u64) >> 32) as usize;
            first += pairs[at].0;
            second += pairs[at].1;
        }
        [metric(first), metric(second)]
    };
    (0..DRAWS).map(one).collect()
}

/// The medians of two series of times over repetitions drawn with replacement, each series by itself: repetitions of one have nothing to do
/// with those of the other. A repetition is drawn whole, with all of its times, which are not independent of each other. Empty where a series
/// is.
#[must_use]
pub fn draws_of_medians(first: &[Vec<f64>], second: &[Vec<f64>], stream: &str) -> Arc<[[f64; 2]]> {
    let empty = |series: &[Vec<f64>]| series.iter().all(Vec::is_empty);
    if empty(first) || empty(second) {
        return Arc::default();
    }
    let mut random = generator(stream);
    let mut median = |repetitions: &[Vec<f64>]| {
        let one = |_| ((u64::from(random.next_u32()) * repetitions.len() as u64) >> 32) as usize;
        let mut drawn: Vec<f64> =
            (0..repetitions.len()).map(one).flat_map(|at| repetitions[at].iter().copied()).collect();
        if drawn.is_empty() {
            return f64::NAN;
        }
        drawn.sort_by(f64::total_cmp);
        // The mean of the two in the middle of an even number.
        (drawn[(drawn.len() - 1) / 2] + drawn[drawn.len() / 2]) / 2.0
    };
    (0..DRAWS).map(|_| [median(first), median(second)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{mean, sample_variance};

    #[test]
    fn draws_spread_as_the_standard_error_says() {
        let pairs: Vec<(f64, f64)> =
            (0..400).map(|i| (f64::from(u8::from(i % 4 != 0)), f64::from(u8::from(i % 2 == 0)))).collect();
        let found = draws(&pairs, false, "t");
        for (side, p) in [(0, 0.75_f64), (1, 0.5)] {
            let values: Vec<f64> = found.iter().map(|draw| draw[side]).collect();
            let expected = (p * (1.0 - p) / 400.0).sqrt();
            assert!((mean(&values) - p).abs() < 4.0 * expected / (DRAWS as f64).sqrt());
            let spread = sample_variance(&values).unwrap().sqrt();
            assert!((spread / expected - 1.0).abs() < 0.1, "{spread} is not {expected}");
        }
        assert_eq!(found, draws(&pairs, false, "t"), "the same in every run");
        assert_ne!(found, draws(&pairs, false, "u"), "others for other tasks");
    }

    #[test]
    fn medians_of_times_lie_among_the_times() {
        let each = |times: &[f64]| times.iter().map(|t| vec![*t]).collect::<Vec<_>>();
        let found = draws_of_medians(&each(&[1.0, 2.0, 3.0, 100.0]), &[vec![5.0, 4.0, 6.0]], "t");
        assert!(found.iter().all(|[a, b]| (1.0..=100.0).contains(a) && *b == 5.0));
        assert!(found.iter().filter(|[a, _]| (1.5..=3.0).contains(a)).count() > DRAWS / 2);
        assert!(draws_of_medians(&[], &each(&[1.0]), "t").is_empty());
        // Drawn whole: of two repetitions that differ, the median is one's or the other's, or of both together.
        let two = draws_of_medians(&[vec![1.0; 9], vec![3.0; 9]], &each(&[1.0]), "t");
        assert!(two.iter().all(|[a, _]| [1.0, 2.0, 3.0].contains(a)));
    }

    #[test]
    fn both_models_see_the_same_items() {
        let pairs: Vec<(f64, f64)> = (0..50).map(|i| (f64::from(i), f64::from(i) + 1.0)).collect();
        assert!(draws(&pairs, false, "t").iter().all(|[a, b]| (b - a - 1.0).abs() < 1e-9));
        assert!(draws(&pairs, true, "t").iter().all(|[a, b]| (b / a - std::f64::consts::E).abs() < 1e-6));
        assert!(draws(&[], false, "t").is_empty());
    }
}
