//! Prepared tasks: documents with their prompts, or a text.

use super::items::ItemResult;
use super::llmcbench;
use super::prompt;
use super::sampler::PythonRandom;
use super::table::{Choices, Pool, TaskKind};
use super::{Definition, Preset, Task, TaskError, TaskOptions, mmlu_category};
use crate::assets::{AssetError, ProgressFn, Record, Store, sha256_hex};
use crate::metrics::{MetricValue, of_items};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// A request in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is given.
    pub context: Arc<str>,
    /// What is scored.
    pub continuation: String,
    /// How the two become tokens.
    pub seam: Seam,
}

/// How a context and a continuation become tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seam {
    /// As lm-evaluation-harness: as one text, of which the context's own number of tokens is cut off.
    Joined,
    /// As LLMCBench: each by itself and without special tokens; of the continuation only its last token.
    Apart,
    /// As TruthfulQA's authors: as one text without special tokens, of which are cut off as many as this beginning of it has, and three
    /// more (see [`Preset`](super::Preset)), so that nothing may be left.
    After(Arc<str>),
}

/// A question with its choices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doc {
    /// The data set's identifier, or the row's number where it has none.
    pub id: String,
    /// The row's number in its data set (in its subject, for MMLU), from 0.
    pub index: usize,
    /// Subject, where the task has several.
    pub subset: Option<String>,
    /// One request per choice.
    pub requests: Vec<Request>,
    /// Characters of each choice, by which `acc_norm` divides.
    pub lengths: Vec<usize>,
    /// Index of the right choice; one beyond the last where none is.
    pub target: usize,
    /// How many choices, from the first on, are right, where the share of their probability counts.
    pub right: Option<usize>,
    /// The same context with ever fewer examples, where a script leaves some out for what is too long.
    pub shorter: Vec<Arc<str>>,
}

/// Data that a prepared task uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DataUse {
    /// Asset, or the path of a file of the user's.
    pub asset: String,
    /// Part of the asset.
    pub part: String,
    /// `evaluation`, `examples`, or `definition`: a task file.
    pub role: String,
    /// SHA-256 of the data, the same whatever source gave them.
    pub sha256: String,
    /// Where they came from this time.
    pub source: String,
    /// What a user should know about them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

pub(crate) enum Body {
    Choice(Vec<Doc>),
    Stream { text: String, seqlen: usize },
}

/// A task with its data.
pub struct Prepared {
    pub(crate) task: Task,
    /// The task's name.
    pub name: String,
    /// What was asked of it.
    pub options: TaskOptions,
    /// The data that it uses.
    pub data: Vec<DataUse>,
    pub(crate) body: Body,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("name", &self.name).field("data", &self.data).finish_non_exhaustive()
    }
}

impl Task {
    /// Fetches the task's data and builds its prompts.
    ///
    /// # Errors
    /// Where an option does not fit the task, or the data cannot be had.
    pub fn prepare(
        &self,
        store: &Store,
        options: &TaskOptions,
        progress: &ProgressFn<'_>,
    ) -> Result<Prepared, TaskError> {
        self.check(options)?;
        let spec = self.spec();
        let mut data = Vec::new();
        let mut evaluated = || -> Result<Vec<Record>, AssetError> {
            let (records, used) = self.obtain(store, spec.data.1, "evaluation", progress)?;
            data.push(used);
            Ok(records)
        };
        let mut body = match spec.kind {
            TaskKind::Perplexity { seqlen } => {
                let text = match &self.path {
                    Some(path) => {
                        let (text, used) = read_text(path)?;
                        data.push(used);
                        text
                    }
                    None => join(&evaluated()?),
                };
                Body::Stream { text, seqlen: options.seqlen.unwrap_or(seqlen) }
            }
            TaskKind::Choice { pools, .. } => {
                let records = evaluated()?;
                if let Definition::Own(own) = &self.definition {
                    data.push(own.definition());
                }
                let examples = if options.shots == 0 {
                    None
                } else {
                    Some(self.examples(store, pools, &mut data, progress)?)
                };
                Body::Choice(self.docs(&records, options, examples)?)
            }
            TaskKind::Llmcbench { script, pool } => {
                let records = evaluated()?;
                let mut examples = None;
                if options.shots > 0 && pool != Some(spec.data.1) {
                    let (records, used) = match pool {
                        Some(part) => self.obtain(store, part, "examples", progress)?,
                        None => return self.refuse("its script's examples cannot be had; leave shots at 0"),
                    };
                    data.push(used);
                    examples = Some(records);
                }
                let docs = llmcbench::docs(script, &records, examples.as_deref(), options)
                    .or_else(|what| self.refuse(what))?;
                if docs.is_empty() {
                    return self.refuse("its data hold no document");
                }
                Body::Choice(docs)
            }
        };
        options.conversation.apply(&mut body);
        Ok(Prepared { task: self.clone(), name: self.name(), options: options.clone(), data, body })
    }

    /// The rows of a part of the task's data, and what they are.
    fn obtain(
        &self,
        store: &Store,
        part: &str,
        role: &str,
        progress: &ProgressFn<'_>,
    ) -> Result<(Vec<Record>, DataUse), AssetError> {
        let spec = match &self.definition {
            Definition::Own(own) => return own.read(part),
            Definition::BuiltIn(spec) => spec,
        };
        let obtained = store.obtain(spec.data.0, part, progress)?;
        let used = DataUse {
            asset: obtained.asset,
            part: obtained.part,
            role: role.to_owned(),
            sha256: obtained.sha256,
            source: obtained.source,
            note: obtained.note,
        };
        Ok((obtained.records, used))
    }

    fn refuse<T>(&self, what: impl Into<String>) -> Result<T, TaskError> {
        Err(TaskError::Option { task: self.name(), what: what.into() })
    }

    fn check(&self, options: &TaskOptions) -> Result<(), TaskError> {
        if options.limit == Some(0) {
            return self.refuse("a limit of 0 leaves nothing to measure; give 1 or more");
        }
        if let Err(why) = options.conversation.check(&self.spec().kind) {
            return self.refuse(why);
        }
        match self.spec().kind {
            TaskKind::Perplexity { .. } => {
                if options.seqlen.is_some_and(|seqlen| seqlen < 2) {
                    return self
                        .refuse("seqlen must be 2 or more: one token is given, the others are predicted");
                }
                if options.shots > 0 {
                    return self.refuse("perplexity takes no solved examples; leave shots at 0");
                }
            }
            _ if options.preset != Preset::default() && !self.has_presets() => {
                return self.refuse("preset is an option of truthfulqa@llmcbench only");
            }
            _ if options.seqlen.is_some() => {
                return self.refuse("seqlen is an option of perplexity tasks only");
            }
            TaskKind::Choice { .. } | TaskKind::Llmcbench { .. } => {}
        }
        Ok(())
    }

    /// The first pool of solved examples that can be had. A pool that no source has is passed over, and the data's note says so.
    fn examples(
        &self,
        store: &Store,
        pools: &[Pool],
        data: &mut Vec<DataUse>,
        progress: &ProgressFn<'_>,
    ) -> Result<Examples, TaskError> {
        let mut missing: Vec<&str> = Vec::new();
        for (i, pool) in pools.iter().enumerate() {
            let part = match pool {
                Pool::Evaluated => {
                    let mut used = data[0].clone();
                    used.role = "examples".to_owned();
                    used.note = missing_note(&missing);
                    data.push(used);
                    return Ok(Examples { pool: *pool, records: None });
                }
                Pool::Drawn(part) | Pool::DrawnWithSpare(part) | Pool::First(part) => part,
            };
            match self.obtain(store, part, "examples", progress) {
                Ok((records, mut used)) => {
                    used.note = used.note.or_else(|| missing_note(&missing));
                    data.push(used);
                    return Ok(Examples { pool: *pool, records: Some(records) });
                }
                Err(AssetError::NoSource { .. }) if i + 1 < pools.len() => missing.push(part),
                Err(error) => return Err(error.into()),
            }
        }
        self.refuse("has no solved examples; leave shots at 0")
    }

    fn docs(
        &self,
        records: &[Record],
        options: &TaskOptions,
        examples: Option<Examples>,
    ) -> Result<Vec<Doc>, TaskError> {
        let mut docs = Vec::new();
        let mut random = PythonRandom::new(options.seed);
        let limit = options.limit.unwrap_or(usize::MAX);
        let mut counts: HashMap<&str, usize> = HashMap::new();
        // Examples are of the question's own subject.
        let mut pools: HashMap<&str, Vec<&Record>> = HashMap::new();
        let pool = examples.as_ref().map(|e| (e.pool, e.records.as_deref().unwrap_or(records)));
        for example in pool.iter().flat_map(|(_, pool)| pool.iter()) {
            pools.entry(subject(example)).or_default().push(example);
        }
        for record in records {
            let subject = subject(record);
            if self.subject.is_some_and(|wanted| wanted != subject) {
                continue;
            }
            let count = counts.entry(subject).or_default();
            let index = *count;
            *count += 1;
            if index >= limit {
                continue;
            }
            let shots = match pool {
                None => String::new(),
                Some((how, _)) => {
                    let pool = pools.get(subject).map_or(&[][..], Vec::as_slice);
                    self.shots(how, pool, record, options.shots, &mut random)?
                }
            };
            docs.push(self.doc(record, index, subject, &shots));
        }
        if docs.is_empty() {
            return self.refuse("its data hold no document");
        }
        Ok(docs)
    }

    /// The solved examples before one question, each ended by an empty line.
    fn shots(
        &self,
        how: Pool,
        pool: &[&Record],
        record: &Record,
        shots: usize,
        random: &mut PythonRandom,
    ) -> Result<String, TaskError> {
        let spare = usize::from(matches!(how, Pool::DrawnWithSpare(_) | Pool::Evaluated));
        if pool.len() < shots.saturating_add(spare) {
            return self.refuse(format!(
                "{shots} solved examples asked for, but only {} are there",
                pool.len().saturating_sub(spare)
            ));
        }
        let chosen: Vec<&Record> = match how {
            Pool::First(_) => pool[..shots].to_vec(),
            Pool::Drawn(_) => random.sample(pool.len(), shots).into_iter().map(|i| pool[i]).collect(),
            Pool::DrawnWithSpare(_) | Pool::Evaluated => {
                // One more than asked for, so that enough are left without the question itself.
                let drawn = random.sample(pool.len(), shots + spare).into_iter().map(|i| pool[i]);
                let others: Vec<&Record> = drawn.filter(|other| *other != record).take(shots).collect();
                if others.len() < shots {
                    return self.refuse(
                        "its examples repeat the question at hand more than once; ask for fewer shots",
                    );
                }
                others
            }
        };
        Ok(chosen.into_iter().map(|r| self.solved(r)).collect())
    }

    fn solved(&self, record: &Record) -> String {
        let TaskKind::Choice { choices, .. } = self.spec().kind else { return String::new() };
        let options = prompt::options(record, choices);
        let target = prompt::target(record);
        let right = options.get(target).map_or("", String::as_str);
        match self.spec().kind {
            TaskKind::Choice { choices, prompt: template, .. } => match choices {
                Choices::Fillings => format!("{right} {}\n\n", prompt::after_blank(record)),
                Choices::Options | Choices::Words(_) | Choices::BestAndFalse | Choices::TrueAndFalse => {
                    format!("{} {right}\n\n", prompt::fill(template, |name| prompt::field(record, name)))
                }
                Choices::Letters => {
                    format!(
                        "{} {}\n\n",
                        prompt::fill(template, |name| prompt::field(record, name)),
                        letter(target)
                    )
                }
            },
            TaskKind::Perplexity { .. } | TaskKind::Llmcbench { .. } => String::new(),
        }
    }

    fn doc(&self, record: &Record, index: usize, subject: &str, shots: &str) -> Doc {
        let TaskKind::Choice { choices, description, prompt: template, .. } = self.spec().kind else {
            return Doc::default();
        };
        let options = prompt::options(record, choices);
        let id = match record {
            Record::Question(q) if !q.id.is_empty() => q.id.clone(),
            Record::Endings(e) => e.ind.to_string(),
            _ => index.to_string(),
        };
        let mut doc = Doc {
            id,
            index,
            subset: (!subject.is_empty()).then(|| subject.to_owned()),
            requests: Vec::new(),
            lengths: options.iter().map(|option| option.chars().count()).collect(),
            target: prompt::target(record),
            right: match (choices, record) {
                (Choices::TrueAndFalse, Record::Answers(answers)) => Some(answers.correct.len()),
                _ => None,
            },
            shorter: Vec::new(),
        };
        let head = format!("{}{shots}", prompt::fill(description, |name| prompt::field(record, name)));
        if choices == Choices::Fillings {
            let continuation = format!(" {}", prompt::after_blank(record));
            doc.requests = options
                .iter()
                .map(|option| Request {
                    context: format!("{head}{option}").into(),
                    continuation: continuation.clone(),
                    seam: Seam::Joined,
                })
                .collect();
            return doc;
        }
        let context: Arc<str> =
            format!("{head}{}", prompt::fill(template, |name| prompt::field(record, name))).into();
        let texts = match choices {
            Choices::Letters => (0..options.len()).map(letter).collect(),
            _ => options,
        };
        doc.lengths = texts.iter().map(|text| text.chars().count()).collect();
        doc.requests = texts
            .into_iter()
            .map(|text| Request {
                context: Arc::clone(&context),
                continuation: format!(" {text}"),
                seam: Seam::Joined,
            })
            .collect();
        doc
    }
}

/// Solved examples, or `None` for the evaluated part itself.
struct Examples {
    pool: Pool,
    records: Option<Vec<Record>>,
}

fn missing_note(missing: &[&str]) -> Option<String> {
    (!missing.is_empty()).then(|| format!("{} could not be had", missing.join(", ")))
}

/// The part of its data set that a row belongs to, or empty.
pub(crate) fn subject(record: &Record) -> &str {
    match record {
        Record::Question(q) => &q.subject,
        Record::Labelled(l) => &l.subset,
        Record::Own(o) => &o.subset,
        _ => "",
    }
}

fn letter(i: usize) -> String {
    // A question has at most a handful of options.
    char::from(b'A' + u8::try_from(i.min(25)).unwrap_or_default()).to_string()
}

/// Rows as one text, as GPTQ's and LLMCBench's protocol joins them.
pub(crate) fn join(records: &[Record]) -> String {
    let rows: Vec<&str> = records
        .iter()
        .map(|record| match record {
            Record::Text(t) => t.text.as_str(),
            _ => "",
        })
        .collect();
    rows.join("\n\n")
}

/// A text file of the user's, as it is.
pub(crate) fn read_text(path: &std::path::Path) -> Result<(String, DataUse), AssetError> {
    let bytes = std::fs::read(path).map_err(|e| AssetError::io("read", path, e))?;
    let sha256 = sha256_hex(&bytes);
    let name = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|e| {
        let line =
            1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() as u64;
        AssetError::data(name.clone(), Some(line), "is not UTF-8")
    })?;
    let used = DataUse {
        asset: name.clone(),
        part: String::new(),
        role: "evaluation".to_owned(),
        sha256,
        source: name,
        note: None,
    };
    Ok((text, used))
}

impl Prepared {
    /// The task's definition.
    #[must_use]
    pub fn spec(&self) -> super::TaskSpec<'_> {
        self.task.spec()
    }

    /// The documents; none for perplexity.
    #[must_use]
    pub fn docs(&self) -> &[Doc] {
        match &self.body {
            Body::Choice(docs) => docs,
            Body::Stream { .. } => &[],
        }
    }

    /// The text whose perplexity is measured; `None` for choices.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.body {
            Body::Choice(_) => None,
            Body::Stream { text, .. } => Some(text),
        }
    }

    /// Tokens of a window; `None` for choices.
    #[must_use]
    pub fn seqlen(&self) -> Option<usize> {
        match self.body {
            Body::Choice(_) => None,
            Body::Stream { seqlen, .. } => Some(seqlen),
        }
    }

    /// About how many tokens pass through a model, a context that neighbours share counted once. Without a tokenizer this is a guess: four bytes
    /// of English make a token.
    #[must_use]
    pub fn about_tokens(&self) -> u64 {
        const BYTES: usize = 4;
        let tokens = match &self.body {
            Body::Choice(docs) => {
                let mut bytes = 0;
                for doc in docs {
                    let mut last: Option<&str> = None;
                    for request in &doc.requests {
                        if last != Some(&*request.context) {
                            bytes += request.context.len();
                            last = Some(&*request.context);
                        }
                        bytes += request.continuation.len();
                    }
                }
                bytes / BYTES
            }
            Body::Stream { text, seqlen } => {
                let windows = text.len() / BYTES / (*seqlen).max(1);
                windows.min(self.options.limit.unwrap_or(usize::MAX)) * seqlen
            }
        };
        tokens as u64
    }

    /// Everything of the task that decides its results, as one hash for content keys: definition's version, options, data. Where data came
    /// from does not count, only what they are. With another seed than its own, that of the same task prepared with that seed.
    #[must_use]
    pub fn fingerprint(&self, seed: u64) -> String {
        let mut text = format!(
            "task {} version {} limit {:?} shots {} seed {} seqlen {:?}",
            self.spec().id,
            self.spec().version,
            self.options.limit,
            self.options.shots,
            // Without examples the seed decides nothing.
            if self.options.shots == 0 { 0 } else { seed },
            self.seqlen(),
        );
        if self.options.preset != Preset::default() {
            text.push_str(&format!(" preset {}", self.options.preset.name()));
        }
        if let Some(subject) = self.task.subject {
            text.push_str(&format!(" subject {subject}"));
        }
        for data in &self.data {
            text.push_str(&format!("\n{} {} {}", data.role, data.part, data.sha256));
        }
        sha256_hex(text.as_bytes())
    }

    /// The task's numbers from its items: the headline's whole-task value first among those of its name.
    #[must_use]
    pub fn metrics(&self, items: &[ItemResult]) -> Vec<MetricValue> {
        // Categories are MMLU's own; parts of other tasks may be called like its subjects.
        let is_mmlu = self.spec().id.trim_end_matches(super::LLMCBENCH) == "mmlu";
        let mut metrics = of_items(items, |subject| mmlu_category(subject).filter(|_| is_mmlu));
        metrics.retain_mut(|metric| {
            let name = self.spec().metric_name(&metric.name).map(str::to_owned);
            name.is_some_and(|name| {
                metric.name = name;
                true
            })
        });
        // What tables show stands first: who reads a result may not have the task.
        metrics.sort_by_key(|metric| (metric.name != self.spec().headline) || metric.subset.is_some());
        metrics
    }
}
