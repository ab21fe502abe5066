//! What a connection is doing, so that one that takes nothing can be closed.
//!
//! An HTTP server asks a body for bytes only when the socket takes them. A reader that stops reading is therefore not seen
//! from within the body; it is seen here, from beside the connection.

use parking_lot::Mutex;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No request is there.
    Idle,
    /// A request is worked on, or its payload's next bytes are not there yet. Bounded elsewhere: by the store.
    Working,
    /// Bytes were handed out and no more were asked for since.
    Sending,
}

/// The phase of one connection and since when it lasts.
#[derive(Debug)]
pub(super) struct Activity(Mutex<(Phase, Instant)>);

impl Activity {
    pub(super) fn new() -> Self {
        Self(Mutex::new((Phase::Idle, Instant::now())))
    }

    pub(super) fn idle(&self) {
        *self.0.lock() = (Phase::Idle, Instant::now());
    }

    pub(super) fn working(&self) {
        self.0.lock().0 = Phase::Working;
    }

    pub(super) fn sending(&self) {
        *self.0.lock() = (Phase::Sending, Instant::now());
    }

    /// Resolves when the connection was idle for `idle`, or took no bytes for `lapse`. Says whether it was the latter.
    pub(super) async fn overdue(&self, idle: Duration, lapse: Duration) -> bool {
        loop {
            let (phase, since) = *self.0.lock();
            let (deadline, stuck) = match phase {
                Phase::Idle => (since + idle, false),
                Phase::Working => (Instant::now() + lapse, false),
                Phase::Sending => (since + lapse, true),
            };
            if phase != Phase::Working && Instant::now() >= deadline {
                return stuck;
            }
            sleep_until(deadline).await;
        }
    }
}

/// Passes a wake-up on, and notes that from now on it is the connection that is waited for: a body whose next bytes have
/// come is not asked for them as long as the socket takes nothing.
struct NotingWaker {
    activity: Arc<Activity>,
    inner: Waker,
}

impl Wake for NotingWaker {
    fn wake(self: Arc<Self>) {
        self.activity.sending();
        self.inner.wake_by_ref();
    }
}

/// `inner`, noting on `activity` when it is woken.
pub(super) fn noting(activity: &Arc<Activity>, inner: &Waker) -> Waker {
    Waker::from(Arc::new(NotingWaker { activity: Arc::clone(activity), inner: inner.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(90);
    const LAPSE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn idle_and_stuck_connections_are_overdue_working_ones_are_not() {
        let activity = Activity::new();
        let started = Instant::now();
        assert!(!activity.overdue(IDLE, LAPSE).await);
        assert_eq!(started.elapsed(), IDLE);

        activity.working();
        assert!(tokio::time::timeout(IDLE * 10, activity.overdue(IDLE, LAPSE)).await.is_err());

        activity.sending();
        let started = Instant::now();
        assert!(activity.overdue(IDLE, LAPSE).await);
        assert_eq!(started.elapsed(), LAPSE);
    }
}
