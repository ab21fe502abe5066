//! How long a connection is waited for: for the rest of a head, and for the next one.

use crate::serve::ServeLimits;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};

/// The two limits of time, with one timer that is set anew only when it has run out: requests that come in time cost none.
pub(super) struct Patience {
    /// Since when a head is being read.
    head_since: Option<Instant>,
    idle_since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// A fresh connection owes its first head since `since`.
    pub(super) fn new(since: Instant) -> Self {
        Self { head_since: Some(since), idle_since: since, timer: None }
    }

    /// Bytes of a head have come, and the rest is owed.
    pub(super) fn head_begun(&mut self) {
        self.head_since.get_or_insert_with(Instant::now);
    }

    /// A request and its response are over.
    pub(super) fn idle(&mut self) {
        self.head_since = None;
        self.idle_since = Instant::now();
    }

    /// Ready when the time is over.
    pub(super) fn poll_over(&mut self, limits: &ServeLimits, cx: &mut Context<'_>) -> Poll<()> {
        let due = match self.head_since {
            Some(since) => Some(since + limits.header_read_timeout),
            None => limits.idle_timeout.map(|idle| self.idle_since + idle),
        };
        let Some(due) = due else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}
