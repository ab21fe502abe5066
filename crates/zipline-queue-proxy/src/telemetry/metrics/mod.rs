//! What is counted about requests, and the forms it leaves in.
//!
//! Six instruments: OpenTelemetry's three for HTTP servers and two for HTTP clients (the client being this queue-proxy, the
//! server the function), and Knative's two. One lock, held for the few counters of one request; there is no contention, as
//! requests share one reactor.

pub(crate) mod exposition;
pub(crate) mod histogram;
pub(crate) mod labels;
pub(crate) mod process;
pub(crate) mod table;

#[cfg(test)]
mod tests;

use parking_lot::Mutex;
use zipline_knative::metrics as names;

use histogram::{BYTES, Histogram, SECONDS};
use labels::{Client, Invocation, Server};
use table::{LabelPairs, Table};

/// The scope of the HTTP instruments. Knative's own word for it, so that queries by scope go on working.
pub(crate) const HTTP_SCOPE: &str = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp";
/// The scope of Knative's instruments and spans.
pub(crate) const QUEUE_SCOPE: &str = names::SCOPE;

#[derive(Debug)]
struct ServerSeries {
    request_bytes: Histogram,
    duration: Histogram,
    response_bytes: Histogram,
}

#[derive(Debug)]
struct ClientSeries {
    request_bytes: Histogram,
    duration: Histogram,
}

#[derive(Debug)]
struct Tables {
    server: Table<Server<Box<str>>, ServerSeries>,
    client: Table<Client<Box<str>>, ClientSeries>,
    invocation: Table<Invocation, Histogram>,
    queue_depth: Option<i64>,
}

/// The request metrics of one queue-proxy.
#[derive(Debug)]
pub(crate) struct Recorder {
    tables: Mutex<Tables>,
}

/// What one served request adds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Served {
    pub(crate) seconds: f64,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
}

/// All series of one instrument.
#[derive(Debug)]
pub(crate) struct Family {
    /// The OpenTelemetry name.
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    /// UCUM.
    pub(crate) unit: &'static str,
    pub(crate) scope: &'static str,
    pub(crate) points: Vec<(LabelPairs, Point)>,
}

/// One series at one moment.
#[derive(Debug)]
pub(crate) enum Point {
    /// A histogram.
    Histogram(Histogram),
    /// A level.
    Gauge(i64),
}

impl Recorder {
    /// Nothing counted yet.
    pub(crate) fn new() -> Self {
        let server = || ServerSeries {
            request_bytes: Histogram::new(&BYTES),
            duration: Histogram::new(&SECONDS),
            response_bytes: Histogram::new(&BYTES),
        };
        let client =
            || ClientSeries { request_bytes: Histogram::new(&BYTES), duration: Histogram::new(&SECONDS) };
        let tables = Tables {
            server: Table::new(server),
            client: Table::new(client),
            invocation: Table::new(|| Histogram::new(&names::INVOCATION_DURATION_BOUNDS)),
            queue_depth: None,
        };
        Self { tables: Mutex::new(tables) }
    }

    /// Counts a request that was answered.
    pub(crate) fn served(&self, labels: &Server<&str>, served: Served) {
        let mut tables = self.tables.lock();
        let series = tables.server.at(labels);
        series.duration.record(served.seconds);
        series.request_bytes.record(float(served.request_bytes));
        series.response_bytes.record(float(served.response_bytes));
    }

    /// Counts a request to the function that it answered after `seconds`, or did not.
    pub(crate) fn called(&self, labels: &Client<&str>, seconds: f64, request_bytes: u64) {
        let mut tables = self.tables.lock();
        let series = tables.client.at(labels);
        series.duration.record(seconds);
        series.request_bytes.record(float(request_bytes));
    }

    /// Counts what the function took for one request, from the breaker to the end of the response.
    pub(crate) fn invoked(&self, status: u16, seconds: f64) {
        self.tables.lock().invocation.at(&Invocation { status }).record(seconds);
    }

    /// Sets how many requests the breaker has admitted, those that run included.
    pub(crate) fn queue_depth(&self, requests: usize) {
        self.tables.lock().queue_depth = Some(i64::try_from(requests).unwrap_or(i64::MAX));
    }

    /// Everything counted so far. Instruments without a series are left out.
    pub(crate) fn families(&self) -> Vec<Family> {
        let tables = self.tables.lock();
        let server = |pick: fn(&ServerSeries) -> &Histogram| -> Vec<_> {
            tables.server.series().map(|(labels, series)| (labels, copy(pick(series)))).collect()
        };
        let client = |pick: fn(&ClientSeries) -> &Histogram| -> Vec<_> {
            tables.client.series().map(|(labels, series)| (labels, copy(pick(series)))).collect()
        };
        let http = |name, help, unit, points| Family { name, help, unit, scope: HTTP_SCOPE, points };
        let queue = |name, help, unit, points| Family { name, help, unit, scope: QUEUE_SCOPE, points };
        let invocation = tables.invocation.series().map(|(labels, series)| (labels, copy(series)));
        let depth = tables.queue_depth.iter().map(|depth| (Vec::new(), Point::Gauge(*depth)));
        let mut families = vec![
            http(
                "http.client.request.body.size",
                "Size of HTTP client request bodies.",
                "By",
                client(|series| &series.request_bytes),
            ),
            http(
                "http.client.request.duration",
                "Duration of HTTP client requests.",
                "s",
                client(|series| &series.duration),
            ),
            http(
                "http.server.request.body.size",
                "Size of HTTP server request bodies.",
                "By",
                server(|series| &series.request_bytes),
            ),
            http(
                "http.server.request.duration",
                "Duration of HTTP server requests.",
                "s",
                server(|series| &series.duration),
            ),
            http(
                "http.server.response.body.size",
                "Size of HTTP server response bodies.",
                "By",
                server(|series| &series.response_bytes),
            ),
            queue(
                names::INVOCATION_DURATION,
                names::INVOCATION_DURATION_HELP,
                names::INVOCATION_DURATION_UNIT,
                invocation.collect(),
            ),
            queue(names::QUEUE_DEPTH, names::QUEUE_DEPTH_HELP, names::QUEUE_DEPTH_UNIT, depth.collect()),
        ];
        families.retain(|family| !family.points.is_empty());
        families
    }
}

fn copy(histogram: &Histogram) -> Point {
    Point::Histogram(histogram.clone())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "sizes in metrics are floats; beyond 2^53 the last digits do not matter"
)]
fn float(bytes: u64) -> f64 {
    bytes as f64
}
