use proptest::prelude::*;

use super::*;
use crate::tasks::{Answered, Asked, ItemResult, Outcome};

fn question(index: usize, log_likelihoods: &[f64], target: usize, asked: Vec<Asked>) -> ItemResult {
    let largest = log_likelihoods.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let chosen = log_likelihoods.iter().position(|ll| *ll == largest);
    ItemResult {
        task: "t".to_owned(),
        doc_id: format!("d{index}"),
        index,
        subset: None,
        outcome: Outcome::Choice {
            asked,
            answered: Answered {
                log_likelihoods: log_likelihoods.to_vec(),
                chosen,
                chosen_norm: None,
                acc: u8::from(chosen == Some(target)),
                acc_norm: None,
                mass: None,
            },
            target,
        },
        truncated: false,
    }
}

fn asked(context: Option<&str>, continuation: &str) -> Asked {
    Asked { context: context.map(str::to_owned), continuation: continuation.to_owned() }
}

fn answers(pairs: &[(&str, &str)]) -> Vec<ItemResult> {
    let one = |(index, (given, right)): (usize, &(&str, &str))| {
        question(index, &[-1.0, -2.0], 1, vec![asked(Some("q"), given), asked(None, right)])
    };
    pairs.iter().enumerate().map(one).collect()
}

fn score(name: &str, items: &[ItemResult]) -> Scores {
    let metric = built_in(name).unwrap();
    metric.score(&columns(&metric.describe().fields().unwrap(), items).unwrap()).unwrap()
}

#[test]
fn probabilities_are_scored_as_scikit_learn_and_pycalib_score_them() {
    let rows: [(&[f64], usize); 6] = [
        (&[-1.0, -2.0, -0.5], 2),
        (&[-3.0, -0.25, -4.0], 1),
        (&[-0.1, -5.0, -2.5], 1),
        (&[-1.5, -1.5, -1.5], 0),
        (&[-7.0, -0.01, -6.0], 1),
        (&[-0.7, -0.8, -3.0], 1),
    ];
    let items: Vec<ItemResult> =
        rows.iter().enumerate().map(|(at, (lls, target))| question(at, lls, *target, Vec::new())).collect();
    // sklearn.metrics.brier_score_loss(scale_by_half=False) of scikit-learn 1.7, pycalib.metrics.conf_ECE(bins=15) of pycalib 0.1.0.
    let brier = score("brier_score", &items);
    assert!((brier.value - 0.563_718_842_556_048_6).abs() < 1e-14, "{}", brier.value);
    assert_eq!(brier.per_item.map(|values| values.len()), Some(6));
    let error = score("expected_calibration_error", &items);
    assert!((error.value - 0.408_742_675_845_515_2).abs() < 1e-14, "{}", error.value);
    assert_eq!(error.per_item, None);
}

#[test]
fn answers_are_compared_as_squads_script_compares_them() {
    // Values of torchmetrics 1.9's copy of that script.
    for (given, right, exact, f1) in [
        ("The quick, brown fox", "a quick brown fox!", 1.0, 1.0),
        ("Paris", "paris.", 1.0, 1.0),
        ("in the north-west", "North West", 0.0, 0.0),
        ("", "", 1.0, 1.0),
        ("the", "a", 1.0, 1.0),
        ("42", "forty two", 0.0, 0.0),
        ("dog dog cat", "dog cat cat", 0.0, 0.666_666_666_666_666_6),
        ("It's Ångström's", "its ångströms", 1.0, 1.0),
    ] {
        let items = answers(&[(given, right)]);
        assert_eq!(score("exact_match", &items).value, exact, "{given} {right}");
        assert_eq!(score("token_f1", &items).value, f1, "{given} {right}");
    }
}

#[test]
fn columns_are_what_the_list_of_fields_says() {
    let items = answers(&[(" Paris", " London"), (" two ", " 2")]);
    for field in FIELDS {
        let column = columns(&[field], &items);
        match field.of.has(false) {
            true => assert_eq!(column.unwrap()[0].kind(), field.kind, "{field:?}"),
            false => {
                let says = format!("it reads `{}`, which only windows of texts have", field.name);
                assert!(column.unwrap_err().starts_with(&says), "{field:?}");
            }
        }
    }
    let of = |name: &str| columns(&[fields::field(name).unwrap()], &items).unwrap().remove(0);
    let texts = |list: [&str; 2]| Column::Texts(list.map(str::to_owned).to_vec());
    assert_eq!(of("prediction"), texts(["Paris", "two"]));
    assert_eq!(of("reference"), texts(["London", "2"]));
    assert_eq!(of("context"), texts(["q", "q"]));
    assert_eq!((of("chosen"), of("target")), (Column::Indices(vec![0, 0]), Column::Indices(vec![1, 1])));
    let lls = Column::Ragged { offsets: vec![0, 2, 4], values: vec![-1.0, -2.0, -1.0, -2.0] };
    assert_eq!(of("log_likelihoods"), lls);
    // Choices that differ in what is before the scored text, as WinoGrande's do.
    let two = vec![asked(Some("The dog"), " was hungry."), asked(Some("The cat"), " was hungry.")];
    let items = [question(0, &[-2.0, -1.0], 0, two)];
    let of = |name: &str| columns(&[fields::field(name).unwrap()], &items).unwrap().remove(0);
    assert_eq!(of("prediction"), Column::Texts(vec!["The cat was hungry.".to_owned()]));
    assert_eq!(of("reference"), Column::Texts(vec!["The dog was hungry.".to_owned()]));
}

fn description() -> Description {
    built_in("exact_match").unwrap().describe()
}

#[test]
fn descriptions_that_are_none_say_why() {
    let ok = description();
    assert!(ok.fields().is_ok() && ok.fits(false) && !ok.fits(true));
    for (bad, says) in [
        (Description { name: "A".into(), ..ok.clone() }, "its name \"A\" is none"),
        (Description { name: "x".repeat(41), ..ok.clone() }, "is none"),
        (Description { name: String::new(), ..ok.clone() }, "its name \"\" is none"),
        (Description { name: "perplexity".into(), ..ok.clone() }, "which tasks have of themselves"),
        (Description { unit: "a\nb".into(), ..ok.clone() }, "its unit must be one line"),
        (Description { fields: Vec::new(), ..ok.clone() }, "it reads no field"),
        (Description { fields: vec!["answer_text".into()], ..ok.clone() }, "they have doc_id, subset"),
        (Description { fields: vec!["probability".into()], ..ok.clone() }, "did you mean `probabilities`?"),
    ] {
        let error = bad.fields().unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn values_that_are_none_say_why() {
    let of = description();
    let metric = |value, per_item: Option<&[f64]>, items| {
        Scores { value, per_item: per_item.map(<[f64]>::to_vec) }.metric(&of, items)
    };
    let found = metric(0.5, Some(&[0.0, 1.0]), 2).unwrap();
    assert_eq!((found.value, found.stderr, found.n), (0.5, Some(0.5), 2));
    assert_eq!(metric(3.0, None, 2).unwrap().stderr, None);
    // A model that broke is no error.
    assert_eq!(metric(f64::INFINITY, Some(&[1.0, f64::INFINITY]), 2).unwrap().value, f64::INFINITY);
    for (value, per_item, says) in [
        (f64::NAN, None, "its value is not a number"),
        (0.5, Some(&[0.5][..]), "1 values per item for 2 items"),
        (0.5, Some(&[0.5, f64::NAN]), "its value of item 1 is not a number"),
        (0.6, Some(&[0.0, 1.0]), "0.6 is not the mean of its values per item, 0.5"),
        (1.0, Some(&[1.0, f64::INFINITY]), "1 is not the mean"),
    ] {
        let error = metric(value, per_item, 2).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

proptest! {
    #[test]
    fn probabilities_are_shares(lls in prop::collection::vec(prop_oneof![
        -800.0..0.0f64, Just(f64::NEG_INFINITY), Just(f64::NAN), Just(f64::INFINITY)
    ], 1..9)) {
        let items = [question(0, &lls, 0, Vec::new())];
        let column = columns(&[fields::field("probabilities").unwrap()], &items).unwrap().remove(0);
        let Column::Ragged { values, .. } = column else { panic!("shares") };
        prop_assert!(values.iter().all(|p| (0.0..=1.0).contains(p)), "{:?}", values);
        let sum: f64 = values.iter().sum();
        prop_assert!(sum == 0.0 || (sum - 1.0).abs() < 1e-12, "{}", sum);
        prop_assert_eq!(sum == 0.0, lls.contains(&f64::INFINITY) || !lls.iter().any(|ll| ll.is_finite()));
        for name in ["brier_score", "expected_calibration_error"] {
            prop_assert!(score(name, &items).metric(&built_in(name).unwrap().describe(), 1).is_ok());
        }
    }
}
