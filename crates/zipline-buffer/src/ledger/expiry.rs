//! Deadlines: expiry of puts, end of linger, lapse of leases, end of the drain's grace.
//!
//! Invariant: a deadline stands here exactly as long as its payload or lease does; whoever removes one removes the other.
use std::collections::BTreeSet;
use std::time::Duration;

use zipline_protocol::PayloadId;

use super::budget::Claim;
use super::lease::LeaseKey;
use super::{Effect, Ledger};
use crate::config::PayloadPhase;
use crate::error::Gone;

/// What happens at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Expiry(PayloadId),
    Linger(PayloadId),
    Lapse(PayloadId, LeaseKey),
    Drain,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    set: BTreeSet<(Duration, Timer)>,
}

impl Timers {
    pub(super) fn remove(&mut self, at: Duration, timer: Timer) {
        self.set.remove(&(at, timer));
    }

    #[cfg(test)]
    #[cfg(not(loom))]
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }
}

impl Ledger {
    pub(super) fn set_timer(&mut self, at: Duration, timer: Timer) {
        if self.timers.set.first().is_none_or(|(first, _)| at < *first) {
            self.effects.push(Effect::Deadline);
        }
        self.timers.set.insert((at, timer));
    }

    /// The next deadline.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.timers.set.first().map(|(at, _)| *at)
    }

    /// Does what is due by `now`.
    pub(crate) fn expire(&mut self, now: Duration) {
        while let Some(&(at, timer)) = self.timers.set.first()
            && at <= now
        {
            self.timers.set.pop_first();
            match timer {
                Timer::Expiry(id) => self.remove(now, &id, Gone::Expired),
                Timer::Linger(id) => {
                    if let Some(payload) = self.payloads.get_mut(&id) {
                        debug_assert_eq!(payload.phase, PayloadPhase::Spent);
                        payload.lingers_until = None;
                    }
                    self.retire(now, &id);
                }
                Timer::Lapse(id, key) => self.lapse(now, &id, key),
                Timer::Drain => {
                    while let Some(claim) = self.budget.refuse() {
                        let ticket = claim.ticket();
                        self.effects.push(match claim {
                            Claim::Grant { .. } => Effect::Granted(ticket, false),
                            Claim::Begin { .. } | Claim::Grow { .. } => Effect::Accepted(ticket, None),
                        });
                    }
                    self.grant_memory(now);
                    self.effects.push(Effect::Empty);
                }
            }
        }
    }
}
