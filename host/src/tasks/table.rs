//! The definitions of all tasks.

/// What a multiple-choice task scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choices {
    /// Each option's text after one and the same prompt.
    Options,
    /// The letters A, B, C, D after one and the same prompt, which lists the options.
    Letters,
    /// The end of the sentence after its beginning with each option filled in (WinoGrande's partial scoring).
    Fillings,
}

/// Where the solved examples of k-shot prompts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// A part of the asset that is not evaluated on, drawn at random.
    Drawn(&'static str),
    /// The same, but one more than asked for is drawn, and the question at hand is left out: what lm-evaluation-harness does for tasks
    /// without a test set, and what decides which examples its generator gives.
    DrawnWithSpare(&'static str),
    /// A part of the asset that is not evaluated on: its first rows (of the same subject).
    First(&'static str),
    /// The evaluated part itself, drawn with a spare as above. Not lm-evaluation-harness's choice (it needs the training set), but all that
    /// there is where the training set cannot be had; results then say so.
    Evaluated,
}

/// How a task asks.
#[derive(Debug, Clone, Copy)]
pub enum TaskKind {
    /// Log-likelihoods of options are compared.
    Choice {
        /// What is scored.
        choices: Choices,
        /// Stands before everything else; `{subject}` is replaced.
        description: &'static str,
        /// The prompt; `{name}` is replaced by the document's field of that name.
        prompt: &'static str,
        /// Sources of solved examples; the first that can be had is taken.
        pools: &'static [Pool],
        /// Whether `acc_norm` is given beside `acc`.
        normalised: bool,
    },
    /// Perplexity of a text in windows.
    Perplexity {
        /// Tokens of a window where the run does not say.
        seqlen: usize,
    },
}

/// A task's definition.
#[derive(Debug, Clone, Copy)]
pub struct TaskSpec {
    /// Name.
    pub id: &'static str,
    /// One line on what it measures.
    pub what: &'static str,
    /// Grows with every change that can change a result; belongs in content keys.
    pub version: &'static str,
    /// Asset and part that it evaluates on; empty for a text file.
    pub data: (&'static str, &'static str),
    /// How it asks.
    pub kind: TaskKind,
    /// The metric that a table shows.
    pub headline: &'static str,
}

const QUESTION: &str = "Question: {question}\nAnswer:";

/// All tasks that have a name of their own.
pub static TASKS: &[TaskSpec] = &[
    TaskSpec {
        id: "wikitext2",
        what: "perplexity on WikiText-2's test set (LLMCBench's and GPTQ's protocol)",
        version: "1",
        data: ("wikitext2", "test"),
        kind: TaskKind::Perplexity { seqlen: 2048 },
        headline: "perplexity",
    },
    TaskSpec {
        id: "squad_passages",
        what: "perplexity on Wikipedia paragraphs of SQuAD's validation set (same protocol; needs no hub)",
        version: "1",
        data: ("squad_passages", "test"),
        kind: TaskKind::Perplexity { seqlen: 2048 },
        headline: "perplexity",
    },
    TaskSpec {
        id: "arc_challenge",
        what: "hard grade-school science questions",
        version: "1",
        data: ("arc_challenge", "test"),
        kind: TaskKind::Choice {
            choices: Choices::Options,
            description: "",
            prompt: QUESTION,
            pools: &[Pool::Drawn("train"), Pool::Drawn("validation")],
            normalised: true,
        },
        headline: "acc_norm",
    },
    TaskSpec {
        id: "arc_easy",
        what: "grade-school science questions",
        version: "1",
        data: ("arc_easy", "test"),
        kind: TaskKind::Choice {
            choices: Choices::Options,
            description: "",
            prompt: QUESTION,
            pools: &[Pool::Drawn("train"), Pool::Drawn("validation")],
            normalised: true,
        },
        headline: "acc_norm",
    },
    TaskSpec {
        id: "hellaswag",
        what: "which of four endings follows",
        version: "1",
        data: ("hellaswag", "validation"),
        kind: TaskKind::Choice {
            choices: Choices::Options,
            description: "",
            prompt: "{query}",
            pools: &[Pool::DrawnWithSpare("train"), Pool::Evaluated],
            normalised: true,
        },
        headline: "acc_norm",
    },
    TaskSpec {
        id: "piqa",
        what: "which of two solutions works",
        version: "1",
        data: ("piqa", "validation"),
        kind: TaskKind::Choice {
            choices: Choices::Options,
            description: "",
            prompt: "Question: {goal}\nAnswer:",
            pools: &[Pool::DrawnWithSpare("train"), Pool::Evaluated],
            normalised: true,
        },
        headline: "acc_norm",
    },
    TaskSpec {
        id: "winogrande",
        what: "to whom a blank refers",
        version: "1",
        data: ("winogrande", "validation"),
        kind: TaskKind::Choice {
            choices: Choices::Fillings,
            description: "",
            prompt: "",
            pools: &[Pool::DrawnWithSpare("train"), Pool::Evaluated],
            normalised: false,
        },
        headline: "acc",
    },
    TaskSpec {
        id: "mmlu",
        what: "exam questions in 57 subjects",
        version: "1",
        data: ("mmlu", "test"),
        kind: TaskKind::Choice {
            choices: Choices::Letters,
            description: "The following are multiple choice questions (with answers) about {subject}.\n\n",
            prompt: "{stripped_question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\nAnswer:",
            pools: &[Pool::First("dev")],
            normalised: false,
        },
        headline: "acc",
    },
];

/// Perplexity of a file that the user names.
pub static TEXT_FILE: TaskSpec = TaskSpec {
    id: "text",
    what: "perplexity on a text file",
    version: "1",
    data: ("", ""),
    kind: TaskKind::Perplexity { seqlen: 2048 },
    headline: "perplexity",
};
