//! Memory for grants, made before it is asked for.
use std::future::Future;

use zipline_segment::{HugePages, Mapping};

use super::{Charge, Store};
use crate::pages;

impl Store {
    /// Makes the memory that grants will find ([`Charge::prepared`]), with its pages, on a thread of its own. While pages are made
    /// they count as held; what is made waits for 30 s and gives way to whoever needs the budget. Never resolves; the owner
    /// runs one of it as a task. Without it nothing is prepared.
    ///
    /// # Cancel safety
    /// Yes.
    pub fn run_prepare(&self) -> impl Future<Output = ()> + Send + 'static {
        let store = self.clone();
        async move {
            loop {
                let wanted = store.shared.wanted.notified();
                match store.shared.with(|state, _| state.pool.wanted()) {
                    Some(bytes) => store.prepare(bytes).await,
                    None => wanted.await,
                }
            }
        }
    }

    async fn prepare(&self, bytes: u64) {
        // Where the budget is used up, nothing can be prepared.
        let Ok(charge) = self.grant(bytes, None).await else { return };
        let Ok(capacity) = usize::try_from(bytes) else { return };
        match pages::make(capacity, HugePages::Off, charge).await {
            Ok((mapping, charge)) => charge.becomes_warm(mapping),
            Err(error) => tracing::debug!(%error, bytes, "no memory could be prepared"),
        }
    }
}

impl Charge {
    /// Memory of exactly as many bytes, with its pages and never seen by anybody, if it was prepared. Another one is prepared for
    /// the next grant of this size ([`Store::run_prepare`]).
    #[must_use]
    pub fn prepared(&self) -> Option<Mapping> {
        let shared = self.shared.upgrade()?;
        let taken = shared.with(|state, now| state.pool.take_prepared(now, self.bytes));
        shared.wanted.notify_one();
        taken
    }

    /// From now on the mapping is warm, and stands for itself.
    fn becomes_warm(mut self, mapping: Mapping) {
        let Some(shared) = self.shared.upgrade() else { return };
        let bytes = std::mem::take(&mut self.bytes);
        let unused = shared.with(|state, now| {
            state.pool.uncharge(bytes);
            let unused = state.pool.prepare(mapping);
            state.ledger.end_grant(now, bytes);
            shared.heed_cooling(state);
            unused
        });
        drop(unused);
    }
}
