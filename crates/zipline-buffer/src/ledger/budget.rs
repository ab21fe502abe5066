//! The hard budget and its FIFO waiters.
//!
//! Invariant: `charged <= capacity` and `slots <= max_slots`. Memory goes to the oldest waiter first; a claim that would
//! fit never overtakes one that waits.
use std::collections::VecDeque;

use super::{Admission, Growth, Ticket};
use zipline_protocol::PayloadId;

/// What a waiter waits for.
#[derive(Debug)]
pub(super) enum Claim {
    /// A new payload: memory and a slot.
    Begin { ticket: Ticket, bytes: u64, growth: Growth, admission: Box<Admission> },
    /// More memory for a growing one.
    Grow { ticket: Ticket, bytes: u64, id: PayloadId },
    /// Memory that is no payload's yet.
    Grant { ticket: Ticket, bytes: u64 },
}

impl Claim {
    pub(super) fn ticket(&self) -> Ticket {
        match self {
            Self::Begin { ticket, .. } | Self::Grow { ticket, .. } | Self::Grant { ticket, .. } => *ticket,
        }
    }

    fn needs(&self) -> (u64, usize) {
        match self {
            Self::Begin { bytes, .. } => (*bytes, 1),
            Self::Grow { bytes, .. } | Self::Grant { bytes, .. } => (*bytes, 0),
        }
    }
}

#[derive(Debug)]
pub(super) struct Budget {
    capacity: u64,
    charged: u64,
    peak: u64,
    slots: usize,
    max_slots: usize,
    queue: VecDeque<Claim>,
    max_waiters: usize,
}

impl Budget {
    pub(super) fn new(capacity: u64, max_slots: usize, max_waiters: usize) -> Self {
        Self { capacity, charged: 0, peak: 0, slots: 0, max_slots, queue: VecDeque::new(), max_waiters }
    }

    pub(super) fn charged(&self) -> u64 {
        self.charged
    }

    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    pub(super) fn free(&self) -> u64 {
        self.capacity - self.charged
    }

    pub(super) fn waiters(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn nobody_waits(&self) -> bool {
        self.queue.is_empty()
    }

    fn fits(&self, (bytes, slots): (u64, usize)) -> bool {
        bytes <= self.free() && slots <= self.max_slots.saturating_sub(self.slots)
    }

    fn take(&mut self, (bytes, slots): (u64, usize)) {
        self.charged += bytes;
        self.slots += slots;
        self.peak = self.peak.max(self.charged);
    }

    /// Memory and a slot for a new payload, at once. One without bytes overtakes nobody's memory.
    pub(super) fn try_admit(&mut self, bytes: u64) -> bool {
        let taken = (self.queue.is_empty() || bytes == 0) && self.fits((bytes, 1));
        if taken {
            self.take((bytes, 1));
        }
        taken
    }

    /// More memory at once, if `spare` bytes would stay free.
    pub(super) fn try_grow(&mut self, bytes: u64, spare: u64) -> bool {
        let taken = self.queue.is_empty() && self.fits((bytes.saturating_add(spare), 0));
        if taken {
            self.take((bytes, 0));
        }
        taken
    }

    /// False when too many wait already.
    pub(super) fn enqueue(&mut self, claim: Claim) -> bool {
        let room = self.queue.len() < self.max_waiters;
        if room {
            self.queue.push_back(claim);
        }
        room
    }

    /// Removes a waiter. False if it waits no longer.
    pub(super) fn dequeue(&mut self, ticket: Ticket) -> bool {
        // Tickets are handed out in the order of the queue, so it is sorted by them.
        let found = self.queue.binary_search_by(|claim| claim.ticket().cmp(&ticket));
        found.is_ok_and(|index| self.queue.remove(index).is_some())
    }

    /// Removes a waiter that is no payload's yet, oldest first, whatever it waits for.
    pub(super) fn refuse(&mut self) -> Option<Claim> {
        let index = self.queue.iter().position(|claim| !matches!(claim, Claim::Grow { .. }))?;
        self.queue.remove(index)
    }

    /// Takes memory for the oldest waiter, if it fits.
    pub(super) fn next_grant(&mut self) -> Option<Claim> {
        let needs = self.queue.front()?.needs();
        if !self.fits(needs) {
            return None;
        }
        self.take(needs);
        self.queue.pop_front()
    }

    pub(super) fn release(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.charged, "more memory given back than taken");
        self.charged = self.charged.saturating_sub(bytes);
    }

    pub(super) fn release_slot(&mut self) {
        self.slots = self.slots.saturating_sub(1);
    }
}
