//! The admin port: health, readiness, metrics, status. For the engine and people; functions have no business here.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde::Serialize;
use zipline_http::{Body, Handler};
use zipline_protocol::ErrorCode;
use zipline_runtime::Metrics;
use zipline_transfer::Copies;

use crate::edges::EdgeRow;
use crate::guidance::Report;
use crate::metrics::BufferLevels;
use crate::state::Shared;

/// Answers on the admin port.
#[derive(Clone, Debug)]
pub struct Admin {
    shared: Arc<Shared>,
}

impl Admin {
    /// The admin side of `shared`.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        if request.method() != Method::GET {
            return problem(ErrorCode::RequestInvalid, "the admin port only takes GET");
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "text/plain", "ok\n"),
            "/readyz" if self.is_ready() => text(StatusCode::OK, "text/plain", "ready\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "not ready\n"),
            "/metrics" => text(StatusCode::OK, Metrics::CONTENT_TYPE, exposition(&self.shared)),
            "/status" => {
                let json = serde_json::to_string(&status(&self.shared))
                    .expect("strings and numbers always serialise");
                text(StatusCode::OK, "application/json", json)
            }
            _ => problem(ErrorCode::NotFound, "the admin port has /healthz, /readyz, /metrics and /status"),
        }
    }

    fn is_ready(&self) -> bool {
        is_ready(&self.shared)
    }
}

impl Handler for Admin {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        self.answer(&request)
    }
}

fn is_ready(shared: &Shared) -> bool {
    !shared.lifecycle.is_draining() && (shared.config.is_guest() || shared.readiness.is_ready())
}

fn text(status: StatusCode, media_type: &'static str, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn problem(code: ErrorCode, detail: &str) -> Response<Body> {
    zipline_http::problem_response(&HeaderMap::new(), code, code.local_status(), detail)
}

/// Sets the levels, which are read off at the moment of the scrape, and writes everything out.
pub(crate) fn exposition(shared: &Shared) -> String {
    let snapshot = shared.store.totals();
    shared.metrics.set_buffer(BufferLevels {
        bytes: snapshot.held_bytes,
        payloads: snapshot.payload_count as u64,
        peak_bytes: snapshot.peak_bytes,
        waiters: snapshot.waiters as u64,
    });
    if let Some(port) = &shared.data_monitor {
        let copies = shared.copies.as_ref().map_or(0, Copies::count);
        shared.metrics.set_data_port(&port.stats(), copies);
    }
    shared.metrics.set_breaker(shared.breaker.in_flight() as u64, shared.breaker.queued() as u64);
    shared.registry.encode()
}

/// What `/status` shows.
#[derive(Debug, Serialize)]
struct Status<'a> {
    service: &'a str,
    namespace: &'a str,
    revision: &'a str,
    instance: &'a str,
    mode: &'static str,
    /// `null` without a controller.
    controller: Option<Report>,
    /// Empty if unknown.
    zone: String,
    ready: bool,
    draining: bool,
    /// Whether payloads of neighbours are shared on this host.
    same_host: bool,
    held: Held,
    in_flight: InFlight,
    payloads: Vec<Payload>,
    transfers: Transfers,
}

#[derive(Debug, Serialize)]
struct Held {
    bytes: u64,
    payloads: usize,
    budget_bytes: u64,
    peak_bytes: u64,
}

#[derive(Debug, Serialize)]
struct InFlight {
    bytes: u64,
    budget_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Payload {
    kind: &'static str,
    age_seconds: f64,
    /// `null` while it grows.
    length: Option<u64>,
    buffered_bytes: u64,
    /// `null` is unlimited.
    retrievals_left: Option<u32>,
    /// `null`: it lives as long as its invocation.
    expires_in_seconds: Option<f64>,
    leases: usize,
}

#[derive(Debug, Serialize)]
struct Transfers {
    edges: Vec<EdgeRow>,
}

fn status(shared: &Shared) -> Status<'_> {
    let snapshot = shared.store.snapshot();
    let config = &shared.config;
    Status {
        service: config.function.service(),
        namespace: config.function.namespace(),
        revision: &config.revision,
        instance: &config.instance,
        mode: shared.mode().as_str(),
        controller: shared.guidance.report(),
        zone: shared.guidance.zone().to_string(),
        ready: is_ready(shared),
        draining: shared.lifecycle.is_draining(),
        same_host: shared.neighbours.is_some(),
        held: Held {
            bytes: snapshot.held_bytes,
            payloads: snapshot.payload_count,
            budget_bytes: snapshot.budget_bytes,
            peak_bytes: snapshot.peak_bytes,
        },
        in_flight: InFlight {
            bytes: shared.in_flight.used_bytes(),
            budget_bytes: shared.in_flight.budget_bytes(),
        },
        payloads: snapshot
            .payloads
            .iter()
            .map(|payload| Payload {
                kind: payload.kind.as_str(),
                age_seconds: payload.age.as_secs_f64(),
                length: payload.length,
                buffered_bytes: payload.buffered_bytes,
                retrievals_left: payload.retrievals_left,
                expires_in_seconds: payload.expires_in.map(|left| left.as_secs_f64()),
                leases: payload.leases,
            })
            .collect(),
        transfers: Transfers { edges: shared.edges.rows() },
    }
}
