//! The memory payloads of a store lie in.
//!
//! A block is one buffer, charged to the budget until nobody has a part of it any more, whoever that is; then it tells its
//! [`Home`]. Blocks of [`limits::SEGMENT`] and of [`LARGE`] bytes are mappings, which the kernel can send without touching
//! them; they are recycled through the [`Pool`], because writing into fresh pages is several times slower than into warm
//! ones. Smaller blocks are ordinary memory of exactly the size that is needed, and freed.
//!
//! Warm mappings that nobody has taken for [`WARM_IDLE`] are unmapped: an idle holder is as small as one that just started.
//! Beside blocks there is memory that was granted, in use without being a block, and memory [`Prepared`] for grants.
//!
//! A block does not keep its home alive: the home holds the payloads, and they hold their blocks. What outlives the store is
//! simply freed.
//!
//! Invariants: in use + warm <= budget, prepared memory being warm; only mappings that nobody references are warm.
use std::sync::Weak;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use zipline_protocol::{PayloadId, limits};
use zipline_segment::{HugePages, Mapping, SegmentMut};

use crate::ledger::Serial;
use crate::prepared::Prepared;
use crate::sync::Arc;

/// Blocks of payloads whose length is known to be at least this.
pub(crate) const LARGE: u64 = 4 << 20;

const SEGMENT_BYTES: u64 = limits::SEGMENT as u64;

/// Warm mappings are unmapped after this time without anyone taking one.
const WARM_IDLE: Duration = Duration::from_secs(30);

/// Warm mappings of the two sizes, and the count of what exists.
#[derive(Debug)]
pub(crate) struct Pool {
    small: Vec<Mapping>,
    large: Vec<Mapping>,
    prepared: Prepared,
    max_warm: u64,
    capacity: u64,
    in_use: u64,
    /// When a mapping was taken last, or when the first of the warm ones came, whichever is later.
    quiet_since: Duration,
}

/// Mappings to be freed once no lock is held: unmapping takes time.
pub(crate) type Discarded = Vec<Mapping>;

impl Pool {
    pub(crate) fn new(capacity: u64, max_warm: u64) -> Self {
        let (small, large) = (Vec::new(), Vec::new());
        let prepared = Prepared::default();
        Self { small, large, prepared, max_warm, capacity, in_use: 0, quiet_since: Duration::ZERO }
    }

    pub(crate) fn warm_bytes(&self) -> u64 {
        self.warm_blocks_bytes() + self.prepared.bytes()
    }

    fn warm_blocks_bytes(&self) -> u64 {
        self.small.len() as u64 * SEGMENT_BYTES + self.large.len() as u64 * LARGE
    }

    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.in_use + self.warm_bytes()
    }

    /// Sets how many bytes of warm blocks are kept; with prepared memory they are at most twice as many.
    pub(crate) fn keep(&mut self, max_warm: u64) -> Discarded {
        self.max_warm = max_warm;
        let mut discarded = self.shrink_to(max_warm.saturating_mul(2));
        while self.warm_blocks_bytes() > max_warm {
            let Some(block) = self.warm_block() else { break };
            discarded.push(block);
        }
        discarded
    }

    /// When the warm mappings are freed unless one is taken before; `None` while there are none.
    pub(crate) fn cools_at(&self) -> Option<Duration> {
        let blocks = (self.warm_blocks_bytes() > 0).then(|| self.quiet_since + WARM_IDLE);
        blocks.into_iter().chain(self.prepared.cools_at()).min()
    }

    /// Frees the warm mappings whose time is over.
    pub(crate) fn cool(&mut self, now: Duration) -> Discarded {
        let mut discarded = Discarded::new();
        if self.prepared.cools_at().is_some_and(|at| at <= now) {
            discarded.extend(std::iter::from_fn(|| self.prepared.pop()));
        }
        if self.quiet_since + WARM_IDLE <= now {
            discarded.extend(std::iter::from_fn(|| self.warm_block()));
        }
        discarded
    }

    /// So many bytes are granted, and may be used at once: what is warm gives way.
    pub(crate) fn charge(&mut self, bytes: u64) -> Discarded {
        self.in_use += bytes;
        self.shrink_to(self.capacity.saturating_sub(self.in_use))
    }

    /// A grant ended.
    pub(crate) fn uncharge(&mut self, bytes: u64) {
        self.in_use = self.in_use.saturating_sub(bytes);
    }

    /// Memory for a grant of `bytes`, which are charged already, if it was prepared.
    pub(crate) fn take_prepared(&mut self, now: Duration, bytes: u64) -> Option<Mapping> {
        self.prepared.take(now, bytes)
    }

    /// The size of the memory that is to be prepared, if there is room for it.
    pub(crate) fn wanted(&mut self) -> Option<u64> {
        self.prepared.wanted().filter(|bytes| self.may_prepare(*bytes))
    }

    /// Memory was prepared; gives back what there is no room for.
    pub(crate) fn prepare(&mut self, mapping: Mapping) -> Option<Mapping> {
        if self.may_prepare(mapping.capacity() as u64) { self.prepared.add(mapping) } else { Some(mapping) }
    }

    fn may_prepare(&self, bytes: u64) -> bool {
        let warm = self.warm_bytes() + bytes;
        warm <= self.max_warm.saturating_mul(2) && self.in_use + warm <= self.capacity
    }

    /// A mapping for a block of `bytes`, which are charged already: a warm one, or `None` for the caller to make one.
    pub(crate) fn take(&mut self, now: Duration, bytes: u64) -> (Option<Mapping>, Discarded) {
        self.in_use += bytes;
        if let Some(warm) = self.warm(bytes) {
            let taken = warm.pop();
            self.quiet_since = now;
            if taken.is_some() {
                return (taken, Discarded::new());
            }
        }
        (None, self.shrink_to(self.capacity.saturating_sub(self.in_use)))
    }

    /// A block of `bytes` ended; its mapping, if it can be used again, is kept or handed back to be freed.
    fn give(&mut self, now: Duration, bytes: u64, mapping: Option<Mapping>) -> Option<Mapping> {
        self.in_use = self.in_use.saturating_sub(bytes);
        let mapping = mapping?;
        // Whoever was shown it may look at it for ever.
        if !mapping.may_be_written_again(false) {
            return Some(mapping);
        }
        if self.warm_blocks_bytes() + bytes > self.max_warm
            || self.in_use + self.warm_bytes() + bytes > self.capacity
        {
            return Some(mapping);
        }
        if self.warm_blocks_bytes() == 0 {
            self.quiet_since = now;
        }
        match self.warm(bytes) {
            Some(warm) => {
                warm.push(mapping);
                None
            }
            None => Some(mapping),
        }
    }

    fn warm(&mut self, bytes: u64) -> Option<&mut Vec<Mapping>> {
        match bytes {
            SEGMENT_BYTES => Some(&mut self.small),
            LARGE => Some(&mut self.large),
            _ => None,
        }
    }

    fn shrink_to(&mut self, most: u64) -> Discarded {
        let mut discarded = Discarded::new();
        while self.warm_bytes() > most {
            let Some(mapping) = self.prepared.pop().or_else(|| self.warm_block()) else { break };
            discarded.push(mapping);
        }
        discarded
    }

    fn warm_block(&mut self) -> Option<Mapping> {
        self.large.pop().or_else(|| self.small.pop())
    }
}

/// Where a block came from.
pub(crate) trait Home: Send + Sync {
    /// Nobody has a part of the block any more.
    fn block_dropped(&self, returned: Returned);
}

/// A block that ended.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) payload: PayloadId,
    pub(crate) serial: Serial,
    pub(crate) bytes: u64,
    mapping: Option<Mapping>,
}

impl Returned {
    /// Gives the mapping back to the pool. What comes out is to be dropped without a lock.
    pub(crate) fn into_pool(self, now: Duration, pool: &mut Pool) -> Option<Mapping> {
        pool.give(now, self.bytes, self.mapping)
    }
}

/// Whose block it is and what it is charged as.
#[derive(Clone)]
pub(crate) struct Charged {
    pub(crate) home: Weak<dyn Home>,
    pub(crate) payload: PayloadId,
    pub(crate) serial: Serial,
    pub(crate) bytes: u64,
}

impl Charged {
    fn ended(&self, mapping: Option<Mapping>) {
        let Self { payload, serial, bytes, .. } = *self;
        if let Some(home) = self.home.upgrade() {
            home.block_dropped(Returned { payload, serial, bytes, mapping });
        }
    }
}

impl zipline_segment::Home for Charged {
    fn returned(self: Box<Self>, mapping: Mapping) {
        self.ended(Some(mapping));
    }
}

/// A new block, to be filled.
pub(crate) enum Block {
    /// Ordinary memory.
    Heap(BytesMut, Arc<HeapBlock>),
    /// A mapping.
    Mapped(SegmentMut),
}

impl Block {
    /// Makes the block, from a warm mapping if there is one. Where the kernel gives no mapping, it is ordinary memory.
    pub(crate) fn new(charged: Charged, warm: Option<Mapping>) -> Self {
        let size = usize::try_from(charged.bytes).unwrap_or(usize::MAX);
        let mapping = warm.or_else(|| {
            let worth_it = matches!(charged.bytes, SEGMENT_BYTES | LARGE);
            worth_it.then(|| Mapping::create(size, HugePages::Off).ok()).flatten()
        });
        match mapping {
            Some(mapping) => Self::Mapped(SegmentMut::whole(mapping, Some(Box::new(charged)))),
            None => Self::Heap(BytesMut::with_capacity(size), Arc::new(HeapBlock(charged))),
        }
    }
}

/// A block of ordinary memory; tells its home when it is dropped.
pub(crate) struct HeapBlock(Charged);

impl HeapBlock {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// A slice that keeps the block charged.
    pub(crate) fn slice(block: &Arc<Self>, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Slice { bytes, _block: Arc::clone(block) })
    }
}

impl Drop for HeapBlock {
    fn drop(&mut self) {
        self.0.ended(None);
    }
}

/// The bytes first: when the last slice lets its block go, its memory is free.
struct Slice {
    bytes: Bytes,
    _block: Arc<HeapBlock>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
