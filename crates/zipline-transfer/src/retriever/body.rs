//! A retrieval as an HTTP body.

use super::retrieval::Retrieval;
use crate::error::{RetrieveError, RetrieveErrorKind as Kind};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How a retrieval ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Bytes that had arrived.
    pub bytes: u64,
    /// Time from the grant to the last byte or the failure; the acknowledgement is not part of it.
    pub elapsed: Duration,
    /// Why it failed. [`RetrieveErrorKind::Cancelled`](crate::RetrieveErrorKind::Cancelled): the consumer dropped it.
    pub error: Option<RetrieveError>,
    /// Whether the holder took the acknowledgement. Ranges are not acknowledged.
    pub acknowledged: bool,
}

/// Resolves when a [`RetrievalBody`] has ended and, if it was complete, its acknowledgement as well.
#[derive(Debug)]
pub struct RetrievalOutcome(oneshot::Receiver<Outcome>);

impl Future for RetrievalOutcome {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(outcome.unwrap_or_else(|_| Outcome {
            // The task owner ended before the acknowledgement did.
            bytes: 0,
            elapsed: Duration::ZERO,
            error: Some(Kind::Cancelled.into()),
            acknowledged: false,
        }))
    }
}

/// The payload's bytes, then its trailers. Ends only after a valid final record; everything else is an error.
///
/// Its size is exact if the length was known when the retrieval was granted. When everything was taken, a whole payload is
/// acknowledged as a task; the end of the body does not wait for that.
#[derive(Debug)]
pub struct RetrievalBody {
    retrieval: Option<Retrieval>,
    taken: u64,
    started: Instant,
    told: Option<oneshot::Sender<Outcome>>,
}

impl RetrievalBody {
    pub(super) fn new(retrieval: Retrieval) -> (Self, RetrievalOutcome) {
        let (told, outcome) = oneshot::channel();
        let body = Self { retrieval: Some(retrieval), taken: 0, started: Instant::now(), told: Some(told) };
        (body, RetrievalOutcome(outcome))
    }

    /// The retrieval has ended: acknowledges if it is complete and whole, and tells the outcome.
    fn end(&mut self, error: Option<RetrieveError>) {
        let Some(mut retrieval) = self.retrieval.take() else { return };
        let Some(told) = self.told.take() else { return };
        let outcome = Outcome {
            bytes: retrieval.received_bytes(),
            elapsed: self.started.elapsed(),
            error,
            acknowledged: false,
        };
        if outcome.error.is_some() || !retrieval.is_whole() {
            // Dropping the retrieval gives the lease back. Nobody may listen any more, here and below.
            drop(told.send(outcome));
        } else {
            retrieval.settle_acknowledged(move |result| {
                drop(told.send(Outcome { acknowledged: result.is_ok(), ..outcome }));
            });
        }
    }
}

impl Body for RetrievalBody {
    type Data = Bytes;
    type Error = RetrieveError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RetrieveError>>> {
        let this = self.get_mut();
        let Some(retrieval) = &mut this.retrieval else { return Poll::Ready(None) };
        match ready!(retrieval.poll_next(cx)) {
            Some(Ok(bytes)) => {
                this.taken += bytes.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Err(error)) => {
                this.end(Some(error.clone()));
                Poll::Ready(Some(Err(error)))
            }
            None => {
                let trailers = retrieval.trailer_map();
                match trailers {
                    Ok(trailers) => {
                        this.end(None);
                        Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
                    }
                    Err(error) => {
                        let error =
                            RetrieveError::new(Kind::Malformed { part: "trailers" }).with_source(error);
                        this.end(Some(error.clone()));
                        Poll::Ready(Some(Err(error)))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.retrieval {
            Some(retrieval) => retrieval.is_complete() && retrieval.trailers().is_empty(),
            None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.retrieval {
            Some(retrieval) => match retrieval.expected_bytes() {
                Some(expected) => SizeHint::with_exact(expected.saturating_sub(self.taken)),
                None => SizeHint::default(),
            },
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for RetrievalBody {
    fn drop(&mut self) {
        let complete = self.retrieval.as_ref().is_some_and(Retrieval::is_complete);
        self.end((!complete).then(|| Kind::Cancelled.into()));
    }
}
