//! Counters of one queue-proxy. Labels are closed sets: never payload ids, addresses or references.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use zipline_protocol::{ErrorCode, Way};
use zipline_transfer::DataPortStats;

use crate::edges::Direction;
use crate::state::Transfer;

/// Upper bounds in seconds for what a request waits for.
const REQUEST_SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Upper bounds in seconds for moving bytes, from one segment on loopback to gigabytes across zones.
const TRANSFER_SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0];
/// Upper bounds in seconds for how long payloads are held.
const HOLD_SECONDS: [f64; 10] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 600.0, 3600.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransferLabels {
    direction: &'static str,
    kind: &'static str,
    way: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ZoneLabels {
    zones: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    error_type: &'static str,
}

/// The counters of the labels that were counted last, which are most often those of the next transfer: finding them by
/// their labels costs more than counting.
#[derive(Debug)]
struct Recent {
    labels: TransferLabels,
    transfers: Counter,
    bytes: Counter,
}

type Level = Gauge<u64, AtomicU64>;

/// What the buffer holds at the moment of a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferLevels {
    /// Bytes held.
    pub bytes: u64,
    /// Payloads held.
    pub payloads: u64,
    /// The most bytes ever held at once.
    pub peak_bytes: u64,
    /// Puts and payloads that wait for memory.
    pub waiters: u64,
}

/// The metrics of one queue-proxy. Cheap to clone; all clones count into the same registry.
#[derive(Clone, Debug)]
pub struct ProxyMetrics {
    transfers: Family<TransferLabels, Counter>,
    transfer_bytes: Family<TransferLabels, Counter>,
    retrieved_bytes: Family<ZoneLabels, Counter>,
    /// One for what was sent, one for what was received.
    recent: Arc<[Mutex<Option<Recent>>; 2]>,
    retrieval: Histogram,
    hold: Histogram,
    buffer_usage: Level,
    buffer_payloads: Level,
    buffer_peak: Level,
    buffer_waiters: Level,
    sends: Counter,
    sends_refused: Counter,
    sends_relayed: Counter,
    copy_sends: Counter,
    copies: Level,
    large_sends: Level,
    sends_waiting: Level,
    breaker_in_flight: Level,
    breaker_queue_length: Level,
    stripped_headers: Counter,
    requests: Family<StatusLabels, Histogram>,
    errors: Family<ErrorLabels, Counter>,
}

impl ProxyMetrics {
    /// Makes the metrics and registers them in `registry`.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            transfers: Family::default(),
            transfer_bytes: Family::default(),
            retrieved_bytes: Family::default(),
            recent: Arc::default(),
            retrieval: Histogram::new(TRANSFER_SECONDS),
            hold: Histogram::new(HOLD_SECONDS),
            buffer_usage: Level::default(),
            buffer_payloads: Level::default(),
            buffer_peak: Level::default(),
            buffer_waiters: Level::default(),
            sends: Counter::default(),
            sends_refused: Counter::default(),
            sends_relayed: Counter::default(),
            copy_sends: Counter::default(),
            copies: Level::default(),
            large_sends: Level::default(),
            sends_waiting: Level::default(),
            breaker_in_flight: Level::default(),
            breaker_queue_length: Level::default(),
            stripped_headers: Counter::default(),
            requests: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
            errors: Family::default(),
        };
        metrics.register(registry);
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "zipline_transfers",
            "Payloads that moved, by the way they took and why they went inline",
            self.transfers.clone(),
        );
        registry.register(
            "zipline_transfer_bytes",
            "Bytes of the payloads that moved",
            self.transfer_bytes.clone(),
        );
        registry.register(
            "zipline_retrieved_bytes",
            "Bytes retrieved from holders in the same zone, in another one, or (empty) in one that is not known",
            self.retrieved_bytes.clone(),
        );
        registry.register(
            "zipline_retrieval_duration_seconds",
            "From the start of a retrieval to its end",
            self.retrieval.clone(),
        );
        registry.register("zipline_hold_seconds", "How long payloads were held", self.hold.clone());
        registry.register("zipline_buffer_usage_bytes", "Bytes held", self.buffer_usage.clone());
        registry.register("zipline_buffer_payloads", "Payloads held", self.buffer_payloads.clone());
        registry.register(
            "zipline_buffer_peak_bytes",
            "The most bytes ever held at once",
            self.buffer_peak.clone(),
        );
        registry.register("zipline_buffer_waiters", "Puts that wait for memory", self.buffer_waiters.clone());
        registry.register(
            "zipline_sends",
            "Answers of the data port that bytes of a payload followed",
            self.sends.clone(),
        );
        registry.register(
            "zipline_sends_refused",
            "Retrievals told to ask again, as too many large payloads were sent at the same time",
            self.sends_refused.clone(),
        );
        registry.register(
            "zipline_sends_relayed",
            "Retrievals of payloads held here whose bytes another receiver was named for",
            self.sends_relayed.clone(),
        );
        registry.register(
            "zipline_copy_sends",
            "Answers of the data port that bytes of a copy followed, whose payload is held elsewhere",
            self.copy_sends.clone(),
        );
        registry.register(
            "zipline_copies",
            "Copies of payloads held elsewhere that others may retrieve",
            self.copies.clone(),
        );
        registry.register(
            "zipline_large_sends",
            "Retrievals that are sent large payloads now",
            self.large_sends.clone(),
        );
        registry.register(
            "zipline_sends_waiting",
            "Retrievals that wait until fewer large payloads are sent",
            self.sends_waiting.clone(),
        );
        registry.register(
            "zipline_breaker_in_flight",
            "Requests the function is working on",
            self.breaker_in_flight.clone(),
        );
        registry.register(
            "zipline_breaker_queue_length",
            "Requests that wait for the function",
            self.breaker_queue_length.clone(),
        );
        registry.register(
            "zipline_stripped_headers",
            "Zipline headers removed where they do not belong",
            self.stripped_headers.clone(),
        );
        registry.register(
            "http_server_request_duration_seconds",
            "Requests to the function, by status class",
            self.requests.clone(),
        );
        registry.register("zipline_errors", "Errors by their code", self.errors.clone());
    }

    /// Counts a transfer that has ended.
    pub fn transferred(&self, transfer: &Transfer) {
        let labels = TransferLabels {
            direction: transfer.direction.as_str(),
            kind: transfer.kind.as_str(),
            way: transfer.way.as_str(),
            reason: transfer.reason.map_or("", |reason| reason.as_str()),
        };
        let mut recent = self.recent[usize::from(transfer.direction == Direction::Sent)].lock();
        let counters = match recent.take() {
            Some(same) if same.labels == labels => same,
            _ => Recent {
                transfers: self.transfers.get_or_create_owned(&labels),
                bytes: self.transfer_bytes.get_or_create_owned(&labels),
                labels,
            },
        };
        counters.bytes.inc_by(transfer.bytes);
        counters.transfers.inc();
        *recent = Some(counters);
        if transfer.direction == Direction::Received && transfer.way == Way::Network {
            let labels = ZoneLabels { zones: transfer.zones.as_str() };
            self.retrieved_bytes.get_or_create(&labels).inc_by(transfer.bytes);
        }
    }

    /// Counts a retrieval from another queue-proxy that took `elapsed`.
    pub fn retrieved(&self, elapsed: Duration) {
        self.retrieval.observe(elapsed.as_secs_f64());
    }

    /// Counts a payload that was held for `elapsed`.
    pub fn held(&self, elapsed: Duration) {
        self.hold.observe(elapsed.as_secs_f64());
    }

    /// Counts `count` headers that were removed because they did not belong there.
    pub fn stripped_headers(&self, count: usize) {
        self.stripped_headers.inc_by(count as u64);
    }

    /// Counts a request to the function that was answered with `status` after `elapsed`.
    pub fn request_served(&self, status: StatusCode, elapsed: Duration) {
        let class = match status.as_u16() / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.requests.get_or_create(&StatusLabels { status: class }).observe(elapsed.as_secs_f64());
    }

    /// Counts an error shown to anyone.
    pub fn error(&self, code: ErrorCode) {
        self.errors.get_or_create(&ErrorLabels { error_type: code.as_str() }).inc();
    }

    /// Sets what the buffer holds.
    pub fn set_buffer(&self, levels: BufferLevels) {
        self.buffer_usage.set(levels.bytes);
        self.buffer_payloads.set(levels.payloads);
        self.buffer_peak.set(levels.peak_bytes);
        self.buffer_waiters.set(levels.waiters);
    }

    /// Sets what the data port has counted, and how many copies it serves.
    pub fn set_data_port(&self, stats: &DataPortStats, copies: usize) {
        self.sends.inner().store(stats.sends, Ordering::Relaxed);
        self.sends_refused.inner().store(stats.refused_sends, Ordering::Relaxed);
        self.sends_relayed.inner().store(stats.relayed, Ordering::Relaxed);
        self.copy_sends.inner().store(stats.copy_sends, Ordering::Relaxed);
        self.copies.set(copies as u64);
        self.large_sends.set(stats.large_sends);
        self.sends_waiting.set(stats.waiting_sends);
    }

    /// Sets how many requests run and wait.
    pub fn set_breaker(&self, in_flight: u64, queued: u64) {
        self.breaker_in_flight.set(in_flight);
        self.breaker_queue_length.set(queued);
    }
}

#[cfg(test)]
mod tests;
