//! Invokes by path: `/v1/invoke/{service}.{namespace}/{path…}`, with the body that the request brings or that a reference names.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri, header};
use zipline_http::{Body, hop};
use zipline_protocol::{FunctionName, header as ours};

use super::reference::{self, Named};
use super::{Refusal, get};
use crate::outbound;
use crate::state::Shared;

pub(super) async fn invoke(
    shared: &Arc<Shared>,
    target: &str,
    mut request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let (name, path) = target.split_once('/').unwrap_or((target, ""));
    let function: FunctionName = name.parse().map_err(Refusal::invalid)?;
    let path = match request.uri().query() {
        Some(query) => format!("/{path}?{query}"),
        None => format!("/{path}"),
    };
    let path: PathAndQuery = path.parse().map_err(|_| Refusal::invalid("the path is not valid"))?;
    if request.headers().contains_key(ours::BODY) {
        put_in(shared, &mut request).await?;
    }
    prepare(&mut request, path);
    Ok(Box::pin(outbound::invoke(shared, function, request)).await)
}

/// Gives the request the payload that its header names as its body.
async fn put_in(shared: &Arc<Shared>, request: &mut Request<Body>) -> Result<(), Refusal> {
    use http_body::Body as _;
    if !request.body().is_end_stream() {
        return Err(Refusal::invalid("a request with the header Zipline-Body brings no body of its own"));
    }
    let record = reference::open(shared, request.headers(), Named::Body).await?;
    let (body, length) = get::whole(shared, &record).await?;
    *request.body_mut() = body;
    let headers = request.headers_mut();
    headers.remove(ours::BODY);
    headers.remove(header::TRANSFER_ENCODING);
    headers.insert(header::CONTENT_LENGTH, length.into());
    // One that is no header value was none when the payload was put.
    let content_type = record.content_type.and_then(|value| HeaderValue::from_bytes(&value).ok());
    if let Some(content_type) = content_type {
        headers.entry(header::CONTENT_TYPE).or_insert(content_type);
    }
    Ok(())
}

/// Makes of a request to one of our doors the request that the function meant.
pub(crate) fn prepare(request: &mut Request<Body>, path: PathAndQuery) {
    // An upgrade is hop by hop too, yet meant for the function.
    let upgrade = if hop::is_upgrade(request) { hop::upgrade_protocol(request.headers()) } else { None };
    *request.uri_mut() = Uri::from(path);
    let headers = request.headers_mut();
    hop::strip_request(headers);
    if let Some(protocol) = upgrade {
        hop::set_upgrade(headers, protocol);
    }
    headers.remove(header::HOST);
    headers.remove(ours::TOKEN);
}
