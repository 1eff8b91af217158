//! A first look at a file, without running any of its code.

use std::path::Path;

use llmcb_plugin_api::abi::header::HEADER_SYMBOL;

use crate::assets::sha256_hex;

/// What the bytes of a file say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Not an ELF shared object at all.
    NotElf,
    /// A shared object that never mentions the plugin header.
    Foreign,
    /// A shared object that names the plugin header: it claims to be a plugin.
    Claims {
        /// SHA-256 of the file.
        sha256: String,
    },
}

/// Reads a file and says what it is.
///
/// # Errors
/// The operating system's, when the file cannot be read.
pub fn look(path: &Path) -> std::io::Result<Look> {
    let bytes = std::fs::read(path)?;
    Ok(look_at(&bytes))
}

fn look_at(bytes: &[u8]) -> Look {
    if !bytes.starts_with(b"\x7fELF") {
        return Look::NotElf;
    }
    if !contains(bytes, HEADER_SYMBOL.as_bytes()) {
        return Look::Foreign;
    }
    Look::Claims { sha256: sha256_hex(bytes) }
}

/// Whether `needle` occurs in `haystack`. Looks for the last byte's candidates in steps of the needle's length
/// (Horspool), because libraries with debug information are tens of megabytes.
fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let (Some(last), n) = (needle.last(), needle.len()) else {
        return true;
    };
    let mut step = [n; 256];
    for (i, byte) in needle[..n - 1].iter().enumerate() {
        step[usize::from(*byte)] = n - 1 - i;
    }
    let mut end = n - 1;
    while let Some(byte) = haystack.get(end) {
        if byte == last && &haystack[end + 1 - n..=end] == needle {
            return true;
        }
        end += step[usize::from(*byte)];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_what_a_naive_search_finds(haystack in "[abl]{0,60}", needle in "[abl]{1,5}") {
            prop_assert_eq!(contains(haystack.as_bytes(), needle.as_bytes()), haystack.contains(&needle));
        }
    }

    #[test]
    fn only_shared_objects_that_name_the_header_claim_to_be_plugins() {
        assert_eq!(look_at(b""), Look::NotElf);
        assert_eq!(look_at(b"llmcb_plugin_header"), Look::NotElf);
        assert_eq!(look_at(b"\x7fELF nothing of ours"), Look::Foreign);
        assert!(matches!(look_at(b"\x7fELF..llmcb_plugin_header\0"), Look::Claims { .. }));
    }
}
