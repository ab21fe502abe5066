//! How leases end: acknowledged, cancelled, lapsed, or with their payload; and what that makes possible for others.
use std::net::IpAddr;
use std::time::Duration;

use zipline_protocol::PayloadId;

use super::{Grant, LeaseKey, Leases, State};
use crate::config::{Delivered, PayloadPhase, Settled};
use crate::error::{AckError, Gone, LeaseError};
use crate::ledger::expiry::Timer;
use crate::ledger::{Effect, Ledger};

/// The address whose lease ended, if it is a receiver's.
struct Freed(Option<IpAddr>);

impl Ledger {
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

    /// What an acknowledgement of the lease would be the first to tell.
    pub(crate) fn would_deliver(&self, now: Duration, id: &PayloadId, key: LeaseKey) -> Option<Delivered> {
        let lease = self.payloads.get(id)?.leases.table.get(&key)?;
        let info = self.info(now, id).filter(|_| lease.state != State::Acknowledged)?;
        Some(Delivered { kind: info.kind, length: info.length?, held: info.age })
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
        // Of a spent payload there is nothing left to count.
        if !lease.counted && payload.phase != PayloadPhase::Spent {
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
    pub(super) fn forget_lease(&mut self, now: Duration, id: &PayloadId, key: LeaseKey) {
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

    /// Nobody took the grant that ended a wait: as if it had never been made.
    pub(crate) fn reject(&mut self, now: Duration, grant: &Grant) {
        if self.running(grant).is_ok() {
            self.forget_lease(now, &grant.payload, grant.key);
        }
    }

    /// The lapse timer of a lease fired.
    pub(in crate::ledger) fn lapse(&mut self, now: Duration, id: &PayloadId, key: LeaseKey) {
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
    pub(in crate::ledger) fn end_leases(
        &mut self,
        now: Duration,
        id: &PayloadId,
        leases: Leases,
        reason: Gone,
    ) {
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

    /// Lets a spent payload go once its linger is over and no lease runs: what was granted is served to its end.
    pub(in crate::ledger) fn retire(&mut self, now: Duration, id: &PayloadId) {
        let Some(payload) = self.payloads.get(id) else { return };
        let idle = !payload.lingers(now) && payload.leases.running() == 0;
        if payload.phase == PayloadPhase::Spent && idle {
            self.remove(now, id, Gone::Spent);
        }
    }
}
