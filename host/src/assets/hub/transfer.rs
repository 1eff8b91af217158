//! One file into the hub's cache: what a broken transfer left is gone on from, and nothing counts before it is whole.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::CacheRepo;

use super::super::cache::sha256_file;
use super::client::{Client, FileInfo, LONGEST_WAIT, Refusal};

/// Attempts without a byte gained before a transfer is given up.
const ATTEMPTS: u32 = 5;
/// The wait after the first of them; doubled after each.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Bytes that are written at once.
const PIECE: usize = 1 << 16;

/// What a transfer tells while it runs.
pub(super) enum Told {
    /// Bytes in all.
    Size(u64),
    /// Bytes that are there.
    There(u64),
    /// It waits for so long, and why.
    Waits(Duration, String),
}

/// Repeats `work` while it fails for a passing reason, with waits; `work` says how many bytes it has gained.
///
/// # Errors
/// The last reason, with how often it was tried.
pub(super) fn with_patience<T>(
    tell: &dyn Fn(Told),
    mut work: impl FnMut() -> (u64, Result<T, Refusal>),
) -> Result<T, String> {
    let (mut attempt, mut wait) = (0, FIRST_WAIT);
    loop {
        let (gained, result) = work();
        let (reason, asked) = match result {
            Ok(value) => return Ok(value),
            Err(Refusal::Final(reason)) => return Err(reason),
            Err(Refusal::Passing(reason, asked)) => (reason, asked),
        };
        if gained > 0 {
            (attempt, wait) = (0, FIRST_WAIT);
        }
        attempt += 1;
        if attempt >= ATTEMPTS {
            return Err(format!(
                "{reason}; tried {attempt} times, try again later: what has arrived is kept"
            ));
        }
        if let Some(long) = asked.filter(|asked| *asked > LONGEST_WAIT) {
            return Err(format!("{reason}, and asks to wait {} s: try again then", long.as_secs()));
        }
        let pause = asked.unwrap_or(wait);
        tell(Told::Waits(pause, reason));
        std::thread::sleep(pause);
        wait *= 2;
    }
}

fn io(action: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Refusal {
    let place = format!("cannot {action} {}", path.display());
    // A full disk or a folder that may not be written stays so.
    move |e| Refusal::Final(format!("{place}: {e}"))
}

/// Brings a file of a repository into the hub's cache and returns its place in the snapshot.
///
/// # Errors
/// A reason, in words.
pub(super) fn fetch(
    client: &Client,
    cache: &CacheRepo,
    url: &str,
    name: &str,
    tell: &dyn Fn(Told),
) -> Result<PathBuf, String> {
    let info = with_patience(tell, || (0, client.file_info(url)))?;
    if let Some(size) = info.size {
        tell(Told::Size(size));
    }
    let blob = cache.blob_path(&info.etag);
    with_patience(tell, || transfer(client, &blob, url, &info, tell))?;
    let pointer = cache.pointer_path(&info.commit).join(name);
    link(&blob, &pointer).map_err(|e| format!("cannot link {}: {e}", pointer.display()))?;
    cache.create_ref(&info.commit).map_err(|e| format!("cannot write the hub's cache: {e}"))?;
    Ok(pointer)
}

/// Fetches what is missing of a blob; says how many bytes came.
fn transfer(
    client: &Client,
    blob: &Path,
    url: &str,
    info: &FileInfo,
    tell: &dyn Fn(Told),
) -> (u64, Result<(), Refusal>) {
    let mut gained = 0;
    let result = transfer_counted(client, blob, url, info, tell, &mut gained);
    (gained, result)
}

fn transfer_counted(
    client: &Client,
    blob: &Path,
    url: &str,
    info: &FileInfo,
    tell: &dyn Fn(Told),
    gained: &mut u64,
) -> Result<(), Refusal> {
    if let Some(folder) = blob.parent() {
        std::fs::create_dir_all(folder).map_err(io("make", folder))?;
    }
    // As huggingface_hub names it, which goes on from it, too.
    let part = blob.with_extension("incomplete");
    let mut file = OpenOptions::new().append(true).create(true).open(&part).map_err(io("open", &part))?;
    // One process at a time; the lock goes with the file.
    while let Err(problem) = file.try_lock() {
        match problem {
            TryLockError::WouldBlock => {
                const PAUSE: Duration = Duration::from_secs(2);
                tell(Told::Waits(PAUSE, "another process is fetching it".to_owned()));
                std::thread::sleep(PAUSE);
            }
            TryLockError::Error(e) => return Err(io("lock", &part)(e)),
        }
    }
    if blob.is_file() {
        return Ok(());
    }
    let start_over = |file: &File| file.set_len(0).map_err(io("empty", &part));
    let mut there = file.metadata().map_err(io("look at", &part))?.len();
    if info.size.is_some_and(|size| there > size) {
        start_over(&file)?;
        there = 0;
    }
    if info.size != Some(there) || there == 0 {
        let (mut answer, from) = client.contents(url, there)?;
        if from == 0 && there > 0 {
            start_over(&file)?;
            there = 0;
        }
        let mut body = answer.body_mut().as_reader();
        let mut piece = vec![0u8; PIECE];
        loop {
            tell(Told::There(there));
            let read = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) => return Err(Refusal::Passing(format!("the transfer broke off: {e}"), None)),
            };
            file.write_all(&piece[..read]).map_err(io("write", &part))?;
            there += read as u64;
            *gained += read as u64;
        }
    }
    if let Some(size) = info.size.filter(|size| *size != there) {
        if there > size {
            start_over(&file)?;
        }
        return Err(Refusal::Passing(format!("{there} of {size} bytes came"), None));
    }
    file.sync_all().map_err(io("write", &part))?;
    if let Err(problem) = check(&part, &info.etag) {
        let _ = std::fs::remove_file(&part);
        return Err(Refusal::Final(problem));
    }
    std::fs::rename(&part, blob).map_err(io("rename to", blob))
}

/// The hub names large files by their SHA-256; others by a git hash, which says nothing that could be checked here.
pub(super) fn check(file: &Path, etag: &str) -> Result<(), String> {
    if etag.len() != 64 || !etag.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(());
    }
    let found = sha256_file(file).map_err(|e| e.to_string())?;
    if found == etag.to_ascii_lowercase() {
        Ok(())
    } else {
        Err(format!("{} is damaged: SHA-256 is {found}, the hub names {etag}", file.display()))
    }
}

/// Makes `pointer` a link to the blob, relative, so that the cache can be moved.
fn link(blob: &Path, pointer: &Path) -> std::io::Result<()> {
    let Some(folder) = pointer.parent() else { return Ok(()) };
    std::fs::create_dir_all(folder)?;
    // models--owner--name/snapshots/COMMIT/[FOLDER/...]NAME, and models--owner--name/blobs/ETAG.
    let root = blob.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let depth = folder.strip_prefix(root).map_or(0, |below| below.components().count());
    let up: PathBuf = std::iter::repeat_n("..", depth).collect();
    let target = up.join("blobs").join(blob.file_name().unwrap_or_default());
    match std::fs::remove_file(pointer) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    std::os::unix::fs::symlink(target, pointer)
}
