//! Fields of items that metrics may read, as columns: parallel lists with one entry for each item.

use crate::assets::nearest;
use crate::tasks::{Answered, Asked, ItemResult, Outcome};

/// What stands for a choice where no log-likelihood is a number.
const NO_CHOICE: u32 = u32::MAX;

/// A field of all items.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// A text for each item.
    Texts(Vec<String>),
    /// A number for each item.
    Numbers(Vec<f64>),
    /// An index or a count for each item.
    Indices(Vec<u32>),
    /// Several numbers for each item: of item `i` those from `offsets[i]` up to `offsets[i + 1]`.
    Ragged {
        /// One more than there are items.
        offsets: Vec<u32>,
        /// The numbers of all items.
        values: Vec<f64>,
    },
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// [`Column::Texts`].
    Texts,
    /// [`Column::Numbers`].
    Numbers,
    /// [`Column::Indices`].
    Indices,
    /// [`Column::Ragged`].
    Ragged,
}

impl ColumnKind {
    /// Its name in `metric.wit`.
    pub fn name(self) -> &'static str {
        match self {
            ColumnKind::Texts => "texts",
            ColumnKind::Numbers => "numbers",
            ColumnKind::Indices => "indices",
            ColumnKind::Ragged => "ragged",
        }
    }
}

impl Column {
    /// What it holds.
    pub fn kind(&self) -> ColumnKind {
        match self {
            Column::Texts(_) => ColumnKind::Texts,
            Column::Numbers(_) => ColumnKind::Numbers,
            Column::Indices(_) => ColumnKind::Indices,
            Column::Ragged { .. } => ColumnKind::Ragged,
        }
    }

    /// Bytes that it takes in a metric's memory, about.
    pub fn bytes(&self) -> usize {
        match self {
            Column::Texts(texts) => texts.iter().map(|text| text.len() + 8).sum(),
            Column::Numbers(values) => 8 * values.len(),
            Column::Indices(values) => 4 * values.len(),
            Column::Ragged { offsets, values } => 4 * offsets.len() + 8 * values.len(),
        }
    }
}

/// Which items have a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// All.
    Every,
    /// Questions with choices.
    Questions,
    /// Windows of a text.
    Windows,
}

impl Of {
    /// Whether the items of a perplexity task, or of another, have it.
    pub fn has(self, perplexity: bool) -> bool {
        match self {
            Of::Every => true,
            Of::Questions => !perplexity,
            Of::Windows => perplexity,
        }
    }

    /// In words, for lists.
    pub fn words(self) -> &'static str {
        match self {
            Of::Every => "all items",
            Of::Questions => "questions",
            Of::Windows => "windows of texts",
        }
    }
}

/// A field.
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What its column holds.
    pub kind: ColumnKind,
    /// Which items have it.
    pub of: Of,
    /// What it is.
    pub what: &'static str,
    read: fn(&[ItemResult]) -> Option<Column>,
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// All fields.
pub const FIELDS: &[Field] = &[
    Field {
        name: "doc_id",
        kind: ColumnKind::Texts,
        of: Of::Every,
        what: "the document's identifier in its data set, or the window's number",
        read: |items| Some(Column::Texts(items.iter().map(|item| item.doc_id.clone()).collect())),
    },
    Field {
        name: "subset",
        kind: ColumnKind::Texts,
        of: Of::Every,
        what: "the subject, where the task has several, else empty",
        read: |items| {
            Some(Column::Texts(items.iter().map(|item| item.subset.clone().unwrap_or_default()).collect()))
        },
    },
    Field {
        name: "context",
        kind: ColumnKind::Texts,
        of: Of::Questions,
        what: "what was given before the first choice",
        read: |items| questions(items, |q| q.asked.first()?.context.clone()).map(Column::Texts),
    },
    Field {
        name: "prediction",
        kind: ColumnKind::Texts,
        of: Of::Questions,
        what: "text of the likeliest choice, trimmed; empty where there is none",
        read: |items| {
            questions(items, |q| Some(q.answered.chosen.map(|at| q.text(at)).unwrap_or_default()))
                .map(Column::Texts)
        },
    },
    Field {
        name: "reference",
        kind: ColumnKind::Texts,
        of: Of::Questions,
        what: "text of the right choice, trimmed",
        read: |items| questions(items, |q| Some(q.text(q.target))).map(Column::Texts),
    },
    Field {
        name: "chosen",
        kind: ColumnKind::Indices,
        of: Of::Questions,
        what: "index of the likeliest choice; 4294967295 where no log-likelihood is a number",
        read: |items| {
            questions(items, |q| Some(q.answered.chosen.map_or(NO_CHOICE, |at| at as u32)))
                .map(Column::Indices)
        },
    },
    Field {
        name: "target",
        kind: ColumnKind::Indices,
        of: Of::Questions,
        what: "index of the right choice",
        read: |items| questions(items, |q| Some(q.target as u32)).map(Column::Indices),
    },
    Field {
        name: "correct",
        kind: ColumnKind::Numbers,
        of: Of::Questions,
        what: "1 where the likeliest choice is right, else 0",
        read: |items| questions(items, |q| Some(f64::from(q.answered.acc))).map(Column::Numbers),
    },
    Field {
        name: "log_likelihoods",
        kind: ColumnKind::Ragged,
        of: Of::Questions,
        what: "log-likelihood of each choice, in nats",
        read: |items| ragged(items, |values, out| out.extend(values)),
    },
    Field {
        name: "probabilities",
        kind: ColumnKind::Ragged,
        of: Of::Questions,
        what: "share of each choice in the probability of all; 0 where no log-likelihood is a number",
        read: |items| ragged(items, softmax),
    },
    Field {
        name: "nll",
        kind: ColumnKind::Numbers,
        of: Of::Windows,
        what: "sum of the negative log-likelihoods of the predicted tokens, in nats",
        read: |items| windows(items, |nll, _| nll).map(Column::Numbers),
    },
    Field {
        name: "tokens",
        kind: ColumnKind::Indices,
        of: Of::Windows,
        what: "tokens that were predicted",
        read: |items| windows(items, |_, tokens| tokens).map(Column::Indices),
    },
];

/// The field of a name.
pub(super) fn field(name: &str) -> Result<&'static Field, String> {
    FIELDS.iter().find(|field| field.name == name).ok_or_else(|| {
        let names = || FIELDS.iter().map(|field| field.name);
        let hint = match nearest(name, names()).first() {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("they have {}", names().collect::<Vec<_>>().join(", ")),
        };
        let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
        format!("it reads the field `{name}`, which items do not have; {hint}")
    })
}

/// The columns of fields over items, in the order of the fields.
///
/// # Errors
/// Items that lack a field, in a line.
pub fn columns(fields: &[&'static Field], items: &[ItemResult]) -> Result<Vec<Column>, String> {
    let lacks = |field: &Field| {
        format!("it reads `{}`, which only {} have, not the items of this task", field.name, field.of.words())
    };
    fields.iter().map(|field| (field.read)(items).ok_or_else(|| lacks(field))).collect()
}

/// A question and its answers.
struct Question<'a> {
    asked: &'a [Asked],
    answered: &'a Answered,
    target: usize,
}

impl Question<'_> {
    /// The text of a choice: what was scored, and before it what was given, where the choices differ in that.
    fn text(&self, at: usize) -> String {
        let Some(asked) = self.asked.get(at) else { return String::new() };
        let differ = self.asked.iter().skip(1).any(|one| one.context.is_some());
        let given = match (&asked.context, differ) {
            (Some(context), true) => context.as_str(),
            // That of the first where a choice says nothing of its own.
            (None, true) => self.asked[0].context.as_deref().unwrap_or_default(),
            (_, false) => "",
        };
        format!("{given}{}", asked.continuation).trim().to_owned()
    }
}

fn questions<T>(items: &[ItemResult], of: impl Fn(&Question<'_>) -> Option<T>) -> Option<Vec<T>> {
    let one = |item: &ItemResult| match &item.outcome {
        Outcome::Choice { asked, answered, target } => of(&Question { asked, answered, target: *target }),
        _ => None,
    };
    items.iter().map(one).collect()
}

fn windows<T>(items: &[ItemResult], of: impl Fn(f64, u32) -> T) -> Option<Vec<T>> {
    let one = |item: &ItemResult| match &item.outcome {
        Outcome::Window { nll, tokens, .. } => Some(of(*nll, u32::try_from(*tokens).unwrap_or(u32::MAX))),
        _ => None,
    };
    items.iter().map(one).collect()
}

fn ragged(items: &[ItemResult], append: impl Fn(&[f64], &mut Vec<f64>)) -> Option<Column> {
    let mut offsets = Vec::with_capacity(items.len() + 1);
    let mut values = Vec::new();
    offsets.push(0);
    for item in items {
        let Outcome::Choice { answered, .. } = &item.outcome else { return None };
        append(&answered.log_likelihoods, &mut values);
        offsets.push(u32::try_from(values.len()).ok()?);
    }
    Some(Column::Ragged { offsets, values })
}

/// `exp(x_i) / sum(exp(x_j))`, with an exponential that is the same on every machine.
fn softmax(log_likelihoods: &[f64], out: &mut Vec<f64>) {
    let largest = log_likelihoods.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let share = |ll: f64| if ll.is_nan() || !largest.is_finite() { 0.0 } else { libm::exp(ll - largest) };
    let sum: f64 = log_likelihoods.iter().map(|ll| share(*ll)).sum();
    out.extend(log_likelihoods.iter().map(|ll| if sum > 0.0 { share(*ll) / sum } else { 0.0 }));
}
