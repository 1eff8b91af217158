//! One file into the hub's cache: what a broken transfer left is gone on from, and nothing counts before it is whole.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::CacheRepo;
use sha1::{Digest, Sha1};

use super::super::cache::{hex, sha256_file};
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

/// A file that is in the hub's cache.
pub(super) struct Fetched {
    /// Its place in the snapshot.
    pub file: PathBuf,
    /// The commit it is of.
    pub commit: String,
}

/// Repeats `work` while it fails for a passing reason, with waits; `work` says whether it has come further than ever before.
///
/// # Errors
/// The last reason, with how often it was tried.
pub(super) fn with_patience<T>(
    tell: &dyn Fn(Told),
    mut work: impl FnMut() -> (bool, Result<T, Refusal>),
) -> Result<T, String> {
    let (mut attempt, mut wait) = (0, FIRST_WAIT);
    loop {
        let (gained, result) = work();
        let (reason, asked) = match result {
            Ok(value) => return Ok(value),
            Err(Refusal::Final(reason)) => return Err(reason),
            Err(Refusal::Passing(reason, asked)) => (reason, asked),
        };
        if gained {
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

/// Brings a file of a repository into the hub's cache.
///
/// # Errors
/// A reason, in words.
pub(super) fn fetch(
    client: &Client,
    cache: &CacheRepo,
    url: &str,
    name: &str,
    tell: &dyn Fn(Told),
) -> Result<Fetched, String> {
    let info = with_patience(tell, || (false, client.file_info(url)))?;
    if let Some(size) = info.size {
        tell(Told::Size(size));
    }
    let blob = cache.blob_path(&info.etag);
    let mut transfer = Transfer { client, blob: &blob, url, info: &info, tell, most: 0, left: false };
    with_patience(tell, || {
        let before = transfer.most;
        let result = transfer.attempt();
        (transfer.most > before, result)
    })?;
    let file = cache.pointer_path(&info.commit).join(name);
    link(&blob, &file).map_err(|e| format!("cannot link {}: {e}", file.display()))?;
    Ok(Fetched { file, commit: info.commit })
}

/// The contents of one file, in as many attempts as they take.
struct Transfer<'a> {
    client: &'a Client,
    /// Where they go.
    blob: &'a Path,
    url: &'a str,
    info: &'a FileInfo,
    tell: &'a dyn Fn(Told),
    /// The most bytes that any attempt has had: a server that always breaks off at the same byte brings nothing.
    most: u64,
    /// Whether some of the bytes were left by an earlier fetch, or by another program.
    left: bool,
}

impl Transfer<'_> {
    /// Fetches what is missing.
    fn attempt(&mut self) -> Result<(), Refusal> {
        let Self { blob, info, .. } = *self;
        if let Some(folder) = blob.parent() {
            std::fs::create_dir_all(folder).map_err(io("make", folder))?;
        }
        // As huggingface_hub names it, which goes on from it, too.
        let part = blob.with_extension("incomplete");
        let mut file = OpenOptions::new().append(true).create(true).open(&part).map_err(io("open", &part))?;
        self.lock(&file, &part)?;
        if blob.is_file() {
            return Ok(());
        }
        let start_over = |file: &File| file.set_len(0).map_err(io("empty", &part));
        let mut there = file.metadata().map_err(io("look at", &part))?.len();
        // Without a size nobody could tell when such a file is whole.
        if info.size.is_none_or(|size| there > size) {
            start_over(&file)?;
            there = 0;
        }
        if self.most == 0 {
            (self.most, self.left) = (there, there > 0);
        }
        if info.size != Some(there) || there == 0 {
            let (mut answer, from) = self.client.contents(self.url, there)?;
            if from == 0 && there > 0 {
                start_over(&file)?;
                (there, self.left) = (0, false);
            }
            let mut body = answer.body_mut().as_reader();
            let mut piece = vec![0u8; PIECE];
            loop {
                (self.tell)(Told::There(there));
                let read = match body.read(&mut piece) {
                    Ok(0) => break,
                    Ok(read) => read,
                    Err(e) => return Err(Refusal::Passing(format!("the transfer broke off: {e}"), None)),
                };
                file.write_all(&piece[..read]).map_err(io("write", &part))?;
                there += read as u64;
                self.most = self.most.max(there);
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
            // Not removed, for another process may have it open and wait for the lock.
            start_over(&file)?;
            self.most = 0;
            return Err(match self.left {
                true => Refusal::Passing(format!("{problem}; an earlier fetch had left some of it"), None),
                false => Refusal::Final(problem),
            });
        }
        std::fs::rename(&part, blob).map_err(io("rename to", blob))
    }

    /// One process at a time; the lock goes with the file.
    fn lock(&self, file: &File, part: &Path) -> Result<(), Refusal> {
        while let Err(problem) = file.try_lock() {
            match problem {
                TryLockError::WouldBlock => {
                    const PAUSE: Duration = Duration::from_secs(2);
                    (self.tell)(Told::Waits(PAUSE, "another process is fetching it".to_owned()));
                    std::thread::sleep(PAUSE);
                }
                TryLockError::Error(e) => return Err(io("lock", part)(e)),
            }
        }
        Ok(())
    }
}

/// Checks a file against the name that the hub has for it: large ones are named by their SHA-256, others by git's hash of a blob, or where a
/// mirror answers, by the SHA-1 of what they hold. Names of other forms say nothing.
pub(super) fn check(file: &Path, etag: &str) -> Result<(), String> {
    let etag = etag.to_ascii_lowercase();
    if !etag.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(());
    }
    let (hash, found) = match etag.len() {
        64 => ("SHA-256", vec![sha256_file(file).map_err(|e| e.to_string())?]),
        40 => {
            let bytes = std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
            ("git hash", vec![git_hash(&bytes), hex(&Sha1::digest(&bytes))])
        }
        _ => return Ok(()),
    };
    match found.contains(&etag) {
        true => Ok(()),
        false => Err(format!("{} is damaged: {hash} is {}, the hub names {etag}", file.display(), found[0])),
    }
}

/// What git names a file by.
fn git_hash(bytes: &[u8]) -> String {
    let hash = Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes);
    hex(&hash.finalize())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_checked_by_whichever_hash_the_hub_names_them_by() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "hello\n").unwrap();
        // What sha256sum, git hash-object and sha1sum print.
        for (etag, fine) in [
            ("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", true),
            ("CE013625030BA8DBA906F756967F9E9CA394464A", true),
            ("f572d396fae9206628714fb2ce00f72e94f2258f", true),
            ("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be04", false),
            ("ce013625030ba8dba906f756967f9e9ca394464b", false),
            ("b1946ac92492d2347c6235b4d2611184", true),
            ("any-other-name", true),
        ] {
            assert_eq!(check(&file, etag).is_ok(), fine, "{etag}");
        }
    }
}
