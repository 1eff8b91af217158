//! `metrics check`: a conformance list for metric components. Each line is a call of an instance of its own, so none disturbs another.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use serde::Serialize;

use super::component::{Component, ComponentError, Sandbox, fuel_for};
use super::scoring::{Column, Description, Field, Scores, columns};
use crate::plugins::check::{Verdict, summary_of};
use crate::tasks::{Answered, Asked, ItemResult, Outcome};

/// Items of most checks, and of the one for large results.
const SOME: usize = 200;
const MANY: usize = 5000;
/// How far a value may move with the order of the items, relatively: sums may be taken in another order.
const ORDER_TOLERANCE: f64 = 1e-9;

/// Name of the check that all others stand on.
const SCORE: &str = "score";

/// What a check saw, or what is wrong; in a line.
type Seen = Result<String, String>;

/// One line of the list.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Name of the check.
    pub name: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// Why, or what was seen; may be empty.
    pub why: String,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(format!("{:<8} {:<16} {}", self.verdict.name(), self.name, self.why).trim_end())
    }
}

/// The whole list.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The file.
    pub file: PathBuf,
    /// Every check, in order.
    pub checks: Vec<Line>,
}

impl Report {
    /// Whether a check failed.
    pub fn bad(&self) -> bool {
        self.checks.iter().any(|line| line.verdict == Verdict::Failed)
    }

    /// `7 passed, 1 failed`.
    pub fn summary(&self) -> String {
        summary_of(self.checks.iter().map(|line| line.verdict))
    }
}

/// The list as it grows.
struct List<'a> {
    report: Report,
    tell: &'a mut dyn FnMut(&Line),
    /// What failed that all others stand on.
    broken: Option<&'static str>,
}

impl List<'_> {
    /// Runs a check, unless what it stands on failed. What it gives comes with what is said of it.
    fn check<T>(
        &mut self,
        name: &'static str,
        is_foundation: bool,
        check: impl FnOnce() -> Result<(T, String), String>,
    ) -> Option<T> {
        let (given, verdict, why) = match self.broken.map_or_else(|| Ok(check()), Err) {
            Ok(Ok((given, note))) => (Some(given), Verdict::Passed, note),
            Ok(Err(why)) => (None, Verdict::Failed, why),
            Err(foundation) => (None, Verdict::Skipped, format!("`{foundation}` must pass first")),
        };
        if is_foundation && verdict == Verdict::Failed {
            self.broken = Some(name);
        }
        let line = Line { name, verdict, why };
        (self.tell)(&line);
        self.report.checks.push(line);
        given
    }
}

/// Runs every check on a component's bytes and tells each line as it comes.
pub fn run(sandbox: &Sandbox, file: &Path, bytes: &[u8], mut tell: impl FnMut(&Line)) -> Report {
    let report = Report { file: file.to_owned(), checks: Vec::new() };
    let mut list = List { report, tell: &mut tell, broken: None };
    let component = list.check("component", true, || {
        let component = sandbox.open(bytes).map_err(|e| e.to_string())?;
        let note = format!("world {}, {} KiB", component.version(), bytes.len() >> 10);
        Ok((component, note))
    });
    let subject = list.check("description", true, || {
        let component = component.ok_or("there is no component")?;
        let (description, fields) = described(&component)?;
        let note = format!("{}, reads {}", description.name, description.fields.join(", "));
        Ok((Subject { component, description, fields }, note))
    });
    for (name, check) in CHECKS {
        // Where a score fails, it fails in all of them.
        list.check(name, *name == SCORE, || {
            let subject = subject.as_ref().ok_or("there is no component")?;
            check(subject).map(|note| ((), note))
        });
    }
    list.report
}

/// What a component says of itself, twice the same.
fn described(component: &Component) -> Result<(Description, Vec<&'static Field>), String> {
    let once = || component.describe().answer.map_err(|e| e.to_string());
    let description = once()?;
    if once()? != description {
        return Err("it describes itself otherwise when asked again".to_owned());
    }
    let fields = description.fields()?;
    Ok((description, fields))
}

struct Subject {
    component: Component,
    description: Description,
    fields: Vec<&'static Field>,
}

impl Subject {
    fn columns(&self, items: &[ItemResult]) -> Result<Vec<Column>, String> {
        columns(&self.fields, items)
    }

    /// The metric over items, once it is a sound number, and the fuel.
    fn score(&self, items: &[ItemResult]) -> Result<(Scores, u64), String> {
        let called = self.component.score(self.columns(items)?, items.len(), &Arc::default());
        let scores = called.answer.map_err(|e| e.to_string())?;
        scores.metric(&self.description, items.len())?;
        Ok((scores, called.fuel))
    }

    /// Items as this metric reads them, drawn from a seed.
    fn items(&self, seed: u64, count: usize, wild: bool) -> Vec<ItemResult> {
        let windows = self.description.fits(true) && !self.description.fits(false);
        let mut random = Random(Pcg64::seed_from_u64(seed));
        (0..count).map(|index| random.item(index, windows, wild)).collect()
    }
}

/// The checks of a component that describes itself.
const CHECKS: &[(&str, fn(&Subject) -> Seen)] = &[
    (SCORE, |subject| {
        let (scores, fuel) = subject.score(&subject.items(1, SOME, false))?;
        let errors = match scores.per_item {
            Some(_) => "the mean of its values per item",
            None => "without values per item, so without standard errors and comparisons item by item",
        };
        Ok(format!("{} over {SOME} items, {errors}; {fuel} units of fuel", scores.value))
    }),
    ("one-item", |subject| {
        (0..8).try_for_each(|seed| subject.score(&subject.items(10 + seed, 1, false)).map(|_| ()))?;
        Ok(String::new())
    }),
    ("order", |subject| {
        let mut items = subject.items(4, SOME, false);
        let (first, _) = subject.score(&items)?;
        items.reverse();
        let (second, _) = subject.score(&items)?;
        let apart = (first.value - second.value).abs();
        if apart <= ORDER_TOLERANCE * first.value.abs().max(1.0) || first.value == second.value {
            return Ok(String::new());
        }
        Err(format!("the same items in another order gave {} after {}", second.value, first.value))
    }),
    ("wild-items", |subject| {
        let mut refused = 0;
        for seed in 0..8 {
            let items = subject.items(20 + seed, 16, true);
            let called = subject.component.score(subject.columns(&items)?, items.len(), &Arc::default());
            match called.answer {
                Ok(_) => {}
                Err(ComponentError::Refused(_)) => refused += 1,
                Err(error) => {
                    return Err(format!(
                        "with numbers that are none, empty texts or strange letters {error}"
                    ));
                }
            }
        }
        Ok(if refused > 0 { format!("{refused} of 8 refused with a reason") } else { String::new() })
    }),
    ("many-items", |subject| {
        let (_, fuel) = subject.score(&subject.items(5, MANY, false))?;
        let share = 100.0 * fuel as f64 / fuel_for(MANY) as f64;
        Ok(format!("{MANY} items take {share:.1} % of its fuel"))
    }),
];

/// Questions that are made up from a seed.
pub fn made_up_questions(seed: u64, count: usize) -> Vec<ItemResult> {
    let mut random = Random(Pcg64::seed_from_u64(seed));
    (0..count).map(|index| random.item(index, false, false)).collect()
}

/// Items that are made up.
struct Random(Pcg64);

/// Words of made-up answers.
const WORDS: [&str; 12] =
    ["the", "quick", "Fox", "jumps", "over", "a", "lazy", "dog,", "42", "north-west", "Paris", "water"];
/// Words that are seldom thought of.
const WILD_WORDS: [&str; 6] = ["", "\u{0}", "ÅNGSTRÖM", "漢字", "🦊\u{200d}", "e\u{301}"];
/// Numbers that are seldom thought of.
const WILD_NUMBERS: [f64; 5] = [f64::NAN, f64::NEG_INFINITY, f64::INFINITY, -0.0, -1e308];

impl Random {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    fn words(&mut self, wild: bool) -> String {
        let words: Vec<&str> = (0..self.below(5) + usize::from(!wild))
            .map(|_| if wild { WILD_WORDS[self.below(6)] } else { WORDS[self.below(12)] })
            .collect();
        format!(" {}", words.join(" "))
    }

    fn log_likelihood(&mut self, wild: bool) -> f64 {
        if wild { WILD_NUMBERS[self.below(5)] } else { -(self.below(1 << 20) as f64) / f64::from(1 << 16) }
    }

    fn item(&mut self, index: usize, window: bool, wild: bool) -> ItemResult {
        let outcome = if window {
            let nll = -self.log_likelihood(wild);
            Outcome::Window { first_token: 16 * index, nll, tokens: 1 + self.below(2048), bytes: None }
        } else {
            self.question(wild)
        };
        ItemResult {
            task: "made-up".to_owned(),
            doc_id: format!("item-{index}"),
            index,
            subset: index.is_multiple_of(3).then(|| self.words(wild)),
            outcome,
            truncated: false,
        }
    }

    fn question(&mut self, wild: bool) -> Outcome {
        let choices = 1 + self.below(6);
        let log_likelihoods: Vec<f64> = (0..choices).map(|_| self.log_likelihood(wild)).collect();
        let order = |a: &usize, b: &usize| log_likelihoods[*a].total_cmp(&log_likelihoods[*b]);
        let chosen = (0..choices).filter(|at| !log_likelihoods[*at].is_nan()).max_by(order);
        let asked = (0..choices)
            .map(|at| Asked { context: (at == 0).then(|| self.words(wild)), continuation: self.words(wild) })
            .collect();
        let target = self.below(choices);
        let answered = Answered {
            chosen,
            chosen_norm: None,
            acc: u8::from(chosen == Some(target)),
            acc_norm: None,
            mass: None,
            log_likelihoods,
        };
        Outcome::Choice { asked, answered, target }
    }
}
