//! Rounding activations before they are multiplied, as weight-and-activation quantisation does.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::block::InputGroup;
use crate::{Error, Result};

/// Activations of a block that can be rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActivationSite {
    /// What the linears of a group read: whole rows.
    Input(InputGroup),
    /// Queries after rotation: each head of a row on its own.
    Queries,
    /// Keys after rotation, likewise.
    Keys,
    /// Values, likewise.
    Values,
}

impl ActivationSite {
    /// All sites.
    pub const ALL: [ActivationSite; 7] = [
        ActivationSite::Input(InputGroup::AttnIn),
        ActivationSite::Queries,
        ActivationSite::Keys,
        ActivationSite::Values,
        ActivationSite::Input(InputGroup::AttnOut),
        ActivationSite::Input(InputGroup::MlpIn),
        ActivationSite::Input(InputGroup::MlpOut),
    ];

    /// The name used in descriptions: that of the input group, or `queries`, `keys`, `values`.
    pub fn name(self) -> &'static str {
        match self {
            ActivationSite::Input(group) => group.name(),
            ActivationSite::Queries => "queries",
            ActivationSite::Keys => "keys",
            ActivationSite::Values => "values",
        }
    }

    /// The site of this name.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|site| site.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::argument(format!("activations `{name}`"), format!("a block has only {names}"))
        })
    }

    fn index(self) -> usize {
        match self {
            ActivationSite::Input(group) => group as usize,
            ActivationSite::Queries => 4,
            ActivationSite::Keys => 5,
            ActivationSite::Values => 6,
        }
    }
}

/// How values are rounded: to `2^bits` evenly spaced ones, of each row's own range (dynamic) or of a fixed one (static).
///
/// Symmetric: `s = max |x| / (2^(b-1) - 1)`, at least 1e-5, `x' = s clamp(round(x / s), -2^(b-1), 2^(b-1) - 1)`. Asymmetric:
/// `s = (max x - min x) / (2^b - 1)`, within 1e-5 and 1e4, `z = round(-min x / s)`, within -1e4 and 1e4,
/// `x' = s (clamp(round(x / s) + z, 0, 2^b - 1) - z)`. Halves go to the even neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ActivationQuantization {
    /// Bits, 2 to 8.
    pub bits: u32,
    /// Whether the grid is symmetric around zero.
    pub symmetric: bool,
    /// Least and greatest value for all rows; none: each row's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f32; 2]>,
}

impl ActivationQuantization {
    /// Rounds one row in place.
    pub fn round_row(&self, row: &mut [f32]) {
        let [least, greatest] = self.range.unwrap_or_else(|| extremes(row));
        if self.symmetric {
            let half = (1u32 << (self.bits - 1)) as f32;
            let scale = (least.abs().max(greatest.abs()) / (half - 1.0)).max(1e-5);
            for x in row {
                *x = (*x / scale).round_ties_even().clamp(-half, half - 1.0) * scale;
            }
        } else {
            let steps = ((1u32 << self.bits) - 1) as f32;
            let scale = ((greatest - least) / steps).clamp(1e-5, 1e4);
            let zero = (-least / scale).clamp(-1e4, 1e4).round_ties_even();
            for x in row {
                *x = (((*x / scale).round_ties_even() + zero).clamp(0.0, steps) - zero) * scale;
            }
        }
    }

    /// Rounds rows of `width` values one by one.
    pub fn round_rows(&self, rows: &mut [f32], width: usize) {
        rows.chunks_exact_mut(width).for_each(|row| self.round_row(row));
    }

    /// As [`round_rows`](Self::round_rows), on the threads of the current rayon pool.
    pub(crate) fn round_rows_parallel(&self, rows: &mut [f32], width: usize) {
        rows.par_chunks_exact_mut(width).with_min_len(16).for_each(|row| self.round_row(row));
    }
}

fn extremes(row: &[f32]) -> [f32; 2] {
    // In lanes, so that it is not one long chain of comparisons.
    let (lanes, rest) = row.as_chunks::<16>();
    let (mut least, mut greatest) = ([f32::INFINITY; 16], [f32::NEG_INFINITY; 16]);
    for lane in lanes {
        for ((low, high), &x) in least.iter_mut().zip(&mut greatest).zip(lane) {
            *low = low.min(x);
            *high = high.max(x);
        }
    }
    let low = least.iter().chain(rest).fold(f32::INFINITY, |a, &b| a.min(b));
    let high = greatest.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    [low, high]
}

/// How a block rounds its activations; by default not at all.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Activations([Option<ActivationQuantization>; 7]);

impl Activations {
    /// How the activations of a site are rounded.
    pub fn at(&self, site: ActivationSite) -> Option<&ActivationQuantization> {
        self.0[site.index()].as_ref()
    }

    /// How what a group of linears reads is rounded.
    pub(crate) fn input(&self, group: InputGroup) -> Option<&ActivationQuantization> {
        self.at(ActivationSite::Input(group))
    }

    /// Rounds the activations of a site from now on, or no longer.
    pub fn set(&mut self, site: ActivationSite, quantization: Option<ActivationQuantization>) {
        self.0[site.index()] = quantization;
    }

    /// Whether any are rounded.
    pub fn any(&self) -> bool {
        self.0.iter().any(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_have_names_and_places_of_their_own() {
        let mut places = [false; 7];
        for site in ActivationSite::ALL {
            assert_eq!(ActivationSite::from_name(site.name()).unwrap(), site);
            assert!(!std::mem::replace(&mut places[site.index()], true));
        }
        assert!(ActivationSite::from_name("nowhere").unwrap_err().to_string().contains("queries"));
    }

    #[test]
    fn extremes_are_those_of_a_plain_search() {
        let values: Vec<f32> = (0..61).map(|i| ((i * 37) % 61) as f32 - 20.0).collect();
        for n in 1..values.len() {
            let plain = values[..n]
                .iter()
                .fold([f32::INFINITY, f32::NEG_INFINITY], |[a, b], &x| [a.min(x), b.max(x)]);
            assert_eq!(extremes(&values[..n]), plain);
        }
    }
}
