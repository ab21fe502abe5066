//! Leases: the table of `docs/protocol.md` section 6.4.
//!
//! | state | entered by | left by |
//! |---|---|---|
//! | waits | a retrieve whose payload has only taken retrievals left, or whose address has all its leases | a lease ends; given up |
//! | running | a retrieve, also with the id of a lapsed lease | acknowledge, cancel, lapse, the payload's end |
//! | lapsed | the lapse time without progress | acknowledge, retrieve, cancel |
//! | acknowledged | acknowledge | never; it may be retrieved again, which takes nothing, until its payload is spent |
//!
//! While a spent payload lingers any retrieve is granted and takes nothing; afterwards running leases end in their own
//! time and nothing new is granted.
//!
//! A retrieve with the id of a running lease takes its reader's place: the *epoch* changes and the older reader ends.
//! A lease whose reader waits for bytes that are not written yet does not lapse: its receiver is not the slow one.
//! Local leases (the holder reads its own payload to send it inline) take no retrieval and never lapse; they end with
//! their reader. Ended leases are remembered, [`ENDED_MAX`] of each payload, the oldest forgotten first.
mod end;
mod grant;
mod queue;
mod reading;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use zipline_protocol::{LeaseId, PayloadId};

use super::{Serial, Ticket};
pub(super) use queue::LeaseWaiter;

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

/// The answer to [`Ledger::lease`](super::Ledger::lease).
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
    /// Bytes that its receiver has from elsewhere.
    elsewhere: u64,
    progressed: Duration,
    /// When its receiver last showed life other than by taking bytes.
    alive: Duration,
    timer: Option<Duration>,
}

impl Lease {
    /// Whether it takes one of the retrievals that are left.
    fn takes(&self, key: LeaseKey) -> bool {
        self.state == State::Running && !self.counted && matches!(key, LeaseKey::Remote(_))
    }
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
    #[cfg(not(loom))]
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

    /// When a receiver that has not acknowledged last showed life. `None` if none has a lease, one waits for bytes that are
    /// not written yet, or one has acknowledged: then silence tells nothing.
    fn quiet_since(&self) -> Option<Duration> {
        let mut latest = None;
        for (key, lease) in &self.table {
            match (key, lease.state) {
                (LeaseKey::Local(_), _) => {}
                (_, State::Acknowledged) => return None,
                _ if lease.starving => return None,
                _ => latest = latest.max(Some(lease.progressed.max(lease.alive))),
            }
        }
        latest
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
