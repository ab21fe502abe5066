//! Gets a payload that a reference names, whole or a range of it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use zipline_buffer::LeaseRequest;
use zipline_http::Body;
use zipline_protocol::{ErrorCode, Record};
use zipline_seal::new_lease_id;
use zipline_transfer::{RetrieveError, RetrieveOptions, host};

use super::Refusal;
use super::deliver::{Delivery, Source};
use super::range::ByteRange;
use super::reference::{self, Named};
use crate::state::Shared;

/// What one get takes of the in-flight budget: a few chunks and what is held back.
const IN_FLIGHT: u64 = 1024 * 1024;

/// Longer payloads come over the network although their holder is near: a lease on shared memory shows no progress while the
/// client takes the bytes, so it would lapse under a client that takes longer than that.
const SHARED_MAX: u64 = 64 << 20;

pub(super) async fn get(shared: &Arc<Shared>, request: &Request<Body>) -> Result<Response<Body>, Refusal> {
    let record = reference::open(shared, request.headers(), Named::Reference).await?;
    let Some(wanted) = request.headers().get(header::RANGE) else {
        let (body, length) = whole(shared, &record).await?;
        return Ok(answer(body, &record, length, None));
    };
    let length = match record.length {
        Some(length) => length,
        // Giving up what was asked for spends nothing.
        None => length_of(&mut source(shared, &record, 0, None).await?, &record).await?,
    };
    let range = self::wanted(wanted, length)?;
    let source = source(shared, &record, range.from, Some(range.to)).await?;
    let delivery = Delivery::new(shared, source, range.to - range.from, false);
    let body = delivery.into_body().await.map_err(|error| broke_off(&record, &error))?;
    Ok(answer(body, &record, length, Some(range)))
}

/// The whole payload of a record as a body, and its length. A retrieval is spent once all of it was taken.
pub(super) async fn whole(shared: &Arc<Shared>, record: &Record) -> Result<(Body, u64), Refusal> {
    let mut source = source(shared, record, 0, None).await?;
    let length = match record.length {
        Some(length) => length,
        None => length_of(&mut source, record).await?,
    };
    let delivery = Delivery::new(shared, source, length, true);
    let body = delivery.into_body().await.map_err(|error| broke_off(record, &error))?;
    Ok((body, length))
}

/// A reference that was issued before its payload was there names no length: the holder does.
async fn length_of(source: &mut Source, record: &Record) -> Result<u64, Refusal> {
    source.length().await.map_err(|error| broke_off(record, &error))
}

fn broke_off(record: &Record, error: &dyn std::fmt::Display) -> Refusal {
    let payload = record.payload.to_text();
    Refusal::new(ErrorCode::PayloadLost, format_args!("payload {payload} broke off: {error}"))
}

async fn source(
    shared: &Arc<Shared>,
    record: &Record,
    from: u64,
    to: Option<u64>,
) -> Result<Source, Refusal> {
    if record.boot == shared.boot {
        return local(shared, record, from, to).await;
    }
    if from == 0
        && to.is_none()
        && let Some(source) = neighbour(shared, record).await?
    {
        return Ok(source);
    }
    remote(shared, record, from, to).await
}

fn wanted(value: &HeaderValue, length: u64) -> Result<ByteRange, Refusal> {
    value.to_str().ok().and_then(|value| ByteRange::parse(value, length)).ok_or_else(|| {
        let header = HeaderValue::from_str(&format!("bytes */{length}")).expect("digits are visible ASCII");
        Refusal::new(
            ErrorCode::RangeInvalid,
            format_args!(
                "the Range names no bytes of this payload of {length} bytes: write one, as in bytes=0-99"
            ),
        )
        .with_header(header::CONTENT_RANGE, header)
    })
}

async fn local(shared: &Shared, record: &Record, from: u64, to: Option<u64>) -> Result<Source, Refusal> {
    let lease = new_lease_id();
    let payload = record.payload;
    let request = LeaseRequest { payload, lease, peer: IpAddr::from(Ipv4Addr::LOCALHOST), from, to };
    match shared.store.lease(request).await {
        Ok(reader) => Ok(Source::Local { reader, payload, lease }),
        Err(error) => Err(Refusal::new(error.code(), format_args!("payload {}: {error}", payload.to_text()))),
    }
}

/// The payload in the memory of a holder on this host; `None`: ask over the network.
async fn neighbour(shared: &Shared, record: &Record) -> Result<Option<Source>, Refusal> {
    let fits = record.length.is_none_or(|length| length <= SHARED_MAX);
    let Some(neighbours) = shared.neighbours.as_ref().filter(|_| fits) else {
        return Ok(None);
    };
    match neighbours.share(record).await {
        Ok(payload) => Ok(payload.map(|host::Shared { bytes, receipt }| Source::Neighbour {
            left: bytes.into(),
            receipt,
            zones: shared.zones(&record.zone),
        })),
        Err(error) => Err(unretrieved(record, &error)),
    }
}

async fn remote(shared: &Shared, record: &Record, from: u64, to: Option<u64>) -> Result<Source, Refusal> {
    let permit = shared.in_flight.acquire(IN_FLIGHT).await.map_err(|error| {
        Refusal::new(error.code(), format_args!("payload {}: {error}", record.payload.to_text()))
    })?;
    let options = RetrieveOptions { from, to };
    match shared.retriever.start(record, options).await {
        Ok(retrieval) => {
            Ok(Source::Remote { retrieval: Box::new(retrieval), permit, zones: shared.zones(&record.zone) })
        }
        Err(error) => Err(unretrieved(record, &error)),
    }
}

fn unretrieved(record: &Record, error: &RetrieveError) -> Refusal {
    let payload = record.payload.to_text();
    let detail = format_args!("payload {payload} could not be retrieved from its holder: {error}");
    Refusal::new(error.code(), detail)
}

fn answer(body: Body, record: &Record, length: u64, range: Option<ByteRange>) -> Response<Body> {
    let mut response = Response::new(body);
    let sent = range.map_or(length, |range| range.to - range.from);
    let mut put = |name, value: &[u8]| {
        // A content type that is no header value was none when the payload was put.
        if let Ok(value) = HeaderValue::from_bytes(value) {
            response.headers_mut().insert(name, value);
        }
    };
    put(header::ACCEPT_RANGES, b"bytes");
    put(header::CACHE_CONTROL, b"no-store");
    put(header::CONTENT_LENGTH, sent.to_string().as_bytes());
    if let Some(content_type) = &record.content_type {
        put(header::CONTENT_TYPE, content_type);
    }
    if let Some(range) = range {
        put(header::CONTENT_RANGE, range.content_range(length).as_bytes());
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}
