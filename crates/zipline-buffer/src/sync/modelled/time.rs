//! A clock that stands still until a model moves it.
use std::future::{Future, poll_fn};
use std::ops::Add;
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::Mutex;

#[derive(Default)]
struct Clock {
    now: Duration,
    sleepers: Vec<(Duration, Waker)>,
}

loom::lazy_static! {
    static ref CLOCK: Mutex<Clock> = Mutex::default();
}

/// A moment of the model's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(CLOCK.lock().now)
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// So much time passes at once; whoever slept until then wakes.
#[cfg(test)]
pub(crate) fn advance(duration: Duration) {
    let mut clock = CLOCK.lock();
    clock.now += duration;
    let now = clock.now;
    let due: Vec<_> = clock.sleepers.extract_if(.., |(at, _)| *at <= now).collect();
    drop(clock);
    due.into_iter().for_each(|(_, waker)| waker.wake());
}

/// The time is over.
#[derive(Debug)]
pub(crate) struct Elapsed;

pub(crate) async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        let mut clock = CLOCK.lock();
        if deadline.0 <= clock.now {
            return Poll::Ready(Err(Elapsed));
        }
        clock.sleepers.push((deadline.0, context.waker().clone()));
        Poll::Pending
    })
    .await
}

pub(crate) async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(Instant::now() + duration, future).await
}

pub(crate) async fn sleep(duration: Duration) {
    // Only time ends it.
    drop(timeout(duration, std::future::pending::<()>()).await);
}
