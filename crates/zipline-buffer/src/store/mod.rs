//! The asynchronous face over ledger and segments.
//!
//! One lock guards the ledger, the pool and the tables of those who wait; it is held for decisions, never while bytes
//! are copied or freed and never across an await. Who waits holds a oneshot; answers are sent under the lock, so that
//! a wait that is given up knows for certain whether it was answered.
mod adopt;
mod copy;
mod drive;
mod expect;
mod guard;
mod prepare;
mod reader;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
mod wait;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use zipline_protocol::{LeaseId, PayloadId, limits};

use crate::block::{Home, LARGE, Pool, Returned};
use crate::config::{Delivered, LeaseRequest, PayloadInfo, Snapshot, Spec, StoreConfig};
use crate::content::Content;
use crate::error::{AckError, BeginError, Gone, LeaseError, ReleaseError};
use crate::ledger::{
    Admission, Begun, Effect, Grant, LeaseKey, LeaseWish, Leased, Ledger, Limits, Serial, Ticket,
};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::time::{Instant, timeout_at};
use crate::sync::{Mutex, Notify, oneshot};
pub use adopt::Charge;
pub use copy::CopyWriter;
pub use expect::Expected;
pub use guard::PayloadGuard;
pub use reader::PayloadReader;
use wait::{PendingBegin, PendingLease};
pub use writer::PayloadWriter;

/// The payloads of one holder. Clones share them.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    config: StoreConfig,
    origin: Instant,
    /// The next deadline moved to an earlier time.
    deadline: Notify,
    /// The last payload is gone, or the drain began or ended.
    idle: Notify,
    /// Memory for the next grant is wanted.
    wanted: Notify,
    next_local: AtomicU64,
    expected: expect::Expectations,
}

struct State {
    ledger: Ledger,
    pool: Pool,
    contents: HashMap<PayloadId, Arc<Content>>,
    begins: HashMap<Ticket, WaitingBegin>,
    growths: HashMap<Ticket, oneshot::Sender<()>>,
    grants: HashMap<Ticket, oneshot::Sender<bool>>,
    leases: HashMap<Ticket, oneshot::Sender<Result<Grant, LeaseError>>>,
    /// Until when the driver of [`Store::run_expiry`] sleeps; `None`: until it is told.
    wakes_at: Option<Duration>,
}

struct WaitingBegin {
    id: PayloadId,
    content: Arc<Content>,
    answer: oneshot::Sender<Option<Serial>>,
}

impl Shared {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Runs `decide` under the lock, then tells everyone whom it concerns.
    fn with<R>(&self, decide: impl FnOnce(&mut State, Duration) -> R) -> R {
        let mut state = self.state.lock();
        // Read under the lock, so that the ledger never sees time run backwards.
        let now = self.now();
        let mut freed = Vec::new();
        if state.ledger.next_deadline().is_some_and(|at| at <= now) {
            state.ledger.expire(now);
            // Told before `decide` runs: what it does for a waiter depends on whether that one was answered.
            self.tell(&mut state, &mut freed);
        }
        let result = decide(&mut state, now);
        self.tell(&mut state, &mut freed);
        drop(state);
        // Dropping bytes takes the lock again.
        for content in freed {
            content.clear();
        }
        result
    }

    /// Wakes the driver if warm memory cools before it would look.
    fn heed_cooling(&self, state: &State) {
        if let Some(at) = state.pool.cools_at()
            && state.wakes_at.is_none_or(|wakes_at| at < wakes_at)
        {
            self.deadline.notify_one();
        }
    }

    /// Adds to `freed` what is to be cleared without the lock.
    fn tell(&self, state: &mut State, freed: &mut Vec<Arc<Content>>) {
        for effect in state.ledger.take_effects() {
            match effect {
                Effect::Accepted(ticket, serial) => {
                    if let Some(waiting) = state.begins.remove(&ticket) {
                        if serial.is_some() {
                            state.contents.insert(waiting.id, waiting.content);
                        }
                        // The waiter's drop finds the answer if it is not waiting any more.
                        let _unheard = waiting.answer.send(serial);
                    }
                }
                Effect::Grown(ticket) => {
                    if let Some(answer) = state.growths.remove(&ticket) {
                        let _unheard = answer.send(());
                    }
                }
                Effect::Granted(ticket, granted) => {
                    if let Some(answer) = state.grants.remove(&ticket) {
                        let _unheard = answer.send(granted);
                    }
                }
                Effect::Leased(ticket, outcome) => {
                    if let Some(answer) = state.leases.remove(&ticket) {
                        let _unheard = answer.send(outcome);
                    }
                }
                Effect::Readers(id) => {
                    if let Some(content) = state.contents.get(&id) {
                        content.readable.notify_waiters();
                    }
                }
                Effect::Writer(id) => {
                    if let Some(content) = state.contents.get(&id) {
                        content.writable.notify_waiters();
                    }
                }
                Effect::Settled(id, settled) => {
                    if let Some(content) = state.contents.get(&id) {
                        content.settled.get_or_init(|| settled);
                        content.changed.notify_waiters();
                    }
                }
                Effect::Gone(id, reason) => {
                    if let Some(content) = state.contents.remove(&id) {
                        content.gone.get_or_init(|| reason);
                        content.readable.notify_waiters();
                        content.writable.notify_waiters();
                        freed.push(content);
                    }
                }
                Effect::Deadline => self.deadline.notify_one(),
                Effect::Empty => self.idle.notify_waiters(),
            }
        }
    }
}

impl Home for Shared {
    fn block_dropped(&self, returned: Returned) {
        let unused = self.with(|state, now| {
            state.ledger.block_dropped(now, &returned.payload, returned.serial, returned.bytes);
            let unused = returned.into_pool(now, &mut state.pool);
            self.heed_cooling(state);
            unused
        });
        drop(unused);
    }
}

impl Store {
    /// An empty store. It keeps up to a quarter of its budget in warm segments while they are used, and up to half of it together
    /// with what is prepared for grants; see [`Self::keep_warm`], [`Self::run_expiry`] and [`Self::run_prepare`].
    pub fn new(config: StoreConfig) -> Self {
        let ledger = Ledger::new(Limits {
            budget_bytes: config.budget_bytes,
            window_bytes: config.window_bytes,
            segment_bytes: limits::SEGMENT as u64,
            large_bytes: LARGE,
            max_payloads: config.max_payloads,
            max_waiters: config.max_waiters,
            leases_per_peer: limits::LEASES_PER_PEER,
            spent_remembered: limits::SPENT_REMEMBERED,
            lease_lapse: limits::LEASE_LAPSE,
        });
        let state = State {
            ledger,
            pool: Pool::new(config.budget_bytes, config.budget_bytes / 4),
            contents: HashMap::new(),
            begins: HashMap::new(),
            growths: HashMap::new(),
            grants: HashMap::new(),
            leases: HashMap::new(),
            wakes_at: None,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                config,
                origin: Instant::now(),
                deadline: Notify::new(),
                idle: Notify::new(),
                wanted: Notify::new(),
                next_local: AtomicU64::new(0),
                expected: expect::Expectations::default(),
            }),
        }
    }

    /// Keeps at most `bytes` of warm blocks for reuse, and twice as many together with what is prepared, always within the
    /// budget; frees what is more.
    pub fn keep_warm(&self, bytes: u64) {
        let discarded = self.shared.with(|state, _| state.pool.keep(bytes));
        drop(discarded);
    }

    /// Accepts a payload once its memory is reserved: all of it, or its window, or a growing one's first segment.
    ///
    /// Waiters are served first come, first served, at most `max_waiters` of them. Nothing overtakes them, so while one
    /// waits a payload that may not wait is refused.
    /// # Errors
    /// [`BeginError::BufferFull`]: no memory within `spec.wait`; [`BeginError::TooLarge`]: not windowed and longer than
    /// the budget; [`BeginError::Draining`]: the grace is over.
    /// # Cancel safety
    /// Dropping the future gives up its place, or the payload if it was just accepted.
    pub fn begin(
        &self,
        spec: Spec,
    ) -> impl Future<Output = Result<(PayloadWriter, PayloadGuard), BeginError>> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move {
            let Spec { id, kind, length, retrievals, ttl, linger, wait, windowed } = spec;
            let content = Arc::new(Content::new(length));
            let admission = Admission { id, kind, length, retrievals, ttl, linger, windowed, adopted: false };
            let begun = shared.with(|state, now| {
                let begun = state.ledger.begin(now, admission, wait.is_some())?;
                let (answer, answered) = oneshot::channel();
                let content = Arc::clone(&content);
                match begun {
                    Begun::Accepted(_) => drop(state.contents.insert(id, content)),
                    Begun::Waits(ticket) => {
                        drop(state.begins.insert(ticket, WaitingBegin { id, content, answer }))
                    }
                }
                Ok::<_, BeginError>((begun, answered))
            })?;
            let serial = match begun {
                (Begun::Accepted(serial), _) => serial,
                (Begun::Waits(ticket), answered) => {
                    let pending = PendingBegin::new(Arc::clone(&shared), ticket, id, answered);
                    pending.wait(wait.unwrap_or_default(), length).await?
                }
            };
            let writer =
                PayloadWriter::new(Arc::clone(&shared), Arc::clone(&content), id, serial, length, wait);
            Ok((writer, PayloadGuard::new(shared, content, id, serial)))
        }
    }

    /// Takes a lease, or resumes the running lease of the same id, whose older reader then ends.
    ///
    /// While all retrievals are taken by running leases, or the peer has all the leases one address may have, it waits up
    /// to `LEASE_LAPSE`, first come, first served. For a payload that is [`Expected`] it waits as long.
    /// # Errors
    /// See [`LeaseError`]; [`LeaseError::data_status`] is the data port's answer.
    /// # Cancel safety
    /// Dropping the future gives up its place, or the lease if it was just granted.
    pub fn lease(
        &self,
        request: LeaseRequest,
    ) -> impl Future<Output = Result<PayloadReader, LeaseError>> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move {
            let LeaseRequest { payload, lease, peer, from, to } = request;
            let wish = LeaseWish { payload, key: LeaseKey::Remote(lease), peer: Some(peer), from, to };
            let deadline = Instant::now() + limits::LEASE_LAPSE;
            let (leased, content, answered) = loop {
                // Asked first, so that what arrives between the question and the lease is heard.
                let arrival = shared.expected.arrival(&payload);
                let asked = shared.with(|state, now| {
                    let leased = state.ledger.lease(now, wish)?;
                    let (answer, answered) = oneshot::channel();
                    if let Leased::Waits(ticket) = leased {
                        state.leases.insert(ticket, answer);
                    }
                    let content = state.contents.get(&payload).cloned().ok_or(LeaseError::NotFound)?;
                    Ok::<_, LeaseError>((leased, content, answered))
                });
                match (asked, arrival) {
                    (Err(LeaseError::NotFound), Some(arrival)) => {
                        timeout_at(deadline, arrival).await.map_err(|_elapsed| LeaseError::NotFound)?;
                    }
                    (asked, _) => break asked?,
                }
            };
            let grant = match leased {
                Leased::Granted(grant) => grant,
                Leased::Waits(ticket) => {
                    PendingLease::new(Arc::clone(&shared), ticket, answered).wait().await?
                }
            };
            Ok(PayloadReader::new(shared, content, grant, from, to))
        }
    }

    /// Reads a part for a lease that runs, beside its other readers. It takes no retrieval, and ends with the lease.
    ///
    /// # Errors
    /// [`LeaseError::NotFound`] if the lease does not run; otherwise see [`LeaseError`].
    pub fn part(&self, request: LeaseRequest) -> Result<PayloadReader, LeaseError> {
        let LeaseRequest { payload, lease, from, to, .. } = request;
        let lease = LeaseKey::Remote(lease);
        let key = LeaseKey::Local(self.shared.next_local.fetch_add(1, Ordering::Relaxed));
        let wish = LeaseWish { payload, key, peer: None, from, to };
        let (leased, content) = self.shared.with(|state, now| {
            if !state.ledger.support(now, &payload, lease) {
                return Err(LeaseError::NotFound);
            }
            let content = state.contents.get(&payload).cloned().ok_or(LeaseError::NotFound)?;
            Ok((state.ledger.lease(now, wish)?, content))
        })?;
        match leased {
            Leased::Granted(grant) => {
                Ok(PayloadReader::new(Arc::clone(&self.shared), content, grant, from, to).part_of(lease))
            }
            // Local leases never wait.
            Leased::Waits(_) => Err(LeaseError::TooMany),
        }
    }

    /// Every byte of the lease was delivered: its retrieval counts. Repeating it changes nothing, also when the payload
    /// was spent meanwhile; then there is no delivery to tell of.
    ///
    /// # Errors
    /// [`AckError`]: the payload or the lease is not known (any more).
    pub fn acknowledge(&self, payload: &PayloadId, lease: &LeaseId) -> Result<Option<Delivered>, AckError> {
        let key = LeaseKey::Remote(*lease);
        self.shared.with(|state, now| {
            if let Some(content) = state.contents.get(payload) {
                content.were_read(key);
            }
            let delivered = state.ledger.would_deliver(now, payload, key);
            state.ledger.acknowledge(now, payload, key).map(|()| delivered)
        })
    }

    /// The lease is given up; nothing is spent. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`AckError`]: the payload is not known (any more).
    pub fn cancel(&self, payload: &PayloadId, lease: &LeaseId) -> Result<(), AckError> {
        self.shared.with(|state, now| state.ledger.cancel_lease(now, payload, LeaseKey::Remote(*lease)))
    }

    /// The receiver of a lease lives, though it may take no bytes now. Of bytes that it has from elsewhere it says how many: more
    /// of them than before are progress.
    ///
    /// # Errors
    /// [`AckError`]: the lease is not known (any more).
    pub fn alive(&self, payload: &PayloadId, lease: &LeaseId, elsewhere: u64) -> Result<(), AckError> {
        self.shared.with(|state, now| state.ledger.alive(now, payload, LeaseKey::Remote(*lease), elsewhere))
    }

    /// Frees a payload; its readers end. Releasing a spent one changes nothing.
    ///
    /// # Errors
    /// [`ReleaseError`]: not known, or expired.
    pub fn release(&self, payload: &PayloadId) -> Result<(), ReleaseError> {
        self.shared.with(|state, now| state.ledger.release(now, payload)).map_err(|gone| match gone {
            Gone::Expired => ReleaseError::Expired,
            Gone::Aborted | Gone::Released | Gone::Spent => ReleaseError::NotFound,
        })
    }

    /// [`Self::release`] of a payload that may be [`Expected`]: waits for it up to `LEASE_LAPSE`.
    ///
    /// # Errors
    /// [`ReleaseError`]: not known, or expired.
    /// # Cancel safety
    /// Dropping the future releases nothing.
    pub fn release_expected(
        &self,
        payload: PayloadId,
    ) -> impl Future<Output = Result<(), ReleaseError>> + Send + 'static {
        let store = self.clone();
        async move {
            let deadline = Instant::now() + limits::LEASE_LAPSE;
            loop {
                // Asked first, so that what arrives between the question and the release is heard.
                let arrival = store.shared.expected.arrival(&payload);
                match (store.release(&payload), arrival) {
                    (Err(ReleaseError::NotFound), Some(arrival)) => {
                        timeout_at(deadline, arrival).await.map_err(|_elapsed| ReleaseError::NotFound)?;
                    }
                    (released, _) => return released,
                }
            }
        }
    }

    /// One payload's state; `None` if it is not here.
    pub fn info(&self, payload: &PayloadId) -> Option<PayloadInfo> {
        self.shared.with(|state, now| state.ledger.info(now, payload))
    }

    /// What is held now. Lists at most [`Snapshot::PAYLOADS_MAX`] payloads, the oldest.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.totals();
        snapshot.payloads = self.shared.with(|state, now| state.ledger.list(now, Snapshot::PAYLOADS_MAX));
        snapshot
    }

    /// As [`Self::snapshot`], without the list: cheap, whatever is held.
    pub fn totals(&self) -> Snapshot {
        let budget_bytes = self.shared.config.budget_bytes;
        self.shared.with(|state, _| Snapshot {
            held_bytes: state.ledger.charged_bytes(),
            peak_bytes: state.ledger.peak_bytes(),
            budget_bytes,
            warm_bytes: state.pool.warm_bytes(),
            allocated_bytes: state.pool.allocated_bytes(),
            payload_count: state.ledger.payload_count(),
            waiters: state.ledger.memory_waiters(),
            lease_waiters: state.ledger.lease_waiters(),
            leases: state.ledger.running_leases(),
            draining: state.ledger.drain_deadline().is_some(),
            payloads: Vec::new(),
        })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("config", &self.shared.config).finish_non_exhaustive()
    }
}
