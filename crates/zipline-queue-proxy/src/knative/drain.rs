//! The quiet period before the end.
//!
//! | state | entered by | left by |
//! |---|---|---|
//! | serving | the start, or [`Drainer::reset`] | [`Drainer::drain`] |
//! | quiet | the first call of [`Drainer::drain`] | no request for the whole period: over; a reset: serving |
//! | over | the end of the period | never |
//!
//! While it is quiet or over, probes are told that this process shuts down. Every request that is no probe restarts the
//! period; what still runs does not matter. All callers of [`Drainer::drain`] wait for the same end.
//!
//! # Source
//! `knative.dev/pkg/network/handlers/drain.go`.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Serving,
    Quiet,
    Over,
}

/// The drain of one process.
#[derive(Debug)]
pub(super) struct Drainer {
    period: Duration,
    state: watch::Sender<State>,
    /// When the present quiet period ends.
    until: Mutex<Instant>,
}

impl Drainer {
    /// Serving; a drain ends after `period` without a request.
    #[must_use]
    pub(super) fn new(period: Duration) -> Self {
        Self { period, state: watch::Sender::new(State::Serving), until: Mutex::new(Instant::now()) }
    }

    /// Whether probes are to be told of the end.
    #[must_use]
    pub(super) fn is_draining(&self) -> bool {
        *self.state.borrow() != State::Serving
    }

    /// A request that is no probe has arrived.
    pub(super) fn touch(&self) {
        if *self.state.borrow() == State::Quiet {
            *self.until.lock() = Instant::now() + self.period;
        }
    }

    /// Joins the drain, or begins it, and waits for its end: over, or reset.
    ///
    /// # Cancel safety
    /// The drain goes on, but only while somebody waits is its end noticed.
    pub(super) async fn drain(&self) {
        self.state.send_if_modified(|state| {
            let begins = *state == State::Serving;
            if begins {
                *self.until.lock() = Instant::now() + self.period;
                *state = State::Quiet;
            }
            begins
        });
        let mut left = self.state.subscribe();
        tokio::select! {
            // An error means that the sender is gone, which `self` prevents.
            _ = left.wait_for(|state| *state != State::Quiet) => {}
            () = self.quiet() => {
                self.state.send_if_modified(|state| {
                    let over = *state == State::Quiet;
                    if over {
                        *state = State::Over;
                    }
                    over
                });
            }
        }
    }

    /// Undoes a drain that is not over; those who wait for it go on.
    pub(super) fn reset(&self) {
        self.state.send_if_modified(|state| {
            let undone = *state == State::Quiet;
            if undone {
                *state = State::Serving;
            }
            undone
        });
    }

    async fn quiet(&self) {
        loop {
            let until = *self.until.lock();
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::poll_immediate;
    use tokio::time::advance;

    const PERIOD: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn requests_restart_the_period_and_what_follows_joins_its_end() {
        let drainer = Drainer::new(PERIOD);
        drainer.touch();
        assert!(!drainer.is_draining());
        let begun = Instant::now();
        let mut first = Box::pin(drainer.drain());
        assert!(poll_immediate(&mut first).await.is_none());
        assert!(drainer.is_draining());
        advance(Duration::from_secs(20)).await;
        drainer.touch();
        let second = drainer.drain();
        tokio::join!(first, second);
        assert_eq!(begun.elapsed(), Duration::from_secs(50));
        // Over is for good: no reset, and no further wait.
        drainer.reset();
        assert!(drainer.is_draining());
        drainer.drain().await;
        assert_eq!(begun.elapsed(), Duration::from_secs(50));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_lets_everybody_go_and_the_next_drain_waits_in_full() {
        let drainer = Drainer::new(PERIOD);
        let begun = Instant::now();
        let reset = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drainer.reset();
        };
        tokio::join!(drainer.drain(), drainer.drain(), reset);
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        assert!(!drainer.is_draining());
        drainer.drain().await;
        assert_eq!(begun.elapsed(), Duration::from_secs(31));
    }
}
