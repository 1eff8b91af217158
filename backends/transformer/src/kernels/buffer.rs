//! The buffer in which a product unpacks weights, apart from those that hold its operands.

use std::cell::Cell;

use crate::scratch::with_kept;

thread_local! {
    static BUFFER: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with `len` values of any content, kept by the thread for the next time.
pub(super) fn with_buffer<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    with_kept(&BUFFER, len, f)
}
