//! How far backends agree on what they scored: the same checkpoint, the same items.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::pairs::{is_scored, items_of};
use super::result::{Agreement, AgreementRecord, Cell};
use crate::tasks::{ItemResult, Outcome};

/// What was compared already.
#[derive(Default)]
pub(super) struct Agreements(RefCell<HashMap<[PathBuf; 2], Option<Agreement>>>);

impl Agreements {
    /// Compares every cell with that of the first backend, `reference`, that has the same model, method and seed. `root` is the result directory.
    pub(super) fn fill(&self, root: &Path, reference: &str, cells: &mut [Cell]) {
        let of_reference: Vec<Cell> =
            cells.iter().filter(|cell| cell.backend == reference).cloned().collect();
        for cell in cells.iter_mut().filter(|cell| cell.backend != reference) {
            let same = |other: &&Cell| {
                (&other.model, &other.method, other.seed) == (&cell.model, &cell.method, cell.seed)
            };
            let Some(other) = of_reference.iter().find(same) else { continue };
            let mut found = Vec::new();
            for stage in cell.stages.iter().filter(|stage| is_scored(stage)) {
                let like = other.stages.iter().find(|one| is_scored(one) && one.task == stage.task);
                let (Some(like), Some(task)) = (like, &stage.task) else { continue };
                let Some(agreement) = self.compare(root, [&like.directory, &stage.directory]) else {
                    continue;
                };
                found.push(AgreementRecord { task: task.clone(), with: reference.to_owned(), agreement });
            }
            cell.agreement = found;
        }
    }

    /// Nothing where one of them cannot be read, or they are of other items.
    fn compare(&self, root: &Path, directories: [&PathBuf; 2]) -> Option<Agreement> {
        let key = directories.map(PathBuf::clone);
        if let Some(known) = self.0.borrow().get(&key) {
            return *known;
        }
        let [one, other] = directories.map(|directory| items_of(root, directory).ok());
        let found = one.zip(other).and_then(|(one, other)| agreement(&one, &other));
        self.0.borrow_mut().insert(key, found);
        found
    }
}

fn agreement(one: &[ItemResult], other: &[ItemResult]) -> Option<Agreement> {
    if one.len() != other.len() {
        return None;
    }
    let (mut differences, mut choices_differ) = (Vec::new(), 0);
    for (a, b) in one.iter().zip(other) {
        if (&a.doc_id, a.index, &a.subset) != (&b.doc_id, b.index, &b.subset) {
            return None;
        }
        match (&a.outcome, &b.outcome) {
            (Outcome::Choice { answered: a, .. }, Outcome::Choice { answered: b, .. }) => {
                let pairs = a.log_likelihoods.iter().zip(&b.log_likelihoods);
                differences.extend(pairs.map(|(a, b)| (a - b).abs()));
                choices_differ += usize::from(a.chosen != b.chosen);
            }
            (Outcome::Window { nll: a, .. }, Outcome::Window { nll: b, .. }) => {
                differences.push((a - b).abs())
            }
            _ => return None,
        }
    }
    let count = differences.len();
    (count > 0).then(|| Agreement {
        log_likelihoods: count,
        mean_difference: differences.iter().sum::<f64>() / count as f64,
        largest_difference: differences.iter().copied().fold(0.0, f64::max),
        choices_differ,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(doc: &str, log_likelihoods: [f64; 2], chosen: usize) -> ItemResult {
        let answered = json!({"log_likelihoods": log_likelihoods, "chosen": chosen, "acc": 1});
        let item = json!({"task": "t", "doc_id": doc, "index": 0, "kind": "choice", "asked": [], "answered": answered, "target": 0});
        serde_json::from_value(item).unwrap()
    }

    #[test]
    fn differences_are_counted_item_by_item() {
        let one = [item("a", [-1.0, -2.0], 0), item("b", [-3.0, -2.5], 1)];
        let other = [item("a", [-1.5, -2.0], 0), item("b", [-3.0, -3.5], 0)];
        let found = agreement(&one, &other).unwrap();
        let expected = Agreement {
            log_likelihoods: 4,
            mean_difference: 0.375,
            largest_difference: 1.0,
            choices_differ: 1,
        };
        assert_eq!(found, expected);
        assert_eq!(agreement(&one, &one).unwrap().largest_difference, 0.0);
        assert_eq!(agreement(&one, &other[..1]), None);
        assert_eq!(agreement(&one, &[item("a", [0.0; 2], 0), item("c", [0.0; 2], 0)]), None);
    }
}
