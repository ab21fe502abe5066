//! Payloads in memory that was granted before they were there.
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use zipline_segment::SegmentBytes;

use super::{PayloadGuard, PayloadWriter, Shared, Store};
use crate::config::{Complete, Spec};
use crate::content::Content;
use crate::error::BeginError;
use crate::ledger::{Admission, Begun, Granted, Ticket};
use crate::sync::oneshot;
use crate::sync::time::timeout;

/// A share of the budget for memory that is no payload's. Dropping it gives the share back. It may live in the memory of an
/// adopted payload, which the store holds, so it does not keep the store alive.
pub struct Charge {
    pub(super) shared: Weak<Shared>,
    pub(super) bytes: u64,
}

impl Charge {
    fn new(shared: &Arc<Shared>, bytes: u64) -> Self {
        let cold = shared.with(|state, _| state.pool.charge(bytes));
        drop(cold);
        Self { shared: Arc::downgrade(shared), bytes }
    }

    /// Bytes it stands for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.with(|state, now| {
                state.pool.uncharge(self.bytes);
                state.ledger.end_grant(now, self.bytes);
            });
        }
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Store {
    /// Charges `bytes` to the budget for memory that payloads will be adopted from, waiting for it up to `wait`, in turn with
    /// everybody who waits for memory; without `wait` it must be had at once.
    ///
    /// # Errors
    /// As [`Store::begin`]'s.
    /// # Cancel safety
    /// Dropping the future gives up its place, or the share if it was just granted.
    pub fn grant(
        &self,
        bytes: u64,
        wait: Option<Duration>,
    ) -> impl Future<Output = Result<Charge, BeginError>> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move {
            let (granted, answered) = shared.with(|state, now| {
                let granted = state.ledger.grant(now, bytes, wait.is_some())?;
                let (answer, answered) = oneshot::channel();
                if let Granted::Waits(ticket) = granted {
                    state.grants.insert(ticket, answer);
                }
                Ok::<_, BeginError>((granted, answered))
            })?;
            if let Granted::Waits(ticket) = granted {
                let pending =
                    PendingGrant { shared: Arc::clone(&shared), ticket, bytes, answered: Some(answered) };
                pending.wait(wait.unwrap_or_default()).await?;
            }
            Ok(Charge::new(&shared, bytes))
        }
    }

    /// Holds bytes that are all there and lie in memory a [`Charge`] stands for, which must outlive them; they are charged
    /// nothing more. `spec.length`, `spec.wait` and `spec.windowed` mean nothing here.
    ///
    /// # Errors
    /// [`BeginError`]: a payload of that id is there, the store drains, or it has no place for another payload.
    pub fn adopt(&self, spec: Spec, bytes: SegmentBytes) -> Result<(Complete, PayloadGuard), BeginError> {
        let Spec { id, kind, retrievals, ttl, linger, .. } = spec;
        let length = bytes.len() as u64;
        let content = Arc::new(Content::new(Some(length)));
        let admission = Admission {
            id,
            kind,
            length: Some(length),
            retrievals,
            ttl,
            linger,
            windowed: false,
            adopted: true,
        };
        let serial = self.shared.with(|state, now| match state.ledger.begin(now, admission, false)? {
            Begun::Accepted(serial) => {
                state.contents.insert(id, Arc::clone(&content));
                Ok(serial)
            }
            Begun::Waits(_) => {
                Err(BeginError::BufferFull { wanted_bytes: 0, budget_bytes: self.shared.config.budget_bytes })
            }
        })?;
        let shared = &self.shared;
        let guard = PayloadGuard::new(Arc::clone(shared), Arc::clone(&content), id, serial);
        let mut writer = PayloadWriter::new(Arc::clone(shared), content, id, serial, Some(length), None);
        writer.adopt(bytes);
        let complete = writer.finish(Vec::new()).map_err(|_gone| BeginError::Draining)?;
        Ok((complete, guard))
    }
}

/// Waits for a grant; gives back what it was granted when it is dropped.
struct PendingGrant {
    shared: Arc<Shared>,
    ticket: Ticket,
    bytes: u64,
    answered: Option<oneshot::Receiver<bool>>,
}

impl PendingGrant {
    async fn wait(mut self, wait: Duration) -> Result<(), BeginError> {
        let Some(answered) = self.answered.as_mut() else { return Err(BeginError::Draining) };
        let Ok(answer) = timeout(wait, answered).await else {
            let budget_bytes = self.shared.config.budget_bytes;
            return Err(BeginError::BufferFull { wanted_bytes: self.bytes, budget_bytes });
        };
        self.answered = None;
        if answer.unwrap_or(false) { Ok(()) } else { Err(BeginError::Draining) }
    }
}

impl Drop for PendingGrant {
    fn drop(&mut self) {
        let Some(mut answered) = self.answered.take() else { return };
        self.shared.with(|state, now| {
            state.grants.remove(&self.ticket);
            if !state.ledger.cancel_grant(now, self.ticket) && answered.try_recv() == Ok(true) {
                state.ledger.end_grant(now, self.bytes);
            }
        });
    }
}
