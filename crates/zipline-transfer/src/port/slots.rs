//! Who is sent a large payload now, and who waits for it.
//!
//! A lease that is sent has a *slot*; whatever else is sent for it at the same time shares it. Slots are bounded. Who finds none
//! free waits: peers take turns, and of one peer the first to come is served first.
//!
//! | state | event | next |
//! |---|---|---|
//! | – | a slot is free, and nobody waits | has one |
//! | – | its lease has one, or must go on ([`Slots::take_now`]) | has one, beyond the maximum if need be |
//! | – | otherwise | waits, or is refused when too many do |
//! | waits | its turn | has one |
//! | waits | given up | – |
//! | has one | dropped: sent, broken off, or its receiver is slow | –, the next one's turn |
//!
//! Invariant: while anybody waits, at least as many leases have a slot as there are slots.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::oneshot;
use zipline_protocol::LeaseId;

/// The slots of one port. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    state: Arc<Mutex<State>>,
}

/// A slot, given on to the next one when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Slots,
    lease: LeaseId,
}

/// Too many wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooManyWait;

#[derive(Debug)]
struct State {
    max: usize,
    max_waiting: usize,
    /// How many sends of each lease that has a slot share it.
    running: HashMap<LeaseId, usize>,
    /// Those who wait, by their address; no queue is empty.
    waiting: HashMap<IpAddr, VecDeque<Waiter>>,
    /// Every address that has a queue, once, in the order of their turns.
    turns: VecDeque<IpAddr>,
    waiters: usize,
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    lease: LeaseId,
    turn: oneshot::Sender<()>,
}

impl Slots {
    /// As many as `max`, at least one; at most `max_waiting` wait for one.
    pub(super) fn new(max: usize, max_waiting: usize) -> Self {
        let state = State {
            max: max.max(1),
            max_waiting,
            running: HashMap::new(),
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            waiters: 0,
            next_ticket: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Waits for a slot for `lease`, which `peer` has.
    ///
    /// # Cancel safety
    /// Dropping the future gives up its place, or the slot if its turn had just come.
    pub(super) async fn take(&self, peer: IpAddr, lease: LeaseId) -> Result<Slot, TooManyWait> {
        let (ticket, turn) = {
            let mut state = self.state.lock();
            let is_free = state.running.len() < state.max && state.waiters == 0;
            if is_free || state.running.contains_key(&lease) {
                state.begin(lease);
                return Ok(self.slot(lease));
            }
            if state.waiters >= state.max_waiting {
                return Err(TooManyWait);
            }
            state.queue(peer, lease)
        };
        let place = Place { slots: self, peer, lease, ticket };
        // The sender is dropped with the slots alone, which `place` has.
        let _came = turn.await;
        std::mem::forget(place);
        Ok(self.slot(lease))
    }

    /// A slot for `lease` at once, whoever waits and however many there are.
    pub(super) fn take_now(&self, lease: LeaseId) -> Slot {
        self.state.lock().begin(lease);
        self.slot(lease)
    }

    /// Leases that have one.
    pub(super) fn running(&self) -> usize {
        self.state.lock().running.len()
    }

    /// Those who wait for one.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().waiters
    }

    fn slot(&self, lease: LeaseId) -> Slot {
        Slot { slots: self.clone(), lease }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.state.lock().end(&self.lease);
    }
}

/// A place in the queue.
struct Place<'a> {
    slots: &'a Slots,
    peer: IpAddr,
    lease: LeaseId,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.slots.state.lock();
        if !state.leave(self.peer, self.ticket) {
            // Its turn had come, and nobody heard of it.
            state.end(&self.lease);
        }
    }
}

impl State {
    fn begin(&mut self, lease: LeaseId) {
        *self.running.entry(lease).or_default() += 1;
    }

    fn end(&mut self, lease: &LeaseId) {
        if let Some(sends) = self.running.get_mut(lease) {
            *sends -= 1;
            if *sends == 0 {
                self.running.remove(lease);
            }
        }
        self.serve();
    }

    fn queue(&mut self, peer: IpAddr, lease: LeaseId) -> (u64, oneshot::Receiver<()>) {
        let (turn, came) = oneshot::channel();
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let queue = self.waiting.entry(peer).or_default();
        if queue.is_empty() {
            self.turns.push_back(peer);
        }
        queue.push_back(Waiter { ticket, lease, turn });
        self.waiters += 1;
        (ticket, came)
    }

    /// False: it waits no longer.
    fn leave(&mut self, peer: IpAddr, ticket: u64) -> bool {
        let Some(queue) = self.waiting.get_mut(&peer) else { return false };
        let Some(at) = queue.iter().position(|waiter| waiter.ticket == ticket) else { return false };
        queue.remove(at);
        self.waiters -= 1;
        if queue.is_empty() {
            self.waiting.remove(&peer);
            self.turns.retain(|other| *other != peer);
        }
        true
    }

    fn serve(&mut self) {
        while self.running.len() < self.max {
            let Some(peer) = self.turns.pop_front() else { return };
            let Some(queue) = self.waiting.get_mut(&peer) else { continue };
            let first = queue.pop_front();
            if queue.is_empty() {
                self.waiting.remove(&peer);
            } else {
                self.turns.push_back(peer);
            }
            let Some(Waiter { lease, turn, .. }) = first else { continue };
            self.waiters -= 1;
            self.begin(lease);
            // Whoever does not hear of it gives it back.
            let _unheard = turn.send(());
        }
    }
}
