//! What a repository holds, as the hub lists it.

use std::path::PathBuf;

use serde::Deserialize;

use super::client::is_name;

/// The files of one commit.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    /// The commit that the revision names.
    #[serde(rename = "sha")]
    pub commit: String,
    #[serde(rename = "siblings")]
    files: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(rename = "rfilename")]
    name: String,
    /// Bytes; mirrors may not say.
    size: Option<u64>,
    /// Git's hash.
    #[serde(rename = "blobId")]
    git: Option<String>,
    lfs: Option<Large>,
}

/// Of a file that is kept outside git.
#[derive(Debug, Deserialize)]
struct Large {
    sha256: Option<String>,
}

impl Listed {
    /// The file's name in the cache.
    fn etag(&self) -> Option<&String> {
        match &self.lfs {
            Some(large) => large.sha256.as_ref(),
            None => self.git.as_ref(),
        }
    }
}

impl Listing {
    /// Reads the hub's answer.
    ///
    /// # Errors
    /// What is missing in it.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let listing: Self = serde_json::from_str(text)
            .map_err(|e| format!("the answer is no list of files ({e}); is HF_ENDPOINT a hub?"))?;
        match is_name(&listing.commit) {
            true => Ok(listing),
            false => Err(format!("the answer names a commit `{}`; is HF_ENDPOINT a hub?", listing.commit)),
        }
    }

    /// Names of all files.
    pub(super) fn names(&self) -> Vec<String> {
        self.files.iter().map(|file| file.name.clone()).collect()
    }

    /// Bytes of files that a cache lacks, as far as they are known; `blob` says where it keeps one.
    pub(super) fn bytes_to_come(&self, names: &[&String], blob: impl Fn(&str) -> PathBuf) -> u64 {
        let files = self.files.iter().filter(|file| names.contains(&&file.name));
        files
            .map(|file| {
                let size = file.size.unwrap_or(0);
                let Some(etag) = file.etag().filter(|etag| is_name(etag)) else { return size };
                let blob = blob(etag);
                if blob.is_file() {
                    return 0;
                }
                let begun = blob.with_extension("incomplete").metadata().map_or(0, |part| part.len());
                size.saturating_sub(begun)
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"id": "o/n", "sha": "c0ffee", "siblings": [
        {"rfilename": "config.json", "size": 10, "blobId": "aa"},
        {"rfilename": "a.safetensors", "size": 1000, "blobId": "bb", "lfs": {"sha256": "cc", "size": 1000, "pointerSize": 1}},
        {"rfilename": "b.safetensors", "size": 500, "blobId": "dd", "lfs": {"sha256": "ee"}},
        {"rfilename": "vocab.json"}]}"#;

    #[test]
    fn bytes_to_come_are_those_that_the_cache_lacks() {
        let listing = Listing::read(ANSWER).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("aa"), [0; 10]).unwrap();
        std::fs::write(folder.path().join("cc.incomplete"), [0; 300]).unwrap();
        let names = listing.names();
        let of = |wanted: &[usize]| {
            let wanted: Vec<&String> = wanted.iter().map(|at| &names[*at]).collect();
            listing.bytes_to_come(&wanted, |etag| folder.path().join(etag))
        };
        assert_eq!((of(&[0]), of(&[1]), of(&[2]), of(&[3])), (0, 700, 500, 0));
        assert_eq!(of(&[0, 1, 2, 3]), 1200);
    }

    #[test]
    fn answers_that_are_no_listing_are_named() {
        for text in ["<html>", "{}", r#"{"sha": "../..", "siblings": []}"#, r#"{"sha": "", "siblings": []}"#]
        {
            let reason = Listing::read(text).unwrap_err();
            assert!(reason.contains("is HF_ENDPOINT a hub?"), "{reason}");
        }
    }
}
