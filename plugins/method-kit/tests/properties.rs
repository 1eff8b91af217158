//! Properties that hold for any input, against plain double-precision arithmetic where there is some.

mod seeded;

use llmcb_method_kit::{
    Matrix,
    gptq::{GptqOptions, gptq},
    grid::{GridOptions, RangeSearch, round_to_nearest},
    hessian::{FactorOptions, Hessian},
    mask::{Sparsity, magnitude, wanda, wanda_variant},
    sparsegpt::sparsegpt,
};
use proptest::prelude::*;

fn hessian(seed: u64, cols: usize, dead: &[usize]) -> Hessian {
    let x = seeded::inputs(seed, 3 * cols + 8, cols, dead);
    Hessian::from_gram(&seeded::gram(&x, cols), cols, 2).expect("Hessian")
}

/// GPTQ without blocks, in doubles: after each rounding the error goes to all later columns at once. Gives each
/// weight with how far it was, in steps, from where it would have been rounded to another code.
fn naive_gptq(w: &[f32], cols: usize, upper: &[f64], grid: &GridOptions) -> Vec<(f32, f64)> {
    let mut out = Vec::new();
    for row in w.chunks(cols) {
        let grid = grid.fit(row);
        let mut row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        for i in 0..cols {
            let q = grid.nearest(row[i] as f32);
            let steps = row[i] / f64::from(grid.scale());
            let error = (row[i] - f64::from(q)) / upper[i * cols + i];
            for (x, u) in row[i..].iter_mut().zip(&upper[i * cols + i..]) {
                *x -= error * u;
            }
            out.push((q, ((steps - steps.floor()) - 0.5).abs()));
        }
    }
    out
}

/// Upper factor of the inverse the long way: invert, then factor.
fn naive_upper(h: &[f64], n: usize) -> Vec<f64> {
    let mut a = h.to_vec();
    let mut inverse: Vec<f64> = (0..n * n).map(|i| f64::from(u8::from(i / n == i % n))).collect();
    for i in 0..n {
        let pivot = a[i * n + i];
        for j in 0..n {
            a[i * n + j] /= pivot;
            inverse[i * n + j] /= pivot;
        }
        for k in (0..n).filter(|&k| k != i) {
            let f = a[k * n + i];
            for j in 0..n {
                a[k * n + j] -= f * a[i * n + j];
                inverse[k * n + j] -= f * inverse[i * n + j];
            }
        }
    }
    let mut u = vec![0.0f64; n * n];
    for i in 0..n {
        for j in i..n {
            let s: f64 = (0..i).map(|k| u[k * n + i] * u[k * n + j]).sum();
            u[i * n + j] = if i == j {
                (inverse[i * n + i] - s).sqrt()
            } else {
                (inverse[i * n + j] - s) / u[i * n + i]
            };
        }
    }
    u
}

fn damped(h: &Hessian, gram: &[f64], damping: f64) -> Vec<f64> {
    let n = h.dim();
    let mean = h.diagonal().iter().sum::<f64>() / n as f64;
    let mut out = gram.to_vec();
    for i in 0..n {
        out[i * n + i] += damping * mean;
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rounding_errs_by_half_a_step_at_most(
        seed: u64, rows in 1usize..6, cols in 1usize..40, bits in 2u8..=8,
        group in proptest::option::of(1usize..50), symmetric: bool,
    ) {
        let w: Vec<f32> = seeded::weights(seed, rows, cols, false);
        let options = GridOptions { bits, group_size: group, symmetric, search: None };
        let q = round_to_nearest(Matrix::new(&w, rows, cols).unwrap(), &options).unwrap();
        prop_assert_eq!(q.groups(), options.groups(cols));
        let max = u8::MAX >> (8 - bits);
        prop_assert!(q.codes.iter().chain(&q.zeros).all(|&c| c <= max));
        let back = q.dequantize();
        for (i, (&x, &y)) in w.iter().zip(&back).enumerate() {
            let (row, col) = (i / cols, i % cols);
            let g = row * q.groups() + q.group_index[col] as usize;
            // A symmetric grid is cut one step short at its upper end, and at half its range if nothing is negative.
            let saturates = symmetric && q.codes[i] == max;
            if !saturates {
                prop_assert!((x - y).abs() <= q.scales[g] * 0.5001, "{x} became {y}");
            } else {
                prop_assert!(y <= x + q.scales[g] * 0.5001);
            }
        }
        // What is on the grid stays where it is.
        if !symmetric {
            let again = round_to_nearest(Matrix::new(&back, rows, cols).unwrap(), &options).unwrap();
            for (a, b) in again.dequantize().iter().zip(&back) {
                prop_assert!((a - b).abs() <= 0.51 * q.scales.iter().fold(0.0f32, |m, &s| m.max(s)));
            }
        }
    }

    #[test]
    fn range_search_never_raises_the_error(seed: u64, cols in 2usize..60, bits in 2u8..=4, symmetric: bool) {
        let w = seeded::weights(seed, 1, cols, false);
        let error = |search| {
            let options = GridOptions { bits, group_size: None, symmetric, search };
            let q = round_to_nearest(Matrix::new(&w, 1, cols).unwrap(), &options).unwrap();
            q.dequantize().iter().zip(&w).map(|(a, b)| f64::from((a - b).abs()).powf(2.4)).sum::<f64>()
        };
        prop_assert!(error(Some(RangeSearch::default())) <= error(None) * 1.0001);
    }

    #[test]
    fn factor_is_that_of_the_inverse(seed: u64, n in 1usize..24, damping in 0.001f64..0.2) {
        let x = seeded::inputs(seed, 3 * n + 8, n, &[]);
        let h: Vec<f64> = seeded::gram(&x, n);
        let hessian = Hessian::from_gram(&h, n, 2).unwrap();
        let factor = hessian.factor(&FactorOptions { damping, activation_order: false }).unwrap();
        let expected = naive_upper(&damped(&hessian, &h, damping), n);
        for (a, b) in factor.upper().iter().zip(&expected) {
            prop_assert!((f64::from(*a) - b).abs() <= 1e-5 * expected[0].abs().max(1.0), "{a} {b}");
        }
    }

    #[test]
    fn factor_in_activation_order_is_that_of_the_reordered_matrix(seed: u64, n in 1usize..20) {
        let x = seeded::inputs(seed, 3 * n + 8, n, &[]);
        let h = seeded::gram(&x, n);
        let options = FactorOptions { damping: 0.01, activation_order: true };
        let factor = Hessian::from_gram(&h, n, 2).unwrap().factor(&options).unwrap();
        let order = factor.order().unwrap().to_vec();
        prop_assert!(order.windows(2).all(|p| h[p[0] * n + p[0]] >= h[p[1] * n + p[1]]));
        let permuted: Vec<f64> = order.iter().flat_map(|&i| order.iter().map(move |&j| (i, j)))
            .map(|(i, j)| h[i * n + j]).collect();
        let plain = Hessian::from_gram(&permuted, n, 2).unwrap()
            .factor(&FactorOptions { damping: 0.01, activation_order: false }).unwrap();
        for (a, b) in factor.upper().iter().zip(plain.upper()) {
            prop_assert!((a - b).abs() <= 1e-5 * b.abs().max(1e-2));
        }
    }

    #[test]
    fn gptq_is_the_naive_recursion(seed: u64, rows in 1usize..4, n in 1usize..40, bits in 3u8..=8, block in 1usize..20) {
        let x = seeded::inputs(seed, 3 * n + 8, n, &[]);
        let h = seeded::gram(&x, n);
        let hessian = Hessian::from_gram(&h, n, 2).unwrap();
        let factor = hessian.factor(&FactorOptions::default()).unwrap();
        let w = seeded::weights(seed ^ 1, rows, n, false);
        let matrix = Matrix::new(&w, rows, n).unwrap();
        let options = GptqOptions {
            grid: GridOptions { bits, group_size: None, symmetric: true, search: None },
            static_groups: false,
            block_size: block,
        };
        let ours = gptq(matrix, &factor, &options).unwrap().quantized.dequantize();
        let naive = naive_gptq(&w, n, &naive_upper(&damped(&hessian, &h, 0.01), n), &options.grid);
        for (row, (ours, naive)) in ours.chunks(n).zip(naive.chunks(n)).enumerate() {
            // Only a weight on the edge between two codes may go the other way, and the rest of its row with it.
            if let Some(i) = ours.iter().zip(naive).position(|(a, b)| *a != b.0) {
                prop_assert!(naive[i].1 < 1e-3, "row {row} column {i}: {} {:?}", ours[i], naive[i]);
            }
        }
    }

    #[test]
    fn static_groups_with_one_group_are_the_whole_row(seed: u64, n in 1usize..30) {
        let factor = hessian(seed, n, &[]).factor(&FactorOptions { damping: 0.01, activation_order: true }).unwrap();
        let w = seeded::weights(seed ^ 1, 3, n, false);
        let run = |group_size, static_groups| {
            let grid = GridOptions { group_size, ..GridOptions::default() };
            gptq(Matrix::new(&w, 3, n).unwrap(), &factor, &GptqOptions { grid, static_groups, block_size: 8 }).unwrap().quantized
        };
        let (a, b) = (run(None, false), run(Some(n), true));
        prop_assert_eq!(a.codes, b.codes);
        prop_assert_eq!(a.scales, b.scales);
    }

    #[test]
    fn masks_remove_the_lowest(seed: u64, rows in 1usize..5, cols in 1usize..50, ratio in 0.0f64..=1.0, coarse: bool) {
        let mut w = seeded::weights(seed, rows, cols, false);
        if coarse {
            // Many equal scores.
            w.iter_mut().for_each(|x| *x = (*x * 4.0).round());
        }
        let mask = magnitude(Matrix::new(&w, rows, cols).unwrap(), Sparsity::Unstructured { ratio }).unwrap();
        let count = (cols as f64 * ratio) as usize;
        for (w, pruned) in w.chunks(cols).zip(mask.pruned().chunks(cols)) {
            let mut order: Vec<usize> = (0..cols).collect();
            order.sort_by(|&a, &b| w[a].abs().total_cmp(&w[b].abs()));
            for (rank, &i) in order.iter().enumerate() {
                prop_assert_eq!(pruned[i], rank < count);
            }
        }
    }

    #[test]
    fn the_variant_takes_the_same_share_of_every_row(
        seed: u64, rows in 1usize..9, cols in 1usize..80, ratio in 0.0f64..=1.0, coarse: bool,
    ) {
        let mut w = seeded::weights(seed, rows, cols, false);
        if coarse {
            w.iter_mut().for_each(|x| *x = (*x * 4.0).round());
        }
        let squares: Vec<f32> = seeded::weights(seed ^ 2, 1, cols, false).iter().map(|x| x.abs()).collect();
        let mask = wanda_variant(Matrix::new(&w, rows, cols).unwrap(), &squares, ratio).unwrap();
        let mut taken = Vec::new();
        let mut left_over = Vec::new();
        for (w, pruned) in w.chunks(cols).zip(mask.pruned().chunks(cols)) {
            let scores: Vec<f64> = w.iter().zip(&squares).map(|(w, s)| f64::from(w.abs() * s.sqrt())).collect();
            let of = |which: bool| scores.iter().zip(pruned).filter(move |(_, p)| **p == which).map(|(s, _)| *s);
            let highest_gone = of(true).fold(0.0, f64::max);
            let lowest_kept = of(false).fold(f64::INFINITY, f64::min);
            prop_assert!(highest_gone < lowest_kept || of(true).count() == 0);
            let whole: f64 = scores.iter().sum();
            // Equal scores go together, so the last of them may lie beyond the share.
            let ties = of(true).filter(|s| *s == highest_gone).count().max(1) as f64;
            if whole > 0.0 {
                taken.push((of(true).sum::<f64>() - (ties - 1.0) * highest_gone) / whole);
                left_over.push((of(true).sum::<f64>() + lowest_kept) / whole);
            }
        }
        // Some alpha lies at or above what every row lost and below what it would lose with one weight more.
        let least = taken.iter().copied().fold(0.0, f64::max);
        prop_assert!(least <= 0.8001 && left_over.iter().all(|&more| least < more + 1e-5), "{taken:?} {left_over:?}");
    }

    #[test]
    fn patterns_hold_everywhere(seed: u64, rows in 1usize..5, groups in 1usize..9, of in 1usize..9, prune in 0usize..9) {
        let prune = prune.min(of);
        let cols = groups * of;
        let mut w = seeded::weights(seed, rows, cols, false);
        let sparsity = Sparsity::Pattern { prune, of };
        let matrix = Matrix::new(&w, rows, cols).unwrap();
        let norms: Vec<f32> = seeded::weights(seed ^ 2, 1, cols, false).iter().map(|x| x.abs()).collect();
        let mask = wanda(matrix, &norms, sparsity).unwrap();
        let factor = hessian(seed, cols, &[]).factor(&FactorOptions::default()).unwrap();
        let solved = sparsegpt(matrix, &factor, sparsity, of * 2).unwrap();
        for pruned in [mask.pruned(), solved.mask.pruned()] {
            prop_assert!(pruned.chunks(of).all(|g| g.iter().filter(|&&p| p).count() == prune));
        }
        prop_assert!(solved.weight.iter().zip(solved.mask.pruned()).all(|(w, &p)| !p || *w == 0.0));
        mask.apply(&mut w).unwrap();
        prop_assert!(w.iter().zip(mask.pruned()).all(|(w, &p)| !p || *w == 0.0));
    }

    #[test]
    fn a_uniform_input_scale_changes_nothing(seed: u64, n in 2usize..40, scale in 1usize..10) {
        let x = seeded::inputs(seed, 3 * n, n, &[]);
        let gram = seeded::gram(&x, n);
        let w = seeded::weights(seed ^ 1, 4, n, false);
        let run = |sequences| {
            let factor = Hessian::from_gram(&gram, n, sequences).unwrap().factor(&FactorOptions::default()).unwrap();
            gptq(Matrix::new(&w, 4, n).unwrap(), &factor, &GptqOptions::default()).unwrap().quantized.codes
        };
        // Powers of two scale exactly.
        prop_assert_eq!(run(1), run(1 << scale));
    }
}

#[test]
fn solvers_beat_what_they_improve_on() {
    let (rows, cols) = (48, 160);
    let w = seeded::weights(7, rows, cols, false);
    let matrix = Matrix::new(&w, rows, cols).unwrap();
    let hessian = hessian(8, cols, &[]);
    let factor = hessian.factor(&FactorOptions::default()).unwrap();
    let error =
        |w: &[f32]| hessian.relative_output_error(matrix, Matrix::new(w, rows, cols).unwrap()).unwrap();
    let options = GptqOptions {
        grid: GridOptions { bits: 3, group_size: Some(32), ..GridOptions::default() },
        ..GptqOptions::default()
    };
    let nearest = error(&round_to_nearest(matrix, &options.grid).unwrap().dequantize());
    let solved = error(&gptq(matrix, &factor, &options).unwrap().quantized.dequantize());
    assert!(solved < 0.7 * nearest, "{solved} {nearest}");

    let half = Sparsity::Unstructured { ratio: 0.5 };
    let masked = |mask: llmcb_method_kit::mask::Mask| {
        let mut w = w.clone();
        mask.apply(&mut w).unwrap();
        assert!((mask.sparsity() - 0.5).abs() < 0.01);
        error(&w)
    };
    let squares: Vec<f32> = hessian.diagonal().iter().map(|&d| d as f32).collect();
    let by_magnitude = masked(magnitude(matrix, half).unwrap());
    let by_wanda = masked(wanda(matrix, &squares, half).unwrap());
    let by_solver = error(&sparsegpt(matrix, &factor, half, 128).unwrap().weight);
    assert!(by_wanda < by_magnitude && by_solver < by_wanda);
}

#[test]
fn results_do_not_depend_on_threads() {
    let (rows, cols) = (200, 96);
    let w = seeded::weights(3, rows, cols, false);
    let matrix = Matrix::new(&w, rows, cols).unwrap();
    let factor = hessian(4, cols, &[5]).factor(&FactorOptions::default()).unwrap();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let options = GptqOptions { block_size: 32, ..GptqOptions::default() };
            let a = gptq(matrix, &factor, &options).unwrap();
            let b = sparsegpt(matrix, &factor, Sparsity::Pattern { prune: 2, of: 4 }, 32).unwrap();
            (a.quantized, a.loss, b.weight, b.loss)
        })
    };
    let (one, three) = (run(1), run(3));
    assert_eq!(one, three);
}
