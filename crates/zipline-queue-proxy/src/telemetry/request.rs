//! What is recorded of one request while it runs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::Shared;
use super::metrics::Served;
use super::metrics::labels::{self, Client, Outcome, Server};
use super::request_log::Entry;
use super::trace::context::{TRACEPARENT, TraceContext};
use super::trace::record::{Arrived, Attributes, RequestRecord, SpanIds, Value};

/// How a request to the function failed, in the words of `error.type`.
///
/// # Source
/// The names of Go's error types, which otelhttp puts there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFailure {
    /// No connection to the function.
    Connect,
    /// Time was up.
    Deadline,
    /// The exchange broke off.
    Exchange,
}

impl CallFailure {
    fn word(self) -> &'static str {
        match self {
            Self::Connect => "net.OpError",
            Self::Deadline => "context.deadlineExceededError",
            Self::Exchange => "errors.errorString",
        }
    }
}

/// A payload that moved for a request, or why it did not, for its span. Metrics never have the ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferNote {
    /// `request` or `response`.
    pub part: &'static str,
    /// The way it took.
    pub way: &'static str,
    /// Why it went inline.
    pub reason: Option<&'static str>,
    /// Bytes, as far as known.
    pub bytes: Option<u64>,
    /// The payload, in text.
    pub payload: Option<String>,
    /// The other end.
    pub peer: Option<String>,
}

/// The record of one request. Whoever handles it tells what happens; dropped without an end it records nothing.
#[derive(Debug)]
pub struct Recording {
    shared: Arc<Shared>,
    arrived: Arrived,
    begun: Instant,
    /// In the middle of it: when the function was asked, and what came of it when.
    called: Option<Instant>,
    answered: Option<(Instant, Outcome)>,
    /// When it reached the breaker, and how long it waited there.
    proxied: Option<Instant>,
    waited: Option<Duration>,
    admitted: Option<Instant>,
    request_bytes: u64,
    trace: Option<Traced>,
    transfers: Attributes,
    log: Option<Entry>,
    /// It is no probe: metrics and spans tell of it.
    counted: bool,
}

/// A request whose spans are recorded.
#[derive(Debug)]
struct Traced {
    trace: [u8; 16],
    ids: SpanIds,
    parent: Option<TraceContext>,
    begun: SystemTime,
}

impl Recording {
    /// Starts the record of a request that has just come, and hands its trace on in `headers`. Not `counted`: it is only
    /// for the `log`.
    pub(super) fn begin(
        shared: Arc<Shared>,
        arrived: Arrived,
        headers: &mut HeaderMap,
        log: Option<Entry>,
        counted: bool,
    ) -> Self {
        let trace = shared.traces.as_ref().filter(|_| counted).and_then(|traces| {
            let parent = TraceContext::of(headers);
            let trace = parent.map_or_else(|| traces.ids.next(), |parent| parent.trace);
            let sampled = traces.sampler.samples(&trace, parent.as_ref());
            let client = traces.ids.next();
            let context = TraceContext { trace, span: client, sampled };
            headers.insert(TRACEPARENT, context.header());
            sampled.then(|| {
                let ids = &traces.ids;
                let ids = SpanIds { server: ids.next(), proxy: ids.next(), wait: ids.next(), client };
                Traced { trace, ids, parent, begun: SystemTime::now() }
            })
        });
        Self {
            shared,
            arrived,
            begun: Instant::now(),
            called: None,
            answered: None,
            proxied: None,
            waited: None,
            admitted: None,
            request_bytes: 0,
            trace,
            transfers: Attributes::new(),
            log,
            counted,
        }
    }

    /// The request may go to the function. With a breaker: after it waited there for `waited`; it holds `in_flight`
    /// requests now, waiting ones included.
    pub fn admitted(&mut self, breaker: Option<(Duration, usize)>) {
        let now = Instant::now();
        self.admitted = Some(now);
        self.proxied = Some(now - breaker.map_or(Duration::ZERO, |(waited, _)| waited));
        if let Some((waited, in_flight)) = breaker {
            self.waited = Some(waited);
            if let Some(recorder) = &self.shared.recorder
                && self.counted
            {
                recorder.queue_depth(in_flight);
            }
        }
    }

    /// The request goes to the function now; if nobody said so before, it was admitted without a breaker.
    pub fn calling(&mut self) {
        if self.admitted.is_none() {
            self.admitted(None);
        }
        self.called = Some(Instant::now());
    }

    /// The function's response has begun, or there is none.
    pub fn answered(&mut self, answer: Result<StatusCode, CallFailure>) {
        let outcome = match answer {
            Ok(status) => Outcome::Status(status.as_u16()),
            Err(failure) => Outcome::Error(failure.word()),
        };
        self.answered = Some((Instant::now(), outcome));
    }

    /// Bytes of the request's body have passed.
    pub fn received(&mut self, bytes: u64) {
        self.request_bytes += bytes;
    }

    /// A payload moved for this request.
    pub fn transferred(&mut self, note: TransferNote) {
        if self.trace.is_none() {
            return;
        }
        let [way, reason, bytes, payload, peer] = match note.part {
            "response" => [
                "zipline.response.way",
                "zipline.response.inline.reason",
                "zipline.response.bytes",
                "zipline.response.payload.id",
                "zipline.response.peer",
            ],
            _ => [
                "zipline.request.way",
                "zipline.request.inline.reason",
                "zipline.request.bytes",
                "zipline.request.payload.id",
                "zipline.request.peer",
            ],
        };
        let text = |value: &str| Value::Text(value.to_owned());
        self.transfers.push((way, text(note.way)));
        self.transfers.extend(note.reason.map(|word| (reason, text(word))));
        let count = |bytes| Value::Number(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.transfers.extend(note.bytes.map(|value| (bytes, count(value))));
        self.transfers.extend(note.payload.map(|id| (payload, Value::Text(id))));
        self.transfers.extend(note.peer.map(|address| (peer, Value::Text(address))));
    }

    /// The exchange is over. Without a status the client left before there was one, which counts as 200, as with Knative.
    pub fn ended(self, status: Option<StatusCode>, response_bytes: u64) {
        let status = status.unwrap_or(StatusCode::OK);
        let end = Instant::now();
        // Asked and never answered: it broke off.
        let called = self.called.map(|from| {
            let (until, outcome) =
                self.answered.unwrap_or((end, Outcome::Error(CallFailure::Exchange.word())));
            (from, until, outcome)
        });
        if let (Some(log), Some(entry)) = (&self.shared.log, &self.log) {
            log.write(entry, status.as_u16(), response_bytes, end - self.begun);
        }
        if let Some(recorder) = &self.shared.recorder
            && self.counted
        {
            let method = labels::method(&self.arrived.method);
            let version = labels::version(self.arrived.version);
            let (host, port) = self.arrived.host_and_port();
            let route_tag = &*self.arrived.route_tag;
            let scheme = if self.arrived.tls { "https" } else { "http" };
            let status = status.as_u16();
            let served = Served {
                seconds: (end - self.begun).as_secs_f64(),
                request_bytes: self.request_bytes,
                response_bytes,
            };
            recorder.served(&Server { method, status, route_tag, version, host, port, scheme }, served);
            if let Some((from, until, outcome)) = called {
                let port = self.shared.user_port;
                let labels = Client { method, outcome, route_tag, version, port };
                recorder.called(&labels, (until - from).as_secs_f64(), self.request_bytes);
            }
            if let Some(admitted) = self.admitted {
                recorder.invoked(status, (end - admitted).as_secs_f64());
            }
        }
        let (Some(traces), Some(traced)) = (&self.shared.traces, self.trace) else { return };
        let at = |instant: Instant| traced.begun + instant.saturating_duration_since(self.begun);
        let record = RequestRecord {
            trace: traced.trace,
            ids: traced.ids,
            parent: traced.parent,
            whole: (traced.begun, at(end)),
            wait: self.proxied.zip(self.waited).map(|(from, waited)| (at(from), at(from + waited))),
            proxied: self.proxied.map(at),
            // The client's span ends with the response's body.
            called: called.map(|(from, _, outcome)| ((at(from), at(end)), outcome)),
            status,
            request_bytes: self.request_bytes,
            response_bytes,
            user_port: self.shared.user_port,
            transfers: self.transfers,
            arrived: self.arrived,
        };
        traces.record(record);
    }
}
