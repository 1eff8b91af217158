//! `precompiled_charsmap`: rules that replace characters, in a double-array trie (Aoe 1989, doi:10.1109/32.31365).
//!
//! The file has the trie's size in bytes, the trie as units of 32 bits, and the replacements, each ended by a zero
//! byte. The library that applies the rules trusts them, so everything it could reach is looked at first.

use serde_json::Value;
use tokenizers::normalizers::Precompiled;

/// The step of normalisation that applies the rules.
pub(super) fn step(charsmap: &[u8]) -> Result<Value, String> {
    check(charsmap).map_err(|problem| format!("`precompiled_charsmap` {problem}"))?;
    let built =
        Precompiled::from(charsmap).map_err(|e| format!("`precompiled_charsmap` cannot be used: {e}"))?;
    serde_json::to_value(&built).map_err(|e| format!("`precompiled_charsmap` cannot be written: {e}"))
}

/// Walks through the trie as a search for any key would.
fn check(charsmap: &[u8]) -> Result<(), String> {
    let size = charsmap.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize);
    let body = charsmap.get(4..).unwrap_or_default();
    let Some((trie, replacements)) =
        size.filter(|size| size % 4 == 0).and_then(|size| body.split_at_checked(size))
    else {
        return Err(format!("is {} bytes long, too short for its trie", charsmap.len()));
    };
    let replacements =
        std::str::from_utf8(replacements).map_err(|e| format!("has replacements that are no UTF-8: {e}"))?;
    let units: Vec<u64> = trie
        .chunks_exact(4)
        .map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]).into())
        .collect();
    let offset = |unit: u64| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
    let beyond = || "has a trie that leads out of itself".to_owned();
    let Some(&root) = units.first() else {
        return Err("has an empty trie".to_owned());
    };
    let mut seen = vec![false; units.len()];
    let mut to_visit = vec![offset(root)];
    while let Some(node) = to_visit.pop() {
        // A node is where its children lie, each at a distance that is its byte.
        match seen.get_mut(node) {
            Some(seen) if *seen => continue,
            Some(seen) => *seen = true,
            None => return Err(beyond()),
        }
        for byte in 1..=255usize {
            let at = node ^ byte;
            let Some(&unit) = units.get(at) else { return Err(beyond()) };
            if (unit & ((1 << 31) | 0xff)) as usize != byte {
                continue;
            }
            let child = at ^ offset(unit);
            if unit & (1 << 8) != 0 {
                let Some(leaf) = units.get(child) else { return Err(beyond()) };
                let start = (leaf & ((1 << 31) - 1)) as usize;
                if !replacements.is_char_boundary(start) {
                    return Err(format!("points to a replacement at byte {start} of {}", replacements.len()));
                }
            }
            to_visit.push(child);
        }
    }
    Ok(())
}
