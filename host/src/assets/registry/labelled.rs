//! Texts with labels, and questions with true and false answers.

use super::{Asset, CONVERTED, HubFile, Kind, Layout, Part};
use crate::assets::record::Schema;

pub(super) const QNLI: Asset = Asset {
    id: "qnli",
    kind: Kind::DataSet,
    what: "QNLI (GLUE): does the sentence answer the question",
    licence: "CC BY-SA 4.0 (from SQuAD)",
    citation: "Wang et al. 2018, GLUE: A Multi-Task Benchmark and Analysis Platform, arXiv:1804.07461",
    folders: &["qnli", "QNLI", "QNLIv2"],
    parts: &[
        Part {
            name: "validation",
            schema: Schema::Qnli,
            rows: 5463,
            bytes: 0,
            sha256: None,
            layout: Layout::Tsv(&["dev.tsv"]),
            hub: &[
                HubFile {
                    repo: "nyu-mll/glue",
                    revision: "main",
                    path: "qnli/validation-00000-of-00001.parquet",
                },
                HubFile { repo: "nyu-mll/glue", revision: CONVERTED, path: "qnli/validation/0000.parquet" },
            ],
            package: None,
        },
        Part {
            name: "train",
            schema: Schema::Qnli,
            rows: 104_743,
            bytes: 0,
            sha256: None,
            layout: Layout::Tsv(&["train.tsv"]),
            hub: &[
                HubFile { repo: "nyu-mll/glue", revision: "main", path: "qnli/train-00000-of-00001.parquet" },
                HubFile { repo: "nyu-mll/glue", revision: CONVERTED, path: "qnli/train/0000.parquet" },
            ],
            package: None,
        },
    ],
};

pub(super) const MNLI: Asset = Asset {
    id: "mnli",
    kind: Kind::DataSet,
    what: "MultiNLI (GLUE), matched: does the premise entail the hypothesis",
    licence: "OANC terms, parts CC BY and CC BY-SA",
    citation: "Williams et al. 2018, A Broad-Coverage Challenge Corpus for Sentence Understanding through Inference, arXiv:1704.05426",
    folders: &["mnli", "MNLI", "multinli_1.0"],
    parts: &[
        Part {
            name: "validation_matched",
            schema: Schema::Mnli,
            rows: 9815,
            bytes: 0,
            sha256: None,
            layout: Layout::JsonLines(&["mnli_dev_matched.jsonl", "multinli_1.0_dev_matched.jsonl"]),
            hub: &[
                HubFile {
                    repo: "nyu-mll/glue",
                    revision: "main",
                    path: "mnli/validation_matched-00000-of-00001.parquet",
                },
                HubFile {
                    repo: "nyu-mll/glue",
                    revision: CONVERTED,
                    path: "mnli/validation_matched/0000.parquet",
                },
            ],
            package: None,
        },
        Part {
            name: "train",
            schema: Schema::Mnli,
            rows: 392_702,
            bytes: 0,
            sha256: None,
            layout: Layout::JsonLines(&["mnli_train.jsonl", "multinli_1.0_train.jsonl"]),
            hub: &[
                HubFile { repo: "nyu-mll/glue", revision: "main", path: "mnli/train-00000-of-00001.parquet" },
                HubFile { repo: "nyu-mll/glue", revision: CONVERTED, path: "mnli/train/0000.parquet" },
            ],
            package: None,
        },
    ],
};

pub(super) const ADV_GLUE: Asset = Asset {
    id: "advglue",
    kind: Kind::DataSet,
    what: "AdvGLUE: six GLUE tasks under adversarial changes (dev_ann.json, with the original texts, from adversarialglue.github.io)",
    licence: "CC BY-SA 4.0",
    citation: "Wang et al. 2021, Adversarial GLUE: A Multi-Task Benchmark for Robustness Evaluation of Language Models, arXiv:2111.02840",
    folders: &["advglue", "adv_glue", "AdvGLUE"],
    // The hub's copy lacks the original texts.
    parts: &[Part {
        name: "dev",
        schema: Schema::AdvGlue,
        rows: 738,
        bytes: 0,
        sha256: None,
        layout: Layout::AdvGlue(&["dev_ann.json"]),
        hub: &[],
        package: None,
    }],
};

pub(super) const TRUTHFUL_QA: Asset = Asset {
    id: "truthfulqa",
    kind: Kind::DataSet,
    what: "TruthfulQA: questions that invite common falsehoods",
    licence: "Apache-2.0",
    citation: "Lin et al. 2021, TruthfulQA: Measuring How Models Mimic Human Falsehoods, arXiv:2109.07958",
    folders: &["truthfulqa", "TruthfulQA"],
    parts: &[Part {
        name: "validation",
        schema: Schema::TruthfulQa,
        rows: 817,
        bytes: 0,
        sha256: None,
        layout: Layout::TruthfulCsv(&["TruthfulQA.csv"]),
        hub: &[
            HubFile {
                repo: "truthfulqa/truthful_qa",
                revision: "main",
                path: "multiple_choice/validation-00000-of-00001.parquet",
            },
            HubFile {
                repo: "truthfulqa/truthful_qa",
                revision: CONVERTED,
                path: "multiple_choice/validation/0000.parquet",
            },
        ],
        package: None,
    }],
};
