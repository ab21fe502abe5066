//! The function's response on its way to the caller: inline, or held here and sent as a reference (protocol, section 5.6).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode, response};
use http_body::Frame;
use tokio::time::Instant;
use zipline_buffer::Settled;
use zipline_http::{Body, BodyError, BodyErrorKind};
use zipline_protocol::{InlineReason, Nonce, REFERENCE_MEDIA_TYPE, ReferenceKind, Way, header};

use super::deadline;
use super::witness::{self, Witnessed};
use crate::breaker::Slot;
use crate::edges::{Direction, Zones};
use crate::headers;
use crate::hold::{Held, Message, hold};
use crate::peek::{self, Peeked};
use crate::state::{Shared, Transfer};
use crate::watched::{Ended, watch};

/// What the caller takes.
pub(super) struct Wanted {
    /// The nonce of a caller that takes a deferred response.
    pub(super) accept: Option<Nonce>,
    /// The request was HEAD, so there is no body.
    pub(super) head: bool,
    /// Hears the way it takes.
    pub(super) witness: Witnessed,
}

/// Finishes the function's response. The slot is given back when its body has ended, or is here as a
/// whole; the deadline ends it at the latest.
pub(super) async fn finish(
    shared: &Arc<Shared>,
    response: Response<Body>,
    wanted: Wanted,
    (slot, deadline): (Slot, Option<Instant>),
) -> Response<Body> {
    let mut response = response;
    shared.metrics.stripped_headers(headers::strip(response.headers_mut()));
    zipline_http::proxy::response_for_downstream(&mut response);
    let (mut parts, body) = response.into_parts();
    if wanted.accept.is_none() {
        return Response::from_parts(parts, inline(shared, body, None, (slot, deadline)));
    }
    let (reason, body) = match Box::pin(decide(shared, &parts, body, &wanted)).await {
        Ok((nonce, body)) => {
            let length = body.exact_length();
            let message = Message {
                kind: ReferenceKind::Response,
                body,
                content_type: parts.headers.get(CONTENT_TYPE).map(|value| value.as_bytes().to_vec()),
                binding: Some(nonce),
                peer: None,
            };
            match Box::pin(hold(shared, message)).await {
                Ok(held) => {
                    witness::responded(&wanted.witness, None, length);
                    let body = watch(defer(&mut parts, held), slot, |_| {});
                    return Response::from_parts(parts, deadline::bound(body, deadline));
                }
                Err((reason, body)) => (Some(reason), body),
            }
        }
        Err(inlined) => inlined,
    };
    if reason.is_some() {
        witness::responded(&wanted.witness, reason, body.exact_length());
    }
    Response::from_parts(parts, inline(shared, body, reason, (slot, deadline)))
}

/// The function's body as it is.
fn inline(
    shared: &Arc<Shared>,
    body: Body,
    reason: Option<InlineReason>,
    (slot, deadline): (Slot, Option<Instant>),
) -> Body {
    let told = record(shared, reason);
    if let Some(bytes) = body.whole_length() {
        // The function has nothing more to do with it, and nothing can break it off.
        drop(slot);
        told(Ended { bytes, elapsed: Duration::ZERO, whole: true });
        return body;
    }
    deadline::bound(watch(body, slot, told), deadline)
}

/// `Ok`: defer, bound to the nonce. `Err`: inline, for a reason if the caller would take a reference.
async fn decide(
    shared: &Arc<Shared>,
    parts: &response::Parts,
    body: Body,
    wanted: &Wanted,
) -> Result<(Nonce, Body), (Option<InlineReason>, Body)> {
    let Some(nonce) = wanted.accept else { return Err((None, body)) };
    let bodiless = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if wanted.head || bodiless || parts.status.is_informational() || body.is_end() {
        return Err((Some(InlineReason::NotEligible), body));
    }
    let threshold = shared.config.threshold_bytes;
    let Peeked { body, large } = match body.exact_length() {
        Some(length) => Peeked { body, large: length >= threshold },
        None if headers::is_grpc(&parts.headers) => peek::grpc_message(body, threshold).await,
        None => peek::arrivals(body, threshold).await,
    };
    if !large {
        return Err((Some(InlineReason::BelowThreshold), body));
    }
    if !shared.keyring.can_seal() {
        return Err((Some(InlineReason::NoKeys), body));
    }
    Ok((nonce, body))
}

/// Rewrites the head and gives the body that stands in the payload's place.
fn defer(parts: &mut response::Parts, held: Held) -> Body {
    // Whoever takes this response settles the payload before the body ends.
    held.proven();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(REFERENCE_MEDIA_TYPE));
    if let Some(own) = parts.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store")) {
        parts.headers.insert(header::CACHE_CONTROL, own);
    }
    let line = Bytes::from(format!("{}\n", held.reference.as_str()));
    let (settled, abandoned) = (held.settled(), held.abandoned());
    let settled = Box::pin(async move {
        tokio::select! {
            settled = settled => settled,
            () = abandoned => Settled::Lost,
        }
    });
    Body::wrap(ReferenceBody { line: Some(line), settled, _held: held })
}

/// The reference, then nothing until the payload was retrieved, then the end.
struct ReferenceBody {
    line: Option<Bytes>,
    settled: Pin<Box<dyn Future<Output = Settled> + Send>>,
    _held: Held,
}

impl http_body::Body for ReferenceBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(line) = self.line.take() {
            return Poll::Ready(Some(Ok(Frame::data(line))));
        }
        Poll::Ready(match ready!(self.settled.as_mut().poll(cx)) {
            Settled::Acknowledged | Settled::Cancelled => None,
            Settled::Lost => Some(Err(BodyError::new(BodyErrorKind::PayloadLost, Lost))),
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the response's payload was lost before it was retrieved")]
struct Lost;

fn record(shared: &Arc<Shared>, reason: Option<InlineReason>) -> impl FnOnce(Ended) + Send + use<> {
    let shared = Arc::clone(shared);
    move |ended: Ended| {
        if ended.whole && ended.bytes > 0 {
            shared.record(Transfer {
                direction: Direction::Sent,
                kind: ReferenceKind::Response,
                peer: None,
                way: Way::Inline,
                reason,
                zones: Zones::Unknown,
                bytes: ended.bytes,
                elapsed: ended.elapsed,
            });
        }
    }
}
