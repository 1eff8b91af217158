//! Scalar formulas written so that loops over them vectorise, and the macro that compiles a loop for several instruction sets.

/// `a * b + c`, fused where the instruction set has it (`FMA`), so that no call to a library routine appears on baseline builds.
#[inline(always)]
pub(super) fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` to about 1 ulp over the normal range; exactly 0 below -87.3 (so a mask of negative infinity gives no weight) and
/// saturated at the top of the range of f32.
///
/// Cody and Waite's reduction x = n ln 2 + r, |r| <= ln 2 / 2, then the minimax polynomial of degree 6 of Cephes' `expf`.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    const LOWEST: f32 = -87.3;
    let clamped = x.clamp(LOWEST, 88.0);
    let shifted = multiply_add::<FMA>(clamped, LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<FMA>(n, -LN2_HIGH, clamped);
    let r = multiply_add::<FMA>(n, -LN2_LOW, r);
    let mut p = 1.987_569_1e-4;
    p = multiply_add::<FMA>(p, r, 1.398_199_9e-3);
    p = multiply_add::<FMA>(p, r, 8.333_452e-3);
    p = multiply_add::<FMA>(p, r, 4.166_579_6e-2);
    p = multiply_add::<FMA>(p, r, 1.666_666_5e-1);
    p = multiply_add::<FMA>(p, r, 0.5);
    p = multiply_add::<FMA>(p, r * r, r) + 1.0;
    // The integer n sits in the low mantissa bits of `shifted`.
    let exponent = (shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23;
    let value = p * f32::from_bits(exponent);
    if x < LOWEST { 0.0 } else { value }
}

/// Declares a function that is compiled for the baseline and for AVX2 + FMA, and picks one at run time. In the body, the
/// constant named first tells whether fused multiply-add is there.
macro_rules! multiversion {
    ($(#[$meta:meta])* pub fn $name:ident[$fma:ident]($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        pub fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<const $fma: bool>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn wide($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
                if crate::kernels::instruction_set() != crate::kernels::InstructionSet::Baseline {
                    // SAFETY: the processor was asked, and has AVX2 and FMA, the only features `wide` adds.
                    return unsafe { wide($($arg),*) };
                }
            }
            // On 64-bit ARM fused multiply-add is part of the baseline.
            body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(super) use multiversion;
