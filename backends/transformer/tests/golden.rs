//! Reference logits of every family.

mod support;

use support::{CASES, golden, model};

#[test]
fn logits_agree_with_the_upstream_implementations() {
    let golden = golden();
    let ids: Vec<u32> =
        golden["input_ids"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect();
    for name in CASES {
        let case = &golden["cases"][name];
        for threads in [1, 2] {
            let logits = model(name, threads).logits(&ids).unwrap();
            let mut worst = 0f64;
            for (t, row) in case["logits"].as_array().unwrap().iter().enumerate() {
                for (i, want) in row.as_array().unwrap().iter().enumerate() {
                    worst = worst.max((f64::from(logits[t * 96 + i]) - want.as_f64().unwrap()).abs());
                }
            }
            println!("{name} on {threads} threads: largest difference {worst:.2e}");
            assert!(worst < 1e-4, "{name}: {worst}");
        }
    }
}

#[test]
fn mean_log_likelihood_agrees_with_the_upstream_implementations() {
    use llmcb_transformer::{ScoreRequest, Scorer};
    let golden = golden();
    let ids: Vec<u32> =
        golden["input_ids"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect();
    for name in CASES {
        let model = model(name, 2);
        let request = ScoreRequest { context: ids[..1].to_vec(), continuation: ids[1..].to_vec() };
        let result = &Scorer::new(&model).unwrap().score(&[request]).unwrap()[0];
        let mean = -result.log_likelihood / (ids.len() - 1) as f64;
        let want = golden["cases"][name]["nll_mean"].as_f64().unwrap();
        assert!((mean - want).abs() < 1e-5, "{name}: {mean}, not {want}");
    }
}
