use super::*;
use crate::kernels::PackedMatrix;
use crate::kernels::instruction_set;
use proptest::prelude::*;

fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        })
        .collect()
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    outputs: usize,
    inputs: usize,
    bits: u32,
    group_size: Option<usize>,
    shuffled: bool,
    zeros: u8,
    half: bool,
}

fn matrix(s: Shape, seed: u64) -> IntegerMatrix {
    let groups = s.group_size.map_or(1, |g| s.inputs.div_ceil(g));
    let noise = |len: usize, seed: u64| numbers(len, seed).into_iter().map(|v| v + 0.5);
    let top = f32::from(u8::MAX >> (8 - s.bits));
    let code = |v: f32| (v * (top + 0.999)) as u8;
    let middle = f32::from(1u8 << (s.bits - 1));
    let mut index: Vec<u32> =
        (0..s.inputs).map(|c| (c / s.group_size.unwrap_or(s.inputs).max(1)) as u32).collect();
    for i in (1..s.inputs).rev() {
        index.swap(i, (i * 7919 + seed as usize) % (i + 1));
    }
    IntegerMatrix {
        rows: s.outputs,
        columns: s.inputs,
        bits: s.bits,
        group_size: s.group_size,
        symmetric: s.zeros == 0,
        codes: noise(s.outputs * s.inputs, seed).map(code).collect(),
        scales: noise(s.outputs * groups, seed + 1)
            .map(|v| if s.half { half::f16::from_f32(v / 8.0).to_f32() } else { v / 8.0 })
            .collect(),
        zeros: noise(s.outputs * groups, seed + 2)
            .map(|v| match s.zeros {
                0 => middle,
                1 => f32::from(code(v)),
                _ => v * top,
            })
            .collect(),
        group_index: s.shuffled.then_some(index),
    }
    .without_plain_index()
}

fn shapes() -> impl Strategy<Value = Shape> {
    let group = prop::option::of(prop::sample::select(vec![1usize, 5, 8, 16, 32, 64]));
    (1usize..150, 1usize..150, 1u32..=8, group, any::<bool>(), 0u8..3, any::<bool>()).prop_map(
        |(outputs, inputs, bits, group_size, shuffled, zeros, half)| Shape {
            outputs,
            inputs,
            bits,
            group_size,
            shuffled,
            zeros,
            half,
        },
    )
}

fn instruction_sets() -> Vec<InstructionSet> {
    let mut sets = vec![InstructionSet::Baseline];
    #[cfg(target_arch = "x86_64")]
    {
        if instruction_set() != InstructionSet::Baseline {
            sets.push(InstructionSet::Avx2);
        }
        if instruction_set() == InstructionSet::Avx512 {
            sets.push(InstructionSet::Avx512);
        }
    }
    sets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn products_are_those_of_the_dense_matrix_to_the_last_bit(
        shape in shapes(), rows in 1usize..9, seed in 0u64..9999,
    ) {
        let matrix = matrix(shape, seed);
        let packed = PackedIntegers::pack(&matrix).unwrap();
        prop_assert_eq!(packed.to_matrix(), matrix.clone());
        let dense = PackedMatrix::pack(shape.outputs, shape.inputs, &matrix.dequantize());
        let x = numbers(rows * shape.inputs, seed + 3);
        let mut want = vec![f32::NAN; rows * shape.outputs];
        dense.multiply(&x, rows, &mut want);
        let mut got = vec![f32::NAN; rows * shape.outputs];
        packed.multiply(&x, rows, &mut got);
        prop_assert_eq!(&got, &want);
        got.fill(f32::NAN);
        packed.multiply_parallel(&x, rows, &mut got);
        prop_assert_eq!(&got, &want);
        for r in 0..rows {
            let mut row = vec![f32::NAN; shape.outputs];
            packed.multiply(&x[r * shape.inputs..][..shape.inputs], 1, &mut row);
            prop_assert_eq!(&row[..], &want[r * shape.outputs..][..shape.outputs]);
        }
    }

    #[test]
    fn every_instruction_set_agrees(shape in shapes(), rows in 1usize..7, seed in 0u64..9999) {
        let matrix = matrix(shape, seed);
        let packed = PackedIntegers::pack(&matrix).unwrap();
        let x = numbers(rows * shape.inputs, seed + 3);
        let weights = matrix.dequantize();
        for set in instruction_sets() {
            let mut y = vec![f32::NAN; rows * shape.outputs];
            let (count, y_stride) = (packed.panel_count(), shape.outputs);
            let product = Product { set, x: &x, rows, first: 0, count, y: y.as_mut_ptr(), y_stride };
            // SAFETY: X and Y are whole, the panels are all there are, and the sets are those that the processor has.
            unsafe { packed.multiply_unchecked(product) };
            for r in 0..rows {
                for o in 0..shape.outputs {
                    let want: f64 = (0..shape.inputs)
                        .map(|k| f64::from(x[r * shape.inputs + k]) * f64::from(weights[o * shape.inputs + k]))
                        .sum();
                    let got = f64::from(y[r * shape.outputs + o]);
                    prop_assert!((got - want).abs() < 2e-3, "{:?}: {} is not {}", set, got, want);
                }
            }
        }
    }
}

#[test]
fn more_inputs_than_a_block_agree_with_the_dense_matrix() {
    for bits in [2, 3, 4, 8] {
        let shape = Shape {
            outputs: 40,
            inputs: 2 * INNER_BLOCK + 32,
            bits,
            group_size: Some(32),
            shuffled: bits == 3,
            zeros: 1,
            half: true,
        };
        let matrix = matrix(shape, 7);
        let packed = PackedIntegers::pack(&matrix).unwrap();
        let x = numbers(13 * shape.inputs, 9);
        let (mut got, mut want) = (vec![f32::NAN; 13 * 40], vec![f32::NAN; 13 * 40]);
        packed.multiply(&x, 13, &mut got);
        PackedMatrix::pack(40, shape.inputs, &matrix.dequantize()).multiply(&x, 13, &mut want);
        assert_eq!(got, want, "{bits} bits");
    }
}

#[test]
fn memory_falls_with_the_bits() {
    let of = |bits| {
        let shape = Shape {
            outputs: 128,
            inputs: 512,
            bits,
            group_size: Some(128),
            shuffled: false,
            zeros: 1,
            half: true,
        };
        PackedIntegers::pack(&matrix(shape, 1)).unwrap().bytes() as f64 * 8.0 / (128.0 * 512.0)
    };
    for (bits, most) in [(2, 2.2), (3, 3.7), (4, 4.2), (8, 8.2)] {
        assert!(of(bits) <= most, "{} bits for each of {bits}", of(bits));
    }
}

#[test]
fn a_matrix_that_does_not_fit_together_is_refused() {
    let shape =
        Shape { outputs: 4, inputs: 8, bits: 4, group_size: None, shuffled: false, zeros: 0, half: true };
    let mut bad = matrix(shape, 1);
    bad.codes[0] = 16;
    assert!(PackedIntegers::pack(&bad).unwrap_err().to_string().contains("code 16"));
}
