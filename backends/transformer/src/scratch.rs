//! Temporary buffers that threads keep from one task to the next.

use std::cell::Cell;
use std::thread::LocalKey;

thread_local! {
    static BUFFER: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with a buffer of `len` values of any content. May be nested (a rayon thread that waits may take another task): the
/// inner call then gets a buffer of its own.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    with_kept(&BUFFER, len, f)
}

/// As [`with_scratch`], with a buffer of the caller's.
pub(crate) fn with_kept<R>(
    kept: &'static LocalKey<Cell<Vec<f32>>>,
    len: usize,
    f: impl FnOnce(&mut [f32]) -> R,
) -> R {
    let mut buffer = kept.take();
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    let result = f(&mut buffer[..len]);
    kept.set(buffer);
    result
}
