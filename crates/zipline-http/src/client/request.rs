//! Making a request fit for the protocol it is sent with.

use super::error::SendError;
use super::target::HostPort;
use crate::body::Body;
use http::header::{COOKIE, HOST, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Extensions, Method, Request, Uri, Version};

/// Origin form with `Host`, or authority form for `CONNECT`.
pub(super) fn for_http1(request: &mut Request<Body>, addr: &HostPort) -> Result<(), SendError> {
    *request.version_mut() = Version::HTTP_11;
    if request.method() != Method::CONNECT {
        if !request.headers().contains_key(HOST) {
            let host =
                request.uri().authority().map_or_else(|| addr.to_string(), |host| host.as_str().to_owned());
            let host = HeaderValue::from_str(&host)
                .map_err(|_| SendError::Invalid("its host is not a header value"))?;
            request.headers_mut().insert(HOST, host);
        }
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
    }
    join_cookies(request.headers_mut());
    Ok(())
}

/// Absolute form, so that hyper writes `:scheme` and `:authority`.
pub(super) fn for_http2(request: &mut Request<Body>, addr: &HostPort) -> Result<(), SendError> {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(HOST);
    let authority = match (host, request.uri().authority()) {
        (Some(host), _) => Authority::try_from(host.as_bytes()),
        (None, Some(authority)) => Ok(authority.clone()),
        (None, None) => Authority::try_from(addr.to_string()),
    }
    .map_err(|_| SendError::Invalid("its host is not an authority"))?;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.authority = Some(authority);
    if request.method() != Method::CONNECT {
        parts.scheme = parts.scheme.or(Some(Scheme::HTTP));
        parts.path_and_query = parts.path_and_query.or_else(|| Some(PathAndQuery::from_static("/")));
    }
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| SendError::Invalid("its target is not a URI"))?;
    Ok(())
}

/// HTTP/2 may split cookies over several fields; HTTP/1.1 takes one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).into_iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// What tells that a request may be repeated.
const IDEMPOTENCY_KEYS: [&str; 2] = ["idempotency-key", "x-idempotency-key"];

/// Whether a request may be sent again although the peer may have seen it: no body, and no effect or one that its sender has
/// made safe to repeat. The rules are those of Go's transport.
pub(super) fn is_replayable(request: &Request<Body>) -> bool {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
        || IDEMPOTENCY_KEYS.iter().any(|name| request.headers().contains_key(*name));
    safe && request.body().is_end()
}

/// A replayable request, kept while it is sent.
pub(super) struct Replay {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    extensions: Extensions,
}

impl Replay {
    pub(super) fn of(request: &Request<Body>) -> Option<Self> {
        is_replayable(request).then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
            extensions: request.extensions().clone(),
        })
    }

    pub(super) fn into_request(self) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers;
        *request.extensions_mut() = self.extensions;
        request
    }
}
