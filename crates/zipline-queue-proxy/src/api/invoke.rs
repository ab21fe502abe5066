//! Invokes by path: `/v1/invoke/{service}.{namespace}/{path…}`.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{Request, Response, Uri, header};
use zipline_http::{Body, hop};
use zipline_protocol::{FunctionName, header as ours};

use super::Refusal;
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
    prepare(&mut request, path);
    Ok(Box::pin(outbound::invoke(shared, function, request)).await)
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
