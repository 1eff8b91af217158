//! Products in 16 bits stay near those in single precision, and blocks that are read anew compute what kept ones do.

mod support;

use std::sync::Arc;

use llmcb_transformer::{LoadOptions, Model, Precision, ScoreRequest, Scorer};
use support::{CASES, golden, source, tokens};

fn open(name: &str, precision: Precision, stream: bool) -> Model {
    let case = &golden()["cases"][name];
    let options = LoadOptions { threads: 2, precision, stream };
    Model::from_source(Arc::new(source(case)), case["config"].clone(), name.to_owned(), &options).unwrap()
}

fn requests() -> Vec<ScoreRequest> {
    (0..4).map(|i| ScoreRequest { context: tokens(i, 9, 96), continuation: tokens(i + 50, 20, 96) }).collect()
}

fn log_likelihoods(model: &Model) -> Vec<f64> {
    let results = Scorer::new(model).unwrap().score(&requests()).unwrap();
    results.iter().flat_map(|r| r.token_log_likelihoods.iter().map(|l| f64::from(*l))).collect()
}

#[test]
fn sixteen_bits_stay_within_their_rounding() {
    for name in CASES {
        let exact = log_likelihoods(&open(name, Precision::F32, false));
        for (precision, bound) in [(Precision::BF16, 0.05), (Precision::F16, 0.007)] {
            let model = open(name, precision, false);
            assert_eq!(model.precision(), precision);
            let found = log_likelihoods(&model);
            let error =
                exact.iter().zip(&found).map(|(a, b)| (a - b).abs()).sum::<f64>() / exact.len() as f64;
            println!("{name}, {precision}: mean difference of a token's log-likelihood {error:.1e}");
            // Logits of these models have a spread of about 2; significands have 8 and 11 bits.
            assert!(error > 1e-6 && error < bound, "{name}, {precision}: {error}");
        }
    }
}

#[test]
fn streamed_blocks_compute_what_kept_ones_do() {
    for name in CASES {
        for precision in Precision::ALL {
            let (kept, streamed) = (open(name, precision, false), open(name, precision, true));
            assert!(streamed.streams() && !kept.streams());
            assert_eq!(log_likelihoods(&streamed), log_likelihoods(&kept), "{name}, {precision}");
        }
    }
}

#[test]
fn precisions_are_found_by_name() {
    for precision in Precision::ALL {
        assert_eq!(precision.name().parse::<Precision>().unwrap(), precision);
    }
    assert!("fp8".parse::<Precision>().unwrap_err().to_string().contains("f32, bf16, f16"));
}
