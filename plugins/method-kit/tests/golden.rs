//! Agreement with the published algorithms, case by case (see `golden/README.md`).

mod seeded;

use llmcb_method_kit::{
    Matrix,
    clipping::Clipping,
    gptq::{GptqOptions, gptq},
    grid::{GridOptions, Quantized, RangeSearch, round_to_nearest},
    hessian::{FactorOptions, Hessian},
    mask::{Mask, Sparsity, magnitude, wanda, wanda_variant},
    sparsegpt::sparsegpt,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct File<T> {
    cases: Vec<T>,
}

#[derive(Deserialize)]
struct GridCase {
    weight_seed: u64,
    rows: usize,
    cols: usize,
    bits: u8,
    group_size: Option<usize>,
    symmetric: bool,
    mse: bool,
    codes: Vec<String>,
    scales: Vec<f32>,
    zeros: Vec<u8>,
}

impl GridCase {
    fn options(&self) -> GridOptions {
        GridOptions {
            bits: self.bits,
            group_size: self.group_size,
            symmetric: self.symmetric,
            search: self.mse.then(RangeSearch::default),
        }
    }

    fn name(&self) -> String {
        format!("seed {} [{}, {}] {:?}", self.weight_seed, self.rows, self.cols, self.options())
    }

    fn weight(&self) -> Vec<f32> {
        seeded::weights(self.weight_seed, self.rows, self.cols, true)
    }

    fn codes(&self) -> Vec<u8> {
        let text = self.codes.concat();
        (0..text.len() / 2)
            .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hexadecimal"))
            .collect()
    }

    /// The matrix as published code quantised it.
    fn published(&self, group_index: &[u32]) -> Quantized {
        Quantized {
            rows: self.rows,
            cols: self.cols,
            bits: self.bits,
            group_size: self.group_size,
            symmetric: self.symmetric,
            codes: self.codes(),
            scales: self.scales.clone(),
            zeros: self.zeros.clone(),
            group_index: group_index.to_vec(),
        }
    }
}

#[derive(Deserialize)]
struct GptqCase {
    #[serde(flatten)]
    grid: GridCase,
    input_seed: u64,
    tokens: usize,
    sequences: usize,
    act_order: bool,
    static_groups: bool,
    block_size: usize,
    percdamp: f64,
    dead: Vec<usize>,
    g_idx: Vec<u32>,
    loss: f64,
}

#[derive(Deserialize)]
struct MaskCase {
    #[serde(default)]
    method: String,
    weight_seed: u64,
    input_seed: u64,
    tokens: usize,
    rows: usize,
    cols: usize,
    dead: Vec<usize>,
    ratio: f64,
    prune: usize,
    of: usize,
    mask: Vec<String>,
}

impl MaskCase {
    fn sparsity(&self) -> Sparsity {
        if self.of == 0 {
            Sparsity::Unstructured { ratio: self.ratio }
        } else {
            Sparsity::Pattern { prune: self.prune, of: self.of }
        }
    }

    fn name(&self) -> String {
        format!("{} seed {} {:?}", self.method, self.weight_seed, self.sparsity())
    }

    fn weight(&self) -> Vec<f32> {
        seeded::weights(self.weight_seed, self.rows, self.cols, false)
    }

    fn gram(&self) -> Vec<f64> {
        let x = seeded::inputs(self.input_seed, self.tokens, self.cols, &self.dead);
        seeded::gram(&x, self.cols)
    }

    fn mask(&self) -> Vec<bool> {
        self.mask.concat().bytes().map(|b| b == b'1').collect()
    }
}

#[derive(Deserialize)]
struct SparseGptCase {
    #[serde(flatten)]
    mask: MaskCase,
    sequences: usize,
    block_size: usize,
    percdamp: f64,
    weights: Vec<f32>,
    loss: f64,
}

fn differing<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).filter(|(a, b)| a != b).count()
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * a.abs().max(b.abs())
}

#[test]
fn rounding_to_nearest_agrees() {
    let file: File<GridCase> = serde_json::from_str(include_str!("golden/rtn.json")).expect("golden file");
    assert!(file.cases.len() > 30);
    for case in &file.cases {
        let weight = case.weight();
        let matrix = Matrix::new(&weight, case.rows, case.cols).expect("matrix");
        let ours = round_to_nearest(matrix, &case.options()).expect("quantised");
        assert_eq!(ours.codes, case.codes(), "codes, {}", case.name());
        assert_eq!(ours.scales, case.scales, "scales, {}", case.name());
        assert_eq!(ours.zeros, case.zeros, "zeros, {}", case.name());
    }
}

#[test]
fn gptq_agrees() {
    let file: File<GptqCase> = serde_json::from_str(include_str!("golden/gptq.json")).expect("golden file");
    assert_eq!(file.cases.len(), 20);
    for case in &file.cases {
        let grid = &case.grid;
        let name = format!("{} act_order {} static {}", grid.name(), case.act_order, case.static_groups);
        let weight = grid.weight();
        let matrix = Matrix::new(&weight, grid.rows, grid.cols).expect("matrix");
        let x = seeded::inputs(case.input_seed, case.tokens, grid.cols, &case.dead);
        let gram = seeded::gram(&x, grid.cols);
        let hessian = Hessian::from_gram(&gram, grid.cols, case.sequences).expect("Hessian");
        let factor = hessian
            .factor(&FactorOptions { damping: case.percdamp, activation_order: case.act_order })
            .expect("factor");
        assert_eq!(factor.damping(), case.percdamp);
        let options = GptqOptions {
            grid: grid.options(),
            static_groups: case.static_groups,
            block_size: case.block_size,
        };
        let ours = gptq(matrix, &factor, &options).expect("solved");

        assert_eq!(ours.quantized.group_index, case.g_idx, "groups, {name}");
        let wrong = differing(&ours.quantized.codes, &grid.codes());
        println!("{name}: {wrong} of {} codes differ; loss {} / {}", weight.len(), ours.loss, case.loss);
        // Both factors are rounded differently, so a weight on the edge between two codes may fall either way,
        // and its row with it; the outputs' error must not care.
        assert!(wrong * 100 <= weight.len(), "{wrong} codes differ, {name}");
        assert!(close(ours.loss, case.loss, 2e-3), "loss, {name}");
        let theirs = grid.published(&case.g_idx).dequantize();
        let theirs = Matrix::new(&theirs, grid.rows, grid.cols).expect("matrix");
        let ours = ours.quantized.dequantize();
        let ours = Matrix::new(&ours, grid.rows, grid.cols).expect("matrix");
        let ours = hessian.relative_output_error(matrix, ours).expect("error");
        let theirs = hessian.relative_output_error(matrix, theirs).expect("error");
        assert!(close(ours, theirs, 2e-3), "{ours} and {theirs}, {name}");
    }
}

#[test]
fn masks_agree() {
    let file: File<MaskCase> = serde_json::from_str(include_str!("golden/mask.json")).expect("golden file");
    assert_eq!(file.cases.len(), 17);
    for case in &file.cases {
        let weight = case.weight();
        let matrix = Matrix::new(&weight, case.rows, case.cols).expect("matrix");
        let mean_square = || -> Vec<f32> {
            let tokens = case.tokens as f64;
            case.gram().iter().step_by(case.cols + 1).map(|g| (g / tokens) as f32).collect()
        };
        let mask: Mask = match case.method.as_str() {
            "magnitude" => magnitude(matrix, case.sparsity()),
            "wanda" => wanda(matrix, &mean_square(), case.sparsity()),
            "wanda-variant" => wanda_variant(matrix, &mean_square(), case.ratio),
            other => panic!("no method is called {other}"),
        }
        .expect("mask");
        assert_eq!(mask.pruned(), case.mask(), "{}", case.name());
    }
}

#[test]
fn sparsegpt_agrees() {
    let file: File<SparseGptCase> =
        serde_json::from_str(include_str!("golden/sparsegpt.json")).expect("golden file");
    assert_eq!(file.cases.len(), 8);
    for case in &file.cases {
        let mask = &case.mask;
        let weight = mask.weight();
        let matrix = Matrix::new(&weight, mask.rows, mask.cols).expect("matrix");
        let factor = Hessian::from_gram(&mask.gram(), mask.cols, case.sequences)
            .and_then(|h| h.factor(&FactorOptions { damping: case.percdamp, activation_order: false }))
            .expect("factor");
        let ours = sparsegpt(matrix, &factor, mask.sparsity(), case.block_size).expect("solved");
        assert_eq!(ours.mask.pruned(), mask.mask(), "{}", mask.name());
        assert!(close(ours.loss, case.loss, 1e-4), "loss, {}", mask.name());
        for (i, (a, b)) in ours.weight.iter().zip(&case.weights).enumerate() {
            assert!((a - b).abs() <= 1e-4, "weight {i}: {a} / {b}, {}", mask.name());
        }
    }
}

#[derive(Deserialize)]
struct ClippingCase {
    seed: u64,
    rows: usize,
    cols: usize,
    bits: u8,
    group_size: Option<usize>,
    rounded: Vec<f32>,
    weight_gradient: Vec<f32>,
    upper_gradient: Vec<f32>,
    lower_gradient: Vec<f32>,
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= 1e-5 * (1.0 + e.abs()), "{what}, {i}: {f} instead of {e}");
    }
}

#[test]
fn clipping_and_its_gradients() {
    let file: File<ClippingCase> = serde_json::from_str(include_str!("golden/clipping.json")).expect("cases");
    for case in file.cases {
        let groups = case.group_size.map_or(1, |size| case.cols / size);
        let weight = seeded::weights(case.seed, case.rows, case.cols, true);
        let logits = |seed| -> Vec<f32> {
            seeded::weights(seed, case.rows, groups, false).iter().map(|w| 8.0 * w + 2.0).collect()
        };
        let mut clipping =
            Clipping::new(case.rows, case.cols, case.bits, case.group_size, true).expect("options");
        *clipping.logits_mut().expect("logits") = [logits(case.seed + 1), logits(case.seed + 2)];
        let what = format!("seed {}", case.seed);
        assert_close(&what, &clipping.round(&weight).expect("rounded"), &case.rounded);
        assert_close(&what, &clipping.quantize(&weight).expect("codes").dequantize(), &case.rounded);
        let gradient = seeded::weights(case.seed + 3, case.rows, case.cols, false);
        let found = clipping.backward(&weight, &gradient).expect("gradients");
        assert_close(&format!("{what}, weight"), &found.weight, &case.weight_gradient);
        assert_close(&format!("{what}, upper"), &found.logits[0], &case.upper_gradient);
        assert_close(&format!("{what}, lower"), &found.logits[1], &case.lower_gradient);
    }
}
