//! Every wrong input is an error that names what was wrong.

use llmcb_method_kit::{
    KitError, Matrix,
    clipping::Clipping,
    gptq::{GptqOptions, gptq},
    grid::{GridOptions, RangeSearch, round_to_nearest},
    hessian::{FactorOptions, Hessian, InverseFactor},
    mask::{Sparsity, magnitude, wanda, wanda_variant},
    sparsegpt::sparsegpt,
};

fn identity(n: usize) -> Vec<f64> {
    (0..n * n).map(|i| f64::from(u8::from(i / n == i % n))).collect()
}

fn factor(n: usize) -> InverseFactor {
    Hessian::from_gram(&identity(n), n, 1).and_then(|h| h.factor(&FactorOptions::default())).expect("factor")
}

#[track_caller]
fn says<T: std::fmt::Debug>(result: Result<T, KitError>, words: &str) {
    let message = result.expect_err(words).to_string();
    assert!(message.contains(words), "{message:?} lacks {words:?}");
}

#[test]
fn matrices() {
    says(Matrix::new(&[], 0, 3), "[0, 3]");
    says(Matrix::new(&[1.0], 2, 3), "1 elements");
    says(Matrix::new(&[1.0], usize::MAX, 3), "too large");
    says(Matrix::new(&[1.0, f32::NAN], 1, 2), "NaN at row 0, column 1");
    says(Matrix::new(&[1.0, f32::NEG_INFINITY], 2, 1), "-inf at row 1");
    says(Matrix::new(&[f32::MAX], 1, 1), "row 0, column 0");
}

#[test]
fn clippings() {
    says(Clipping::new(0, 3, 4, None, true), "[0, 3]");
    says(Clipping::new(3, 0, 4, Some(128), true), "[3, 0]");
}

#[test]
fn grid_options() {
    let w = [1.0, -2.0];
    let matrix = Matrix::new(&w, 1, 2).expect("matrix");
    let good = GridOptions::default();
    for bits in [0, 1, 9, 255] {
        says(round_to_nearest(matrix, &GridOptions { bits, ..good }), "bits");
    }
    let group_size = Some(0);
    says(round_to_nearest(matrix, &GridOptions { group_size, ..good }), "group_size");
    let search = |norm, steps, max_shrink| GridOptions {
        search: Some(RangeSearch { norm, steps, max_shrink }),
        ..good
    };
    says(search(f32::NAN, 100, 0.8).validate(), "norm");
    says(search(0.0, 100, 0.8).validate(), "norm");
    says(search(2.4, 0, 0.8).validate(), "steps");
    says(search(2.4, u32::MAX, 0.8).validate(), "steps");
    says(search(2.4, 100, f64::NAN).validate(), "max_shrink");
    says(search(2.4, 100, 1.5).validate(), "max_shrink");
}

#[test]
fn extreme_weights_stay_finite() {
    for w in [[0.0, 0.0, 0.0], [1e-45, 0.0, -1e-45], [8e37, -8e37, 1.0], [1e-45, 8e37, 0.0]] {
        for bits in 2..=8 {
            for symmetric in [false, true] {
                for search in [None, Some(RangeSearch::default())] {
                    let options = GridOptions { bits, group_size: Some(2), symmetric, search };
                    let matrix = Matrix::new(&w, 1, 3).expect("matrix");
                    let q = round_to_nearest(matrix, &options).expect("quantised");
                    assert!(q.dequantize().iter().all(|x| x.is_finite()), "{w:?} {options:?}");
                    assert!(q.scales.iter().all(|&s| s > 0.0), "{w:?} {options:?}");
                }
            }
        }
    }
}

#[test]
fn grams() {
    says(Hessian::from_gram(&[1.0f32], 0, 1), "[0, 0]");
    says(Hessian::from_gram(&[1.0f32], 2, 1), "1 elements");
    says(Hessian::from_gram(&[1.0f32], 1, 0), "sequences");
    says(Hessian::from_gram(&[f32::NAN], 1, 1), "NaN");
    says(Hessian::from_gram(&[f64::MAX], 1, 1), "row 0, column 0");
    says(Hessian::from_gram(&[-1.0], 1, 1), "diagonal");
    says(Hessian::from_gram(&[1.0, 0.5, 0.1, 1.0], 2, 1), "[1, 0] and [0, 1]");
    says(Hessian::from_gram(&[1.0f32; 3], usize::MAX, 1), "too large");
}

#[test]
fn damping_is_raised_until_there_is_a_factor() {
    let hessian = Hessian::from_gram(&[1.0; 9], 3, 1).expect("Hessian");
    let options = |damping| FactorOptions { damping, activation_order: false };
    let used = hessian.factor(&options(0.0)).expect("factor").damping();
    assert!(used > 0.0 && used <= 1e-3, "{used}");
    assert_eq!(hessian.factor(&options(0.01)).expect("factor").damping(), 0.01);
    says(hessian.factor(&options(-0.1)), "damping");
    says(hessian.factor(&options(f64::NAN)), "damping");
    // Symmetric, but no Gram matrix: no damping up to the last one tried helps.
    let hessian = Hessian::from_gram(&[1.0, 1e9, 1e9, 1.0], 2, 1).expect("Hessian");
    says(hessian.factor(&options(0.01)), "not positive definite");
}

#[test]
fn nothing_but_dead_inputs_gives_zeros() {
    let hessian = Hessian::from_gram(&[0.0; 16], 4, 1).expect("Hessian");
    let factor = hessian.factor(&FactorOptions::default()).expect("factor");
    assert_eq!(factor.dead(), [true; 4]);
    let w = [1.0, 2.0, 3.0, -4.0];
    let matrix = Matrix::new(&w, 1, 4).expect("matrix");
    let solved = gptq(matrix, &factor, &GptqOptions::default()).expect("solved");
    assert_eq!(solved.quantized.dequantize(), [0.0; 4]);
    assert_eq!(hessian.relative_output_error(matrix, matrix), Ok(0.0));
}

#[test]
fn solvers() {
    let w = [1.0, -2.0, 3.0, 4.0];
    let matrix = Matrix::new(&w, 1, 4).expect("matrix");
    let good = GptqOptions::default();
    says(gptq(matrix, &factor(3), &good), "4");
    says(gptq(matrix, &factor(4), &GptqOptions { block_size: 0, ..good }), "block_size");
    let grid = GridOptions { bits: 1, ..good.grid };
    says(gptq(matrix, &factor(4), &GptqOptions { grid, ..good }), "bits");
    let half = Sparsity::Unstructured { ratio: 0.5 };
    says(sparsegpt(matrix, &factor(3), half, 128), "4");
    says(sparsegpt(matrix, &factor(4), half, 0), "block_size");
    says(sparsegpt(matrix, &factor(4), Sparsity::Pattern { prune: 1, of: 2 }, 3), "block");
    let ordered = Hessian::from_gram(&identity(4), 4, 1)
        .and_then(|h| h.factor(&FactorOptions { damping: 0.01, activation_order: true }))
        .expect("factor");
    says(sparsegpt(matrix, &ordered, half, 128), "activation_order");
    // Group and block sizes beyond the columns, to the end of the numbers.
    let grid = GridOptions { group_size: Some(usize::MAX), ..good.grid };
    let block_size = usize::MAX;
    for static_groups in [false, true] {
        let options = GptqOptions { grid, static_groups, block_size };
        gptq(matrix, &factor(4), &options).expect("solved");
    }
    round_to_nearest(matrix, &grid).expect("quantised");
    sparsegpt(matrix, &factor(4), half, usize::MAX).expect("solved");
}

#[test]
fn sparsities() {
    let w = [1.0, -2.0, 3.0, 4.0, 5.0];
    let matrix = Matrix::new(&w, 1, 5).expect("matrix");
    for ratio in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        says(magnitude(matrix, Sparsity::Unstructured { ratio }), "sparsity");
    }
    says(magnitude(matrix, Sparsity::Pattern { prune: 2, of: 4 }), "columns of 5");
    says(magnitude(matrix, Sparsity::Pattern { prune: 2, of: 0 }), "pattern");
    says(magnitude(matrix, Sparsity::Pattern { prune: 6, of: 5 }), "pattern");
    let half = Sparsity::Unstructured { ratio: 0.5 };
    says(wanda(matrix, &[1.0; 4], half), "4 elements");
    says(wanda(matrix, &[1.0, 1.0, f32::NAN, 1.0, 1.0], half), "column 2");
    says(wanda(matrix, &[1.0, -1.0, 1.0, 1.0, 1.0], half), "input 1");
    says(wanda_variant(matrix, &[1.0; 4], 0.5), "4 elements");
    says(wanda_variant(matrix, &[1.0, 1.0, f32::INFINITY, 1.0, 1.0], 0.5), "column 2");
    for ratio in [-0.1, 1.1, f64::NAN] {
        says(wanda_variant(matrix, &[1.0; 5], ratio), "sparsity");
    }
    let zeros = [0.0; 5];
    let nothing = wanda_variant(Matrix::new(&zeros, 1, 5).expect("matrix"), &[0.0; 5], 0.5);
    assert_eq!(nothing.expect("mask").sparsity(), 1.0);
    for ratio in [0.0, 1.0] {
        let sparsity = Sparsity::Unstructured { ratio };
        assert_eq!(magnitude(matrix, sparsity).expect("mask").sparsity(), ratio);
        let solved = sparsegpt(matrix, &factor(5), sparsity, 2).expect("solved");
        assert_eq!(solved.mask.sparsity(), ratio);
    }
    let mask = magnitude(matrix, half).expect("mask");
    says(mask.apply(&mut [1.0]), "1 elements");
}
