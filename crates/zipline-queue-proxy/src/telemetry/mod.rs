//! Telemetry on Knative: request metrics, traces, the request log, and the ports that show them.
//!
//! | what | configured by | where it goes |
//! |---|---|---|
//! | request metrics | `requestMetrics` | nowhere, scraped from port 9091, or pushed by OTLP |
//! | traces | `tracing` | nowhere, standard output, or pushed by OTLP |
//! | request log | `enableRequestLog`, `requestLogTemplate` | standard output |
//! | profiles | `runtime.profiling` | port 8008, which refuses them (ADR 12) |
//!
//! Recording never waits: metrics are counted in place, spans and log lines go into bounded queues that drop and count what
//! finds them full. What is off costs one branch for each request. There is one reactor, so the exporters are tasks on it
//! and not the threads of OpenTelemetry's kit (ADR 11).

mod config;
mod export;
mod lines;
mod metrics;
mod observe;
mod otlp;
mod profiling;
mod replies;
mod request;
mod request_log;
mod scrape;
#[cfg(test)]
mod tests;
mod trace;

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Request;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use zipline_http::Body;
use zipline_knative::contract::is_probe;
use zipline_runtime::Tasks;

pub use config::{TelemetryConfig, TelemetryConfigError};
pub use otlp::push::PusherError;
pub use otlp::target::TargetError;
pub use profiling::Profiling;
pub use request::{CallFailure, Recording, TransferNote};
pub use scrape::Scrape;

use config::MetricsExport;
use export::SpanSink;
use lines::Lines;
use metrics::Recorder;
use otlp::push::Pusher;
use request_log::RequestLog;
use trace::ids::Ids;
use trace::record::{Arrived, RequestRecord};
use trace::sampler::Sampler;

/// How long what was recorded may take to leave when the process ends.
///
/// # Source
/// `pkg/queue/sharedmain/main.go`.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// Records requests. Clones record together.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// `None`: nothing is recorded.
    shared: Option<Arc<Shared>>,
}

/// What all clones share.
#[derive(Debug)]
struct Shared {
    recorder: Option<Recorder>,
    traces: Option<Traces>,
    lines: Option<Lines>,
    log: Option<RequestLog>,
    resource: Vec<(String, String)>,
    user_port: u16,
}

/// Decides about traces and takes their records.
#[derive(Debug)]
struct Traces {
    ids: Ids,
    sampler: Sampler,
    records: mpsc::Sender<Box<RequestRecord>>,
    /// Records that found the queue full.
    dropped: AtomicU64,
}

/// Carries away what was recorded, once [started](Exporters::start).
#[must_use = "what was recorded leaves with it"]
pub struct Exporters {
    /// They end before the writer of lines, which they may write to.
    exporters: Tasks,
    writers: Tasks,
    /// What [`Exporters::start`] runs, and for whom.
    work: Vec<(Tasks, &'static str, Work)>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl fmt::Debug for Exporters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporters").field("exporters", &self.exporters).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Records nothing.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    /// What `config` asks for.
    ///
    /// # Errors
    /// [`PusherError`]: a collector is configured that no TLS can be spoken with.
    pub fn new(config: TelemetryConfig) -> Result<(Self, Exporters), PusherError> {
        Self::with_output(config, tokio::io::stdout())
    }

    /// As [`Telemetry::new`], writing lines to `out`.
    fn with_output(
        config: TelemetryConfig,
        out: impl tokio::io::AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(Self, Exporters), PusherError> {
        let (exporters, writers) = (Tasks::new(), Tasks::new());
        let mut work: Vec<(Tasks, &'static str, Work)> = Vec::new();
        let TelemetryConfig { metrics, tracing, log, resource, user_port } = config;
        let stdout = tracing.as_ref().is_some_and(|tracing| tracing.target.is_none());
        let lines = (stdout || log.is_some()).then(|| {
            let (lines, writer) = lines::lines();
            let run = writer.run(out, writers.token());
            work.push((writers.clone(), "standard output", Box::pin(run)));
            lines
        });
        let recorder = (metrics != MetricsExport::None).then(Recorder::new);
        let mut spans = None;
        let traces = match tracing {
            None => None,
            Some(tracing) => {
                let (records, queue) = mpsc::channel(export::RECORDS_MAX);
                let sink = match (tracing.target, &lines) {
                    (Some(target), _) => SpanSink::Push(Box::new(Pusher::new(target, exporters.clone())?)),
                    (None, Some(lines)) => SpanSink::Lines(lines.clone()),
                    (None, None) => unreachable!("lines are made for spans that go there"),
                };
                spans = Some((queue, sink));
                Some(Traces {
                    ids: Ids::new(),
                    sampler: tracing.sampler,
                    records,
                    dropped: AtomicU64::new(0),
                })
            }
        };
        if recorder.is_none() && traces.is_none() && lines.is_none() {
            return Ok((Self::off(), Exporters { exporters, writers, work }));
        }
        let log = log.zip(lines.clone()).map(|(config, lines)| RequestLog::new(config, lines));
        let shared = Arc::new(Shared { recorder, traces, lines, log, resource, user_port });
        if let Some((queue, sink)) = spans {
            let run = export::run_spans(queue, sink, Arc::clone(&shared), exporters.token());
            work.push((exporters.clone(), "spans", Box::pin(run)));
        }
        if let MetricsExport::Push { target, every } = metrics {
            let pusher = Pusher::new(*target, exporters.clone())?;
            let run = export::run_metrics(pusher, every, Arc::clone(&shared), exporters.token());
            work.push((exporters.clone(), "metrics", Box::pin(run)));
        }
        Ok((Self { shared: Some(shared) }, Exporters { exporters, writers, work }))
    }

    /// Whether anything is recorded.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.shared.is_some()
    }

    /// Starts the record of a request that has just come from `peer`, and hands its trace on in the request's headers.
    /// `None`: nobody wants to know of it, as of most probes.
    fn request(
        &self,
        request: &mut Request<Body>,
        peer: Option<(IpAddr, u16)>,
        tls: bool,
    ) -> Option<Recording> {
        let shared = self.shared.as_ref()?;
        let log = shared.log.as_ref().and_then(|log| log.entry(request, peer, tls));
        let counted = (shared.recorder.is_some() || shared.traces.is_some()) && !is_probe(request.headers());
        if log.is_none() && !counted {
            return None;
        }
        let arrived = Arrived::of(request, peer, tls);
        Some(Recording::begin(Arc::clone(shared), arrived, request.headers_mut(), log, counted))
    }
}

impl Exporters {
    /// Starts to export.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(&mut self) {
        for (owner, name, work) in self.work.drain(..) {
            drop(owner.spawn(name, work));
        }
    }

    /// Exports what is left, for at most [`FLUSH_LIMIT`]; what has not left then is lost.
    ///
    /// # Cancel safety
    /// Dropped, what is left is lost.
    pub async fn flush(self) {
        let limit = Instant::now() + FLUSH_LIMIT;
        for tasks in [self.exporters, self.writers] {
            tasks.cancel();
            if timeout_at(limit, tasks.idle()).await.is_err() {
                let aborted = tasks.shutdown(Duration::ZERO).await;
                tracing::warn!(aborted, "telemetry did not leave in time and is lost");
            }
        }
    }
}

impl Traces {
    fn record(&self, record: RequestRecord) {
        if self.records.try_send(Box::new(record)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Shared {
    /// Writes how much was dropped, in Prometheus' text form.
    fn write_losses(&self, out: &mut String) {
        #[expect(clippy::cast_precision_loss, reason = "as Prometheus takes numbers")]
        let mut write = |name, help, count: u64| {
            metrics::exposition::write_plain(name, help, "counter", count as f64, out);
        };
        if let Some(traces) = &self.traces {
            let dropped = traces.dropped.load(Ordering::Relaxed);
            write(
                "zipline_telemetry_dropped_traces_total",
                "Requests whose spans found the queue full",
                dropped,
            );
        }
        if let Some(lines) = &self.lines {
            let help = "Lines for standard output that found the queue full";
            write("zipline_telemetry_dropped_lines_total", help, lines.dropped());
        }
    }
}
