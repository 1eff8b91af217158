//! `precompiled_charsmap`: rules that replace characters, in a double-array trie (Aoe 1989, doi:10.1109/32.31365).
//!
//! The file has the trie's size in bytes, the trie as units of 32 bits, and the replacements, each ended by a zero
//! byte.

/// Rules of replacement.
pub(super) struct Charsmap {
    units: Vec<u32>,
    replacements: String,
}

impl Charsmap {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let size = bytes.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize);
        let body = bytes.get(4..).unwrap_or_default();
        let parts = size.filter(|size| size % 4 == 0).and_then(|size| body.split_at_checked(size));
        let Some((trie, replacements)) = parts else {
            return Err(format!("`precompiled_charsmap` of {} bytes is too short for its trie", bytes.len()));
        };
        let replacements = std::str::from_utf8(replacements)
            .map_err(|e| format!("`precompiled_charsmap` has replacements that are no UTF-8: {e}"))?;
        let unit = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Ok(Charsmap {
            units: trie.chunks_exact(4).map(unit).collect(),
            replacements: replacements.to_owned(),
        })
    }

    /// The longest beginning of `text` that a rule replaces: its length in bytes, and what stands for it.
    pub(super) fn longest(&self, text: &str) -> Option<(usize, &str)> {
        let mut found = None;
        let mut node = child(0, *self.units.first()?);
        for (index, &byte) in text.as_bytes().iter().enumerate() {
            let at = node ^ usize::from(byte);
            // Units with the highest bit are values, no edges.
            let Some(&unit) = self.units.get(at).filter(|unit| **unit & (1 << 31 | 0xff) == u32::from(byte))
            else {
                break;
            };
            node = child(at, unit);
            if unit & (1 << 8) != 0 {
                found =
                    self.units.get(node).map(|value| (index + 1, (value & !(1 << 31)) as usize)).or(found);
            }
        }
        let (length, start) = found?;
        // A rule of a broken file that points nowhere replaces nothing.
        let replacement = self.replacements.get(start..)?.split('\0').next()?;
        text.is_char_boundary(length).then_some((length, replacement))
    }
}

/// Where the edges that leave a unit begin.
fn child(at: usize, unit: u32) -> usize {
    let scale = if unit & (1 << 9) != 0 { 8 } else { 0 };
    at ^ ((unit as usize >> 10) << scale)
}
