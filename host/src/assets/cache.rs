//! The cache folder: hashes, atomic writes, locks between processes.

use super::error::AssetError;
use super::progress::{Progress, ProgressFn};
use super::stop::{Stop, TICK};
use sha2::{Digest, Sha256};
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of `bytes` in lower-case hexadecimal.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file's contents, read in pieces.
pub(crate) fn sha256_file(path: &Path) -> Result<String, AssetError> {
    let mut file = File::open(path).map_err(|e| AssetError::io("open", path, e))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(|e| AssetError::io("read", path, e))?;
        if n == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..n]);
    }
}

pub(crate) fn create_dir(path: &Path) -> Result<(), AssetError> {
    std::fs::create_dir_all(path).map_err(|e| AssetError::io("create the folder", path, e))
}

/// Writes `path` so that a reader sees the old file or the whole new one, never a part.
///
/// `write` fills the temporary file beside the target and may use its whole contents; the file is on disk before it gets its name.
pub(crate) fn write_atomically<T>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<T, AssetError>,
) -> Result<T, AssetError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    create_dir(folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(".partial-")
        // A cache may be shared: readable by others as far as the user's mask allows.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(|e| AssetError::io("create a file in", folder, e))?;
    let value = write(file.as_file_mut())?;
    file.as_file_mut()
        .flush()
        .and_then(|()| file.as_file().sync_all())
        .map_err(|e| AssetError::io("write", path, e))?;
    file.persist(path).map_err(|e| AssetError::io("rename to", path, e.error))?;
    Ok(value)
}

/// Holds a lock file for as long as it lives; the operating system releases it when the process ends.
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock called `name` of this cache, waiting for another process that holds it.
pub(crate) fn lock(
    cache: &Path,
    name: &str,
    progress: &ProgressFn<'_>,
    stop: &Stop,
) -> Result<Lock, AssetError> {
    let folder = cache.join("locks");
    create_dir(&folder)?;
    let path: PathBuf = folder.join(format!("{name}.lock"));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| AssetError::io("open", &path, e))?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => {
                if !told {
                    progress(Progress::Message(format!("waiting for another process that fetches {name}")));
                    told = true;
                }
                stop.check()?;
                std::thread::sleep(TICK);
            }
            Err(TryLockError::Error(e)) => return Err(AssetError::io("lock", &path, e)),
        }
    }
}
