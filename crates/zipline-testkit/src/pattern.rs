//! Seeded bytes that can be made at any offset, so that a payload of any size is checked without being kept.

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Bytes made at a time by everything that streams a pattern.
pub const CHUNK_BYTES: u64 = 64 * 1024;

/// `length` bytes of the pattern `seed`, from `offset` on.
#[must_use]
pub fn bytes(seed: u64, offset: u64, length: usize) -> Bytes {
    let skip = usize::try_from(offset % 8).expect("a remainder of 8 fits");
    let first = offset / 8;
    let words = (skip + length).div_ceil(8);
    let mut made = Vec::with_capacity(words * 8);
    for index in 0..words as u64 {
        made.extend_from_slice(&word(seed, first + index).to_le_bytes());
    }
    made.truncate(skip + length);
    Bytes::from(made).slice(skip..)
}

/// SHA-256 of the first `length` bytes of the pattern `seed`, in lower-case hexadecimal.
#[must_use]
pub fn sha256(seed: u64, length: u64) -> String {
    let mut digest = Sha256::new();
    let mut offset = 0;
    while offset < length {
        let step = CHUNK_BYTES.min(length - offset);
        digest.update(bytes(seed, offset, usize::try_from(step).expect("a chunk fits")));
        offset += step;
    }
    hex(&digest.finalize())
}

/// SHA-256 of `content`, in lower-case hexadecimal.
#[must_use]
pub fn sha256_of(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(content: &[u8]) -> String {
    content.iter().fold(String::with_capacity(content.len() * 2), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is a digit"));
        }
        text
    })
}

/// splitmix64: every word depends on the seed and its index alone.
fn word(seed: u64, index: u64) -> u64 {
    let mut z =
        seed.wrapping_mul(0xA24B_AED4_963E_E407).wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_equals_the_same_part_of_the_whole() {
        let whole = bytes(7, 0, 1000);
        for (offset, length) in [(0, 0), (1, 9), (8, 8), (13, 500), (999, 1)] {
            assert_eq!(bytes(7, offset as u64, length), whole.slice(offset..offset + length));
        }
        assert_eq!(sha256(7, 1000), sha256_of(&whole));
        assert_ne!(bytes(8, 0, 1000), whole);
    }
}
