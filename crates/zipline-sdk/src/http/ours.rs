//! Requests of the local API itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Response};
use serde::Deserialize;
use zipline_protocol::{ErrorCode, Retrievals, header};

use super::{Call, Meant, Sending};
use crate::reference::Life;
use crate::{BoundedBy, Error, Payload, PutOptions, Reference, Result, Source};

/// A put's answer.
#[derive(Deserialize)]
struct Held {
    reference: String,
    ttl_seconds: f64,
    bounded_by: String,
}

/// Asks whether the queue-proxy is there and takes the token.
pub(crate) fn hello() -> Call {
    Call {
        what: "connecting".to_owned(),
        method: Method::GET,
        target: "/openapi.yaml".to_owned(),
        headers: HeaderMap::new(),
        body: Sending::Whole(Bytes::new()),
        meant: Meant::Api,
        call_site: None,
    }
}

pub(crate) fn put(body: Sending, options: &PutOptions) -> Result<Call> {
    let retrievals = match options.retrievals {
        Retrievals::Limited(count) => count.to_string(),
        Retrievals::Unlimited => "unlimited".to_owned(),
    };
    let millis = |time: Duration| time.as_nanos().div_ceil(1_000_000);
    let (ttl, linger, wait) = (millis(options.ttl), millis(options.linger), millis(options.wait));
    let mut headers = HeaderMap::new();
    if let Some(content_type) = &options.content_type {
        let value = HeaderValue::from_str(content_type);
        let value = value.map_err(|_| Error::invalid("the content type cannot stand in a header"))?;
        headers.insert(CONTENT_TYPE, value);
    }
    Ok(Call {
        what: "the put".to_owned(),
        method: Method::POST,
        target: format!("/v1/payloads?retrievals={retrievals}&ttl={ttl}ms&linger={linger}ms&wait={wait}ms"),
        headers,
        body,
        meant: Meant::Api,
        call_site: None,
    })
}

/// The reference of a put's answer, and how long its payload lives.
pub(crate) fn held(response: &Response<Bytes>) -> Result<(String, Life)> {
    let unreadable =
        || Error::new(ErrorCode::UpstreamFailed, "the answer to the put is not as docs/openapi.yaml says");
    let held: Held =
        serde_json::from_slice(response.body()).map_err(|error| unreadable().caused_by(error))?;
    let bounds = [BoundedBy::Requested, BoundedBy::Maximum, BoundedBy::Drain];
    let bounded_by =
        bounds.into_iter().find(|bound| bound.as_str() == held.bounded_by).ok_or_else(unreadable)?;
    let ttl = Duration::try_from_secs_f64(held.ttl_seconds).map_err(|_| unreadable())?;
    Ok((held.reference, Life { ttl, bounded_by }))
}

pub(crate) fn get(reference: &Reference) -> Result<Call> {
    named("the get", Method::GET, reference, Meant::Payload)
}

/// The payload of a get's answer.
pub(crate) fn got(response: Response<Bytes>) -> Payload {
    let content_type = content_type(response.headers());
    Payload::new(response.into_body(), content_type, Source::Api)
}

/// The content type of an answer's body.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<Arc<str>> {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(Into::into)
}

pub(crate) fn release(reference: &Reference) -> Result<Call> {
    named("the release", Method::DELETE, reference, Meant::Api)
}

fn named(what: &str, method: Method, reference: &Reference, meant: Meant) -> Result<Call> {
    let value = in_header(reference)?;
    let headers = HeaderMap::from_iter([(http::HeaderName::from_static(header::REFERENCE), value)]);
    let target = "/v1/payload".to_owned();
    Ok(Call {
        what: what.to_owned(),
        method,
        target,
        headers,
        body: Sending::Whole(Bytes::new()),
        meant,
        call_site: reference.call_site(),
    })
}

/// A reference as a header's value, which no log shows.
pub(crate) fn in_header(reference: &Reference) -> Result<HeaderValue> {
    let value = HeaderValue::from_str(reference.as_str());
    let mut value = value.map_err(|_| Error::invalid("the reference cannot stand in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}
