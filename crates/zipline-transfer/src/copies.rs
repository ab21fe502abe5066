//! Copies of payloads that were fetched here, served to other receivers for a while (`docs/protocol.md` section 6.8).

use parking_lot::Mutex;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;
use zipline_buffer::{CopyWriter, PayloadPhase, Store, StoreConfig};
use zipline_protocol::relay::CopyPlace;
use zipline_protocol::{Record, ReferenceKind, Retrievals, limits};

/// Copies at once. What is fetched beyond it is not copied.
const COPIES_MAX: usize = 256;

/// The copies of one process. A [`Retriever`](crate::Retriever) makes them, a [`DataPort`](crate::DataPort) serves them. Clones are
/// the same.
///
/// A copy is the memory that its payload was fetched into, kept a little longer than its function needs it, and accounted for by
/// whoever gave that memory. It is never needed: it may be let go of at any time, and whoever retrieves it goes on elsewhere.
#[derive(Clone)]
pub struct Copies {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    place: CopyPlace,
    willing: Box<dyn Fn() -> bool + Send + Sync>,
    /// Until when none is begun.
    paused: Mutex<Option<Instant>>,
}

impl Copies {
    /// None yet. They are served by the data port at `place`, and begun only while `willing` says so.
    #[must_use]
    pub fn new(place: CopyPlace, willing: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        // Nothing is charged here: their memory is charged where it came from.
        let store = Store::new(StoreConfig { max_payloads: COPIES_MAX, ..StoreConfig::with_budget(0) });
        let (willing, paused) = (Box::new(willing), Mutex::new(None));
        Self { shared: Arc::new(Shared { store, place, willing, paused }) }
    }

    /// Ends copies whose time is over. Never resolves; its owner runs one of it as a task.
    pub async fn run_expiry(&self) {
        self.shared.store.run_expiry().await;
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.store.totals().payload_count
    }

    /// Lets copies go because their memory is wanted: those that nobody retrieves now, or, if there are none, all. False if there
    /// was none at all.
    pub fn give_way(&self) -> bool {
        self.let_go(|idle, _| idle) || self.let_go(|_, _| true)
    }

    /// [`Self::give_way`] for whoever accounts for their memory, which would keep them and itself alive otherwise.
    pub fn lender(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let shared = Arc::downgrade(&self.shared);
        move || Weak::upgrade(&shared).is_some_and(|shared| Self { shared }.give_way())
    }

    /// Lets copies go that nobody retrieves and that were begun so long ago, so that their memory can be used again. False if there
    /// was none.
    pub fn let_go_idle(&self, age: Duration) -> bool {
        self.let_go(|idle, begun| idle && begun >= age)
    }

    fn let_go(&self, which: impl Fn(bool, Duration) -> bool) -> bool {
        let mut any = false;
        for copy in self.shared.store.snapshot().payloads {
            let idle = copy.phase == PayloadPhase::Held && copy.leases == 0;
            any |= which(idle, copy.age) && self.shared.store.release(&copy.id).is_ok();
        }
        any
    }

    /// Begins none for a while: whoever offers a copy may be sent to a relay, and those cannot be reached from here.
    pub(crate) fn pause(&self) {
        *self.shared.paused.lock() = Some(Instant::now() + limits::UNREACHABLE);
    }

    pub(crate) fn store(&self) -> &Store {
        &self.shared.store
    }

    pub(crate) fn place(&self) -> &CopyPlace {
        &self.shared.place
    }

    /// Begins a copy of what `record` names, if others may want it.
    pub(crate) fn begin(&self, record: &Record) -> Option<CopyWriter> {
        let length = record.length.filter(|length| *length >= limits::RELAY_MIN)?;
        let for_many = record.kind == ReferenceKind::Put && record.retrievals != Retrievals::Limited(1);
        let is_paused = self.shared.paused.lock().is_some_and(|until| until > Instant::now());
        if !for_many || is_paused || !(self.shared.willing)() {
            return None;
        }
        self.shared.store.copy(record.payload, length, limits::COPY_KEPT).ok()
    }
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies").field("place", &self.shared.place).finish_non_exhaustive()
    }
}
