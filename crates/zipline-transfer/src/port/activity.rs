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
            let now = Instant::now();
            let (limit, stuck) = match phase {
                Phase::Idle => (Some(idle), false),
                Phase::Working => (None, false),
                Phase::Sending => (Some(lapse), true),
            };
            let deadline = limit.map(|limit| since + limit);
            if deadline.is_some_and(|deadline| now >= deadline) {
                return stuck;
            }
            // The phase may change meanwhile, so it is looked at again at least that often.
            let look_again = now + lapse.min(idle);
            sleep_until(deadline.map_or(look_again, |deadline| deadline.min(look_again))).await;
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

        // A phase that begins while another is watched.
        activity.idle();
        let started = Instant::now();
        let begins = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            activity.sending();
        };
        let (stuck, ()) = tokio::join!(activity.overdue(IDLE, LAPSE), begins);
        assert!(stuck);
        assert!(started.elapsed() <= LAPSE * 2);
    }
}
