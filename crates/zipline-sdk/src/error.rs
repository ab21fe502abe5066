//! The error of every operation.

use std::error::Error as StdError;
use std::fmt;
use std::panic::Location;

pub use zipline_protocol::ErrorCode;

/// Why an operation failed: a stable code, what happened and what to do about it, and where the payload was put, if that
/// was in this process.
pub struct Error(Box<Inner>);

struct Inner {
    code: ErrorCode,
    message: String,
    call_site: Option<&'static Location<'static>>,
    interrupted: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self(Box::new(Inner { code, message, call_site: None, interrupted: false, source: None }))
    }

    pub(crate) fn invalid(message: impl fmt::Display) -> Self {
        Self::new(ErrorCode::RequestInvalid, message)
    }

    /// The queue-proxy cannot be talked to.
    pub(crate) fn unreachable(message: impl fmt::Display, source: std::io::Error) -> Self {
        Self::new(ErrorCode::UpstreamFailed, message).caused_by(source)
    }

    pub(crate) fn interrupted(what: &str) -> Self {
        let mut error = Self::new(ErrorCode::DeadlineExceeded, format_args!("{what} was interrupted"));
        error.0.interrupted = true;
        error
    }

    /// The same error once more, without its source.
    pub(crate) fn again(&self) -> Self {
        let mut error = Self::new(self.0.code, &self.0.message).put_at(self.0.call_site);
        error.0.interrupted = self.0.interrupted;
        error
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Names the place that put the payload, unless one is named already.
    pub(crate) fn put_at(mut self, call_site: Option<&'static Location<'static>>) -> Self {
        self.0.call_site = self.0.call_site.or(call_site);
        self
    }

    /// The stable code, the same in every door of Zipline.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// What happened and what to do, without the call site.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where the payload was put, if it was put by this process and the reference was not made from text.
    #[must_use]
    pub fn call_site(&self) -> Option<&'static Location<'static>> {
        self.0.call_site
    }

    /// Whether the operation was given up because [`crate::Options::interrupted`] asked for it.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.0.interrupted
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match self.0.call_site {
            Some(site) => write!(f, "; put at {site}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.0.code)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// For streams: an error becomes the source of an I/O error.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

/// The result of every operation.
pub type Result<T> = std::result::Result<T, Error>;
