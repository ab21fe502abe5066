//! Identifiers: 128 random bits each, chosen by whoever is named in their docs.

use crate::text::{from_text, to_text};
use std::fmt;

/// A text is not an identifier of the expected length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier of {expected_bytes} bytes in base64url")]
pub struct IdError {
    /// Bytes the identifier has.
    pub expected_bytes: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Base64url text.
            pub fn to_text(&self) -> String {
                to_text(&self.0)
            }

            /// Reads base64url text.
            ///
            /// # Errors
            /// [`IdError`] if the text is not exactly this many bytes.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                from_text(text)
                    .and_then(|bytes| <[u8; $len]>::try_from(bytes).ok())
                    .map(Self)
                    .ok_or(IdError { expected_bytes: $len })
            }
        }

        // Eight hexadecimal digits tell identifiers apart in a log and are of no use to anyone else.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}(", stringify!($name))?;
                for byte in &self.0[..4] {
                    write!(f, "{byte:02x}")?;
                }
                write!(f, "..)")
            }
        }
    };
}

id!(
    /// Names a payload; chosen by its holder.
    PayloadId,
    16
);
id!(
    /// Names one life of a holder process; chosen at start.
    BootId,
    16
);
id!(
    /// Names one retrieval, through all its connections; chosen by the receiver.
    LeaseId,
    16
);
id!(
    /// Makes each proof unique; chosen by the side that asks.
    Nonce,
    16
);
id!(
    /// Names a key of a tenant: 4 bytes of the tenant's digest, 4 bytes of serial number.
    KeyId,
    8
);

impl KeyId {
    /// Puts the two halves together.
    pub fn new(tenant_digest: [u8; 4], serial: u32) -> Self {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&tenant_digest);
        bytes[4..].copy_from_slice(&serial.to_be_bytes());
        Self(bytes)
    }

    /// First half: the tenant's digest.
    pub fn tenant_digest(&self) -> [u8; 4] {
        let mut digest = [0; 4];
        digest.copy_from_slice(&self.0[..4]);
        digest
    }

    /// Second half: the key's serial number.
    pub fn serial(&self) -> u32 {
        let mut serial = [0; 4];
        serial.copy_from_slice(&self.0[4..]);
        u32::from_be_bytes(serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_and_refusal() {
        let id = PayloadId::from_bytes([7; 16]);
        assert_eq!(PayloadId::parse(&id.to_text()), Ok(id));
        assert!(PayloadId::parse("AAAA").is_err());
        assert_eq!(format!("{id:?}"), "PayloadId(07070707..)");
    }

    #[test]
    fn key_id_halves() {
        let id = KeyId::new([1, 2, 3, 4], 0x0a0b_0c0d);
        assert_eq!(id.tenant_digest(), [1, 2, 3, 4]);
        assert_eq!(id.serial(), 0x0a0b_0c0d);
        assert_eq!(id.as_bytes(), &[1, 2, 3, 4, 10, 11, 12, 13]);
    }
}
