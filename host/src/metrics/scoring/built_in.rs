//! Metrics that come with the program and are asked for by name.

use super::fields::Column;
use super::{Description, Scores, text};

/// Bins of the expected calibration error: as many as Guo et al. use.
const BINS: usize = 15;

/// A metric that comes with the program.
#[derive(Clone, Copy)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// What it measures.
    pub summary: &'static str,
    unit: &'static str,
    higher_is_better: bool,
    fields: &'static [&'static str],
    score: fn(&[Column]) -> Option<Scores>,
}

/// All of them.
pub const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "brier_score",
        summary: "mean over questions of the squared distance between the choices' probabilities and the right answer (Brier 1950), from 0 to 2",
        unit: "",
        higher_is_better: false,
        fields: &["probabilities", "target"],
        score: brier_score,
    },
    BuiltIn {
        name: "expected_calibration_error",
        summary: "difference between confidence and accuracy, averaged over 15 bins of confidence weighted by size (Guo et al. 2017, equation 3)",
        unit: "fraction",
        higher_is_better: false,
        fields: &["probabilities", "target"],
        score: expected_calibration_error,
    },
    BuiltIn {
        name: "exact_match",
        summary: "share of questions whose likeliest choice has the right one's words (Rajpurkar et al. 2016)",
        unit: "fraction",
        higher_is_better: true,
        fields: &["prediction", "reference"],
        score: |columns| of_texts(columns, text::exact),
    },
    BuiltIn {
        name: "token_f1",
        summary: "overlap of the likeliest choice's words with the right one's, as F1 (Rajpurkar et al. 2016)",
        unit: "fraction",
        higher_is_better: true,
        fields: &["prediction", "reference"],
        score: |columns| of_texts(columns, text::f1),
    },
];

/// The one of a name.
pub fn built_in(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|metric| metric.name == name)
}

impl BuiltIn {
    /// What it says of itself.
    pub fn describe(&self) -> Description {
        Description {
            name: self.name.to_owned(),
            summary: self.summary.to_owned(),
            unit: self.unit.to_owned(),
            higher_is_better: self.higher_is_better,
            fields: self.fields.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// The metric over columns of its fields.
    ///
    /// # Errors
    /// Other columns than those.
    pub fn score(&self, columns: &[Column]) -> Result<Scores, String> {
        (self.score)(columns).ok_or_else(|| format!("{}: the columns are not those of its fields", self.name))
    }
}

/// Each item's probabilities of its choices, and the right one's index.
fn answers(columns: &[Column]) -> Option<impl Iterator<Item = (&[f64], usize)>> {
    let [Column::Ragged { offsets, values }, Column::Indices(targets)] = columns else { return None };
    let items = offsets.windows(2).map(|ends| &values[ends[0] as usize..ends[1] as usize]);
    Some(items.zip(targets.iter().map(|target| *target as usize)))
}

/// Mean over items of `sum_c (p_c - [c is right])^2`.
fn brier_score(columns: &[Column]) -> Option<Scores> {
    let per_item = answers(columns)?.map(|(probabilities, target)| {
        let distance = |(at, p): (usize, &f64)| {
            let d = p - f64::from(u8::from(at == target));
            d * d
        };
        probabilities.iter().enumerate().map(distance).fold(0.0, |sum, d| sum + d)
    });
    Some(Scores::mean_of(per_item.collect()))
}

/// `sum_m |B_m| / n |acc(B_m) - conf(B_m)|` over bins `(m - 1) / M < confidence <= m / M`, confidence being the largest probability. Not the mean of
/// anything per item.
fn expected_calibration_error(columns: &[Column]) -> Option<Scores> {
    let mut confidence = [0.0; BINS];
    let mut right = [0.0; BINS];
    let mut items = 0.0;
    for (probabilities, target) in answers(columns)? {
        let (mut chosen, mut largest) = (None, 0.0);
        for (at, p) in probabilities.iter().enumerate() {
            if *p > largest {
                (chosen, largest) = (Some(at), *p);
            }
        }
        let bin = ((largest * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        confidence[bin] += largest;
        right[bin] += f64::from(u8::from(chosen == Some(target)));
        items += 1.0;
    }
    let gaps = right.iter().zip(&confidence).map(|(right, confidence)| (right - confidence).abs());
    Some(Scores { value: gaps.fold(0.0, |sum, gap| sum + gap) / items, per_item: None })
}

fn of_texts(columns: &[Column], of: fn(&str, &str) -> f64) -> Option<Scores> {
    let [Column::Texts(predictions), Column::Texts(references)] = columns else { return None };
    let per_item =
        predictions.iter().zip(references).map(|(prediction, reference)| of(prediction, reference));
    Some(Scores::mean_of(per_item.collect()))
}
