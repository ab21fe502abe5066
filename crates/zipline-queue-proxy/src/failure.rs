//! A failure on its way to whoever asked.

use std::io;

use http::{HeaderMap, Response, StatusCode};
use zipline_http::{Body, SendError, problem_response, text_response};
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
    /// What Go's reverse proxy would say, where that is known.
    pub(crate) text: Option<String>,
}

impl Failure {
    /// The function itself asked for something wrong, or its queue-proxy cannot do it.
    pub(crate) fn local(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, status: code.local_status(), detail: detail.into(), text: None }
    }

    /// An invocation failed: only statuses that no ingress retries.
    pub(crate) fn caller(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, status: code.caller_status(), detail: detail.into(), text: None }
    }

    /// Somebody could not be reached or broke off.
    pub(crate) fn upstream(what: &str, error: &SendError) -> Self {
        let mut detail = format!("{what}: {error}");
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            detail.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        let text = Some(as_go_says(error));
        Self { text, ..Self::caller(ErrorCode::UpstreamFailed, detail) }
    }

    /// The answer to a request of these headers: a problem document, or a gRPC status.
    pub(crate) fn into_response(self, request: &HeaderMap) -> Response<Body> {
        problem_response(request, self.code, self.status, self.detail)
    }

    /// The answer as one line of text, the way Go's servers tell errors.
    pub(crate) fn into_text_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut text = self.text.unwrap_or(self.detail);
        text.push('\n');
        text_response(status, text)
    }
}

/// The words of Go's transport, which operators look for in answers and logs.
fn as_go_says(error: &SendError) -> String {
    match error {
        SendError::Connect { addr, source } if source.kind() == io::ErrorKind::ConnectionRefused => {
            format!("dial tcp {addr}: connect: connection refused")
        }
        SendError::Connect { source, .. } => source.to_string(),
        SendError::BeforeResponse { addr, source } => match io_kind(&**source) {
            Some(io::ErrorKind::ConnectionReset) => {
                format!("read tcp {addr}: read: connection reset by peer")
            }
            Some(_) => last_cause(&**source),
            None if is_early_end(&**source) => "EOF".to_owned(),
            None => last_cause(&**source),
        },
        other => last_cause(other),
    }
}

fn is_early_end(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message)
}

fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        next = error.source();
    }
    None
}

fn last_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
