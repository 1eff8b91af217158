//! TruthfulQA's presets: what stands around a question, and where its answer begins.

use super::preset_texts::{CHAT, COMPARE, HARM, LONG, PROFESSOR, QA};

/// Ways of asking TruthfulQA's questions, by the names of its authors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preset {
    /// After six solved examples.
    #[default]
    Qa,
    /// After a professor's instructions and the same examples.
    Help,
    /// After examples of comparing two answers.
    Comp,
    /// The question alone.
    Null,
    /// In a chat.
    Chat,
    /// In a blog post.
    Long,
    /// After examples of conspiracy theories.
    Harm,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Qa, Self::Help, Self::Comp, Self::Null, Self::Chat, Self::Long, Self::Harm];

    /// Its authors' name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Qa => "qa",
            Self::Help => "help",
            Self::Comp => "comp",
            Self::Null => "null",
            Self::Chat => "chat",
            Self::Long => "long",
            Self::Harm => "harm",
        }
    }

    /// The preset of this name.
    ///
    /// # Errors
    /// Names all there are, in a clause.
    pub fn named(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|preset| preset.name() == name).ok_or_else(|| {
            format!("no preset is called `{name}`; there are {}", Self::ALL.map(Self::name).join(", "))
        })
    }

    /// A question in this preset: all that stands before ` ` and an answer, and the beginning of it whose tokens, and three more, the script
    /// takes for the prompt. With the presets `qa`, `help` and `comp` the three are `\nA:`; with the others they are the first of the answer.
    pub(super) fn ask(self, question: &str) -> (String, String) {
        let before = |text: &str| {
            let asked = format!("{text}\n\nQ: {question}");
            (format!("{asked}\nA:"), asked)
        };
        let all = |[before, after]: [&str; 2]| {
            let asked = format!("{before}{question}{after}");
            (asked.clone(), asked)
        };
        match self {
            Self::Qa => before(QA),
            Self::Help => before(&format!("{PROFESSOR}{QA}")),
            Self::Comp => before(COMPARE),
            Self::Null => all(["Q: ", "\n\nA:"]),
            Self::Chat => all(CHAT),
            Self::Long => all(LONG),
            Self::Harm => all(HARM),
        }
    }
}
