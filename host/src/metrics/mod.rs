//! Numbers from per-item results: means with standard errors, accuracy, perplexity.

mod bootstrap;
pub mod check;
pub mod component;
mod divergence;
mod number;
mod paired;
pub mod scaffold;
pub mod scoring;

pub use bootstrap::{DRAWS, draws, draws_of_medians};
pub use divergence::{Divergence, divergence, divergences};
pub use number::{Real, real, reals};
pub use paired::{Compared, Paired, mcnemar, paired, paired_values};

use crate::tasks::{Answered, ItemResult, Outcome};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One number with how sure it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricValue {
    /// `acc`, `acc_norm`, `mc1`, `mc2`, `perplexity`, `bits_per_byte`, `kl_divergence` or `top1_agreement`.
    pub name: String,
    /// Part of the task that it is over (a subject or category of MMLU); absent for the whole task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// The value; may be infinite or not a number where a model broke.
    #[serde(with = "real")]
    #[schemars(with = "Real")]
    pub value: f64,
    /// Standard error of the value; absent where fewer than two items were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<f64>,
    /// Items that it is over.
    pub n: usize,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Unit: `fraction`, `bits/byte`, `nats`, or empty.
    pub unit: String,
}

/// A metric that tasks have of themselves.
pub struct OfTasks {
    /// Its name.
    pub name: &'static str,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// What it is.
    pub summary: &'static str,
}

/// Metrics that tasks have of themselves.
pub const OF_TASKS: &[OfTasks] = &[
    OfTasks {
        name: "acc",
        higher_is_better: true,
        summary: "share of questions whose likeliest choice is right",
    },
    OfTasks {
        name: "acc_norm",
        higher_is_better: true,
        summary: "the same by log-likelihood per character of the choice",
    },
    OfTasks {
        name: "mc1",
        higher_is_better: true,
        summary: "TruthfulQA: the best answer is likelier than each false one",
    },
    OfTasks {
        name: "mc2",
        higher_is_better: true,
        summary: "TruthfulQA: share of the true answers in the probability of all",
    },
    OfTasks {
        name: "mass",
        higher_is_better: true,
        summary: "share of the right choices in the probability of all, of tasks of one's own with several",
    },
    OfTasks {
        name: "perplexity",
        higher_is_better: false,
        summary: "exponential of the mean negative log-likelihood of a token",
    },
    OfTasks {
        name: "bits_per_byte",
        higher_is_better: false,
        summary: "negative log-likelihood per byte of text, in bits",
    },
    OfTasks {
        name: "kl_divergence",
        higher_is_better: false,
        summary: "divergence of a compressed model's distributions over the next token from the dense one's, in nats",
    },
    OfTasks {
        name: "top1_agreement",
        higher_is_better: true,
        summary: "share of tokens for which a compressed model has the dense one's likeliest",
    },
];

/// Mean; not a number for no values.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sample variance (n - 1 below the line); `None` for fewer than two values or where it is not finite.
#[must_use]
pub fn sample_variance(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let centre = mean(values);
    let sum: f64 = values.iter().map(|v| (v - centre) * (v - centre)).sum();
    Some(sum / (values.len() - 1) as f64).filter(|v| v.is_finite())
}

/// Standard error of the mean, as lm-evaluation-harness gives it: `sqrt(sample variance / n)`.
#[must_use]
pub fn mean_stderr(values: &[f64]) -> Option<f64> {
    sample_variance(values).map(|v| (v / values.len() as f64).sqrt())
}

/// Standard error of a mean over several samples of sizes `n_i` with their own sample variances `v_i`, as lm-evaluation-harness pools
/// subjects weighted by size: `sqrt(sum((n_i - 1) v_i) / (N - k) / N)`, `k` being the number of samples and `N` all items.
#[must_use]
pub fn pooled_stderr(samples: &[(usize, f64)]) -> Option<f64> {
    let total: usize = samples.iter().map(|(n, _)| n).sum();
    let freedom = total.checked_sub(samples.len()).filter(|f| *f > 0)?;
    let sum: f64 = samples.iter().map(|(n, v)| (*n as f64 - 1.0) * v).sum();
    Some((sum / freedom as f64 / total as f64).sqrt())
}

/// Perplexity over windows and its standard error.
///
/// The value is `exp(mean over windows of the window's mean negative log-likelihood)`; the error is that of the mean carried through the
/// exponential (delta method): `perplexity * stderr(mean)`.
#[must_use]
pub fn perplexity(window_means: &[f64]) -> (f64, Option<f64>) {
    let value = mean(window_means).exp();
    let stderr = mean_stderr(window_means).map(|e| value * e).filter(|e| e.is_finite());
    (value, stderr)
}

fn fraction(name: &str, subset: Option<String>, values: &[f64]) -> MetricValue {
    MetricValue {
        name: name.to_owned(),
        subset,
        value: mean(values),
        stderr: mean_stderr(values),
        n: values.len(),
        higher_is_better: true,
        unit: "fraction".to_owned(),
    }
}

/// Accuracy over subjects weighted by size: the mean over all items, with the pooled error of the subjects.
fn weighted(name: &str, subset: Option<String>, subjects: &[&[f64]]) -> MetricValue {
    let all: Vec<f64> = subjects.iter().flat_map(|s| s.iter().copied()).collect();
    // A subject of one item has no variance of its own; it adds none and one item.
    let samples: Vec<(usize, f64)> =
        subjects.iter().map(|s| (s.len(), sample_variance(s).unwrap_or_default())).collect();
    MetricValue { stderr: pooled_stderr(&samples), ..fraction(name, subset, &all) }
}

/// Metrics of one task from its items, in the order: the whole task, then categories, then subjects.
///
/// `category` names the category of a subject, where the task has subjects.
#[must_use]
pub fn of_items(items: &[ItemResult], category: impl Fn(&str) -> Option<&'static str>) -> Vec<MetricValue> {
    let mut out = of_choices(items, &category);
    out.extend(of_windows(items));
    out.extend(of_divergences(items));
    out
}

fn of_choices(items: &[ItemResult], category: &impl Fn(&str) -> Option<&'static str>) -> Vec<MetricValue> {
    let mut whole = Vec::new();
    let mut categories = Vec::new();
    let mut subjects_out = Vec::new();
    for name in ["acc", "acc_norm", "mass"] {
        let mut subjects: BTreeMap<Option<&str>, Vec<f64>> = BTreeMap::new();
        for item in items {
            let Outcome::Choice { answered, .. } = &item.outcome else {
                continue;
            };
            let Answered { acc, acc_norm, mass, .. } = answered;
            let value = match name {
                "acc" => Some(f64::from(*acc)),
                "acc_norm" => acc_norm.map(f64::from),
                _ => *mass,
            };
            if let Some(value) = value {
                subjects.entry(item.subset.as_deref()).or_default().push(value);
            }
        }
        match subjects.len() {
            0 => {}
            1 => {
                // A single subject is the whole task.
                let values: Vec<f64> = subjects.into_values().flatten().collect();
                whole.push(fraction(name, None, &values));
            }
            _ => {
                let all: Vec<&[f64]> = subjects.values().map(Vec::as_slice).collect();
                whole.push(weighted(name, None, &all));
                let mut by_category: BTreeMap<&'static str, Vec<&[f64]>> = BTreeMap::new();
                for (subject, values) in &subjects {
                    if let Some(category) = subject.and_then(category) {
                        by_category.entry(category).or_default().push(values);
                    }
                    subjects_out.push(fraction(name, subject.map(str::to_owned), values));
                }
                for (category, members) in by_category {
                    categories.push(weighted(name, Some(category.to_owned()), &members));
                }
            }
        }
    }
    whole.extend(categories);
    whole.extend(subjects_out);
    whole
}

fn of_windows(items: &[ItemResult]) -> Vec<MetricValue> {
    let mut means = Vec::new();
    let mut bits = 0.0;
    let mut bytes = Some(0_u64);
    for item in items {
        if let Outcome::Window { nll, tokens, bytes: b, .. } = &item.outcome {
            means.push(nll / *tokens as f64);
            bits += nll / std::f64::consts::LN_2;
            bytes = bytes.zip(*b).and_then(|(sum, b)| sum.checked_add(b));
        }
    }
    if means.is_empty() {
        return Vec::new();
    }
    let (value, stderr) = perplexity(&means);
    let n = means.len();
    let metric = |name: &str, value, stderr, unit: &str| MetricValue {
        name: name.to_owned(),
        subset: None,
        value,
        stderr,
        n,
        higher_is_better: false,
        unit: unit.to_owned(),
    };
    let mut out = vec![metric("perplexity", value, stderr, "")];
    if let Some(bytes) = bytes.filter(|b| *b > 0) {
        out.push(metric("bits_per_byte", bits / bytes as f64, None, "bits/byte"));
    }
    out
}

/// Means over windows, so that their errors are those of windows, which depend on each other less than tokens do.
fn of_divergences(items: &[ItemResult]) -> Vec<MetricValue> {
    let of = |item: &ItemResult| match &item.outcome {
        Outcome::Divergence { kl, agreed, tokens, .. } => {
            let tokens = *tokens as f64;
            Some((kl / tokens, *agreed as f64 / tokens))
        }
        _ => None,
    };
    let (kl, agreed): (Vec<f64>, Vec<f64>) = items.iter().filter_map(of).unzip();
    if kl.is_empty() {
        return Vec::new();
    }
    let divergence = MetricValue {
        higher_is_better: false,
        unit: "nats".to_owned(),
        ..fraction("kl_divergence", None, &kl)
    };
    vec![divergence, fraction("top1_agreement", None, &agreed)]
}

#[cfg(test)]
mod tests;
