//! What goes on in a store by itself: deadlines, the cooling of warm memory, the drain.
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::Store;
use crate::sync::time::timeout_at;

impl Store {
    /// Begins to drain: puts completed from now on expire within `grace`; after it no payload is accepted and no lease
    /// granted. A second call can only shorten the grace.
    pub fn drain(&self, grace: Duration) {
        self.shared.with(|state, now| state.ledger.drain(now, grace));
        self.shared.idle.notify_waiters();
    }

    /// Resolves once the store drains and either holds nothing or its grace is over.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move {
            loop {
                let mut idle = std::pin::pin!(shared.idle.notified());
                idle.as_mut().enable();
                let (empty, deadline) =
                    shared.with(|state, _| (state.ledger.is_empty(), state.ledger.drain_deadline()));
                match deadline {
                    None => idle.await,
                    Some(_) if empty => return,
                    Some(at) => {
                        let until = shared.origin + at;
                        if timeout_at(until, idle).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Drives expiry, lapses and linger, and frees warm segments that nobody took for 30 s. Never resolves; its owner
    /// runs one of it as a task. Without it deadlines are met only when something else happens to the store.
    pub fn run_expiry(&self) -> impl Future<Output = ()> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move {
            loop {
                // `with` does what is due.
                let (next, cold) = shared.with(|state, now| {
                    let cold = state.pool.cool(now);
                    state.wakes_at =
                        state.ledger.next_deadline().into_iter().chain(state.pool.cools_at()).min();
                    (state.wakes_at, cold)
                });
                drop(cold);
                let earlier = shared.deadline.notified();
                match next {
                    // Elapsed or moved, the next round looks again.
                    Some(at) => drop(timeout_at(shared.origin + at, earlier).await),
                    None => earlier.await,
                }
            }
        }
    }
}
