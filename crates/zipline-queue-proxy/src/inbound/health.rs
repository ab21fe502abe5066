//! Probes, answered here and never by the function, as Knative's queue-proxy does.
//!
//! # Source
//! knative/serving `pkg/queue/health/handler.go`, `knative.dev/pkg/network/handlers/drain.go`.

use http::header::{CONTENT_TYPE, HeaderMap, USER_AGENT};
use http::{HeaderValue, Response, StatusCode};
use zipline_http::{Body, text_response};
use zipline_protocol::user_agent::KNATIVE_PROBE;

use crate::headers;

const PROBE: &str = "k-network-probe";
const HASH: &str = "k-network-hash";

/// Whether a request is a probe. A deferred request carries a probe's `User-Agent` on purpose and is none.
pub(crate) fn is_probe(headers: &HeaderMap) -> bool {
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

/// The answer to a probe; the function is asked (`ready`) only where the answer depends on it.
pub(crate) async fn answer(
    draining: bool,
    headers: &HeaderMap,
    ready: impl AsyncFnOnce() -> bool,
) -> Response<Body> {
    if draining {
        text_response(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
    } else if is_health_probe(headers) {
        health(headers, ready).await
    } else {
        network(headers)
    }
}

async fn health(headers: &HeaderMap, ready: impl AsyncFnOnce() -> bool) -> Response<Body> {
    match headers.get(PROBE).map(HeaderValue::as_bytes).unwrap_or_default() {
        b"queue" if ready().await => {
            let mut response = Response::new(Body::full("queue"));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            response
        }
        b"queue" => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
        other => {
            let other = String::from_utf8_lossy(other);
            text_response(StatusCode::BAD_REQUEST, format!("unexpected probe header value: {other}\n"))
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
            text_response(StatusCode::BAD_REQUEST, detail)
        }
    }
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

    #[tokio::test]
    async fn health_answers() {
        let queue = request(&[("k-network-probe", "queue")]);
        assert_eq!(health(&queue, async || true).await.status(), 200);
        let unready = health(&queue, async || false).await;
        assert_eq!((unready.status().as_u16(), unready.headers().len()), (503, 0));
        // Without the right value the function is not asked.
        let asked = health(&HeaderMap::new(), async || panic!("asked")).await;
        assert_eq!(asked.status(), 400);
        assert_eq!(network(&HeaderMap::new()).status(), 400);
        assert_eq!(network(&request(&[("k-network-hash", "h")])).headers()["k-network-hash"], "h");
    }
}
