//! A compressed model against the dense one on the same items.
//!
//! Items differ in difficulty far more than two models differ on one item. Comparing item by item takes that out, so that differences are seen
//! which two standard errors side by side would hide.

use super::scoring::ItemValue;
use super::{Real, draws, mean, mean_stderr, real};
use crate::tasks::{ItemResult, Outcome};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Below this probability of chance, two models are told apart by their right and wrong answers.
const SIGNIFICANT: f64 = 0.05;
/// From so many standard errors of the mean difference on, two models are told apart by it.
const NOISE: f64 = 2.0;
/// The metric that is the exponential of a mean.
const PERPLEXITY: &str = "perplexity";

/// A metric of two models on the same items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Paired {
    /// The metric.
    pub metric: String,
    /// Items that both were measured on.
    pub n: usize,
    /// Mean over items of the compressed model's value less the dense one's. For `perplexity` of the mean negative log-likelihood of a
    /// token: its exponential is the ratio of the perplexities.
    #[serde(with = "real")]
    #[schemars(with = "Real")]
    pub difference: f64,
    /// Standard error of the difference; absent for fewer than two items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<f64>,
    /// Items that the dense model has right and the compressed one wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right_to_wrong: Option<usize>,
    /// Items that the dense model has wrong and the compressed one right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong_to_right: Option<usize>,
    /// Probability that chance alone splits the items that changed as unevenly: McNemar's exact test, two-sided. Of right and wrong answers
    /// only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// Whether the models are told apart: `p_value` below 0.05, or without one the difference at least two standard errors.
    pub told_apart: bool,
}

/// A comparison, and the metric of both models over items drawn anew.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The comparison.
    pub paired: Paired,
    /// As [`draws`](super::draws) gives them: the dense model's, the compressed one's.
    pub draws: Arc<[[f64; 2]]>,
}

/// McNemar's exact test (McNemar 1947; the exact form is the sign test): twice the probability that of `lost + gained` fair coins at most the
/// smaller number shows heads, and at most 1.
#[must_use]
pub fn mcnemar(lost: usize, gained: usize) -> f64 {
    let n = lost + gained;
    // ln of C(n, i) / 2^n, from one i to the next.
    let mut ln = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = 0.0;
    for i in 0..=lost.min(gained) {
        sum += ln.exp();
        ln += ((n - i) as f64).ln() - ((i + 1) as f64).ln();
    }
    (2.0 * sum).min(1.0)
}

/// One value for each item, with the metric's name and whether it says right or wrong.
fn values(items: &[ItemResult]) -> Vec<(&'static str, bool, Vec<Option<f64>>)> {
    let choice = |f: fn(&crate::tasks::Answered) -> Option<f64>| -> Vec<Option<f64>> {
        let of = |item: &ItemResult| match &item.outcome {
            Outcome::Choice { answered, .. } => f(answered),
            Outcome::Window { .. } | Outcome::Divergence { .. } => None,
        };
        items.iter().map(of).collect()
    };
    let window = |item: &ItemResult| match &item.outcome {
        Outcome::Window { nll, tokens, .. } if *tokens > 0 => Some(nll / *tokens as f64),
        _ => None,
    };
    let divergence = |f: fn(f64, f64) -> f64| -> Vec<Option<f64>> {
        let of = |item: &ItemResult| match &item.outcome {
            Outcome::Divergence { kl, agreed, tokens, .. } if *tokens > 0 => {
                Some(f(kl / *tokens as f64, *agreed as f64 / *tokens as f64))
            }
            _ => None,
        };
        items.iter().map(of).collect()
    };
    vec![
        ("acc", true, choice(|a| Some(f64::from(a.acc)))),
        ("acc_norm", true, choice(|a| a.acc_norm.map(f64::from))),
        ("mass", false, choice(|a| a.mass)),
        ("kl_divergence", false, divergence(|kl, _| kl)),
        ("top1_agreement", false, divergence(|_, agreed| agreed)),
        (PERPLEXITY, false, items.iter().map(window).collect()),
    ]
}

/// Every metric of both, on the same items in the same order.
///
/// # Errors
/// Where the items are not the same, in a clause.
pub fn paired(dense: &[ItemResult], compressed: &[ItemResult]) -> Result<Vec<Compared>, String> {
    let place = |item: &ItemResult| (item.subset.clone(), item.index, item.doc_id.clone());
    check_same(dense, compressed, place)?;
    let mut out = Vec::new();
    for ((metric, decides, before), (_, _, after)) in values(dense).into_iter().zip(values(compressed)) {
        let pairs: Vec<(f64, f64)> = before.into_iter().zip(after).filter_map(|(a, b)| a.zip(b)).collect();
        if pairs.is_empty() {
            continue;
        }
        let draws = draws(&pairs, metric == PERPLEXITY, &dense[0].task);
        out.push(Compared { paired: compare(metric, decides, &pairs), draws });
    }
    Ok(out)
}

/// A metric of both by its values per item, on the same items in the same order. Where every value is 0 or 1, it says right or wrong.
///
/// # Errors
/// As [`paired`].
pub fn paired_values(metric: &str, dense: &[ItemValue], compressed: &[ItemValue]) -> Result<Paired, String> {
    let place = |item: &ItemValue| (item.subset.clone(), item.index, item.doc_id.clone());
    check_same(dense, compressed, place)?;
    let pairs: Vec<(f64, f64)> = dense.iter().zip(compressed).map(|(a, b)| (a.value, b.value)).collect();
    let decides = pairs.iter().all(|(a, b)| [a, b].iter().all(|v| **v == 0.0 || **v == 1.0));
    Ok(compare(metric, decides, &pairs))
}

/// Whether both are of the same items in the same order.
fn check_same<T>(
    dense: &[T],
    compressed: &[T],
    place: impl Fn(&T) -> (Option<String>, usize, String),
) -> Result<(), String> {
    if dense.len() != compressed.len() {
        return Err(format!("{} items of the dense model, {} of the other", dense.len(), compressed.len()));
    }
    match dense.iter().zip(compressed).position(|(a, b)| place(a) != place(b)) {
        None => Ok(()),
        Some(at) => Err(format!(
            "item {at} is `{}` in one and `{}` in the other",
            place(&dense[at]).2,
            place(&compressed[at]).2
        )),
    }
}

/// The values of the dense model and of the compressed one, of which there is at least one pair; `decides` where they say right or wrong.
fn compare(metric: &str, decides: bool, pairs: &[(f64, f64)]) -> Paired {
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| b - a).collect();
    let (difference, stderr) = (mean(&differences), mean_stderr(&differences));
    let count = |sign: f64| differences.iter().filter(|d| **d == sign).count();
    let (lost, gained) = (count(-1.0), count(1.0));
    let p_value = decides.then(|| mcnemar(lost, gained));
    let told_apart = match (p_value, stderr) {
        (Some(p), _) => p < SIGNIFICANT,
        // A model that broke gives no number.
        (None, _) if !difference.is_finite() => true,
        (None, Some(stderr)) => difference.abs() > NOISE * stderr,
        (None, None) => false,
    };
    Paired {
        metric: metric.to_owned(),
        n: pairs.len(),
        difference,
        stderr,
        right_to_wrong: decides.then_some(lost),
        wrong_to_right: decides.then_some(gained),
        p_value,
        told_apart,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Answered;
    use proptest::prelude::*;

    fn answer(index: usize, acc: u8) -> ItemResult {
        ItemResult {
            task: "t".to_owned(),
            doc_id: index.to_string(),
            index,
            subset: None,
            outcome: Outcome::Choice {
                asked: Vec::new(),
                answered: Answered {
                    log_likelihoods: vec![-1.0],
                    chosen: Some(0),
                    chosen_norm: None,
                    acc,
                    acc_norm: None,
                    mass: None,
                },
                target: 0,
            },
            truncated: false,
        }
    }

    fn window(index: usize, nll: f64) -> ItemResult {
        let outcome = Outcome::Window { first_token: 0, nll, tokens: 10, bytes: None };
        ItemResult { outcome, ..answer(index, 0) }
    }

    #[test]
    fn mcnemars_test_is_scipys() {
        // scipy.stats.binomtest(k, n, 0.5).pvalue of SciPy 1.17.
        for (lost, gained, p) in [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (5, 0, 0.0625),
            (0, 6, 0.03125),
            (3, 9, 0.1459960938),
            (10, 2, 0.0385742188),
            (40, 60, 0.0568879336),
            (500, 600, 0.002819545),
        ] {
            assert!((mcnemar(lost, gained) - p).abs() < 1e-9, "{lost} {gained} {}", mcnemar(lost, gained));
        }
    }

    fn compared(dense: &[ItemResult], other: &[ItemResult]) -> Vec<Paired> {
        paired(dense, other).unwrap().into_iter().map(|one| one.paired).collect()
    }

    #[test]
    fn answers_are_compared_one_by_one() {
        let dense: Vec<ItemResult> = (0..20).map(|i| answer(i, u8::from(i < 12))).collect();
        let worse: Vec<ItemResult> = (0..20).map(|i| answer(i, u8::from((6..14).contains(&i)))).collect();
        let found = compared(&dense, &worse);
        assert_eq!(found.len(), 1);
        let one = &found[0];
        assert_eq!((one.metric.as_str(), one.n), ("acc", 20));
        assert_eq!((one.right_to_wrong, one.wrong_to_right), (Some(6), Some(2)));
        assert!((one.difference - (8.0 - 12.0) / 20.0).abs() < 1e-12);
        assert!((one.p_value.unwrap() - 0.2890625).abs() < 1e-12 && !one.told_apart);
        let same = &compared(&dense, &dense)[0];
        assert_eq!((same.difference, same.p_value, same.told_apart), (0.0, Some(1.0), false));
    }

    #[test]
    fn a_small_shift_of_all_windows_is_seen_though_windows_differ_widely() {
        let dense: Vec<ItemResult> = (0..8).map(|i| window(i, 20.0 + 5.0 * i as f64)).collect();
        let worse: Vec<ItemResult> =
            (0..8).map(|i| window(i, 20.3 + 5.0 * i as f64 + 0.02 * (i % 2) as f64)).collect();
        let one = &compared(&dense, &worse)[0];
        assert_eq!(one.metric, "perplexity");
        assert!((one.difference - 0.031).abs() < 1e-12 && one.told_apart, "{one:?}");
        // A model that broke is told apart, and is no error.
        let broken: Vec<ItemResult> = (0..8).map(|i| window(i, f64::INFINITY)).collect();
        assert!(compared(&dense, &broken)[0].told_apart);
    }

    #[test]
    fn other_items_are_refused() {
        let dense = [answer(0, 1), answer(1, 1)];
        assert!(paired(&dense, &dense[..1]).unwrap_err().contains("2 items"));
        let other = [answer(0, 1), answer(7, 1)];
        assert!(paired(&dense, &other).unwrap_err().contains("item 1 is `1`"));
    }

    proptest! {
        #[test]
        fn mcnemar_is_a_probability_and_symmetric(a in 0usize..4000, b in 0usize..4000) {
            let p = mcnemar(a, b);
            prop_assert!((0.0..=1.0).contains(&p));
            prop_assert_eq!(p, mcnemar(b, a));
            prop_assert!(mcnemar(a, a) > 0.999_999);
        }
    }
}
