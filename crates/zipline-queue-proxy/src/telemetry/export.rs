//! The tasks that carry spans and metrics away.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::lines::Lines;
use super::otlp::messages;
use super::otlp::push::Pusher;
use super::trace::record::{RequestRecord, Span};
use super::trace::stdout;

/// Requests whose spans wait to be exported; beyond it spans are dropped and counted. A request has up to four spans, so
/// these are the 2048 spans of OpenTelemetry's batching.
pub(super) const RECORDS_MAX: usize = 512;
/// Requests whose spans are exported together.
const BATCH: usize = 128;
/// How long a batch waits to become full.
const BATCH_WAIT: Duration = Duration::from_secs(5);

/// Where spans go.
#[derive(Debug)]
pub(super) enum SpanSink {
    /// To a collector.
    Push(Box<Pusher>),
    /// To standard output.
    Lines(Lines),
}

/// Exports spans until `stop`, then those that are left.
pub(super) async fn run_spans(
    mut records: mpsc::Receiver<Box<RequestRecord>>,
    sink: SpanSink,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let first = tokio::select! {
            record = records.recv() => record,
            () = stop.cancelled() => records.try_recv().ok(),
        };
        let Some(first) = first else { return };
        batch.push(first);
        let full = Instant::now() + BATCH_WAIT;
        while batch.len() < BATCH {
            let record = tokio::select! {
                record = timeout_at(full, records.recv()) => record.ok().flatten(),
                () = stop.cancelled() => records.try_recv().ok(),
            };
            let Some(record) = record else { break };
            batch.push(record);
        }
        let spans: Vec<Span> = batch.drain(..).flat_map(|record| record.spans()).collect();
        match &sink {
            SpanSink::Lines(lines) => {
                for span in &spans {
                    lines.write(stdout::line(span, &shared.resource));
                }
            }
            SpanSink::Push(pusher) => {
                let message = messages::trace_request(&spans, &shared.resource);
                if let Err(error) = pusher.push(message).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, spans = spans.len(), "spans were not exported");
                }
            }
        }
    }
}

/// Pushes metrics at every `interval` until `stop`, and then once more.
pub(super) async fn run_metrics(
    pusher: Pusher,
    every: Duration,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let start = SystemTime::now();
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            () = stop.cancelled() => true,
        };
        let families = shared.recorder.as_ref().map(super::metrics::Recorder::families).unwrap_or_default();
        if !families.is_empty() {
            let message = messages::metrics_request(&families, &shared.resource, (start, SystemTime::now()));
            if let Err(error) = pusher.push(message).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "metrics were not exported");
            }
        }
        if last {
            return;
        }
    }
}
