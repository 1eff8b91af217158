//! Rounding activations before they are multiplied, as weight-and-activation quantisation does.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::layout::InputGroup;
use crate::{Error, Result};

/// How many sites there are.
const SITES: usize = 10;

/// Activations of a block that can be rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActivationSite {
    /// What the linears of a group read: whole rows.
    Input(InputGroup),
    /// Outputs of the query projection, before rotation: whole rows.
    QueryOutputs,
    /// Outputs of the key projection, likewise.
    KeyOutputs,
    /// Outputs of the value projection, likewise.
    ValueOutputs,
    /// Queries after rotation: each head of a row on its own.
    Queries,
    /// Keys after rotation, likewise.
    Keys,
    /// Values, likewise.
    Values,
}

impl ActivationSite {
    /// All sites.
    pub const ALL: [ActivationSite; SITES] = [
        ActivationSite::Input(InputGroup::AttnIn),
        ActivationSite::QueryOutputs,
        ActivationSite::KeyOutputs,
        ActivationSite::ValueOutputs,
        ActivationSite::Queries,
        ActivationSite::Keys,
        ActivationSite::Values,
        ActivationSite::Input(InputGroup::AttnOut),
        ActivationSite::Input(InputGroup::MlpIn),
        ActivationSite::Input(InputGroup::MlpOut),
    ];

    /// The name used in descriptions: that of the input group, or `query_outputs`, `queries` and the like.
    pub fn name(self) -> &'static str {
        match self {
            ActivationSite::Input(group) => group.name(),
            ActivationSite::QueryOutputs => "query_outputs",
            ActivationSite::KeyOutputs => "key_outputs",
            ActivationSite::ValueOutputs => "value_outputs",
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
            ActivationSite::QueryOutputs => 7,
            ActivationSite::KeyOutputs => 8,
            ActivationSite::ValueOutputs => 9,
        }
    }
}

/// How values are rounded: to `2^bits` evenly spaced ones, of each row's own range (dynamic) or of a fixed one (static).
///
/// Symmetric: `s = max |x| / (2^(b-1) - 1)`, at least 1e-5, `x' = s clamp(round(x / s), -2^(b-1), 2^(b-1) - 1)`. Asymmetric:
/// `s = (max x - min x) / (2^b - 1)`, within 1e-5 and 1e4, `z = round(-min x / s)`, within -1e4 and 1e4,
/// `x' = s (clamp(round(x / s) + z, 0, 2^b - 1) - z)`. Halves go to the even neighbour.
///
/// That is how the methods' published codes round. Checkpoints of compressed-tensors are run by its own rule ([`full_range`](Self::full_range)).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ActivationQuantization {
    /// Bits, 2 to 8.
    pub bits: u32,
    /// Whether the grid is symmetric around zero.
    pub symmetric: bool,
    /// Least and greatest value for all rows; none: each row's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f32; 2]>,
    /// compressed-tensors' rule: symmetric, `s = 2 max |x| / (2^b - 1)`, so that all levels are used; asymmetric, the range is widened to hold 0; no
    /// bounds on `s` but that it is not 0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full_range: bool,
}

impl ActivationQuantization {
    /// Checks bits and range: what a file says may be nonsense.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        if !(2..=8).contains(&self.bits) {
            return Err(format!("{} bits, of which 2 to 8 can be run", self.bits));
        }
        match self.range {
            Some([least, greatest]) if !(least.is_finite() && greatest.is_finite() && least <= greatest) => {
                Err(format!("values between {least} and {greatest}, which is no range"))
            }
            _ => Ok(()),
        }
    }

    /// In a few words, such as `8 bits, symmetric, per token`.
    pub fn describe(&self) -> String {
        format!(
            "{} bits, {}, {}",
            self.bits,
            if self.symmetric { "symmetric" } else { "asymmetric" },
            if self.range.is_some() { "static" } else { "per token" }
        )
    }

    /// Rounds one row in place.
    pub fn round_row(&self, row: &mut [f32]) {
        let [least, greatest] = self.range.unwrap_or_else(|| extremes(row));
        if self.full_range {
            let steps = ((1u32 << self.bits) - 1) as f32;
            let (low, high) = (least.min(0.0), greatest.max(0.0));
            let width = if self.symmetric { 2.0 * high.max(-low) } else { high - low };
            let scale = if width > 0.0 { width / steps } else { f32::EPSILON };
            let half = (1u32 << (self.bits - 1)) as f32;
            let zero = if self.symmetric { 0.0 } else { (-half - low / scale).round_ties_even() };
            for x in row {
                *x = ((*x / scale + zero).round_ties_even().clamp(-half, half - 1.0) - zero) * scale;
            }
            return;
        }
        let RowGrid { scale, zero, low, high, .. } = self.grid([least, greatest]);
        for x in row {
            *x = (((*x / scale).round_ties_even() + zero).clamp(low, high) - zero) * scale;
        }
    }

    /// The grid of a row with these extremes, by the published codes' rule.
    fn grid(&self, [least, greatest]: [f32; 2]) -> RowGrid {
        if self.symmetric {
            let half = (1u32 << (self.bits - 1)) as f32;
            let step = least.abs().max(greatest.abs()) / (half - 1.0);
            let free = step >= 1e-5;
            let slope = if free { 1.0 / (half - 1.0) } else { 0.0 };
            RowGrid { scale: step.max(1e-5), zero: 0.0, low: -half, high: half - 1.0, slope }
        } else {
            let steps = ((1u32 << self.bits) - 1) as f32;
            let step = (greatest - least) / steps;
            let scale = step.clamp(1e-5, 1e4);
            let zero = (-least / scale).clamp(-1e4, 1e4).round_ties_even();
            RowGrid {
                scale,
                zero,
                low: 0.0,
                high: steps,
                slope: if scale == step { 1.0 / steps } else { 0.0 },
            }
        }
    }

    /// How rounded values change with the row: for each value, 1 for its own change unless it is cut off (then 0), rounding counting as the
    /// identity; and its change with the row's range (the largest magnitude of a symmetric grid), through the step.
    ///
    /// For `x' = s (clamp(round(x / s) + z) - z)` that is `(x' - m x) / s` times the step's change with the range, `m` being the first.
    /// The zero counts as a constant, and so does a fixed range.
    pub(crate) fn slopes(&self, row: &[f32], rounded: &[f32], of_value: &mut [f32], of_range: &mut [f32]) {
        let RowGrid { scale, zero, low, high, slope } =
            self.grid(self.range.unwrap_or_else(|| extremes(row)));
        let slope = if self.range.is_some() { 0.0 } else { slope };
        for (((&x, &rounded), of_value), of_range) in row.iter().zip(rounded).zip(of_value).zip(of_range) {
            let code = (x / scale).round_ties_even() + zero;
            *of_value = if (low..=high).contains(&code) { 1.0 } else { 0.0 };
            *of_range = (rounded - *of_value * x) / scale * slope;
        }
    }

    /// Rounds rows of `width` values one by one.
    pub fn round_rows(&self, rows: &mut [f32], width: usize) {
        rows.chunks_exact_mut(width).for_each(|row| self.round_row(row));
    }
}

/// `x' = scale (clamp(round(x / scale) + zero, low, high) - zero)`.
struct RowGrid {
    scale: f32,
    zero: f32,
    low: f32,
    high: f32,
    /// The scale's derivative with respect to the row's range.
    slope: f32,
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
pub struct Activations([Option<ActivationQuantization>; SITES]);

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

    /// The sites that are rounded, and how.
    pub fn iter(&self) -> impl Iterator<Item = (ActivationSite, &ActivationQuantization)> {
        ActivationSite::ALL.into_iter().filter_map(|site| Some((site, self.at(site)?)))
    }

    /// As an object of a configuration: site to rounding.
    pub fn to_json(&self) -> Value {
        self.iter()
            .map(|(site, rounding)| (site.name().to_owned(), json!(rounding)))
            .collect::<Map<_, _>>()
            .into()
    }

    /// Reads an object of [`to_json`](Self::to_json).
    ///
    /// # Errors
    /// In one line, what is wrong with it.
    pub fn from_json(json: &Value) -> std::result::Result<Self, String> {
        let mut activations = Activations::default();
        for (name, given) in json.as_object().ok_or("it is no object of activations")? {
            let site = ActivationSite::from_name(name).map_err(|e| e.to_string())?;
            let rounding: ActivationQuantization =
                serde_json::from_value(given.clone()).map_err(|e| format!("`{name}`: {e}"))?;
            rounding.check().map_err(|e| format!("`{name}` is rounded to {e}"))?;
            activations.set(site, Some(rounding));
        }
        Ok(activations)
    }

    /// How all linears' inputs are rounded, where that is the same for all, finds each token's range, and is all that is rounded: what other
    /// tools have words for.
    pub(crate) fn inputs_alike(&self) -> Option<ActivationQuantization> {
        let first = *self.input(InputGroup::AttnIn)?;
        let alike = InputGroup::ALL.into_iter().all(|group| self.input(group) == Some(&first));
        (alike && first.range.is_none() && self.iter().count() == InputGroup::ALL.len()).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_have_names_and_places_of_their_own() {
        let mut places = [false; SITES];
        for site in ActivationSite::ALL {
            assert_eq!(ActivationSite::from_name(site.name()).unwrap(), site);
            assert!(!std::mem::replace(&mut places[site.index()], true));
        }
        assert!(ActivationSite::from_name("nowhere").unwrap_err().to_string().contains("queries"));
    }

    #[test]
    fn configurations_come_back_and_nonsense_is_refused() {
        let mut activations = Activations::default();
        let dynamic = ActivationQuantization { bits: 8, symmetric: true, range: None, full_range: false };
        for (i, site) in ActivationSite::ALL.into_iter().enumerate() {
            activations.set(site, Some(ActivationQuantization { bits: 2 + i as u32 % 7, ..dynamic }));
        }
        activations.set(ActivationSite::Keys, None);
        activations.set(
            ActivationSite::Values,
            Some(ActivationQuantization { range: Some([-1.5, 0.25]), symmetric: false, ..dynamic }),
        );
        assert_eq!(Activations::from_json(&activations.to_json()), Ok(activations));
        assert_eq!(activations.inputs_alike(), None);
        let mut inputs = Activations::default();
        InputGroup::ALL.into_iter().for_each(|group| inputs.set(ActivationSite::Input(group), Some(dynamic)));
        assert_eq!(inputs.inputs_alike(), Some(dynamic));

        for (bad, says) in [
            (json!([]), "no object"),
            (json!({ "knees": { "bits": 8, "symmetric": true } }), "knees"),
            (json!({ "queries": { "symmetric": true } }), "bits"),
            (json!({ "queries": { "bits": 9, "symmetric": true } }), "9 bits"),
            (json!({ "queries": { "bits": 8, "symmetric": true, "range": [1.0, -1.0] } }), "no range"),
            (json!({ "queries": { "bits": 8, "symmetric": "yes" } }), "queries"),
        ] {
            let error = Activations::from_json(&bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn compressed_tensors_rule_uses_all_levels_and_holds_zero() {
        let rule = |symmetric| ActivationQuantization { bits: 8, symmetric, range: None, full_range: true };
        // The largest magnitude lies at 127.5 steps, which goes to the even 128 and is cut to 127; its negative stays at -128.
        let mut row = [127.5, -127.5, 63.4, 0.0];
        rule(true).round_row(&mut row);
        assert_eq!(row, [127.0, -128.0, 63.0, 0.0]);
        let mut row = [255.0, 51.2, 1.0];
        rule(false).round_row(&mut row);
        assert_eq!(row, [255.0, 51.0, 1.0]);
        let mut zeros = [0.0; 3];
        rule(false).round_row(&mut zeros);
        rule(true).round_row(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
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
