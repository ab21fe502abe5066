//! Probes, answered here and never by the function, as Knative's queue-proxy does.
//!
//! # Source
//! knative/serving `pkg/queue/health/handler.go`, `knative.dev/pkg/network/handlers/drain.go`.

use http::header::{CONTENT_TYPE, HeaderMap, USER_AGENT};
use http::{HeaderValue, Response, StatusCode};
use zipline_http::Body;
use zipline_protocol::user_agent::KNATIVE_PROBE;

use crate::headers;
use crate::state::Shared;

const PROBE: &str = "k-network-probe";
const HASH: &str = "k-network-hash";

/// Whether a request is a probe. A deferred request carries a probe's `User-Agent` on purpose and is none.
pub(super) fn is_probe(headers: &HeaderMap) -> bool {
    !headers::is_deferred(headers) && (is_health_probe(headers) || is_network_probe(headers))
}

fn is_health_probe(headers: &HeaderMap) -> bool {
    const AGENTS: [&str; 3] = ["kube-probe/", KNATIVE_PROBE, "Knative-Autoscaling-Probe"];
    let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    AGENTS.iter().any(|start| agent.starts_with(start.as_bytes()))
}

fn is_network_probe(headers: &HeaderMap) -> bool {
    headers.get(PROBE).is_some_and(|value| value == "probe")
}

/// The answer to a probe.
pub(super) fn answer(shared: &Shared, headers: &HeaderMap) -> Response<Body> {
    let mut response = if shared.lifecycle.is_draining() {
        text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".into())
    } else if is_health_probe(headers) {
        health(shared.readiness.is_ready(), headers)
    } else {
        network(headers)
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    }
    response
}

fn health(ready: bool, headers: &HeaderMap) -> Response<Body> {
    match headers.get(PROBE).map(HeaderValue::as_bytes).unwrap_or_default() {
        b"queue" if ready => text(StatusCode::OK, "queue".into()),
        b"queue" => text(StatusCode::SERVICE_UNAVAILABLE, String::new()),
        other => {
            let other = String::from_utf8_lossy(other);
            text(StatusCode::BAD_REQUEST, format!("unexpected probe header value: {other}\n"))
        }
    }
}

fn network(headers: &HeaderMap) -> Response<Body> {
    match headers.get(HASH).filter(|hash| !hash.is_empty()) {
        Some(hash) => {
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert(HASH, hash.clone());
            response
        }
        None => {
            let detail = "a probe request must contain a non-empty \"K-Network-Hash\" header\n";
            text(StatusCode::BAD_REQUEST, detail.into())
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn probes_are_told_from_requests() {
        let agent = "Knative-Activator-Probe zipline/1";
        assert!(is_probe(&request(&[("user-agent", agent)])));
        assert!(is_probe(&request(&[("user-agent", "kube-probe/1.30")])));
        assert!(is_probe(&request(&[("k-network-probe", "probe")])));
        assert!(!is_probe(&request(&[("k-network-probe", "queue"), ("user-agent", "curl/8")])));
        let deferred = [("user-agent", agent), ("content-type", "application/vnd.zipline.reference")];
        assert!(!is_probe(&request(&deferred)));
    }

    #[test]
    fn health_answers() {
        let queue = request(&[("k-network-probe", "queue")]);
        assert_eq!(health(true, &queue).status(), 200);
        assert_eq!(health(false, &queue).status(), 503);
        assert_eq!(health(true, &HeaderMap::new()).status(), 400);
        assert_eq!(network(&HeaderMap::new()).status(), 400);
        assert_eq!(network(&request(&[("k-network-hash", "h")])).headers()["k-network-hash"], "h");
    }
}
