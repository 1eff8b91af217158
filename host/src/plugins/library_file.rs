//! A first look at a file, without running any of its code.

use std::io::Read;
use std::path::Path;

use llmcb_plugin_api::abi::header::HEADER_SYMBOL;

use sha2::{Digest, Sha256};

use crate::assets::hex;

/// What shared objects begin with.
const ELF: &[u8] = b"\x7fELF";

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

/// Bytes that are looked at at once.
const PIECE: usize = 1 << 20;

/// Reads a file, piece by piece, and says what it is.
///
/// # Errors
/// The operating system's, when the file cannot be read.
pub fn look(path: &Path) -> std::io::Result<Look> {
    look_at(std::fs::File::open(path)?, PIECE)
}

fn look_at(mut file: impl Read, piece: usize) -> std::io::Result<Look> {
    let needle = HEADER_SYMBOL.as_bytes();
    let mut hasher = Sha256::new();
    let (mut begins, mut claims) = (Vec::new(), false);
    // The end of what was looked at before, in which a name may have begun.
    let mut held: Vec<u8> = Vec::new();
    loop {
        let kept = held.len();
        let read = file.by_ref().take(piece as u64).read_to_end(&mut held)?;
        if read == 0 {
            break;
        }
        hasher.update(&held[kept..]);
        if begins.len() < ELF.len() {
            begins.extend(held[kept..].iter().take(ELF.len() - begins.len()));
            if !ELF.starts_with(&begins) {
                return Ok(Look::NotElf);
            }
        }
        claims = claims || contains(&held, needle);
        held.drain(..held.len().saturating_sub(needle.len() - 1));
    }
    Ok(match (begins == ELF, claims) {
        (false, _) => Look::NotElf,
        (true, false) => Look::Foreign,
        (true, true) => Look::Claims { sha256: hex(&hasher.finalize()) },
    })
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
        for piece in [1, 3, 7, 1000] {
            let look_at = |bytes: &[u8]| look_at(bytes, piece).unwrap();
            assert_eq!(look_at(b""), Look::NotElf);
            assert_eq!(look_at(b"\x7fEL"), Look::NotElf);
            assert_eq!(look_at(b"llmcb_plugin_header"), Look::NotElf);
            assert_eq!(look_at(b"\x7fELF nothing of ours"), Look::Foreign);
            let plugin = b"\x7fELF..llmcb_plugin_header\0";
            assert_eq!(look_at(plugin), Look::Claims { sha256: crate::assets::sha256_hex(plugin) });
        }
    }
}
