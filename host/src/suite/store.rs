//! The result directory: stages that are done, stages that are under way, the result of the run.
//!
//! `stages/<name>/` holds a finished stage and `stages/<name>.partial/` one that is not. A stage becomes finished by one rename, after
//! everything in it is on disk, `result.json` last; so whatever is found under a finished name is whole.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::result::{RunResult, SCHEMA_VERSION, StageResult, Status};

/// A stage's result.
pub const RESULT: &str = "result.json";
/// What was known of a stage that failed, in its unfinished directory; never read as a result.
pub const FAILED: &str = "failed.json";
/// The run's result.
pub const RUN: &str = "run.json";
/// A stage's log.
pub const LOG: &str = "log.txt";
const KEY: &str = "key";
const PARTIAL: &str = ".partial";

/// The result directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}{}", .path.display(), way_out(.source))]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// With which path.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Another run has it.
    #[error("{} is in use by another run{}; wait for it to end, or give another --out", .path.display(), by_process(.process))]
    Locked {
        /// The result directory.
        path: PathBuf,
        /// Process id of the other run, or empty.
        process: String,
    },
    /// A result could not be written as JSON.
    #[error("cannot write {} as JSON: {source}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

fn by_process(id: &str) -> String {
    if id.is_empty() { String::new() } else { format!(" (process {id})") }
}

/// What a user can do about an error of the file system.
pub(crate) fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space and run again: finished stages are kept"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; give a folder that can be written with --out"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "; a file is where a folder should be: give another --out"
        }
        io::ErrorKind::NotFound => "; is the path right? Give a folder that can be written with --out",
        _ => "",
    }
}

impl StoreError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| StoreError::Io { action, path, source }
    }
}

/// Writes a file so that a reader sees the old contents or the whole new ones. On disk when this returns.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        // In the same folder, so that the rename stays within one file system; removed again when anything fails.
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        }
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        sync_directory(folder)
    };
    write().map_err(StoreError::io("write", path))
}

/// Waits until a file's contents are on disk.
pub(crate) fn sync_file(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Waits until a directory's entries are on disk.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // Some file systems cannot do this; they have nothing more to offer.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

fn json<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| StoreError::Json { path: path.to_owned(), source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A result directory, locked for this process.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    _lock: File,
}

impl Store {
    /// Makes the directory if need be, checks that it can be written, and locks it until the store is dropped.
    ///
    /// # Errors
    /// The directory cannot be made or written, or another run has it.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        let stages = root.join("stages");
        std::fs::create_dir_all(&stages).map_err(StoreError::io("create the folder", &stages))?;
        let path = root.join(".lock");
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StoreError::io("write", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut process = String::new();
                let _ = lock.read_to_string(&mut process);
                let process = process.trim().chars().filter(char::is_ascii_digit).collect();
                return Err(StoreError::Locked { path: root.to_owned(), process });
            }
            Err(TryLockError::Error(source)) => {
                return Err(StoreError::Io { action: "lock", path, source });
            }
        }
        let note = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        note(&mut lock).map_err(StoreError::io("write", &path))?;
        Ok(Store { root: root.to_owned(), _lock: lock })
    }

    /// The result directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory of a finished stage, relative to the result directory.
    pub fn relative(name: &str) -> PathBuf {
        Path::new("stages").join(name)
    }

    /// Directory of a finished stage.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.root.join(Self::relative(name))
    }

    /// Directory of a stage that is not finished.
    pub fn partial(&self, name: &str) -> PathBuf {
        self.root.join("stages").join(format!("{name}{PARTIAL}"))
    }

    /// The result of a finished stage with this key. Anything that is not whole counts as not there.
    pub fn find(&self, name: &str, key: &str) -> Option<StageResult> {
        Self::find_in(&self.root, name, key)
    }

    /// As [`find`](Self::find), in a result directory that is not opened and may not be there.
    pub fn find_in(root: &Path, name: &str, key: &str) -> Option<StageResult> {
        let directory = root.join(Self::relative(name));
        let bytes = std::fs::read(directory.join(RESULT)).ok()?;
        let result: StageResult = serde_json::from_slice(&bytes).ok()?;
        let files_there = result.files.iter().all(|file| directory.join(file).is_file());
        let checkpoint_there = result.checkpoint.as_ref().is_none_or(|checkpoint| {
            checkpoint.info.files.iter().all(|(file, size)| {
                std::fs::metadata(directory.join(&checkpoint.path).join(file)).is_ok_and(|m| m.len() == *size)
            })
        });
        (result.schema_version == SCHEMA_VERSION
            && result.key == key
            && result.status == Status::Done
            && files_there
            && checkpoint_there)
            .then_some(result)
    }

    /// Makes ready the directory in which a stage works, keeping what an interrupted attempt at the same work left there. Returns it, and
    /// whether there was such an attempt.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn begin(&self, name: &str, key: &str) -> Result<(PathBuf, bool), StoreError> {
        let finished = self.directory(name);
        if finished.exists() {
            // Not whole, or of another key with the same beginning.
            std::fs::remove_dir_all(&finished).map_err(StoreError::io("remove", &finished))?;
        }
        let partial = self.partial(name);
        let key_file = partial.join(KEY);
        if std::fs::read_to_string(&key_file).is_ok_and(|found| found.trim() == key) {
            let _ = std::fs::remove_file(partial.join(FAILED));
            return Ok((partial, true));
        }
        if partial.exists() {
            std::fs::remove_dir_all(&partial).map_err(StoreError::io("remove", &partial))?;
        }
        std::fs::create_dir_all(&partial).map_err(StoreError::io("create the folder", &partial))?;
        write_atomically(&key_file, key.as_bytes())?;
        Ok((partial, false))
    }

    /// Makes a stage finished: its files are listed in the result, the result is written, the directory gets its final name.
    ///
    /// # Errors
    /// Something could not be written; the stage then stays unfinished.
    pub fn commit(&self, name: &str, result: &mut StageResult) -> Result<(), StoreError> {
        let partial = self.partial(name);
        let finished = self.directory(name);
        let _ = std::fs::remove_file(partial.join(KEY));
        result.files = files_of(&partial).map_err(StoreError::io("list", &partial))?;
        for file in &result.files {
            let path = partial.join(file);
            sync_file(&path).map_err(StoreError::io("write", &path))?;
        }
        let path = partial.join(RESULT);
        write_atomically(&path, &json(&path, result)?)?;
        std::fs::rename(&partial, &finished).map_err(StoreError::io("rename to", &finished))?;
        let stages = self.root.join("stages");
        sync_directory(&stages).map_err(StoreError::io("write", &stages))
    }

    /// Writes down why a stage failed, beside what it has done so far.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note_failure(&self, name: &str, result: &StageResult) -> Result<(), StoreError> {
        let path = self.partial(name).join(FAILED);
        write_atomically(&path, &json(&path, result)?)
    }

    /// Writes the run's result.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_run(&self, run: &RunResult) -> Result<(), StoreError> {
        let path = self.root.join(RUN);
        write_atomically(&path, &json(&path, run)?)
    }
}

/// Names of the files directly in a directory, sorted, without those that are under way.
fn files_of(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file()
            && let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
            && name != RESULT
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The folder of a stage as a run's result names it. Results may be somebody else's: nothing outside their directory is read for them.
pub fn stage_folder(root: &Path, directory: &Path) -> Option<PathBuf> {
    let inside = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    (!directory.as_os_str().is_empty() && directory.components().all(inside)).then(|| root.join(directory))
}

/// Reads the run's result of a result directory.
///
/// # Errors
/// The file is missing, or not a result of this version.
pub fn read_run(root: &Path) -> Result<RunResult, StoreError> {
    let path = root.join(RUN);
    let bytes = std::fs::read(&path).map_err(StoreError::io("read", &path))?;
    serde_json::from_slice(&bytes).map_err(|source| StoreError::Json { path, source })
}
