//! Puts a payload into the buffer and answers with its reference.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Request, Response, StatusCode, header};
use serde::Serialize;
use zipline_buffer::{Complete, ExpiryBound, PayloadGuard, PayloadWriter, Spec};
use zipline_http::Body;
use zipline_protocol::sdk::BoundedBy;
use zipline_protocol::{
    ErrorCode, PayloadId, Record, ReferenceKind, ReferenceText, Retrievals, header as ours, limits,
};
use zipline_seal::new_payload_id;

use super::Refusal;
use super::query::PutQuery;
use crate::pour::{PourError, Poured, pour};
use crate::state::Shared;

/// Longest silence of a client in the middle of its body; then the payload is given up and its memory comes free.
const STALL: Duration = Duration::from_secs(60);

/// The answer to a put.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    reference: &'a str,
    /// Unix milliseconds.
    expires_at: u64,
    ttl_seconds: f64,
    bounded_by: &'static str,
    /// `null` is unlimited.
    retrievals: Option<u32>,
    length: u64,
}

pub(super) async fn put(shared: &Arc<Shared>, request: Request<Body>) -> Result<Response<Body>, Refusal> {
    let query = PutQuery::parse(request.uri().query())?;
    let content_type = request.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes().to_vec());
    fits(content_type.as_deref())?;
    can_seal(shared)?;
    let mut body = request.into_body();
    let id = new_payload_id();
    let spec = spec(id, body.exact_length(), query);
    // Memory comes first: the client that waits for `100 Continue` gets it when the body is read for the first time.
    let begun = shared.store.begin(spec).await;
    let (writer, guard) =
        begun.map_err(|error| Refusal::new(error.code(), format_args!("nothing was put: {error}")))?;
    let complete = fill(writer, &mut body).await?;
    let kept = keep(guard, query);
    let sealing = Sealing { id, complete: Some(complete), expires_at: kept.expires_at, query, content_type };
    let reference = seal(shared, sealing).inspect_err(|_| {
        // Nobody could ever name the payload. It is there for sure: nobody knew of it.
        let _ = shared.store.release(&id);
    })?;
    let answer = Answer {
        reference: reference.as_str(),
        expires_at: kept.expires_at,
        ttl_seconds: kept.ttl.as_secs_f64(),
        bounded_by: kept.bounded_by.as_str(),
        retrievals: match query.retrievals {
            Retrievals::Limited(count) => Some(count),
            Retrievals::Unlimited => None,
        },
        length: complete.length,
    };
    Ok(created(&answer))
}

fn created(answer: &Answer<'_>) -> Response<Body> {
    let json = serde_json::to_vec(answer).expect("strings and numbers always serialise");
    let mut response = Response::new(Body::full(json));
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let reference = HeaderValue::from_str(answer.reference).expect("references are base64url");
    headers.insert(ours::REFERENCE, reference);
    response
}

/// Writes the whole body; trailers mean nothing to a put. Anything that goes wrong gives the payload up, since the writer is
/// dropped.
async fn fill(mut writer: PayloadWriter, body: &mut Body) -> Result<Complete, Refusal> {
    loop {
        match pour(body, &mut writer, Some(STALL)).await {
            Ok(Poured::Data | Poured::Trailers(_)) => {}
            Ok(Poured::End) => break,
            Err(error) => return Err(refusal(error)),
        }
    }
    writer.finish(Vec::new()).map_err(|error| refusal(error.into()))
}

fn refusal(error: PourError) -> Refusal {
    match error {
        PourError::Body(error) => {
            Refusal::invalid(format_args!("nothing was put: the body broke off: {error}"))
        }
        PourError::Write(error) => Refusal::new(error.code(), format_args!("nothing was put: {error}")),
        PourError::Silent(_) => {
            Refusal::new(ErrorCode::DeadlineExceeded, format_args!("nothing was put: {error}"))
        }
    }
}

/// The life of a put that was taken.
pub(crate) struct Kept {
    pub(crate) ttl: Duration,
    /// Unix milliseconds.
    pub(crate) expires_at: u64,
    pub(crate) bounded_by: BoundedBy,
}

/// Lets the payload live on by its ttl, and says which one really applies.
pub(crate) fn keep(guard: PayloadGuard, query: PutQuery) -> Kept {
    let (ttl, bounded_by) = match guard.expiry() {
        Some(expiry) if expiry.bound == ExpiryBound::Drain => (expiry.after, BoundedBy::Drain),
        _ if query.ttl_cut => (query.ttl, BoundedBy::Maximum),
        _ => (query.ttl, BoundedBy::Requested),
    };
    guard.keep();
    Kept { ttl, expires_at: expires_at(ttl), bounded_by }
}

/// In Unix milliseconds, if its life begins now.
pub(crate) fn expires_at(ttl: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from((now + ttl).as_millis()).unwrap_or(u64::MAX)
}

/// What a put asks of the store.
pub(crate) fn spec(id: PayloadId, length: Option<u64>, query: PutQuery) -> Spec {
    Spec {
        id,
        kind: ReferenceKind::Put,
        length,
        retrievals: query.retrievals,
        ttl: Some(query.ttl),
        linger: query.linger,
        wait: Some(query.wait),
        windowed: false,
    }
}

/// Refuses a content type that no reference has room for.
pub(crate) fn fits(content_type: Option<&[u8]>) -> Result<(), Refusal> {
    match content_type.map(<[u8]>::len).filter(|length| *length > limits::CONTENT_TYPE_MAX) {
        Some(length) => Err(Refusal::invalid(format_args!(
            "the content type has {length} bytes, at most {} can be kept",
            limits::CONTENT_TYPE_MAX
        ))),
        None => Ok(()),
    }
}

/// Refuses while there is no key.
pub(crate) fn can_seal(shared: &Shared) -> Result<(), Refusal> {
    if shared.keyring.can_seal() {
        return Ok(());
    }
    let detail = "the platform has not given this queue-proxy a key to seal references with: try again";
    Err(Refusal::new(ErrorCode::UpstreamFailed, detail))
}

/// What the reference of a put says.
pub(crate) struct Sealing {
    pub(crate) id: PayloadId,
    /// `None`: issued before its payload is there.
    pub(crate) complete: Option<Complete>,
    pub(crate) expires_at: u64,
    pub(crate) query: PutQuery,
    pub(crate) content_type: Option<Vec<u8>>,
}

/// Seals the reference of a put.
///
/// # Errors
/// `upstream-failed` if there is no key, or nothing that a reference could say where to find it.
pub(crate) fn seal(shared: &Shared, sealing: Sealing) -> Result<ReferenceText, Refusal> {
    let Sealing { id, complete, expires_at, query, content_type } = sealing;
    let record = Record {
        kind: ReferenceKind::Put,
        payload: id,
        boot: shared.boot,
        addresses: shared.data_addresses.clone(),
        length: complete.map(|complete| complete.length),
        expiry_unix_ms: Some(expires_at),
        retrievals: query.retrievals,
        digest: complete.and_then(|complete| complete.digest),
        binding: None,
        certificate: shared.data_certificate,
        zone: shared.guidance.zone().to_string(),
        tenant: shared.keyring.tenant().to_owned(),
        content_type,
    };
    shared.keyring.seal_reference(&record).map_err(|error| {
        Refusal::new(ErrorCode::UpstreamFailed, format_args!("no reference could be sealed: {error}"))
    })
}
