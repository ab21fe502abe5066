//! The response to an invocation: passed on as it is, or retrieved by its reference (protocol, section 5.6).

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response};
use tokio::time::timeout;
use zipline_http::{Body, BodyError, BodyErrorKind};
use zipline_protocol::limits::{PROGRESS_TIMEOUT, REFERENCE_MAX};
use zipline_protocol::{ErrorCode, Record, ReferenceKind, ReferenceText, Way, header};

use super::Call;
use crate::cut;
use crate::edges::{Direction, Zones};
use crate::failure::Failure;
use crate::headers;
use crate::hold::Held;
use crate::peek;
use crate::retrieve::{BrokenOff, Retrieving};
use crate::state::Transfer;
use crate::watched::{Ended, watch};

/// Makes the function's response of what came over the wire. `held` lives until its body has ended.
pub(super) async fn receive(
    call: Call,
    mut response: Response<Body>,
    held: Option<Held>,
) -> Result<Response<Body>, Failure> {
    zipline_http::proxy::response_for_downstream(&mut response);
    if headers::is_deferred(response.headers()) {
        return retrieve(call, response, held).await;
    }
    let (mut parts, body) = response.into_parts();
    headers::strip_response(&mut parts.headers);
    // A payload that was sent again inline has nobody left who would show life.
    let silent = held.as_ref().filter(|held| held.is_proven()).map(Held::abandoned);
    let body = watch(body, held, record(&call, Way::Inline, Zones::Unknown));
    let body = match silent {
        Some(silent) => cut::off(body, async move {
            silent.await;
            BodyError::new(
                BodyErrorKind::Upstream,
                "the receiver fell silent while it retrieved the request's payload",
            )
        }),
        None => body,
    };
    Ok(Response::from_parts(parts, body))
}

async fn retrieve(
    call: Call,
    response: Response<Body>,
    held: Option<Held>,
) -> Result<Response<Body>, Failure> {
    let (mut parts, wire) = response.into_parts();
    let (record_of, wire) = open(&call, wire).await?;
    let zones = call.shared.zones(&record_of.zone);
    let mut retrieving =
        Retrieving::start(&call.shared, &record_of).await.map_err(|error| lost(&call, &error))?;
    while !retrieving.has_begun() {
        retrieving.read_ahead().await.map_err(|error| lost(&call, &error))?;
    }
    let own_cache_control = parts.headers.remove(header::CACHE_CONTROL);
    headers::strip_response(&mut parts.headers);
    parts.headers.remove(CONTENT_TYPE);
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CACHE_CONTROL);
    if let Some(value) = record_of.content_type.and_then(|value| HeaderValue::from_bytes(&value).ok()) {
        parts.headers.insert(CONTENT_TYPE, value);
    }
    if let Some(value) = own_cache_control {
        parts.headers.insert(CACHE_CONTROL, value);
    }
    if let Some(length) = record_of.length {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let (tasks, record) = (call.shared.tasks.clone(), record(&call, Way::Network, zones));
    let ended = move |ended: Ended| {
        record(ended);
        if ended.whole {
            drop(tasks.spawn("finish deferred response", finish(wire)));
        }
    };
    Ok(Response::from_parts(parts, watch(retrieving.into_body(drop), held, ended)))
}

fn lost(call: &Call, error: &BrokenOff) -> Failure {
    Failure::caller(error.code, format!("the response of {} could not be retrieved: {error}", call.function))
}

/// Reads the reference of a deferred response and opens it; gives the rest of the wire's body.
async fn open(call: &Call, wire: Body) -> Result<(Record, Body), Failure> {
    let invalid = |detail: &str| {
        Failure::caller(
            ErrorCode::ReferenceInvalid,
            format!("the deferred response of {} {detail}", call.function),
        )
    };
    let (line, wire) = timeout(PROGRESS_TIMEOUT, peek::line(wire, REFERENCE_MAX))
        .await
        .map_err(|_| invalid("did not bring its reference in time"))?
        .ok_or_else(|| invalid("does not start with a reference"))?;
    let text = std::str::from_utf8(&line).ok().and_then(|line| ReferenceText::parse(line).ok());
    let text = text.ok_or_else(|| invalid("does not start with a reference"))?;
    let record = call.shared.keyring.open_reference_waiting(&text, ReferenceKind::Response).await;
    let record = record.map_err(|error| {
        Failure::caller(error.code(), format!("the deferred response of {}: {error}", call.function))
    })?;
    if call.accept.is_none() || record.binding != call.accept {
        return Err(invalid("is not bound to this request"));
    }
    Ok((record, wire))
}

fn record(call: &Call, way: Way, zones: Zones) -> impl FnOnce(Ended) + Send + use<> {
    let (shared, peer) = (Arc::clone(&call.shared), call.function.clone());
    move |ended: Ended| {
        if ended.whole && ended.bytes > 0 {
            shared.record(Transfer {
                direction: Direction::Received,
                kind: ReferenceKind::Response,
                peer: Some(peer),
                way,
                reason: None,
                zones,
                bytes: ended.bytes,
                elapsed: ended.elapsed,
            });
        }
    }
}

/// Waits a little for the end of the wire's body, so that its connection can be used again.
async fn finish(mut wire: Body) {
    let rest = async { while let Some(Ok(_)) = wire.data().await {} };
    // A connection that does not end in time is closed: nothing but a new connection is lost.
    let _ = timeout(PROGRESS_TIMEOUT, rest).await;
}
