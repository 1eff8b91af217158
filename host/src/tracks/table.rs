//! The tracks and the columns of their tables.

/// A column of a track's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Name in the paper's table.
    pub name: &'static str,
    /// Other spellings, lower case, letters and digits only.
    pub aliases: &'static [&'static str],
    /// Whether less is better.
    pub lower_is_better: bool,
    /// Tasks of this program that measure it, each with the metric; none where it is a cost.
    pub tasks: &'static [(&'static str, &'static str)],
    /// Overall metric that it counts in.
    pub om: &'static str,
}

/// What a ratio of 1 stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// The dense model.
    Dense,
    /// The cheapest of the methods that are compared: compressing has no dense counterpart.
    Cheapest,
}

/// A track.
#[derive(Debug, Clone, Copy)]
pub struct Track {
    /// Its number in the paper.
    pub number: u8,
    /// What it asks.
    pub what: &'static str,
    /// Its columns.
    pub columns: &'static [Column],
    /// Its overall metrics over columns, in the order of the paper's table.
    pub oms: &'static [&'static str],
    /// An overall metric that is the root mean square of all of [`Track::oms`].
    pub combined: Option<&'static str>,
    /// What the numbers are compared with.
    pub reference: Reference,
}

const fn score(
    name: &'static str,
    aliases: &'static [&'static str],
    om: &'static str,
    tasks: &'static [(&'static str, &'static str)],
) -> Column {
    Column { name, aliases, lower_is_better: false, tasks, om }
}

const fn cost(name: &'static str, aliases: &'static [&'static str], om: &'static str) -> Column {
    Column { name, aliases, lower_is_better: true, tasks: &[], om }
}

const fn perplexity(om: &'static str) -> Column {
    Column {
        name: "WikiText2",
        aliases: WIKITEXT2,
        lower_is_better: true,
        tasks: &[("wikitext2", "perplexity")],
        om,
    }
}

const WIKITEXT2: &[&str] = &["wikitext2", "wikitext", "wiki2", "ppl", "perplexity"];

/// The tracks whose overall metric compares with the dense model, so that it can come from a table of raw numbers.
pub static TRACKS: &[Track] = &[
    Track {
        number: 1,
        what: "compression performance",
        columns: &[
            score("MMLU", &["mmlu"], "OM_ka", &[("mmlu", "acc"), ("mmlu@llmcbench", "acc")]),
            score("ARC-c", &["arcc", "arcchallenge"], "OM_ka", &[("arc_challenge", "acc_norm")]),
            score("ARC-e", &["arce", "arceasy"], "OM_ka", &[("arc_easy", "acc_norm")]),
            score("HellaSwag", &["hellaswag"], "OM_ia", &[("hellaswag", "acc_norm")]),
            score("PIQA", &["piqa"], "OM_ia", &[("piqa", "acc_norm")]),
            score("WinoGrande", &["winogrande"], "OM_ia", &[("winogrande", "acc")]),
            score("QNLI", &["qnli"], "OM_ia", &[("qnli", "acc"), ("qnli@llmcbench", "acc")]),
            score("MNLI", &["mnli"], "OM_ia", &[("mnli", "acc"), ("mnli@llmcbench", "acc")]),
            perplexity("OM_ia"),
        ],
        oms: &["OM_ka", "OM_ia"],
        combined: Some("OM_perf"),
        reference: Reference::Dense,
    },
    Track {
        number: 2,
        what: "generalisation over model families",
        columns: &[perplexity("OM_gen")],
        oms: &["OM_gen"],
        combined: None,
        reference: Reference::Dense,
    },
    Track {
        number: 4,
        what: "inference cost",
        columns: &[
            cost("gpu_memory_g", &["gpumemoryg", "gpumemory", "memory", "gpumem", "memoryg"], "OM_inf"),
            cost("model_size_g", &["modelsizeg", "modelsize", "size"], "OM_inf"),
            cost("macs_t", &["macst", "macs"], "OM_inf"),
        ],
        oms: &["OM_inf"],
        combined: None,
        reference: Reference::Dense,
    },
    Track {
        number: 5,
        what: "hardware acceleration",
        columns: &[
            score("prefill_tokens_per_s", &["prefilltokenspers", "prefill", "prefillrate"], "OM_hard", &[]),
            score(
                "decode_tokens_per_s",
                &["decodetokenspers", "decode", "decoderate", "tokenspers"],
                "OM_hard",
                &[],
            ),
        ],
        oms: &["OM_hard"],
        combined: None,
        reference: Reference::Dense,
    },
    Track {
        number: 6,
        what: "trustworthiness",
        columns: &[
            score("AdvGLUE", &["advglue"], "OM_rob", &[("advglue@llmcbench", "acc")]),
            score(
                "TruthfulQA-MC1",
                &["truthfulqamc1", "mc1"],
                "OM_tru",
                &[("truthfulqa@llmcbench", "mc1"), ("truthfulqa_mc1", "mc1")],
            ),
            score(
                "TruthfulQA-MC2",
                &["truthfulqamc2", "mc2"],
                "OM_tru",
                &[("truthfulqa@llmcbench", "mc2"), ("truthfulqa_mc2", "mc2")],
            ),
        ],
        oms: &["OM_rob", "OM_tru"],
        combined: Some("OM_trust"),
        reference: Reference::Dense,
    },
];

/// Track 3. The paper states no formula that can be computed from a table, so this is the program's own, in the form of the others.
pub static TRAINING: Track = Track {
    number: 3,
    what: "training consumption",
    columns: &[cost("compress_time_s", &[], "OM_train"), cost("compress_memory_g", &[], "OM_train")],
    oms: &["OM_train"],
    combined: None,
    reference: Reference::Cheapest,
};
