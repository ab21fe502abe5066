//! What the autoscaler scrapes: `metrics.Stat`, and the integrator of concurrency behind it.
//!
//! Moments are the time since any one moment of the caller's choice, measured by a clock that does not go backwards.
//!
//! # Source
//! `pkg/autoscaler/metrics/stat.{proto,pb.go}`, `pkg/queue/protobuf_stats_reporter.go`, `NET http/stats/request.go`.

use std::time::Duration;

#[cfg(test)]
mod tests;

/// The autoscaler reads no more than this many bytes of an answer.
pub const ENCODED_MAX: usize = 336;

/// One measurement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stat {
    /// Whose it is.
    pub pod_name: String,
    /// Requests in flight, on average; waiting and upgraded ones included.
    pub average_concurrent_requests: f64,
    /// Of those, the ones that came through an activator.
    pub average_proxied_concurrent_requests: f64,
    /// Requests that arrived, per second; refused ones included.
    pub request_count: f64,
    /// Of those, the ones that came through an activator.
    pub proxied_request_count: f64,
    /// Age of the process in seconds.
    pub process_uptime: f64,
    /// Seconds since 1970; a queue-proxy leaves it 0, the autoscaler fills it in.
    pub timestamp: i64,
}

impl Stat {
    /// The measurement as proto3, byte for byte as Go's generated marshaller: fields in order, zeros left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.pod_name.len());
        if !self.pod_name.is_empty() {
            out.push(0x0a);
            varint(self.pod_name.len() as u64, &mut out);
            out.extend(self.pod_name.bytes());
        }
        for (tag, value) in [
            (0x11, self.average_concurrent_requests),
            (0x19, self.average_proxied_concurrent_requests),
            (0x21, self.request_count),
            (0x29, self.proxied_request_count),
            (0x31, self.process_uptime),
        ] {
            // Go compares with 0, so that -0 is left out and what is no number is not.
            if value != 0.0 {
                out.push(tag);
                out.extend(value.to_le_bytes());
            }
        }
        if self.timestamp != 0 {
            out.push(0x38);
            varint(self.timestamp.cast_unsigned(), &mut out);
        }
        out
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It arrived.
    In,
    /// It ended.
    Out,
    /// It arrived through an activator: `K-Proxy-Request: activator`.
    ProxiedIn,
    /// It had come through an activator, and ended.
    ProxiedOut,
}

/// Integrates concurrency over time and turns it into a [`Stat`] once per period.
///
/// One owner at a time: put it behind a lock. An event costs a few additions.
#[derive(Debug, Clone)]
pub struct Reporter {
    pod_name: String,
    period: Duration,
    started: Duration,
    last_change: Duration,
    /// What is in flight now; stays over a report.
    now: Pair<u64>,
    /// What arrived since the last report.
    arrived: Pair<u64>,
    /// Requests times seconds since the last report.
    integral: Pair<f64>,
    seconds_in_use: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Pair<T> {
    all: T,
    proxied: T,
}

impl Reporter {
    /// Starts at `now`, with nothing in flight. Counts are divided by `period`, which is how often reports are made and
    /// must not be zero.
    #[must_use]
    pub fn new(pod_name: impl Into<String>, period: Duration, now: Duration) -> Self {
        Self {
            pod_name: pod_name.into(),
            period,
            started: now,
            last_change: now,
            now: Pair::default(),
            arrived: Pair::default(),
            integral: Pair::default(),
            seconds_in_use: 0.0,
        }
    }

    /// Takes in an event. A moment before the last one counts as the last one.
    pub fn event(&mut self, event: Event, now: Duration) {
        self.advance(now);
        match event {
            Event::In | Event::ProxiedIn => {
                self.now.all += 1;
                self.arrived.all += 1;
            }
            Event::Out | Event::ProxiedOut => self.now.all = self.now.all.saturating_sub(1),
        }
        match event {
            Event::ProxiedIn => {
                self.now.proxied += 1;
                self.arrived.proxied += 1;
            }
            Event::ProxiedOut => self.now.proxied = self.now.proxied.saturating_sub(1),
            Event::In | Event::Out => {}
        }
    }

    /// What happened since the last report, or since the start. What is in flight carries over, all else starts again.
    pub fn report(&mut self, now: Duration) -> Stat {
        self.advance(now);
        let period = self.period.as_secs_f64();
        let average =
            |integral: f64| if self.seconds_in_use > 0.0 { integral / self.seconds_in_use } else { 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "requests of one second are far below 2^53")]
        let stat = Stat {
            pod_name: self.pod_name.clone(),
            average_concurrent_requests: average(self.integral.all),
            average_proxied_concurrent_requests: average(self.integral.proxied),
            request_count: self.arrived.all as f64 / period,
            proxied_request_count: self.arrived.proxied as f64 / period,
            process_uptime: now.saturating_sub(self.started).as_secs_f64(),
            timestamp: 0,
        };
        self.arrived = Pair::default();
        self.integral = Pair::default();
        self.seconds_in_use = 0.0;
        stat
    }

    /// What is scraped before the first report: the name and nothing else.
    #[must_use]
    pub fn before_first_report(&self) -> Stat {
        Stat { pod_name: self.pod_name.clone(), ..Stat::default() }
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.now.all
    }

    #[expect(clippy::cast_precision_loss, reason = "requests in flight are far below 2^53")]
    fn advance(&mut self, now: Duration) {
        let Some(passed) = now.checked_sub(self.last_change).filter(|passed| !passed.is_zero()) else {
            return;
        };
        let seconds = passed.as_secs_f64();
        self.seconds_in_use += seconds;
        self.integral.all += self.now.all as f64 * seconds;
        self.integral.proxied += self.now.proxied as f64 * seconds;
        self.last_change = now;
    }
}
