//! Integer codes in 32-bit words: codes follow one another without gaps, the first in the lowest bits of the first word.
//!
//! For 2, 4 and 8 bits a code never crosses a word; for 3 bits 32 codes fill three words, and codes 10 and 21 lie across
//! two. GPTQ's kernels and compressed-tensors' `pack_to_int32` share this layout.

/// Words that `len` codes of `bits` bits take.
pub fn packed_words(len: usize, bits: u32) -> usize {
    // len * bits would overflow for lengths near the address space's end.
    let bits = bits as usize;
    len / 32 * bits + (len % 32 * bits).div_ceil(32)
}

/// Packs codes into words; unused bits of the last word are zero. Bits of a code beyond `bits` must be zero.
pub fn pack(codes: impl IntoIterator<Item = u8>, bits: u32, mut emit: impl FnMut(u32)) {
    let (mut held, mut filled) = (0u64, 0u32);
    for code in codes {
        held |= u64::from(code) << filled;
        filled += bits;
        if filled >= 32 {
            emit(held as u32);
            held >>= 32;
            filled -= 32;
        }
    }
    if filled > 0 {
        emit(held as u32);
    }
}

/// Unpacks `len` codes of `bits` bits (1 to 8); words that are missing count as zero.
pub fn unpack(words: impl IntoIterator<Item = u32>, bits: u32, len: usize, mut emit: impl FnMut(u8)) {
    let mut words = words.into_iter();
    let mask = (1u64 << bits) - 1;
    let (mut held, mut filled) = (0u64, 0u32);
    for _ in 0..len {
        if filled < bits {
            held |= u64::from(words.next().unwrap_or(0)) << filled;
            filled += 32;
        }
        emit((held & mask) as u8);
        held >>= bits;
        filled -= bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn codes_come_back(bits in 1u32..=8, codes in prop::collection::vec(any::<u8>(), 0..200)) {
            let codes: Vec<u8> = codes.iter().map(|c| c & (u8::MAX >> (8 - bits))).collect();
            let mut words = Vec::new();
            pack(codes.iter().copied(), bits, |w| words.push(w));
            prop_assert_eq!(words.len(), packed_words(codes.len(), bits));
            let mut back = Vec::new();
            unpack(words, bits, codes.len(), |c| back.push(c));
            prop_assert_eq!(back, codes);
        }
    }

    #[test]
    fn the_first_code_is_lowest() {
        let mut words = Vec::new();
        pack([1, 2, 3, 4, 5, 6, 7, 8, 9], 4, |w| words.push(w));
        assert_eq!(words, [0x8765_4321, 9]);
    }
}
