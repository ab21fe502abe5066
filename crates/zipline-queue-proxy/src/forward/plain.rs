//! A request with an absolute URI: to a function it is an invoke, to anyone else it passes through untouched.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri, header};
use zipline_http::{Body, Protocol, Target, hop, proxy};
use zipline_protocol::header as ours;

use super::destination::Destination;
use crate::api::{Refusal, prepare};
use crate::outbound;
use crate::state::Shared;

pub(super) async fn pass(
    shared: &Arc<Shared>,
    mut request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let uri = request.uri();
    if uri.scheme_str() != Some("http") {
        return Err(Refusal::invalid("only http can be forwarded in clear: https comes by CONNECT"));
    }
    let authority = uri.authority().ok_or_else(|| Refusal::invalid("the request names no host"))?;
    let destination = Destination::new(authority, Some(80))?;
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    if let Some(function) = destination.function(shared) {
        prepare(&mut request, path);
        return Ok(Box::pin(outbound::invoke(shared, function, request)).await);
    }
    // The user part of a URI is for the client, never for the wire.
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    let host = HeaderValue::from_str(host).map_err(|_| Refusal::invalid("the host is not valid"))?;
    destination.resolve(shared).await?;
    *request.uri_mut() = Uri::from(path);
    let upgrade = if hop::is_upgrade(&request) { hop::upgrade_protocol(request.headers()) } else { None };
    let headers = request.headers_mut();
    hop::strip_request(headers);
    headers.remove(ours::TOKEN);
    headers.insert(header::HOST, host);
    if let Some(protocol) = upgrade {
        hop::set_upgrade(headers, protocol);
    }
    let target = Target { addr: destination.host_port(), protocol: Protocol::like(request.version()) };
    let sent = crate::upgrade::forward(shared, target, request, (), None).await;
    let mut response = sent.map_err(|error| {
        Refusal::caused(error.code(), format_args!("{destination} did not answer"), &error)
    })?;
    proxy::response_for_downstream(&mut response);
    Ok(response)
}
