//! The body of a request, in the hands of whoever reads it.

use super::core::{PolledFrame, Source};
use crate::error::BodyError;
use http::{HeaderMap, Request, StatusCode};
use http_body::SizeHint;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Reads the connection it came by.
pub(crate) struct RequestBody {
    source: Arc<dyn Source>,
    turn: u64,
    /// Bytes still to come, if they were announced.
    left: Option<u64>,
    ended: bool,
}

impl RequestBody {
    pub(super) fn new(source: Arc<dyn Source>, turn: u64, left: Option<u64>) -> Self {
        Self { source, turn, left, ended: false }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = self.source.poll_frame(self.turn, cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.left = self.left.map(|left| left.saturating_sub(length));
                self.ended = frame.is_trailers() || self.left == Some(0);
            }
            Poll::Ready(Some(Err(_)) | None) => self.ended = true,
        }
        polled
    }

    /// Bytes that [`Self::poll_read`] can bring.
    pub(crate) fn direct(&self) -> u64 {
        if self.ended { 0 } else { self.source.direct(self.turn) }
    }

    /// Reads the next bytes into `memory`, as long as there are [`Self::direct`] ones.
    pub(crate) fn poll_read(
        &mut self,
        memory: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, BodyError>> {
        let polled = self.source.poll_read(self.turn, memory, cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Ok(length)) => {
                self.left = self.left.map(|left| left.saturating_sub(*length as u64));
                self.ended = self.left == Some(0);
            }
            Poll::Ready(Err(_)) => self.ended = true,
        }
        polled
    }

    pub(crate) fn is_end(&self) -> bool {
        self.ended
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) => SizeHint::with_exact(left),
            None if self.ended => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.ended {
            self.source.give_up(self.turn);
        }
    }
}

/// Sends informational responses (1xx) to the client of an HTTP/1.1 request; it travels in the request's extensions.
///
/// [`crate::Client::send`] passes on what the target says before its response, if the request it is given has one.
#[derive(Clone)]
pub struct Informational {
    source: Arc<dyn Source>,
    turn: u64,
}

impl Informational {
    pub(super) fn new(source: Arc<dyn Source>, turn: u64) -> Self {
        Self { source, turn }
    }

    /// The one of a request, if its client can be told.
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        request.extensions().get().cloned()
    }

    /// Sends one, unless the response has begun or the client takes nothing. `100 Continue` is the server's own affair,
    /// and `101` is a response.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        if status.is_informational()
            && !matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS)
        {
            self.source.inform(self.turn, status, headers);
        }
    }
}

impl fmt::Debug for Informational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informational").field("turn", &self.turn).finish_non_exhaustive()
    }
}
