//! The pure state machine behind a store: no clock (`now` is an argument, time since the store began), no bytes, no I/O.
//!
//! # Payload states
//! `filling` –finish→ `held` –last acknowledgement→ `spent` → gone. From each state a payload goes at once when it is
//! released, aborted, expired or its invocation ends; `spent` also ends when its linger is over and no lease runs.
//! # Lease states
//! `running`, `lapsed`, `acknowledged`, as in `docs/protocol.md` section 6.4; see [`lease`].
//! # Memory
//! Every byte is charged to the budget from the moment it is promised until its buffer is dropped: first as a payload's
//! *reserve*, then as a *live* block, which outlives its payload while readers hold slices of it; see [`memory`]. Memory can
//! also be granted to nobody's payload; payloads that lie in it are charged nothing more; see [`grant`].
//! # Invariants
//! - charged = reserves + live blocks + grants <= budget, always; only [`Budget`] changes it, so no transition can break it.
//! - Memory is granted first come, first served; nobody overtakes a waiter.
//! - A payload that was accepted keeps its bytes until a transition above; lack of memory never ends it.
//! - acknowledged + running leases <= retrievals, late acknowledgements of lapsed leases aside.
//! - Each running lease of a receiver has exactly one timer; each payload at most one for expiry and one for linger.
//!
//! Transitions that others wait for are handed out as [`Effect`]s, which the owner takes after each call.
mod budget;
mod expiry;
mod grant;
mod lease;
mod memory;
mod payload;
mod spent;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use zipline_protocol::{PayloadId, ReferenceKind, Retrievals, limits};

use crate::config::{PayloadInfo, PayloadPhase, Settled};
use crate::error::{BeginError, Gone, LeaseError};
use budget::{Budget, Claim};
use expiry::{Timer, Timers};
pub(crate) use grant::Granted;
use lease::LeaseWaiter;
pub(crate) use lease::{Grant, LeaseKey, LeaseWish, Leased};
pub(crate) use memory::{Growth, Room};
use payload::Payload;
use spent::SpentMemory;

/// Names a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// Tells payloads apart that had the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Serial(u64);

/// The numbers a ledger keeps to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) budget_bytes: u64,
    pub(crate) window_bytes: u64,
    pub(crate) segment_bytes: u64,
    /// Blocks of payloads that have as many bytes left and whose length is known.
    pub(crate) large_bytes: u64,
    pub(crate) max_payloads: usize,
    pub(crate) max_waiters: usize,
    pub(crate) leases_per_peer: usize,
    pub(crate) spent_remembered: usize,
    pub(crate) lease_lapse: Duration,
}

/// What is to be accepted.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    pub(crate) id: PayloadId,
    pub(crate) kind: ReferenceKind,
    pub(crate) length: Option<u64>,
    pub(crate) retrievals: Retrievals,
    pub(crate) ttl: Option<Duration>,
    pub(crate) linger: Duration,
    pub(crate) windowed: bool,
    /// Its bytes lie in memory that was granted before.
    pub(crate) adopted: bool,
}

/// The answer to [`Ledger::begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    Accepted(Serial),
    Waits(Ticket),
}

/// What others have to be told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// A waiting `begin` was accepted, or refused because the holder drains.
    Accepted(Ticket, Option<Serial>),
    /// A waiting growth ended; the writer tries again.
    Grown(Ticket),
    /// Memory that was waited for was granted, or refused because the holder drains.
    Granted(Ticket, bool),
    /// A waiting lease was granted or refused.
    Leased(Ticket, Result<Grant, LeaseError>),
    /// Readers of the payload look at their leases again.
    Readers(PayloadId),
    /// The payload's writer may find room in its window.
    Writer(PayloadId),
    /// The payload's transfer ended this way.
    Settled(PayloadId, Settled),
    /// The payload is gone.
    Gone(PayloadId, Gone),
    /// The next deadline moved to an earlier time.
    Deadline,
    /// The last payload is gone.
    Empty,
}

/// All decisions of one store.
#[derive(Debug)]
pub(crate) struct Ledger {
    limits: Limits,
    budget: Budget,
    payloads: HashMap<PayloadId, Payload>,
    spent: SpentMemory,
    timers: Timers,
    /// Running leases of each address.
    peers: HashMap<IpAddr, usize>,
    /// Retrievals that wait because their address has all the leases it may have.
    peer_queues: HashMap<IpAddr, VecDeque<Ticket>>,
    lease_waiters: HashMap<Ticket, LeaseWaiter>,
    drain_deadline: Option<Duration>,
    next_ticket: u64,
    next_serial: u64,
    next_epoch: u64,
    running_leases: usize,
    effects: Vec<Effect>,
}

impl Ledger {
    pub(crate) fn new(mut limits: Limits) -> Self {
        limits.window_bytes = limits.window_bytes.min(limits.budget_bytes);
        Self {
            limits,
            budget: Budget::new(limits.budget_bytes, limits.max_payloads, limits.max_waiters),
            payloads: HashMap::new(),
            spent: SpentMemory::new(limits.spent_remembered),
            timers: Timers::default(),
            peers: HashMap::new(),
            peer_queues: HashMap::new(),
            lease_waiters: HashMap::new(),
            drain_deadline: None,
            next_ticket: 0,
            next_serial: 0,
            next_epoch: 0,
            running_leases: 0,
            effects: Vec::new(),
        }
    }

    /// Takes what others have to be told, oldest first.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// Accepts a payload and reserves its memory; with `may_wait` it waits its turn, else it must be had at once.
    pub(crate) fn begin(
        &mut self,
        now: Duration,
        admission: Admission,
        may_wait: bool,
    ) -> Result<Begun, BeginError> {
        if self.closed(now) {
            return Err(BeginError::Draining);
        }
        if self.payloads.contains_key(&admission.id) {
            return Err(BeginError::Exists);
        }
        let (bytes, growth) = self.plan(&admission)?;
        if self.budget.try_admit(bytes) {
            return Ok(Begun::Accepted(self.admit(now, admission, bytes, growth)));
        }
        let full = BeginError::BufferFull { wanted_bytes: bytes, budget_bytes: self.limits.budget_bytes };
        if !may_wait {
            return Err(full);
        }
        let ticket = self.ticket();
        if !self.budget.enqueue(Claim::Begin { ticket, bytes, growth, admission: Box::new(admission) }) {
            return Err(full);
        }
        Ok(Begun::Waits(ticket))
    }

    /// Gives up a waiting `begin`. False if it waits no longer: it was accepted or refused.
    pub(crate) fn cancel_begin(&mut self, now: Duration, ticket: Ticket) -> bool {
        let was_queued = self.budget.dequeue(ticket);
        self.grant_memory(now);
        was_queued
    }

    fn plan(&self, admission: &Admission) -> Result<(u64, Growth), BeginError> {
        let Limits { budget_bytes, window_bytes, segment_bytes, .. } = self.limits;
        match admission.length {
            _ if admission.adopted => Ok((0, Growth::Whole)),
            Some(length) if admission.windowed => {
                // Held whole only if another payload's window fits beside it, so that one payload cannot take all.
                let whole = length <= window_bytes
                    || (self.budget.nobody_waits()
                        && length.saturating_add(window_bytes) <= self.budget.free());
                if whole { Ok((length, Growth::Whole)) } else { Ok((window_bytes, Growth::Windowed)) }
            }
            Some(length) if length > budget_bytes => Err(BeginError::TooLarge { length, budget_bytes }),
            Some(length) => Ok((length, Growth::Whole)),
            None if admission.windowed => Ok((segment_bytes.min(window_bytes), Growth::Growing)),
            None => Ok((segment_bytes.min(budget_bytes), Growth::Growing)),
        }
    }

    fn admit(&mut self, now: Duration, admission: Admission, reserve: u64, growth: Growth) -> Serial {
        self.next_serial += 1;
        let serial = Serial(self.next_serial);
        self.payloads.insert(admission.id, Payload::new(now, serial, admission, reserve, growth));
        serial
    }

    /// Grants free memory to waiters, first come, first served.
    fn grant_memory(&mut self, now: Duration) {
        while let Some(claim) = self.budget.next_grant() {
            match claim {
                Claim::Begin { ticket, bytes, growth, admission } => {
                    if self.payloads.contains_key(&admission.id) {
                        self.budget.release(bytes);
                        self.budget.release_slot();
                        self.effects.push(Effect::Accepted(ticket, None));
                    } else {
                        let serial = self.admit(now, *admission, bytes, growth);
                        self.effects.push(Effect::Accepted(ticket, Some(serial)));
                    }
                }
                Claim::Grow { ticket, bytes, id } => {
                    let payload = self.payloads.get_mut(&id).expect("a claim is dequeued with its payload");
                    payload.memory.granted(bytes);
                    self.effects.push(Effect::Grown(ticket));
                }
                Claim::Grant { ticket, .. } => self.effects.push(Effect::Granted(ticket, true)),
            }
        }
    }

    /// The payload is complete. False if it is gone.
    pub(crate) fn finish(&mut self, now: Duration, id: &PayloadId, serial: Serial) -> bool {
        let drain_deadline = self.drain_deadline;
        let Some(payload) = self.payloads.get_mut(id).filter(|payload| payload.serial == serial) else {
            return false;
        };
        if !payload.memory.is_filling() {
            return true;
        }
        // A payload can be used up by ranges before it is complete.
        if payload.phase == PayloadPhase::Filling {
            payload.phase = PayloadPhase::Held;
        }
        payload.length = Some(payload.written);
        payload.set_expiry(now, drain_deadline);
        let expires = payload.expires;
        let unused = payload.memory.finish();
        self.budget.release(unused);
        if let Some(at) = expires {
            self.set_timer(at, Timer::Expiry(*id));
        }
        self.effects.push(Effect::Readers(*id));
        self.grant_memory(now);
        true
    }

    /// The payload ends for `reason`. False if it is gone already.
    pub(crate) fn end(&mut self, now: Duration, id: &PayloadId, serial: Serial, reason: Gone) -> bool {
        if self.payloads.get(id).is_none_or(|payload| payload.serial != serial) {
            return false;
        }
        self.remove(now, id, reason);
        true
    }

    /// Frees a payload on its sender's word.
    pub(crate) fn release(&mut self, now: Duration, id: &PayloadId) -> Result<(), Gone> {
        if self.payloads.contains_key(id) {
            self.remove(now, id, Gone::Released);
            return Ok(());
        }
        match self.spent.recall(now, id) {
            Some(Gone::Spent) => Ok(()),
            Some(gone) => Err(gone),
            None => Err(Gone::Released),
        }
    }

    fn remove(&mut self, now: Duration, id: &PayloadId, reason: Gone) {
        let Some(mut payload) = self.payloads.remove(id) else { return };
        self.budget.release(payload.memory.abandon());
        self.budget.release_slot();
        if let Some(ticket) = payload.memory.take_waiting()
            && self.budget.dequeue(ticket)
        {
            self.effects.push(Effect::Grown(ticket));
        }
        if let Some(at) = payload.expires {
            self.timers.remove(at, Timer::Expiry(*id));
        }
        if let Some(at) = payload.lingers_until {
            self.timers.remove(at, Timer::Linger(*id));
        }
        match reason {
            Gone::Spent => {
                let until =
                    payload.expires.or(payload.ttl.map(|ttl| now + ttl)).unwrap_or(now + limits::TTL_MAX);
                self.spent.remember(now, *id, Gone::Spent, until);
            }
            Gone::Expired => self.spent.remember(now, *id, Gone::Expired, now + limits::TTL_MAX),
            Gone::Aborted => self.spent.remember(now, *id, Gone::Aborted, now + limits::TTL_DEFAULT),
            Gone::Released => {}
        }
        if payload.settled.is_none() {
            self.effects.push(Effect::Settled(*id, Settled::Lost));
        }
        self.effects.push(Effect::Gone(*id, reason));
        self.end_leases(now, id, payload.leases, reason);
        if self.payloads.is_empty() {
            self.effects.push(Effect::Empty);
        }
        self.grant_memory(now);
    }

    /// Begins to drain: puts completed from now on expire within `grace`, afterwards nothing new is accepted.
    pub(crate) fn drain(&mut self, now: Duration, grace: Duration) {
        let deadline = now.saturating_add(grace);
        let deadline = self.drain_deadline.map_or(deadline, |earlier| earlier.min(deadline));
        if let Some(earlier) = self.drain_deadline.replace(deadline) {
            self.timers.remove(earlier, Timer::Drain);
        }
        self.set_timer(deadline, Timer::Drain);
        if self.payloads.is_empty() {
            self.effects.push(Effect::Empty);
        }
    }

    /// When the grace of the drain is over; `None` while not draining.
    pub(crate) fn drain_deadline(&self) -> Option<Duration> {
        self.drain_deadline
    }

    fn closed(&self, now: Duration) -> bool {
        self.drain_deadline.is_some_and(|deadline| now >= deadline)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    pub(crate) fn charged_bytes(&self) -> u64 {
        self.budget.charged()
    }

    pub(crate) fn peak_bytes(&self) -> u64 {
        self.budget.peak()
    }

    pub(crate) fn memory_waiters(&self) -> usize {
        self.budget.waiters()
    }

    pub(crate) fn lease_waiters(&self) -> usize {
        self.lease_waiters.len()
    }

    pub(crate) fn running_leases(&self) -> usize {
        self.running_leases
    }

    pub(crate) fn payload_count(&self) -> usize {
        self.payloads.len()
    }

    /// Whether no byte of the payload goes before all of it does.
    pub(crate) fn keeps_all(&self, id: &PayloadId) -> bool {
        self.payloads.get(id).is_some_and(|payload| payload.memory.keeps_all())
    }

    pub(crate) fn info(&self, now: Duration, id: &PayloadId) -> Option<PayloadInfo> {
        self.payloads.get(id).map(|payload| payload.info(now, *id))
    }

    /// When a payload expires, and whether the drain bounds it.
    pub(crate) fn expiry(&self, id: &PayloadId) -> Option<(Duration, bool)> {
        self.payloads.get(id).and_then(|payload| payload.expires.map(|at| (at, payload.capped_by_drain)))
    }

    /// The oldest `max` payloads.
    pub(crate) fn list(&self, now: Duration, max: usize) -> Vec<PayloadInfo> {
        let mut ids: Vec<(Serial, &PayloadId)> =
            self.payloads.iter().map(|(id, payload)| (payload.serial, id)).collect();
        ids.sort_unstable();
        ids.into_iter().take(max).filter_map(|(_, id)| self.info(now, id)).collect()
    }
}
