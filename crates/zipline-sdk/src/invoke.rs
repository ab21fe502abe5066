//! What an invoke is made of, for both kinds of clients.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request, Response};
use zipline_protocol::{FunctionName, header};

use crate::http::{Call, Http, Meant, Running, ours::in_header};
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

/// A request to a function.
///
/// # Errors
/// `request-invalid`: the body is a reference that no header can carry.
pub(crate) fn call(function: &FunctionName, request: Request<Body>) -> Result<Call> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    // "*", and what has a query alone.
    let slash = if path.starts_with('/') { "" } else { "/" };
    let target = format!("/v1/invoke/{function}{slash}{path}");
    let (body, call_site) = match body {
        Body::Bytes(bytes) => (bytes, None),
        Body::Payload(reference) => {
            parts.headers.insert(HeaderName::from_static(header::BODY), in_header(&reference)?);
            (Bytes::new(), reference.call_site())
        }
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

/// Starts an invoke.
pub(crate) fn start(http: Option<&Http>, call: Call, timeout: Duration) -> Result<Running> {
    let reached = http.ok_or_else(|| {
        let what = "a client without a queue-proxy reaches no function: run it in one, or by `zipline run -- COMMAND`";
        Error::new(ErrorCode::NotFound, what)
    })?;
    reached.start(call, timeout)
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
