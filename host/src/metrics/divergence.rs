//! How far one model's distributions over the next token are from another's.

/// Two distributions over one vocabulary, compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Divergence {
    /// Kullback-Leibler divergence of the second from the first, in nats: the sum over tokens of `p (ln p - ln q)`.
    pub kl: f64,
    /// Whether both have the same most likely token (the first of equals).
    pub agrees: bool,
    /// What the probabilities of each add up to: 1, unless they are none.
    pub sums: [f64; 2],
}

/// Compares distributions given as natural logarithms of probabilities, of equal length.
///
/// Each summand is `p (ln p - ln q) - p + q`, which is never negative; what is added sums to 0 over whole distributions, and takes out that
/// rounded ones do not sum to 1. A token that is impossible in the second and possible in the first makes it infinite.
#[must_use]
pub fn divergence(dense: &[f32], other: &[f32]) -> Divergence {
    let (mut kl, mut sums) = (0.0, [0.0; 2]);
    let mut best = [(0, f32::NEG_INFINITY); 2];
    for (at, (p, q)) in dense.iter().zip(other).enumerate() {
        for (best, value) in best.iter_mut().zip([*p, *q]) {
            if value > best.1 {
                *best = (at, value);
            }
        }
        let (ln_p, ln_q) = (f64::from(*p), f64::from(*q));
        let (p, q) = (ln_p.exp(), ln_q.exp());
        // 0 ln 0 is 0.
        let ratio = if p == 0.0 { 0.0 } else { p * (ln_p - ln_q) };
        kl += ratio - p + q;
        sums = [sums[0] + p, sums[1] + q];
    }
    Divergence { kl: if kl < 0.0 { 0.0 } else { kl }, agrees: best[0].0 == best[1].0, sums }
}

/// Compares `[positions, vocabulary]` with its like, position by position, on so many threads; the result does not depend on how many.
#[must_use]
pub fn divergences(dense: &[f32], other: &[f32], vocabulary: usize, threads: usize) -> Vec<Divergence> {
    let vocabulary = vocabulary.max(1);
    let rows = dense.len().min(other.len()) / vocabulary;
    let share = rows.div_ceil(threads.max(1)).max(1) * vocabulary;
    let row = |(p, q): (&[f32], &[f32])| divergence(p, q);
    std::thread::scope(|scope| {
        let parts: Vec<_> = dense[..rows * vocabulary]
            .chunks(share)
            .zip(other.chunks(share))
            .map(|(p, q)| {
                scope.spawn(move || {
                    p.chunks(vocabulary).zip(q.chunks(vocabulary)).map(row).collect::<Vec<_>>()
                })
            })
            .collect();
        // A thread only panics where this one would.
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Logarithms of the probabilities that these logits stand for.
    fn log_softmax(logits: &[f32]) -> Vec<f32> {
        let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        logits.iter().map(|x| (f64::from(*x) - sum.ln()) as f32).collect()
    }

    #[test]
    fn two_coins() {
        // 0.5 ln(0.5 / 0.9) + 0.5 ln(0.5 / 0.1) = ln(5 / 3)
        let of = |p: f64| [p.ln() as f32, (1.0 - p).ln() as f32];
        let found = divergence(&of(0.5), &of(0.9));
        assert!((found.kl - (5.0_f64 / 3.0).ln()).abs() < 1e-6 && found.agrees, "{found:?}");
        // 0.9 ln 9 + 0.1 ln(1 / 9) = 0.8 ln 9
        let found = divergence(&of(0.9), &of(0.1));
        assert!((found.kl - 0.8 * 9.0_f64.ln()).abs() < 1e-6 && !found.agrees, "{found:?}");
    }

    #[test]
    fn impossible_tokens_and_numbers_that_are_none() {
        let never = f32::NEG_INFINITY;
        let half = 0.5_f32.ln();
        assert_eq!(divergence(&[0.0, never], &[0.0, never]).kl, 0.0);
        assert!((divergence(&[0.0, never], &[half, half]).kl - 2.0_f64.ln()).abs() < 1e-6);
        assert_eq!(divergence(&[half, half], &[0.0, never]).kl, f64::INFINITY);
        assert!(divergence(&[half, half], &[f32::NAN, half]).kl.is_nan());
        // Logits are no logarithms of probabilities.
        assert_eq!(divergence(&[0.0, 0.0], &[half, half]).sums[0], 2.0);
        assert!((divergence(&[0.0, 0.0], &[half, half]).sums[1] - 1.0).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn it_is_0_for_equals_and_never_negative(
            logits in prop::collection::vec((-30.0_f32..30.0, -30.0_f32..30.0), 1..60),
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = logits.into_iter().unzip();
            let (a, b) = (log_softmax(&a), log_softmax(&b));
            let same = divergence(&a, &a);
            prop_assert!(same.kl.abs() < 1e-12 && same.agrees);
            let found = divergence(&a, &b);
            prop_assert!(found.kl >= 0.0);
            let plain: f64 = a.iter().zip(&b).map(|(p, q)| f64::from(*p).exp() * f64::from(p - q)).sum();
            prop_assert!((found.kl - plain).abs() < 1e-4 * (1.0 + plain.abs()), "{} and {}", found.kl, plain);
        }

        #[test]
        fn threads_change_nothing(rows in 0_usize..9, threads in 0_usize..5, vocabulary in 1_usize..6) {
            let value = |i: usize| -((i * 7919 % 101) as f32) / 20.0;
            let a: Vec<f32> = (0..rows * vocabulary).map(value).collect();
            let b: Vec<f32> = (0..rows * vocabulary).map(|i| value(i + 17)).collect();
            let expected: Vec<_> =
                a.chunks(vocabulary).zip(b.chunks(vocabulary)).map(|(p, q)| divergence(p, q)).collect();
            prop_assert_eq!(divergences(&a, &b, vocabulary, threads), expected);
        }
    }
}
