//! Descriptors of plugin files, kept between runs so that a child process is spawned once per build of a plugin.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use llmcb_plugin_api::abi::{ABI_MAJOR, ABI_MINOR};
use llmcb_plugin_api::sdk::Descriptor;
use serde::{Deserialize, Serialize};

use super::library_file::{Look, look};
use crate::assets::sha256_hex;

/// Why a file gave no descriptor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing in the file says that it is a plugin; a folder may hold many such files.
    #[error("{0}")]
    Foreign(String),
    /// The file claims to be a plugin and cannot be used.
    #[error("{0}")]
    Broken(String),
}

/// Asks plugin files for their descriptors.
pub trait Describe {
    /// The descriptor of a file that claims to be a plugin.
    ///
    /// # Errors
    /// One line that names the file and the cause.
    fn describe(&self, file: &Path) -> Result<Descriptor, Refusal>;
}

impl<F: Fn(&Path) -> Result<Descriptor, Refusal>> Describe for F {
    fn describe(&self, file: &Path) -> Result<Descriptor, Refusal> {
        self(file)
    }
}

/// Descriptors, remembered in a folder by the file's path, size, time and SHA-256.
pub struct CachedDescriptions<'a> {
    ask: &'a dyn Describe,
    folder: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    abi: (u32, u32),
    path: PathBuf,
    bytes: u64,
    modified_ns: u128,
    /// `None`: the file is no plugin.
    plugin: Option<(String, Descriptor)>,
}

fn identity(path: &Path) -> std::io::Result<(u64, u128)> {
    let data = std::fs::metadata(path)?;
    let modified = data.modified()?.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    Ok((data.len(), modified))
}

impl<'a> CachedDescriptions<'a> {
    /// Asks `ask` for what is not yet known; remembers in `folder` if there is one.
    pub fn new(ask: &'a dyn Describe, folder: Option<PathBuf>) -> Self {
        CachedDescriptions { ask, folder }
    }

    /// SHA-256 and descriptor of a file.
    ///
    /// # Errors
    /// [`Refusal::Foreign`] for files that are no plugins, [`Refusal::Broken`] for unusable ones.
    pub fn describe(&self, path: &Path) -> Result<(String, Descriptor), Refusal> {
        let unreadable =
            |e: std::io::Error| Refusal::Broken(format!("{}: cannot be read: {e}", path.display()));
        let (bytes, modified_ns) = identity(path).map_err(unreadable)?;
        let foreign = || {
            Refusal::Foreign(format!("{}: not an llmcb plugin: it exports no plugin header", path.display()))
        };
        if let Some(entry) = self.recall(path).filter(|e| {
            e.abi == (ABI_MAJOR, ABI_MINOR)
                && e.path == path
                && (e.bytes, e.modified_ns) == (bytes, modified_ns)
        }) {
            return entry.plugin.ok_or_else(foreign);
        }
        let plugin = match look(path).map_err(unreadable)? {
            Look::NotElf => {
                return Err(Refusal::Foreign(format!(
                    "{}: not a shared object (it does not begin as an ELF file does)",
                    path.display()
                )));
            }
            Look::Foreign => None,
            Look::Claims { sha256 } => match self.ask.describe(path) {
                Ok(descriptor) => Some((sha256, descriptor)),
                Err(Refusal::Foreign(_)) => None,
                // Not remembered: the cause may lie outside the file, in a library it needs.
                Err(broken) => return Err(broken),
            },
        };
        let entry = Entry { abi: (ABI_MAJOR, ABI_MINOR), path: path.to_owned(), bytes, modified_ns, plugin };
        self.remember(&entry);
        entry.plugin.ok_or_else(foreign)
    }

    fn file(&self, path: &Path) -> Option<PathBuf> {
        let name = sha256_hex(path.as_os_str().as_encoded_bytes());
        Some(self.folder.as_ref()?.join("plugins").join(format!("{}.json", &name[..24])))
    }

    fn recall(&self, path: &Path) -> Option<Entry> {
        let text = std::fs::read(self.file(path)?).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// A cache that cannot be written costs time only, so failures go to the log.
    fn remember(&self, entry: &Entry) {
        let Some(file) = self.file(&entry.path) else { return };
        let write = || -> std::io::Result<()> {
            let folder = file.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer(&mut temporary, entry)?;
            temporary.persist(&file)?;
            Ok(())
        };
        if let Err(e) = write() {
            tracing::debug!(
                "{}: the descriptor of {} is not remembered: {e}",
                file.display(),
                entry.path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_plugin_is_asked_once_per_build() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libx.so");
        std::fs::write(&file, b"\x7fELF llmcb_plugin_header").unwrap();
        let asked = Cell::new(0);
        let ask = |_: &Path| {
            asked.set(asked.get() + 1);
            Ok(Descriptor::method("x", "X", "1").summary("s"))
        };
        let cache = folder.path().join("cache");
        for expected in [1, 1] {
            CachedDescriptions::new(&ask, Some(cache.clone())).describe(&file).unwrap();
            assert_eq!(asked.get(), expected);
        }
        std::fs::write(&file, b"\x7fELF llmcb_plugin_header, rebuilt").unwrap();
        CachedDescriptions::new(&ask, Some(cache)).describe(&file).unwrap();
        assert_eq!(asked.get(), 2);
    }

    #[test]
    fn a_damaged_or_unwritable_cache_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libx.so");
        std::fs::write(&file, b"\x7fELF llmcb_plugin_header").unwrap();
        let ask = |_: &Path| Ok(Descriptor::method("x", "X", "1"));
        let not_a_folder = folder.path().join("libx.so");
        assert!(CachedDescriptions::new(&ask, Some(not_a_folder)).describe(&file).is_ok());
        let cached = CachedDescriptions::new(&ask, Some(folder.path().join("cache")));
        cached.describe(&file).unwrap();
        std::fs::write(cached.file(&file).unwrap(), "{").unwrap();
        assert!(cached.describe(&file).is_ok());
    }

    #[test]
    fn failures_are_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libx.so");
        std::fs::write(&file, b"\x7fELF llmcb_plugin_header").unwrap();
        let broken = |_: &Path| Err(Refusal::Broken("needs libfoo".into()));
        let cache = Some(folder.path().join("cache"));
        assert!(CachedDescriptions::new(&broken, cache.clone()).describe(&file).is_err());
        let works = |_: &Path| Ok(Descriptor::method("x", "X", "1"));
        assert!(CachedDescriptions::new(&works, cache).describe(&file).is_ok());
    }
}
