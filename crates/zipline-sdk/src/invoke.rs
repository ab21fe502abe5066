//! What an invoke is made of, for both kinds of clients.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Response};
use zipline_protocol::{FunctionName, header};

use crate::http::{Call, Http, Meant, Sending, ours::in_header};
use crate::{Error, ErrorCode, Payload, Reference, Result};

/// Invokes of one [`map`](crate::blocking::Client::map) at the same time, unless it was told otherwise, and at most.
pub(crate) const CONCURRENCY: usize = 8;
pub(crate) const CONCURRENCY_MAX: usize = 256;

/// The body of a request to a function.
#[derive(Clone, Debug)]
pub enum Body {
    /// These bytes.
    Bytes(Bytes),
    /// A payload that was put, with its content type unless the request has another. The queue-proxy sends it from wherever it is held,
    /// which counts as one of its retrievals; it does not pass through this process.
    Payload(Reference),
}

impl Default for Body {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

macro_rules! bodies {
    ($($of:ty),+) => { $(
        impl From<$of> for Body {
            fn from(bytes: $of) -> Self {
                Self::Bytes(bytes.into())
            }
        }
    )+ };
}

bodies!(Bytes, Vec<u8>, String, &'static [u8], &'static str, Payload);

impl<const N: usize> From<&'static [u8; N]> for Body {
    fn from(bytes: &'static [u8; N]) -> Self {
        Self::Bytes(Bytes::from_static(bytes))
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl From<Reference> for Body {
    fn from(reference: Reference) -> Self {
        Self::Payload(reference)
    }
}

impl From<&Reference> for Body {
    fn from(reference: &Reference) -> Self {
        Self::Payload(reference.clone())
    }
}

/// What is sent as a body.
#[derive(Debug)]
pub(crate) enum Content {
    Whole(Body),
    /// Pieces, of so many bytes if that is known.
    Pieces(Option<u64>),
}

/// A request to a function.
///
/// # Errors
/// `request-invalid`: the body is a reference that no header can carry.
pub(crate) fn call(function: &FunctionName, mut parts: Parts, content: Content) -> Result<Call> {
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    // "*", and what has a query alone.
    let slash = if path.starts_with('/') { "" } else { "/" };
    let target = format!("/v1/invoke/{function}{slash}{path}");
    let (body, call_site) = match content {
        Content::Whole(Body::Bytes(bytes)) => (Sending::Whole(bytes), None),
        Content::Whole(Body::Payload(reference)) => {
            parts.headers.insert(HeaderName::from_static(header::BODY), in_header(&reference)?);
            (Sending::Whole(Bytes::new()), reference.call_site())
        }
        Content::Pieces(length) => (pieces(length), None),
    };
    let what = format!("the invoke of {function}");
    Ok(Call {
        what,
        method: parts.method,
        target,
        headers: parts.headers,
        body,
        meant: Meant::Function,
        call_site,
    })
}

/// The function of this name, in `namespace` if it names none.
pub(crate) fn function(name: &str, namespace: &str) -> Result<FunctionName> {
    let (service, namespace) = name.split_once('.').unwrap_or((name, namespace));
    FunctionName::new(service, namespace).map_err(Error::invalid)
}

/// How pieces are sent, of so many bytes if that is known.
pub(crate) fn pieces(length: Option<u64>) -> Sending {
    length.map_or(Sending::Chunked, Sending::Sized)
}

/// The way to functions.
///
/// # Errors
/// `not-found`: there is none.
pub(crate) fn reached(http: Option<&Http>) -> Result<&Http> {
    http.ok_or_else(|| {
        let what = "a client without a queue-proxy reaches no function: run it in one, or by `zipline run -- COMMAND`";
        Error::new(ErrorCode::NotFound, what)
    })
}

/// An invoke that was started, or what became of it.
#[derive(Debug)]
pub(crate) enum Progress<R> {
    Runs(R),
    Ended(Result<Response<Bytes>>),
    /// It was taken.
    Taken,
}

impl<R> Progress<R> {
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::Runs(_))
    }

    /// What became of it, once.
    pub(crate) fn take(&mut self) -> Option<Result<Response<Bytes>>> {
        match std::mem::replace(self, Self::Taken) {
            Self::Ended(ended) => Some(ended),
            other => {
                *self = other;
                None
            }
        }
    }
}
