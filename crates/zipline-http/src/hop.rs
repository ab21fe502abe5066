//! What ends at each hop and must not be relayed (RFC 9110, 7.6.1).

use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Version};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes hop-by-hop fields of a request, and every field its `Connection` names.
///
/// `TE: trailers` stays if it was there, and so does `Trailer`: both are needed for trailers to survive HTTP/1.1.
/// For upgrades use [`upgrade_protocol`] first and [`set_upgrade`] afterwards.
pub fn strip_request(headers: &mut HeaderMap) {
    let trailers = has_token(headers, &TE, "trailers");
    strip(headers);
    headers.remove(PROXY_AUTHENTICATE);
    headers.remove(PROXY_AUTHORIZATION);
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes hop-by-hop fields of a response, and every field its `Connection` names. `Trailer` stays.
pub fn strip_response(headers: &mut HeaderMap) {
    strip(headers);
    headers.remove(PROXY_AUTHENTICATE);
    headers.remove(TE);
}

/// Whether an HTTP/1.1 request asks to change protocol (WebSocket and the like; not h2c).
pub fn is_upgrade<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11
        && request.method() != Method::CONNECT
        && upgrade_protocol(request.headers())
            .is_some_and(|protocol| !protocol.as_bytes().eq_ignore_ascii_case(b"h2c"))
}

/// The protocol an `Upgrade` field names, if `Connection` confirms it and it is text.
pub fn upgrade_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let confirmed = has_token(headers, &CONNECTION, "upgrade");
    headers.get(UPGRADE).filter(|protocol| confirmed && protocol.to_str().is_ok()).cloned()
}

/// Puts the two fields of an upgrade back after stripping.
pub fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Whether a comma-separated field holds a token, whatever its case.
pub fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// Bytes of all names and values.
pub(crate) fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|value| {
        value
            .split(',')
            .map(|token| token.split(';').next().unwrap_or_default().trim())
            .filter(|token| !token.is_empty())
    })
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .collect();
    for name in named {
        // A peer must not be able to drop what routing or framing depends on.
        if name != http::header::HOST && name != http::header::CONTENT_LENGTH && name != TE {
            headers.remove(name);
        }
    }
    for name in [&CONNECTION, &KEEP_ALIVE, &PROXY_CONNECTION, &TRANSFER_ENCODING, &UPGRADE] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn named_fields_go_and_trailers_stay() {
        let mut map = headers(&[
            ("connection", "keep-alive, X-Private"),
            ("connection", "te"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, Trailers;q=1"),
            ("trailer", "grpc-status"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "secret"),
            ("x-public", "2"),
        ]);
        strip_request(&mut map);
        assert_eq!(map, headers(&[("te", "trailers"), ("trailer", "grpc-status"), ("x-public", "2")]));
    }

    #[test]
    fn connection_cannot_drop_host_or_length() {
        let mut map =
            headers(&[("connection", "host, content-length"), ("host", "a"), ("content-length", "3")]);
        strip_request(&mut map);
        assert_eq!(map, headers(&[("host", "a"), ("content-length", "3")]));
    }

    #[test]
    fn responses_lose_what_is_for_the_hop() {
        let mut map = headers(&[
            ("connection", "close"),
            ("proxy-authenticate", "x"),
            ("etag", "e"),
            ("upgrade", "h2c"),
        ]);
        strip_response(&mut map);
        assert_eq!(map, headers(&[("etag", "e")]));
    }

    #[test]
    fn upgrades_are_recognised_by_both_fields() {
        let build = |fields: &[(&'static str, &'static str)]| {
            let mut request = Request::new(());
            *request.headers_mut() = headers(fields);
            request
        };
        assert!(is_upgrade(&build(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")])));
        assert!(!is_upgrade(&build(&[("upgrade", "websocket")])));
        assert!(!is_upgrade(&build(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c")])));
    }
}
