//! How software that does not know Zipline refuses a deferred request without running the function (section 5.1).

/// Bytes of body needed to tell a refusal.
pub const REFUSAL_BODY_MAX: usize = 256;

/// Whether a response without proof is the refusal of a stock Knative queue-proxy: it then never reached the function and
/// can be sent again inline. `body` is the start of the body, `nosniff` whether `X-Content-Type-Options: nosniff` was there.
///
/// # Source
/// knative/serving `pkg/queue/health/handler.go`, `knative.dev/pkg/network/handlers/drain.go`.
pub fn is_refusal(status: u16, nosniff: bool, body: &[u8]) -> bool {
    match status {
        400 => nosniff && body.starts_with(b"unexpected probe header value: "),
        503 => nosniff && body == b"shutting down\n",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_refusals_count() {
        assert!(is_refusal(400, true, b"unexpected probe header value: \n"));
        assert!(is_refusal(503, true, b"shutting down\n"));
        assert!(!is_refusal(400, false, b"unexpected probe header value: \n"));
        assert!(!is_refusal(400, true, b"bad json"));
        assert!(!is_refusal(503, true, b"shutting down, says the function"));
        assert!(!is_refusal(200, true, b"unexpected probe header value: \n"));
    }
}
