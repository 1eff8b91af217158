//! Which units of a structure to remove: heads of attention, or channels between linears.
//!
//! Importance is LLM-Pruner's (Ma, Fang and Wang, "LLM-Pruner: On the Structural Pruning of Large Language Models", NeurIPS 2023, arXiv
//! 2305.11627, section 3.2): what the loss would change by if a unit's weights were zero, estimated by a Taylor expansion. A unit is spread
//! over several weights, and has `width` neighbouring channels (rows or columns) in each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{KitError, Matrix};

/// Which side of a weight holds a unit's channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Rows.
    Outputs,
    /// Columns.
    Inputs,
}

/// How the importance of a channel comes from its weights `w`. Gradients are of the shape of the weight: `g` of the loss, `s` the mean over
/// calibration windows of each window's squared gradient (the diagonal of the empirical Fisher information).
#[derive(Debug, Clone, Copy)]
pub enum Importance<'a> {
    /// Sum of `|w|^power`.
    Magnitude {
        /// 1 or 2, as a rule.
        power: i32,
    },
    /// Sum of `|g w|`: equation 4 to first order.
    ElementFirst {
        /// `g`.
        gradient: &'a [f32],
    },
    /// Sum of `|w s w|`: the term of second order alone.
    ElementSecond {
        /// `s`.
        mean_square: &'a [f32],
    },
    /// Sum of `|g w - w s w / 2|`: equation 5.
    ElementMixed {
        /// `g`.
        gradient: &'a [f32],
        /// `s`.
        mean_square: &'a [f32],
    },
    /// `|sum of g w|`: equation 3 to first order.
    Vector {
        /// `g`.
        gradient: &'a [f32],
    },
}

impl Importance<'_> {
    fn operands(&self) -> Vec<(&'static str, &[f32])> {
        match self {
            Self::Magnitude { .. } => Vec::new(),
            Self::ElementFirst { gradient } | Self::Vector { gradient } => vec![("gradient", *gradient)],
            Self::ElementSecond { mean_square } => vec![("squared gradient", *mean_square)],
            Self::ElementMixed { gradient, mean_square } => {
                vec![("gradient", *gradient), ("squared gradient", *mean_square)]
            }
        }
    }

    fn of_weight(&self, at: usize, w: f32) -> f64 {
        let w = f64::from(w);
        match self {
            Self::Magnitude { power } => w.abs().powi(*power),
            Self::ElementFirst { gradient } => (f64::from(gradient[at]) * w).abs(),
            Self::Vector { gradient } => f64::from(gradient[at]) * w,
            Self::ElementSecond { mean_square } => (w * f64::from(mean_square[at]) * w).abs(),
            Self::ElementMixed { gradient, mean_square } => {
                (f64::from(gradient[at]) * w - 0.5 * w * f64::from(mean_square[at]) * w).abs()
            }
        }
    }
}

/// Importance of each channel of a weight.
///
/// # Errors
/// [`KitError::Length`] if a gradient has another size than the weight, [`KitError::NotFinite`] if one is not finite.
pub fn of_channels(
    weight: Matrix<'_>,
    axis: Axis,
    importance: &Importance<'_>,
) -> Result<Vec<f64>, KitError> {
    let cols = weight.cols();
    for (operand, values) in importance.operands() {
        if values.len() != weight.data().len() {
            return Err(KitError::Length { operand, expected: weight.data().len(), found: values.len() });
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let value = f64::from(values[at]);
            return Err(KitError::NotFinite { operand, row: at / cols, col: at % cols, value });
        }
    }
    let channels = match axis {
        Axis::Outputs => weight.rows(),
        Axis::Inputs => cols,
    };
    let mut sums = vec![0.0; channels];
    for (at, &w) in weight.data().iter().enumerate() {
        let channel = match axis {
            Axis::Outputs => at / cols,
            Axis::Inputs => at % cols,
        };
        sums[channel] += importance.of_weight(at, w);
    }
    if matches!(importance, Importance::Vector { .. }) {
        sums.iter_mut().for_each(|sum| *sum = sum.abs());
    }
    Ok(sums)
}

/// How the parts of a unit in several linears are put together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// Their sum.
    #[default]
    Sum,
    /// Their mean.
    Mean,
    /// The largest.
    Max,
    /// Their product.
    #[serde(rename = "prod")]
    Product,
    /// The first alone: that of queries, and of gates.
    First,
}

/// Importance of each unit: over the parts by `grouping`, then summed over the unit's channels.
///
/// `parts` holds, for each weight, its channels' importance, unit after unit. Where one has more channels for each unit than another (query
/// heads that share a key head), they are first summed to as many as the narrowest has.
///
/// # Errors
/// [`KitError::Indivisible`] if channels are not a multiple of the units, or of the narrowest part's.
pub fn of_units(parts: &[Vec<f64>], units: usize, grouping: Grouping) -> Result<Vec<f64>, KitError> {
    let Some(narrowest) = parts.iter().map(Vec::len).min() else { return Ok(vec![0.0; units]) };
    for size in parts.iter().map(Vec::len) {
        for (multiple, unit) in [(units, "unit"), (narrowest, "narrowest part")] {
            if multiple == 0 || !size.is_multiple_of(multiple) {
                return Err(KitError::Indivisible { what: "a unit's channels", size, unit, multiple });
            }
        }
    }
    let width = narrowest / units;
    let of_channel = |part: &Vec<f64>, unit: usize, channel: usize| -> f64 {
        let own = part.len() / units;
        (unit * own..(unit + 1) * own).skip(channel).step_by(width).map(|at| part[at]).sum()
    };
    Ok((0..units)
        .map(|unit| {
            let channels = (0..width).map(|channel| {
                let mut values = parts.iter().map(|part| of_channel(part, unit, channel));
                match grouping {
                    Grouping::Sum => values.sum(),
                    Grouping::Mean => values.sum::<f64>() / parts.len() as f64,
                    Grouping::Max => values.fold(f64::NEG_INFINITY, f64::max),
                    Grouping::Product => values.product(),
                    Grouping::First => values.next().unwrap_or_default(),
                }
            });
            channels.sum()
        })
        .collect())
}

/// How many of `units`, of `width` channels each, a ratio of the channels is: whole units only, and one always stays.
pub fn count_removed(units: usize, width: usize, ratio: f64) -> usize {
    let channels = units * width;
    // The published code truncates what is kept, then what is removed.
    let kept = (channels as f64 * (1.0 - ratio)) as usize;
    ((channels - kept.min(channels)) / width.max(1)).min(units.saturating_sub(1))
}

/// The units that stay, ascending, when the `removed` least important go; of equals the first.
pub fn kept(importance: &[f64], removed: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..importance.len()).collect();
    order.sort_by(|&a, &b| importance[a].total_cmp(&importance[b]));
    let mut kept = order.split_off(removed.min(order.len()));
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn importance_is_what_the_equations_say() {
        let weight = [1.0, -2.0, 3.0, 0.5, 4.0, -1.0];
        let gradient = [0.5, 0.5, -1.0, 2.0, 0.25, 3.0];
        let mean_square = [1.0, 2.0, 0.0, 4.0, 1.0, 1.0];
        let matrix = Matrix::new(&weight, 2, 3).unwrap();
        let rows = |importance| of_channels(matrix, Axis::Outputs, &importance).unwrap();
        let columns = |importance| of_channels(matrix, Axis::Inputs, &importance).unwrap();
        // g w: 0.5, -1, -3 | 1, 1, -3; w s w: 1, 8, 0 | 1, 16, 1.
        assert_eq!(rows(Importance::Magnitude { power: 1 }), [6.0, 5.5]);
        assert_eq!(columns(Importance::Magnitude { power: 2 }), [1.25, 20.0, 10.0]);
        assert_eq!(rows(Importance::ElementFirst { gradient: &gradient }), [4.5, 5.0]);
        assert_eq!(columns(Importance::Vector { gradient: &gradient }), [1.5, 0.0, 6.0]);
        assert_eq!(columns(Importance::ElementSecond { mean_square: &mean_square }), [2.0, 24.0, 1.0]);
        let mixed = Importance::ElementMixed { gradient: &gradient, mean_square: &mean_square };
        assert_eq!(rows(mixed), [0.0 + 5.0 + 3.0, 0.5 + 7.0 + 3.5]);
    }

    #[test]
    fn gradients_that_do_not_fit_are_named() {
        let matrix = Matrix::new(&[1.0, 2.0], 1, 2).unwrap();
        let short = of_channels(matrix, Axis::Outputs, &Importance::Vector { gradient: &[1.0] });
        assert!(matches!(short, Err(KitError::Length { operand: "gradient", expected: 2, found: 1 })));
        let nan = Importance::ElementSecond { mean_square: &[1.0, f32::NAN] };
        let nan = of_channels(matrix, Axis::Outputs, &nan).unwrap_err().to_string();
        assert!(nan.contains("squared gradient") && nan.contains("column 1"), "{nan}");
    }

    #[test]
    fn parts_of_other_widths_are_summed_within_their_unit() {
        // Two units; the first part has four channels for each, the second two.
        let parts = [vec![1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0], vec![0.5, 5.0, 50.0, 500.0]];
        let with = |grouping| of_units(&parts, 2, grouping).unwrap();
        // The first part's channels become 4, 6 | 40, 60.
        assert_eq!(with(Grouping::Sum), [15.5, 650.0]);
        assert_eq!(with(Grouping::Mean), [7.75, 325.0]);
        assert_eq!(with(Grouping::Max), [4.0 + 6.0, 50.0 + 500.0]);
        assert_eq!(with(Grouping::Product), [2.0 + 30.0, 2000.0 + 30000.0]);
        assert_eq!(with(Grouping::First), [10.0, 100.0]);
        assert!(of_units(&parts, 3, Grouping::Sum).is_err());
    }

    #[test]
    fn as_many_units_go_as_in_the_published_code() {
        // channels - int(channels * (1 - ratio)), in whole units.
        let cases = [
            (1536, 1, 0.25, 384),
            (9, 64, 0.25, 2),
            (3, 64, 0.25, 0),
            (3, 64, 0.34, 1),
            (32, 128, 0.25, 8),
            (11008, 1, 0.25, 2752),
            (10, 1, 0.0, 0),
            (10, 1, 1.0, 9),
            // 10 * (1 - 0.9) is a little less than one, so nothing is left but what always stays.
            (10, 1, 0.9, 9),
        ];
        for (units, width, ratio, removed) in cases {
            assert_eq!(count_removed(units, width, ratio), removed, "{units} {width} {ratio}");
        }
    }

    proptest! {
        #[test]
        fn the_least_important_go(importance in prop::collection::vec(0f64..4.0, 1..40), removed in 0usize..40) {
            let kept = kept(&importance, removed);
            prop_assert_eq!(kept.len(), importance.len().saturating_sub(removed));
            prop_assert!(kept.is_sorted());
            let gone = (0..importance.len()).filter(|unit| !kept.contains(unit));
            let most = gone.map(|unit| importance[unit]).fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(kept.iter().all(|&unit| importance[unit] >= most));
        }

        #[test]
        fn all_parts_count_and_no_channel_is_lost(
            units in 1usize..5, widths in prop::collection::vec(1usize..4, 1..4), narrow in 1usize..4, seed in 0u64..1000,
        ) {
            let parts: Vec<Vec<f64>> = widths
                .iter()
                .enumerate()
                .map(|(part, times)| {
                    let times = if part == 0 { 1 } else { *times };
                    (0..units * narrow * times).map(|i| ((i as u64 * 7919 + seed * 31) % 101) as f64).collect()
                })
                .collect();
            let sum: f64 = of_units(&parts, units, Grouping::Sum).unwrap().iter().sum();
            prop_assert_eq!(sum, parts.iter().flatten().sum::<f64>());
        }
    }
}
