//! A body fed by hand, bounded.

use super::Body;
use crate::error::BodyError;
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http_body::Frame;
use tokio::sync::mpsc;

enum Item {
    Frame(Frame<Bytes>),
    Abort(BodyError),
    End,
}

/// The writing end of [`Body::channel`].
///
/// Dropping it without [`BodySender::finish`] aborts the body: an end must be said.
#[derive(Debug)]
pub struct BodySender {
    items: mpsc::Sender<Item>,
}

/// The body was dropped; nobody reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("body is no longer read")]
pub struct SendClosed;

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Item")
    }
}

impl BodySender {
    /// Appends bytes; waits for room.
    ///
    /// # Errors
    /// [`SendClosed`]: the body was dropped.
    ///
    /// # Cancel safety
    /// If dropped before it completes, the bytes were not appended.
    pub async fn send(&self, data: Bytes) -> Result<(), SendClosed> {
        self.items.send(Item::Frame(Frame::data(data))).await.map_err(|_| SendClosed)
    }

    /// Ends the body, with trailers if given.
    ///
    /// # Errors
    /// [`SendClosed`]: the body was dropped.
    pub async fn finish(self, trailers: Option<HeaderMap>) -> Result<(), SendClosed> {
        let item = trailers.map_or(Item::End, |trailers| Item::Frame(Frame::trailers(trailers)));
        self.items.send(item).await.map_err(|_| SendClosed)
    }

    /// Aborts the body after what was sent so far. Dropping does the same with a general reason.
    pub async fn abort(self, error: BodyError) {
        // Nobody to tell if the body is gone.
        let _ = self.items.send(Item::Abort(error)).await;
    }

    /// Resolves when the body was dropped.
    pub async fn closed(&self) {
        self.items.closed().await;
    }
}

pub(super) fn channel(capacity: usize) -> (BodySender, Body) {
    let (items, receiver) = mpsc::channel(capacity.max(1));
    let frames = stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver: mpsc::Receiver<Item> = receiver?;
        match receiver.recv().await {
            Some(Item::Frame(frame)) => {
                let over = frame.is_trailers();
                Some((Ok(frame), (!over).then_some(receiver)))
            }
            Some(Item::End) => None,
            Some(Item::Abort(error)) => Some((Err(error), None)),
            None => Some((Err(BodyError::aborted("its producer went away before the end")), None)),
        }
    });
    (BodySender { items }, Body::from_frames(frames))
}
