//! A shared object that is no plugin at all.

/// Some symbol, so that the file is not empty.
#[allow(unsafe_code)]
// SAFETY: the name is its own; nothing else defines it.
#[unsafe(no_mangle)]
pub extern "C" fn a_library_of_another_kind() -> i32 {
    42
}
