//! The body of a get: hands a payload to the client and acknowledges it once the client took everything.
//!
//! | state | event | next |
//! |---|---|---|
//! | delivering | a chunk that is not the last | delivering |
//! | delivering | the last chunk, and the source ended as it should | delivered |
//! | delivering | the source fails, or ends early | failed: the body is aborted, never ended |
//! | delivering | the body is dropped | given up: nothing is spent |
//! | delivered | polled again, or dropped | acknowledged, or given up if it was a range |
//!
//! The last chunk is handed out only when the source has proven its end, so a client that has all bytes has right ones.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use tokio::time::Instant;
use zipline_buffer::{PayloadReader, Permit};
use zipline_http::{Body, BodyError, BodyErrorKind};
use zipline_protocol::{LeaseId, PayloadId, ReferenceKind, Way};
use zipline_transfer::Retrieval;
use zipline_transfer::host::Receipt;

use crate::edges::{Direction, Zones};
use crate::state::{Shared, Transfer};

/// Bytes of shared memory handed out at a time.
const CHUNK: usize = 1024 * 1024;

/// Where the bytes come from.
pub(super) enum Source {
    /// This queue-proxy's own buffer.
    Local { reader: PayloadReader, payload: PayloadId, lease: LeaseId },
    /// Another queue-proxy, with a share of the in-flight budget.
    Remote { retrieval: Box<Retrieval>, permit: Permit, zones: Zones },
    /// The memory of a holder on this host, which is charged to its budget.
    Neighbour { left: Bytes, receipt: Receipt, zones: Zones },
}

impl Source {
    /// The payload's whole length, as its holder says.
    pub(super) async fn length(&mut self) -> Result<u64, BodyError> {
        match self {
            Self::Local { reader, .. } => reader.completed().await.map(|record| record.length).map_err(lost),
            Self::Remote { retrieval, .. } => {
                retrieval.length().ok_or_else(|| lost("its holder knows no length of it yet"))
            }
            Self::Neighbour { left, .. } => Ok(left.len() as u64),
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        match self {
            Self::Local { reader, .. } => Some(reader.next().await?.map_err(lost)),
            Self::Remote { retrieval, .. } => Some(retrieval.next().await?.map_err(lost)),
            Self::Neighbour { left, .. } if left.is_empty() => None,
            Self::Neighbour { left, .. } => Some(Ok(left.split_to(left.len().min(CHUNK)))),
        }
    }
}

fn lost(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BodyError {
    BodyError::new(BodyErrorKind::PayloadLost, why)
}

/// A payload on its way to the client.
pub(super) struct Delivery {
    shared: Arc<Shared>,
    source: Option<Source>,
    /// Bytes that are still to be handed out.
    left: u64,
    length: u64,
    /// Whether the source has proven that the payload ends where it should.
    proven: bool,
    /// Whether the whole payload was asked for; ranges spend nothing.
    spends: bool,
    started: Instant,
}

impl Delivery {
    /// A delivery of `length` bytes from `source`.
    pub(super) fn new(shared: &Arc<Shared>, source: Source, length: u64, spends: bool) -> Self {
        Self {
            shared: Arc::clone(shared),
            source: Some(source),
            left: length,
            length,
            proven: false,
            spends,
            started: Instant::now(),
        }
    }

    /// The body that delivers, once its first chunk is there: until then a failure can still be told as one.
    pub(super) async fn into_body(mut self) -> Result<Body, BodyError> {
        if self.length == 0 {
            // No chunk will come, so the end is proven here.
            self.end_of_source().await?;
            self.settle().await;
            return Ok(Body::empty());
        }
        let length = self.length;
        let first = self.next().await.transpose()?;
        let frames = stream::unfold((first, Some(self)), |(first, delivery)| async {
            let mut delivery = delivery?;
            let next = match first {
                Some(bytes) => Some(Ok(bytes)),
                None => delivery.next().await,
            };
            match next {
                Some(Ok(bytes)) => Some((Ok(Frame::data(bytes)), (None, Some(delivery)))),
                Some(Err(error)) => Some((Err(error), (None, None))),
                None => None,
            }
        });
        Ok(Body::from_frames_sized(length, frames))
    }

    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        if self.left == 0 {
            self.settle().await;
            return None;
        }
        let bytes = match self.source.as_mut()?.next().await {
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => return Some(Err(error)),
            None => return Some(Err(lost("the payload ended early"))),
        };
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            return Some(Err(lost("the payload is longer than its reference says")));
        };
        if left == 0
            && let Err(error) = self.end_of_source().await
        {
            return Some(Err(error));
        }
        self.left = left;
        Some(Ok(bytes))
    }

    /// Waits for the source to prove that the payload ends here.
    async fn end_of_source(&mut self) -> Result<(), BodyError> {
        let Some(source) = self.source.as_mut() else { return Ok(()) };
        match source.next().await {
            None => {
                self.proven = true;
                Ok(())
            }
            Some(Err(error)) => Err(error),
            Some(Ok(_)) => Err(lost("the payload is longer than its reference says")),
        }
    }

    /// Tells the holder how it ended, and waits until it knows.
    async fn settle(&mut self) {
        if let Some(pending) = self.begin_to_settle() {
            pending.finish().await;
        }
    }

    /// Settles what this process holds itself; gives back what takes a message to another one.
    fn begin_to_settle(&mut self) -> Option<Acknowledgement> {
        let source = self.source.take()?;
        let delivered = self.left == 0 && self.proven;
        if delivered {
            self.count(&source);
        }
        let acknowledge = delivered && self.spends;
        match source {
            Source::Local { payload, lease, .. } => {
                let store = &self.shared.store;
                let told = if acknowledge {
                    store.acknowledge(&payload, &lease).map(drop)
                } else {
                    store.cancel(&payload, &lease)
                };
                if let Err(error) = told {
                    tracing::debug!(%error, "a local get could not be settled");
                }
                None
            }
            Source::Remote { retrieval, permit, .. } if acknowledge => {
                Some(Acknowledgement::Retrieval(retrieval, permit))
            }
            Source::Neighbour { receipt, .. } if acknowledge => Some(Acknowledgement::Receipt(receipt)),
            // Dropping a retrieval or a receipt cancels it.
            Source::Remote { .. } | Source::Neighbour { .. } => None,
        }
    }

    fn count(&self, source: &Source) {
        let elapsed = self.started.elapsed();
        let (way, zones) = match source {
            Source::Local { .. } => return,
            Source::Remote { zones, .. } => (Way::Network, zones),
            Source::Neighbour { zones, .. } => (Way::SameHost, zones),
        };
        self.shared.metrics.retrieved(elapsed);
        self.shared.record(Transfer {
            direction: Direction::Received,
            kind: ReferenceKind::Put,
            peer: None,
            way,
            reason: None,
            zones: *zones,
            bytes: self.length,
            elapsed,
        });
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(pending) = self.begin_to_settle() {
            drop(self.shared.tasks.spawn("acknowledge a get", pending.finish()));
        }
    }
}

/// An acknowledgement that is on its way to the holder.
enum Acknowledgement {
    Retrieval(Box<Retrieval>, Permit),
    Receipt(Receipt),
}

impl Acknowledgement {
    async fn finish(self) {
        match self {
            Self::Retrieval(retrieval, permit) => {
                if let Err(error) = retrieval.acknowledge().await {
                    tracing::warn!(%error, "a retrieval could not be acknowledged");
                }
                drop(permit);
            }
            Self::Receipt(receipt) => receipt.acknowledge().await,
        }
    }
}
