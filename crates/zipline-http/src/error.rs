//! Why a body did not end.

use std::error::Error as StdError;
use std::fmt;
use zipline_protocol::ErrorCode;

/// Kinds of [`BodyError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyErrorKind {
    /// The peer, or whoever produced the body, broke off before its end.
    Aborted,
    /// More bytes than the reader takes.
    TooLarge,
    /// A file or socket failed.
    Io,
    /// The upstream the body comes from failed.
    Upstream,
    /// No progress within the time allowed.
    Timeout,
    /// The payload behind the body is lost.
    PayloadLost,
}

impl BodyErrorKind {
    const fn describe(self) -> &'static str {
        match self {
            Self::Aborted => "body broke off",
            Self::TooLarge => "body is too large",
            Self::Io => "body could not be read",
            Self::Upstream => "upstream of the body failed",
            Self::Timeout => "body made no progress in time",
            Self::PayloadLost => "payload of the body is lost",
        }
    }
}

/// A body broke off; it has no end. Sending a body that yields this aborts the message on the wire.
#[derive(Debug)]
pub struct BodyError {
    kind: BodyErrorKind,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl BodyError {
    /// An error of `kind` caused by `source`.
    pub fn new(kind: BodyErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, source: Some(source.into()) }
    }

    /// A producer gave up; `why` is for people.
    pub fn aborted(why: impl Into<String>) -> Self {
        Self::new(BodyErrorKind::Aborted, why.into())
    }

    /// A time limit passed; `why` is for people.
    pub fn timeout(why: impl Into<String>) -> Self {
        Self::new(BodyErrorKind::Timeout, why.into())
    }

    /// The kind.
    pub const fn kind(&self) -> BodyErrorKind {
        self.kind
    }

    /// Whether the peer or the producer broke off.
    pub const fn is_aborted(&self) -> bool {
        matches!(self.kind, BodyErrorKind::Aborted)
    }

    /// The stable code.
    pub const fn code(&self) -> ErrorCode {
        match self.kind {
            BodyErrorKind::TooLarge => ErrorCode::PayloadTooLarge,
            BodyErrorKind::Timeout => ErrorCode::DeadlineExceeded,
            BodyErrorKind::PayloadLost => ErrorCode::PayloadLost,
            BodyErrorKind::Aborted | BodyErrorKind::Io | BodyErrorKind::Upstream => ErrorCode::UpstreamFailed,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.describe())
    }
}

impl StdError for BodyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// The whole chain of an error as one line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let line = cause.to_string();
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        next = cause.source();
    }
    text
}

/// The chain is flattened to text: hyper looks for an HTTP/2 reason in the chain of a body error that it sends, and a
/// relayed `NO_ERROR` or `CANCEL` passes for a clean end with some receivers.
impl From<hyper::Error> for BodyError {
    fn from(error: hyper::Error) -> Self {
        Self::new(BodyErrorKind::Aborted, chain(&error))
    }
}

impl From<std::io::Error> for BodyError {
    fn from(error: std::io::Error) -> Self {
        Self::new(BodyErrorKind::Io, error)
    }
}

impl From<std::convert::Infallible> for BodyError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
