//! Read-only memory maps: the one place of this crate that needs `unsafe`.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::{Error, Result};

/// A whole file, mapped read-only.
pub(crate) struct Mapping {
    path: PathBuf,
    /// `None` for an empty file, which cannot be mapped everywhere.
    map: Option<Mmap>,
}

impl Mapping {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let meta = file.metadata().map_err(Error::io(path, "read its size"))?;
        if !meta.is_file() {
            return Err(Error::not_a_model(
                path,
                "is not a regular file",
                "name a file that can be memory-mapped",
            ));
        }
        let map = if meta.len() == 0 { None } else { Some(map_file(&file).map_err(Error::io(path, "map"))?) };
        Ok(Mapping { path: path.to_path_buf(), map })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

#[allow(unsafe_code)]
fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is private to this crate, read-only, and lent out only as `&[u8]` bound to its owner's life. What
    // no process can rule out is another one that rewrites or truncates a model file while it is read; model files are
    // written once, and that hazard is the accepted price of not copying gigabytes.
    unsafe { Mmap::map(file) }
}
