//! Memory that is no payload's: granted first, filled later, given back whenever its owner wants.
use std::time::Duration;

use super::budget::Claim;
use super::{Ledger, Ticket};
use crate::error::BeginError;

/// The answer to [`Ledger::grant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Granted {
    Now,
    Waits(Ticket),
}

impl Ledger {
    /// Charges `bytes` to the budget; with `may_wait` they wait their turn, else they must be had at once.
    pub(crate) fn grant(&mut self, now: Duration, bytes: u64, may_wait: bool) -> Result<Granted, BeginError> {
        let budget_bytes = self.limits.budget_bytes;
        if self.closed(now) {
            return Err(BeginError::Draining);
        }
        if bytes > budget_bytes {
            return Err(BeginError::TooLarge { length: bytes, budget_bytes });
        }
        if self.budget.try_grow(bytes, 0) {
            return Ok(Granted::Now);
        }
        let full = BeginError::BufferFull { wanted_bytes: bytes, budget_bytes };
        if !may_wait {
            return Err(full);
        }
        let ticket = self.ticket();
        if self.budget.enqueue(Claim::Grant { ticket, bytes }) {
            Ok(Granted::Waits(ticket))
        } else {
            Err(full)
        }
    }

    /// Gives up a place in the queue. False if it waits no longer: it was granted or refused.
    pub(crate) fn cancel_grant(&mut self, now: Duration, ticket: Ticket) -> bool {
        let was_queued = self.budget.dequeue(ticket);
        self.grant_memory(now);
        was_queued
    }

    /// Gives granted memory back.
    pub(crate) fn end_grant(&mut self, now: Duration, bytes: u64) {
        self.budget.release(bytes);
        self.grant_memory(now);
    }
}
