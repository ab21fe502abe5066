//! What Prometheus scrapes: `GET /metrics` on the port for user metrics.

use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use zipline_http::{Body, Handler};

use super::Telemetry;
use super::metrics::{exposition, process};
use super::replies::{method_not_allowed, not_found};

/// Answers scrapes: the requests' metrics first, then the process', then Zipline's own.
///
/// # Source
/// `PKG observability/metrics/prometheus/server.go`.
#[derive(Clone)]
pub struct Scrape {
    telemetry: Telemetry,
    zipline: Arc<dyn Fn() -> String + Send + Sync>,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").field("telemetry", &self.telemetry).finish_non_exhaustive()
    }
}

impl Scrape {
    /// Answers with what `telemetry` counted; `zipline` gives this process' own metrics in OpenMetrics' form.
    #[must_use]
    pub fn new(telemetry: Telemetry, zipline: Arc<dyn Fn() -> String + Send + Sync>) -> Self {
        Self { telemetry, zipline }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Body> {
        if path != "/metrics" {
            return not_found();
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return method_not_allowed();
        }
        let body = if *method == Method::HEAD { Body::empty() } else { Body::full(self.exposition()) };
        let mut response = Response::new(body);
        let media_type = HeaderValue::from_static(exposition::CONTENT_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        *response.status_mut() = StatusCode::OK;
        response
    }

    /// The whole text.
    fn exposition(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        if let Some(shared) = &self.telemetry.shared {
            if let Some(recorder) = &shared.recorder {
                exposition::write_families(&recorder.families(), &mut out);
            }
            process::write_process(&mut out);
            exposition::write_target_info(&shared.resource, &mut out);
            shared.write_losses(&mut out);
        }
        exposition::append_open_metrics(&(self.zipline)(), &mut out);
        out
    }
}

impl Handler for Scrape {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        self.answer(request.method(), request.uri().path())
    }
}
