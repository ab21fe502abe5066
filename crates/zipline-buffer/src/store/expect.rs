//! Payloads that are about to be put: their references were issued in advance, so a receiver may ask before they are here.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use zipline_protocol::PayloadId;

use super::{Shared, Store};
use crate::sync::{Mutex, Notify, OwnedNotified};

/// Who is expected, and how those who wait for one are told. A waiter makes the bell.
#[derive(Debug, Default)]
pub(super) struct Expectations(Mutex<HashMap<PayloadId, Option<Arc<Notify>>>>);

impl Expectations {
    /// Resolves when the payload is there, or is expected no more; `None` if it is not expected.
    pub(super) fn arrival(&self, id: &PayloadId) -> Option<OwnedNotified> {
        let mut expected = self.0.lock();
        let bell = expected.get_mut(id)?.get_or_insert_default();
        // It hears what is rung from now on, polled or not.
        Some(Arc::clone(bell).notified_owned())
    }

    fn end(&self, ids: impl IntoIterator<Item = PayloadId>) {
        let mut expected = self.0.lock();
        let bells: Vec<_> = ids.into_iter().filter_map(|id| expected.remove(&id).flatten()).collect();
        drop(expected);
        for bell in bells {
            bell.notify_waiters();
        }
    }
}

/// Ids of payloads that one client may still put. Dropping it ends the expectation, and with it the waits.
pub struct Expected {
    shared: Arc<Shared>,
    ids: HashSet<PayloadId>,
}

impl Store {
    /// Leases on ids that are added to it wait for their payload, at most `LEASE_LAPSE`, which is longer than a put that names no
    /// other time waits for memory. Whoever owns it bounds their number.
    pub fn expectation(&self) -> Expected {
        Expected { shared: Arc::clone(&self.shared), ids: HashSet::new() }
    }
}

impl Expected {
    /// How many are expected.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether none is expected.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Expects one more payload.
    pub fn add(&mut self, id: PayloadId) {
        self.shared.expected.0.lock().insert(id, None);
        self.ids.insert(id);
    }

    /// Whether this payload was expected, and is not from now on: its put has begun, or has failed. Those who wait look for it.
    pub fn ends(&mut self, id: &PayloadId) -> bool {
        let was = self.ids.remove(id);
        if was {
            self.shared.expected.end([*id]);
        }
        was
    }

    /// Whether this payload is expected.
    pub fn contains(&self, id: &PayloadId) -> bool {
        self.ids.contains(id)
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.shared.expected.end(self.ids.drain());
    }
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expected").field("len", &self.ids.len()).finish_non_exhaustive()
    }
}
