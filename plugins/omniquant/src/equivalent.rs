//! Learnable equivalent transformation (section 3.3 of the paper): scales that move between neighbouring operations
//! without changing what the block computes, so that what is rounded is easier to round.
//!
//! Three kinds, as published for models without shifts:
//!
//! * a norm's outputs are divided by `s`, and the columns of the linears that read them multiplied (equation 3);
//! * the outputs of the value projection are divided by `s`, and the columns of the output projection multiplied;
//! * queries are divided by `s`, and keys multiplied (equation 5). Where positions are rotated in between, this changes
//!   the block a little unless both halves of a pair have one scale; as published, that is left to training.

use std::collections::BTreeMap;
use std::ops::Range;

use llmcb_plugin_api::sdk::{Axis, Block, Error, FedBy, KEYS, Linear, QUERIES, Result};

/// Smallest magnitude of what a scale is made from, as published.
const SMALLEST: f32 = 1e-5;
/// Scales nearer to zero than this are moved away from it, as published.
const NEAREST_TO_ZERO: f32 = 1e-2;

/// One learned vector of scales.
pub struct Scales {
    /// The scales.
    pub values: Vec<f32>,
    /// The norm that is divided by them.
    norm: Option<String>,
    effects: Vec<Effect>,
}

/// What scales do to a linear.
struct Effect {
    linear: String,
    axis: Axis,
    /// Whether rows or columns are divided instead of multiplied.
    divided: bool,
    /// The scale of each row or column; none: it stays as it is.
    scale_of: Vec<Option<usize>>,
}

impl Effect {
    fn factors(&self, scales: &[f32]) -> Vec<f32> {
        let factor = |at: &Option<usize>| match at.map(|at| scales[at]) {
            None => 1.0,
            Some(scale) if self.divided => 1.0 / scale,
            Some(scale) => scale,
        };
        self.scale_of.iter().map(factor).collect()
    }

    /// Adds to the gradients of scales what those of the factors make of them.
    fn backward(&self, scales: &[f32], factors: &[f32], out: &mut [f32]) {
        for (&at, &gradient) in self.scale_of.iter().zip(factors) {
            let Some(at) = at else { continue };
            out[at] += if self.divided { -gradient / (scales[at] * scales[at]) } else { gradient };
        }
    }
}

/// What initial scales are made from: per linear, the largest magnitude of each input in the dense model, and the weights.
pub struct Magnitudes<'a> {
    /// By linear, `[in]`.
    pub activations: &'a BTreeMap<String, Vec<f32>>,
    /// By linear, `[out, in]`.
    pub weights: &'a BTreeMap<String, Vec<f32>>,
}

impl Magnitudes<'_> {
    /// `max |x|^alpha / max |w|^(1 - alpha)` for each scale, given the scale of each input of `linear`.
    fn initial(&self, linear: &Linear, scale_of: &[usize], count: usize, alpha: f32) -> Result<Vec<f32>> {
        let missing =
            || Error::failed(format!("the engine gave no statistics of the input of {}", linear.name));
        let inputs = self.activations.get(&linear.name).ok_or_else(missing)?;
        let weight = self.weights.get(&linear.name).ok_or_else(missing)?;
        let mut largest = vec![[SMALLEST; 2]; count];
        for (&at, &x) in scale_of.iter().zip(inputs) {
            largest[at][0] = largest[at][0].max(x);
        }
        for row in weight.chunks_exact(scale_of.len().max(1)) {
            for (&at, w) in scale_of.iter().zip(row) {
                largest[at][1] = largest[at][1].max(w.abs());
            }
        }
        let scale = |[x, w]: [f32; 2]| (x.powf(alpha) / w.powf(1.0 - alpha)).max(SMALLEST);
        Ok(largest.into_iter().map(scale).collect())
    }
}

/// All scales of a block as training begins.
pub fn scales(block: &Block<'_>, magnitudes: &Magnitudes<'_>, alpha: f32) -> Result<Vec<Scales>> {
    let info = block.info();
    let linear = |name: &String| info.linears.iter().find(|l| l.name == *name);
    let mut all = Vec::new();
    for norm in &info.norms {
        let fed: Vec<&Linear> = norm.feeds.iter().filter_map(linear).collect();
        // The published code measures one linear of each group: the queries', and the one whose outputs go on as they are.
        let goes_on = |l: &Linear| info.linears.iter().any(|n| is_fed_by(n, l).is_some());
        let measured = fed
            .iter()
            .find(|l| l.outputs_of(QUERIES).is_some())
            .or_else(|| fed.iter().find(|l| goes_on(l)))
            .or(fed.first());
        let Some(measured) = measured else { continue };
        let scale_of: Vec<usize> = (0..norm.size as usize).collect();
        let values = magnitudes.initial(measured, &scale_of, scale_of.len(), alpha)?;
        let effect = |l: &&Linear| Effect {
            linear: l.name.clone(),
            axis: Axis::Inputs,
            divided: false,
            scale_of: scale_of.iter().copied().map(Some).collect(),
        };
        let effects = fed.iter().map(effect).collect();
        all.push(Scales { values, norm: Some(norm.name.clone()), effects });
    }
    let with = |what: &str| info.linears.iter().find_map(|l| Some((l, l.outputs_of(what)?)));
    let (Some((query, queries)), Some((key, keys))) = (with(QUERIES), with(KEYS)) else { return Ok(all) };
    for reader in &info.linears {
        // What attention mixes: the values. The feed-forward part is left alone, as published.
        let values = info.linears.iter().find_map(|l| Some((l, is_fed_by(reader, l)?)));
        let Some((values, fed_by)) = values.filter(|(l, _)| l.input_group == key.input_group) else {
            continue;
        };
        let first = fed_by.first as usize;
        let scale_of: Vec<usize> =
            (0..reader.in_features as usize).map(|i| fed_by.output_of(i) - first).collect();
        let count = scale_of.iter().max().map_or(0, |last| last + 1);
        all.push(Scales {
            values: magnitudes.initial(reader, &scale_of, count, alpha)?,
            norm: None,
            effects: vec![
                of_rows(values, first..first + count, true, |scale| scale),
                Effect {
                    linear: reader.name.clone(),
                    axis: Axis::Inputs,
                    divided: false,
                    scale_of: scale_of.into_iter().map(Some).collect(),
                },
            ],
        });
    }
    let sharing = FedBy {
        linear: key.name.clone(),
        first: 0,
        width: info.head_dim,
        repeats: info.heads / info.key_value_heads.max(1),
    };
    all.push(Scales {
        values: vec![1.0; keys.len()],
        norm: None,
        effects: vec![
            of_rows(query, queries, true, |output| sharing.output_of(output)),
            of_rows(key, keys, false, |output| output),
        ],
    });
    Ok(all)
}

/// An effect on some rows of a linear; `scale` says which scale the first, second, ... of them has.
fn of_rows(linear: &Linear, rows: Range<usize>, divided: bool, scale: impl Fn(usize) -> usize) -> Effect {
    let of_row = |row: usize| rows.contains(&row).then(|| scale(row - rows.start));
    let scale_of = (0..linear.out_features as usize).map(of_row).collect();
    Effect { linear: linear.name.clone(), axis: Axis::Outputs, divided, scale_of }
}

fn is_fed_by<'a>(reader: &'a Linear, linear: &Linear) -> Option<&'a FedBy> {
    reader.fed_by.as_ref().filter(|fed_by| fed_by.linear == linear.name)
}

impl Scales {
    /// Moves scales away from zero.
    pub fn keep_from_zero(&mut self) {
        for s in self.values.iter_mut().filter(|s| s.abs() < NEAREST_TO_ZERO) {
            *s = if *s < 0.0 { -NEAREST_TO_ZERO } else { NEAREST_TO_ZERO };
        }
    }

    /// The norm that is divided by these scales.
    pub fn norm(&self) -> Option<&str> {
        self.norm.as_deref()
    }

    /// Applies them to the weight of a linear, `[out, in]`.
    pub fn apply(&self, linear: &Linear, weight: &mut [f32]) {
        for effect in self.effects.iter().filter(|e| e.linear == linear.name) {
            let factors = effect.factors(&self.values);
            for (row, weights) in weight.chunks_exact_mut(linear.in_features.max(1) as usize).enumerate() {
                match effect.axis {
                    Axis::Outputs => weights.iter_mut().for_each(|w| *w *= factors[row]),
                    Axis::Inputs => weights.iter_mut().zip(&factors).for_each(|(w, f)| *w *= f),
                }
            }
        }
    }

    /// Applies them to the bias of a linear, `[out]`.
    pub fn apply_to_bias(&self, linear: &str, bias: &mut [f32]) {
        for effect in self.effects.iter().filter(|e| e.linear == linear && e.axis == Axis::Outputs) {
            bias.iter_mut().zip(effect.factors(&self.values)).for_each(|(b, f)| *b *= f);
        }
    }

    /// Whether the bias of a linear changes with them.
    pub fn changes_bias(&self, linear: &str) -> bool {
        self.effects.iter().any(|e| e.linear == linear && e.axis == Axis::Outputs)
    }

    /// Adds to `out` the gradient that the weight of a linear contributes: `transformed` is the weight with all scales
    /// applied, `gradient` with respect to it, both `[out, in]`.
    pub fn backward(&self, linear: &Linear, transformed: &[f32], gradient: &[f32], out: &mut [f32]) {
        let columns = linear.in_features.max(1) as usize;
        for effect in self.effects.iter().filter(|e| e.linear == linear.name) {
            // Each entry is its factor times what does not depend on it.
            let mut sums = vec![0.0f64; effect.scale_of.len()];
            let rows = transformed.chunks_exact(columns).zip(gradient.chunks_exact(columns));
            for (row, (weights, gradients)) in rows.enumerate() {
                let products = weights.iter().zip(gradients).map(|(w, g)| f64::from(w * g));
                match effect.axis {
                    Axis::Outputs => sums[row] += products.sum::<f64>(),
                    Axis::Inputs => sums.iter_mut().zip(products).for_each(|(sum, p)| *sum += p),
                }
            }
            self.of_factors(effect, &sums, out);
        }
    }

    /// The same for a bias, `[out]`.
    pub fn backward_bias(&self, linear: &str, transformed: &[f32], gradient: &[f32], out: &mut [f32]) {
        for effect in self.effects.iter().filter(|e| e.linear == linear && e.axis == Axis::Outputs) {
            let sums: Vec<f64> = transformed.iter().zip(gradient).map(|(b, g)| f64::from(b * g)).collect();
            self.of_factors(effect, &sums, out);
        }
    }

    fn of_factors(&self, effect: &Effect, sums: &[f64], out: &mut [f32]) {
        let factors = effect.factors(&self.values);
        let gradients: Vec<f32> =
            sums.iter().zip(&factors).map(|(s, &f)| (s / f64::from(f)) as f32).collect();
        effect.backward(&self.values, &gradients, out);
    }

    /// The same for the norm's weight: `divided` is the weight after division.
    pub fn backward_norm(&self, divided: &[f32], gradient: &[f32], out: &mut [f32]) {
        for (((out, &s), n), g) in out.iter_mut().zip(&self.values).zip(divided).zip(gradient) {
            *out -= n * g / s;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(name: &str, out_features: u32, in_features: u32) -> Linear {
        Linear {
            name: name.into(),
            out_features,
            in_features,
            input_group: "x".into(),
            bias: true,
            outputs: Vec::new(),
            fed_by: None,
        }
    }

    /// Numbers without a pattern.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed * 101) % 23) as f32 / 11.0 - 0.97).collect()
    }

    /// A sum over all that scales change, each entry times a number of its own; and its gradient by `backward`.
    struct Probe {
        linear: Linear,
        weight: Vec<f32>,
        bias: Vec<f32>,
        norm: Vec<f32>,
        slopes: [Vec<f32>; 3],
    }

    impl Probe {
        fn transformed(&self, scales: &Scales) -> [Vec<f32>; 3] {
            let (mut weight, mut bias) = (self.weight.clone(), self.bias.clone());
            scales.apply(&self.linear, &mut weight);
            scales.apply_to_bias("l", &mut bias);
            let norm = self.norm.iter().zip(&scales.values).map(|(n, s)| n / s).collect();
            [weight, bias, norm]
        }

        fn value(&self, scales: &Scales) -> f64 {
            let all = self.transformed(scales);
            all.iter().flatten().zip(self.slopes.iter().flatten()).map(|(x, s)| f64::from(x * s)).sum()
        }

        fn gradient(&self, scales: &Scales) -> Vec<f32> {
            let [weight, bias, norm] = self.transformed(scales);
            let mut out = vec![0.0; scales.values.len()];
            scales.backward(&self.linear, &weight, &self.slopes[0], &mut out);
            scales.backward_bias("l", &bias, &self.slopes[1], &mut out);
            scales.backward_norm(&norm, &self.slopes[2], &mut out);
            out
        }
    }

    #[test]
    fn gradients_of_scales_are_differences_of_values() {
        let probe = Probe {
            linear: linear("l", 4, 6),
            weight: numbers(24, 1),
            bias: numbers(4, 2),
            norm: numbers(2, 3),
            slopes: [numbers(24, 4), numbers(4, 5), numbers(2, 6)],
        };
        for divided in [false, true] {
            let effect = |axis, scale_of: &[Option<usize>]| Effect {
                linear: "l".into(),
                axis,
                divided,
                scale_of: scale_of.to_vec(),
            };
            let mut scales = Scales {
                values: vec![0.7, -1.6],
                norm: Some("n".into()),
                effects: vec![
                    effect(Axis::Outputs, &[Some(0), None, Some(1), Some(0)]),
                    effect(Axis::Inputs, &[1, 0, 0, 1, 1, 0].map(Some)),
                ],
            };
            let gradient = probe.gradient(&scales);
            for (i, found) in gradient.into_iter().enumerate() {
                let middle = scales.values[i];
                let mut at = |x: f32| {
                    scales.values[i] = x;
                    probe.value(&scales)
                };
                let expected = (at(middle + 1e-2) - at(middle - 1e-2)) / 2e-2;
                scales.values[i] = middle;
                assert!(
                    (f64::from(found) - expected).abs() < 2e-2 * (1.0 + expected.abs()),
                    "{found} {expected}"
                );
            }
        }
    }

    #[test]
    fn scales_keep_away_from_zero() {
        let mut scales =
            Scales { values: vec![0.0, -1e-5, 5e-3, 2.0, -0.5], norm: None, effects: Vec::new() };
        scales.keep_from_zero();
        assert_eq!(scales.values, [1e-2, -1e-2, 1e-2, 2.0, -0.5]);
    }
}
