//! The memory payloads lie in.
//!
//! A [`Block`] is one buffer; its slices are handed to readers without copying. It is charged until its last slice is
//! dropped, whoever holds that slice, and then tells its [`Home`]. Blocks of a whole segment are recycled through the
//! [`Pool`], because writing into fresh pages is several times slower than into warm ones; smaller blocks have exactly
//! the size that is needed and are freed.
//!
//! Warm buffers that nobody has taken for [`WARM_IDLE`] are freed: an idle holder is as small as one that just started.
//!
//! Invariants: in use + warm <= budget; only buffers that nobody references are warm.
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use zipline_protocol::{PayloadId, limits};

use crate::ledger::Serial;

/// Warm buffers of one segment each, and the count of what exists.
#[derive(Debug)]
pub(crate) struct Pool {
    warm: Vec<BytesMut>,
    max_warm: usize,
    capacity: u64,
    in_use: u64,
    /// When a segment was taken last, or when the first of the warm ones came, whichever is later.
    quiet_since: Duration,
}

/// Buffers to be freed once no lock is held: unmapping memory takes time.
pub(crate) type Discarded = Vec<BytesMut>;

const SEGMENT_BYTES: u64 = limits::SEGMENT as u64;

/// Warm buffers are freed after this time without anyone taking one.
const WARM_IDLE: Duration = Duration::from_secs(30);

impl Pool {
    pub(crate) fn new(capacity: u64, max_warm: usize) -> Self {
        Self { warm: Vec::new(), max_warm, capacity, in_use: 0, quiet_since: Duration::ZERO }
    }

    pub(crate) fn warm_bytes(&self) -> u64 {
        self.warm.len() as u64 * SEGMENT_BYTES
    }

    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.in_use + self.warm_bytes()
    }

    /// Sets how many warm segments are kept.
    pub(crate) fn keep(&mut self, max_warm: usize) -> Discarded {
        self.max_warm = max_warm;
        self.warm.split_off(self.warm.len().min(max_warm))
    }

    /// When the warm buffers are freed unless one is taken before; `None` while there are none.
    pub(crate) fn cools_at(&self) -> Option<Duration> {
        (!self.warm.is_empty()).then(|| self.quiet_since + WARM_IDLE)
    }

    /// Frees the warm buffers if their time is over.
    pub(crate) fn cool(&mut self, now: Duration) -> Discarded {
        if self.cools_at().is_some_and(|at| at <= now) { std::mem::take(&mut self.warm) } else { Vec::new() }
    }

    /// A buffer of `bytes`, which are charged already: a warm one, or `None` for the caller to make one.
    pub(crate) fn take(&mut self, now: Duration, bytes: u64) -> (Option<BytesMut>, Discarded) {
        self.in_use += bytes;
        if bytes == SEGMENT_BYTES {
            self.quiet_since = now;
            if let Some(warm) = self.warm.pop() {
                return (Some(warm), Discarded::new());
            }
        }
        let excess = self.allocated_bytes().saturating_sub(self.capacity).div_ceil(SEGMENT_BYTES);
        let kept = self.warm.len().saturating_sub(usize::try_from(excess).unwrap_or(usize::MAX));
        (None, self.warm.split_off(kept))
    }

    /// A block of `bytes` ended; its buffer, if it can be used again, is kept or handed back to be freed.
    fn give(&mut self, now: Duration, bytes: u64, buffer: Option<BytesMut>) -> Option<BytesMut> {
        self.in_use = self.in_use.saturating_sub(bytes);
        match buffer {
            Some(buffer) if self.warm.len() < self.max_warm => {
                if self.warm.is_empty() {
                    self.quiet_since = now;
                }
                self.warm.push(buffer);
                None
            }
            buffer => buffer,
        }
    }
}

/// Where a block came from.
pub(crate) trait Home: Send + Sync {
    /// The last slice of the block was dropped.
    fn block_dropped(&self, returned: Returned);
}

/// A block that ended.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) payload: PayloadId,
    pub(crate) serial: Serial,
    pub(crate) bytes: u64,
    buffer: Option<BytesMut>,
}

impl Returned {
    /// Gives the buffer back to the pool. What comes out is to be dropped without a lock.
    pub(crate) fn into_pool(self, now: Duration, pool: &mut Pool) -> Option<BytesMut> {
        pool.give(now, self.bytes, self.buffer)
    }
}

/// One charged buffer.
pub(crate) struct Block {
    home: Arc<dyn Home>,
    payload: PayloadId,
    serial: Serial,
    bytes: u64,
    /// The rest of the buffer, once no more is written: through it the whole buffer is won back.
    rest: Mutex<Option<BytesMut>>,
}

impl Block {
    pub(crate) fn new(home: Arc<dyn Home>, payload: PayloadId, serial: Serial, bytes: u64) -> Arc<Self> {
        Arc::new(Self { home, payload, serial, bytes, rest: Mutex::new(None) })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the rest of the buffer; nothing is written to it any more.
    pub(crate) fn close(&self, rest: BytesMut) {
        *self.rest.lock() = Some(rest);
    }

    /// A slice that keeps the block charged.
    pub(crate) fn slice(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Slice { bytes, _block: Arc::clone(self) })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let rest = self.rest.get_mut().take();
        let buffer = rest.filter(|_| self.bytes == SEGMENT_BYTES).and_then(|mut rest| {
            rest.clear();
            rest.try_reclaim(limits::SEGMENT).then_some(rest)
        });
        let Self { payload, serial, bytes, .. } = *self;
        self.home.block_dropped(Returned { payload, serial, bytes, buffer });
    }
}

/// The bytes first: when the last slice lets its block go, no other reference to the buffer is left.
struct Slice {
    bytes: Bytes,
    _block: Arc<Block>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
