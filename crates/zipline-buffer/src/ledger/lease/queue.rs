//! Retrieves that wait: for a retrieval of their payload, or for a lease of their address; first come, first served.
use std::net::IpAddr;
use std::time::Duration;

use zipline_protocol::PayloadId;

use super::LeaseWish;
use super::grant::Decision;
use crate::error::LeaseError;
use crate::ledger::{Effect, Ledger, Ticket};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Retrieval,
    Peer,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct LeaseWaiter {
    pub(super) wish: LeaseWish,
    pub(super) queue: Queue,
}

impl Ledger {
    pub(super) fn queue_lease(&mut self, ticket: Ticket, waiter: LeaseWaiter) {
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
    pub(super) fn replace_waiter(&mut self, wish: &LeaseWish) {
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
    pub(super) fn serve_retrievals(&mut self, now: Duration, id: &PayloadId) {
        while let Some(payload) = self.payloads.get(id)
            && (payload.used_up() || payload.free_retrievals() > 0)
            && let Some(ticket) = payload.leases.queue.front().copied()
        {
            self.settle_waiter(now, ticket);
        }
    }

    /// Serves those who wait because their address had all its leases.
    pub(super) fn serve_peer(&mut self, now: Duration, peer: IpAddr) {
        while self.peers.get(&peer).copied().unwrap_or(0) < self.limits.leases_per_peer
            && let Some(ticket) = self.peer_queues.get(&peer).and_then(|queue| queue.front().copied())
        {
            self.settle_waiter(now, ticket);
        }
    }
}
