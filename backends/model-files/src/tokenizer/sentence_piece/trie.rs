//! Texts with numbers, found where they begin another text.

use std::collections::HashMap;

/// A tree of bytes.
pub(super) struct Trie {
    /// From a node, over a byte, to a node. The root is node 0.
    edges: HashMap<(u32, u8), u32>,
    /// What each node stands for, where a text ends there.
    values: Vec<Option<u32>>,
}

impl Trie {
    pub(super) fn new<'a>(texts: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let mut trie = Trie { edges: HashMap::new(), values: vec![None] };
        for (text, value) in texts {
            let mut node = 0;
            for &byte in text.as_bytes() {
                let next = trie.values.len() as u32;
                node = *trie.edges.entry((node, byte)).or_insert(next);
                if node == next {
                    trie.values.push(None);
                }
            }
            trie.values[node as usize] = Some(value);
        }
        trie
    }

    /// The texts that `text` begins with, shortest first: their lengths in bytes, and their numbers.
    pub(super) fn prefixes(&self, text: &[u8]) -> impl Iterator<Item = (usize, u32)> {
        let mut node = 0;
        let nodes = text.iter().map_while(move |&byte| {
            node = *self.edges.get(&(node, byte))?;
            Some(node)
        });
        (1..).zip(nodes).filter_map(|(length, node)| Some((length, self.values[node as usize]?)))
    }

    /// The longest of [`Trie::prefixes`].
    pub(super) fn longest(&self, text: &[u8]) -> Option<(usize, u32)> {
        self.prefixes(text).last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_come_shortest_first() {
        let trie = Trie::new([("a", 7), ("abc", 8), ("é", 9)].into_iter());
        assert_eq!(trie.prefixes(b"abcd").collect::<Vec<_>>(), [(1, 7), (3, 8)]);
        assert_eq!(trie.longest("éa".as_bytes()), Some((2, 9)));
        assert_eq!((trie.longest(b"b"), trie.longest(b"")), (None, None));
    }
}
