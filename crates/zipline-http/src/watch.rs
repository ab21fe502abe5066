//! What a served HTTP/2 connection is doing, for its limits of time.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Shared between the connection, its requests and its timer.
#[derive(Debug)]
pub(crate) struct Watch {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    in_flight: usize,
    idle_since: Instant,
}

impl Watch {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { in_flight: 0, idle_since: Instant::now() }) })
    }

    pub(crate) fn request_started(self: &Arc<Self>) -> Arc<InFlight> {
        self.state.lock().in_flight += 1;
        Arc::new(InFlight { watch: Arc::clone(self) })
    }

    /// When the connection has been idle for `limit`; `None` while requests are served.
    pub(crate) fn idle_until(&self, limit: Duration) -> Option<Instant> {
        let state = self.state.lock();
        (state.in_flight == 0).then(|| state.idle_since + limit)
    }
}

/// One request being served: alive until its response is done.
#[derive(Debug)]
pub(crate) struct InFlight {
    watch: Arc<Watch>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.watch.state.lock();
        state.in_flight -= 1;
        state.idle_since = Instant::now();
    }
}
