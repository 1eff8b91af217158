use super::*;
use proptest::prelude::*;

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * (1.0 + a.abs().max(b.abs()))
}

#[test]
fn mean_and_error_of_known_samples() {
    // (values, mean, sqrt(var(ddof=1)/n)), computed by hand.
    for (values, m, e) in [
        (vec![1.0, 0.0, 1.0, 1.0], 0.75, Some(0.25)),
        (vec![1.0, 1.0], 1.0, Some(0.0)),
        (vec![0.5], 0.5, None),
        (vec![1.0, 2.0, 3.0], 2.0, Some((1.0_f64 / 3.0).sqrt())),
    ] {
        assert!(close(mean(&values), m), "{values:?}");
        match (mean_stderr(&values), e) {
            (Some(a), Some(b)) => assert!(close(a, b), "{values:?}: {a} {b}"),
            (a, b) => assert_eq!(a, b),
        }
    }
}

#[test]
fn perplexity_of_equal_windows_is_exact_and_has_no_spread() {
    let (value, stderr) = perplexity(&[2.0_f64.ln(), 2.0_f64.ln()]);
    assert!(close(value, 2.0));
    assert_eq!(stderr, Some(0.0));
}

#[test]
fn a_broken_model_has_infinite_perplexity_and_still_round_trips_through_json() {
    let (value, stderr) = perplexity(&[f64::INFINITY, 1.0]);
    assert_eq!((value, stderr), (f64::INFINITY, None));
    for value in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 0.1] {
        let metric = MetricValue {
            name: "perplexity".to_owned(),
            subset: None,
            value,
            stderr,
            n: 2,
            higher_is_better: false,
            unit: String::new(),
        };
        let text = serde_json::to_string(&metric).unwrap();
        let back: MetricValue = serde_json::from_str(&text).unwrap();
        assert!(back.value.to_bits() == value.to_bits() || (value.is_nan() && back.value.is_nan()), "{text}");
    }
    assert!(
        serde_json::from_str::<MetricValue>(
            r#"{"name":"a","value":"lots","n":1,"higher_is_better":true,"unit":""}"#
        )
        .is_err()
    );
}

fn item(subset: &str, acc: u8) -> ItemResult {
    ItemResult {
        task: "mmlu".to_owned(),
        doc_id: String::new(),
        index: 0,
        subset: Some(subset.to_owned()),
        outcome: Outcome::Choice {
            asked: Vec::new(),
            answered: Answered {
                mass: None,
                log_likelihoods: vec![-1.0, -2.0],
                chosen: Some(0),
                chosen_norm: None,
                acc,
                acc_norm: None,
            },
            target: 0,
        },
        truncated: false,
    }
}

#[test]
fn subjects_are_weighted_by_size() {
    let mut items: Vec<ItemResult> = (0..3).map(|i| item("anatomy", u8::from(i == 0))).collect();
    items.extend((0..6).map(|_| item("astronomy", 1)));
    items.extend((0..2).map(|_| item("management", 0)));
    let category = |s: &str| match s {
        "anatomy" | "astronomy" => Some("stem"),
        _ => Some("other"),
    };
    let metrics = of_items(&items, category);
    let find = |subset: Option<&str>| metrics.iter().find(|m| m.subset.as_deref() == subset).unwrap();
    assert!(close(find(None).value, 7.0 / 11.0));
    assert_eq!(find(None).n, 11);
    assert!(close(find(Some("stem")).value, 7.0 / 9.0));
    assert!(close(find(Some("anatomy")).value, 1.0 / 3.0));
    // Pooled: variances 1/3, 0, 0 of sizes 3, 6, 2 -> (2/3) / (11 - 3) / 11.
    assert!(close(find(None).stderr.unwrap(), (2.0_f64 / 3.0 / 8.0 / 11.0).sqrt()));
    assert_eq!(metrics.len(), 1 + 2 + 3);
}

proptest! {
    #[test]
    fn pooling_one_sample_is_its_own_error(values in prop::collection::vec(0.0_f64..1.0, 2..50)) {
        let own = mean_stderr(&values).unwrap();
        let pooled = pooled_stderr(&[(values.len(), sample_variance(&values).unwrap())]).unwrap();
        prop_assert!((own - pooled).abs() < 1e-12);
    }

    #[test]
    fn perplexity_is_the_exponential_of_the_mean(values in prop::collection::vec(0.0_f64..10.0, 1..50)) {
        let (value, _) = perplexity(&values);
        prop_assert!((value.ln() - mean(&values)).abs() < 1e-9);
    }
}

#[test]
fn divergence_of_windows_is_their_mean_with_the_error_of_windows() {
    let window = |index: usize, kl: f64, agreed: usize| ItemResult {
        index,
        outcome: Outcome::Divergence { first_token: 0, kl, agreed, tokens: 10 },
        ..item("", 0)
    };
    let found = of_items(&[window(0, 1.0, 9), window(1, 2.0, 8), window(2, 3.0, 10)], |_| None);
    let [kl, agreement] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (kl.name.as_str(), kl.n, kl.higher_is_better, kl.unit.as_str()),
        ("kl_divergence", 3, false, "nats")
    );
    assert!(close(kl.value, 0.2) && close(kl.stderr.unwrap(), 0.1 / 3.0_f64.sqrt()), "{kl:?}");
    assert_eq!((agreement.name.as_str(), agreement.higher_is_better), ("top1_agreement", true));
    assert!(
        close(agreement.value, 0.9) && close(agreement.stderr.unwrap(), 0.1 / 3.0_f64.sqrt()),
        "{agreement:?}"
    );
}
