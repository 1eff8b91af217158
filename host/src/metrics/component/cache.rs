//! Compiled code, kept by the hash of the component and of all that decides how it is compiled.
//!
//! Compiled code is trusted by whoever loads it. So it is kept where nobody else can put any: in a folder of the user's own, which is not used when
//! others may write to it.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use wasmtime::{Cache, CacheConfig};

/// Permission of others to write.
const OTHERS_WRITE: u32 = 0o022;

/// The cache in a folder, which is made; or why there is none, in a line.
pub(super) fn open(folder: &Path) -> Result<Cache, String> {
    let fault =
        |what: &dyn std::fmt::Display| format!("compiled metrics are not kept: {}: {what}", folder.display());
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).map_err(|e| fault(&e))?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(fault(&e)),
        _ => {}
    }
    let found = std::fs::symlink_metadata(folder).map_err(|e| fault(&e))?;
    let mine = found.uid() == rustix::process::geteuid().as_raw();
    if !found.is_dir() || !mine || found.mode() & OTHERS_WRITE != 0 {
        return Err(fault(
            &"it must be a folder of yours to which nobody else can write; remove it, and it is made anew",
        ));
    }
    let folder = folder.canonicalize().map_err(|e| fault(&e))?;
    let mut config = CacheConfig::new();
    config.with_directory(folder.clone());
    Cache::new(config).map_err(|e| fault(&e))
}
