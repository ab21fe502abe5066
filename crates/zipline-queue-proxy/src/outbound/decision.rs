//! Inline or deferred (protocol, section 5.5).

use http::{Method, request};
use zipline_http::Body;
use zipline_protocol::{InlineReason, Mode};

use super::Call;
use crate::headers;
use crate::peek::{self, Peeked};

/// Gives the body back: `Ok` to be deferred, `Err` to go inline for a reason.
///
/// Reads nothing of a body whose length is known, so that a client that waits for `100 Continue` is answered only once there
/// is memory. Otherwise holds at most the threshold.
pub(super) async fn decide(
    call: &Call,
    parts: &request::Parts,
    body: Body,
) -> Result<Body, (InlineReason, Body)> {
    let threshold = call.shared.config.threshold_bytes;
    let length = body.exact_length();
    if let Err(reason) = eligible(call, parts, length) {
        return Err((reason, body));
    }
    if length.is_some() {
        return Ok(body);
    }
    let Peeked { body, large } = if headers::is_grpc(&parts.headers) {
        peek::grpc_message(body, threshold).await
    } else {
        peek::arrivals(body, threshold).await
    };
    if large { Ok(body) } else { Err((InlineReason::BelowThreshold, body)) }
}

/// Everything that can be told without looking at the body.
fn eligible(call: &Call, parts: &request::Parts, length: Option<u64>) -> Result<(), InlineReason> {
    let shared = &call.shared;
    if parts.method == Method::HEAD
        || parts.method == Method::CONNECT
        || parts.headers.contains_key("k-network-probe")
    {
        return Err(InlineReason::NotEligible);
    }
    if length.is_some_and(|length| length < shared.config.threshold_bytes) {
        return Err(InlineReason::BelowThreshold);
    }
    if shared.mode() != Mode::On {
        return Err(InlineReason::Mode);
    }
    if call.function.namespace() != shared.keyring.tenant() {
        return Err(InlineReason::OtherTenant);
    }
    shared.capabilities.check(&call.function)?;
    if !shared.keyring.can_seal() {
        return Err(InlineReason::NoKeys);
    }
    Ok(())
}
