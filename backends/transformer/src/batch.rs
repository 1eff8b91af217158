//! How sequences lie in one packed batch.

use std::ops::Range;

/// Keys that a segment's queries see, before their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySpan {
    /// Rows of the same batch: an ancestor in a tree of shared prefixes.
    Batch {
        /// First row.
        first_row: usize,
        /// Number of rows.
        len: usize,
    },
    /// The first `len` positions of a cache.
    Cached {
        /// Index into the caches given with the batch.
        cache: usize,
        /// Number of positions.
        len: usize,
    },
}

impl KeySpan {
    /// Number of keys.
    pub fn len(&self) -> usize {
        match *self {
            KeySpan::Batch { len, .. } | KeySpan::Cached { len, .. } => len,
        }
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Consecutive tokens whose queries see all keys of `reach` and, causally, each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// First row in the batch.
    pub first_row: usize,
    /// Number of rows.
    pub len: usize,
    /// Position of the first token in its sequence; the spans of `reach` hold exactly this many keys.
    pub position: usize,
    /// Earlier keys, in order of position.
    pub reach: Vec<KeySpan>,
}

/// Segments packed one after the other, without padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// All tokens, `[rows]`.
    pub tokens: Vec<u32>,
    /// The position of each row in its sequence.
    pub positions: Vec<u32>,
    /// The segments, in order of rows; together they cover all rows.
    pub segments: Vec<Segment>,
}

impl Batch {
    /// Appends a segment; returns its first row.
    pub fn push(&mut self, tokens: &[u32], reach: Vec<KeySpan>) -> usize {
        let first_row = self.tokens.len();
        let position = reach.iter().map(KeySpan::len).sum();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((position..position + tokens.len()).map(|p| p as u32));
        self.segments.push(Segment { first_row, len: tokens.len(), position, reach });
        first_row
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }
}

/// Keys and values of one layer, each `[positions, key and value width]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayerKeys {
    /// Keys, turned to their positions.
    pub keys: Vec<f32>,
    /// Values.
    pub values: Vec<f32>,
}

/// Keys and values of a sequence, for every layer.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyValueCache {
    /// One entry for each layer.
    pub layers: Vec<LayerKeys>,
    /// Number of positions held.
    pub len: usize,
}

impl KeyValueCache {
    /// An empty cache for a model of so many layers.
    pub fn new(layers: usize) -> Self {
        Self { layers: vec![LayerKeys::default(); layers], len: 0 }
    }
}
/// Batches whose rows stand one after another, with their rows.
pub(crate) fn rows_of(batches: &[Batch]) -> impl Iterator<Item = (Range<usize>, &Batch)> {
    batches.iter().scan(0, |first, batch| {
        let rows = *first..*first + batch.rows();
        *first = rows.end;
        Some((rows, batch))
    })
}
