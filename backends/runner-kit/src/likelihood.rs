//! Logits to likelihoods.

use llmcb_plugin_api::sdk::{Error, Result, Score};

/// `ln` of the sum of `exp` of all logits, in double precision.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    f64::from(largest) + sum.ln()
}

/// The token with the largest logit, the first of equals.
pub fn most_likely(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best as u32
}

/// Adds a token of a continuation to its score, from the logits before it.
///
/// # Errors
/// The token is beyond the vocabulary.
pub fn count(score: &mut Score, logits: &[f32], token: u32) -> Result<()> {
    let logit = logits.get(token as usize).copied();
    let logit = logit.ok_or_else(|| Error::invalid(format!("token {token} is beyond the vocabulary")))?;
    let likelihood = f64::from(logit) - log_sum_exp(logits);
    score.log_likelihood += likelihood;
    score.greedy &= most_likely(logits) == token;
    score.token_log_likelihoods.push(likelihood as f32);
    Ok(())
}

/// The logarithm of each token's probability.
pub fn log_probabilities(logits: &[f32]) -> impl Iterator<Item = f32> {
    let total = log_sum_exp(logits);
    logits.iter().map(move |logit| (f64::from(*logit) - total) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_whatever_the_size_of_logits() {
        for shift in [-1e4_f32, 0.0, 1e4] {
            let logits: Vec<f32> = (0..100).map(|i| (i * 37 % 101) as f32 / 10.0 + shift).collect();
            let total = log_sum_exp(&logits);
            let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - total).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-3, "{shift}: {sum}");
        }
        assert_eq!(most_likely(&[0.0, 3.0, 3.0, -1.0]), 1);
    }
}
