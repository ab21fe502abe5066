//! The exact texts of what a queue-proxy answers by itself.
//!
//! Texts that end with a line break go out through Go's error helper there, which also sets [`TEXT_MEDIA_TYPE`] and
//! `X-Content-Type-Options: nosniff`; see [`Reply`].

use http::StatusCode;

/// The media type of error replies.
pub const TEXT_MEDIA_TYPE: &str = "text/plain; charset=utf-8";

/// An answer the queue-proxy gives without the function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The exact body.
    pub body: String,
    /// Whether `Content-Type: text/plain; charset=utf-8` and `X-Content-Type-Options: nosniff` go with it, as Go's
    /// `http.Error` adds them.
    pub error_headers: bool,
}

/// The body of a 504, and what is appended to a response that had started: no line break.
///
/// # Source
/// `pkg/queue/sharedmain/handlers.go`, `pkg/http/handler/timeout.go`.
pub const REQUEST_TIMEOUT: &str = "request timeout";
/// The body of the 503 of a full breaker.
///
/// # Source
/// `pkg/queue/breaker.go`, `pkg/queue/handler.go`.
pub const QUEUE_FULL: &str = "pending request queue full\n";
/// The body of the 503 of a wait that a deadline ended.
///
/// # Source
/// Go's `context.DeadlineExceeded` through `pkg/queue/handler.go`.
pub const WAIT_DEADLINE: &str = "context deadline exceeded\n";
/// The body of the 503 that answers probes in a drain.
///
/// # Source
/// `PKG network/handlers/drain.go`.
pub const SHUTTING_DOWN: &str = "shutting down\n";
/// The body of the 400 that answers an ingress' probe without hash.
///
/// # Source
/// `NET http/probe/handler.go`, `PKG network/handlers/drain.go`.
pub const HASH_MISSING: &str = "a probe request must contain a non-empty \"K-Network-Hash\" header\n";
/// The body of a 404 of the admin port and of other servers' unknown paths.
///
/// # Source
/// Go's `http.NotFound`.
pub const NOT_FOUND: &str = "404 page not found\n";
/// The log line of a certificate that was read, at start and again after it changed.
///
/// # Source
/// `pkg/queue/certificate/watcher.go`; an end-to-end test of Knative counts it.
pub const CERTIFICATE_RELOADED: &str = "Certificate and/or key have changed on disk and were reloaded.";

/// The 400 that answers a health check whose `K-Network-Probe` is `value`, the empty text if it is missing.
///
/// # Source
/// `pkg/queue/health/handler.go`.
#[must_use]
pub fn unexpected_probe(value: &str) -> Reply {
    let body = format!("unexpected probe header value: {value}\n");
    Reply { status: StatusCode::BAD_REQUEST, body, error_headers: true }
}

/// The answer to a health check that asked properly: 200 with `queue`, or 503 without body.
///
/// # Source
/// `pkg/queue/health/handler.go`.
#[must_use]
pub fn readiness(ready: bool) -> Reply {
    let (status, body) =
        if ready { (StatusCode::OK, "queue") } else { (StatusCode::SERVICE_UNAVAILABLE, "") };
    Reply { status, body: body.to_owned(), error_headers: false }
}

/// The 502 of a function that could not be reached or answered nonsense; `cause` is the transport's own words.
///
/// # Source
/// `PKG network/error_handler.go`.
#[must_use]
pub fn bad_gateway(cause: &str) -> Reply {
    Reply { status: StatusCode::BAD_GATEWAY, body: format!("{cause}\n"), error_headers: true }
}

/// The 504 of a request that took too long and had no response yet.
#[must_use]
pub fn request_timeout() -> Reply {
    Reply { status: StatusCode::GATEWAY_TIMEOUT, body: REQUEST_TIMEOUT.to_owned(), error_headers: false }
}

/// The 503 of a breaker without room.
#[must_use]
pub fn queue_full() -> Reply {
    Reply { status: StatusCode::SERVICE_UNAVAILABLE, body: QUEUE_FULL.to_owned(), error_headers: true }
}

/// The 503 that answers probes in a drain.
#[must_use]
pub fn shutting_down() -> Reply {
    Reply { status: StatusCode::SERVICE_UNAVAILABLE, body: SHUTTING_DOWN.to_owned(), error_headers: true }
}

/// The 400 that answers an ingress' probe without hash.
#[must_use]
pub fn hash_missing() -> Reply {
    Reply { status: StatusCode::BAD_REQUEST, body: HASH_MISSING.to_owned(), error_headers: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_senders_know_our_refusals() {
        // What a sender takes for the refusal of a stock queue-proxy must be exactly what one says.
        for reply in [unexpected_probe(""), unexpected_probe("activator"), shutting_down()] {
            assert!(
                zipline_protocol::stock::is_refusal(
                    reply.status.as_u16(),
                    reply.error_headers,
                    reply.body.as_bytes()
                ),
                "{reply:?}"
            );
        }
        assert_eq!(readiness(true).body, "queue");
        assert_eq!(readiness(false).body, "");
        assert_eq!(bad_gateway("EOF").body, "EOF\n");
        assert!(!request_timeout().body.ends_with('\n'));
    }
}
