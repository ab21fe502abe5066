//! Memory that one SDK connection shares with its queue-proxy.
//!
//! *Outgoing* segments are written by the function, *incoming* ones by the queue-proxy. Neither kind is ever used by another
//! connection: what a function may still have mapped is written again only when it said that it is done. Outgoing memory
//! counts against the budget of what is held, incoming memory against the one of what is in flight, while it exists; what is warm
//! and unused goes when it is idle, and with the connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use zipline_buffer::{BeginError, Charge, InFlight, Permit, Store};
use zipline_protocol::ErrorCode;
use zipline_segment::{Home, HugePages, Mapping, SegmentMut};
use zipline_transfer::Copies;

use crate::api::Refusal;

/// Smallest segment.
const SEGMENT_MIN: u64 = 256 * 1024;

/// A warm segment may be this many times larger than the payload it is taken for.
const WASTE_MAX: u64 = 8;

/// Warm segments of one connection.
const WARM_MAX: usize = 16;

/// What bounds the largest payload that is got in one piece.
const IN_FLIGHT_SETTINGS: &str = "the budget: ZIPLINE_INFLIGHT_BYTES of the queue-proxy, --in-flight of `zipline up`, \
                                  zipline.internal/in-flight on Knative";

/// What bounds the largest payload that is put in one piece.
const HELD_SETTINGS: &str = "raise the budget: ZIPLINE_BUDGET_BYTES of the queue-proxy, --budget of `zipline up`, \
                             zipline.internal/budget";

/// Copies for others that nobody retrieves may lie in warm segments; after so long they give way to what their function gets next.
const COPY_IDLE: Duration = Duration::from_millis(250);

/// Warm segments go when they were not used for so long.
pub(super) const WARM_IDLE: Duration = Duration::from_secs(20);

/// Capacity for a payload of `len` bytes: at most a quarter more, so that segments of like payloads fit each other.
pub(super) fn capacity(len: u64) -> u64 {
    let len = len.max(SEGMENT_MIN);
    let step = (1_u64 << len.ilog2()) / 4;
    len.checked_next_multiple_of(step).unwrap_or(len)
}

/// A mapping and its share of a budget: of what is held for outgoing ones, of what is in flight for incoming ones.
#[derive(Debug)]
pub(super) struct Charged<C> {
    pub(super) mapping: Mapping,
    charge: C,
}

impl<C: Send + Sync + 'static> Charged<C> {
    fn new(charge: C, capacity: u64) -> Result<Self, Refusal> {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
        let mapping = Mapping::create(capacity, HugePages::Off).map_err(|error| {
            let detail = format!("the system gives no memory for {capacity} bytes: {error}");
            Refusal::new(ErrorCode::BufferFull, detail)
        })?;
        Ok(Self { mapping, charge })
    }

    /// The right to write it; `returned` takes it back.
    pub(super) fn lend(self, returned: impl FnOnce(Self) + Send + Sync + 'static) -> SegmentMut {
        let Self { mapping, charge } = self;
        SegmentMut::whole(mapping, Some(Box::new(Borrowed { charge, returned })))
    }

    /// Ends this side's mapping and descriptor; what is left is its share, for whoever else has it mapped.
    pub(super) fn unmap(self) -> C {
        self.charge
    }
}

impl Charged<Permit> {
    /// Its pages go, whoever still maps them; those of memory that was shown go with its last mapping.
    fn discard(mut self) -> Gone {
        // Sealed memory keeps its pages until it goes as a whole.
        let _ = self.mapping.discard_from(0);
        Gone { mapping: self.mapping.id(), share: self.charge }
    }
}

/// An outgoing segment.
pub(super) type Granted = Charged<Charge>;

/// An outgoing segment of at least `len` bytes, once there is budget for it: one that was prepared, or a new one.
///
/// # Errors
/// `payload-too-large` beyond the whole budget, `buffer-full` if none comes free within `wait`.
pub(super) async fn grant(store: &Store, len: u64, wait: Duration) -> Result<Granted, Refusal> {
    let capacity = capacity(len);
    // Where rounding alone is too much for the budget, it is not rounded.
    let capacity = if store.totals().budget_bytes < capacity { len } else { capacity };
    let refused = |error: BeginError| {
        let way_out = match error {
            BeginError::TooLarge { .. } => HELD_SETTINGS,
            _ => "drop buffers, or wait longer",
        };
        Refusal::new(error.code(), format_args!("no memory for {len} bytes: {error}; {way_out}"))
    };
    let charge = store.grant(capacity, Some(wait)).await.map_err(refused)?;
    match charge.prepared() {
        Some(mapping) => Ok(Charged { mapping, charge }),
        None => Charged::new(charge, capacity),
    }
}

/// Makes an incoming segment of at least `len` bytes, once there is budget for it.
async fn receive(budget: &InFlight, len: u64) -> Result<Charged<Permit>, Refusal> {
    let (capacity, most) = (capacity(len), budget.budget_bytes());
    if len > most {
        return Err(Refusal::new(
            ErrorCode::PayloadTooLarge,
            format_args!(
                "a payload of {len} bytes in one piece is more than the {most} bytes that may be in flight here: get it as \
                 a stream, or raise {IN_FLIGHT_SETTINGS}"
            ),
        ));
    }
    let permit = budget.acquire(capacity).await.map_err(|error| Refusal::new(error.code(), error))?;
    Charged::new(permit, capacity)
}

struct Borrowed<C, F> {
    charge: C,
    returned: F,
}

impl<C: Send + Sync, F: FnOnce(Charged<C>) + Send + Sync> Home for Borrowed<C, F> {
    fn returned(self: Box<Self>, mapping: Mapping) {
        let Self { charge, returned } = *self;
        returned(Charged { mapping, charge });
    }
}

/// The warm segments for payloads that one function gets.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    shared: Arc<Warm>,
}

/// Memory that was given up. Where the function was shown it, its pages stay until that one unmaps it.
#[derive(Debug)]
pub(super) struct Gone {
    /// The mapping that it was.
    pub(super) mapping: u64,
    /// Its share of the budget, which its pages count against.
    pub(super) share: Permit,
}

#[derive(Debug)]
struct Warm {
    budget: InFlight,
    /// What others may retrieve of what lies here.
    copies: Option<Copies>,
    state: Mutex<WarmState>,
    /// Something was given up.
    bell: Notify,
}

#[derive(Debug, Default)]
struct WarmState {
    segments: Vec<(Charged<Permit>, Instant)>,
    /// What was given up, and may still be mapped by the function.
    gone: Vec<Gone>,
    /// The connection has ended: what comes back may still be mapped, and is never used again.
    closed: bool,
}

impl Incoming {
    pub(super) fn new(budget: InFlight, copies: Option<Copies>) -> Self {
        Self { shared: Arc::new(Warm { budget, copies, state: Mutex::default(), bell: Notify::new() }) }
    }

    /// A segment for `len` bytes, warm if there is one.
    ///
    /// # Errors
    /// `payload-too-large` beyond the whole budget, `buffer-full` if too many wait.
    /// # Cancel safety
    /// Dropping the future gives up its place.
    pub(super) async fn segment(&self, len: u64) -> Result<SegmentMut, Refusal> {
        let gave_way = || self.shared.copies.as_ref().is_some_and(|copies| copies.let_go_idle(COPY_IDLE));
        let warm = self.take(len).or_else(|| if gave_way() { self.take(len) } else { None });
        let charged = match warm {
            Some(warm) => warm,
            None => {
                // What is warm and does not fit must not keep budget from what is needed.
                let others = std::mem::take(&mut self.shared.state.lock().segments);
                let full =
                    self.shared.budget.used_bytes() + capacity(len) > self.shared.budget.budget_bytes();
                if full {
                    self.discard(others);
                } else {
                    self.shared.state.lock().segments.extend(others);
                }
                receive(&self.shared.budget, len).await?
            }
        };
        let shared = Arc::clone(&self.shared);
        let mut segment = charged.lend(move |charged| shared.give(charged));
        segment.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(segment)
    }

    fn take(&self, len: u64) -> Option<Charged<Permit>> {
        let mut state = self.shared.state.lock();
        let fits = |charged: &Charged<Permit>| {
            let capacity = charged.mapping.capacity() as u64;
            (capacity >= len && capacity / WASTE_MAX <= len.max(SEGMENT_MIN)).then_some(capacity)
        };
        let all = state.segments.iter().enumerate();
        let (_, at) = all.filter_map(|(at, (charged, _))| Some((fits(charged)?, at))).min()?;
        Some(state.segments.swap_remove(at).0)
    }

    /// Gives up warm segments that were not used for [`WARM_IDLE`].
    pub(super) fn cool(&self) {
        let now = Instant::now();
        let cold: Vec<_> = {
            let mut state = self.shared.state.lock();
            state.segments.extract_if(.., |(_, since)| now.duration_since(*since) >= WARM_IDLE).collect()
        };
        self.discard(cold);
    }

    fn discard(&self, warm: Vec<(Charged<Permit>, Instant)>) {
        let gone: Vec<_> = warm.into_iter().map(|(charged, _)| charged.discard()).collect();
        if !gone.is_empty() {
            self.shared.state.lock().gone.extend(gone);
            self.shared.bell.notify_one();
        }
    }

    /// What was given up since this was asked last.
    pub(super) fn gone(&self) -> Vec<Gone> {
        std::mem::take(&mut self.shared.state.lock().gone)
    }

    /// Resolves when something was given up since this was awaited last.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn some_gone(&self) {
        self.shared.bell.notified().await;
    }
}

impl Warm {
    fn give(&self, charged: Charged<Permit>) {
        let rest = {
            let mut state = self.state.lock();
            if state.closed {
                Some(charged)
            } else if state.segments.len() >= WARM_MAX || !charged.mapping.may_be_written_again(false) {
                // The function said that it is done with it, so its pages go where they can; those that a socket has of a copy
                // stay as they are.
                state.gone.push(charged.discard());
                self.bell.notify_one();
                None
            } else {
                state.segments.push((charged, Instant::now()));
                None
            }
        };
        // The function may still map it: its pages must stay.
        drop(rest);
    }
}

/// Ends the reuse of a connection's incoming memory.
#[derive(Debug)]
pub(super) struct Closing(pub(super) Incoming);

impl Drop for Closing {
    fn drop(&mut self) {
        let warm = {
            let mut state = self.0.shared.state.lock();
            state.closed = true;
            (std::mem::take(&mut state.segments), std::mem::take(&mut state.gone))
        };
        drop(warm);
    }
}

/// Outgoing segments whose payloads are gone, on their way back to their connection.
#[derive(Debug, Default)]
pub(super) struct Returns {
    queue: Mutex<Vec<(u32, Granted)>>,
    bell: Notify,
}

impl Returns {
    pub(super) fn give(&self, id: u32, charged: Granted) {
        self.queue.lock().push((id, charged));
        self.bell.notify_one();
    }

    pub(super) fn take(&self) -> Vec<(u32, Granted)> {
        std::mem::take(&mut *self.queue.lock())
    }

    /// Resolves when something was given since this was awaited last.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn some(&self) {
        self.bell.notified().await;
    }
}

/// A descriptor of the mapping that others may read and nobody may newly write through.
///
/// # Errors
/// What the kernel says.
pub(super) fn shown(mapping: &Mapping) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::AsFd as _;
    mapping.seal_future_write()?;
    mapping.as_fd().try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_waste_at_most_a_quarter() {
        for len in [1, 100_000, 262_144, 262_145, 1_000_000, 100_000_000, 1 << 30, (1 << 30) + 1] {
            let capacity = capacity(len);
            assert!(capacity >= len && capacity >= SEGMENT_MIN, "{len}");
            assert!(len < SEGMENT_MIN || capacity <= len + len / 4 + 1, "{len}: {capacity}");
            assert_eq!(super::capacity(capacity), capacity, "{len}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_back_is_used_again_until_it_is_cold() {
        let incoming = Incoming::new(InFlight::new(10 << 20), None);
        let first = incoming.segment(1_000_000).await.unwrap();
        let id = first.mapping().id();
        let second = incoming.segment(1_000_000).await.unwrap();
        assert_ne!(second.mapping().id(), id);
        drop(first);
        assert_eq!(incoming.segment(900_000).await.unwrap().mapping().id(), id, "it is warm");
        let used = incoming.shared.budget.used_bytes();
        drop(second);
        assert_eq!(incoming.shared.budget.used_bytes(), used, "warm memory counts");
        tokio::time::advance(WARM_IDLE).await;
        incoming.cool();
        let gone = incoming.gone();
        assert_eq!(incoming.shared.budget.used_bytes(), used, "its pages may be there still");
        drop(gone);
        assert_eq!(incoming.shared.budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn warm_memory_makes_room_for_what_does_not_fit_it() {
        let incoming = Incoming::new(InFlight::new(4 << 20), None);
        drop(incoming.segment(3 << 20).await.unwrap());
        // Its share comes when the connection knows that nobody has the other one mapped.
        let unmapped = async {
            incoming.some_gone().await;
            assert_eq!(incoming.gone().len(), 1);
        };
        let (large, ()) = tokio::join!(incoming.segment(4 << 20), unmapped);
        assert_eq!(large.unwrap().len(), 4 << 20);
        let error = incoming.segment(5 << 20).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::PayloadTooLarge);
        for named in ["5242880 bytes", "4194304 bytes", "ZIPLINE_INFLIGHT_BYTES", "--in-flight"] {
            assert!(error.detail().contains(named), "{named}: {error:?}");
        }
    }

    #[tokio::test]
    async fn memory_that_a_socket_has_pages_of_is_not_written_again() {
        let incoming = Incoming::new(InFlight::new(10 << 20), None);
        let segment = incoming.segment(1 << 20).await.unwrap();
        let (id, queued) = (segment.mapping().id(), segment.mapping().queue());
        drop(segment);
        let next = incoming.segment(1 << 20).await.unwrap();
        assert_ne!(next.mapping().id(), id);
        assert_eq!(incoming.gone().len(), 1, "the client is told to unmap it");
        drop(queued);
    }

    #[tokio::test]
    async fn the_next_grant_of_that_size_has_its_pages() {
        let store = Store::new(zipline_buffer::StoreConfig::with_budget(16 << 20));
        let first = grant(&store, 2_000_000, Duration::ZERO).await.unwrap();
        assert_eq!(first.mapping.touched_bytes(), 0);
        let prepared = async {
            while store.totals().warm_bytes == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = store.run_prepare() => unreachable!("it never resolves"),
            () = prepared => {}
        }
        let second = grant(&store, 1_900_000, Duration::ZERO).await.unwrap();
        assert_eq!(second.mapping.touched_bytes(), second.mapping.capacity());
        let error = grant(&store, 17 << 20, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::PayloadTooLarge);
        for named in ["17825792 bytes", "16777216 bytes", "ZIPLINE_BUDGET_BYTES", "--budget"] {
            assert!(error.detail().contains(named), "{named}: {error:?}");
        }
    }

    #[tokio::test]
    async fn after_the_end_of_the_connection_nothing_is_used_again() {
        let incoming = Incoming::new(InFlight::new(4 << 20), None);
        let segment = incoming.segment(1 << 20).await.unwrap();
        drop(incoming.segment(1 << 20).await.unwrap());
        drop(Closing(incoming.clone()));
        drop(segment);
        assert_eq!(incoming.shared.budget.used_bytes(), 0);
        assert!(incoming.shared.state.lock().segments.is_empty());
    }
}
