//! Hidden states of calibration tokens: in memory, or in a file where they would be too many.

use std::borrow::Cow;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Error, Result};

/// How many bytes of states may be in memory, all together, and where the others go.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    left: Arc<AtomicUsize>,
    directory: PathBuf,
}

impl Budget {
    /// At most `bytes` in memory (none: any number), the rest in files of `directory` (none: where the system keeps large temporary files).
    pub(crate) fn new(bytes: Option<usize>, directory: Option<&Path>) -> Self {
        let directory = directory.map_or_else(temporary, Path::to_owned);
        Self { left: Arc::new(AtomicUsize::new(bytes.unwrap_or(usize::MAX))), directory }
    }

    /// Takes so many bytes of the memory that is left, if there are.
    fn take(&self, bytes: usize) -> bool {
        let enough = |left: usize| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough).is_ok()
    }
}

/// Where large temporary files go: `/tmp` may be memory.
fn temporary() -> PathBuf {
    let persistent = Path::new("/var/tmp");
    match std::env::var_os("TMPDIR") {
        None if persistent.is_dir() => persistent.to_owned(),
        _ => std::env::temp_dir(),
    }
}

/// Rows of `width` numbers.
#[derive(Debug)]
pub(crate) struct States {
    width: usize,
    rows: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// With the budget that gets the bytes back.
    Memory(Vec<f32>, Budget),
    /// A file without a name, which is gone with this.
    File(File, PathBuf),
}

impl Drop for States {
    fn drop(&mut self) {
        if let Place::Memory(_, budget) = &self.place {
            budget.left.fetch_add(self.rows * self.width * size_of::<f32>(), Ordering::Relaxed);
        }
    }
}

impl States {
    /// Rows of zeros.
    ///
    /// # Errors
    /// [`Error::Io`] if a file is needed and cannot be made as large.
    pub(crate) fn new(rows: usize, width: usize, budget: &Budget) -> Result<Self> {
        let bytes = rows * width * size_of::<f32>();
        let place = if budget.take(bytes) {
            Place::Memory(vec![0.0; rows * width], budget.clone())
        } else {
            let directory = &budget.directory;
            let wrong = Error::io(directory, "make a temporary file for activations");
            let file = tempfile::tempfile_in(directory).and_then(|file| {
                file.set_len(bytes as u64)?;
                Ok(file)
            });
            Place::File(file.map_err(wrong)?, directory.clone())
        };
        Ok(Self { width, rows, place })
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether they are in a file.
    pub(crate) fn spilled(&self) -> bool {
        matches!(self.place, Place::File(..))
    }

    /// Some rows.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read.
    pub(crate) fn get(&self, rows: Range<usize>) -> Result<Cow<'_, [f32]>> {
        let range = rows.start * self.width..rows.end * self.width;
        match &self.place {
            Place::Memory(values, _) => Ok(Cow::Borrowed(&values[range])),
            Place::File(file, directory) => {
                let mut bytes = vec![0u8; range.len() * size_of::<f32>()];
                let reading = Error::io(directory, "read activations");
                file.read_exact_at(&mut bytes, (range.start * size_of::<f32>()) as u64).map_err(reading)?;
                let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                Ok(Cow::Owned(values))
            }
        }
    }

    /// Replaces rows from `first` on.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub(crate) fn set(&mut self, first: usize, values: &[f32]) -> Result<()> {
        let start = first * self.width;
        match &mut self.place {
            Place::Memory(all, _) => {
                all[start..start + values.len()].copy_from_slice(values);
                Ok(())
            }
            Place::File(file, directory) => {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                let writing = Error::io(directory, "write activations");
                file.write_all_at(&bytes, (start * size_of::<f32>()) as u64).map_err(writing)
            }
        }
    }

    /// Replaces rows by what `f` makes of them, in place.
    ///
    /// # Errors
    /// As [`get`](Self::get) and [`set`](Self::set), and what `f` says.
    pub(crate) fn change(
        &mut self,
        rows: Range<usize>,
        f: impl FnOnce(&mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let range = rows.start * self.width..rows.end * self.width;
        if let Place::Memory(all, _) = &mut self.place {
            return f(&mut all[range]);
        }
        let mut values = self.get(rows.clone())?.into_owned();
        f(&mut values)?;
        self.set(rows.start, &values)
    }

    /// Another one with the same rows.
    ///
    /// # Errors
    /// As [`new`](Self::new), [`get`](Self::get) and [`set`](Self::set).
    pub(crate) fn copy(&self, budget: &Budget) -> Result<Self> {
        /// Rows that are copied at once.
        const PIECE: usize = 4096;
        let mut copy = Self::new(self.rows, self.width, budget)?;
        for first in (0..self.rows).step_by(PIECE) {
            copy.set(first, &self.get(first..(first + PIECE).min(self.rows))?)?;
        }
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_into_memory_goes_to_a_file_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let budget = Budget::new(Some(2 * 5 * 3 * 4), Some(folder.path()));
        let mut first = States::new(5, 3, &budget).unwrap();
        let second = States::new(5, 3, &budget).unwrap();
        let mut third = States::new(5, 3, &budget).unwrap();
        assert_eq!((first.spilled(), second.spilled(), third.spilled()), (false, false, true));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
        for states in [&mut first, &mut third] {
            states.set(2, &[1.0, -2.5, 3.0]).unwrap();
            states
                .change(2..4, |rows| {
                    rows.iter_mut().for_each(|v| *v += 0.5);
                    Ok(())
                })
                .unwrap();
            assert_eq!(*states.get(1..4).unwrap(), [0.0, 0.0, 0.0, 1.5, -2.0, 3.5, 0.5, 0.5, 0.5]);
        }
        drop(second);
        let copy = third.copy(&budget).unwrap();
        assert!(!copy.spilled(), "what was let go of can be taken again");
        assert_eq!(copy.get(0..5).unwrap(), third.get(0..5).unwrap());
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let budget = Budget::new(Some(0), Some(Path::new("/nowhere/at/all")));
        let error = States::new(1, 1, &budget).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all"), "{error}");
    }
}
