//! Installing a library below the folder that the host gives.

use std::fs::{File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use llmcb_plugin_api::sdk::{Error, Host, LIBRARIES_VARIABLE, LogLevel, Result, libraries_folder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::process;

/// The file that is written last: without it nothing is installed.
const INSTALLED: &str = "installed.json";
/// What the programs that install say.
const LOG: &str = "setup.log";

/// The folder of one library.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

fn cannot<'a>(action: &'a str, path: &'a Path) -> impl Fn(std::io::Error) -> Error + 'a {
    move |e| Error::failed(format!("cannot {action} {}: {e}", path.display()))
}

impl Home {
    /// The folder of a backend's library.
    ///
    /// # Errors
    /// The host names no folder for libraries.
    pub fn of(backend: &str) -> Result<Self> {
        Ok(Home(libraries_folder()?.join(backend)))
    }

    /// A folder or file below it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What an installation noted of itself; nothing where there is none, or a half one.
    pub fn installed<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&std::fs::read(self.join(INSTALLED)).ok()?).ok()
    }

    /// Begins an installation: one process at a time, from nothing.
    ///
    /// # Errors
    /// Another process is at it, or the folder cannot be written.
    pub fn begin<'a>(&self, host: &'a Host, steps: u64) -> Result<Installation<'a>> {
        let folder = &self.0;
        let parent = folder.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(cannot("make", parent))?;
        let lock_file = folder.with_extension("lock");
        let lock = File::create(&lock_file).map_err(cannot("write", &lock_file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::failed(format!(
                    "{} is being set up by another process",
                    folder.display()
                )));
            }
            Err(TryLockError::Error(e)) => return Err(cannot("lock", &lock_file)(e)),
        }
        let is_ours = folder.join(LOG).exists() || folder.join(INSTALLED).exists();
        let is_empty = std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
        if !is_ours && !is_empty {
            return Err(Error::invalid(format!(
                "{} holds something that was not set up here; set {LIBRARIES_VARIABLE} to another folder",
                folder.display()
            )));
        }
        match std::fs::remove_dir_all(folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(cannot("remove", folder)(e)),
            _ => {}
        }
        std::fs::create_dir_all(folder).map_err(cannot("make", folder))?;
        let log = folder.join(LOG);
        File::create(&log).map_err(cannot("write", &log))?;
        Ok(Installation { host, home: self.clone(), log, steps, done: 0, _lock: lock })
    }
}

/// An installation that goes on.
pub struct Installation<'a> {
    host: &'a Host,
    home: Home,
    log: PathBuf,
    steps: u64,
    done: u64,
    _lock: File,
}

impl Installation<'_> {
    /// Runs the next step, a program.
    ///
    /// # Errors
    /// As [`process::run`].
    pub fn step(&mut self, what: &str, command: &mut Command) -> Result<()> {
        self.host.log(LogLevel::Info, format!("{what} ({} of {})", self.done + 1, self.steps));
        let (done, steps) = (self.done, self.steps);
        let told = |line: &str| {
            let short: String = line.chars().take(80).collect();
            self.host.progress(done, steps, &format!("{what}: {short}"));
        };
        self.host.progress(done, steps, what);
        process::run(self.host, what, command, Some(&self.log), told)?;
        self.done += 1;
        Ok(())
    }

    /// Writes a file of the installation, whole.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, contents: &str) -> Result<()> {
        let path = self.home.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(cannot("make", folder))?;
        }
        std::fs::write(&path, contents).map_err(cannot("write", &path))
    }

    /// Ends the installation: from now on the library is found.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn finish<T: Serialize>(self, noted: &T) -> Result<()> {
        let text = serde_json::to_string_pretty(noted).map_err(|e| Error::failed(e.to_string()))?;
        self.write("installed.json.new", &text)?;
        let (from, to) = (self.home.join("installed.json.new"), self.home.join(INSTALLED));
        std::fs::rename(&from, &to).map_err(cannot("rename", &from))
    }
}

/// The Python interpreter that makes environments (`LLMCB_PYTHON`, else `python3`).
pub fn python() -> String {
    std::env::var("LLMCB_PYTHON").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "python3".to_owned())
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder for what is written only to be loaded; it goes when it is dropped.
///
/// # Errors
/// It cannot be made.
pub fn scratch() -> Result<Scratch> {
    let parent = libraries_folder()?.join("converted");
    std::fs::create_dir_all(&parent).map_err(cannot("make", &parent))?;
    sweep(&parent);
    let folder = tempfile::Builder::new()
        .prefix("model-")
        .tempdir_in(&parent)
        .map_err(cannot("write into", &parent))?;
    let lock = File::create(folder.path().join(IN_USE)).map_err(cannot("write into", folder.path()))?;
    lock.try_lock().map_err(|e| Error::failed(format!("cannot lock {}: {e}", folder.path().display())))?;
    Ok(Scratch { folder, _lock: lock })
}

/// A file that is locked while its folder is used.
const IN_USE: &str = ".in-use";

/// A folder that goes when this is dropped.
pub struct Scratch {
    folder: tempfile::TempDir,
    _lock: File,
}

impl Scratch {
    /// Its path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes what processes that were killed have left.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let folder = entry.path();
        let Ok(lock) = File::open(folder.join(IN_USE)) else { continue };
        if lock.try_lock().is_ok() {
            // Only room is lost if it stays.
            let _ = std::fs::remove_dir_all(&folder);
        }
    }
}

/// SHA-256 of bytes.
pub fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file.
///
/// # Errors
/// It cannot be read.
pub fn sha256(file: &Path) -> Result<String> {
    let mut reader = File::open(file).map_err(cannot("read", file))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let read = reader.read(&mut buffer).map_err(cannot("read", file))?;
        if read == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}
