//! The text of a reference.

use crate::limits::REFERENCE_MAX;
use std::fmt;

/// Content type of a message whose payload is deferred.
pub const REFERENCE_MEDIA_TYPE: &str = "application/vnd.zipline.reference";

const PREFIX: &str = "zl1.";

/// A reference as it travels: `zl1.` and base64url. Opaque to functions; opened by `zipline-seal`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ReferenceText(String);

/// A text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceTextError {
    /// Longer than any reference.
    #[error("{actual_bytes} bytes, a reference has at most {REFERENCE_MAX}")]
    TooLong {
        /// Length given.
        actual_bytes: usize,
    },
    /// Not `zl1.` and base64url.
    #[error("a reference starts with zl1. and goes on in base64url")]
    Malformed,
}

impl ReferenceText {
    /// Reads a reference; surrounding white space is not part of it and refused.
    ///
    /// # Errors
    /// [`ReferenceTextError`] if it is too long or malformed. Nothing is decrypted here.
    pub fn parse(text: &str) -> Result<Self, ReferenceTextError> {
        if text.len() > REFERENCE_MAX {
            return Err(ReferenceTextError::TooLong { actual_bytes: text.len() });
        }
        match text.strip_prefix(PREFIX) {
            Some(rest) if !rest.is_empty() && rest.bytes().all(is_base64url) => Ok(Self(text.to_owned())),
            _ => Err(ReferenceTextError::Malformed),
        }
    }

    /// Puts the sealed bytes into text.
    pub fn from_sealed(sealed: &[u8]) -> Self {
        Self(format!("{PREFIX}{}", crate::to_text(sealed)))
    }

    /// The sealed bytes, or `None` if the text is not canonical.
    pub fn sealed(&self) -> Option<Vec<u8>> {
        crate::from_text(&self.0[PREFIX.len()..])
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

// A reference is enough to read the payload, so it never reaches a log.
impl fmt::Debug for ReferenceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReferenceText(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_reference() {
        for text in ["", "zl1.", "zl2.AAAA", "zl1.AA+A", "zl1.AAAA\n", " zl1.AAAA"] {
            assert_eq!(ReferenceText::parse(text), Err(ReferenceTextError::Malformed), "{text:?}");
        }
        let long = format!("zl1.{}", "A".repeat(1021));
        assert_eq!(ReferenceText::parse(&long), Err(ReferenceTextError::TooLong { actual_bytes: 1025 }));
    }

    #[test]
    fn debug_is_redacted() {
        let text = ReferenceText::from_sealed(b"secret");
        assert_eq!(text.sealed().as_deref(), Some(&b"secret"[..]));
        assert!(!format!("{text:?}").contains(&text.as_str()[4..]));
    }
}
