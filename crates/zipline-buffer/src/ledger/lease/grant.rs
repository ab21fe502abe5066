//! Whether a retrieve is granted, waits or is refused, and what a grant changes.
use std::time::Duration;

use super::queue::{LeaseWaiter, Queue};
use super::{Grant, Lease, LeaseKey, LeaseWish, Leased, State};
use crate::error::{Gone, LeaseError};
use crate::ledger::expiry::Timer;
use crate::ledger::{Effect, Ledger};

pub(super) enum Decision {
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

    pub(super) fn decide(&self, now: Duration, wish: &LeaseWish) -> Result<Decision, LeaseError> {
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
        if payload.used_up() {
            // A receiver that failed after its acknowledgement has forgotten its lease: any may come back.
            if !payload.lingers(now) {
                return Err(LeaseError::Exhausted);
            }
        } else if state != Some(State::Acknowledged) && payload.free_retrievals() == 0 {
            return Ok(Decision::Wait(Queue::Retrieval));
        }
        let taken = wish.peer.and_then(|peer| self.peers.get(&peer)).copied().unwrap_or(0);
        if taken >= self.limits.leases_per_peer {
            return Ok(Decision::Wait(Queue::Peer));
        }
        Ok(Decision::Grant)
    }

    pub(super) fn grant_lease(&mut self, now: Duration, wish: &LeaseWish) -> Grant {
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
            lease.alive = now;
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
                elsewhere: 0,
                progressed: now,
                alive: now,
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
}
