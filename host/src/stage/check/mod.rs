//! The conformance suite of plugins. Each check runs in a worker of its own, so that a crash costs one check.
//!
//! Whatever is drawn by chance follows from the seed that a check is given.

mod backend;
mod form;
mod method;
mod options;
mod repeat;
mod steps;
mod subject;

use std::path::{Path, PathBuf};

use llmcb_plugin_api::loader::LoadedPlugin;
use serde::{Deserialize, Serialize};

use crate::worker::EventSink;

pub(crate) use steps::Steps;

/// One check.
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What it demands, in one sentence.
    pub demands: &'static str,
    /// With how many threads it is run, each time in another worker. What it sees must be the same with all.
    pub threads: &'static [usize],
    run: fn(&Given) -> Checked,
}

/// What a check is given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Given {
    /// The plugin's file.
    pub path: PathBuf,
    /// Seed of everything that is drawn by chance.
    pub seed: u64,
    /// Threads that the plugin may keep busy.
    pub threads: usize,
    /// Where a check shows signs of life.
    #[serde(skip)]
    pub(crate) events: EventSink,
}

impl Given {
    /// A plugin's file, a seed, and a number of threads.
    pub fn new(path: &Path, seed: u64, threads: usize) -> Self {
        Given { path: path.to_owned(), seed, threads, events: EventSink::default() }
    }
}

const fn check(name: &'static str, demands: &'static str, run: fn(&Given) -> Checked) -> Check {
    Check { name, demands, threads: &[2], run }
}

/// All checks, in the order in which they make sense.
pub const CHECKS: &[Check] = &[
    check("header", "the file exports the frozen header of this ABI", form::header),
    check("layout", "the types of its root module are laid out as the host's", form::layout),
    check("descriptor", "its descriptor is complete", form::descriptor),
    check(
        "options-schema",
        "the options of every role are described by a valid JSON Schema, each with its meaning",
        options::described,
    ),
    check("options-defaults", "no options at all are complete ones, and fit the schema", options::defaults),
    check("options-unknown", "an option that does not exist is refused", options::unknown),
    check(
        "options-odd",
        "values out of range are refused by the schema, and odd ones never make it panic",
        options::odd,
    ),
    check(
        "options-limits",
        "with every option at each end of its range, and with each of its values, it works, stops when told to, or refuses with an error",
        options::limits,
    ),
    check("no-model", "a backend given no model, or a broken file, says so", backend::no_model),
    check(
        "compress",
        "a small model is compressed: every weight a finite number, of the shape that the block has",
        method::compresses,
    ),
    check(
        "shape-zero",
        "no calibration tokens, linears without outputs or inputs, blocks without linears: finite weights of the right shape, or an error",
        method::nothing,
    ),
    check(
        "shape-one",
        "linears one wide, one calibration token: finite weights of the right shape, or an error",
        method::one,
    ),
    check(
        "shape-uneven",
        "widths that no group size divides, drawn from the seed: finite weights of the right shape, or an error",
        method::uneven,
    ),
    check(
        "shape-strided",
        "tensors that are not contiguous give the weights that contiguous ones do, bit by bit, or are refused as unsupported",
        method::strided,
    ),
    check(
        "shape-large",
        "linears of a million weights: finite weights of the right shape, or an error",
        method::large,
    ),
    check(
        "not-a-number",
        "a weight or an activation that is NaN or infinite: every other weight finite, or an error",
        method::not_a_number,
    ),
    check(
        "engine",
        "an engine's blocks of a tiny model are as it describes them, unchanged ones make no error, and it opens its own checkpoint",
        backend::engine,
    ),
    check(
        "scores",
        "a runner's scores of a tiny model are log-likelihoods of every token; none, one, too many and unknown tokens are scored or refused with an error",
        backend::scores,
    ),
    check("batches", "a score does not depend on what else is in the batch", backend::batches),
    check(
        "continuations",
        "continuations are no longer than asked for, of the vocabulary, and the same alone and in a batch",
        backend::continuations,
    ),
    check("determinism", "the same seed gives the same numbers, bit by bit", repeat::determinism),
    Check {
        threads: &[1, 2, 4],
        ..check("threads", "1, 2 and 4 threads give the same numbers, bit by bit", repeat::threads)
    },
    check(
        "two-at-once",
        "two instances at once, on models that differ, give the numbers that each gives alone",
        repeat::two_at_once,
    ),
    check(
        "memory",
        "run many times it leaves no memory, open files or threads behind: what is held does not rise from each span of runs to the next",
        repeat::memory,
    ),
    check(
        "cancellation",
        "told to stop at any step, it ends with that error or was done, and works as before afterwards",
        repeat::cancellation,
    ),
    check("engine-errors", "an engine's error comes back as an error", method::engine_errors),
    check("wrong-names", "linears that the engine does not know come back as an error", method::wrong_names),
    check(
        "panic-safety",
        "what is no option table is refused, a panic under a call comes back as an error, and the plugin still answers",
        options::panics,
    ),
    check("stdout", "it prints nothing to standard output, which is the host's", repeat::stdout),
];

/// How a check came out. That a plugin crashed under it is for the parent of the worker to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Outcome {
    /// All is as it should be.
    Passed {
        /// What was seen, or empty.
        note: String,
    },
    /// Something is not.
    Failed {
        /// What, in one line.
        why: String,
    },
    /// The check does not apply.
    Skipped {
        /// Why.
        why: String,
    },
}

type Checked = Result<String, Outcome>;

fn fail(why: impl std::fmt::Display) -> Outcome {
    Outcome::Failed { why: why.to_string() }
}

fn skip(why: impl std::fmt::Display) -> Outcome {
    Outcome::Skipped { why: why.to_string() }
}

/// Runs a check on a file.
pub fn run(name: &str, given: &Given) -> Outcome {
    match CHECKS.iter().find(|check| check.name == name) {
        Some(check) => (check.run)(given).map_or_else(|outcome| outcome, |note| Outcome::Passed { note }),
        None => fail(format!("no check is called `{name}`; there are {}", names().join(", "))),
    }
}

/// Names of all checks.
pub fn names() -> Vec<&'static str> {
    CHECKS.iter().map(|check| check.name).collect()
}

fn open(path: &Path) -> Result<LoadedPlugin, Outcome> {
    LoadedPlugin::open(path).map_err(|error| {
        if let Some(details) = error.details() {
            eprintln!("{details}");
        }
        fail(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_plugin_fails_every_check_with_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.so");
        std::fs::write(&path, b"not a library").unwrap();
        let given = Given::new(&path, 0, 1);
        // Not that which lends standard output away, and this test's is everybody's.
        for name in names().into_iter().filter(|name| *name != "stdout") {
            let Outcome::Failed { why } = run(name, &given) else { panic!("{name} must fail") };
            assert!(why.contains("x.so") && !why.contains('\n'), "{name}: {why}");
        }
        assert!(
            matches!(run("nonsense", &given), Outcome::Failed { why } if why.contains("no check is called"))
        );
    }
}
