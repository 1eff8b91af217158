//! Logits to likelihoods.

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
