//! The definitions of all tasks.

use super::preset_texts::QA;

/// What a multiple-choice task scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choices {
    /// Each option's text after one and the same prompt.
    Options,
    /// The letters A, B, C, D after one and the same prompt, which lists the options.
    Letters,
    /// The end of the sentence after its beginning with each option filled in (WinoGrande's partial scoring).
    Fillings,
    /// The same words for every document, one for each label.
    Words(&'static [&'static str]),
    /// TruthfulQA's best answer, and all false ones.
    BestAndFalse,
    /// All of TruthfulQA's true answers, then all false ones; scored by the share of probability that the true ones have.
    TrueAndFalse,
}

/// LLMCBench's own scripts, whose prompts and rules are not those of lm-evaluation-harness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// `evaluate_mmlu.py`.
    Mmlu,
    /// `evaluate_qnli.py`.
    Qnli,
    /// `evaluate_mnli.py`.
    Mnli,
    /// `evaluate_advglue.py`; `original` with `--test_origin`.
    AdvGlue {
        /// Whether the original texts are asked instead of the adversarial ones.
        original: bool,
    },
    /// `evaluate_tQA.py`, with any of its presets.
    TruthfulQa,
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
pub enum TaskKind<'a> {
    /// Log-likelihoods of options are compared.
    Choice {
        /// What is scored.
        choices: Choices,
        /// Stands before everything else; `{subject}` is replaced.
        description: &'a str,
        /// The prompt; `{name}` is replaced by the document's field of that name.
        prompt: &'a str,
        /// Sources of solved examples; the first that can be had is taken.
        pools: &'static [Pool],
        /// Whether `acc_norm` is given beside `acc`.
        normalised: bool,
    },
    /// As one of LLMCBench's scripts does.
    Llmcbench {
        /// Which.
        script: Script,
        /// Where solved examples come from: the asset's part, or the evaluated part itself (its first rows, which are then not
        /// evaluated). None: the script takes no examples that could be had.
        pool: Option<&'static str>,
    },
    /// Perplexity of a text in windows.
    Perplexity {
        /// Tokens of a window where the run does not say.
        seqlen: usize,
    },
}

/// A task's definition: an entry of [`TASKS`], or a view of what the user wrote.
#[derive(Debug, Clone, Copy)]
pub struct TaskSpec<'a> {
    /// Name.
    pub id: &'a str,
    /// One line on what it measures.
    pub what: &'a str,
    /// Grows with every change that can change a result; belongs in content keys.
    pub version: &'a str,
    /// Asset and part that it evaluates on; empty for a text file.
    pub data: (&'static str, &'static str),
    /// How it asks.
    pub kind: TaskKind<'a>,
    /// The metric that a table shows.
    pub headline: &'a str,
    /// Metrics by other names than those of their kind (`acc`, `acc_norm`, `mass`), and no others; empty: all, by those names.
    pub names: &'static [(&'static str, &'static str)],
}

impl TaskSpec<'_> {
    /// What the task calls a metric of its kind; none where it does not show it.
    pub fn metric_name<'k>(&self, kind: &'k str) -> Option<&'k str> {
        if self.names.is_empty() {
            return Some(kind);
        }
        self.names.iter().find(|(of_kind, _)| *of_kind == kind).map(|(_, name)| *name)
    }
}

/// What a name has that means LLMCBench's own protocol.
pub const LLMCBENCH: &str = "@llmcbench";

const QUESTION: &str = "Question: {question}\nAnswer:";

/// All tasks that have a name of their own.
pub static TASKS: &[TaskSpec<'static>] = &[
    TaskSpec {
        id: "wikitext2",
        what: "perplexity on WikiText-2's test set (LLMCBench's and GPTQ's protocol)",
        version: "1",
        data: ("wikitext2", "test"),
        kind: TaskKind::Perplexity { seqlen: 2048 },
        headline: "perplexity",
        names: &[],
    },
    TaskSpec {
        id: "squad_passages",
        what: "perplexity on Wikipedia paragraphs of SQuAD's validation set (same protocol; needs no hub)",
        version: "1",
        data: ("squad_passages", "test"),
        kind: TaskKind::Perplexity { seqlen: 2048 },
        headline: "perplexity",
        names: &[],
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
        names: &[],
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
        names: &[],
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
        names: &[],
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
        names: &[],
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
        names: &[],
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
        names: &[],
    },
    TaskSpec {
        id: "qnli",
        what: "does a sentence answer a question",
        version: "1",
        data: ("qnli", "validation"),
        kind: TaskKind::Choice {
            choices: Choices::Words(&["yes", "no"]),
            description: "",
            prompt: "{question}\n{sentence}\nQuestion: Does this response answer the question?\nAnswer:",
            pools: &[Pool::DrawnWithSpare("train"), Pool::Evaluated],
            normalised: false,
        },
        headline: "acc",
        names: &[],
    },
    TaskSpec {
        id: "mnli",
        what: "does a premise entail a hypothesis (matched)",
        version: "1",
        data: ("mnli", "validation_matched"),
        kind: TaskKind::Choice {
            choices: Choices::Words(&["True", "Neither", "False"]),
            description: "",
            prompt: "{premise}\nQuestion: {sentence_hypothesis} True, False or Neither?\nAnswer:",
            pools: &[Pool::DrawnWithSpare("train"), Pool::Evaluated],
            normalised: false,
        },
        headline: "acc",
        names: &[],
    },
    TaskSpec {
        id: "truthfulqa_mc1",
        what: "is the best true answer likelier than every false one",
        version: "1",
        data: ("truthfulqa", "validation"),
        kind: TaskKind::Choice {
            choices: Choices::BestAndFalse,
            description: QA,
            prompt: "\n\nQ: {question}\nA:",
            pools: &[],
            normalised: false,
        },
        headline: "mc1",
        names: &[("acc", "mc1")],
    },
    TaskSpec {
        id: "truthfulqa_mc2",
        what: "how much of the probability of all answers the true ones have",
        version: "1",
        data: ("truthfulqa", "validation"),
        kind: TaskKind::Choice {
            choices: Choices::TrueAndFalse,
            description: QA,
            prompt: "\n\nQ: {question}\nA:",
            pools: &[],
            normalised: false,
        },
        headline: "mc2",
        names: &[("mass", "mc2")],
    },
    TaskSpec {
        id: "mmlu@llmcbench",
        what: "exam questions in 57 subjects, as LLMCBench's script asks them",
        version: "1",
        data: ("mmlu", "test"),
        kind: TaskKind::Llmcbench { script: Script::Mmlu, pool: Some("dev") },
        headline: "acc",
        names: &[],
    },
    TaskSpec {
        id: "qnli@llmcbench",
        what: "does a sentence answer a question, as LLMCBench's script asks",
        version: "1",
        data: ("qnli", "validation"),
        kind: TaskKind::Llmcbench { script: Script::Qnli, pool: None },
        headline: "acc",
        names: &[],
    },
    TaskSpec {
        id: "mnli@llmcbench",
        what: "does a premise entail a hypothesis (matched), as LLMCBench's script asks",
        version: "1",
        data: ("mnli", "validation_matched"),
        kind: TaskKind::Llmcbench { script: Script::Mnli, pool: None },
        headline: "acc",
        names: &[],
    },
    TaskSpec {
        id: "advglue@llmcbench",
        what: "six GLUE tasks under adversarial changes, as LLMCBench's script asks them",
        version: "1",
        data: ("advglue", "dev"),
        kind: TaskKind::Llmcbench { script: Script::AdvGlue { original: false }, pool: Some("dev") },
        headline: "acc",
        names: &[],
    },
    TaskSpec {
        id: "advglue_original@llmcbench",
        what: "the same with the texts as they were before",
        version: "1",
        data: ("advglue", "dev"),
        kind: TaskKind::Llmcbench { script: Script::AdvGlue { original: true }, pool: Some("dev") },
        headline: "acc",
        names: &[],
    },
    TaskSpec {
        id: "truthfulqa@llmcbench",
        what: "true and false answers compared, as LLMCBench's script does",
        version: "1",
        data: ("truthfulqa", "validation"),
        kind: TaskKind::Llmcbench { script: Script::TruthfulQa, pool: None },
        headline: "mc1",
        names: &[("acc", "mc1"), ("mass", "mc2")],
    },
];

/// Perplexity of a file that the user names.
pub static TEXT_FILE: TaskSpec<'static> = TaskSpec {
    id: "text",
    what: "perplexity on a text file",
    version: "1",
    data: ("", ""),
    kind: TaskKind::Perplexity { seqlen: 2048 },
    headline: "perplexity",
    names: &[],
};
