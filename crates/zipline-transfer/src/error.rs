//! Why a retrieval failed.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use zipline_http::{BodyError, BodyErrorKind};
use zipline_protocol::ErrorCode;

/// The cause below a failure, shared so that errors can be handed to several places.
pub type Source = Arc<dyn Error + Send + Sync>;

/// A retrieval failed. The payload's bytes so far must not be taken for the whole.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind}")]
pub struct RetrieveError {
    kind: RetrieveErrorKind,
    received_bytes: u64,
    #[source]
    source: Option<Source>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RetrieveErrorKind {
    /// The keyring is empty, so nothing can be proven to the holder.
    #[error("no key to prove anything to the holder")]
    NoKey,
    /// None of the holder's addresses could be connected.
    #[error("cannot connect to the holder at {}", Addresses(.addresses))]
    Connect {
        /// What was tried.
        addresses: Vec<SocketAddr>,
    },
    /// Something answered without proof of the tenant's key, or refused ours.
    #[error("answer {status} without proof of the tenant's key")]
    Unauthenticated {
        /// Its HTTP status.
        status: u16,
    },
    /// The holder refused, with proof.
    #[error("the holder refused with {status} ({})", .code.as_str())]
    Refused {
        /// Its HTTP status.
        status: u16,
        /// What the status means.
        code: ErrorCode,
    },
    /// The holder was silent for too long.
    #[error("the holder was silent for {} s", .after.as_secs_f32())]
    Stalled {
        /// The limit.
        after: Duration,
    },
    /// The connection broke and could not be resumed.
    #[error("the connection to the holder broke {attempts} times in a row")]
    Broken {
        /// Connections tried since the last byte came.
        attempts: u32,
    },
    /// The holder's answer is not of its form, or has another number of bytes than it says.
    #[error("the holder's answer is malformed: {part}")]
    Malformed {
        /// Which part.
        part: &'static str,
    },
    /// The body ended without a valid final record.
    #[error("the payload ended without a valid final record")]
    FinalRecord,
    /// The bytes are not those that the digest was made of.
    #[error("the payload does not match its digest")]
    Digest,
    /// The retrieval's consumer gave it up.
    #[error("the retrieval was given up")]
    Cancelled,
}

struct Addresses<'a>(&'a [SocketAddr]);

impl std::fmt::Display for Addresses<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl RetrieveError {
    pub(crate) fn new(kind: RetrieveErrorKind) -> Self {
        Self { kind, received_bytes: 0, source: None }
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    pub(crate) fn with_shared_source(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    pub(crate) fn has_source(&self) -> bool {
        self.source.is_some()
    }

    pub(crate) fn with_received(mut self, bytes: u64) -> Self {
        self.received_bytes = bytes;
        self
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> &RetrieveErrorKind {
        &self.kind
    }

    /// Bytes of the payload that had arrived.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Whether not one byte had arrived. Before a function has started the request can then be sent inline in place of
    /// failing.
    #[must_use]
    pub fn before_first_byte(&self) -> bool {
        self.received_bytes == 0
    }

    /// Whether the holder had too much to send, and may be asked again.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.kind, RetrieveErrorKind::Refused { status: 429, .. })
    }

    /// Whether the holder may have granted a lease although the request for it failed so.
    pub(crate) fn may_hold_a_lease(&self) -> bool {
        !matches!(
            self.kind,
            RetrieveErrorKind::NoKey
                | RetrieveErrorKind::Connect { .. }
                | RetrieveErrorKind::Refused { .. }
                | RetrieveErrorKind::Unauthenticated { status: 400 | 403 }
        )
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match &self.kind {
            RetrieveErrorKind::Refused { code, .. } => *code,
            RetrieveErrorKind::NoKey => ErrorCode::ReferenceInvalid,
            RetrieveErrorKind::Unauthenticated { status: 400 } => ErrorCode::ReferenceInvalid,
            RetrieveErrorKind::Unauthenticated { status: 403 } => ErrorCode::ReferenceForbidden,
            RetrieveErrorKind::Unauthenticated { .. }
            | RetrieveErrorKind::Connect { .. }
            | RetrieveErrorKind::Stalled { .. }
            | RetrieveErrorKind::Broken { .. }
            | RetrieveErrorKind::Malformed { .. }
            | RetrieveErrorKind::FinalRecord
            | RetrieveErrorKind::Digest
            | RetrieveErrorKind::Cancelled => ErrorCode::PayloadLost,
        }
    }
}

/// A body that breaks off because its payload did not arrive; the error stays its source.
impl From<RetrieveError> for BodyError {
    fn from(error: RetrieveError) -> Self {
        Self::new(BodyErrorKind::PayloadLost, error)
    }
}

impl From<RetrieveErrorKind> for RetrieveError {
    fn from(kind: RetrieveErrorKind) -> Self {
        Self::new(kind)
    }
}

/// What a status of the data port means (`docs/protocol.md` section 6.2).
pub(crate) fn code_of_status(status: u16) -> ErrorCode {
    match status {
        400 => ErrorCode::ReferenceInvalid,
        403 => ErrorCode::ReferenceForbidden,
        409 => ErrorCode::RetrievalsExhausted,
        410 => ErrorCode::ReferenceExpired,
        416 => ErrorCode::RangeInvalid,
        429 => ErrorCode::BufferFull,
        503 => ErrorCode::Draining,
        507 => ErrorCode::BufferFull,
        _ => ErrorCode::PayloadLost,
    }
}
