//! Evaluation: a task's requests are scored by a runner, in pieces that depend on nothing but the requests, so that an interrupted stage goes on
//! and ends with the very same numbers.

use std::fs::File;
use std::io::Write;
use std::ops::Range;

use llmcb_plugin_api::loader::RunnerHandle;
use llmcb_plugin_api::sdk::{Error, Result, ScoreRequest};
use serde::{Deserialize, Serialize};

use super::lines::{resume, write_line};
use super::task::{self, Asked, Ready};
use crate::metrics::real;
use crate::tasks::{
    self, Conversation, Encode, EncodeError, Prepared, Preset, Requests, Task, TaskError, TaskOptions,
    TokenRequest,
};
use crate::worker::protocol::{StageOrder, StageOutcome, Work};
use crate::worker::{Services, Usage};

/// Scores so far, one JSON object a line.
pub(crate) const SCORES: &str = "scores.jsonl";
/// The items, one JSON object a line, once all are scored.
pub(crate) const ITEMS: &str = "items.jsonl";

/// A piece ends after this many documents ...
const PIECE_DOCUMENTS: usize = 64;
/// ... or this many tokens, where a context shared by neighbours counts once.
const PIECE_TOKENS: usize = 16_384;

/// A task as a suite names it, `NAME[:option=value,...]`.
#[derive(Clone, Debug)]
pub struct TaskLine {
    /// The task.
    pub task: Task,
    /// Its options.
    pub options: TaskOptions,
}

/// As [`parse_task`] with nothing said of the whole suite, for tasks that need no file of the user's; nothing for others.
pub fn parse_built_in(line: &str) -> Option<TaskLine> {
    if line.contains(".toml") { None } else { parse_task(line, None, 0, 0).ok() }
}

/// Reads a task of a suite: a name of [`tasks::lookup`], then options (`seqlen`, `limit`, `shots`, `conversation`, `preset`), for example `wikitext2:seqlen=512`,
/// `mmlu:shots=5,limit=10`, `text:notes.txt:seqlen=256` or `my/task.toml:limit=10`. Options take precedence over those of the whole suite.
///
/// # Errors
/// An unknown task or option, or a value that is no number.
pub fn parse_task(line: &str, limit: Option<usize>, shots: usize, seed: u64) -> Result<TaskLine, TaskError> {
    let is_options = |text: &str| {
        !text.is_empty() && text.split(',').all(|part| part.split_once('=').is_some_and(|(k, _)| is_name(k)))
    };
    let (name, given) = match line.rsplit_once(':') {
        // `text:a=b.txt` names a file and has no options.
        Some((name, options)) if name != "text" && is_options(options) => (name, options),
        _ => (line, ""),
    };
    let task = tasks::lookup(name)?;
    let refuse = |what: String| TaskError::Option { task: name.to_owned(), what };
    let perplexity = matches!(task.spec().kind, tasks::TaskKind::Perplexity { .. });
    // Examples for a suite are meant for the tasks that can take them.
    let mut options =
        TaskOptions { limit, shots: if perplexity { 0 } else { shots }, seed, ..TaskOptions::default() };
    for part in given.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let number = || {
            value
                .parse::<usize>()
                .map_err(|_| refuse(format!("option {key}={value}: `{value}` is no whole number from 0 on")))
        };
        match key {
            "seqlen" => options.seqlen = Some(number()?),
            "limit" => options.limit = Some(number()?),
            "shots" => options.shots = number()?,
            "conversation" => options.conversation = Conversation::named(value).map_err(refuse)?,
            "preset" if task.has_presets() => options.preset = Preset::named(value).map_err(refuse)?,
            _ => {
                let known = if task.has_presets() {
                    "limit and preset"
                } else {
                    "seqlen, limit, shots and conversation"
                };
                return Err(refuse(format!("has no option `{key}`; there are {known}")));
            }
        }
    }
    Ok(TaskLine { task, options })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// A runner's tokenizer, as tasks need it.
pub(super) struct RunnerEncoder<'a> {
    runner: &'a RunnerHandle,
    prefix: Option<u32>,
}

impl<'a> RunnerEncoder<'a> {
    pub(super) fn new(runner: &'a RunnerHandle) -> Result<Self> {
        Ok(Self { runner, prefix: runner.model()?.prefix_token })
    }
}

impl Encode for RunnerEncoder<'_> {
    fn encode(&self, texts: &[&str], add_special: bool) -> Result<Vec<Vec<u32>>, EncodeError> {
        let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
        Ok(self.runner.encode(&texts, add_special)?)
    }

    fn prefix_token(&self) -> Option<u32> {
        self.prefix
    }

    fn byte_length(&self, tokens: &[u32]) -> Option<u64> {
        self.runner.decode(tokens).ok().map(|text| text.len() as u64)
    }
}

/// A runner's answer, as it is kept until all are there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ScoreLine {
    #[serde(with = "real")]
    log_likelihood: f64,
    greedy: bool,
    truncated: bool,
}

/// Where there is nothing to score.
const CERTAIN: ScoreLine = ScoreLine { log_likelihood: 0.0, greedy: true, truncated: false };

/// The pieces in which requests are scored: ranges of requests. `documents` gives the number of requests of each document, in order.
fn pieces(documents: &[usize], requests: &[TokenRequest]) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let (mut start, mut end, mut held, mut tokens) = (0, 0, 0, 0);
    for count in documents {
        let of_document: usize = (end..end + count)
            .map(|i| {
                let shared = i > start && requests[i - 1].context == requests[i].context;
                requests[i].continuation.len() + if shared { 0 } else { requests[i].context.len() }
            })
            .sum();
        if held > 0 && (held >= PIECE_DOCUMENTS || tokens + of_document > PIECE_TOKENS) {
            out.push(start..end);
            (start, held, tokens) = (end, 0, 0);
        }
        end += count;
        held += 1;
        tokens += of_document;
    }
    if end > start {
        out.push(start..end);
    }
    out
}

pub(super) fn run(
    order: &StageOrder,
    runner: &mut RunnerHandle,
    services: &Services,
    usage: &Usage,
) -> Result<StageOutcome> {
    let Work::Evaluate { task, limit, shots, .. } = &order.work else {
        return Err(Error::failed("not an evaluate stage"));
    };
    let asked = Asked { task, limit: *limit, shots: *shots };
    let Ready { prepared, requests, mut outcome } = task::begin(order, runner, services, usage, &asked)?;
    usage.phase("scoring");
    let scores = score(order, runner, services, usage, &prepared, &requests)?;
    usage.phase("metrics");
    let truncated = scores.iter().filter(|s| s.truncated).count();
    if truncated > 0 {
        outcome.warnings.push(format!(
            "{truncated} of {} requests of {} were cut from the left to fit the model's context",
            scores.len(),
            prepared.name
        ));
    }
    let items = prepared.items(&requests, &scores).map_err(|e| Error::failed(e.to_string()))?;
    task::end(order, &prepared, &items, SCORES, outcome)
}

fn score(
    order: &StageOrder,
    runner: &mut RunnerHandle,
    services: &Services,
    usage: &Usage,
    prepared: &Prepared,
    requests: &Requests,
) -> Result<Vec<tasks::Score>> {
    let documents: Vec<usize> = match prepared.docs() {
        [] => vec![1; requests.tokens.len()],
        docs => docs.iter().map(|doc| doc.requests.len()).collect(),
    };
    let pieces = pieces(&documents, &requests.tokens);
    let file = order.directory.join(SCORES);
    let (mut lines, done): (Vec<ScoreLine>, usize) = resume(&file, &pieces)?;
    let total = requests.tokens.len() as u64;
    let what = if prepared.is_perplexity() { "windows" } else { "choices" };
    let cannot_write = |e: std::io::Error| Error::failed(format!("cannot write {}: {e}", file.display()));
    let mut out = File::options().append(true).open(&file).map_err(cannot_write)?;
    services.stage_progress(lines.len() as u64, total, what);
    for piece in &pieces[done..] {
        services.check_cancelled()?;
        let requests = &requests.tokens[piece.clone()];
        let asked: Vec<ScoreRequest> = requests
            .iter()
            .filter(|r| !r.continuation.is_empty())
            .map(|r| ScoreRequest { context: r.context.clone(), continuation: r.continuation.clone() })
            .collect();
        let scores = if asked.is_empty() { Vec::new() } else { runner.score(&asked)? };
        let mut scores = scores.into_iter();
        let mut bytes = Vec::new();
        for request in requests {
            let score = if request.continuation.is_empty() { None } else { scores.next() };
            // Of nothing, the probability is 1.
            let line = score.map_or(CERTAIN, |score| ScoreLine {
                log_likelihood: score.log_likelihood,
                greedy: score.greedy,
                truncated: score.truncated,
            });
            write_line(&mut bytes, &line)?;
            lines.push(line);
        }
        out.write_all(&bytes).and_then(|()| out.sync_data()).map_err(cannot_write)?;
        usage.keep();
        services.stage_progress(lines.len() as u64, total, what);
    }
    Ok(lines
        .into_iter()
        .map(|line| tasks::Score {
            log_likelihood: line.log_likelihood,
            greedy: line.greedy,
            token_log_likelihoods: Vec::new(),
            truncated: line.truncated,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::super::lines::whole_lines;
    use super::*;
    use proptest::prelude::*;

    fn line(log_likelihood: f64) -> ScoreLine {
        ScoreLine { log_likelihood, greedy: false, truncated: true }
    }

    fn text(lines: &[ScoreLine]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in lines {
            write_line(&mut bytes, line).unwrap();
        }
        bytes
    }

    proptest! {
        #[test]
        fn numbers_come_back_bit_by_bit(values in prop::collection::vec(any::<f64>(), 0..20)) {
            let lines: Vec<_> = values.iter().map(|v| line(*v)).collect();
            let back: Vec<ScoreLine> = whole_lines(&text(&lines));
            prop_assert_eq!(back.len(), values.len());
            for (value, line) in values.iter().zip(&back) {
                prop_assert!(value.to_bits() == line.log_likelihood.to_bits() || value.is_nan() && line.log_likelihood.is_nan());
            }
        }

        #[test]
        fn wherever_the_file_is_torn_only_whole_pieces_stay(cut in 0usize..400) {
            let lines: Vec<_> = (0..10).map(|i| line(-f64::from(i) / 3.0)).collect();
            let pieces = [0..4, 4..7, 7..10];
            let whole = text(&lines);
            let cut = cut.min(whole.len());
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join(SCORES);
            std::fs::write(&file, &whole[..cut]).unwrap();
            let (kept, done): (Vec<ScoreLine>, usize) = resume(&file, &pieces).unwrap();
            let whole_before = whole[..cut].iter().filter(|b| **b == b'\n').count();
            prop_assert_eq!(done, pieces.iter().filter(|p| p.end <= whole_before).count());
            prop_assert_eq!(&kept[..], &lines[..done.checked_sub(1).map_or(0, |i| pieces[i].end)]);
            prop_assert_eq!(std::fs::read(&file).unwrap(), text(&kept));
        }

        #[test]
        fn pieces_cover_all_requests_in_order(documents in prop::collection::vec(1usize..5, 0..300), length in 1usize..3000) {
            let count = documents.iter().sum();
            let requests = vec![TokenRequest { context: vec![1; length], continuation: vec![2; 3] }; count];
            let pieces = pieces(&documents, &requests);
            let mut at = 0;
            for piece in &pieces {
                prop_assert_eq!(piece.start, at);
                prop_assert!(piece.end > at);
                at = piece.end;
            }
            prop_assert_eq!(at, count);
        }
    }

    #[test]
    fn garbage_in_the_middle_ends_what_is_kept() {
        let mut bytes = text(&[line(1.0), line(2.0)]);
        bytes.extend(b"{\"log_like\n");
        bytes.extend(text(&[line(3.0)]));
        assert_eq!(whole_lines::<ScoreLine>(&bytes), [line(1.0), line(2.0)]);
    }

    #[test]
    fn pieces_are_bounded_by_documents_and_by_tokens() {
        let short = vec![TokenRequest { context: vec![1], continuation: vec![2] }; 130];
        assert_eq!(pieces(&[1; 130], &short), [0..64, 64..128, 128..130]);
        let window = vec![TokenRequest { context: vec![1], continuation: vec![2; 2047] }; 10];
        assert_eq!(pieces(&[1; 10], &window), [0..8, 8..10]);
        let huge = vec![TokenRequest { context: vec![1], continuation: vec![2; 100_000] }; 2];
        assert_eq!(pieces(&[1; 2], &huge), [0..1, 1..2]);
    }

    #[test]
    fn task_lines() {
        let parse = |line: &str| parse_task(line, Some(10), 2, 7);
        let plain = parse("arc_easy").unwrap();
        assert_eq!((plain.options.limit, plain.options.shots, plain.options.seed), (Some(10), 2, 7));
        let options = parse("mmlu:shots=5,limit=3").unwrap().options;
        assert_eq!((options.limit, options.shots), (Some(3), 5));
        let perplexity = parse("wikitext2:seqlen=512").unwrap();
        assert_eq!((perplexity.options.seqlen, perplexity.options.shots), (Some(512), 0));
        let file = parse("text:a:b/c.txt:seqlen=16").unwrap();
        assert_eq!((file.task.name(), file.options.seqlen), ("text:a:b/c.txt".to_owned(), Some(16)));
        assert_eq!(parse("text:a=b.txt").unwrap().task.name(), "text:a=b.txt");
        let truthful = |line: &str| parse_task(line, Some(10), 0, 7);
        let preset = truthful("truthfulqa@llmcbench:preset=null,limit=4").unwrap().options;
        assert_eq!((preset.preset, preset.limit), (Preset::Null, Some(4)));
        for (bad, says) in [
            (
                "truthfulqa@llmcbench:preset=nul",
                "no preset is called `nul`; there are qa, help, comp, null, chat",
            ),
            ("truthfulqa@llmcbench:seed=1", "no option `seed`; there are limit and preset"),
            ("truthfulqa_mc1:preset=qa", "no option `preset`"),
            ("arc_esy", "arc_easy"),
            ("arc_easy:depth=3", "no option `depth`"),
            ("arc_easy:limit=many", "no whole number"),
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
