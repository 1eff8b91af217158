//! The form in which models that were trained on conversations expect to be asked.
//!
//! Off unless asked for, as in the paper: its numbers for Vicuna and ChatGLM are of plain prompts. The whole prompt, examples included, is
//! one turn of the user's; the answer is what follows.

use std::sync::Arc;

use super::docs::{Body, Prepared};
use super::encode::Encode;
use super::{TaskError, TaskKind};

/// A form of conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conversation {
    /// The prompt as it is.
    #[default]
    Off,
    /// Vicuna from version 1.1 on (Zheng et al. 2023, arXiv:2306.05685; FastChat's `vicuna_v1.1`).
    Vicuna,
    /// ChatGLM2's first round.
    ChatGlm2,
    /// ChatGLM3's, with tokens for who speaks.
    ChatGlm3,
}

/// What stands around the prompt.
struct Form {
    before: &'static str,
    after: &'static str,
    /// Words that must be tokens of their own.
    markers: &'static [&'static str],
}

impl Conversation {
    const NAMED: [(&'static str, Conversation); 4] = [
        ("off", Conversation::Off),
        ("vicuna", Conversation::Vicuna),
        ("chatglm2", Conversation::ChatGlm2),
        ("chatglm3", Conversation::ChatGlm3),
    ];

    /// The form of this name.
    ///
    /// # Errors
    /// One line with the names there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let found = Self::NAMED.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, form)| form).ok_or_else(|| {
            let known = Self::NAMED.map(|(known, _)| known).join(", ");
            format!("conversation={name}: there are {known}")
        })
    }

    fn form(self) -> Option<Form> {
        let (before, after, markers): (_, _, &[&str]) = match self {
            Conversation::Off => return None,
            Conversation::Vicuna => (
                "A chat between a curious user and an artificial intelligence assistant. \
                 The assistant gives helpful, detailed, and polite answers to the user's questions. USER: ",
                " ASSISTANT:",
                &[],
            ),
            Conversation::ChatGlm2 => ("[Round 1]\n\n问：", "\n\n答：", &[]),
            Conversation::ChatGlm3 => ("<|user|>\n ", "<|assistant|>\n", &["<|user|>", "<|assistant|>"]),
        };
        Some(Form { before, after, markers })
    }

    /// Whether a task of this kind can be asked so.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(self, kind: &TaskKind<'_>) -> Result<(), &'static str> {
        match (self, kind) {
            (Conversation::Off, _) | (_, TaskKind::Choice { .. }) => Ok(()),
            (_, TaskKind::Perplexity { .. }) => Err("a text is no question; leave conversation off"),
            (_, TaskKind::Llmcbench { .. }) => Err(
                "LLMCBench's script asks in its own words; leave conversation off, or take the task without @llmcbench",
            ),
        }
    }

    /// Puts the prompts of a task into this form.
    pub(super) fn apply(self, body: &mut Body) {
        let (Some(form), Body::Choice(docs)) = (self.form(), body) else { return };
        for request in docs.iter_mut().flat_map(|doc| &mut doc.requests) {
            request.context = Arc::from(format!("{}{}{}", form.before, request.context, form.after));
        }
    }
}

impl Prepared {
    /// Refuses a tokenizer that takes the words for who speaks for text: the model was never asked so.
    pub(super) fn check_conversation(&self, encoder: &dyn Encode) -> Result<(), TaskError> {
        let markers = self.options.conversation.form().map_or(&[][..], |form| form.markers);
        for marker in markers {
            let tokens = encoder.encode(&[marker], false);
            let tokens = tokens.map_err(|source| TaskError::Encode { task: self.name.clone(), source })?;
            // A space may be put before.
            if tokens.first().is_none_or(|tokens| tokens.len() > 2) {
                return Err(TaskError::Option {
                    task: self.name.clone(),
                    what: format!(
                        "the model's tokenizer takes `{marker}` for text; its tokenizer_config.json must list it under `added_tokens_decoder`, as that of ChatGLM3 does"
                    ),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::{Doc, EncodeError, Request, Seam, TaskOptions, lookup};

    fn body() -> Body {
        let request = Request {
            context: "Question: why?\nAnswer:".into(),
            continuation: " so".to_owned(),
            seam: Seam::Joined,
        };
        Body::Choice(vec![Doc { requests: vec![request], ..Doc::default() }])
    }

    #[test]
    fn prompts_are_put_into_the_form_asked_for() {
        for (name, expected) in [
            ("off", "Question: why?\nAnswer:"),
            ("chatglm2", "[Round 1]\n\n问：Question: why?\nAnswer:\n\n答："),
            ("chatglm3", "<|user|>\n Question: why?\nAnswer:<|assistant|>\n"),
        ] {
            let mut body = body();
            Conversation::named(name).unwrap().apply(&mut body);
            let Body::Choice(docs) = body else { panic!("choices") };
            assert_eq!(&*docs[0].requests[0].context, expected);
        }
        let mut vicuna = body();
        Conversation::Vicuna.apply(&mut vicuna);
        let Body::Choice(docs) = vicuna else { panic!("choices") };
        let context = &docs[0].requests[0].context;
        assert!(context.ends_with("questions. USER: Question: why?\nAnswer: ASSISTANT:"), "{context}");
        assert!(Conversation::named("alpaca").unwrap_err().contains("off, vicuna, chatglm2, chatglm3"));
    }

    struct Letters;

    impl Encode for Letters {
        fn encode(&self, texts: &[&str], _: bool) -> Result<Vec<Vec<u32>>, EncodeError> {
            Ok(texts.iter().map(|text| text.chars().map(u32::from).collect()).collect())
        }

        fn prefix_token(&self) -> Option<u32> {
            None
        }
    }

    #[test]
    fn a_tokenizer_without_the_speakers_is_refused() {
        let prepared = |conversation| Prepared {
            task: lookup("arc_easy").unwrap(),
            name: "arc_easy".to_owned(),
            options: TaskOptions { conversation, ..TaskOptions::default() },
            data: Vec::new(),
            body: body(),
        };
        assert!(prepared(Conversation::Vicuna).requests(&Letters).is_ok());
        let error = prepared(Conversation::ChatGlm3).requests(&Letters).unwrap_err().to_string();
        assert!(error.contains("`<|user|>` for text") && error.contains("added_tokens_decoder"), "{error}");
    }
}
