//! GGUF files, sound enough to be opened or broken on purpose.

/// A GGUF in the making: everything is little-endian and goes where the format puts it.
#[derive(Clone, Debug, Default)]
pub struct Gguf {
    pairs: Vec<u8>,
    pair_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    /// Bytes after the header.
    pub data: Vec<u8>,
    /// Written instead of the true number of tensors.
    pub claimed_tensors: Option<u64>,
    /// Written instead of the true number of metadata pairs.
    pub claimed_pairs: Option<u64>,
    /// Written instead of version 3.
    pub version: Option<u32>,
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

impl Gguf {
    /// Adds a metadata pair of type string.
    pub fn text(mut self, key: &str, value: &str) -> Self {
        self.pairs.extend(string(key));
        self.pairs.extend(8u32.to_le_bytes());
        self.pairs.extend(string(value));
        self.pair_count += 1;
        self
    }

    /// Adds a metadata pair of type `u32`.
    pub fn number(mut self, key: &str, value: u32) -> Self {
        self.pairs.extend(string(key));
        self.pairs.extend(4u32.to_le_bytes());
        self.pairs.extend(value.to_le_bytes());
        self.pair_count += 1;
        self
    }

    /// Adds a metadata pair of type array of strings that claims `claimed` elements and has none.
    pub fn empty_array(mut self, key: &str, claimed: u64) -> Self {
        self.pairs.extend(string(key));
        self.pairs.extend(9u32.to_le_bytes());
        self.pairs.extend(8u32.to_le_bytes());
        self.pairs.extend(claimed.to_le_bytes());
        self.pair_count += 1;
        self
    }

    /// Lists a tensor of type F32; its data are the caller's affair. Extents are given fastest first, as in the file.
    pub fn tensor(mut self, name: &str, extents: &[u64], offset: u64) -> Self {
        self.tensors.extend(string(name));
        self.tensors.extend((extents.len() as u32).to_le_bytes());
        for extent in extents {
            self.tensors.extend(extent.to_le_bytes());
        }
        self.tensors.extend(0u32.to_le_bytes());
        self.tensors.extend(offset.to_le_bytes());
        self.tensor_count += 1;
        self
    }

    /// Metadata of a small LLaMA, so that a reader gets as far as the tensors.
    pub fn llama() -> Self {
        Gguf::default()
            .text("general.architecture", "llama")
            .number("llama.block_count", 1)
            .number("llama.embedding_length", 64)
            .number("llama.feed_forward_length", 128)
            .number("llama.attention.head_count", 4)
            .number("llama.context_length", 128)
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.unwrap_or(3).to_le_bytes());
        bytes.extend(self.claimed_tensors.unwrap_or(self.tensor_count).to_le_bytes());
        bytes.extend(self.claimed_pairs.unwrap_or(self.pair_count).to_le_bytes());
        bytes.extend(&self.pairs);
        bytes.extend(&self.tensors);
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }
}
