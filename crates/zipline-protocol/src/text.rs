//! Base64url without padding, the only text form of bytes on the wire.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Encodes bytes as base64url without padding.
pub fn to_text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes base64url without padding. `None` for anything that is not the one canonical encoding, so that a flipped bit
/// can never hide in the bits that fill up the last character.
pub fn from_text(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_that_fill_the_last_character_must_be_zero() {
        assert_eq!(from_text("AA"), Some(vec![0]));
        assert_eq!(from_text("AB"), None);
        assert_eq!(from_text("AA=="), None);
    }
}
