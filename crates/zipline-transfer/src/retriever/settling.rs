//! How a lease that was granted ends: acknowledged, or given back.

use super::exchange::{ExchangeError, Holder, tell};
use super::{RETRY_PAUSE, Shared};
use crate::error::{RetrieveError, RetrieveErrorKind as Kind};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use zipline_protocol::LeaseId;
use zipline_protocol::data::Operation;

/// A lease that must end. Dropping it before it was acknowledged gives the lease back.
#[derive(Debug)]
pub(super) struct Settling {
    shared: Arc<Shared>,
    holder: Arc<Holder>,
    settled: bool,
}

impl Settling {
    pub(super) fn new(shared: Arc<Shared>, holder: Arc<Holder>) -> Self {
        Self { shared, holder, settled: false }
    }

    pub(super) fn lease(&self) -> LeaseId {
        self.holder.lease
    }

    /// Acknowledges as a task, and waits for it.
    pub(super) async fn acknowledge(mut self) -> Result<(), RetrieveError> {
        let (told, outcome) = oneshot::channel();
        self.acknowledged(move |result| drop(told.send(result)));
        outcome.await.unwrap_or_else(|_aborted| Err(Kind::Cancelled.into()))
    }

    /// Acknowledges as a task, once; `then` is told the result.
    pub(super) fn acknowledged(&mut self, then: impl FnOnce(Result<(), RetrieveError>) + Send + 'static) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let (shared, holder) = (Arc::clone(&self.shared), Arc::clone(&self.holder));
        drop(self.shared.tasks.spawn("acknowledge", async move {
            let result = acknowledge(&shared, &holder).await;
            if let Err(error) = &result {
                tracing::debug!(%error, "a retrieval could not be acknowledged");
            }
            then(result);
        }));
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        if !self.settled {
            give_back(&self.shared, &self.holder);
        }
    }
}

async fn acknowledge(shared: &Shared, holder: &Holder) -> Result<(), RetrieveError> {
    let limit = shared.config.progress_timeout;
    let mut last = RetrieveError::from(Kind::Stalled { after: limit });
    for attempt in 0..shared.config.acknowledge_attempts {
        sleep(RETRY_PAUSE * attempt).await;
        last = match timeout(limit, tell(shared, holder, Operation::Acknowledge, 0)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(ExchangeError::Final(error))) if matches!(error.kind(), Kind::Refused { .. }) => {
                return Err(error);
            }
            Ok(Err(ExchangeError::Final(error))) => error,
            Ok(Err(ExchangeError::Relayed(_))) => {
                Kind::Malformed { part: "a relay that nobody asked for" }.into()
            }
            Ok(Err(ExchangeError::Broken(error))) => {
                RetrieveError::new(Kind::Broken { attempts: attempt + 1 }).with_source(error)
            }
            Err(_elapsed) => Kind::Stalled { after: limit }.into(),
        };
    }
    Err(last)
}

/// Cancels a lease as a task, as well as it can be done.
pub(super) fn give_back(shared: &Arc<Shared>, holder: &Arc<Holder>) {
    let (owner, shared, holder) = (shared.tasks.clone(), Arc::clone(shared), Arc::clone(holder));
    drop(owner.spawn("cancel retrieval", async move {
        let limit = shared.config.progress_timeout;
        if !matches!(timeout(limit, tell(&shared, &holder, Operation::Cancel, 0)).await, Ok(Ok(()))) {
            tracing::debug!("a retrieval could not be cancelled, its lease will lapse");
        }
    }));
}
