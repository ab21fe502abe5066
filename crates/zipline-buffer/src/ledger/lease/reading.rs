//! What the reader of a running lease reports.
use std::time::Duration;

use zipline_protocol::PayloadId;

use super::{Grant, Lease, LeaseKey, State};
use crate::error::{AckError, Gone, ReadError};
use crate::ledger::Ledger;

impl Ledger {
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

    /// A part was sent for the lease. False if it does not run.
    pub(crate) fn support(&mut self, now: Duration, id: &PayloadId, key: LeaseKey) -> bool {
        let lease = self.payloads.get_mut(id).and_then(|payload| payload.leases.table.get_mut(&key));
        let Some(lease) = lease.filter(|lease| lease.state == State::Running) else { return false };
        lease.progressed = now;
        lease.alive = now;
        true
    }

    /// The receiver of a lease shows life. It is no progress, and the lease lapses all the same, unless it has more bytes from
    /// elsewhere than before.
    pub(crate) fn alive(
        &mut self,
        now: Duration,
        id: &PayloadId,
        key: LeaseKey,
        elsewhere: u64,
    ) -> Result<(), AckError> {
        let lease = self.payloads.get_mut(id).and_then(|payload| payload.leases.table.get_mut(&key));
        let lease = lease.ok_or(AckError::NotFound)?;
        lease.alive = now;
        if elsewhere > lease.elsewhere {
            lease.elsewhere = elsewhere;
            lease.progressed = now;
        }
        Ok(())
    }

    /// Since when the receivers of a payload are quiet; `None` if that tells nothing about them.
    pub(crate) fn quiet_since(&self, id: &PayloadId) -> Option<Duration> {
        self.payloads.get(id)?.leases.quiet_since()
    }

    pub(super) fn running(&mut self, grant: &Grant) -> Result<&mut Lease, ReadError> {
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
}
