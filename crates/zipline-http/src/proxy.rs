//! What a reverse proxy changes on the way, as Knative's does.

use crate::body::Body;
use crate::hop;
use bytes::Bytes;
use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue, TE, TRAILER};
use http::{Request, Response, StatusCode};
use std::net::IpAddr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Makes a received request fit to be sent on.
///
/// Hop-by-hop fields go, those of an upgrade stay, `Forwarded` is derived from `X-Forwarded-*` if missing, and `peer` is
/// appended to `X-Forwarded-For`. Method, path, query, `Host` and all other fields stay as they are.
pub fn request_for_upstream(request: &mut Request<Body>, peer: Option<IpAddr>) {
    let protocol = if hop::is_upgrade(request) { hop::upgrade_protocol(request.headers()) } else { None };
    let headers = request.headers_mut();
    hop::strip_request(headers);
    if let Some(protocol) = protocol {
        hop::set_upgrade(headers, protocol);
    }
    derive_forwarded(headers);
    if let Some(peer) = peer {
        append_forwarded_for(headers, peer);
    }
}

/// Makes an upstream's response fit to be sent on. The fields of a 101 stay.
pub fn response_for_downstream(response: &mut Response<Body>) {
    let protocol = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        hop::upgrade_protocol(response.headers())
    } else {
        None
    };
    hop::strip_response(response.headers_mut());
    if let Some(protocol) = protocol {
        hop::set_upgrade(response.headers_mut(), protocol);
    }
}

/// On a request: its response may have trailers. Without it HTTP/1.1 servers (hyper among them) send none.
pub fn accept_trailers(headers: &mut HeaderMap) {
    headers.insert(TE, HeaderValue::from_static("trailers"));
}

/// On a message: names the trailers it may end with. Over HTTP/1.1 only named trailers are sent, and the body is chunked
/// even if its length is known.
///
/// Names that are not valid field names are left out.
pub fn announce_trailers<'a>(headers: &mut HeaderMap, names: impl IntoIterator<Item = &'a str>) {
    let names: Vec<&str> =
        names.into_iter().filter(|name| HeaderName::from_bytes(name.as_bytes()).is_ok()).collect();
    if let Ok(value) = HeaderValue::from_str(&names.join(", "))
        && !names.is_empty()
    {
        headers.append(TRAILER, value);
    }
}

/// Derives `Forwarded` from `X-Forwarded-*` if it is missing (knative/serving: `pkg/queue/forwarded_shim.go`).
fn derive_forwarded(headers: &mut HeaderMap) {
    if headers.contains_key(FORWARDED) {
        return;
    }
    let text =
        |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (addresses, host, proto) =
        (text(&X_FORWARDED_FOR), text(&X_FORWARDED_HOST), text(&X_FORWARDED_PROTO));
    if addresses.is_empty() && host.is_empty() && proto.is_empty() {
        return;
    }
    let mut nodes = addresses.split(',').map(|node| {
        let node = node.trim();
        if node.contains(':') { format!("for=\"[{node}]\"") } else { format!("for={node}") }
    });
    let first = nodes.next().filter(|first| first != "for=");
    let host = (!host.is_empty()).then(|| format!("host={host}"));
    let proto = (!proto.is_empty()).then(|| format!("proto={proto}"));
    let first: Vec<String> = [first, host, proto].into_iter().flatten().collect();
    let elements: Vec<String> =
        std::iter::once(first.join(";")).filter(|first| !first.is_empty()).chain(nodes).collect();
    let forwarded = elements.join(", ");
    if let Ok(value) = HeaderValue::from_str(&forwarded) {
        headers.insert(FORWARDED, value);
    }
}

fn append_forwarded_for(headers: &mut HeaderMap, peer: IpAddr) {
    if !headers.contains_key(&X_FORWARDED_FOR) {
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(peer.to_canonical().to_string())) {
            headers.insert(X_FORWARDED_FOR, value);
        }
        return;
    }
    let mut all: Vec<String> = headers
        .get_all(&X_FORWARDED_FOR)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect();
    all.push(peer.to_canonical().to_string());
    if let Ok(value) = HeaderValue::from_str(&all.join(", ")) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(fields: &[(&'static str, &'static str)]) -> Option<String> {
        let mut request = Request::new(Body::empty());
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request_for_upstream(&mut request, None);
        request.headers().get(FORWARDED).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn forwarded_as_knative_derives_it() {
        assert_eq!(forwarded(&[]), None);
        assert_eq!(
            forwarded(&[
                ("x-forwarded-for", "127.0.0.1, ::1"),
                ("x-forwarded-proto", "p"),
                ("x-forwarded-host", "h")
            ]),
            Some("for=127.0.0.1;host=h;proto=p, for=\"[::1]\"".to_owned())
        );
        assert_eq!(forwarded(&[("x-forwarded-for", ",,,")]), Some("for=, for=, for=".to_owned()));
        assert_eq!(forwarded(&[("x-forwarded-proto", "http")]), Some("proto=http".to_owned()));
        assert_eq!(
            forwarded(&[("forwarded", "for=x"), ("x-forwarded-for", "1.1.1.1")]),
            Some("for=x".to_owned())
        );
    }

    #[test]
    fn the_peer_is_appended() {
        let mut request = Request::new(Body::empty());
        request.headers_mut().append(X_FORWARDED_FOR, HeaderValue::from_static("10.0.0.1"));
        request.headers_mut().append(X_FORWARDED_FOR, HeaderValue::from_static("10.0.0.2"));
        request_for_upstream(&mut request, Some("::ffff:10.0.0.3".parse().unwrap()));
        assert_eq!(request.headers()[X_FORWARDED_FOR], "10.0.0.1, 10.0.0.2, 10.0.0.3");
    }

    #[test]
    fn upgrades_survive() {
        let mut request = Request::new(Body::empty());
        request.headers_mut().insert("connection", HeaderValue::from_static("keep-alive, Upgrade"));
        request.headers_mut().insert("upgrade", HeaderValue::from_static("websocket"));
        request_for_upstream(&mut request, None);
        assert_eq!(request.headers()["connection"], "Upgrade");
        assert_eq!(request.headers()["upgrade"], "websocket");
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = request.headers().clone();
        response_for_downstream(&mut response);
        assert_eq!(response.headers()["upgrade"], "websocket");
    }
}
