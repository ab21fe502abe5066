//! Waits for memory and leases. Each gives back what it holds when it is dropped, granted or not.
use std::sync::Arc;
use std::time::Duration;

use zipline_protocol::{PayloadId, limits};

use super::Shared;
use crate::error::{BeginError, Gone, LeaseError};
use crate::ledger::{Grant, Serial, Ticket};
use crate::sync::oneshot;
use crate::sync::time::timeout;

pub(super) struct PendingBegin {
    shared: Arc<Shared>,
    ticket: Ticket,
    id: PayloadId,
    answered: Option<oneshot::Receiver<Option<Serial>>>,
}

impl PendingBegin {
    pub(super) fn new(
        shared: Arc<Shared>,
        ticket: Ticket,
        id: PayloadId,
        answered: oneshot::Receiver<Option<Serial>>,
    ) -> Self {
        Self { shared, ticket, id, answered: Some(answered) }
    }

    pub(super) async fn wait(mut self, wait: Duration, length: Option<u64>) -> Result<Serial, BeginError> {
        let Some(answered) = self.answered.as_mut() else { return Err(BeginError::Draining) };
        let Ok(answer) = timeout(wait, answered).await else {
            let budget_bytes = self.shared.config.budget_bytes;
            let wanted_bytes = length.unwrap_or(limits::SEGMENT as u64);
            return Err(BeginError::BufferFull { wanted_bytes, budget_bytes });
        };
        self.answered = None;
        // A refusal, like a store that forgot the waiter, means that nothing is accepted any more.
        answer.ok().flatten().ok_or(BeginError::Draining)
    }
}

impl Drop for PendingBegin {
    fn drop(&mut self) {
        let Some(mut answered) = self.answered.take() else { return };
        self.shared.with(|state, now| {
            state.begins.remove(&self.ticket);
            if !state.ledger.cancel_begin(now, self.ticket)
                && let Ok(Some(serial)) = answered.try_recv()
            {
                state.ledger.end(now, &self.id, serial, Gone::Released);
            }
        });
    }
}

pub(super) struct PendingGrowth {
    shared: Arc<Shared>,
    ticket: Ticket,
    id: PayloadId,
}

impl PendingGrowth {
    pub(super) fn new(shared: Arc<Shared>, ticket: Ticket, id: PayloadId) -> Self {
        Self { shared, ticket, id }
    }

    /// False when the time is over.
    pub(super) async fn wait(self, wait: Duration, answered: oneshot::Receiver<()>) -> bool {
        timeout(wait, answered).await.is_ok()
    }
}

impl Drop for PendingGrowth {
    fn drop(&mut self) {
        // Granted memory stays with the payload, for its next write.
        self.shared.with(|state, now| {
            state.growths.remove(&self.ticket);
            state.ledger.cancel_growth(now, &self.id, self.ticket);
        });
    }
}

pub(super) struct PendingLease {
    shared: Arc<Shared>,
    ticket: Ticket,
    answered: Option<oneshot::Receiver<Result<Grant, LeaseError>>>,
}

impl PendingLease {
    pub(super) fn new(
        shared: Arc<Shared>,
        ticket: Ticket,
        answered: oneshot::Receiver<Result<Grant, LeaseError>>,
    ) -> Self {
        Self { shared, ticket, answered: Some(answered) }
    }

    pub(super) async fn wait(mut self) -> Result<Grant, LeaseError> {
        let Some(answered) = self.answered.as_mut() else { return Err(LeaseError::TooMany) };
        if let Ok(answer) = timeout(limits::LEASE_LAPSE, answered).await {
            self.answered = None;
            return answer.unwrap_or(Err(LeaseError::TooMany));
        }
        // Granted in the moment the time ran out, it is taken.
        let Some(mut answered) = self.answered.take() else { return Err(LeaseError::TooMany) };
        self.shared.with(|state, _| {
            state.leases.remove(&self.ticket);
            match state.ledger.cancel_lease_wait(self.ticket) {
                Some(error) => Err(error),
                None => answered.try_recv().unwrap_or(Err(LeaseError::TooMany)),
            }
        })
    }
}

impl Drop for PendingLease {
    fn drop(&mut self) {
        let Some(mut answered) = self.answered.take() else { return };
        self.shared.with(|state, now| {
            state.leases.remove(&self.ticket);
            if state.ledger.cancel_lease_wait(self.ticket).is_none()
                && let Ok(Ok(grant)) = answered.try_recv()
            {
                state.ledger.reject(now, &grant);
            }
        });
    }
}
