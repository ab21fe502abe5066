//! What ties a payload to its invocation.
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use zipline_protocol::PayloadId;

use super::{PayloadReader, Shared};
use crate::config::{Expiry, ExpiryBound, Settled};
use crate::content::Content;
use crate::error::Gone;
use crate::ledger::{LeaseKey, LeaseWish, Leased, Serial};
use crate::sync::atomic::Ordering;
use crate::sync::time::sleep;

/// Ties a payload to its invocation: dropping it frees the payload, whoever still reads it.
pub struct PayloadGuard {
    shared: Arc<Shared>,
    content: Arc<Content>,
    id: PayloadId,
    serial: Serial,
    kept: bool,
}

impl PayloadGuard {
    pub(super) fn new(shared: Arc<Shared>, content: Arc<Content>, id: PayloadId, serial: Serial) -> Self {
        Self { shared, content, id, serial, kept: false }
    }

    /// The payload's id.
    pub fn id(&self) -> &PayloadId {
        &self.id
    }

    /// Lets the payload live on by its ttl and retrievals.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// When it expires; `None` before it is complete, when it has no ttl, or when it is gone.
    pub fn expiry(&self) -> Option<Expiry> {
        self.shared.with(|state, now| {
            let (at, capped) = state.ledger.expiry(&self.id)?;
            let bound = if capped { ExpiryBound::Drain } else { ExpiryBound::Ttl };
            Some(Expiry { after: at.saturating_sub(now), bound })
        })
    }

    /// Resolves when the payload was acknowledged, cancelled by its receiver, or lost; at once if that has happened.
    ///
    /// # Cancel safety
    /// Yes; it can be called any number of times.
    pub fn settled(&self) -> impl Future<Output = Settled> + Send + 'static {
        let content = Arc::clone(&self.content);
        async move {
            loop {
                let mut changed = std::pin::pin!(content.changed.notified());
                changed.as_mut().enable();
                if let Some(settled) = content.settled.get() {
                    return *settled;
                }
                changed.await;
            }
        }
    }

    /// Resolves when a receiver that took a lease has shown no life for `after`, neither by taking bytes nor otherwise, and
    /// has not acknowledged. Bytes that are not written yet are no silence of the receiver's.
    ///
    /// # Cancel safety
    /// Yes; it can be called any number of times.
    pub fn abandoned(&self, after: Duration) -> impl Future<Output = ()> + Send + 'static {
        let (shared, id) = (Arc::clone(&self.shared), self.id);
        async move {
            loop {
                let quiet =
                    shared.with(|state, now| Some(now.saturating_sub(state.ledger.quiet_since(&id)?)));
                match quiet {
                    Some(quiet) if quiet >= after => return,
                    Some(quiet) => sleep(after - quiet).await,
                    // Nobody has a lease yet, so nobody can fall silent sooner than this.
                    None => sleep(after / 4).await,
                }
            }
        }
    }

    /// Reads the payload locally from byte 0, to send it inline; takes no retrieval and never lapses. `None` when byte 0
    /// has left the window or the payload is gone.
    pub fn reader_from_start(&self) -> Option<PayloadReader> {
        let key = LeaseKey::Local(self.shared.next_local.fetch_add(1, Ordering::Relaxed));
        let wish = LeaseWish { payload: self.id, key, peer: None, from: 0, to: None };
        match self.shared.with(|state, now| state.ledger.lease(now, wish)) {
            Ok(Leased::Granted(grant)) => Some(PayloadReader::new(
                Arc::clone(&self.shared),
                Arc::clone(&self.content),
                grant,
                wish.from,
                wish.to,
            )),
            // Local leases never wait.
            Ok(Leased::Waits(_)) | Err(_) => None,
        }
    }
}

impl Drop for PayloadGuard {
    fn drop(&mut self) {
        if !self.kept {
            self.shared.with(|state, now| state.ledger.end(now, &self.id, self.serial, Gone::Released));
        }
    }
}

impl fmt::Debug for PayloadGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayloadGuard").field("kept", &self.kept).finish_non_exhaustive()
    }
}
