//! Read-only memory maps: the one place of this crate that needs `unsafe`.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, UncheckedAdvice};

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

    /// Tells the system that a range will not be read again soon: its whole pages no longer count as this process's memory. They are read
    /// again from the file when they are needed after all.
    #[allow(unsafe_code)]
    pub(crate) fn release(&self, range: Range<usize>) {
        const PAGE: usize = 4096;
        let (first, end) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
        let Some(map) = self.map.as_ref().filter(|_| first < end) else { return };
        // SAFETY: the map is read-only and of a file, so that pages which are dropped come back with the same bytes.
        let advised = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, first, end - first) };
        // Only a hint: a system that does not take it keeps the pages.
        let _ = advised;
    }
}

#[allow(unsafe_code)]
fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is private to this crate, read-only, and lent out only as `&[u8]` bound to its owner's life. What
    // no process can rule out is another one that rewrites or truncates a model file while it is read; model files are
    // written once, and that hazard is the accepted price of not copying gigabytes.
    unsafe { Mmap::map(file) }
}
