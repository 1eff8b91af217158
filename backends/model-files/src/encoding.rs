//! How the numbers of a tensor are stored.

use std::fmt;

/// How the numbers of a tensor are stored in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// IEEE 754 single precision, little endian, 4 bytes each.
    F32,
    /// IEEE 754 half precision, little endian, 2 bytes each.
    F16,
    /// bfloat16, little endian, 2 bytes each.
    BF16,
    /// Blocks of one of ggml's quantised types.
    Ggml(GgmlType),
    /// Unsigned bytes: bits that say where numbers are.
    U8,
    /// Signed bytes: codes of integer weights.
    I8,
    /// 32-bit integers, little endian: packed codes and indices of integer weights.
    I32,
    /// 64-bit integers, little endian: extents of integer weights.
    I64,
}

impl Encoding {
    /// The name that files and people use: `F32`, `BF16`, `Q4_1`, `Q6_K`.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::F32 => "F32",
            Encoding::F16 => "F16",
            Encoding::BF16 => "BF16",
            Encoding::Ggml(kind) => kind.name(),
            Encoding::U8 => "U8",
            Encoding::I8 => "I8",
            Encoding::I32 => "I32",
            Encoding::I64 => "I64",
        }
    }

    /// Bytes that `elements` numbers take, or `None` when they do not fill whole blocks or the product overflows.
    pub fn byte_len(self, elements: usize) -> Option<usize> {
        match self {
            Encoding::U8 | Encoding::I8 => Some(elements),
            Encoding::F32 | Encoding::I32 => elements.checked_mul(4),
            Encoding::I64 => elements.checked_mul(8),
            Encoding::F16 | Encoding::BF16 => elements.checked_mul(2),
            Encoding::Ggml(kind) => {
                let whole = elements.is_multiple_of(kind.block_size());
                whole.then(|| (elements / kind.block_size()).checked_mul(kind.type_size())).flatten()
            }
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// ggml's quantised types, each a sequence of blocks along a tensor's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum GgmlType {
    /// 4 bits, one scale per 32.
    Q4_0,
    /// 4 bits, scale and minimum per 32.
    Q4_1,
    /// 5 bits, one scale per 32.
    Q5_0,
    /// 5 bits, scale and minimum per 32.
    Q5_1,
    /// 8 bits, one scale per 32.
    Q8_0,
    /// 8 bits, scale and sum per 32.
    Q8_1,
    /// 2 bits in super-blocks of 256.
    Q2K,
    /// 3 bits in super-blocks of 256.
    Q3K,
    /// 4 bits in super-blocks of 256.
    Q4K,
    /// 5 bits in super-blocks of 256.
    Q5K,
    /// 6 bits in super-blocks of 256.
    Q6K,
    /// 8 bits in super-blocks of 256.
    Q8K,
}

impl GgmlType {
    /// Every quantised type.
    pub const ALL: [GgmlType; 12] = [
        GgmlType::Q4_0,
        GgmlType::Q4_1,
        GgmlType::Q5_0,
        GgmlType::Q5_1,
        GgmlType::Q8_0,
        GgmlType::Q8_1,
        GgmlType::Q2K,
        GgmlType::Q3K,
        GgmlType::Q4K,
        GgmlType::Q5K,
        GgmlType::Q6K,
        GgmlType::Q8K,
    ];

    /// Numbers in one block.
    pub fn block_size(self) -> usize {
        match self {
            GgmlType::Q4_0
            | GgmlType::Q4_1
            | GgmlType::Q5_0
            | GgmlType::Q5_1
            | GgmlType::Q8_0
            | GgmlType::Q8_1 => 32,
            GgmlType::Q2K | GgmlType::Q3K | GgmlType::Q4K | GgmlType::Q5K | GgmlType::Q6K | GgmlType::Q8K => {
                256
            }
        }
    }

    /// Bytes of one block.
    pub fn type_size(self) -> usize {
        match self {
            GgmlType::Q4_0 => 18,
            GgmlType::Q4_1 => 20,
            GgmlType::Q5_0 => 22,
            GgmlType::Q5_1 => 24,
            GgmlType::Q8_0 => 34,
            GgmlType::Q8_1 => 36,
            GgmlType::Q2K => 84,
            GgmlType::Q3K => 110,
            GgmlType::Q4K => 144,
            GgmlType::Q5K => 176,
            GgmlType::Q6K => 210,
            GgmlType::Q8K => 292,
        }
    }

    /// ggml's own name: `Q4_1`, `Q6_K`.
    pub fn name(self) -> &'static str {
        match self {
            GgmlType::Q4_0 => "Q4_0",
            GgmlType::Q4_1 => "Q4_1",
            GgmlType::Q5_0 => "Q5_0",
            GgmlType::Q5_1 => "Q5_1",
            GgmlType::Q8_0 => "Q8_0",
            GgmlType::Q8_1 => "Q8_1",
            GgmlType::Q2K => "Q2_K",
            GgmlType::Q3K => "Q3_K",
            GgmlType::Q4K => "Q4_K",
            GgmlType::Q5K => "Q5_K",
            GgmlType::Q6K => "Q6_K",
            GgmlType::Q8K => "Q8_K",
        }
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
