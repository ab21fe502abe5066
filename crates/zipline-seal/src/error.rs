//! What can go wrong, one enum per operation.

use zipline_protocol::{ErrorCode, RecordError, ReferenceKind};

/// Why a keyring was refused. The ring in use stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// More keys than a ring may have.
    #[error("{count} keys, at most {max} are allowed")]
    TooManyKeys {
        /// How many were given.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// Two keys with one serial.
    #[error("serial {serial} is given twice")]
    DuplicateSerial {
        /// The serial.
        serial: u32,
    },
    /// The key named for sealing is not in the ring.
    #[error("serial {serial} is named for sealing but is not among the keys")]
    SealingKeyMissing {
        /// The serial.
        serial: u32,
    },
    /// A secret is not 32 bytes in base64url.
    #[error("the secret of serial {serial} is not 32 bytes in base64url")]
    Secret {
        /// The serial.
        serial: u32,
    },
    /// A key that is in use was given with another secret: references under it would stop opening.
    #[error("serial {serial} is in use with another secret")]
    SecretChanged {
        /// The serial.
        serial: u32,
    },
}

/// Why nothing could be sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// No key is named for sealing, or the ring is empty. Payloads go inline.
    #[error("no key for sealing")]
    NoKey,
    /// The record names another tenant than the ring's.
    #[error("the record names another tenant")]
    OtherTenant,
    /// A field of the record is out of bounds.
    #[error("the record cannot be encoded")]
    Record(#[source] RecordError),
    /// The reference would be longer than the wire allows.
    #[error("the reference would have {length} bytes, at most {max} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        max: usize,
    },
}

impl SealError {
    /// The stable code. All of them mean to the sender: send inline.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoKey | Self::OtherTenant | Self::Record(_) | Self::TooLong { .. } => {
                ErrorCode::ResendInline
            }
        }
    }
}

/// Why a sealed text was refused. Says nothing of its contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Not a sealed text at all: prefix, length or alphabet.
    #[error("malformed")]
    Malformed,
    /// Sealed by another tenant.
    #[error("sealed by another tenant")]
    OtherTenant,
    /// Sealed with a key of ours that is not in the ring (any more, or yet).
    #[error("key {serial} is not in the keyring")]
    UnknownKey {
        /// The key's serial.
        serial: u32,
    },
    /// It was changed, or made with another key.
    #[error("does not authenticate")]
    Unauthentic,
    /// Authentic, but its record is not one of version 1.
    #[error("the sealed record is malformed")]
    Record,
    /// Authentic, but not of the kind that is taken here.
    #[error("of another kind than is taken here")]
    WrongKind {
        /// What is taken here.
        expected: ReferenceKind,
        /// What it is.
        found: ReferenceKind,
    },
}

impl OpenError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::OtherTenant => ErrorCode::ReferenceForbidden,
            Self::Malformed
            | Self::UnknownKey { .. }
            | Self::Unauthentic
            | Self::Record
            | Self::WrongKind { .. } => ErrorCode::ReferenceInvalid,
        }
    }
}

/// Why a request to the data port is not proven.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The header cannot be read.
    #[error("malformed proof")]
    Malformed,
    /// Made with a key of another tenant.
    #[error("proof of another tenant")]
    OtherTenant,
    /// Made with a key that is not in the ring.
    #[error("key {serial} is not in the keyring")]
    UnknownKey {
        /// The key's serial.
        serial: u32,
    },
    /// The MAC is wrong.
    #[error("wrong proof")]
    Wrong,
}

impl VerifyError {
    /// The stable code: `reference-invalid` (400) if malformed, else `reference-forbidden` (403).
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Malformed => ErrorCode::ReferenceInvalid,
            Self::OtherTenant | Self::UnknownKey { .. } | Self::Wrong => ErrorCode::ReferenceForbidden,
        }
    }
}
