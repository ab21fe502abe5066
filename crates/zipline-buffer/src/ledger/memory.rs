//! The memory of one payload: how it is promised, turned into blocks, and given back.
//!
//! | growth | promised at `begin` | more | a dropped block's bytes go |
//! |---|---|---|---|
//! | whole | its length | never | to the budget |
//! | growing | one segment | a segment at a time; at once, or else by waiting or by becoming windowed | to the budget |
//! | windowed | the window | up to the window, if at once | while filling: back to its own reserve; then to the budget |
//!
//! Blocks are filled in order, each before the next is made. Only a windowed payload gives blocks up while it fills:
//! the oldest first, only when room is needed, and only what a running lease has sent. Half the window is kept behind
//! the slowest reader where that is possible, so that a retrieval whose connection broke can resume.
//!
//! Growing payloads that must be held whole can come to wait for one another. Each waits in sum no longer than its own
//! `wait`; the first whose time is over ends, and what it held goes to the next in the queue.
use std::collections::VecDeque;
use std::time::Duration;

use zipline_protocol::PayloadId;

use super::budget::Claim;
use super::payload::Payload;
use super::{Effect, Ledger, Serial, Ticket};

/// Smallest block of a growing or windowed payload.
const BLOCK_MIN: u64 = 16 * 1024;

/// How a payload's memory grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// Its length is known and reserved.
    Whole,
    /// Its length is not known; it is held whole as far as it came.
    Growing,
    /// It keeps a window.
    Windowed,
}

/// What a writer without room does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Makes a block of this many bytes; they are charged.
    Block(u64),
    /// Lets go of everything before this offset, then asks again.
    Evict(u64),
    /// Waits for a reader.
    Full,
    /// Waits for this much memory.
    Grow(u64),
    /// Gives up: it can never be held.
    TooLarge,
}

#[derive(Debug)]
pub(super) struct Memory {
    growth: Growth,
    may_be_windowed: bool,
    filling: bool,
    /// Promised, not in a block.
    reserve: u64,
    /// In blocks that exist, let go from the window or not.
    live: u64,
    /// Offset of the first byte that can be read.
    start: u64,
    /// Offset at which the last block ends.
    allocated: u64,
    /// Sizes of the blocks between `start` and `allocated`.
    blocks: VecDeque<u64>,
    /// The writer waits in the budget's queue.
    waiting: Option<Ticket>,
    /// The writer waits for a reader.
    pub(super) writer_waits: bool,
}

impl Memory {
    pub(super) fn new(growth: Growth, reserve: u64, may_be_windowed: bool) -> Self {
        Self {
            growth,
            may_be_windowed,
            filling: true,
            reserve,
            live: 0,
            start: 0,
            allocated: 0,
            blocks: VecDeque::new(),
            waiting: None,
            writer_waits: false,
        }
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Whether what is there stays until the payload ends. A growing payload may become a window.
    pub(super) fn keeps_all(&self) -> bool {
        !self.filling || self.growth == Growth::Whole
    }

    pub(super) fn is_filling(&self) -> bool {
        self.filling
    }

    pub(super) fn granted(&mut self, bytes: u64) {
        self.reserve += bytes;
        self.waiting = None;
    }

    pub(super) fn take_waiting(&mut self) -> Option<Ticket> {
        self.waiting.take()
    }

    /// No more blocks: hands out what was promised and not used.
    pub(super) fn finish(&mut self) -> u64 {
        self.filling = false;
        std::mem::take(&mut self.reserve)
    }

    /// As [`Self::finish`], for a payload that is gone. Its live blocks stay charged until they are dropped.
    pub(super) fn abandon(&mut self) -> u64 {
        self.finish()
    }

    fn quota(&self) -> u64 {
        self.reserve + self.live
    }

    fn block(&mut self, bytes: u64) -> Room {
        self.reserve -= bytes;
        self.live += bytes;
        self.allocated += bytes;
        self.blocks.push_back(bytes);
        Room::Block(bytes)
    }

    /// Lets the oldest blocks below `floor` go, as few as give `wanted` bytes.
    fn evict(&mut self, floor: u64, wanted: u64) -> Option<u64> {
        let before = self.start;
        while let Some(&first) = self.blocks.front()
            && self.start + first <= floor
            && self.start - before < wanted
        {
            self.start += first;
            self.blocks.pop_front();
        }
        (self.start > before).then_some(self.start)
    }

    #[cfg(test)]
    #[cfg(not(loom))]
    pub(super) fn charged(&self) -> (u64, u64) {
        (self.reserve, self.live)
    }
}

impl Ledger {
    /// Room for the bytes after the last block. Called only when every block is full. `None`: the payload is gone.
    pub(crate) fn room(&mut self, id: &PayloadId, serial: Serial) -> Option<Room> {
        let window = self.limits.window_bytes;
        let segment = self.limits.segment_bytes;
        let large = self.limits.large_bytes;
        let budget_bytes = self.limits.budget_bytes;
        let payload = self.payloads.get_mut(id).filter(|payload| payload.serial == serial)?;
        let declared = payload.length.unwrap_or(u64::MAX);
        let block_min = BLOCK_MIN.min(segment);
        let memory = &mut payload.memory;
        memory.writer_waits = false;
        let left = declared.saturating_sub(memory.allocated);
        if memory.growth == Growth::Growing {
            let size = memory.allocated.clamp(block_min, segment).min(left);
            if memory.reserve >= size {
                return Some(memory.block(size));
            }
            let more = size - memory.reserve;
            let spare = if memory.may_be_windowed && memory.quota() + more > window { window } else { 0 };
            if self.budget.try_grow(more, spare) {
                memory.reserve += more;
                return Some(memory.block(size));
            }
            if memory.may_be_windowed {
                memory.growth = Growth::Windowed;
            } else if memory.reserve > 0 {
                // The last of the budget is smaller than a block.
                let rest = memory.reserve;
                return Some(memory.block(rest));
            } else {
                let possible = budget_bytes - memory.quota();
                return Some(if possible == 0 { Room::TooLarge } else { Room::Grow(more.min(possible)) });
            }
        }
        if memory.growth == Growth::Whole {
            let step = if left >= large { large } else { segment };
            let size = left.min(step).min(memory.reserve);
            return Some(if size == 0 { Room::TooLarge } else { memory.block(size) });
        }
        let quota = memory.quota();
        let size = (quota / 8).clamp(block_min.min(quota.div_ceil(2)).max(1), segment).min(left);
        if memory.reserve >= size {
            return Some(memory.block(size));
        }
        let more = window.saturating_sub(quota).min(size);
        if more > 0 && self.budget.try_grow(more, 0) {
            memory.reserve += more;
            if memory.reserve >= size {
                return Some(memory.block(size));
            }
        }
        let wanted = size - memory.reserve;
        if let Some(sent) = payload.leases.sent_by_all(memory.start) {
            let kept = sent.saturating_sub(memory.quota() / 2);
            let evicted = memory.evict(kept, wanted).or_else(|| {
                // Every byte was sent: what is kept for a resumption must not stop the writer.
                if sent >= payload.written { memory.evict(sent, wanted) } else { None }
            });
            if let Some(start) = evicted {
                return Some(Room::Evict(start));
            }
        }
        if memory.reserve >= size.div_ceil(2) {
            let rest = memory.reserve;
            return Some(memory.block(rest));
        }
        memory.writer_waits = true;
        Some(Room::Full)
    }

    /// So many bytes are written by now, as far as one writer knows; another may have told of more. False: the payload is gone.
    pub(crate) fn advance(&mut self, id: &PayloadId, serial: Serial, written: u64) -> bool {
        let payload = self.payloads.get_mut(id).filter(|payload| payload.serial == serial);
        payload.map(|payload| payload.written = payload.written.max(written)).is_some()
    }

    /// Queues for `bytes` more. `None`: too many wait, or the payload is gone.
    pub(crate) fn queue_growth(&mut self, id: &PayloadId, serial: Serial, bytes: u64) -> Option<Ticket> {
        let ticket = self.ticket();
        let payload = self.payloads.get_mut(id).filter(|payload| payload.serial == serial)?;
        if !self.budget.enqueue(Claim::Grow { ticket, bytes, id: *id }) {
            return None;
        }
        payload.memory.waiting = Some(ticket);
        Some(ticket)
    }

    /// Gives up a place in the queue.
    pub(crate) fn cancel_growth(&mut self, now: Duration, id: &PayloadId, ticket: Ticket) {
        if let Some(payload) = self.payloads.get_mut(id).filter(|p| p.memory.waiting == Some(ticket)) {
            payload.memory.waiting = None;
        }
        if self.budget.dequeue(ticket) {
            self.grant_memory(now);
        }
    }

    /// The last slice of a block was dropped.
    pub(crate) fn block_dropped(&mut self, now: Duration, id: &PayloadId, serial: Serial, bytes: u64) {
        if let Some(payload) = self.payloads.get_mut(id).filter(|payload| payload.serial == serial) {
            let memory = &mut payload.memory;
            memory.live -= bytes;
            if memory.growth == Growth::Windowed && memory.filling {
                memory.reserve += bytes;
                self.wake_writer(id);
                return;
            }
        }
        self.budget.release(bytes);
        self.grant_memory(now);
    }

    /// Tells the payload's writer, if it waits for a reader, to look again.
    pub(super) fn wake_writer(&mut self, id: &PayloadId) {
        if self.payloads.get(id).is_some_and(|payload: &Payload| payload.memory.writer_waits) {
            self.effects.push(Effect::Writer(*id));
        }
    }
}
