//! A retrieval and its share of the in-flight budget, read ahead while somebody else is not ready yet.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use tokio::time::Instant;
use zipline_buffer::Permit;
use zipline_http::{Body, BodyError, BodyErrorKind};
use zipline_protocol::{ErrorCode, Record};
use zipline_transfer::{Retrieval, RetrieveError, RetrieveOptions};

use crate::local_body::body_of;
use crate::state::Shared;

/// Bytes read ahead of whoever consumes them.
const READ_AHEAD: usize = 1024 * 1024;

/// What one retrieval takes of the in-flight budget: its read-ahead, one chunk above it and what is held back.
const IN_FLIGHT: u64 = 2 * 1024 * 1024;

/// Why a retrieval failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub(crate) struct BrokenOff {
    /// The stable code.
    pub(crate) code: ErrorCode,
    text: String,
}

impl From<RetrieveError> for BrokenOff {
    fn from(error: RetrieveError) -> Self {
        Self { code: error.code(), text: error.to_string() }
    }
}

/// A retrieval that was granted. Dropped before everything was delivered, it is cancelled; afterwards, acknowledged.
pub(crate) struct Retrieving {
    shared: Arc<Shared>,
    /// There until this is dropped.
    retrieval: Option<Retrieval>,
    permit: Permit,
    ahead: VecDeque<Bytes>,
    ahead_bytes: usize,
    ended: bool,
    started: Instant,
}

impl fmt::Debug for Retrieving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrieving")
            .field("ahead_bytes", &self.ahead_bytes)
            .field("ended", &self.ended)
            .finish()
    }
}

impl Retrieving {
    /// Waits for a share of the in-flight budget, connects to the holder and is granted the payload.
    ///
    /// # Errors
    /// [`BrokenOff`] if the budget's queue is full, or the holder cannot be reached or refuses.
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue or the lease.
    pub(crate) async fn start(shared: &Arc<Shared>, record: &Record) -> Result<Self, BrokenOff> {
        let started = Instant::now();
        let permit = shared
            .in_flight
            .acquire(IN_FLIGHT)
            .await
            .map_err(|error| BrokenOff { code: ErrorCode::BufferFull, text: error.to_string() })?;
        let retrieval = shared.retriever.start(record, RetrieveOptions::default()).await?;
        Ok(Self {
            shared: Arc::clone(shared),
            retrieval: Some(retrieval),
            permit,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            ended: false,
            started,
        })
    }

    /// Whether first bytes, or the end of an empty payload, are there.
    pub(crate) fn has_begun(&self) -> bool {
        self.ended || !self.ahead.is_empty()
    }

    /// Whether nothing more is to be read ahead.
    pub(crate) fn is_full(&self) -> bool {
        self.ended || self.ahead_bytes >= READ_AHEAD
    }

    /// Reads one chunk ahead.
    ///
    /// # Errors
    /// [`BrokenOff`] if the retrieval failed.
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn read_ahead(&mut self) -> Result<(), BrokenOff> {
        match next_of(&mut self.retrieval).await {
            Some(chunk) => {
                let chunk = chunk?;
                self.ahead_bytes += chunk.len();
                self.ahead.push_back(chunk);
            }
            None => self.ended = true,
        }
        Ok(())
    }

    /// The payload as a body, its trailers included. `broke_off` is told if it fails; the body then fails too.
    pub(crate) fn into_body(self, broke_off: impl FnOnce(BrokenOff) + Send + 'static) -> Body {
        let length = self.retrieval.as_ref().and_then(Retrieval::length);
        let state = Some((self, broke_off));
        let frames = stream::unfold(state, |state| async move {
            let (mut retrieving, broke_off) = state?;
            match retrieving.next().await {
                Some(Ok(chunk)) => Some((Ok(Frame::data(chunk)), Some((retrieving, broke_off)))),
                Some(Err(error)) => {
                    broke_off(error.clone());
                    Some((Err(BodyError::new(BodyErrorKind::PayloadLost, error)), None))
                }
                None => {
                    let trailers =
                        zipline_transfer::trailers::decode(retrieving.retrieval.as_ref()?.trailers());
                    let trailers = trailers.ok().filter(|trailers| !trailers.is_empty())?;
                    Some((Ok(Frame::trailers(trailers)), None))
                }
            }
        });
        body_of(length, frames)
    }

    async fn next(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        if let Some(chunk) = self.ahead.pop_front() {
            return Some(Ok(chunk));
        }
        if self.ended {
            return None;
        }
        let next = next_of(&mut self.retrieval).await;
        self.ended = next.is_none();
        next.map(|chunk| chunk.map_err(BrokenOff::from))
    }
}

async fn next_of(retrieval: &mut Option<Retrieval>) -> Option<Result<Bytes, RetrieveError>> {
    retrieval.as_mut()?.next().await
}

impl Drop for Retrieving {
    fn drop(&mut self) {
        self.shared.metrics.retrieved(self.started.elapsed());
        tracing::trace!(permit_bytes = self.permit.bytes(), "retrieval ended");
        // A consumer that counts does not ask for the end after the last byte, so this is where it shows.
        if let Some(retrieval) = self.retrieval.take().filter(Retrieval::is_complete)
            && self.ahead.is_empty()
        {
            self.shared.tasks.spawn("acknowledge", async move {
                if let Err(error) = retrieval.acknowledge().await {
                    tracing::debug!(%error, "a retrieval could not be acknowledged");
                }
            });
        }
    }
}
