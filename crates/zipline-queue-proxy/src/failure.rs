//! A failure on its way to whoever asked.

use http::{HeaderMap, Response};
use zipline_http::{Body, SendError, problem_response};
use zipline_protocol::ErrorCode;

/// What went wrong, for whom, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The stable code.
    pub(crate) code: ErrorCode,
    /// The HTTP status it is sent with.
    pub(crate) status: u16,
    /// One or two sentences for people.
    pub(crate) detail: String,
}

impl Failure {
    /// The function itself asked for something wrong, or its queue-proxy cannot do it.
    pub(crate) fn local(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, status: code.local_status(), detail: detail.into() }
    }

    /// An invocation failed: only statuses that no ingress retries.
    pub(crate) fn caller(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, status: code.caller_status(), detail: detail.into() }
    }

    /// Somebody could not be reached or broke off.
    pub(crate) fn upstream(what: &str, error: &SendError) -> Self {
        let mut detail = format!("{what}: {error}");
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            detail.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self::caller(ErrorCode::UpstreamFailed, detail)
    }

    /// The answer to a request of these headers: a problem document, or a gRPC status.
    pub(crate) fn into_response(self, request: &HeaderMap) -> Response<Body> {
        problem_response(request, self.code, self.status, self.detail)
    }
}
