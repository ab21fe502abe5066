//! Warm mappings for bytes that have to lie in one piece.
//!
//! | mapping | goes to |
//! |---|---|
//! | taken | somebody's, until it is given back |
//! | given back | warm, if there is room for it; else unmapped |
//! | warm | taken by whoever wants about as much; unmapped when room is needed, or when none was taken for [`Shelf::IDLE`] |
//!
//! Whoever takes one and finds none warm gets a cold one, and [`Shelf::run`] then makes another one of that size, with its
//! pages, so that the next one is served warm. A warm mapping keeps its pages up to what was written last; what lies behind
//! the bytes it is taken for is given back to the kernel, so that no more pages exist than are accounted for.
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use zipline_segment::{HugePages, Mapping};

use crate::pages;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::time::{Instant, timeout_at};
use crate::sync::{Mutex, Notify};

/// Capacities are multiples of at least this.
const GRANULE_MIN: usize = 64 * 1024;

/// Most mappings kept warm: each is a descriptor.
const WARM_MAX: usize = 64;

/// Says how many bytes may be warm once so many, which are in use now, are not any more.
type Room = dyn Fn(u64) -> u64 + Send + Sync;

/// Warm mappings of any size. Clones share them.
#[derive(Clone)]
pub struct Shelf {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// As in `state`, to be read without its lock.
    warm_bytes: AtomicU64,
    room: Box<Room>,
    huge: HugePages,
    changed: Notify,
}

struct State {
    warm: Vec<Mapping>,
    quiet_since: Instant,
    /// Capacity of what was wanted last and not there.
    missed: Option<usize>,
}

impl State {
    fn bytes(&self) -> u64 {
        self.warm.iter().map(|mapping| mapping.touched_bytes() as u64).sum()
    }
}

impl Shelf {
    /// Warm mappings are unmapped after this time without anyone taking one.
    pub const IDLE: Duration = Duration::from_secs(30);

    /// An empty one. `room` says how many bytes may be warm once so many that are in use now are not any more. It is asked
    /// often, under the shelf's lock, so that nobody comes between its answer and what is done by it.
    #[must_use]
    pub fn new(room: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Self {
        let state = State { warm: Vec::new(), quiet_since: Instant::now(), missed: None };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                warm_bytes: AtomicU64::new(0),
                room: Box::new(room),
                huge: HugePages::detect(),
                changed: Notify::new(),
            }),
        }
    }

    /// Capacity of the mappings that serve `len` bytes: at most an eighth more, so that neighbours share them.
    #[must_use]
    pub fn capacity_for(len: usize) -> usize {
        let granule = (len.checked_next_power_of_two().unwrap_or(usize::MAX) / 16).max(GRANULE_MIN);
        len.max(1).checked_next_multiple_of(granule).unwrap_or(len)
    }

    /// A mapping of at least `len` bytes: a warm one, or a new one without pages.
    ///
    /// # Errors
    /// What the kernel says when it has no memory or no descriptor left.
    pub fn take(&self, len: usize) -> io::Result<Mapping> {
        let capacity = Self::capacity_for(len);
        let mut state = self.shared.state.lock();
        state.quiet_since = Instant::now();
        let fits = |mapping: &Mapping| mapping.capacity() >= len && mapping.capacity() <= capacity;
        // The last one that came back is the one most likely to be in a cache.
        if let Some(index) = state.warm.iter().rposition(fits) {
            let mut mapping = state.warm.swap_remove(index);
            self.recount(&state);
            drop(state);
            // Pages of memory that was sealed for others cannot be given back, except with all of it.
            if mapping.discard_from(len).is_ok() {
                return Ok(mapping);
            }
            return Mapping::create(capacity, self.shared.huge);
        }
        state.missed = Some(capacity);
        drop(state);
        self.shared.changed.notify_one();
        Mapping::create(capacity, self.shared.huge)
    }

    /// Takes a mapping back that nobody writes or reads any more, and afterwards `share`, the `bytes` of the budget it stood
    /// for: its pages are accounted for at every moment.
    pub fn give<S>(&self, mapping: Mapping, share: S, bytes: u64) {
        let mut state = self.shared.state.lock();
        let fits = state.bytes() + mapping.touched_bytes() as u64 <= (self.shared.room)(bytes);
        // Whoever was shown it may look at it for ever.
        let may = mapping.may_be_written_again(false);
        if may && mapping.touched_bytes() > 0 && state.warm.len() < WARM_MAX && fits {
            if state.warm.is_empty() {
                state.quiet_since = Instant::now();
                self.shared.changed.notify_one();
            }
            state.warm.push(mapping);
            self.recount(&state);
            drop(state);
        } else {
            drop(state);
            discard(vec![mapping]);
        }
        // Whoever takes it now looks at what is warm afterwards.
        drop(share);
    }

    /// Unmaps the oldest until there is no more warm than there is room for. To be called by whoever took a share of the
    /// budget, before the share is used.
    pub fn shrink(&self) {
        self.shrink_while(|state| state.bytes() > (self.shared.room)(0));
    }

    fn shrink_while(&self, too_much: impl Fn(&State) -> bool) {
        let mut state = self.shared.state.lock();
        let mut discarded = Vec::new();
        while !state.warm.is_empty() && too_much(&state) {
            discarded.push(state.warm.remove(0));
        }
        self.recount(&state);
        drop(state);
        discard(discarded);
    }

    /// Bytes of the pages of warm mappings.
    #[must_use]
    pub fn warm_bytes(&self) -> u64 {
        self.shared.warm_bytes.load(Ordering::Relaxed)
    }

    fn recount(&self, state: &State) {
        self.shared.warm_bytes.store(state.bytes(), Ordering::Relaxed);
    }

    /// Makes mappings that were missed, on a thread of its own, and unmaps what nobody took for [`Self::IDLE`]. Never
    /// resolves; its owner runs one of it as a task. `reserve` gives a share of the budget if it can be had at once: pages are
    /// in use while they are made.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn run<S: Send + 'static>(&self, reserve: impl Fn(u64) -> Option<S> + Send + Sync) {
        loop {
            let changed = self.shared.changed.notified();
            let (missed, cools_at) = {
                let mut state = self.shared.state.lock();
                let cools_at = (!state.warm.is_empty()).then(|| state.quiet_since + Self::IDLE);
                (state.missed.take(), cools_at)
            };
            if let Some(capacity) = missed {
                self.top_up(capacity, &reserve).await;
                continue;
            }
            match cools_at {
                Some(at) if at <= Instant::now() => self.shrink_while(|_| true),
                // Taken since or not, the next round looks again.
                Some(at) => drop(timeout_at(at, changed).await),
                None => changed.await,
            }
        }
    }

    async fn top_up<S: Send + 'static>(
        &self,
        capacity: usize,
        reserve: &(impl Fn(u64) -> Option<S> + Send + Sync),
    ) {
        let bytes = capacity as u64;
        if (self.shared.room)(0) < self.warm_bytes() + bytes {
            return;
        }
        let Some(share) = reserve(bytes) else { return };
        self.shrink();
        match pages::make(capacity, self.shared.huge, share).await {
            Ok((mapping, share)) => self.give(mapping, share, bytes),
            Err(error) => tracing::debug!(%error, capacity, "no warm memory could be made"),
        }
    }
}

/// Gives the pages back even where another process still has the mapping: what it may see is gone.
fn discard(mappings: Vec<Mapping>) {
    for mut mapping in mappings {
        if let Err(error) = mapping.discard_from(0) {
            tracing::debug!(%error, "pages could not be given back");
        }
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("warm_bytes", &self.warm_bytes()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use zipline_segment::PAGE;

    use super::*;

    const MIB: usize = 1 << 20;

    fn written(shelf: &Shelf, len: usize) -> Mapping {
        let mapping = shelf.take(len).unwrap();
        mapping.populate(0..len).unwrap();
        mapping
    }

    #[tokio::test(start_paused = true)]
    async fn a_warm_one_serves_about_the_same_length_and_keeps_no_page_too_many() {
        let shelf = Shelf::new(|_| 64 << 20);
        shelf.give(written(&shelf, 10 * MIB), (), 0);
        assert_eq!(shelf.warm_bytes(), 10 << 20);
        assert_eq!(shelf.take(MIB).unwrap().touched_bytes(), 0, "much too large for this");
        let again = shelf.take(10 * MIB - 3 * PAGE + 1).unwrap();
        assert_eq!((again.touched_bytes(), shelf.warm_bytes()), (10 * MIB - 2 * PAGE, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_warm_than_there_is_room_for() {
        let room = Arc::new(AtomicU64::new(3 << 20));
        let asked = Arc::clone(&room);
        let shelf = Shelf::new(move |_| asked.load(Ordering::Relaxed));
        let taken: Vec<_> = (0..4).map(|_| written(&shelf, MIB)).collect();
        taken.into_iter().for_each(|mapping| shelf.give(mapping, (), 0));
        assert_eq!(shelf.warm_bytes(), 3 << 20);
        room.store(1 << 20, Ordering::Relaxed);
        shelf.shrink();
        assert_eq!(shelf.warm_bytes(), 1 << 20);
    }

    #[tokio::test]
    async fn what_was_missed_is_made_and_what_is_idle_goes() {
        let shelf = Shelf::new(|_| 64 << 20);
        let driven = shelf.clone();
        let driver = driven.run(|_| Some(()));
        tokio::pin!(driver);
        drop(shelf.take(MIB).unwrap());
        let made = async {
            while shelf.warm_bytes() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = &mut driver => unreachable!("it never resolves"),
            () = made => {}
        }
        assert_eq!(shelf.warm_bytes(), 1 << 20, "one of the same size, with its pages");
        tokio::time::pause();
        let gone = async {
            while shelf.warm_bytes() > 0 {
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        };
        let began = Instant::now();
        tokio::select! {
            () = &mut driver => unreachable!("it never resolves"),
            () = gone => {}
        }
        assert!(began.elapsed() >= Shelf::IDLE - Duration::from_secs(1), "kept while it may be wanted");
    }

    #[test]
    fn capacities_are_close_to_what_is_asked_for() {
        for len in [1, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000] {
            let capacity = Shelf::capacity_for(len);
            assert!(capacity >= len && capacity <= len + (len / 8).max(GRANULE_MIN), "{len}: {capacity}");
        }
    }
}
