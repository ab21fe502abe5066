//! Leases: the table of `docs/protocol.md` section 6.4.
//!
//! | state | entered by | left by |
//! |---|---|---|
//! | waits | a retrieve whose payload has only taken retrievals left, or whose address has all its leases | a lease ends; given up |
//! | running | a retrieve, also with the id of a lapsed lease | acknowledge, cancel, lapse, the payload's end |
//! | lapsed | the lapse time without progress | acknowledge, retrieve, cancel |
//! | acknowledged | acknowledge | never; it may be retrieved again while its payload is there, which takes nothing |
//!
//! A retrieve with the id of a running lease takes its reader's place: the *epoch* changes and the older reader ends.
//! A lease whose reader waits for bytes that are not written yet does not lapse: its receiver is not the slow one.
//! Local leases (the holder reads its own payload to send it inline) take no retrieval and never lapse; they end with
//! their reader. Ended leases are remembered, [`ENDED_MAX`] of each payload, the oldest forgotten first.
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use zipline_protocol::{LeaseId, PayloadId};

use super::expiry::Timer;
use super::{Effect, Ledger, Serial, Ticket};
use crate::config::{PayloadPhase, Settled};
use crate::error::{AckError, Gone, LeaseError, ReadError};

/// Ended leases remembered for each payload.
const ENDED_MAX: usize = 4_096;

/// Who leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum LeaseKey {
    /// A receiver.
    Remote(LeaseId),
    /// The holder itself.
    Local(u64),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseWish {
    pub(crate) payload: PayloadId,
    pub(crate) key: LeaseKey,
    pub(crate) peer: Option<IpAddr>,
    pub(crate) from: u64,
    pub(crate) to: Option<u64>,
}

/// A running lease, as its reader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) payload: PayloadId,
    pub(crate) serial: Serial,
    pub(crate) key: LeaseKey,
    pub(crate) epoch: u64,
}

/// The answer to [`Ledger::lease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leased {
    Granted(Grant),
    Waits(Ticket),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Lapsed,
    Acknowledged,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    state: State,
    /// Its retrieval was counted.
    counted: bool,
    peer: Option<IpAddr>,
    epoch: u64,
    /// It has a reader.
    attached: bool,
    /// Its reader waits for bytes that are not written yet.
    starving: bool,
    /// Lowest offset it ever began at.
    first: u64,
    /// Every byte from `first` to here was sent.
    sent: u64,
    progressed: Duration,
    timer: Option<Duration>,
}

impl Lease {
    /// Whether it takes one of the retrievals that are left.
    fn takes(&self, key: LeaseKey) -> bool {
        self.state == State::Running && !self.counted && matches!(key, LeaseKey::Remote(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Retrieval,
    Peer,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseWaiter {
    wish: LeaseWish,
    queue: Queue,
}

/// The leases of one payload.
#[derive(Debug, Default)]
pub(super) struct Leases {
    table: HashMap<LeaseKey, Lease>,
    ended: VecDeque<LeaseKey>,
    running: usize,
    taking: u32,
    queue: VecDeque<Ticket>,
}

impl Leases {
    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn taking(&self) -> u32 {
        self.taking
    }

    #[cfg(test)]
    pub(super) fn anyone_waits(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Up to where every lease that has a reader has sent (or, if none has one, every running lease), provided one of
    /// them has sent everything from `start` on.
    pub(super) fn sent_by_all(&self, start: u64) -> Option<u64> {
        let running = || self.table.values().filter(|lease| lease.state == State::Running);
        if !running().any(|lease| lease.first <= start && lease.sent > start) {
            return None;
        }
        let attached = running().filter(|lease| lease.attached).map(|lease| lease.sent).min();
        attached.or_else(|| running().map(|lease| lease.sent).min())
    }

    fn remember_ended(&mut self, key: LeaseKey) {
        self.ended.push_back(key);
        while self.ended.len() > ENDED_MAX {
            if let Some(oldest) = self.ended.pop_front()
                && self.table.get(&oldest).is_some_and(|lease| lease.state != State::Running)
            {
                self.table.remove(&oldest);
            }
        }
    }
}

enum Decision {
    Grant,
    Wait(Queue),
}

impl Ledger {
    /// Takes or resumes a lease, or a place in the queue for one.
    pub(crate) fn lease(&mut self, now: Duration, wish: LeaseWish) -> Result<Leased, LeaseError> {
        match self.decide(now, &wish)? {
            Decision::Grant => Ok(Leased::Granted(self.grant_lease(now, &wish))),
            Decision::Wait(queue) => {
                self.replace_waiter(&wish);
                if self.lease_waiters.len() >= self.limits.max_waiters {
                    return Err(LeaseError::TooMany);
                }
                let ticket = self.ticket();
                self.queue_lease(ticket, LeaseWaiter { wish, queue });
                Ok(Leased::Waits(ticket))
            }
        }
    }

    fn decide(&self, now: Duration, wish: &LeaseWish) -> Result<Decision, LeaseError> {
        let Some(payload) = self.payloads.get(&wish.payload) else {
            return Err(match self.spent.recall(now, &wish.payload) {
                Some(Gone::Spent) => LeaseError::Exhausted,
                Some(Gone::Expired) => LeaseError::Expired,
                Some(Gone::Aborted) => LeaseError::Aborted,
                Some(Gone::Released) | None => LeaseError::NotFound,
            });
        };
        let LeaseWish { from, to, .. } = *wish;
        if to.is_some_and(|to| to < from) || payload.length.is_some_and(|length| from > length) {
            return Err(LeaseError::RangeInvalid { from, to });
        }
        let start = payload.memory.start();
        if from < start {
            return Err(LeaseError::Evicted { from, start });
        }
        let LeaseKey::Remote(_) = wish.key else { return Ok(Decision::Grant) };
        let state = payload.leases.table.get(&wish.key).map(|lease| lease.state);
        if state == Some(State::Running) {
            return Ok(Decision::Grant);
        }
        if self.closed(now) {
            return Err(LeaseError::Draining);
        }
        if state != Some(State::Acknowledged) {
            if payload.used_up() {
                return Err(LeaseError::Exhausted);
            }
            if payload.free_retrievals() == 0 {
                return Ok(Decision::Wait(Queue::Retrieval));
            }
        }
        let taken = wish.peer.and_then(|peer| self.peers.get(&peer)).copied().unwrap_or(0);
        if taken >= self.limits.leases_per_peer {
            return Ok(Decision::Wait(Queue::Peer));
        }
        Ok(Decision::Grant)
    }

    fn grant_lease(&mut self, now: Duration, wish: &LeaseWish) -> Grant {
        self.next_epoch += 1;
        let epoch = self.next_epoch;
        let payload = self.payloads.get_mut(&wish.payload).expect("the decision found it");
        let serial = payload.serial;
        let leases = &mut payload.leases;
        let mut timer = None;
        if let Some(lease) = leases.table.get_mut(&wish.key).filter(|lease| lease.state == State::Running) {
            lease.epoch = epoch;
            lease.attached = true;
            lease.starving = false;
            lease.first = lease.first.min(wish.from);
            lease.sent = wish.from;
            lease.progressed = now;
            self.effects.push(Effect::Readers(wish.payload));
        } else {
            // A lapsed lease that comes back has sent what it sent before.
            let before = leases.table.get(&wish.key).map(|lease| (lease.counted, lease.first));
            let (counted, first) = before.unwrap_or((false, wish.from));
            if let LeaseKey::Remote(_) = wish.key {
                timer = Some(now + self.limits.lease_lapse);
            }
            let lease = Lease {
                state: State::Running,
                counted,
                peer: wish.peer,
                epoch,
                attached: true,
                starving: false,
                first: first.min(wish.from),
                sent: wish.from,
                progressed: now,
                timer,
            };
            leases.running += 1;
            leases.taking += u32::from(lease.takes(wish.key));
            leases.table.insert(wish.key, lease);
            self.running_leases += 1;
            if let Some(peer) = wish.peer {
                *self.peers.entry(peer).or_default() += 1;
            }
        }
        if let Some(at) = timer {
            self.set_timer(at, Timer::Lapse(wish.payload, wish.key));
        }
        Grant { payload: wish.payload, serial, key: wish.key, epoch }
    }

    fn queue_lease(&mut self, ticket: Ticket, waiter: LeaseWaiter) {
        match (waiter.queue, waiter.wish.peer) {
            (Queue::Peer, Some(peer)) => self.peer_queues.entry(peer).or_default().push_back(ticket),
            _ => {
                if let Some(payload) = self.payloads.get_mut(&waiter.wish.payload) {
                    payload.leases.queue.push_back(ticket);
                }
            }
        }
        self.lease_waiters.insert(ticket, waiter);
    }

    /// A newer request of the same lease ends the older one that waits.
    fn replace_waiter(&mut self, wish: &LeaseWish) {
        let Some(payload) = self.payloads.get(&wish.payload) else { return };
        let same = |ticket: &&Ticket| {
            self.lease_waiters.get(*ticket).is_some_and(|waiter| waiter.wish.key == wish.key)
        };
        if let Some(ticket) = payload.leases.queue.iter().find(same).copied() {
            self.unqueue_lease(ticket);
            self.effects.push(Effect::Leased(ticket, Err(LeaseError::Exhausted)));
        }
    }

    fn unqueue_lease(&mut self, ticket: Ticket) -> Option<LeaseWaiter> {
        let waiter = self.lease_waiters.remove(&ticket)?;
        if let Some(payload) = self.payloads.get_mut(&waiter.wish.payload) {
            payload.leases.queue.retain(|queued| *queued != ticket);
        }
        if let Some(peer) = waiter.wish.peer
            && let Some(queue) = self.peer_queues.get_mut(&peer)
        {
            queue.retain(|queued| *queued != ticket);
            if queue.is_empty() {
                self.peer_queues.remove(&peer);
            }
        }
        Some(waiter)
    }

    /// Gives up a place in a queue. `None`: it waits no longer; its answer is among the effects.
    pub(crate) fn cancel_lease_wait(&mut self, ticket: Ticket) -> Option<LeaseError> {
        self.unqueue_lease(ticket).map(|waiter| match waiter.queue {
            Queue::Retrieval => LeaseError::Exhausted,
            Queue::Peer => LeaseError::TooMany,
        })
    }

    /// Looks at a waiter again whose turn came.
    fn settle_waiter(&mut self, now: Duration, ticket: Ticket) {
        let Some(mut waiter) = self.unqueue_lease(ticket) else { return };
        match self.decide(now, &waiter.wish) {
            Ok(Decision::Grant) => {
                let grant = self.grant_lease(now, &waiter.wish);
                self.effects.push(Effect::Leased(ticket, Ok(grant)));
            }
            Ok(Decision::Wait(queue)) => {
                waiter.queue = queue;
                self.queue_lease(ticket, waiter);
            }
            Err(error) => self.effects.push(Effect::Leased(ticket, Err(error))),
        }
    }

    /// Serves those who wait for a retrieval of this payload.
    fn serve_retrievals(&mut self, now: Duration, id: &PayloadId) {
        while let Some(payload) = self.payloads.get(id)
            && (payload.used_up() || payload.free_retrievals() > 0)
            && let Some(ticket) = payload.leases.queue.front().copied()
        {
            self.settle_waiter(now, ticket);
        }
    }

    /// Serves those who wait because their address had all its leases.
    fn serve_peer(&mut self, now: Duration, peer: IpAddr) {
        while self.peers.get(&peer).copied().unwrap_or(0) < self.limits.leases_per_peer
            && let Some(ticket) = self.peer_queues.get(&peer).and_then(|queue| queue.front().copied())
        {
            self.settle_waiter(now, ticket);
        }
    }

    /// Takes a lease out of `running`; the caller says what it is next. `None`: it does not run.
    fn stop(&mut self, id: &PayloadId, key: LeaseKey, next: State) -> Option<Freed> {
        let leases = &mut self.payloads.get_mut(id)?.leases;
        let lease = leases.table.get_mut(&key).filter(|lease| lease.state == State::Running)?;
        leases.running -= 1;
        leases.taking -= u32::from(lease.takes(key));
        lease.state = next;
        lease.attached = false;
        lease.starving = false;
        let (timer, peer) = (lease.timer.take(), lease.peer);
        self.let_go(id, key, timer, peer);
        self.effects.push(Effect::Readers(*id));
        Some(Freed(peer))
    }

    fn let_go(&mut self, id: &PayloadId, key: LeaseKey, timer: Option<Duration>, peer: Option<IpAddr>) {
        self.running_leases -= 1;
        if let Some(at) = timer {
            self.timers.remove(at, Timer::Lapse(*id, key));
        }
        if let Some(peer) = peer
            && let Some(count) = self.peers.get_mut(&peer)
        {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&peer);
            }
        }
    }

    /// What a lease's end makes possible for others.
    fn after_stop(&mut self, now: Duration, id: &PayloadId, freed: &Freed) {
        self.wake_writer(id);
        self.retire(now, id);
        self.serve_retrievals(now, id);
        if let Some(peer) = freed.0 {
            self.serve_peer(now, peer);
        }
    }

    /// Every byte of the lease was delivered.
    pub(crate) fn acknowledge(
        &mut self,
        now: Duration,
        id: &PayloadId,
        key: LeaseKey,
    ) -> Result<(), AckError> {
        let Some(payload) = self.payloads.get_mut(id) else {
            return match self.spent.recall(now, id) {
                Some(Gone::Spent) => Ok(()),
                Some(Gone::Expired) => Err(AckError::Expired),
                _ => Err(AckError::NotFound),
            };
        };
        let lease = *payload.leases.table.get(&key).ok_or(AckError::NotFound)?;
        if lease.state == State::Acknowledged {
            return Ok(());
        }
        let freed = self.stop(id, key, State::Acknowledged).unwrap_or(Freed(None));
        let payload = self.payloads.get_mut(id).expect("it was there a moment ago");
        if let Some(lease) = payload.leases.table.get_mut(&key) {
            lease.state = State::Acknowledged;
            lease.counted = true;
        }
        payload.leases.remember_ended(key);
        if !lease.counted {
            payload.acknowledged = payload.acknowledged.saturating_add(1);
        }
        if payload.settled.is_none() {
            payload.settled = Some(Settled::Acknowledged);
            self.effects.push(Effect::Settled(*id, Settled::Acknowledged));
        }
        if payload.used_up() && payload.phase != PayloadPhase::Spent {
            payload.phase = PayloadPhase::Spent;
            if !payload.linger.is_zero() {
                let until = now.saturating_add(payload.linger);
                payload.lingers_until = Some(until);
                self.set_timer(until, Timer::Linger(*id));
            }
        }
        self.after_stop(now, id, &freed);
        Ok(())
    }

    /// The lease is given up; nothing is spent.
    pub(crate) fn cancel_lease(
        &mut self,
        now: Duration,
        id: &PayloadId,
        key: LeaseKey,
    ) -> Result<(), AckError> {
        let Some(payload) = self.payloads.get(id) else {
            return match self.spent.recall(now, id) {
                Some(Gone::Spent) => Ok(()),
                Some(Gone::Expired) => Err(AckError::Expired),
                _ => Err(AckError::NotFound),
            };
        };
        let ran = payload.leases.table.get(&key).is_some_and(|lease| lease.state == State::Running);
        self.forget_lease(now, id, key);
        if let Some(payload) = self.payloads.get_mut(id)
            && ran
            && matches!(key, LeaseKey::Remote(_))
            && payload.leases.running == 0
            && payload.settled.is_none()
        {
            payload.settled = Some(Settled::Cancelled);
            self.effects.push(Effect::Settled(*id, Settled::Cancelled));
        }
        Ok(())
    }

    /// Ends a lease as if it had never been, unless its retrieval was counted.
    fn forget_lease(&mut self, now: Duration, id: &PayloadId, key: LeaseKey) {
        let Some(payload) = self.payloads.get(id) else { return };
        let Some(counted) = payload.leases.table.get(&key).map(|lease| lease.counted) else { return };
        let freed = self.stop(id, key, if counted { State::Acknowledged } else { State::Lapsed });
        if let Some(payload) = self.payloads.get_mut(id).filter(|_| !counted) {
            payload.leases.table.remove(&key);
        }
        if let Some(freed) = freed {
            self.after_stop(now, id, &freed);
        }
    }

    /// The reader of `grant` has sent everything before `sent`.
    pub(crate) fn progress(&mut self, now: Duration, grant: &Grant, sent: u64) -> Result<(), ReadError> {
        let lease = self.running(grant)?;
        lease.sent = sent;
        lease.progressed = now;
        lease.starving = false;
        self.wake_writer(&grant.payload);
        Ok(())
    }

    /// The reader of `grant` begins (or ends) to wait for bytes that are not written yet.
    pub(crate) fn starve(&mut self, now: Duration, grant: &Grant, starving: bool) -> Result<(), ReadError> {
        let lease = self.running(grant)?;
        lease.progressed = now;
        lease.starving = starving;
        self.wake_writer(&grant.payload);
        Ok(())
    }

    fn running(&mut self, grant: &Grant) -> Result<&mut Lease, ReadError> {
        let lapse = self.limits.lease_lapse;
        let payload = self.payloads.get_mut(&grant.payload).filter(|payload| payload.serial == grant.serial);
        let payload = payload.ok_or(ReadError::Gone(Gone::Released))?;
        let lease = payload.leases.table.get_mut(&grant.key).ok_or(ReadError::Ended)?;
        if lease.epoch != grant.epoch {
            return Err(ReadError::Superseded);
        }
        match lease.state {
            State::Running => Ok(lease),
            State::Lapsed => Err(ReadError::Lapsed { after: lapse }),
            State::Acknowledged => Err(ReadError::Ended),
        }
    }

    /// The reader of `grant` was dropped. A receiver's lease runs on until it lapses.
    pub(crate) fn detach(&mut self, now: Duration, grant: &Grant) {
        let Ok(lease) = self.running(grant) else { return };
        lease.attached = false;
        if lease.starving {
            lease.starving = false;
            lease.progressed = now;
        }
        if let LeaseKey::Local(_) = grant.key {
            self.forget_lease(now, &grant.payload, grant.key);
        } else {
            self.wake_writer(&grant.payload);
        }
    }

    /// Nobody took the grant that ended a wait: as if it had never been made.
    pub(crate) fn reject(&mut self, now: Duration, grant: &Grant) {
        if self.running(grant).is_ok() {
            self.forget_lease(now, &grant.payload, grant.key);
        }
    }

    /// The lapse timer of a lease fired.
    pub(super) fn lapse(&mut self, now: Duration, id: &PayloadId, key: LeaseKey) {
        let after = self.limits.lease_lapse;
        let Some(payload) = self.payloads.get_mut(id) else { return };
        let Some(lease) = payload.leases.table.get_mut(&key) else { return };
        // Progress does not touch the timer; it is set again here, so that a chunk costs no timer.
        let due = if lease.starving { now + after } else { lease.progressed + after };
        if due > now {
            lease.timer = Some(due);
            self.set_timer(due, Timer::Lapse(*id, key));
            return;
        }
        lease.timer = None;
        let next = if lease.counted { State::Acknowledged } else { State::Lapsed };
        if let Some(freed) = self.stop(id, key, next) {
            if let Some(payload) = self.payloads.get_mut(id) {
                payload.leases.remember_ended(key);
            }
            self.after_stop(now, id, &freed);
        }
    }

    /// The payload is gone: so are its leases and those who wait for one.
    pub(super) fn end_leases(&mut self, now: Duration, id: &PayloadId, leases: Leases, reason: Gone) {
        let refusal = match reason {
            Gone::Spent => LeaseError::Exhausted,
            Gone::Expired => LeaseError::Expired,
            Gone::Aborted => LeaseError::Aborted,
            Gone::Released => LeaseError::NotFound,
        };
        for ticket in leases.queue {
            self.lease_waiters.remove(&ticket);
            self.effects.push(Effect::Leased(ticket, Err(refusal)));
        }
        let mut peers = Vec::new();
        for (key, lease) in leases.table.into_iter().filter(|(_, lease)| lease.state == State::Running) {
            self.let_go(id, key, lease.timer, lease.peer);
            peers.extend(lease.peer);
        }
        for peer in peers {
            self.serve_peer(now, peer);
        }
    }

    /// Lets a spent payload go once its linger is over and no surplus lease runs.
    pub(super) fn retire(&mut self, now: Duration, id: &PayloadId) {
        let Some(payload) = self.payloads.get(id) else { return };
        let lingers = payload.lingers_until.is_some_and(|until| until > now);
        if payload.phase == PayloadPhase::Spent && !lingers && payload.leases.taking == 0 {
            self.remove(now, id, Gone::Spent);
        }
    }
}

/// The address whose lease ended, if it is a receiver's.
struct Freed(Option<IpAddr>);
