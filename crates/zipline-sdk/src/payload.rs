//! A payload that was got.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

/// Which way the bytes of a payload came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// This function's own queue-proxy held them.
    Own,
    /// A queue-proxy on this host passed its memory; nothing was copied.
    Host,
    /// They were retrieved over the network.
    Network,
    /// The queue-proxy's HTTP API gave them; it does not say which way they came.
    Api,
    /// A client without queue-proxy ([`crate::blocking::Client::local`]) held them in this process.
    Process,
}

/// The bytes of a payload, immutable. Clones share them.
///
/// They lie where the queue-proxy received them: the last clone that is dropped lets it use that memory again, so drop
/// payloads that are not needed any more.
#[derive(Clone)]
pub struct Payload {
    bytes: Bytes,
    content_type: Option<Arc<str>>,
    source: Source,
}

impl Payload {
    pub(crate) fn new(bytes: Bytes, content_type: Option<Arc<str>>, source: Source) -> Self {
        Self { bytes, content_type, source }
    }

    /// The content type it was put with.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// Which way it came.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// Its bytes, shared with this payload and without a copy.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Payload> for Bytes {
    fn from(payload: Payload) -> Self {
        payload.bytes
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("len", &self.bytes.len())
            .field("content_type", &self.content_type)
            .field("source", &self.source)
            .finish()
    }
}
