//! Which files of a directory hold its tokenizer.

use std::path::{Path, PathBuf};

/// A tokenizer's files in one of three layouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// `tokenizer.json`, which says all.
    Definition(PathBuf),
    /// `tokenizer.model` of SentencePiece.
    SentencePiece(PathBuf),
    /// `vocab.json` and `merges.txt` of byte-level BPE.
    BytePairs { vocabulary: PathBuf, merges: PathBuf },
}

impl Source {
    /// The first of these layouts that the directory has.
    pub(crate) fn find(directory: &Path) -> Option<Self> {
        let file = |name: &str| Some(directory.join(name)).filter(|path| path.exists());
        if let Some(path) = file("tokenizer.json") {
            return Some(Source::Definition(path));
        }
        if let Some(path) = file("tokenizer.model") {
            return Some(Source::SentencePiece(path));
        }
        Some(Source::BytePairs { vocabulary: file("vocab.json")?, merges: file("merges.txt")? })
    }

    /// The files, with those beside them that add tokens or say how they are used.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files = match self {
            Source::Definition(path) | Source::SentencePiece(path) => vec![path.clone()],
            Source::BytePairs { vocabulary, merges } => vec![vocabulary.clone(), merges.clone()],
        };
        let mut beside = vec!["tokenizer_config.json", "special_tokens_map.json"];
        if !matches!(self, Source::Definition(_)) {
            beside.push("added_tokens.json");
        }
        let main = files[0].clone();
        files.extend(beside.into_iter().map(|name| main.with_file_name(name)).filter(|path| path.is_file()));
        files
    }
}
