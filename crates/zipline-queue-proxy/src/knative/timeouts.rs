//! The three time limits of a request (contract of Knative's timeout handler).
//!
//! | limit | runs from | stops mattering |
//! |---|---|---|
//! | whole | arrival | never |
//! | response start | arrival | with the first status or body byte towards the client |
//! | idle | arrival, then each status or body byte towards the client | never |
//!
//! Bytes of the request do not count, and neither does waiting in the breaker stop any of them. On an upgraded connection
//! nothing is seen of the bytes, so there all three are absolute.
//!
//! # Source
//! knative/serving `pkg/http/handler/timeout.go`.

use std::time::Duration;

use tokio::time::Instant;

/// The limits of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the whole exchange. Zero ends every request at once, as Knative has it.
    pub whole: Duration,
    /// Until the response starts.
    pub response_start: Option<Duration>,
    /// Without a byte towards the client.
    pub idle: Option<Duration>,
}

/// The limits of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    limits: Timeouts,
    begun: Instant,
    written: Option<Instant>,
}

impl Clock {
    /// Starts all three.
    pub(super) fn start(limits: Timeouts, now: Instant) -> Self {
        Self { limits, begun: now, written: None }
    }

    /// Status or body bytes went towards the client.
    pub(super) fn wrote(&mut self, now: Instant) {
        self.written = Some(now);
    }

    /// When the request is over time if nothing more is written.
    pub(super) fn due(&self) -> Instant {
        let whole = self.begun + self.limits.whole;
        let start = self.limits.response_start.filter(|_| self.written.is_none());
        let start = start.map(|start| self.begun + start);
        let idle = self.limits.idle.map(|idle| self.written.unwrap_or(self.begun) + idle);
        [start, idle].into_iter().flatten().fold(whole, Instant::min)
    }

    /// When an upgraded connection is over time.
    pub(super) fn absolute(&self) -> Instant {
        Self { written: None, ..*self }.due()
    }

    /// Since when the request runs.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: [u64; 3]) -> (Clock, Instant) {
        let [whole, start, idle] = seconds.map(Duration::from_secs);
        let some = |limit: Duration| (!limit.is_zero()).then_some(limit);
        let now = Instant::now();
        let limits = Timeouts { whole, response_start: some(start), idle: some(idle) };
        (Clock::start(limits, now), now)
    }

    #[tokio::test(start_paused = true)]
    async fn the_nearest_limit_counts_and_writing_moves_only_its_own() {
        let at = |seconds| Duration::from_secs(seconds);
        let (clock, begun) = after([10, 0, 0]);
        assert_eq!(clock.due(), begun + at(10));
        let (mut clock, begun) = after([10, 3, 5]);
        assert_eq!(clock.due(), begun + at(3));
        clock.wrote(begun + at(2));
        assert_eq!(clock.due(), begun + at(7), "the start limit is met, idle runs from the write");
        clock.wrote(begun + at(6));
        assert_eq!(clock.due(), begun + at(10), "the whole limit is never moved");
        assert_eq!(clock.absolute(), begun + at(3), "upgraded connections know no writes");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_start_limit_idle_runs_from_the_arrival() {
        let (clock, begun) = after([10, 0, 4]);
        assert_eq!(clock.due(), begun + Duration::from_secs(4));
        let (clock, begun) = after([0, 0, 0]);
        assert_eq!(clock.due(), begun, "zero is over at once");
    }
}
